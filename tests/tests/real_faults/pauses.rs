//! Members that stand still: SIGSTOP below and above mcastDropTime, pauses with lost heartbeats and
//! stolen CPU, listeners that hang.

use std::time::Duration;

use nix::sys::signal::Signal;
use ringtribe_tests::faults::cluster::or_skip;
use ringtribe_tests::faults::expulsions::{Plan, run};
use ringtribe_tests::faults::pass;

use super::{DROP_MS, SLACK, cluster, judge, load, program};

const PAUSE: Duration = Duration::from_secs(2);

#[test]
fn a_pause_of_two_seconds_below_the_drop_time_costs_nothing() {
    let Some(mut cluster) = cluster(3, &["mcastDropTime=3000", "ackTimeout=8000"]) else { return };
    load(&mut cluster);
    pass(Duration::from_millis(500));
    cluster.signal(2, Signal::SIGSTOP).expect("it runs");
    pass(PAUSE);
    cluster.signal(2, Signal::SIGCONT).expect("it is there");
    pass(Duration::from_millis(1_500));
    for observer in cluster.living() {
        for kind in ["gone", "gap-here", "gap-there"] {
            for other in cluster.others(observer) {
                assert_eq!(
                    cluster.count(observer, kind, other),
                    Ok(0),
                    "{observer} {kind} {other}"
                );
            }
        }
    }
    for totals in judge(&mut cluster) {
        assert_eq!(super::field(&totals, "failed"), 0, "slow, no more");
    }
}

#[test]
fn a_pause_of_two_seconds_above_the_drop_time_is_a_gap_on_both_sides() {
    let Some(mut cluster) = cluster(3, &["mcastDropTime=500", "mcastFrequency=100"]) else {
        return;
    };
    load(&mut cluster);
    pass(Duration::from_millis(500));
    let stopped = cluster.signal(2, Signal::SIGSTOP).expect("it runs");
    for observer in [0, 1] {
        let seen = cluster.await_change(observer, "gone", 2, 1).expect("it is given up");
        let took = Duration::from_micros(seen.saturating_sub(stopped));
        assert!(took <= Duration::from_millis(500 + 1_000) + SLACK, "{took:?}");
    }
    pass(PAUSE.saturating_sub(Duration::from_millis(500 + 1_000)));
    cluster.signal(2, Signal::SIGCONT).expect("it is there");
    for observer in [0, 1] {
        cluster.await_change(observer, "added", 2, 2).expect("it comes back");
    }
    cluster.all_see_all().expect("all see all");
    pass(Duration::from_millis(700));
    for observer in [0, 1] {
        assert_eq!(cluster.count(observer, "gap-there", 2), Ok(1), "host 2 missed something");
        assert_eq!(cluster.count(2, "gap-here", observer), Ok(1), "and is told so");
    }
    judge(&mut cluster);
}

#[test]
fn nobody_is_expelled_for_pauses_lost_heartbeats_or_stolen_processors() {
    let plan = Plan {
        hosts_count: 4,
        time: Duration::from_secs(8),
        drop_ms: 2 * DROP_MS,
        frequency_ms: 200,
        lost_percent: 5,
        seed: std::process::id().into(),
    };
    println!("{plan:?}");
    let Some(report) = or_skip(run(plan, &program(), |_| {})) else { return };
    println!("{report}");
    assert!(report.pauses_count > 2);
    assert_eq!(report.expelled, Vec::<String>::new());
}
