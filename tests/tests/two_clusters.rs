//! Two clusters of two real Tomcats, apart by mcastAddr or by clusterName, behind one address that gives
//! requests to all four in turn: no session, no member and no WAR crosses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use ringtribe_tests::balancer::{Balancer, Kind, Node, steady_port};
use ringtribe_tests::build::Flavour;
use ringtribe_tests::http::Browser;
use ringtribe_tests::process::Patience;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port, one_element};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(60), pause: Duration::from_millis(20) };
const SESSIONS_COUNT: usize = 40;
const ROUTES: [&str; 4] = ["node-a", "node-b", "node-c", "node-d"];
const DEPLOYER: &str = "<Deployer className=\"org.apache.catalina.ha.deploy.FarmWarDeployer\" \
    tempDir=\"farm-temp\" deployDir=\"webapps\" watchDir=\"farm-watch\" watchEnabled=\"true\" \
    processDeployFrequency=\"1\"/>";

/// The first two nodes are one cluster, the others the other one.
const fn cluster_of(node: usize) -> usize {
    node / 2
}

/// Sessions of a node by id, without the route in it.
fn copies(node: &Tomcat) -> BTreeMap<String, String> {
    let answer = node.ask(&mut Browser::default(), "/copies?k=x").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines = answer.body.lines().filter_map(|line| line.split_once(' '));
    let bare = |id: &str| id.split('.').next().unwrap_or(id).to_owned();
    lines.map(|(id, value)| (bare(id), value.to_owned())).collect()
}

/// Ports of members that a node has seen, as its log names them.
fn members(node: &Tomcat) -> BTreeSet<String> {
    let log = node.log().expect("a log");
    let added = log.lines().filter_map(|line| line.split_once("Replication member added:"));
    let port = |(_, rest): (&str, &str)| {
        let (_, rest) = rest.split_once("tcp://{127, 0, 0, 1}:")?;
        Some(rest.split(',').next()?.to_owned())
    };
    added.filter_map(port).collect()
}

fn own_port(node: &Tomcat) -> String {
    let at = node.log_from("Receiver listens on 127.0.0.1:").expect("it listens");
    at.rsplit_once(':').expect("a port").1.to_owned()
}

fn has_war(node: &Tomcat, name: &str) -> bool {
    node.base().join("webapps").join(name).exists()
}

/// `elements`: the Cluster element of each cluster.
fn have_nothing_in_common(what: &str, elements: [String; 2]) {
    let mcast_port = free_mcast_port();
    let nodes = ROUTES.map(|route| Node { route, http_port: steady_port(), ajp_port: 0 });
    let start = |index: usize| {
        let node = &nodes[index];
        let setup = Setup {
            cluster: Some(elements[cluster_of(index)].clone()),
            http_port: Some(node.http_port),
            ..Setup::new(node.route, Flavour::Ringtribe, mcast_port)
        };
        Tomcat::start(&setup).expect("it starts")
    };
    let tomcats = [0, 1, 2, 3].map(start);
    let directory = tomcats[0].base().parent().expect("a directory");
    let pair = [nodes[0].clone(), nodes[1].clone()];
    let balancer = Balancer::start(Kind::Haproxy, directory, pair, "", |text| {
        // In turn, wherever the session is.
        let sticky = |line: &&str| !line.trim_start().starts_with("use-server");
        let check = "uri /ringtribe-ready ";
        assert!(text.contains(check) && text.contains("use-server") && text.contains("roundrobin"));
        let mut text: Vec<_> = text.lines().filter(sticky).map(str::to_owned).collect();
        for node in &nodes[2..] {
            text.push(format!("    server {} 127.0.0.1:{}", node.route, node.http_port));
        }
        text.join("\n").replace(check, "uri /app/s/jmx?bean=Catalina:type=Server&get=port ") + "\n"
    });
    let balancer = balancer.expect("it starts");
    for route in ROUTES {
        PATIENCE.until(&format!("{route} is in service"), || balancer.gives_to(route));
    }

    // Sessions begin wherever the turn is; each is at both nodes of its cluster when its answer is there.
    let mut expected = [BTreeMap::new(), BTreeMap::new()];
    let mut served = BTreeSet::new();
    let mut browsers: Vec<Browser> = vec![Browser::default(); SESSIONS_COUNT];
    for (number, browser) in browsers.iter_mut().enumerate() {
        let path = format!("/app/s/set?k=x&v={number}");
        let answer = browser.get(balancer.address(), &path).expect("an answer");
        assert_eq!((answer.status, answer.body), (200, number.to_string()));
        let (id, route) = browser.session().and_then(|id| id.split_once('.')).expect("a session");
        let index = ROUTES.iter().position(|known| *known == route).expect("one of the four");
        served.insert(index);
        expected[cluster_of(index)].insert(id.to_owned(), number.to_string());
    }
    assert_eq!(served.len(), ROUTES.len(), "the turn comes to each");
    for (index, node) in tomcats.iter().enumerate() {
        let mut found = copies(node);
        // Those of the probes have no such attribute.
        found.retain(|_, value| value != "null");
        assert_eq!(found, expected[cluster_of(index)], "{what}: sessions at {}", ROUTES[index]);
    }
    // Wherever the turn takes a session, it is known if and only if that is its own cluster.
    for (number, browser) in browsers.iter_mut().take(8).enumerate() {
        let id =
            browser.session().and_then(|id| id.split('.').next()).expect("a session").to_owned();
        for (index, node) in tomcats.iter().enumerate() {
            let doing = format!("{what}: {id} at {}", ROUTES[index]);
            if expected[cluster_of(index)].contains_key(&id) {
                // The route in the cookie moves with it.
                let answer = node.ask(browser, "/get?k=x").expect("an answer");
                assert_eq!((answer.status, answer.body), (200, number.to_string()), "{doing}");
            } else {
                let answer = node.ask(&mut browser.clone(), "/get?k=x").expect("an answer");
                assert_eq!(answer.status, 404, "{doing}");
            }
        }
    }

    for (index, node) in tomcats.iter().enumerate() {
        let other = own_port(&tomcats[index ^ 1]);
        assert_eq!(members(node), BTreeSet::from([other]), "{what}: members of {}", ROUTES[index]);
    }

    for (from, name) in [(0, "first.war"), (2, "second.war")] {
        // An empty archive is one.
        let archive = [b"PK\x05\x06".as_slice(), &[0; 18]].concat();
        fs::write(tomcats[from].base().join("farm-watch").join(name), archive).expect("written");
        for index in [from, from + 1] {
            let doing = format!("{name} at {}", ROUTES[index]);
            PATIENCE.until(&doing, || has_war(&tomcats[index], name));
        }
    }
    // The second came after the first, to its own cluster only; both would have been everywhere.
    for (index, node) in tomcats.iter().enumerate() {
        let found = ["first.war", "second.war"].map(|name| has_war(node, name));
        let right = [cluster_of(index) == 0, cluster_of(index) == 1];
        assert_eq!(found, right, "{what}: WARs at {}", ROUTES[index]);
    }
    println!(
        "{what}: {SESSIONS_COUNT} sessions, {} in one cluster and {} in the other; none, no member and no WAR \
         crossed",
        expected[0].len(),
        expected[1].len()
    );
}

#[test]
fn no_session_member_or_war_crosses() {
    if !Kind::Haproxy.is_installed() {
        return;
    }
    let element = |attributes: &str| one_element(attributes, DEPLOYER);
    let group = |address: &str| element("").replace("228.0.0.4", address);
    have_nothing_in_common("mcastAddr", [group("228.0.0.4"), group("228.0.0.5")]);
    if std::env::var("RINGTRIBE_CLUSTERS").is_ok_and(|which| which == "full") {
        let name = |name: &str| element(&format!("clusterName=\"{name}\""));
        have_nothing_in_common("clusterName", [name("one"), name("two")]);
    }
}
