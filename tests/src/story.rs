//! The story every node must live.

use std::time::{Duration, Instant};

use crate::build::{Flavour, Line};
use crate::http::Browser;
use crate::process::Patience;
use crate::tomcat::{Setup, Tomcat, free_mcast_port};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(30), pause: Duration::from_millis(20) };

fn set(node: &Tomcat, browser: &mut Browser, value: &str) {
    let answer = node.ask(browser, &format!("/set?k=x&v={value}")).expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (200, value));
}

fn value(node: &Tomcat, browser: &mut Browser) -> Option<String> {
    let answer = node.ask(browser, "/get?k=x").expect("an answer");
    (answer.status == 200).then_some(answer.body)
}

fn has_ended(node: &Tomcat, id: &str) -> bool {
    // Asked by somebody else, so that the session itself is not touched.
    let answer = node.ask(&mut Browser::default(), &format!("/ended?id={id}"));
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Who plays, and what may be expected of them.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The node that is killed and returns.
    pub a: Setup,
    /// The node that goes on.
    pub b: Setup,
    /// One more node, which must have all that B has.
    pub c: Option<Setup>,
    /// Whether an answer waits for the other nodes; if not, they have it soon.
    pub waits: bool,
    /// Whether sessions have one copy (BackupManager) and not one on every node. Then only the node
    /// that serves a session tells its listeners of the end.
    pub one_copy: bool,
}

impl Cast {
    /// What the other nodes say of a session once `expected` may be relied on.
    fn has(&self, step: &str, node: &Tomcat, browser: &Browser, expected: Option<&str>) {
        let mut said = value(node, &mut browser.clone());
        // Stock's map answers a request that comes in the moment of a member's end with nothing.
        if !self.waits || self.one_copy {
            PATIENCE.until(step, || {
                said = value(node, &mut browser.clone());
                said.as_deref() == expected
            });
        }
        assert_eq!(said.as_deref(), expected, "{step}");
    }

    fn await_end(&self, step: &str, node: &Tomcat, browser: &Browser) {
        let id = browser.session().expect("a session");
        if !self.one_copy {
            PATIENCE.until(step, || has_ended(node, id));
        }
    }
}

/// The story every node must live, with two real Tomcats of a line.
///
/// # Panics
/// A step does not hold.
pub fn nine_steps(line: Line, flavour_of_a: Flavour, flavour_of_b: Flavour) {
    let begun = Instant::now();
    let mcast_port = free_mcast_port();
    let a = Setup { line, ..Setup::new("node-a", flavour_of_a, mcast_port) };
    let mut b = Setup { line, ..Setup::new("node-b", flavour_of_b, mcast_port) };
    if flavour_of_b == Flavour::Ringtribe {
        // The one-line way in, with the same parts below it.
        b.cluster_class = "org.ringtribe.tomcat.RingtribeCluster";
    }
    play(&Cast { a, b, c: None, waits: true, one_copy: false });
    println!(
        "cell | {} | DeltaManager | channelSendOptions 6, {} and {} | ok | {} s",
        line.word(),
        flavour_of_a.word(),
        flavour_of_b.word(),
        begun.elapsed().as_secs()
    );
}

/// The same with this cast.
///
/// # Panics
/// A step does not hold.
pub fn play(cast: &Cast) {
    // 1: A starts, and has a session before anybody else is there.
    let a = Tomcat::start(&cast.a).expect("A starts");
    let mut early = Browser::default();
    set(&a, &mut early, "early");
    // 2: B starts, and has A's session at its first answer.
    let b = Tomcat::start(&cast.b).expect("B starts");
    assert_eq!(value(&b, &mut early.clone()).as_deref(), Some("early"), "step 2");
    let c = cast.c.as_ref().map(|setup| Tomcat::start(setup).expect("C starts"));
    let others = |step: &str, browser: &Browser, expected: Option<&str>| {
        if let Some(c) = &c {
            cast.has(&format!("{step} on C"), c, browser, expected);
        }
    };
    others("step 2", &early, Some("early"));
    // 3: S1 is made on A; the answer comes after B has it.
    let mut s1 = Browser::default();
    set(&a, &mut s1, "one");
    cast.has("step 3", &b, &s1, Some("one"));
    others("step 3", &s1, Some("one"));
    // 4, 5: A is killed, B serves S1.
    a.kill().expect("A runs");
    if cast.one_copy {
        cast.has("step 5", &b, &s1, Some("one"));
    }
    assert_eq!(value(&b, &mut s1).as_deref(), Some("one"), "step 5");
    set(&b, &mut s1, "two");
    others("step 5", &s1, Some("two"));
    // 6: A returns and has the state at its first answer.
    let a = Tomcat::start(&cast.a).expect("A starts again");
    assert_eq!(value(&a, &mut s1).as_deref(), Some("two"), "step 6");
    // 7: A invalidates S1, B drops it.
    let of_s1 = s1.clone();
    assert_eq!(a.ask(&mut s1, "/invalidate").expect("an answer").status, 200);
    cast.await_end("step 7: S1 ends on B", &b, &of_s1);
    cast.has("step 7", &b, &of_s1, None);
    others("step 7", &of_s1, None);
    // 8: B makes S2, short-lived; A has it.
    let mut s2 = Browser::default();
    let answer = b.ask(&mut s2, "/set?k=x&v=brief&maxInactive=2").expect("an answer");
    assert_eq!(answer.status, 200);
    cast.has("step 8", &a, &s2, Some("brief"));
    // 9: nobody touches S2; it ends on A, which served it last, and on B.
    if cast.one_copy {
        // Whoever asks is its next keeper: it must be left alone for longer than it may live.
        PATIENCE.until("step 9: S2 ends", || {
            std::thread::park_timeout(Duration::from_secs(3));
            value(&a, &mut s2.clone()).is_none()
        });
    }
    cast.await_end("step 9: S2 ends on A", &a, &s2);
    cast.await_end("step 9: S2 ends on B", &b, &s2);
    assert_eq!(value(&a, &mut s2.clone()), None);
    others("step 9", &s2, None);
    assert_eq!(value(&b, &mut s2), None);
    assert_eq!(value(&b, &mut early).as_deref(), Some("early"), "the others live on");
    for node in [Some(&a), Some(&b), c.as_ref()].into_iter().flatten() {
        let waited_in_vain = node.log_from("No answer to the join barrier");
        assert_eq!(waited_in_vain, None, "see {:?}", node.base());
    }
    a.stop().expect("A stops in order");
    b.stop().expect("B stops in order");
    if let Some(c) = c {
        c.stop().expect("C stops in order");
    }
}
