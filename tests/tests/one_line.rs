//! The one element, a file of 2007, and a machine where the library cannot load, as real Tomcats in one
//! cluster.

use std::fs;
use std::time::{Duration, Instant};

use ringtribe_tests::build::{self, Flavour::Ringtribe, Line};
use ringtribe_tests::http::Browser;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port, one_element};

const WITHIN: Duration = Duration::from_secs(30);
const AT_ONCE_COUNT: usize = 8;
const ROUNDS_COUNT: usize = 25;

fn setup(name: &str, mcast_port: u16, cluster: String) -> Setup {
    Setup { cluster: Some(cluster), ..Setup::new(name, Ringtribe, mcast_port) }
}

fn ask(node: &Tomcat, browser: &mut Browser, path: &str) -> String {
    let answer = node.ask(browser, path).expect("an answer");
    format!("{} {}", answer.status, answer.body)
}

fn await_equal(what: &str, mut one: impl FnMut() -> String, mut other: impl FnMut() -> String) {
    let until = Instant::now() + WITHIN;
    loop {
        let (left, right) = (one(), other());
        if left == right {
            return;
        }
        assert!(Instant::now() < until, "{what}: {left} and {right} after {WITHIN:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// An attribute, or what an operation returns, of the cluster's MBean.
fn managed(node: &Tomcat, what: &str) -> String {
    let path = format!("/jmx?bean=Catalina:type=Cluster,host=localhost&{what}");
    ask(node, &mut Browser::default(), &path)
}

/// Requests of one session at once, each changing the same attribute; how often the other node
/// differs when all are answered.
fn differences_count(here: &Tomcat, there: &Tomcat, session: &Browser) -> usize {
    let mut count = 0;
    let address = here.address();
    for round in 0..ROUNDS_COUNT {
        std::thread::scope(|scope| {
            for number in 0..AT_ONCE_COUNT {
                let mut browser = session.clone();
                scope.spawn(move || {
                    let path = format!("/app/s/set?k=raced&v={round}-{number}");
                    let answer = browser.get(address, &path).expect("an answer");
                    assert_eq!((answer.status, answer.body), (200, format!("{round}-{number}")));
                });
            }
        });
        let mut asked = session.clone();
        let value = ask(here, &mut asked, "/get?k=raced");
        count += usize::from(value != ask(there, &mut asked, "/get?k=raced"));
    }
    count
}

#[test]
fn the_one_element_and_a_file_of_2007_and_a_node_without_the_library_are_one_cluster() {
    let mcast_port = free_mcast_port();
    let flat = "useDirtyFlag=\"false\" replicationMode=\"pooled\" waitForAck=\"true\"";
    let a = Tomcat::start(&setup("node-a", mcast_port, one_element(flat, ""))).expect("A starts");
    let mut browser = Browser::default();
    assert_eq!(ask(&a, &mut browser, "/set?k=x&v=early"), "200 early");

    // The first user's file, with the addresses of this machine.
    let seed = build::root().join("tests/testdata/seed-server.xml");
    let seed = fs::read_to_string(seed)
        .expect("the seed")
        .replace("mcastAddr=\"224.0.0.5\"", "mcastAddr=\"228.0.0.4\" mcastBindAddr=\"127.0.0.1\"")
        .replace("46002", "@MCAST_PORT@")
        .replace("192.168.1.109", "127.0.0.1")
        .replace("4002", "@TCP_PORT@");
    let element = "<Cluster className=\"org.ringtribe.tomcat.RingtribeCluster\" \
        config=\"conf/cluster-5.5.xml\"/>";
    let mut of_2007 = setup("node-b", mcast_port, element.to_owned());
    of_2007.files = vec![("cluster-5.5.xml".into(), seed)];
    let b = Tomcat::start(&of_2007).expect("B starts");
    assert_eq!(ask(&b, &mut browser.clone(), "/get?k=x"), "200 early");
    let says =
        b.log_from("replicationMode=pooled (old word replicationMode of conf/cluster-5.5.xml");
    assert!(says.is_some(), "see {:?}", b.base());

    // Changed without setAttribute: on A noticed, on B not, as its file says.
    assert_eq!(ask(&a, &mut browser, "/append?k=text&v=one"), "200 one");
    assert_eq!(ask(&a, &mut browser, "/append?k=text&v=two"), "200 onetwo");
    assert_eq!(ask(&b, &mut browser.clone(), "/get?k=text"), "200 onetwo");
    assert_eq!(ask(&b, &mut browser, "/append?k=text&v=three"), "200 onetwothree");
    assert_eq!(ask(&a, &mut browser.clone(), "/get?k=text"), "200 onetwo");

    assert_eq!(differences_count(&a, &b, &browser), 0, "of {ROUNDS_COUNT} rounds");

    // Without the library: stock parts, and one line that says why.
    let mut without = setup("node-c", mcast_port, one_element("", ""));
    without.properties =
        vec![("org.ringtribe.native.path".into(), "/nowhere/libringtribe.so".into())];
    let c = Tomcat::start(&without).expect("C starts");
    let why = c.log_from("Stock's Sender, Receiver and Membership take the place").expect("a line");
    assert!(why.contains("/nowhere/libringtribe.so"), "{why}");
    assert_eq!(ask(&c, &mut browser.clone(), "/get?k=x"), "200 early");
    let path = "/set?k=x&v=late";
    assert_eq!(ask(&c, &mut browser, path), "200 late");
    let mut asked = browser.clone();
    await_equal("A has what C changed", || ask(&a, &mut asked, "/get?k=x"), || "200 late".into());

    c.stop().expect("C stops");
    assert_eq!(ask(&a, &mut browser, "/set?k=x&v=again"), "200 again");
    assert_eq!(managed(&a, "get=safeToStop"), "200 true");
    without.cluster = Some(one_element("nativeRequired=\"true\"", ""));
    let log = Tomcat::refused(&without).expect("C does not start");
    assert!(
        log.contains("nativeRequired=\"true\" and the native library cannot be loaded"),
        "{log}"
    );
}

#[test]
fn updates_that_are_queued_keep_their_order_too() {
    let mcast_port = free_mcast_port();
    // No JvmRouteBinderValve, which would change the id whenever the other node is asked.
    let valve = "<Valve className=\"org.ringtribe.tomcat.RingtribeReplicationValve\"/>";
    let words = "replicationMode=\"fastasyncqueue\" readyPath=\"/ready\"";
    let queued = one_element(words, valve);
    let start = |name: &str| {
        let mut setup = setup(name, mcast_port, queued.clone());
        setup.line = Line::V11_0;
        Tomcat::start(&setup).expect("it starts")
    };
    let (a, b) = (start("node-a"), start("node-b"));
    let mut browser = Browser::default();
    assert_eq!(ask(&a, &mut browser, "/set?k=raced&v=first"), "200 first");
    for _ in 0..2 {
        differences_count(&a, &b, &browser);
        let (mut one, mut other) = (browser.clone(), browser.clone());
        let (a, b) = (&a, &b);
        let here = || ask(a, &mut one, "/get?k=raced");
        await_equal("both nodes end equal", here, move || ask(b, &mut other, "/get?k=raced"));
    }

    // A goes: its balancer learns of it, its own users do not.
    let ready =
        |node: &Tomcat| Browser::default().get(node.address(), "/ready").expect("an answer");
    assert_eq!((ready(&a).status, ready(&b).status), (200, 200));
    managed(&a, "call=stopAccepting");
    assert_eq!((ready(&a).status, ready(&b).status), (503, 200));
    assert_eq!(ask(&a, &mut browser, "/set?k=raced&v=last"), "200 last");
    await_equal("A may be stopped", || managed(&a, "get=safeToStop"), || "200 true".into());
    assert_eq!(managed(&a, "get=underCopied"), "200 0");
    a.stop().expect("A stops");
    assert_eq!(ask(&b, &mut browser.clone(), "/get?k=raced"), "200 last");
    let why = managed(&b, "get=notSafeToStopBecause");
    assert!(why.starts_with("200 there is no other member"), "{why}");
}
