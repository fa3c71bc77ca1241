//! Two Tomcats with Ringtribe behind each balancer of docs/balancers, configured by the files there: a node
//! is killed, and one is drained and stopped, under clients that check each answer.
//!
//! A short run of all balancers that are installed, at the same time, is part of the tests. The whole one,
//! 200 clients, 20 kills and 20 drains for each, takes about ten minutes a balancer:
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

use std::fs;
use std::time::{Duration, Instant};

use ringtribe_tests::balancer::{Balancer, Kind, Node, steady_port};
use ringtribe_tests::build::{self, Flavour::Ringtribe};
use ringtribe_tests::clients::{Clients, Seen};
use ringtribe_tests::http::Browser;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port};

const WITHIN: Duration = Duration::from_secs(60);
const ROUTES: [&str; 2] = ["node-a", "node-b"];
const SECRET: &str = "5ec2e75ec2e75ec2e7";
const BEAN: &str = "Catalina:type=Cluster,host=localhost";

fn await_true(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + WITHIN;
    while !happened() {
        assert!(Instant::now() < until, "{what} did not happen within {WITHIN:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Two Tomcats with the server.xml of docs/balancers.
struct Pair {
    setups: [Setup; 2],
    nodes: [Node; 2],
    tomcats: [Option<Tomcat>; 2],
}

impl Pair {
    fn start(mode: &str, edit: impl Fn(String) -> String) -> Self {
        let file = build::root().join("docs/balancers/server.xml");
        let server = edit(fs::read_to_string(file).expect("the documented file"));
        let mcast_port = free_mcast_port();
        let nodes =
            ROUTES.map(|route| Node { route, http_port: steady_port(), ajp_port: steady_port() });
        let setups = [0, 1].map(|index: usize| {
            let node = &nodes[index];
            let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let mut setup = Setup::new(node.route, Ringtribe, mcast_port);
            setup.server = Some(server.clone());
            setup.http_port = Some(node.http_port);
            setup.properties = vec![
                property("route", node.route),
                property("mode", mode),
                property("address", "127.0.0.1"),
                property("cluster.address", "127.0.0.1"),
                property("cluster.port", &steady_port().to_string()),
                property("mcast.port", &mcast_port.to_string()),
                property("http.port", &node.http_port.to_string()),
                property("ajp.port", &node.ajp_port.to_string()),
                property("ajp.secret", SECRET),
            ];
            setup
        });
        let mut pair = Self { setups, nodes, tomcats: [None, None] };
        for index in 0..ROUTES.len() {
            pair.start_node(index);
        }
        pair
    }

    fn start_node(&mut self, index: usize) {
        let tomcat = Tomcat::start(&self.setups[index]).expect("it starts");
        self.tomcats[index] = Some(tomcat);
    }

    fn take(&mut self, index: usize) -> Tomcat {
        self.tomcats[index].take().expect("it runs")
    }

    fn tomcat(&self, index: usize) -> &Tomcat {
        self.tomcats[index].as_ref().expect("it runs")
    }

    fn managed(&self, index: usize, what: &str) -> String {
        let path = format!("/jmx?bean={BEAN}&{what}");
        let answer = self.tomcat(index).ask(&mut Browser::default(), &path).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    fn directory(&self) -> std::path::PathBuf {
        self.tomcat(0).base().parent().expect("a directory of this run").to_owned()
    }
}

/// Whether the balancer gives new clients to the node.
fn gives_to(balancer: &Balancer, node: &str) -> bool {
    let mut browser = Browser::default();
    let answer = browser.get(balancer.address(), "/app/s/set?k=probe&v=1&maxInactive=5");
    let is_answered = answer.is_ok_and(|answer| answer.status == 200);
    is_answered && browser.session().is_some_and(|id| id.ends_with(&format!(".{node}")))
}

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
            Balancer::start(kind, &pair.directory(), pair.nodes.clone(), SECRET, |text| text)
                .expect("it starts");
        for node in ROUTES {
            let what = format!("{} gives to {node}", kind.word());
            await_true(&what, || gives_to(&balancer, node));
        }
        let clients = Clients::start(balancer.address(), count, pause);
        await_true("each client has answers", || clients.fewest_answers() > 2);
        Self { clients, balancer, count, of_kills: Seen::default(), of_drains: Seen::default() }
    }

    fn name(&self) -> &'static str {
        self.balancer.kind().word()
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
    let mut pair = Pair::start("synchronous", |text| text);
    let mut fronts: Vec<Front> =
        kinds.iter().map(|kind| Front::start(*kind, &pair, clients_count, pause)).collect();
    for event in events {
        let on = |index: usize| {
            fronts.iter().map(|front| front.clients.routed_count(ROUTES[index])).sum::<usize>()
        };
        let gone_index = usize::from(on(1) > on(0));
        let (gone, other) = (ROUTES[gone_index], ROUTES[1 - gone_index]);
        let before: Vec<Vec<Option<String>>> = fronts
            .iter()
            .map(|front| front.clients.take().into_iter().map(|seen| seen.route).collect())
            .collect();
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
            await_true(&format!("{}: all go to {other}, {event:?}", front.name()), || {
                front.clients.routed_count(other) == front.count
            });
        }
        let moved = begun.elapsed();
        if *event == Event::Drain {
            await_true(&format!("{gone} may be stopped"), || {
                pair.managed(gone_index, "get=safeToStop") == "true"
            });
            pair.take(gone_index).stop().expect("it stops");
        }
        pair.start_node(gone_index);
        for front in &fronts {
            if *event == Event::Drain {
                front.balancer.put_back(gone_index).expect("it is put back");
            }
            await_true(&format!("{} gives to {gone} again", front.name()), || {
                gives_to(&front.balancer, gone)
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
         | balancer | answers | failed in kills | longest outage | failed in drains | lost | stale |\n\
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
            kills.longest_outage,
            drains.failed_count,
            kills.lost_count + drains.lost_count,
            kills.stale_count + drains.stale_count,
        );
        for complaint in &kills.complaints {
            println!("    {}: {complaint}", front.name());
        }
    }
}

/// Those that are installed; for the others the line that installs them.
fn installed() -> Vec<Kind> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        match kind.missing() {
            Some(why) => eprintln!("{why}"),
            None => found.push(kind),
        }
    }
    found
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
        live(&[kind], 200, Duration::from_secs(1), &[Event::Kill, Event::Drain].repeat(20));
    }
}
