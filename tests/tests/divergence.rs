//! Requests of one session at the same time, on one node, and on one node after the other: do both nodes
//! have the same in the end? Real Tomcats: stock's in the same run under the same load. A slice; the whole:
//! `RINGTRIBE_DIVERGENCE=full`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringtribe_tests::build::Flavour::{Ringtribe, Stock};
use ringtribe_tests::http::{Answer, Browser, Connection};
use ringtribe_tests::process::Patience;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port, one_element};

/// Requests of a session at the same time.
const BURST_COUNT: usize = 8;
/// Who each does so with sessions of its own; all together are fewer than a Tomcat's threads.
const CLIENTS_COUNT: usize = 3;
/// Of so many sessions one moves to the other node and back, right after its answers.
const MOVED_EACH: usize = 5;
/// A session that moved may be on its way to the node that is asked; stock's may never arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);
/// Looks at a cluster that say the same, after which it is taken for settled though something that was
/// sent did not arrive.
const QUIET_LOOKS_COUNT: usize = 20;
const PATIENCE: Patience =
    Patience { within: Duration::from_secs(120), pause: Duration::from_millis(250) };
/// What a manager counts of what it sent, and of what came.
const COUNTED: [&str; 3] = ["SESSION_CREATED", "SESSION_DELTA", "CHANGE_SESSION_ID"];

/// Each of these tests has two or four Tomcats.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The attributes of each session of a node, by its id.
type Contents = BTreeMap<String, String>;

struct Cluster {
    /// The mode, and whose.
    name: (&'static str, &'static str),
    nodes: [Tomcat; 2],
    /// Whether an answer waits for the other node.
    waits: bool,
}

impl Cluster {
    fn start(
        name: (&'static str, &'static str),
        waits: bool,
        setup: impl Fn(&str) -> Setup,
    ) -> Self {
        let start = |node: &str| Tomcat::start(&setup(node)).expect("it starts");
        Self { name, nodes: ["node-a", "node-b"].map(start), waits }
    }

    fn stock(options: u32) -> Self {
        let mcast_port = free_mcast_port();
        let mode = if options == 8 { "channelSendOptions 8" } else { "channelSendOptions 6" };
        Self::start((mode, "stock"), options != 8, |node| Setup {
            options,
            ..Setup::new(node, Stock, mcast_port)
        })
    }

    fn ringtribe(mode: &'static str) -> Self {
        let mcast_port = free_mcast_port();
        let waits = !mode.contains("async");
        Self::start((mode, "Ringtribe"), waits, |node| Setup {
            cluster: Some(one_element(&format!("replicationMode=\"{mode}\""), "")),
            ..Setup::new(node, Ringtribe, mcast_port)
        })
    }

    fn ask(&self, node: usize, path: &str) -> String {
        let answer = self.nodes[node].ask(&mut Browser::default(), path).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    fn contents(&self, node: usize) -> Contents {
        let text = self.ask(node, "/contents");
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.map(|(id, attributes)| (id.to_owned(), attributes.to_owned())).collect()
    }

    fn counts(&self, node: usize, way: &str) -> Vec<u64> {
        let names = COUNTED.map(|event| format!("counter{way}_EVT_{event}")).join(",");
        let text = self.ask(node, &format!("/manager?a={names}"));
        text.split(',').map(|count| count.parse().expect("a number")).collect()
    }

    /// Waits until all that was sent has come and nothing changes any more, or, where something does not
    /// come, until nothing has changed for long. What did not come, and what each node has.
    fn settle(&self) -> (u64, [Contents; 2]) {
        let look = || {
            let sent = [0, 1].map(|node| self.counts(node, "Send"));
            let came = [1, 0].map(|node| self.counts(node, "Receive"));
            (sent, came, [0, 1].map(|node| self.contents(node)))
        };
        let (mut last, mut same_count) = (None, 0);
        PATIENCE.until("it is settled", || {
            let next = Some(look());
            same_count = if next == last { same_count + 1 } else { 0 };
            last = next;
            let has_come = last.as_ref().is_some_and(|(sent, came, _)| sent == came);
            same_count >= if has_come { 1 } else { QUIET_LOOKS_COUNT }
        });
        let (sent, came, contents) = last.expect("somebody looked");
        let total = |counts: [Vec<u64>; 2]| counts.into_iter().flatten().sum::<u64>();
        (total(sent).saturating_sub(total(came)), contents)
    }
}

/// What clients saw, and what came of it.
#[derive(Debug, Default)]
struct Outcome {
    /// Bursts.
    rounds_count: usize,
    /// Rounds after which, at once, the other node had something else; where answers wait for it.
    differed_at_once_count: usize,
    /// Moves to a node that never had the session.
    unreached_count: usize,
    /// Answers that the session is unknown, at the node that had it.
    refused_count: usize,
    /// The sessions at their last ids, and whether they moved.
    sessions: Vec<(String, bool)>,
}

impl Outcome {
    fn add(&mut self, mut other: Self) {
        self.rounds_count += other.rounds_count;
        self.differed_at_once_count += other.differed_at_once_count;
        self.unreached_count += other.unreached_count;
        self.refused_count += other.refused_count;
        self.sessions.append(&mut other.sessions);
    }
}

/// One that has a session after the other.
struct Client {
    lines: [Vec<Connection>; 2],
    waits: bool,
    outcome: Outcome,
}

impl Client {
    fn new(cluster: &Cluster) -> Self {
        let lines =
            |address: SocketAddr| (0..BURST_COUNT).map(|_| Connection::new(address)).collect();
        Self {
            lines: [0, 1].map(|node: usize| lines(cluster.nodes[node].address())),
            waits: cluster.waits,
            outcome: Outcome::default(),
        }
    }

    fn one(&mut self, node: usize, browser: &mut Browser, path: &str) -> Answer {
        let line = &mut self.lines[node][0];
        line.ask(browser, &format!("/app/s{path}")).expect("it is asked");
        line.answer(browser).expect("an answer")
    }

    fn live(&mut self, number: usize, moves: bool) {
        let mut browser = Browser::default();
        assert_eq!(self.one(0, &mut browser, "/set?k=last&v=begin").status, 200);
        self.burst(0, &mut browser, 0);
        let moved = moves && number.is_multiple_of(MOVED_EACH);
        for (turn, node) in [(1, 1), (2, 0)].into_iter().filter(|_| moved) {
            if !self.moves(node, &mut browser, turn) {
                self.outcome.unreached_count += 1;
                break;
            }
            self.burst(node, &mut browser, turn);
        }
        let id = browser.session().expect("a session").to_owned();
        self.outcome.sessions.push((id, moved));
    }

    /// Asks the other node, which changes the session's id.
    fn moves(&mut self, node: usize, browser: &mut Browser, turn: usize) -> bool {
        let begun = Instant::now();
        while self.one(node, browser, &format!("/change?turn={turn}&by=mover")).status != 200 {
            if begun.elapsed() > ARRIVES_WITHIN {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        true
    }

    fn burst(&mut self, node: usize, browser: &mut Browser, turn: usize) {
        let lines = &mut self.lines[node];
        for (by, line) in lines.iter_mut().enumerate() {
            line.ask(browser, &format!("/app/s/change?turn={turn}&by={by}")).expect("it is asked");
        }
        for line in lines {
            let answer = line.answer(browser).expect("an answer");
            self.outcome.refused_count += usize::from(answer.status != 200);
        }
        self.outcome.rounds_count += 1;
        if self.waits {
            let path = format!("/contents?id={}", browser.session().expect("a session"));
            let [here, there] =
                [0, 1].map(|node| self.one(node, &mut Browser::default(), &path).body);
            self.outcome.differed_at_once_count += usize::from(here != there);
        }
    }
}

/// What is in the table.
struct Row {
    stock: bool,
    outcome: Outcome,
    divergent: Vec<String>,
    missing_count: usize,
    stale_count: usize,
}

fn play(cluster: &Cluster, sessions_count: usize, moves: bool) -> Row {
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS_COUNT)
            .map(|first| {
                let mut client = Client::new(cluster);
                scope.spawn(move || {
                    (first..sessions_count)
                        .step_by(CLIENTS_COUNT)
                        .for_each(|number| client.live(number / CLIENTS_COUNT, moves));
                    client.outcome
                })
            })
            .collect();
        clients.into_iter().for_each(|client| outcome.add(client.join().expect("a client")));
    });
    let asked_for = begun.elapsed();
    let (lost_count, [a, b]) = cluster.settle();
    let ids: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let in_both: Vec<_> =
        ids.iter().filter(|&&id| a.contains_key(id) && b.contains_key(id)).collect();
    let divergent: Vec<_> = in_both
        .iter()
        .filter(|&&&id| a[id] != b[id])
        .map(|&&id| format!("{id}\n  a {}\n  b {}", a[id], b[id]))
        .collect();
    // Where requests came last, at their node.
    let is_stale = |(id, moved): &&(String, bool)| {
        let turn = if *moved { 2 } else { 0 };
        let is_there = |by: usize| {
            let named = [",", "}"].map(|end| format!("of-{by}={turn}{end}"));
            a.get(id).is_some_and(|all| named.iter().any(|name| all.contains(name)))
        };
        !(0..BURST_COUNT).all(is_there)
    };
    let stale_count = outcome.sessions.iter().filter(is_stale).count();
    let missing_count = ids.len() - in_both.len();
    let (mode, whose) = cluster.name;
    println!(
        "cell | 10.1 | {whose} DeltaManager | {mode} | {} sessions, {} rounds: {} differed at once, {} divergent, \
         {missing_count} missing, {stale_count} stale, {} refused, {} moves not reached, {lost_count} \
         messages not received | {:.1} s, settled in {:.1} s",
        outcome.sessions.len(),
        outcome.rounds_count,
        if cluster.waits { outcome.differed_at_once_count.to_string() } else { "-".into() },
        divergent.len(),
        outcome.refused_count,
        outcome.unreached_count,
        asked_for.as_secs_f64(),
        (begun.elapsed() - asked_for).as_secs_f64(),
    );
    Row { stock: whose == "stock", outcome, divergent, missing_count, stale_count }
}

impl Row {
    fn check(&self, sessions_count: usize) {
        assert_eq!(self.outcome.sessions.len(), sessions_count);
        if self.stock {
            return;
        }
        for one in self.divergent.iter().take(5) {
            println!("{one}");
        }
        let outcome = &self.outcome;
        assert_eq!((self.divergent.len(), self.missing_count), (0, 0), "divergent, missing");
        assert_eq!(self.stale_count, 0, "what was changed last is not there");
        assert_eq!(outcome.differed_at_once_count, 0, "an answer came before the copy");
        assert_eq!(
            (outcome.refused_count, outcome.unreached_count),
            (0, 0),
            "refused, not reached"
        );
    }
}

fn is_full() -> bool {
    std::env::var("RINGTRIBE_DIVERGENCE").is_ok_and(|which| which == "full")
}

#[test]
fn asynchronous_sessions_are_the_same_on_both_nodes_when_all_has_arrived() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let sessions_count = if is_full() { 10_000 } else { 300 };
    let stock = play(&Cluster::stock(8), sessions_count, true);
    stock.check(sessions_count);
    assert!(
        !stock.divergent.is_empty(),
        "stock keeps the order too: the load is too kind to judge by"
    );
    play(&Cluster::ringtribe("asynchronous"), sessions_count, true).check(sessions_count);
}

#[test]
fn requests_of_a_session_at_the_same_time_end_alike_in_each_mode() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let modes = ["pooled", "synchronous", "asynchronous", "fastasyncqueue"];
    let (rounds_count, modes) = if is_full() { (2500, &modes[..]) } else { (200, &modes[..1]) };
    if is_full() {
        for options in [6, 8] {
            play(&Cluster::stock(options), rounds_count, false).check(rounds_count);
        }
    }
    for mode in modes {
        play(&Cluster::ringtribe(mode), rounds_count, false).check(rounds_count);
    }
}
