//! Pauses below mcastDropTime, stolen CPU and 5 % lost heartbeats: nobody may be expelled.
//!
//! `expulsions [--minutes N] [--seed N]`. Prints what it did each minute, and how many were expelled.

use std::process::ExitCode;
use std::time::Duration;

use ringtribe_tests::driven;
use ringtribe_tests::faults::cluster::this_program;
use ringtribe_tests::faults::expulsions::{Plan, burn, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn option(arguments: &[String], name: &str, default: u64) -> Result<u64, String> {
    let Some(at) = arguments.iter().position(|word| word == name) else { return Ok(default) };
    let value = arguments.get(at + 1).ok_or_else(|| format!("{name} wants a number"))?;
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

fn all(arguments: &[String]) -> Result<bool, String> {
    let plan = Plan {
        hosts_count: 4,
        time: Duration::from_secs(60 * option(arguments, "--minutes", 60)?),
        drop_ms: 3_000,
        frequency_ms: 500,
        lost_percent: 5,
        seed: option(arguments, "--seed", 1)?,
    };
    println!("{plan:?}");
    let report = run(plan, &this_program()?, |report| {
        println!("so far: {report}");
        report.expelled.iter().for_each(|expelled| println!("  {expelled}"));
    });
    let report = report.map_err(|error| error.to_string())?;
    println!("in all: {report}");
    report.expelled.iter().for_each(|expelled| println!("  {expelled}"));
    report.excused.iter().for_each(|excused| println!("  after a longer pause: {excused}"));
    report.totals.iter().for_each(|totals| println!("  senders: {totals}"));
    Ok(report.expelled.is_empty())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [first, rest @ ..] if first == "member" => return driven::main(rest),
        [first] if first == "burn" => {
            burn();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    match all(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
