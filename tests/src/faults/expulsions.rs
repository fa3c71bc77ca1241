//! Pauses below mcastDropTime, stolen CPU and lost heartbeats: nobody may be expelled.

use std::fmt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::cluster::{Cluster, Program};
use super::{Dice, pass};
use crate::netns::{Loss, Network, NetworkError, Way};
use crate::process::{Process, monotonic_micros};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Members.
    pub hosts_count: usize,
    /// How long.
    pub time: Duration,
    /// mcastDropTime, ms.
    pub drop_ms: u64,
    /// mcastFrequency, ms.
    pub frequency_ms: u64,
    /// Heartbeats of a hundred that are lost.
    pub lost_percent: u32,
    /// Where chance begins.
    pub seed: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Pauses.
    pub pauses_count: u64,
    /// Their sum.
    pub paused: Duration,
    /// The longest, ms.
    pub longest_ms: u128,
    /// Time in which others had the processors.
    pub stolen: Duration,
    /// Members that others gave up: who saw it, what it saw, and the pauses at that time.
    pub expelled: Vec<String>,
    /// The same where the pause had become longer than mcastDropTime: this process had to wait for a
    /// processor itself, or pauses followed each other with less than mcastFrequency between them, in
    /// which no heartbeat need be sent. Together these are one silence.
    pub excused: Vec<String>,
    pauses: Vec<Pause>,
    /// What became of the messages.
    pub totals: Vec<String>,
    /// How long it went on.
    pub time: Duration,
}

/// A member that stood still, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Pause {
    host: usize,
    from: u64,
    until: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} minutes, {} pauses of at most {} ms ({:.1} s in all), CPU stolen for {:.1} s: {} expelled, {} \
             more after longer pauses",
            self.time.as_secs_f64() / 60.0,
            self.pauses_count,
            self.longest_ms,
            self.paused.as_secs_f64(),
            self.stolen.as_secs_f64(),
            self.expelled.len(),
            self.excused.len()
        )
    }
}

/// Spins until its standard input ends: a program that wants the processor.
pub fn burn() {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 * std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ended.store(true, Ordering::Relaxed);
    });
}

/// Carries it out; `program` is one whose first argument `burn` leads to [`burn`]. Members run at a
/// lower priority than what steals the processors from them.
///
/// # Errors
/// See [`NetworkError`].
pub fn run(
    plan: Plan,
    program: &Program,
    mut each_minute: impl FnMut(&Report),
) -> Result<Report, NetworkError> {
    let settings = [
        format!("mcastDropTime={}", plan.drop_ms),
        format!("mcastFrequency={}", plan.frequency_ms),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let nice = ["nice", "-n", "5"].map(str::to_owned).into_iter();
    let niced: Program = nice.chain(program.iter().cloned()).collect();
    let mut cluster = Cluster::start(plan.hosts_count, niced, &settings)?;
    for host in 0..plan.hosts_count {
        cluster.network.lose(host, Way::To, Loss::Heartbeats(plan.lost_percent))?;
    }
    trial(plan, &mut cluster, &program[0], &mut each_minute).map_err(NetworkError::Failed)
}

fn trial(
    plan: Plan,
    cluster: &mut Cluster,
    burner: &str,
    each_minute: &mut impl FnMut(&Report),
) -> Result<Report, String> {
    cluster.ask_all("load keys=2 bytes=300 pause=10000")?;
    let mut dice = Dice(plan.seed);
    let mut report = Report::default();
    let began = Instant::now();
    let mut told = began;
    while began.elapsed() < plan.time {
        let burning = if dice.below(2) == 0 { Some(steal(burner)?) } else { None };
        let from = Instant::now();
        for _ in 0..3 {
            pause_one(plan, cluster, &mut dice, &mut report)?;
            pass(dice.time(Duration::from_millis(400)));
        }
        if burning.is_some() {
            report.stolen += from.elapsed();
        }
        drop(burning);
        look(plan, cluster, &mut report)?;
        if told.elapsed() >= Duration::from_secs(60) {
            told = Instant::now();
            each_minute(&report);
        }
        report.time = began.elapsed();
    }
    // Whoever is given up late is seen as well.
    pass(Duration::from_millis(plan.drop_ms + 1_500));
    look(plan, cluster, &mut report)?;
    report.totals = cluster.ask_all("unload")?;
    Ok(report)
}

fn steal(burner: &str) -> Result<Process, String> {
    let mut command = Command::new(burner);
    command.arg("burn").stderr(Stdio::inherit());
    Process::start("burner", command)
}

fn pause_one(
    plan: Plan,
    cluster: &mut Cluster,
    dice: &mut Dice,
    report: &mut Report,
) -> Result<(), String> {
    let host = usize::try_from(dice.below(plan.hosts_count as u64)).unwrap_or(0);
    // What a heartbeat of the past and the next one may add: a member that is paused for less
    // than mcastDropTime is not to be given up even then, since it has a second to answer a probe.
    let pause = dice.time(Duration::from_millis(plan.drop_ms));
    let from = cluster.signal(host, Signal::SIGSTOP)?;
    pass(pause);
    cluster.signal(host, Signal::SIGCONT)?;
    let until = monotonic_micros();
    let paused = Duration::from_micros(until - from);
    report.pauses.push(Pause { host, from, until });
    report.pauses_count += 1;
    report.paused += paused;
    report.longest_ms = report.longest_ms.max(paused.as_millis());
    Ok(())
}

/// Looks who was given up, and by whom.
fn look(plan: Plan, cluster: &mut Cluster, report: &mut Report) -> Result<(), String> {
    let answers = cluster.ask_all("changes")?;
    report.expelled.clear();
    report.excused.clear();
    let silences = silences(&report.pauses, 1_000 * plan.frequency_ms);
    for (observer, changes) in answers.iter().enumerate() {
        for change in changes.split(' ').filter(|change| change.starts_with("gone,")) {
            let words: Vec<&str> = change.split(',').collect();
            let at: u64 = words[2].parse().map_err(|error| format!("{change}: {error}"))?;
            // Whose pauses may have to do with it: until mcastDropTime and a probe before.
            let near = |pause: &&Pause| {
                pause.from <= at && at <= pause.until + 1_000 * (plan.drop_ms + 1_500)
            };
            let pauses: Vec<Pause> = report.pauses.iter().filter(near).copied().collect();
            let is_long = |pause: &Pause| {
                near(&pause)
                    && Network::address(pause.host).to_string() == words[1]
                    && pause.until - pause.from >= 1_000 * plan.drop_ms
            };
            let text = format!("host {observer} saw {change}; {pauses:?}");
            if silences.iter().any(is_long) {
                report.excused.push(text);
            } else {
                report.expelled.push(text);
            }
        }
    }
    Ok(())
}

/// Pauses of one member with less than `gap_micros` between them, as one.
fn silences(pauses: &[Pause], gap_micros: u64) -> Vec<Pause> {
    let mut silences: Vec<Pause> = Vec::new();
    for pause in pauses {
        let last = silences.iter_mut().rev().find(|last| last.host == pause.host);
        match last {
            Some(last) if pause.from < last.until + gap_micros => last.until = pause.until,
            _ => silences.push(*pause),
        }
    }
    silences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_close_together_are_one_silence_and_others_are_not() {
        let pause = |host, from, until| Pause { host, from, until };
        let all = [pause(1, 0, 20), pause(2, 22, 30), pause(1, 25, 40), pause(2, 41, 50)];
        let found: Vec<_> =
            silences(&all, 10).iter().map(|all| (all.host, all.from, all.until)).collect();
        assert_eq!(found, [(1, 0, 40), (2, 22, 30), (2, 41, 50)]);
    }
}
