//! Simulated histories: the promise holds in all of them.

use ringtribe_tests::sim::{Faults, play};

const SEEDS_COUNT: u64 = 200;

#[test]
fn the_promise_holds_in_two_hundred_histories() {
    let mut acknowledged_count = 0;
    let mut duplicates_count = 0;
    for seed in 0..SEEDS_COUNT {
        let report = play(seed, Faults::of(seed), None);
        assert_eq!(report.broken, None, "seed {seed}");
        acknowledged_count += report.acknowledged_count;
        duplicates_count += report.duplicates_count;
    }
    // The histories contain what they are about.
    assert!(acknowledged_count > 20 * SEEDS_COUNT, "{acknowledged_count}");
    assert!(duplicates_count > SEEDS_COUNT, "{duplicates_count}");
}

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 4] {
        let (first, second) =
            (play(seed, Faults::of(seed), None), play(seed, Faults::of(seed), None));
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_eq!(first.delivered_count, second.delivered_count);
    }
    let (third, fourth) = (play(3, Faults::of(3), None), play(4, Faults::of(4), None));
    assert_ne!(third.fingerprint, fourth.fingerprint);
}
