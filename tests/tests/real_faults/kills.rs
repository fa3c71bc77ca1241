//! SIGKILL under load, and how soon it is seen.

use std::time::Duration;

use ringtribe_tests::faults::cluster::or_skip;
use ringtribe_tests::faults::kills::{Plan, SEEN_MICROS, run};

use super::{DROP_MS, SLACK, program};

#[test]
fn killed_members_lose_nothing_acknowledged_and_are_seen_at_once() {
    let plan = Plan {
        hosts_count: 4,
        busy_count: 15,
        idle_count: 5,
        vanish_count: 1,
        drop_ms: DROP_MS,
        frequency_ms: 200,
        seed: std::process::id().into(),
    };
    println!("{plan:?}");
    let Some(report) = or_skip(run(plan, 15, &program(), |_| {})) else { return };
    println!("{report}");
    assert_eq!(report.kills_count, plan.busy_count);
    assert!(report.judgement.acked_count > 1_000, "it was under load");
    assert_eq!(report.judgement.faults().collect::<Vec<_>>(), Vec::<&String>::new());
    // A probe of one that is dead is refused, so mcastDropTime has no part in it.
    for seen in [&report.idle, &report.busy] {
        assert!(seen.permille(500) < 4 * SEEN_MICROS, "{seen}");
    }
    let lost = Duration::from_micros(report.vanished.max());
    assert!(lost <= Duration::from_millis(DROP_MS + 1_000) + SLACK, "{lost:?}");
}
