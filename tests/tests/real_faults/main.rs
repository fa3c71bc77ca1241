//! Faults of the real kernel: processes in network namespaces of their own, links that are cut, stall,
//! lose packets or are slow, kills, pauses, and limits of the operating system.
//!
//! Longer: `cargo run --release -p ringtribe-tests --bin kills -- --kills 1000` and
//! `--bin expulsions -- --minutes 60`.

mod kills;
mod limits;
mod links;
mod pauses;

use std::time::Duration;

use ringtribe_tests::faults::cluster::{Cluster, Program, or_skip};

/// mcastDropTime of most tests.
const DROP_MS: u64 = 1_000;
/// What a busy machine may add to a bound.
const SLACK: Duration = Duration::from_millis(1_500);

fn program() -> Program {
    vec![env!("CARGO_BIN_EXE_expulsions").into(), "member".into()]
}

/// A cluster that notices soon, or `None` where the machine has no namespaces.
fn cluster(hosts_count: usize, more: &[&str]) -> Option<Cluster> {
    let settings = ["mcastDropTime=1000", "mcastFrequency=200", "ackTimeout=3000"];
    let settings: Vec<&str> = settings.iter().chain(more).copied().collect();
    or_skip(Cluster::start(hosts_count, program(), &settings))
}

/// All members send to all, each message noted.
fn load(cluster: &mut Cluster) {
    cluster.ask_all("load keys=2 bytes=400 pause=5000").expect("they send");
}

/// A word of an answer: `name=N`.
fn field(answer: &str, name: &str) -> u64 {
    let word = answer.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.unwrap_or_else(|| panic!("{name} in {answer}")).parse().expect("a number")
}

/// Ends the senders; everybody wrote and somebody's messages may have failed, by name. What was
/// acknowledged is there, once and in order.
fn judge(cluster: &mut Cluster) -> Vec<String> {
    let totals = cluster.ask_all("unload").expect("the senders end");
    totals.iter().for_each(|totals| println!("senders: {totals}"));
    assert!(totals.iter().all(|totals| field(totals, "acked") > 0), "{totals:?}");
    let judgement = cluster.judge().expect("notes");
    println!("{judgement}");
    assert!(judgement.acked_count > 0, "something was acknowledged");
    assert_eq!(judgement.faults().collect::<Vec<_>>(), Vec::<&String>::new());
    totals
}
