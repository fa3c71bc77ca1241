//! Two real Tomcats on a network of their own, whose link is cut while both go on writing, and healed: one
//! state on both afterwards. More rounds: `RINGTRIBE_CUTS=100`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringtribe_tests::build::Flavour::Ringtribe;
use ringtribe_tests::http::Browser;
use ringtribe_tests::netns::{Network, NetworkError};
use ringtribe_tests::process::Patience;
use ringtribe_tests::tomcat::{Setup, Tomcat};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(30), pause: Duration::from_millis(20) };
/// The clock of a change has milliseconds: two that are so far apart are not at the same time.
const CLOCK: Duration = Duration::from_millis(5);
const MCAST_PORT: u16 = 45_564;
/// Sessions that are there before the first cut and to the end; one more for each round ends in it.
const SESSIONS_COUNT: usize = 28;
/// Of those, what happens to one while the link is cut.
const AT_A: [usize; 3] = [0, 1, 2];
const AT_B: [usize; 3] = [3, 4, 5];
const AT_BOTH: [usize; 2] = [6, 7];
const CONFLICTS_COUNT: usize = AT_BOTH.len();

fn node(network: &Network, host: usize) -> Tomcat {
    let ip = Network::ip(host);
    let cluster = format!(
        "<Cluster className=\"org.ringtribe.tomcat.RingtribeCluster\" mcastAddr=\"228.0.0.4\" \
         mcastPort=\"@MCAST_PORT@\" mcastBindAddr=\"{ip}\" mcastFrequency=\"100\" mcastDropTime=\"1000\" \
         tcpListenAddress=\"{ip}\" tcpListenPort=\"4000\"><Valve \
         className=\"org.apache.catalina.ha.tcp.ReplicationValve\"/></Cluster>"
    );
    let name = format!("node-{host}");
    let setup = Setup {
        cluster: Some(cluster),
        namespace: Some(network.host(host)),
        ..Setup::new(&name, Ringtribe, MCAST_PORT)
    };
    Tomcat::start(&setup).expect("it starts")
}

fn ask(node: &Tomcat, browser: &mut Browser, path: &str) -> String {
    let answer = node.ask(browser, path).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

fn set(node: &Tomcat, browser: &mut Browser, value: &str) {
    assert_eq!(ask(node, browser, &format!("/set?k=x&v={value}")), value);
}

/// The value of each session of a node, by its id.
fn copies(node: &Tomcat) -> BTreeMap<String, String> {
    let text = ask(node, &mut Browser::default(), "/copies?k=x");
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(id, value)| (id.to_owned(), value.to_owned())).collect()
}

fn of_manager(node: &Tomcat, attribute: &str) -> usize {
    let text = ask(node, &mut Browser::default(), &format!("/manager?a={attribute}"));
    text.parse().expect("a number")
}

/// Waits so long. (Whoever asked before may have left a token, with which a thread parks for no time at all.)
fn pass(time: Duration) {
    let begin = Instant::now();
    while let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

#[test]
fn what_both_sides_of_a_cut_wrote_is_one_state_after_it() {
    let network = match Network::make(2) {
        Ok(network) => network,
        Err(NetworkError::Lacking(why)) => {
            println!("skipped: {}", NetworkError::Lacking(why));
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let rounds_count: usize =
        std::env::var("RINGTRIBE_CUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    let (a, b) = (node(&network, 0), node(&network, 1));
    let sessions_count = SESSIONS_COUNT + rounds_count;
    let mut sessions: Vec<_> = (0..sessions_count).map(|_| Browser::default()).collect();
    for browser in &mut sessions {
        set(&a, browser, "before");
    }
    PATIENCE.until("all are on both", || {
        copies(&a).len() == sessions_count && copies(&a) == copies(&b)
    });
    let mut ended = Vec::new();
    let mut longest = Duration::ZERO;
    for round in 0..rounds_count {
        network.set_link(1, false).expect("it is cut");
        for node in [&a, &b] {
            PATIENCE.until("the other one is gone", || {
                node.log().expect("a log").matches(" has gone: ").count() > round
            });
        }
        let at = |place: &str| format!("{place}-{round}");
        AT_A.iter().for_each(|&n| set(&a, &mut sessions[n], &at("a")));
        AT_B.iter().for_each(|&n| set(&b, &mut sessions[n], &at("b")));
        // Who is later stays, in turns.
        let (first, second) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        AT_BOTH.iter().for_each(|&n| set(first, &mut sessions[n], &at("first")));
        pass(CLOCK);
        AT_BOTH.iter().for_each(|&n| set(second, &mut sessions[n], &at("second")));
        let mut last = sessions.pop().expect("one is left");
        ended.push(last.session().expect("a session").to_owned());
        ask(&b, &mut last, "/invalidate");
        let (mut made_at_a, mut made_at_b) = (Browser::default(), Browser::default());
        set(&a, &mut made_at_a, &at("new-a"));
        set(&b, &mut made_at_b, &at("new-b"));
        assert_ne!(copies(&a), copies(&b), "they are cut off");

        network.set_link(1, true).expect("it is healed");
        let took = PATIENCE.until("one state on both", || copies(&a) == copies(&b));
        longest = longest.max(took);
        println!("round {round}: one state {} ms after the link was back", took.as_millis());
        let state = copies(&a);
        let value = |browser: &Browser| state.get(browser.session().expect("a session"));
        for (places, place) in [(&AT_A[..], "a"), (&AT_B[..], "b"), (&AT_BOTH[..], "second")] {
            places.iter().for_each(|&n| assert_eq!(value(&sessions[n]), Some(&at(place))));
        }
        assert_eq!(value(&made_at_a), Some(&at("new-a")));
        assert_eq!(value(&made_at_b), Some(&at("new-b")));
        for id in &ended {
            assert!(!state.contains_key(id), "one that ended is back");
        }
        for node in [&a, &b] {
            PATIENCE.until("it is told", || of_manager(node, "reconciliations") > round);
            assert_eq!(of_manager(node, "reconcileConflicts"), CONFLICTS_COUNT * (round + 1));
        }
        // From now on each change is copied as it is made.
        set(&a, &mut made_at_b, &at("after"));
        assert_eq!(copies(&b), copies(&a));
    }
    println!("{rounds_count} rounds, one state within {} ms at the latest", longest.as_millis());
    for node in [&a, &b] {
        let log = node.log().expect("a log");
        assert!(log.contains("sessions were changed here and at"), "conflicts are named");
        assert!(!log.contains("could not be reconciled"), "each time at the first try");
    }
}
