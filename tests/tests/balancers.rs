//! Two Tomcats with Ringtribe behind each balancer of docs/balancers, configured by the files there: a node
//! is killed, and one is drained and stopped, under clients that check each answer.
//!
//! A short run of all balancers that are installed, at the same time, is part of the tests. The whole one,
//! 200 clients, 20 kills and 20 drains for each, takes about seven minutes a balancer:
//!
//! ```sh
//! RINGTRIBE_BALANCERS=full cargo test -p ringtribe-tests --test balancers behind -- --nocapture
//! ```
//!
//! `RINGTRIBE_BALANCERS=haproxy` is that of one of them, by the name of its file. And what holds without
//! stickiness, in each mode, as a table:
//!
//! ```sh
//! RINGTRIBE_BALANCERS=full cargo test -p ringtribe-tests --test balancers without -- --nocapture
//! ```

use std::time::{Duration, Instant};

use ringtribe_tests::balancer::{Balancer, Kind};
use ringtribe_tests::clients::{Clients, Seen};
use ringtribe_tests::http::Browser;
use ringtribe_tests::pair::{Pair, ROUTES, SECRET};
use ringtribe_tests::process::Patience;

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(60), pause: Duration::from_millis(20) };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Kill,
    Drain,
}

/// A balancer with its clients, and what they have seen.
struct Front {
    clients: Clients,
    balancer: Balancer,
    count: usize,
    of_kills: Seen,
    of_drains: Seen,
}

impl Front {
    fn start(kind: Kind, pair: &Pair, count: usize, pause: Duration) -> Self {
        let balancer =
            Balancer::start(kind, &pair.directory(), pair.nodes().clone(), SECRET, |text| text)
                .expect("it starts");
        for node in ROUTES {
            let what = format!("{} gives to {node}", kind.word());
            PATIENCE.until(&what, || balancer.gives_to(node));
        }
        let outside = Browser::default().get(balancer.address(), "/ringtribe-ready");
        assert_eq!(outside.expect("an answer").status, 404, "the check is nobody's business");
        let clients = Clients::start(balancer.address(), count, pause);
        PATIENCE.until("each client has answers", || clients.fewest_answers() > 2);
        Self { clients, balancer, count, of_kills: Seen::default(), of_drains: Seen::default() }
    }

    fn name(&self) -> &'static str {
        self.balancer.kind().word()
    }

    /// While nothing happens nothing fails, and nobody moves; where each client is.
    fn quiet(&self) -> Vec<Option<String>> {
        let seen = self.clients.take();
        let mut sum = Seen::default();
        seen.iter().for_each(|client| sum.add(client));
        let counts = (sum.lost_count, sum.stale_count, sum.failed_count, sum.moves.len());
        assert_eq!(counts, (0, 0, 0, 0), "{}, between events: {sum:?}", self.name());
        seen.into_iter().map(|client| client.route).collect()
    }

    /// What an event has done: nothing is lost, and the cookies of those who were there moved once.
    fn judge(&mut self, event: Event, before: &[Option<String>], gone: &str, other: &str) {
        let seen = self.clients.take();
        let mut sum = Seen::default();
        for (was, client) in before.iter().zip(&seen) {
            sum.add(client);
            let moves = if was.as_deref() == Some(gone) {
                vec![(gone.to_owned(), other.to_owned())]
            } else {
                vec![]
            };
            assert_eq!(client.moves, moves, "{}: {event:?} of {gone}, {was:?}", self.name());
            assert_eq!(client.route.as_deref(), Some(other), "{}: it stays", self.name());
        }
        let name = self.name();
        let of_event = format!("{name}, {event:?} of {gone}: {sum:?}");
        assert_eq!((sum.lost_count, sum.stale_count), (0, 0), "{of_event}");
        if event == Event::Drain {
            assert_eq!(sum.failed_count, 0, "{of_event}");
        }
        let of = if event == Event::Kill { &mut self.of_kills } else { &mut self.of_drains };
        of.add(&sum);
    }
}

fn live(kinds: &[Kind], clients_count: usize, pause: Duration, events: &[Event]) {
    let mut pair = Pair::start("synchronous", &[], |text| text).expect("both start");
    let mut fronts: Vec<Front> =
        kinds.iter().map(|kind| Front::start(*kind, &pair, clients_count, pause)).collect();
    for event in events {
        let on = |index: usize| {
            fronts.iter().map(|front| front.clients.routed_count(ROUTES[index])).sum::<usize>()
        };
        let gone_index = usize::from(on(1) > on(0));
        let (gone, other) = (ROUTES[gone_index], ROUTES[1 - gone_index]);
        let before: Vec<Vec<Option<String>>> = fronts.iter().map(Front::quiet).collect();
        let begun = Instant::now();
        if *event == Event::Kill {
            pair.take(gone_index).kill().expect("it runs");
        } else {
            pair.managed(gone_index, "call=stopAccepting");
            for front in &fronts {
                front.balancer.take_out(gone_index).expect("it is taken out");
            }
        }
        for front in &fronts {
            PATIENCE.until(&format!("{}: all go to {other}, {event:?}", front.name()), || {
                front.clients.routed_count(other) == front.count
            });
        }
        let moved = begun.elapsed();
        if *event == Event::Drain {
            PATIENCE.until(&format!("{gone} may be stopped"), || {
                pair.managed(gone_index, "get=safeToStop") == "true"
            });
            pair.take(gone_index).stop().expect("it stops");
        }
        pair.start_node(gone_index).expect("it starts");
        for front in &fronts {
            if *event == Event::Drain {
                front.balancer.put_back(gone_index).expect("it is put back");
            }
            PATIENCE.until(&format!("{} gives to {gone} again", front.name()), || {
                front.balancer.gives_to(gone)
            });
        }
        println!(
            "{event:?} of {gone}: all moved after {moved:?}, over after {:?}",
            begun.elapsed()
        );
        for (front, before) in fronts.iter_mut().zip(&before) {
            front.judge(*event, before, gone, other);
        }
    }
    let kills_count = events.iter().filter(|event| **event == Event::Kill).count();
    println!(
        "{clients_count} clients each, {kills_count} kills, {} drains\n\
         | balancer | answers | failed in kills | longest failing | failed in drains | lost | stale |\n\
         | --- | --- | --- | --- | --- | --- | --- |",
        events.len() - kills_count
    );
    for front in &fronts {
        let (kills, drains) = (&front.of_kills, &front.of_drains);
        println!(
            "| {} | {} | {} | {:?} | {} | {} | {} |",
            front.name(),
            kills.answered_count + drains.answered_count,
            kills.failed_count,
            kills.longest_failing,
            drains.failed_count,
            kills.lost_count + drains.lost_count,
            kills.stale_count + drains.stale_count,
        );
        for complaint in &kills.complaints {
            println!("    {}: {}", front.name(), complaint.lines().next().unwrap_or(""));
        }
    }
}

/// Those that are installed; for the others the line that installs them.
fn installed() -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| kind.is_installed()).collect()
}

#[test]
fn behind_each_balancer_nothing_is_lost_by_kills_and_nothing_fails_in_drains() {
    let kinds = installed();
    if kinds.is_empty() {
        return;
    }
    let which = std::env::var("RINGTRIBE_BALANCERS").unwrap_or_default();
    if which.is_empty() {
        return live(&kinds, 20, Duration::from_millis(250), &[Event::Kill, Event::Drain]);
    }
    let chosen: Vec<Kind> =
        kinds.into_iter().filter(|kind| which == "full" || which == kind.word()).collect();
    assert!(!chosen.is_empty(), "RINGTRIBE_BALANCERS={which}: full, or the name of one installed");
    for kind in chosen {
        let events = [Event::Kill, Event::Kill, Event::Drain, Event::Drain].repeat(10);
        live(&[kind], 200, Duration::from_secs(1), &events);
    }
}

/// How often both nodes have what each was told at the same time, of one session, within a second.
fn agreements_count(pair: &Pair, rounds_count: usize, keys: [&str; 2]) -> usize {
    let [a, b] = [pair.tomcat(0).address(), pair.tomcat(1).address()];
    let mut session = Browser::default();
    let made = session.get(a, "/app/s/set?k=made&v=1").expect("an answer");
    assert_eq!(made.status, 200);
    let is_known =
        || session.clone().get(b, "/app/s/get?k=made").is_ok_and(|got| got.status == 200);
    PATIENCE.until("the session is at the other node", is_known);
    let agrees = |round: &usize| {
        std::thread::scope(|scope| {
            for (node, key) in [a, b].into_iter().zip(keys) {
                let mut browser = session.clone();
                scope.spawn(move || {
                    let path = format!("/app/s/set?k={key}&v={node}-{round}");
                    assert_eq!(browser.get(node, &path).expect("an answer").status, 200);
                });
            }
        });
        let is_at = |node, key| {
            let answer = session.clone().get(node, &format!("/app/s/get?k={key}"));
            answer.map(|answer| answer.body).unwrap_or_default()
        };
        let is_equal = || {
            keys.into_iter().all(|key| {
                let value = is_at(a, key);
                value.ends_with(&format!("-{round}")) && value == is_at(b, key)
            })
        };
        let until = Instant::now() + Duration::from_secs(1);
        loop {
            if is_equal() {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    (0..rounds_count).filter(agrees).count()
}

/// How many requests a node has answered over HTTP.
fn requests_count(pair: &Pair, index: usize) -> u64 {
    let port = pair.nodes()[index].http_port;
    let bean = format!("Catalina:type=GlobalRequestProcessor,name=%22http-nio-127.0.0.1-{port}%22");
    let path = format!("/jmx?bean={bean}&get=requestCount");
    let answer = pair.tomcat(index).ask(&mut Browser::default(), &path).expect("an answer");
    answer.body.parse().unwrap_or_else(|_| panic!("{answer:?}"))
}

/// One row: the same clients, each request to the other node in turn; then a kill.
fn without_stickiness(
    mode: &str,
    answers_count: u64,
    rounds_count: usize,
) -> (Seen, usize, String) {
    let mut pair = Pair::start("", &[], |text| {
        let words = "replicationMode=\"${mode:-synchronous}\"";
        let route = " jvmRoute=\"${route:-node-a}\"";
        assert!(text.contains(words) && text.contains(route));
        text.replace(words, mode).replace(route, "")
    })
    .expect("both start");
    let balancer =
        Balancer::start(Kind::Haproxy, &pair.directory(), pair.nodes().clone(), SECRET, |text| {
            let is_sticky = |line: &&str| line.trim_start().starts_with("use-server ");
            assert_eq!(text.lines().filter(is_sticky).count(), ROUTES.len());
            let others: Vec<&str> = text.lines().filter(|line| !is_sticky(line)).collect();
            others.join("\n") + "\n"
        })
        .expect("it starts");
    let answers = || {
        Browser::default()
            .get(balancer.address(), "/app/s/get?k=n")
            .is_ok_and(|answer| answer.status == 404)
    };
    PATIENCE.until("both are in service", || (0..2).all(|_| answers()));
    // No pause: what was written is read at once.
    let clients = Clients::start(balancer.address(), 4, Duration::ZERO);
    PATIENCE.until("answers", || clients.fewest_answers() > answers_count);
    let served = [0, 1].map(|index| requests_count(&pair, index));
    assert!(served.iter().all(|count| *count > answers_count), "both serve: {served:?}");
    let mut steady = Seen::default();
    clients.take().iter().for_each(|client| steady.add(client));
    drop(clients);
    let apart = agreements_count(&pair, rounds_count, ["left", "right"]);
    let same = agreements_count(&pair, rounds_count, ["both", "both"]);

    let clients = Clients::start(balancer.address(), 4, Duration::ZERO);
    PATIENCE.until("answers", || clients.fewest_answers() > 10);
    pair.take(0).kill().expect("it runs");
    let at_the_kill = clients.take();
    PATIENCE.until("answers after it", || clients.fewest_answers() > 10);
    let mut killed = Seen::default();
    at_the_kill.iter().chain(&clients.take()).for_each(|client| killed.add(client));
    let row = format!(
        "| `{mode}` | {} of {} | {} of {} | {apart} of {rounds_count} | {same} of {rounds_count} | {} |",
        steady.stale_count,
        steady.answered_count,
        steady.lost_count,
        steady.answered_count,
        killed.lost_count + killed.stale_count,
    );
    steady.lost_count += killed.lost_count;
    steady.stale_count += killed.stale_count;
    (steady, apart, row)
}

#[test]
fn without_stickiness_synchronous_nodes_have_what_was_answered() {
    if !Kind::Haproxy.is_installed() {
        return;
    }
    let is_full = std::env::var("RINGTRIBE_BALANCERS").is_ok_and(|which| which == "full");
    let (answers_count, rounds_count) = if is_full { (500, 40) } else { (200, 10) };
    let synchronous = "replicationMode=\"synchronous\"";
    let (seen, apart, row) = without_stickiness(synchronous, answers_count, rounds_count);
    println!(
        "| mode | stale | unknown session | two attributes at once: both everywhere | one attribute at once: \
         equal everywhere | stale or lost at a kill |\n| --- | --- | --- | --- | --- | --- |\n{row}"
    );
    assert_eq!((seen.lost_count, seen.stale_count), (0, 0), "{seen:?}");
    assert_eq!(apart, rounds_count, "two attributes at the same time, on two nodes");
    if is_full {
        for mode in [
            "replicationMode=\"pooled\" waitForAck=\"false\"",
            "replicationMode=\"asynchronous\"",
            "replicationMode=\"fastasyncqueue\"",
        ] {
            println!("{}", without_stickiness(mode, answers_count, rounds_count).2);
        }
    }
}
