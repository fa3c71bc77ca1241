//! A history that breaks a sentence, made smaller as long as it breaks the same one.

use super::{Plan, Report, play_plan};

/// Histories that are tried at most.
const TRIES_COUNT: usize = 400;

/// The sentence without what it happened to.
fn sentence(report: &Report) -> Option<&str> {
    report.broken.as_deref().and_then(|broken| broken.split(':').next())
}

/// Turns faults off one at a time, takes fewer members, a shorter storm and less load, while the
/// history still breaks the same sentence. Returns the smallest that was found.
#[must_use]
pub fn shrink(plan: &Plan) -> Plan {
    let mut best = plan.clone();
    let report = play_plan(plan);
    let Some(wanted) = sentence(&report).map(str::to_owned) else { return best };
    let mut tries_count = 0;
    let mut try_it = |candidate: Plan, best: &mut Plan| {
        tries_count += 1;
        let is_smaller = tries_count <= TRIES_COUNT
            && sentence(&play_plan(&candidate)).is_some_and(|broken| broken == wanted);
        if is_smaller {
            *best = candidate;
        }
        is_smaller
    };
    loop {
        let mut found = false;
        for (name, value) in best.faults.list() {
            for smaller in [0, value / 4, value / 2] {
                if smaller < value {
                    let mut candidate = best.clone();
                    let _ = candidate.faults.set(name, smaller);
                    if try_it(candidate, &mut best) {
                        found = true;
                        break;
                    }
                }
            }
        }
        for (name, value, least) in lesser(&best) {
            if value < least {
                continue;
            }
            let mut candidate = best.clone();
            let _ = candidate.scene.set(name, value);
            found |= try_it(candidate, &mut best);
        }
        if !found {
            return best;
        }
    }
}

/// Parts of the scene, a smaller value, and what it may not be below.
fn lesser(plan: &Plan) -> Vec<(&'static str, u64, u64)> {
    let scene = &plan.scene;
    let mut list = vec![
        ("members", scene.members / 2, 2 + scene.stock),
        ("members", scene.members - 1, 2 + scene.stock),
        ("storm_ms", scene.storm_ms * 3 / 4, 400),
        ("storm_ms", scene.storm_ms * 9 / 10, 400),
        ("submit_gap_us", scene.submit_gap_us * 2, 1),
        ("workers", scene.workers / 2, 1),
        ("keys", scene.keys / 2, 1),
    ];
    for (name, value) in [
        ("stock", scene.stock),
        ("requests", scene.requests),
        ("waiting_listeners", scene.waiting_listeners),
        ("newcomers", scene.newcomers),
        ("long", scene.long),
    ] {
        if value > 0 {
            list.push((name, 0, 0));
        }
    }
    if scene.submit_gap_us > 500_000 {
        list.retain(|(name, ..)| *name != "submit_gap_us");
    }
    list
}
