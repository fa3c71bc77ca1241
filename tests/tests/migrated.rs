//! What `ringtribe migrate` makes of the first user's file of 2007, as a real Tomcat of each line:
//! it starts, its values are the file's, and the three are one cluster.

use std::fs;
use std::net::{IpAddr, UdpSocket};

use ringtribe::server_xml::migrate::{self, Migrated, Surroundings, migrate};
use ringtribe_tests::build::{self, Flavour::Ringtribe, Line};
use ringtribe_tests::http::Browser;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port};

/// Values that stand in the file and are in force, by the name that stands there.
const VALUES: [(&str, &str); 13] = [
    ("expireSessionsOnShutdown", "false"),
    ("useDirtyFlag", "true"),
    ("notifyListenersOnReplication", "true"),
    ("mcastAddr", "224.0.0.5"),
    ("mcastPort", "@MCAST_PORT@"),
    ("mcastFrequency", "500"),
    ("mcastDropTime", "3000"),
    ("tcpListenAddress", "127.0.0.1"),
    ("tcpSelectorTimeout", "100"),
    ("tcpThreadCount", "6"),
    ("replicationMode", "pooled"),
    ("ackTimeout", "15000"),
    ("waitForAck", "true"),
];
const FILTER: &str = r".*\.gif|.*\.js|.*\.jpg|.*\.png|.*\.htm|.*\.html|.*\.css|.*\.txt";
const CLUSTER_BEAN: &str = "Catalina:type=Cluster,host=localhost";
const VALVE_BEAN: &str = "Catalina:type=Valve,host=localhost,name=RingtribeReplicationValve";

struct Machine;

impl Surroundings for Machine {
    fn secret(&self) -> std::io::Result<String> {
        Ok("5ec2e7".repeat(5))
    }

    fn is_here(&self, address: IpAddr) -> bool {
        UdpSocket::bind((address, 0)).is_ok()
    }

    fn not_copied(&self, _: &str) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// The file as it is run: edited where the table says that it needs a hand, and with ports and
/// directories of this run, since others run on this machine.
fn as_run(migrated: &Migrated) -> String {
    let advice = |part: &str, why: &str| {
        let is_it =
            |row: &&migrate::Row| row.is.as_ref() == Some(&row.was) && row.was.contains(part);
        let row = migrated.rows.iter().find(is_it).unwrap_or_else(|| panic!("no row of {part}"));
        assert!(row.why.contains(why), "{row:?}");
    };
    let mut text = migrated.text.clone();
    let mut edit = |was: &str, is: &str| {
        assert_eq!(text.matches(was).count(), 1, "{was} in {text}");
        text = text.replace(was, is);
    };
    advice("tcpListenAddress=\"192.168.1.109\"", "else give one of this");
    // A group is joined on loopback, so that nothing of a test leaves the machine.
    edit("192.168.1.109", "127.0.0.1\" mcastBindAddr=\"127.0.0.1");
    advice("StoreConfigLifecycleListener", "else take this line out");
    edit(
        "  <Listener className=\"org.apache.catalina.storeconfig.StoreConfigLifecycleListener\"/>\n",
        "",
    );
    edit("port=\"8080\"", "port=\"@HTTP_PORT@\" address=\"127.0.0.1\"");
    // The shutdown port, and AJP's: 0 is any that is free.
    edit("port=\"8005\"", "port=\"-1\"");
    edit("port=\"8009\"", "port=\"0\"");
    edit("address=\"0.0.0.0\"", "address=\"127.0.0.1\"");
    edit("46002", "@MCAST_PORT@");
    edit("4002", "@TCP_PORT@");
    edit("/backup/app_log/tomcat/", "logs");
    for directory in ["temp", "deploy", "listen"] {
        edit(&format!("/tmp/war-{directory}/"), &format!("war-{directory}"));
    }
    text
}

fn jmx(node: &Tomcat, bean: &str, attribute: &str) -> String {
    let path = format!("/jmx?bean={bean}&get={attribute}");
    let answer = node.ask(&mut Browser::default(), &path).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// What a line of effective values has for an attribute, with where it came from.
fn value_of<'l>(line: &'l str, attribute: &str) -> &'l str {
    let at = format!(" {attribute}=");
    let rest = line.split_once(&at).unwrap_or_else(|| panic!("no {attribute} in {line}")).1;
    rest.split_once(')').expect("an origin").0
}

#[test]
fn the_first_users_file_runs_on_each_line_with_its_values() {
    let seed = build::root().join("tests/testdata/seed-server.xml");
    let seed = fs::read_to_string(seed).expect("the seed");
    let mcast_port = free_mcast_port();
    let mut nodes = Vec::new();
    for (line, to) in
        Line::ALL.into_iter().zip([migrate::Line::V9_0, migrate::Line::V10_1, migrate::Line::V11_0])
    {
        assert_eq!(line.word(), to.to_string());
        let migrated = migrate(&seed, to, &Machine).expect("it is migrated");
        let name = format!("node-{}", line.word());
        let setup = Setup {
            line,
            server: Some(as_run(&migrated)),
            ..Setup::new(&name, Ringtribe, mcast_port)
        };
        let node = Tomcat::start(&setup).expect("it starts");

        let logged = node.log_from("configured: ").expect("the line of effective values");
        let managed = format!("configured: {}", jmx(&node, CLUSTER_BEAN, "effectiveConfiguration"));
        assert_eq!(logged, managed, "the log and JMX have the same");
        for (attribute, value) in VALUES {
            let value = value.replace("@MCAST_PORT@", &mcast_port.to_string());
            let found = value_of(&logged, attribute);
            let from = found.strip_prefix(&format!("{value} (")).unwrap_or("");
            // A default that happens to be the same would prove nothing.
            assert!(from.contains("Cluster"), "Tomcat {}: {attribute}={found}", line.word());
        }
        assert_eq!(jmx(&node, CLUSTER_BEAN, "channelSendOptions"), "6");
        assert_eq!(jmx(&node, VALVE_BEAN, "filter"), FILTER);
        let manager = value_of(&logged, "manager");
        assert!(manager.starts_with("org.ringtribe.tomcat.RingtribeDeltaManager"), "{manager}");
        for complaint in ["did not find a matching property", "No rules found matching"] {
            assert_eq!(node.log_from(complaint), None, "Tomcat {}", line.word());
        }
        nodes.push(node);
    }

    // One cluster: what one line's Tomcat has, the others have.
    let mut browser = Browser::default();
    let set = nodes[0].ask(&mut browser, "/set?k=of&v=2007").expect("an answer");
    assert_eq!((set.status, set.body.as_str()), (200, "2007"));
    for node in &nodes {
        let got = node.ask(&mut browser.clone(), "/get?k=of").expect("an answer");
        assert_eq!((got.status, got.body.as_str()), (200, "2007"), "see {:?}", node.base());
    }
}
