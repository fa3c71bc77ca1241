//! Plays simulated histories: `sim --start 0 --seeds 1000 --jobs 4`, or one with `--seeds 1`.
//!
//! `--fault name=permille` and `--set name=value` change the faults and the scene that a seed asks for,
//! `--planted Bug` plants a bug, `--trace` prints what happened, `--shrink` makes what fails smaller.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ringtribe::shared::Planted;
use ringtribe_tests::sim::{Plan, Report, play_plan, shrink};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Histories that are described before only their count goes on.
const FAILURES_SHOWN_COUNT: usize = 20;

#[derive(Default)]
struct Options {
    start: u64,
    seeds_count: u64,
    jobs_count: u64,
    values: Vec<(String, u64)>,
    planted: Option<Planted>,
    trace: bool,
    shrink: bool,
    usual_faults: bool,
}

fn options() -> Result<Options, String> {
    let cores_count = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut options = Options {
        seeds_count: 1000,
        jobs_count: cores_count,
        usual_faults: true,
        ..Options::default()
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--trace" => options.trace = true,
            "--shrink" => options.shrink = true,
            "--no-faults" => options.usual_faults = false,
            name @ ("--start" | "--seeds" | "--jobs" | "--set" | "--fault" | "--planted") => {
                let value =
                    arguments.next().ok_or_else(|| format!("{name} needs a value behind it"))?;
                let number = |text: &str| {
                    text.parse::<u64>().map_err(|_| format!("{name} {value}: not a number"))
                };
                match name {
                    "--start" => options.start = number(&value)?,
                    "--seeds" => options.seeds_count = number(&value)?,
                    "--jobs" => options.jobs_count = number(&value)?.max(1),
                    "--planted" => options.planted = Some(planted(&value)?),
                    _ => {
                        let (key, text) = value
                            .split_once('=')
                            .ok_or_else(|| format!("{name} {value}: name=number is expected"))?;
                        options.values.push((key.to_owned(), number(text)?));
                    }
                }
            }
            other => return Err(format!("{other}: no such option")),
        }
    }
    Ok(options)
}

fn planted(name: &str) -> Result<Planted, String> {
    Planted::ALL
        .iter()
        .find(|bug| format!("{bug:?}") == name)
        .copied()
        .ok_or_else(|| format!("--planted {name}: one of {:?} is expected", Planted::ALL))
}

impl Options {
    fn plan(&self, seed: u64) -> Result<Plan, String> {
        let mut plan = Plan::of(seed);
        if !self.usual_faults {
            plan.faults = ringtribe_tests::sim::Faults::NONE;
        }
        for (name, value) in &self.values {
            if !plan.set(name, *value) {
                return Err(format!("{name}: no such fault or part of the scene"));
            }
        }
        plan.planted = self.planted;
        Ok(plan)
    }
}

#[derive(Default)]
struct Sums {
    events: u64,
    submitted: u64,
    delivered: u64,
    acknowledged: u64,
    failed: u64,
    duplicates: u64,
    broken: Vec<(u64, String)>,
}

impl Sums {
    fn add(&mut self, report: Report) {
        self.events += report.events_count;
        self.submitted += report.submitted_count;
        self.delivered += report.delivered_count;
        self.acknowledged += report.acknowledged_count;
        self.failed += report.failed_count;
        self.duplicates += report.duplicates_count;
        self.broken.extend(report.broken.map(|sentence| (report.seed, sentence)));
    }
}

fn describe(options: &Options, seed: u64, sentence: &str) -> Result<(), String> {
    let mut plan = options.plan(seed)?;
    println!("seed {seed}: broken: {sentence}");
    println!("  {}", plan.describe());
    println!("  replay: {}", plan.replay_line());
    if options.shrink {
        plan = shrink(&plan);
        println!("  smaller: {}", plan.describe());
        println!("  replay: {}", plan.replay_line());
    }
    Ok(())
}

fn run() -> Result<bool, String> {
    let options = options()?;
    // Names are looked at before anything is played.
    options.plan(0)?;
    let clock = Instant::now();
    let next = AtomicU64::new(options.start);
    let end = options.start.saturating_add(options.seeds_count);
    let sums = Mutex::new(Sums::default());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs_count {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let Ok(plan) = options.plan(seed) else { break };
                    let report = play_plan(&plan);
                    if let Ok(mut sums) = sums.lock() {
                        sums.add(report);
                    }
                }
            });
        }
    });
    let elapsed = clock.elapsed().as_secs_f64();
    let mut sums = sums.into_inner().map_err(|_| "a history panicked".to_owned())?;
    sums.broken.sort();
    for (seed, sentence) in sums.broken.iter().take(FAILURES_SHOWN_COUNT) {
        describe(&options, *seed, sentence)?;
    }
    if options.trace && options.seeds_count == 1 {
        let plan = Plan { trace: true, ..options.plan(options.start)? };
        println!("{}", plan.describe());
        for line in play_plan(&plan).trace {
            println!("{line}");
        }
    }
    let Sums { events, submitted, delivered, acknowledged, failed, duplicates, broken } = &sums;
    let (count, broken_count) = (options.seeds_count, broken.len());
    println!(
        "{count} histories in {elapsed:.1} s: {events} events, {submitted} messages, {delivered} \
         deliveries, {acknowledged} acknowledged, {failed} failed by name, {duplicates} duplicates \
         recognised, {broken_count} broken"
    );
    Ok(broken.is_empty())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
