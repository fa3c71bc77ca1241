//! Plays simulated histories: `sim --start 0 --seeds 1000`, or one with `--seeds 1`.
//!
//! `--record FILE`, or `-` for standard output, writes them for the outside judge; `--planted NAME` plants
//! a bug in them.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use ringtribe::shared::Planted;
use ringtribe_tests::sim::{Faults, play, record};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn number(arguments: &[String], name: &str, otherwise: u64) -> u64 {
    arguments
        .windows(2)
        .find(|pair| pair[0] == name)
        .and_then(|pair| pair[1].parse().ok())
        .unwrap_or(otherwise)
}

fn word<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str())
}

/// Writes histories as they are played, for the outside judge.
fn write(arguments: &[String], file: &str) -> Result<(), String> {
    const PLANTED: [Planted; 5] = [
        Planted::AckBeforeApply,
        Planted::ForgottenResend,
        Planted::DuplicateDelivered,
        Planted::AnyLane,
        Planted::ReversedOnReconnect,
    ];
    let planted = word(arguments, "--planted")
        .map(|name| {
            let mut all = PLANTED.into_iter();
            all.find(|bug| format!("{bug:?}") == name)
                .ok_or_else(|| format!("{name} is no bug that is recorded: {PLANTED:?}"))
        })
        .transpose()?;
    let mut output: Box<dyn Write> = match file {
        "-" => Box::new(std::io::stdout().lock()),
        _ => {
            let created = std::fs::File::create(file);
            Box::new(created.map_err(|error| format!("{file}: {error}"))?)
        }
    };
    let start = number(arguments, "--start", 0);
    for seed in start..start + number(arguments, "--seeds", 1000) {
        let (_, history) = record(seed, Faults::of(seed), planted);
        let written = output.write_all(history.lines().as_bytes());
        written.map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(file) = word(&arguments, "--record") {
        return match write(&arguments, file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(text) => {
                eprintln!("{text}");
                ExitCode::FAILURE
            }
        };
    }
    let start = number(&arguments, "--start", 0);
    let seeds_count = number(&arguments, "--seeds", 1000);
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
