//! Plays simulated histories: `sim --start 0 --seeds 1000`, or one with `--seeds 1`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use ringtribe::planted::Planted;
use ringtribe_tests::sim::{Faults, play};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn number(arguments: &[String], name: &str, otherwise: u64) -> u64 {
    arguments
        .windows(2)
        .find(|pair| pair[0] == name)
        .and_then(|pair| pair[1].parse().ok())
        .unwrap_or(otherwise)
}

/// Plays histories with a planted bug: which checkers find it, in how many, and where first.
fn plant(name: &str, start: u64, seeds_count: u64) -> ExitCode {
    let Some(bug) = Planted::ALL.iter().copied().find(|bug| bug.name() == name) else {
        let names: Vec<_> = Planted::ALL.iter().map(|bug| bug.name()).collect();
        eprintln!("--planted {name}: no such bug; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    };
    let mut found: BTreeMap<String, (u64, u64, String)> = BTreeMap::new();
    for seed in start..start + seeds_count {
        if let Some(broken) = play(seed, Faults::of(seed), Some(bug)).broken {
            let sentence = broken.split(':').next().unwrap_or_default().to_owned();
            found.entry(sentence).or_insert((0, seed, broken)).0 += 1;
        }
    }
    for (sentence, (found_count, first, broken)) in &found {
        println!("{name}: {sentence}: {found_count} of {seeds_count}, first {first}: {broken}");
    }
    if found.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let start = number(&arguments, "--start", 0);
    let seeds_count = number(&arguments, "--seeds", 1000);
    if let Some(at) = arguments.iter().position(|argument| argument == "--planted") {
        return plant(arguments.get(at + 1).map_or("", String::as_str), start, seeds_count);
    }
    let clock = Instant::now();
    let (mut delivered, mut acknowledged, mut failed, mut duplicates, mut events) = (0, 0, 0, 0, 0);
    let mut broken_count = 0;
    for seed in start..start + seeds_count {
        let report = play(seed, Faults::of(seed), None);
        delivered += report.delivered_count;
        acknowledged += report.acknowledged_count;
        failed += report.failed_count;
        duplicates += report.duplicates_count;
        events += report.events_count;
        if let Some(sentence) = report.broken {
            broken_count += 1;
            println!("seed {seed}: broken: {sentence}");
            println!(
                "  replay: cargo run --release -p ringtribe-tests --bin sim -- --start {seed} --seeds 1"
            );
        }
    }
    println!(
        "{seeds_count} histories in {:.1} s: {events} events, {delivered} deliveries, {acknowledged} \
         acknowledged, {failed} failed by name, {duplicates} duplicates recognised, {broken_count} broken",
        clock.elapsed().as_secs_f64()
    );
    if broken_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
