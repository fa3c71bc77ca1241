//! SIGKILL of random members, idle and under load, and hosts that vanish: what was acknowledged is
//! compared with what was applied, and how long it takes to notice and to recover is measured.

use std::fmt;
use std::time::Duration;

use super::cluster::{Cluster, Program};
use super::distribution::Distribution;
use super::judge::Judgement;
use super::{Dice, pass};
use crate::netns::NetworkError;
use crate::process::monotonic_micros;

/// Members that see a killed one later than this are counted.
pub const SEEN_MICROS: u64 = 50_000;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Members.
    pub hosts_count: usize,
    /// Kills under load.
    pub busy_count: usize,
    /// Kills of members that had nothing to send.
    pub idle_count: usize,
    /// Hosts that vanish without a word.
    pub vanish_count: usize,
    /// mcastDropTime, ms.
    pub drop_ms: u64,
    /// mcastFrequency, ms.
    pub frequency_ms: u64,
    /// Where chance begins.
    pub seed: u64,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Report {
    /// Kills under load.
    pub kills_count: usize,
    /// From the kill until another member announced it, without load.
    pub idle: Distribution,
    /// The same under load.
    pub busy: Distribution,
    /// From the moment a host vanished until another member gave it up.
    pub vanished: Distribution,
    /// From the start of a process until it saw all and all saw it.
    pub recovery: Distribution,
    /// What the notes say.
    pub judgement: Judgement,
    /// What became of the messages of those that lived at the end.
    pub totals: Vec<String>,
}

impl Report {
    fn append(&mut self, other: Self) {
        self.kills_count += other.kills_count;
        self.idle.append(&other.idle);
        self.busy.append(&other.busy);
        self.vanished.append(&other.vanished);
        self.recovery.append(&other.recovery);
        self.judgement.append(other.judgement);
        self.totals = other.totals;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} kills under load, {} idle", self.kills_count, self.idle.len() / 3)?;
        let (idle, busy) = (self.idle.above(SEEN_MICROS), self.busy.above(SEEN_MICROS));
        writeln!(f, "killed, seen by others, idle: {}; {idle} above 50 ms", self.idle)?;
        writeln!(f, "killed, seen by others, busy: {}; {busy} above 50 ms", self.busy)?;
        writeln!(f, "host vanished, given up:      {}", self.vanished)?;
        writeln!(f, "started, all see all:         {}", self.recovery)?;
        write!(f, "{}", self.judgement)
    }
}

/// Carries out a plan in rounds of at most `round` kills, each with a new cluster; `after` hears of
/// each round what was seen so far.
///
/// # Errors
/// See [`NetworkError`].
pub fn run(
    plan: Plan,
    round: usize,
    program: &Program,
    mut after: impl FnMut(&Report),
) -> Result<Report, NetworkError> {
    let rounds = plan.busy_count.div_ceil(round).max(1);
    let mut report = Report::default();
    for number in 0..rounds {
        let share = |count: usize| count * (number + 1) / rounds - count * number / rounds;
        let of_round = Plan {
            busy_count: share(plan.busy_count),
            idle_count: share(plan.idle_count),
            vanish_count: share(plan.vanish_count),
            seed: plan.seed + number as u64,
            ..plan
        };
        let settings = [
            format!("mcastDropTime={}", plan.drop_ms),
            format!("mcastFrequency={}", plan.frequency_ms),
            "ackTimeout=5000".into(),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let cluster = Cluster::start(plan.hosts_count, program.clone(), &settings)?;
        let mut trial = Trial { cluster, plan: of_round, dice: Dice(of_round.seed) };
        report.append(trial.run().map_err(NetworkError::Failed)?);
        after(&report);
    }
    Ok(report)
}

struct Trial {
    cluster: Cluster,
    plan: Plan,
    dice: Dice,
}

impl Trial {
    fn run(&mut self) -> Result<Report, String> {
        let mut report = Report::default();
        for _ in 0..self.plan.idle_count {
            let (seen, recovery) = self.kill(false)?;
            report.idle.append(&seen);
            report.recovery.add(recovery);
        }
        for host in self.cluster.living() {
            self.load(host)?;
        }
        for _ in 0..self.plan.busy_count {
            let (seen, recovery) = self.kill(true)?;
            report.kills_count += 1;
            report.busy.append(&seen);
            report.recovery.add(recovery);
        }
        for _ in 0..self.plan.vanish_count {
            report.vanished.append(&self.vanish()?);
        }
        report.totals = self.cluster.ask_all("unload")?;
        report.judgement = self.cluster.judge()?;
        Ok(report)
    }

    fn load(&mut self, host: usize) -> Result<(), String> {
        self.cluster.ask(host, "load keys=3 bytes=600 pause=3000").map(drop)
    }

    fn any_host(&mut self) -> usize {
        let most = self.cluster.hosts_count() as u64;
        usize::try_from(self.dice.below(most)).unwrap_or(0)
    }

    /// How often each other member has seen a change of a host.
    fn counts(&mut self, kind: &str, host: usize) -> Result<Vec<(usize, u64)>, String> {
        let others = self.cluster.others(host);
        let count = |other| Ok((other, self.cluster.count(other, kind, host)?));
        others.into_iter().map(count).collect()
    }

    /// When each of them has seen one more.
    fn await_one_more(
        &mut self,
        counts: &[(usize, u64)],
        kind: &str,
        host: usize,
    ) -> Result<Vec<u64>, String> {
        let one_more = |(other, count): &(usize, u64)| {
            self.cluster.await_change(*other, kind, host, count + 1)
        };
        counts.iter().map(one_more).collect()
    }

    /// Kills one, looks how long it takes the others to see it, and starts it again; one in four is
    /// started again before anyone is asked.
    fn kill(&mut self, busy: bool) -> Result<(Distribution, u64), String> {
        pass(self.dice.time(Duration::from_millis(300)));
        let host = self.any_host();
        let (gone, added) = (self.counts("gone", host)?, self.counts("added", host)?);
        let killed = self.cluster.kill(host)?;
        let at_once = self.dice.below(4) == 0;
        let mut seen = Vec::new();
        if !at_once {
            seen = self.await_one_more(&gone, "gone", host)?;
            pass(self.dice.time(Duration::from_millis(200)));
        }
        let started = monotonic_micros();
        self.cluster.revive(host, &[])?;
        if at_once {
            seen = self.await_one_more(&gone, "gone", host)?;
        }
        let mut ready = self.await_one_more(&added, "added", host)?;
        for other in self.cluster.others(host) {
            ready.push(self.cluster.await_change(host, "added", other, 1)?);
        }
        if busy {
            self.load(host)?;
        }
        let mut distribution = Distribution::default();
        seen.iter().for_each(|micros| distribution.add(micros.saturating_sub(killed)));
        let last = ready.into_iter().max().unwrap_or(started);
        Ok((distribution, last.saturating_sub(started)))
    }

    /// Takes the link of one down until the others have given it up.
    fn vanish(&mut self) -> Result<Distribution, String> {
        pass(self.dice.time(Duration::from_millis(300)));
        let host = self.any_host();
        let (gone, added) = (self.counts("gone", host)?, self.counts("added", host)?);
        let text = |error: NetworkError| error.to_string();
        let cut = monotonic_micros();
        self.cluster.network.set_link(host, false).map_err(text)?;
        let seen = self.await_one_more(&gone, "gone", host)?;
        self.cluster.network.set_link(host, true).map_err(text)?;
        self.await_one_more(&added, "added", host)?;
        self.cluster.all_see_all()?;
        let mut distribution = Distribution::default();
        seen.iter().for_each(|micros| distribution.add(micros.saturating_sub(cut)));
        Ok(distribution)
    }
}
