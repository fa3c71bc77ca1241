//! The story every node must live.

use std::time::{Duration, Instant};

use crate::build::{Flavour, Line};
use crate::http::Browser;
use crate::tomcat::{Setup, Tomcat, free_mcast_port};

const WITHIN: Duration = Duration::from_secs(30);

fn set(node: &Tomcat, browser: &mut Browser, value: &str) {
    let answer = node.ask(browser, &format!("/set?k=x&v={value}")).expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (200, value));
}

fn value(node: &Tomcat, browser: &mut Browser) -> Option<String> {
    let answer = node.ask(browser, "/get?k=x").expect("an answer");
    (answer.status == 200).then_some(answer.body)
}

fn await_true(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + WITHIN;
    while !happened() {
        assert!(Instant::now() < until, "{what} did not happen within {WITHIN:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn has_ended(node: &Tomcat, id: &str) -> bool {
    // Asked by somebody else, so that the session itself is not touched.
    let answer = node.ask(&mut Browser::default(), &format!("/ended?id={id}"));
    answer.is_ok_and(|answer| answer.status == 200)
}

/// The story every node must live, with two real Tomcats of a line.
///
/// # Panics
/// A step does not hold.
pub fn nine_steps(line: Line, flavour_of_a: Flavour, flavour_of_b: Flavour) {
    let mcast_port = free_mcast_port();
    let setup_a = Setup { line, ..Setup::new("node-a", flavour_of_a, mcast_port) };
    let mut setup_b = Setup { line, ..Setup::new("node-b", flavour_of_b, mcast_port) };
    if flavour_of_b == Flavour::Ringtribe {
        // The one-line way in, with the same parts below it.
        setup_b.cluster_class = "org.ringtribe.tomcat.RingtribeCluster";
    }
    // 1: A starts, and has a session before anybody else is there.
    let a = Tomcat::start(&setup_a).expect("A starts");
    let mut early = Browser::default();
    set(&a, &mut early, "early");
    // 2: B starts, and has A's session at its first answer.
    let b = Tomcat::start(&setup_b).expect("B starts");
    assert_eq!(value(&b, &mut early.clone()).as_deref(), Some("early"), "step 2");
    // 3: S1 is made on A; the answer comes after B has it.
    let mut s1 = Browser::default();
    set(&a, &mut s1, "one");
    assert_eq!(value(&b, &mut s1.clone()).as_deref(), Some("one"), "step 3");
    // 4, 5: A is killed, B serves S1.
    a.kill().expect("A runs");
    assert_eq!(value(&b, &mut s1).as_deref(), Some("one"), "step 5");
    set(&b, &mut s1, "two");
    // 6: A returns and has the state at its first answer.
    let a = Tomcat::start(&setup_a).expect("A starts again");
    assert_eq!(value(&a, &mut s1).as_deref(), Some("two"), "step 6");
    // 7: A invalidates S1, B drops it.
    let s1_id = s1.session().expect("a session").to_owned();
    assert_eq!(a.ask(&mut s1, "/invalidate").expect("an answer").status, 200);
    await_true("step 7: S1 ends on B", || has_ended(&b, &s1_id));
    assert_eq!(value(&b, &mut s1), None, "step 7");
    // 8: B makes S2, short-lived; A has it.
    let mut s2 = Browser::default();
    let answer = b.ask(&mut s2, "/set?k=x&v=brief&maxInactive=2").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(value(&a, &mut s2).as_deref(), Some("brief"), "step 8");
    // 9: nobody touches S2; it ends on A, which served it last, and on B.
    let s2_id = s2.session().expect("a session").to_owned();
    await_true("step 9: S2 ends on A", || has_ended(&a, &s2_id));
    await_true("step 9: S2 ends on B", || has_ended(&b, &s2_id));
    assert_eq!(value(&a, &mut s2.clone()), None);
    assert_eq!(value(&b, &mut s2), None);
    assert_eq!(value(&b, &mut early).as_deref(), Some("early"), "the others live on");
    a.stop().expect("A stops in order");
    b.stop().expect("B stops in order");
}
