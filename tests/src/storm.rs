//! Histories of real processes: three members on loopback under load, each behind a proxy, while connections are
//! lost and stall, and members are stopped and killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringtribe::status::Status;

use crate::history::{Address, History, Incarnation, Told};
use crate::journal::now;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::sim::random::Random;
use crate::tomcat::free_mcast_port;

const MEMBERS_COUNT: usize = 3;
const MOST_KILLS_COUNT: u32 = 2;
const STORM: Duration = Duration::from_millis(900);
/// Longest wait for an answer of a member; its own waits are shorter.
const WITHIN: Duration = Duration::from_secs(60);

/// What a history of real processes was like.
#[derive(Debug)]
pub struct Played {
    /// What was seen.
    pub history: History,
    /// What did not end as it should, beside what the judge finds.
    pub trouble: Option<String>,
    /// Times that a process was stopped.
    pub stops_count: u32,
    /// Times that connections were lost or stalled.
    pub cuts_count: u32,
}

struct Running {
    process: Process,
    journal: PathBuf,
    life: u32,
}

/// What is taken back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Undo {
    Continue(usize),
    Unstall(usize),
    Restart(usize),
}

struct Storm<'a> {
    program: &'a Path,
    directory: &'a Path,
    settings: Vec<String>,
    random: Random,
    proxies: Vec<Proxy>,
    members: Vec<Option<Running>>,
    lives: Vec<u32>,
    journals: Vec<(Incarnation, PathBuf)>,
    undos: BTreeSet<(Instant, Undo)>,
    kills_left_count: u32,
    played: Played,
}

/// Plays the history of a seed: what happens when is drawn from it, but processes and kernel have their own ways.
/// `program` is the member (`judge member`), its journals lie in `directory`, which is emptied first.
///
/// # Errors
/// A process cannot be started, or does not answer: then nothing can be said of the engine's promise.
pub fn play(seed: u64, program: &Path, directory: &Path) -> Result<Played, String> {
    if directory.exists() {
        std::fs::remove_dir_all(directory).map_err(|error| error.to_string())?;
    }
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let settings = [
        format!("mcastPort={}", free_mcast_port()),
        "mcastBindAddr=127.0.0.1".into(),
        "mcastFrequency=50".into(),
        "mcastDropTime=400".into(),
        "ackTimeout=800".into(),
        "maxQueueSize=262144".into(),
        "tcpThreadCount=2".into(),
        "tcpListenAddress=127.0.0.1".into(),
        "tcpListenPort=31100".into(),
        "autoBind=900".into(),
    ];
    let proxies: Result<Vec<Proxy>, String> = (0..MEMBERS_COUNT).map(|_| Proxy::start()).collect();
    let played = Played {
        history: History::new(&format!("real-{seed}")),
        trouble: None,
        stops_count: 0,
        cuts_count: 0,
    };
    let mut storm = Storm {
        program,
        directory,
        settings: settings.into(),
        random: Random::new(seed),
        proxies: proxies?,
        members: (0..MEMBERS_COUNT).map(|_| None).collect(),
        lives: vec![0; MEMBERS_COUNT],
        journals: Vec::new(),
        undos: BTreeSet::new(),
        kills_left_count: MOST_KILLS_COUNT,
        played,
    };
    for member in 0..MEMBERS_COUNT {
        storm.start(member)?;
    }
    storm.everybody(&format!("members {}", MEMBERS_COUNT - 1))?;
    storm.rage()?;
    let healed = storm.everybody(&format!("members {}", MEMBERS_COUNT - 1));
    let stopped = storm.everybody("stop");
    storm.played.trouble = healed.and(stopped).err();
    storm.everybody("close")?;
    read_journals(&storm.journals, &mut storm.played.history)?;
    Ok(storm.played)
}

impl Storm<'_> {
    fn start(&mut self, member: usize) -> Result<(), String> {
        self.lives[member] += 1;
        let life = self.lives[member];
        let name = Incarnation { member, life }.to_string();
        let journal = self.directory.join(&name);
        let mut command = Command::new(self.program);
        command.arg("member").arg(self.random.next().to_string()).arg(&journal);
        command.args(&self.settings).stderr(Stdio::inherit());
        let mut process = Process::start(&name, command)?;
        let port = process.await_line("port=", WITHIN)?;
        self.proxies[member].aim(port.parse().map_err(|error| format!("{port}: {error}"))?);
        process.tell(&format!("announce {}", self.proxies[member].port))?;
        answered(&process)?;
        self.journals.push((Incarnation { member, life }, journal.clone()));
        self.members[member] = Some(Running { process, journal, life });
        Ok(())
    }

    /// Gives a command to all, who work on it side by side.
    fn everybody(&mut self, command: &str) -> Result<(), String> {
        for running in self.members.iter_mut().flatten() {
            running.process.tell(command)?;
        }
        let answers: Result<(), String> = self
            .members
            .iter()
            .flatten()
            .map(|running| {
                answered(&running.process)
                    .map_err(|text| format!("{}: {command}: {text}", running.journal.display()))
            })
            .fold(Ok(()), Result::and);
        answers
    }

    /// Things fail, one after another and at the same time, and are taken back.
    fn rage(&mut self) -> Result<(), String> {
        let end = Instant::now() + STORM;
        let mut next = Instant::now() + self.ms(20, 200);
        loop {
            let now = Instant::now();
            let due = self.undos.first().map_or(next, |(at, _)| next.min(*at));
            if now >= end {
                break;
            }
            if now < due {
                std::thread::park_timeout(due.min(end) - now);
                continue;
            }
            if let Some((at, undo)) = self.undos.first().copied().filter(|(at, _)| *at <= now) {
                self.undos.remove(&(at, undo));
                self.undo(undo)?;
                continue;
            }
            self.fail()?;
            next = Instant::now() + self.ms(20, 250);
        }
        while let Some((_, undo)) = self.undos.pop_first() {
            self.undo(undo)?;
        }
        Ok(())
    }

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.between(least, most))
    }

    fn later(&mut self, least_ms: u64, most_ms: u64, undo: Undo) {
        let at = Instant::now() + self.ms(least_ms, most_ms);
        self.undos.insert((at, undo));
    }

    fn fail(&mut self) -> Result<(), String> {
        let member = self.random.index(MEMBERS_COUNT);
        match self.random.below(10) {
            0..=3 => {
                self.played.cuts_count += 1;
                let (random, proxy) = (&mut self.random, &self.proxies[member]);
                let share = random.between(300, 1_000);
                proxy.lose(|| random.chance(share));
            }
            4..=5 => {
                self.played.cuts_count += 1;
                let (to, from) = (self.random.chance(600), self.random.chance(600));
                self.proxies[member].stall(to, from);
                self.later(20, 700, Undo::Unstall(member));
            }
            6..=7 => {
                let Some(running) = &self.members[member] else { return Ok(()) };
                self.played.stops_count += 1;
                running.process.signal(Signal::SIGSTOP)?;
                self.later(20, 700, Undo::Continue(member));
            }
            _ => {
                if self.kills_left_count > 0
                    && let Some(mut running) = self.members[member].take()
                {
                    self.kills_left_count -= 1;
                    let from = now();
                    running.process.kill()?;
                    let life = Incarnation { member, life: running.life };
                    self.played.history.killed(life, from, now());
                    self.proxies[member].lose(|| true);
                    self.proxies[member].aim(0);
                    self.later(0, 400, Undo::Restart(member));
                }
            }
        }
        Ok(())
    }

    fn undo(&mut self, undo: Undo) -> Result<(), String> {
        match undo {
            Undo::Continue(member) => {
                if let Some(running) = &self.members[member] {
                    running.process.signal(Signal::SIGCONT)?;
                }
            }
            Undo::Unstall(member) => self.proxies[member].stall(false, false),
            Undo::Restart(member) => self.start(member)?,
        }
        Ok(())
    }
}

fn answered(process: &Process) -> Result<(), String> {
    let answer = process.await_line("> ", WITHIN)?;
    answer.strip_prefix("error ").map_or(Ok(()), |text| Err(text.to_owned()))
}

/// Statuses of messages that never left their sender.
const REFUSED: [u16; 2] = [Status::QueueFull.number(), Status::StaleMember.number()];

/// What each life wrote, as far as it is whole: the last line of one that was killed may not be.
fn read_journals(journals: &[(Incarnation, PathBuf)], history: &mut History) -> Result<(), String> {
    let mut texts = Vec::new();
    let mut boots = BTreeMap::new();
    for (life, path) in journals {
        let mut text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        if let Some(boot) = text.lines().next().and_then(|line| line.strip_prefix("boot ")) {
            boots.insert(boot.to_owned(), *life);
        }
        texts.push((*life, path, text));
    }
    for (life, path, text) in &texts {
        for (number, line) in text.lines().enumerate() {
            read_line(*life, line, &boots, history)
                .ok_or_else(|| format!("{}:{}: {line}", path.display(), number + 1))?;
        }
    }
    Ok(())
}

fn read_line(
    life: Incarnation,
    line: &str,
    boots: &BTreeMap<String, Incarnation>,
    history: &mut History,
) -> Option<()> {
    let words: Vec<&str> = line.split(' ').collect();
    let key = |word: &str| if word == "-" { Some(None) } else { word.parse().ok().map(Some) };
    match words[..] {
        ["boot", _] => {}
        ["s", number, key_text, mode, at, to] => {
            let mode = ["applied", "received", "none"].into_iter().find(|is| *is == mode)?;
            let to: Option<Vec<Address>> = to
                .split(',')
                .map(|boot| {
                    // One that was never started by us would be a life of nobody.
                    let Incarnation { member, life } = *boots.get(boot)?;
                    Some(Address { member, life: Some(life) })
                })
                .collect();
            let number = number.parse().ok()?;
            history.submitted(life, number, key(key_text)?, mode, &to?, at.parse().ok()?);
        }
        ["q", number, at] => history.queued(life, number.parse().ok()?, at.parse().ok()?),
        ["d", number, at, failures] => {
            let failed: Option<BTreeMap<Incarnation, u16>> = failures
                .split(',')
                .filter(|failure| !failure.is_empty())
                .map(|failure| {
                    let (boot, status) = failure.split_once(':')?;
                    Some((*boots.get(boot)?, status.parse().ok()?))
                })
                .collect();
            let failed = failed?;
            history.told(life, number.parse().ok()?, at.parse().ok()?, |to| {
                let incarnation = Incarnation { member: to.member, life: to.life? };
                Some(match failed.get(&incarnation) {
                    None => Told::Ok,
                    Some(status) if REFUSED.contains(status) => Told::Refused,
                    Some(_) => Told::Failed,
                })
            });
        }
        ["t", sender, key_text, number, at] => {
            let sender = boots.get(sender).copied();
            history.taken(life, sender, key(key_text)?, number.parse().ok()?, at.parse().ok()?);
        }
        [mark @ ("a" | "r"), sender, number, at] => {
            let sender = boots.get(sender).copied();
            history.listened(life, sender, number.parse().ok()?, mark == "a", at.parse().ok()?);
        }
        ["e", at] => history.ended(life, at.parse().ok()?),
        _ => return None,
    }
    Some(())
}
