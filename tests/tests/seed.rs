//! The first user's file of 2007 on its own addresses: each node a process in a network of its own, where
//! 192.168.1.109, 224.0.0.5:46002, 4002 and 8080 are what stands there. Stock cannot start with it; through
//! `ringtribe migrate` and through `config` two nodes run, and the system and JMX show its values.
//!
//! Where namespaces are refused, `migrated` and `one_line` do this on loopback, with other ports.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ringtribe::server_xml::migrate::{self, Surroundings, migrate};
use ringtribe_tests::build::{self, Flavour, Line};
use ringtribe_tests::http::Browser;
use ringtribe_tests::netns::{Network, NetworkError};
use ringtribe_tests::process::Patience;
use ringtribe_tests::tomcat::{Setup, Tomcat};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(30), pause: Duration::from_millis(20) };
const SEED: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 109);
/// The second node's: what a user changes in the copy of the file.
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 110);
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 5);
const MCAST_PORT: u16 = 46_002;
const TCP_PORT: u16 = 4002;
const HTTP_PORT: u16 = 8080;
/// Each attribute of Cluster, Membership, Receiver and Sender, but for class names and the address.
const VALUES: [(&str, &str); 12] = [
    ("expireSessionsOnShutdown", "false"),
    ("useDirtyFlag", "true"),
    ("notifyListenersOnReplication", "true"),
    ("mcastAddr", "224.0.0.5"),
    ("mcastPort", "46002"),
    ("mcastFrequency", "500"),
    ("mcastDropTime", "3000"),
    ("tcpListenPort", "4002"),
    ("tcpSelectorTimeout", "100"),
    ("tcpThreadCount", "6"),
    ("ackTimeout", "15000"),
    ("waitForAck", "true"),
];
const CLUSTER: &str = "Catalina:type=Cluster,host=localhost";
const VALVE: &str = "Catalina:type=Valve,host=localhost,name=RingtribeReplicationValve";
const FILTER: &str = r".*\.gif|.*\.js|.*\.jpg|.*\.png|.*\.htm|.*\.html|.*\.css|.*\.txt";

fn seed() -> String {
    let file = build::root().join("tests/testdata/seed-server.xml");
    fs::read_to_string(file).expect("the seed")
}

/// Two hosts with the addresses; none where that is refused.
fn network() -> Option<Network> {
    let made = Network::make(2).and_then(|network| {
        for (host, ip) in [SEED, SECOND].into_iter().enumerate() {
            network.renumber(host, ip)?;
        }
        Ok(network)
    });
    match made {
        Ok(network) => Some(network),
        Err(NetworkError::Lacking(why)) => {
            let why = NetworkError::Lacking(why);
            println!(
                "skipped: {why}; migrated and one_line are this on loopback, with other ports"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The tests run at the same time, so each has names of its own.
fn setup(network: &Network, host: usize, flavour: Flavour, form: &str) -> Setup {
    Setup {
        namespace: Some(network.host(host)),
        http_port: Some(HTTP_PORT),
        ..Setup::new(&format!("{form}-{host}"), flavour, MCAST_PORT)
    }
}

#[test]
fn stock_does_not_start_with_the_untouched_file() {
    let Some(network) = network() else { return };
    for line in Line::ALL {
        let mut setup = setup(&network, 0, Flavour::Stock, line.word());
        (setup.line, setup.server) = (line, Some(seed()));
        let log = Tomcat::refused(&setup).expect("it does not start");
        let why = "ClassNotFoundException: org.apache.catalina.mbeans.ServerLifecycleListener";
        assert!(log.contains(why), "Tomcat {}: {log}", line.word());
        println!("stock Tomcat {} with the untouched file: {why}", line.word());
    }
}

struct Machine(Ipv4Addr);

impl Surroundings for Machine {
    fn secret(&self) -> std::io::Result<String> {
        Ok("5ec2e7".repeat(5))
    }

    fn is_here(&self, address: IpAddr) -> bool {
        address == self.0
    }

    fn not_copied(&self, _: &str) -> Vec<(String, String)> {
        Vec::new()
    }
}

fn once(text: &str, was: &str, is: &str) -> String {
    assert_eq!(text.matches(was).count(), 1, "{was} in {text}");
    text.replace(was, is)
}

/// Of the file, what is not the cluster's and would write outside of this run's directory.
fn of_this_run(text: &str) -> String {
    ["temp", "deploy", "listen"].iter().fold(text.to_owned(), |text, directory| {
        once(&text, &format!("/tmp/war-{directory}/"), &format!("war-{directory}"))
    })
}

/// What a user does: `ringtribe migrate`, and what its table advises.
fn migrated(ip: Ipv4Addr) -> String {
    let file = once(&seed(), &SEED.to_string(), &ip.to_string());
    let text = migrate(&file, migrate::Line::V10_1, &Machine(ip)).expect("it is migrated").text;
    let listener = "  <Listener className=\"org.apache.catalina.storeconfig.StoreConfigLifecycleListener\"/>\n";
    once(&once(&of_this_run(&text), listener, ""), "/backup/app_log/tomcat/", "logs")
}

/// Local address and port of what `/proc/PID/net/FILE` lists in this state.
fn sockets(pid: u32, file: &str, state: &str) -> Vec<(Ipv4Addr, u16)> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/{file}")).expect("its sockets");
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = words.get(1)?.split_once(':')?;
        // The address is a word of the machine, as it lies in memory.
        let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
        (*words.get(3)? == state).then_some((ip, u16::from_str_radix(port, 16).ok()?))
    };
    text.lines().skip(1).filter_map(parse).collect()
}

/// The groups that eth0 is in.
fn groups(pid: u32) -> Vec<Ipv4Addr> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/igmp")).expect("its groups");
    let mut device = "";
    let mut found = Vec::new();
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if line.starts_with(char::is_whitespace) {
            let word = u32::from_str_radix(first, 16).expect("an address");
            if device == "eth0" {
                found.push(Ipv4Addr::from(word.to_ne_bytes()));
            }
        } else {
            device = words.next().unwrap_or_default();
        }
    }
    found
}

fn jmx(node: &Tomcat, bean: &str, attribute: &str) -> String {
    let answer = node.ask(&mut Browser::default(), &format!("/jmx?bean={bean}&get={attribute}"));
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{bean} {attribute}: {}", answer.body);
    answer.body
}

fn shows_the_files_values(node: &Tomcat, ip: Ipv4Addr, origin: &str) {
    const LISTENS: &str = "0A";
    const BOUND: &str = "07";
    let pid = node.pid();
    let listening = sockets(pid, "tcp", LISTENS);
    assert!(listening.contains(&(ip, TCP_PORT)), "{listening:?}");
    let http = listening.iter().filter(|(_, port)| *port == HTTP_PORT).count();
    assert_eq!(http, 1, "{listening:?}");
    let bound = sockets(pid, "udp", BOUND);
    assert!(bound.iter().any(|(_, port)| *port == MCAST_PORT), "{bound:?}");
    let groups = groups(pid);
    assert!(groups.contains(&GROUP), "{groups:?}");

    let effective = jmx(node, CLUSTER, "effectiveConfiguration");
    let is_there = |attribute: &str, value: &str| {
        let at = format!(" {attribute}={value} (");
        let found = format!(" {effective}").split_once(&at).map(|(_, rest)| rest.to_owned());
        let found = found.unwrap_or_else(|| panic!("no {at} in {effective}"));
        let from = found.split(')').next().unwrap_or_default().to_owned();
        // A default that happens to be the same would prove nothing.
        assert!(from.contains(origin), "{attribute}={value} is from {from}, not {origin}");
    };
    for (attribute, value) in VALUES {
        is_there(attribute, value);
    }
    is_there("tcpListenAddress", &ip.to_string());
    is_there("replicationMode", "pooled");
    assert_eq!(jmx(node, CLUSTER, "channelSendOptions"), "6");
    assert_eq!(jmx(node, VALVE, "filter"), FILTER);
}

fn run(form: &str, origin: &str, setups: [Setup; 2]) {
    let nodes = setups.map(|setup| Tomcat::start(&setup).expect("it starts"));
    for (node, ip) in nodes.iter().zip([SEED, SECOND]) {
        shows_the_files_values(node, ip, origin);
        println!("{form}: {ip}:{TCP_PORT} listens, eth0 is in {GROUP}, port {MCAST_PORT} is bound");
    }
    // One cluster, both ways.
    let [a, b] = &nodes;
    let mut browser = Browser::default();
    for (here, there, value) in [(a, b, "of-a"), (b, a, "of-b")] {
        let set = here.ask(&mut browser, &format!("/set?k=x&v={value}")).expect("an answer");
        assert_eq!((set.status, set.body.as_str()), (200, value));
        PATIENCE.until("the other one has it", || {
            there.ask(&mut browser.clone(), "/get?k=x").is_ok_and(|answer| answer.body == value)
        });
    }
}

#[test]
fn two_nodes_run_with_the_migrated_file_on_its_own_addresses() {
    let Some(network) = network() else { return };
    let setups = [(0, SEED), (1, SECOND)].map(|(host, ip)| Setup {
        server: Some(migrated(ip)),
        ..setup(&network, host, Flavour::Ringtribe, "migrate")
    });
    run("migrate", "Cluster", setups);
}

#[test]
fn two_nodes_run_with_config_naming_the_file_on_its_own_addresses() {
    let Some(network) = network() else { return };
    let element = "<Cluster className=\"org.ringtribe.tomcat.RingtribeCluster\" config=\"conf/cluster-5.5.xml\"/>";
    let setups = [(0, SEED), (1, SECOND)].map(|(host, ip)| {
        let file = once(&of_this_run(&seed()), &SEED.to_string(), &ip.to_string());
        Setup {
            cluster: Some(element.to_owned()),
            files: vec![("cluster-5.5.xml".into(), file)],
            ..setup(&network, host, Flavour::Ringtribe, "config")
        }
    });
    run("config", "conf/cluster-5.5.xml", setups);
}
