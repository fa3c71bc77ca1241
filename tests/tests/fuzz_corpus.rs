//! The inputs of the fuzzers: the committed corpus and the seeds, played to each target. Those of the C
//! entry points are played in `tests/fuzz`, a workspace of its own: `cargo test --no-default-features`.

use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../fuzz/src/targets/mod.rs"]
#[allow(dead_code, reason = "the fuzzers use the rest")]
#[allow(unreachable_pub, missing_docs, reason = "it is a library there")]
mod targets;

use targets::{TARGETS, seeds};

/// Time for all targets together; what does not fit is said.
const SHARE: Duration = Duration::from_secs(10);

#[test]
fn every_input_that_reached_something_new_is_taken_well() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().expect("below the root");
    let clock = Instant::now();
    for (at, target) in (1_u32..).zip(&TARGETS) {
        let found = seeds::files(&tests.join("fuzz/corpus").join(target.name));
        assert!(!found.is_empty(), "corpus/{} has inputs", target.name);
        let inputs = [seeds::of(root, target.name), found].concat();
        let until = SHARE * at / u32::try_from(TARGETS.len()).expect("few");
        let mut played_count = 0;
        for input in &inputs {
            if played_count > 0 && clock.elapsed() > until {
                break;
            }
            (target.play)(input);
            played_count += 1;
        }
        println!("{}: {played_count} of {} inputs played", target.name, inputs.len());
    }
}
