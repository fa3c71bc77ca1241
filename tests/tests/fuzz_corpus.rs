//! The inputs of the fuzzers: the committed corpus and the seeds, played to each target.

use std::path::Path;
use std::time::{Duration, Instant};

use ringtribe_fuzz::{TARGETS, seeds};

/// Time for all targets together; what does not fit is said.
const SHARE: Duration = Duration::from_secs(10);

#[test]
fn every_input_that_reached_something_new_is_taken_well() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let clock = Instant::now();
    for (at, target) in (1_u32..).zip(&TARGETS) {
        let found = seeds::files(&corpus.join(target.name));
        assert!(!found.is_empty(), "corpus/{} has inputs", target.name);
        let inputs = [seeds::of(target.name), found].concat();
        let until = SHARE * at / u32::try_from(TARGETS.len()).expect("few");
        let mut played_count = 0;
        for input in &inputs {
            if clock.elapsed() > until {
                break;
            }
            (target.play)(input);
            played_count += 1;
        }
        let all_count = inputs.len();
        println!("{}: {played_count} of {all_count} inputs played", target.name);
        assert!(played_count > 0, "{} had no time", target.name);
    }
}
