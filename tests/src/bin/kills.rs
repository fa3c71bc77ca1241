//! SIGKILL of random members under load, of idle members, and hosts that vanish.
//!
//! `kills [--kills N] [--idle N] [--vanish N] [--seed N]`. Prints counts and distributions.

use std::process::ExitCode;

use ringtribe_tests::driven;
use ringtribe_tests::faults::cluster::this_program;
use ringtribe_tests::faults::kills::{Plan, Report, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn option(arguments: &[String], name: &str, default: u64) -> Result<u64, String> {
    let Some(at) = arguments.iter().position(|word| word == name) else { return Ok(default) };
    let value = arguments.get(at + 1).ok_or_else(|| format!("{name} wants a number"))?;
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

fn all(arguments: &[String]) -> Result<Report, String> {
    let count = |name, default| {
        let count = option(arguments, name, default)?;
        usize::try_from(count).map_err(|error| format!("{name} {count}: {error}"))
    };
    let busy_count = count("--kills", 1_000)?;
    let plan = Plan {
        hosts_count: 4,
        busy_count,
        idle_count: count("--idle", busy_count.div_ceil(10) as u64)?,
        vanish_count: count("--vanish", busy_count.div_ceil(10) as u64)?,
        drop_ms: 1_000,
        frequency_ms: 200,
        seed: option(arguments, "--seed", 1)?,
    };
    println!("{plan:?}");
    run(plan, 50, &this_program()?, |report| {
        println!("so far: {report}");
        for totals in &report.totals {
            println!("  senders at the end of the round: {totals}");
        }
    })
    .map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = &arguments[..]
        && first == "member"
    {
        return driven::main(rest);
    }
    match all(&arguments) {
        Ok(report) => {
            println!("in all: {report}");
            let judgement = &report.judgement;
            judgement.faults().take(100).for_each(|fault| println!("  {fault}"));
            if judgement.faults().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
