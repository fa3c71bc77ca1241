//! The checkers are checked: each planted bug is found, by the checker that is meant to find it,
//! within a number of histories that is stated here.
//!
//! Each bug has a mix of faults that suits it, in a scene that the seed draws but for what is named;
//! no other fault happens. A history counts only if it is whole without the bug. The table is printed:
//! `cargo test -p ringtribe-tests --test planted -- --nocapture`. In how many of 200 histories each
//! bug is found, from which the bounds were chosen: `RINGTRIBE_PLANTED_RATES=200` before it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringtribe::planted::Planted;
use ringtribe_tests::sim::{Faults, Plan, play_plan};

/// A bug, who finds it, and where.
struct Case {
    bug: Planted,
    /// The sentence of the promise whose checker is meant to find it.
    checker: &'static str,
    /// Histories of `0..bound` in which it must be found.
    bound: u64,
    /// What differs from the scene that a seed asks for; there is no fault but those named here.
    set: &'static [(&'static str, u64)],
}

const fn case(
    bug: Planted,
    checker: &'static str,
    bound: u64,
    set: &'static [(&'static str, u64)],
) -> Case {
    Case { bug, checker, bound, set }
}

const APPLIED: &str = "acknowledged means applied";
const BARRIER: &str = "a member that joins has what was sent before its barrier";
const BOUNDS: &str = "queues stay inside their bounds";
const BUDGET: &str = "what is queued gives its budget back exactly once";
const COMPLETES: &str = "every message completes, or fails by name";
const COPIES: &str = "nothing acknowledged is lost while a copy lives";
const DROPPED: &str = "a reachable member is not dropped";
const GAP: &str = "what a living member missed is told on both sides";
const HEALS: &str = "after the faults heal everyone sees everyone";
const ONCE: &str = "a message is delivered at most once per incarnation";
const ORDER: &str = "messages of one key from one sender are delivered in the order submitted";
const REPLY: &str = "a reply reaches who waits for it, once";
const SENT: &str = "delivered is only what was sent";
const STALLED: &str = "a stalled member costs the others nothing once detected";

/// Three Ringtribe nodes in the own format, with messages enough.
const OWN: [(&str, u64); 4] = [("members", 3), ("stock", 0), ("formats", 0), ("keys", 5)];

const CASES: &[Case] = &[
    case(Planted::AckBeforeApply, APPLIED, 4, &[]),
    case(Planted::AppliedPastFailure, APPLIED, 4, &[("fail_listener", 50)]),
    case(Planted::FailureForgotten, APPLIED, 6, &[("fail_listener", 50), ("lose_connection", 30)]),
    case(Planted::FailureToNobody, COMPLETES, 28, &[("crash", 100)]),
    case(Planted::ForgottenResend, APPLIED, 4, &[("formats", 1), ("lose_connection", 30)]),
    case(Planted::DuplicateDelivered, ONCE, 4, &[("formats", 1), ("lose_connection", 30)]),
    case(
        Planted::ReversedOnReconnect,
        ORDER,
        10,
        &[("formats", 1), ("lose_connection", 30), ("pool_size", 2)],
    ),
    case(Planted::AnyLane, ORDER, 14, &[]),
    case(Planted::LatePlace, ORDER, 8, &[("long", 200), ("long_bytes", 100_000)]),
    case(
        Planted::NoSettling,
        ORDER,
        20,
        &[("formats", 1), ("lose_connection", 60), ("pool_size", 2)],
    ),
    case(Planted::NotHeld, ORDER, 30, &[("formats", 3), ("waiting_listeners", 0)]),
    case(
        Planted::OldLaneRead,
        ORDER,
        16,
        &[("hang", 100), ("workers", 1), ("ack_timeout_ms", 600), ("submit_gap_us", 2_000)],
    ),
    case(
        Planted::GapNotRaised,
        GAP,
        20,
        &[("hang", 100), ("workers", 1), ("ack_timeout_ms", 600), ("submit_gap_us", 2_000)],
    ),
    case(Planted::FormerLifeBelieved, SENT, 16, &[("crash", 100), ("late_datagram", 800)]),
    case(Planted::DroppedWhileReachable, DROPPED, 16, &[("lose_connection", 10)]),
    case(
        Planted::CutStaysOut,
        HEALS,
        16,
        &[("hang", 100), ("workers", 1), ("ack_timeout_ms", 600), ("submit_gap_us", 2_000)],
    ),
    case(
        Planted::AckOfAnother,
        APPLIED,
        6,
        &[
            ("formats", 1),
            ("slow_listener", 500),
            ("ack_timeout_ms", 600),
            ("pollers", 1),
            ("fail_listener", 1),
        ],
    ),
    case(Planted::BudgetKept, BUDGET, 4, &[]),
    case(
        Planted::BudgetTwice,
        BOUNDS,
        4,
        &[
            ("members", 2),
            ("slow_link", 1_000),
            ("small_room", 1_000),
            ("max_queue_bytes", 20_000),
            ("max_message_bytes", 3_000),
            ("long_bytes", 3_000),
            ("submit_gap_us", 1_000),
        ],
    ),
    case(
        Planted::ReplyBehindData,
        REPLY,
        12,
        &[
            ("requests", 200),
            ("small_room", 1_000),
            ("submit_gap_us", 1_500),
            ("max_queue_bytes", 300_000),
            ("long", 0),
            ("pollers", 4),
            ("waiting_listeners", 0),
            ("ack_timeout_ms", 2_500),
        ],
    ),
    case(
        Planted::ChunksNeverFinish,
        BUDGET,
        4,
        &[
            ("long", 200),
            ("long_bytes", 300_000),
            ("max_receive_bytes", 200_000),
            ("max_message_bytes", 1_000_000),
        ],
    ),
    case(
        Planted::BarrierEarly,
        BARRIER,
        20,
        &[("newcomers", 500), ("slow_listener", 1_000), ("pollers", 2), ("ack_timeout_ms", 2_500)],
    ),
    case(
        Planted::ListenersOverlap,
        COPIES,
        20,
        &[
            ("keys", 1),
            ("pollers", 4),
            ("slow_listener", 300),
            ("long_bytes", 3_000),
            ("max_message_bytes", 3_000),
        ],
    ),
    case(
        Planted::StallHoldsAll,
        STALLED,
        20,
        &[
            ("hang", 60),
            ("pollers", 4),
            ("long", 0),
            ("long_bytes", 3_000),
            ("requests", 0),
            ("waiting_listeners", 0),
            ("max_receive_bytes", 200_000),
            ("submit_gap_us", 10_000),
            ("workers", 1),
            ("ack_timeout_ms", 2_500),
            ("storm_ms", 6_000),
        ],
    ),
    case(
        Planted::StallUnnoticed,
        STALLED,
        20,
        &[
            ("hang", 60),
            ("small_room", 0),
            ("workers", 1),
            ("ack_timeout_ms", 600),
            ("drop_time_ms", 500),
            ("max_queue_bytes", 20_000),
            ("submit_gap_us", 4_000),
            ("storm_ms", 6_000),
            ("long", 300),
            ("long_bytes", 20_000),
        ],
    ),
];

impl Case {
    fn plan(&self, seed: u64, planted: Option<Planted>) -> Plan {
        let mut plan = Plan::of(seed);
        plan.faults = Faults { short_io: 200, small_room: 300, slow_listener: 20, ..Faults::NONE };
        for (name, value) in OWN.iter().chain(self.set) {
            assert!(plan.set(name, *value), "{name}");
        }
        plan.planted = planted;
        plan
    }

    /// The sentence that breaks in a history, and all that is said of it.
    fn play(&self, seed: u64) -> Option<(String, String)> {
        let broken = play_plan(&self.plan(seed, Some(self.bug))).broken?;
        let sentence = broken.split(':').next().unwrap_or_default().to_owned();
        Some((sentence, broken))
    }

    /// Where the bug is found first; the same history without it is whole.
    fn find(&self) -> Result<u64, String> {
        let mut others = String::new();
        for seed in 0..self.bound {
            let Some((sentence, broken)) = self.play(seed) else { continue };
            if sentence != self.checker {
                let _ = write!(others, "\n  seed {seed}: {broken}");
                continue;
            }
            if let Some(broken) = play_plan(&self.plan(seed, None)).broken {
                let _ = write!(others, "\n  seed {seed}, also without it: {broken}");
                continue;
            }
            return Ok(seed);
        }
        let line = self.plan(0, Some(self.bug)).replay_line();
        Err(format!("{:?} was not found in {} histories; {line}{others}", self.bug, self.bound))
    }

    /// In how many histories each sentence breaks, and where first.
    fn rates(&self, seeds_count: u64) -> String {
        let mut found: BTreeMap<String, (u64, u64, String)> = BTreeMap::new();
        for seed in 0..seeds_count {
            if let Some((sentence, broken)) = self.play(seed) {
                found.entry(sentence).or_insert((0, seed, broken)).0 += 1;
            }
        }
        let mut lines = format!("{:?}, meant for: {}\n", self.bug, self.checker);
        for (sentence, (count, first, broken)) in found {
            let _ = writeln!(
                lines,
                "  {count} of {seeds_count}, first {first}: {sentence}\n    {broken}"
            );
        }
        lines
    }
}

/// Does something for each case, on all processors; the results are in the order of the cases.
fn for_each<T: Send>(act: impl Fn(&Case) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = CASES.get(at) else { break };
                    let result = act(case);
                    results.lock().expect("no panic").insert(at, result);
                }
            });
        }
    });
    results.into_inner().expect("no panic").into_values().collect()
}

#[test]
fn each_planted_bug_is_found_by_the_checker_that_is_meant_to() {
    for bug in Planted::ALL {
        let count = CASES.iter().filter(|case| case.bug == *bug).count();
        assert_eq!(count, 1, "{bug:?} stands in the table once");
    }
    if let Ok(count) = std::env::var("RINGTRIBE_PLANTED_RATES") {
        let count = count.parse().expect("RINGTRIBE_PLANTED_RATES is a number of histories");
        for_each(|case| println!("{}", case.rates(count)));
        return;
    }
    let found = for_each(Case::find);
    let mut failed = Vec::new();
    println!("| bug | checker | first seed | bound |\n| --- | --- | --- | --- |");
    for (case, found) in CASES.iter().zip(found) {
        match found {
            Ok(first) => {
                println!("| {} | {} | {first} | {} |", case.bug.name(), case.checker, case.bound);
            }
            Err(text) => failed.push(text),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn an_application_that_takes_nothing_costs_the_others_nothing() {
    let case = CASES.iter().find(|case| case.bug == Planted::StallUnnoticed).expect("in the table");
    for seed in 0..12 {
        assert_eq!(play_plan(&case.plan(seed, None)).broken, None, "seed {seed}");
    }
}
