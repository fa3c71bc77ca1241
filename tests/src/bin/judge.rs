//! Lets porcupine judge histories: `judge --simulated 10000 --real 200`, from `--start SEED` on.
//!
//! `judge member ...` is one of the real processes.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ringtribe_tests::history::Told;
use ringtribe_tests::judge::{Judge, Verdicts};
use ringtribe_tests::sim::{Plan, record};
use ringtribe_tests::{build, journal, storm};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "judge [--start SEED] [--simulated COUNT] [--real COUNT]";

fn numbers(arguments: &[String]) -> Result<[u64; 3], String> {
    let mut values = [0, 10_000, 200];
    for pair in arguments.chunks(2) {
        let at = ["--start", "--simulated", "--real"].iter().position(|name| *name == pair[0]);
        let value = pair.get(1).and_then(|value| value.parse().ok());
        let (Some(at), Some(value)) = (at, value) else {
            return Err(format!("{}: {USAGE}", pair.join(" ")));
        };
        values[at] = value;
    }
    Ok(values)
}

fn say(what: &str, clock: Instant, verdicts: &Verdicts) {
    let seconds = clock.elapsed().as_secs_f64();
    let count = u32::try_from(verdicts.judged_count).unwrap_or(u32::MAX);
    for bad in &verdicts.bad {
        println!("{what}: bad: {bad}");
    }
    let rate = f64::from(count) / seconds;
    println!("{what}: {} ({rate:.1} histories/s)", verdicts.summary);
}

fn simulated(judge: &Judge, start: u64, count: u64) -> Result<Verdicts, String> {
    let next = AtomicU64::new(start);
    let threads_count = std::thread::available_parallelism().map_or(1, usize::from);
    judge.judge(|write| {
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads_count {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= start + count {
                            return;
                        }
                        let (_, history) = record(&Plan::of(seed));
                        if let Err(text) = write(&history.lines()) {
                            if let Ok(mut failed) = failed.lock() {
                                *failed = Some(text);
                            }
                            return;
                        }
                    }
                });
            }
        });
        failed.into_inner().ok().flatten().map_or(Ok(()), Err)
    })
}

fn real(judge: &Judge, start: u64, count: u64) -> Result<(Verdicts, u64), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let directory = build::run_directory().join("judge").join("real");
    let mut sums = [0; 7];
    let mut troubles_count = 0;
    let verdicts = judge.judge(|write| {
        for seed in start..start + count {
            let played = storm::play(seed, Path::new(&program), &directory)?;
            if let Some(trouble) = &played.trouble {
                troubles_count += 1;
                println!("real-{seed}: {trouble}");
            }
            let history = &played.history;
            let told: usize = [Told::Ok, Told::Failed, Told::Refused]
                .iter()
                .map(|told| history.told_count("applied", *told))
                .sum();
            let found = [
                history.takes_count(),
                history.told_count("applied", Told::Ok),
                told,
                history.told_count("received", Told::Ok),
                history.kills_count(),
                played.stops_count as usize,
                played.cuts_count as usize,
            ];
            for (sum, found) in sums.iter_mut().zip(found) {
                *sum += found;
            }
            write(&history.lines())?;
        }
        Ok(())
    })?;
    let [takes, applied, told, received, kills, stops, cuts] = sums;
    println!(
        "real: {takes} deliveries, {applied} of {told} outcomes acknowledged as applied, {received} as \
         received; {kills} SIGKILLs, {stops} SIGSTOPs, {cuts} times connections lost or stalled"
    );
    Ok((verdicts, troubles_count))
}

fn run(arguments: &[String]) -> Result<bool, String> {
    if let Some(("member", rest)) =
        arguments.split_first().map(|(first, rest)| (first.as_str(), rest))
    {
        return journal::run(rest).map(|()| true);
    }
    let [start, simulated_count, real_count] = numbers(arguments)?;
    let Some(judge) = Judge::build()? else { return Ok(false) };
    let mut is_good = true;
    if simulated_count > 0 {
        let clock = Instant::now();
        let verdicts = simulated(&judge, start, simulated_count)?;
        say("simulated", clock, &verdicts);
        is_good &= verdicts.is_good();
    }
    if real_count > 0 {
        let clock = Instant::now();
        let (verdicts, troubles_count) = real(&judge, start, real_count)?;
        say("real", clock, &verdicts);
        is_good &= verdicts.is_good() && troubles_count == 0;
    }
    Ok(is_good)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}
