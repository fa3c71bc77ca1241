//! A member in a process of its own, driven line by line; and the side that drives it.
//!
//! `member ID [NAME=VALUE ...]` with the engine's attributes, and with `life=N` (how often it was
//! started), `notes=DIRECTORY` (what it applies and what is acknowledged is noted there),
//! `limit-nofile=N`, `limit-as=BYTES` and `limit-memlock=BYTES`, with `rings-above=N` (larger rings
//! are refused by seccomp) and `user=N` (it has no capabilities). Says where it listens and what it runs on. Commands:
//!
//! * `members count=N` waits for so many;
//! * `delivered key=K` tells the numbers of the messages of a key, `await key=K number=N` waits for one;
//! * `gaps port=N` counts what it and that member were told to have missed, `repaired` says that it is;
//! * `load keys=N bytes=N pause=MICROSECONDS` starts senders, `unload` ends them and tells what became of
//!   the messages, `sent` tells it without;
//! * `changes` tells all changes of the view, `change kind=added|gone address=A count=N` waits for the
//!   Nth of a sort, `count kind=K address=A` tells how many there were;
//! * `hold value=1` lets its listeners keep what they are given;
//! * `hog` takes all descriptors that are left, `unhog` gives them back;
//! * `logs` tells what was logged, `log WORDS` waits for a line with them.

use std::fs::File;
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, setuid};

use crate::load::{Load, Pace};
use crate::member::{Change, Kind, Member, Seen, numbers, runs};
use crate::process::Process;
use crate::refuse::refuse_rings_above;

/// Longest wait for an answer.
const WITHIN: Duration = Duration::from_secs(40);

/// A key of `load` holds the id of its sender, how often that was started, and which of its senders.
const SENDER_SHIFT: u32 = 48;

/// The id of the member whose key it is.
#[must_use]
pub const fn sender_of(key: u64) -> u64 {
    key >> SENDER_SHIFT
}

/// The value of `NAME=VALUE` among words.
fn value<'a>(words: &[&'a str], name: &str) -> Result<&'a str, String> {
    let value = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.ok_or_else(|| format!("{name}= is missing"))
}

fn number(words: &[&str], name: &str) -> Result<u64, String> {
    let value = value(words, name)?;
    value.parse().map_err(|error| format!("{name}={value}: {error}"))
}

fn name(kind: Kind) -> String {
    match kind {
        Kind::Added => "added".into(),
        Kind::Gone(_) => "gone".into(),
        Kind::GapHere => "gap-here".into(),
        Kind::GapThere => "gap-there".into(),
    }
}

fn line(change: &Change) -> String {
    let cause = match change.kind {
        Kind::Gone(cause) => format!("{cause:?}"),
        _ => "-".into(),
    };
    format!("{},{},{},{cause}", name(change.kind), change.address, change.micros)
}

/// A running member with what the commands started.
struct Driven {
    member: Arc<Member>,
    load: Option<Load>,
    hogged: Vec<File>,
    id: u64,
    life: u64,
    notes: Option<PathBuf>,
}

impl Driven {
    fn answer(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let member = &self.member;
        match words.first().copied() {
            Some("members") => {
                let wanted = usize::try_from(number(&words, "count")?).unwrap_or(usize::MAX);
                member
                    .wait("members", |_| (member.node.members().len() == wanted).then_some(()))?;
                Ok(format!("members={wanted}"))
            }
            Some("delivered") => {
                let key = number(&words, "key")?;
                let of_key = |seen: &mut Seen| seen.delivered.get(&key).cloned();
                Ok(runs(&member.look(of_key).unwrap_or_default()))
            }
            Some("before-pause") => {
                let key = number(&words, "key")?;
                let count = member.look(|seen| seen.before_pause.get(&key).copied().unwrap_or(0));
                Ok(format!("{count}"))
            }
            Some("await") => {
                let (key, wanted) = (number(&words, "key")?, number(&words, "number")?);
                member.wait("a message", |seen| {
                    seen.delivered.get(&key)?.contains(&wanted).then_some(())
                })?;
                Ok("came".into())
            }
            Some("gaps") => {
                let port = number(&words, "port")?;
                let entries = member.node.members();
                let of = entries.iter().find(|entry| u64::from(entry.address.port()) == port);
                let of = of.ok_or_else(|| format!("no member listens at {port}"))?.id;
                let count = |is_here| member.look(|seen| seen.gaps_count(of, is_here));
                Ok(format!("here={} there={}", count(true), count(false)))
            }
            Some("repaired") => {
                for entry in member.node.members() {
                    member.node.repaired(entry.id);
                }
                Ok("repaired".into())
            }
            Some("changes") => {
                let lines: Vec<String> =
                    member.look(|seen| seen.changes.iter().map(self::line).collect());
                Ok(lines.join(" "))
            }
            Some("change") => self.await_change(&words),
            Some("count") => {
                let (kind, address) = (value(&words, "kind")?, value(&words, "address")?);
                let is_one = |c: &&Change| c.address.to_string() == address && name(c.kind) == kind;
                let count = member.look(|seen| seen.changes.iter().filter(is_one).count());
                Ok(count.to_string())
            }
            _ => self.disturb(&words, line),
        }
    }

    /// Waits for the Nth change of a sort and tells when it was.
    fn await_change(&self, words: &[&str]) -> Result<String, String> {
        let (kind, address) = (value(words, "kind")?, value(words, "address")?);
        let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
        let count = usize::try_from(number(words, "count")?).unwrap_or(usize::MAX);
        let nth = count.checked_sub(1).ok_or("count=0 has always been")?;
        let what = format!("{count} times {kind} {address}");
        let micros = self.member.wait(&what, |seen| {
            let is_one = |c: &&Change| c.address == address && name(c.kind) == kind;
            seen.changes.iter().filter(is_one).nth(nth).map(|change| change.micros)
        })?;
        Ok(micros.to_string())
    }

    fn disturb(&mut self, words: &[&str], line: &str) -> Result<String, String> {
        match words.first().copied() {
            Some("load") => {
                let pace = Pace {
                    first_key: self.id << SENDER_SHIFT | self.life << 16,
                    keys_count: number(words, "keys")?,
                    bytes: usize::try_from(number(words, "bytes")?).unwrap_or(usize::MAX),
                    pause: Duration::from_micros(number(words, "pause")?),
                };
                let path = self.notes.as_ref().map(|path| path.with_extension("acked"));
                self.load = Some(Load::start(&self.member, pace, path.as_deref())?);
                Ok("loaded".into())
            }
            Some("sent") => Ok(self.load.as_ref().ok_or("nothing is sent")?.totals().to_string()),
            Some("unload") => Ok(self.load.take().ok_or("nothing is sent")?.stop().to_string()),
            Some("hold") => {
                self.member.hold(number(words, "value")? != 0);
                Ok("done".into())
            }
            Some("hog") => {
                while let Ok(file) = File::open("/dev/null") {
                    self.hogged.push(file);
                }
                Ok(self.hogged.len().to_string())
            }
            Some("unhog") => {
                self.hogged.clear();
                Ok("done".into())
            }
            Some("logs") => Ok(self.member.look(|seen| seen.logs.join(" | "))),
            Some("log") => {
                let parts = &words[1..];
                let found = |seen: &Seen| seen.has_log(parts).then_some(());
                self.member.wait("a line of the log", found)?;
                Ok("there".into())
            }
            _ => Err(format!("no such command: {line}")),
        }
    }
}

fn limit(name: &str, value: &str) -> Result<(), String> {
    let resource = match name {
        "limit-nofile" => Resource::RLIMIT_NOFILE,
        "limit-as" => Resource::RLIMIT_AS,
        "limit-memlock" => Resource::RLIMIT_MEMLOCK,
        _ => return Err(format!("there is no {name}")),
    };
    let limit = value.parse().map_err(|error| format!("{name}={value}: {error}"))?;
    setrlimit(resource, limit, limit).map_err(|error| format!("{name}={value}: {error}"))
}

fn run(arguments: &[String]) -> Result<(), String> {
    let (id, settings) = arguments.split_first().ok_or("give an id")?;
    let id: u8 = id.parse().map_err(|error| format!("{id}: {error}"))?;
    let (mut engine, mut life, mut notes, mut user) = (Vec::new(), 0, None, None);
    for setting in settings {
        let (name, value) = setting.split_once('=').ok_or("settings are NAME=VALUE")?;
        match name {
            "life" => life = number(&[setting], "life")?,
            "notes" => notes = Some(Path::new(value)),
            "rings-above" => refuse_rings_above(number(&[setting], "rings-above")?)?,
            "user" => user = Some(number(&[setting], "user")?),
            name if name.starts_with("limit-") => limit(name, value)?,
            _ => engine.push((name, value)),
        }
    }
    let notes = notes.map(|directory| directory.join(format!("{id}-{life}")));
    let journal = notes
        .as_ref()
        .map(|path| path.with_extension("applied"))
        .map(|path| File::create(&path).map_err(|error| format!("{}: {error}", path.display())));
    let journal = journal.transpose()?;
    if let Some(user) = user {
        let user = u32::try_from(user).map_err(|error| format!("user={user}: {error}"))?;
        setuid(Uid::from_raw(user)).map_err(|error| format!("user={user}: {error}"))?;
    }
    let member = Member::open(id, &engine)?;
    member.look(|seen| seen.journal = journal);
    member.announce()?;
    println!("port={}", member.address.port());
    println!("backend={}", member.node.backend());
    let member = Arc::new(member);
    let mut driven = Driven { member, load: None, hogged: Vec::new(), id: id.into(), life, notes };
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("> {}", driven.answer(&line).unwrap_or_else(|text| format!("error {text}")));
    }
    Ok(())
}

/// What the process does, with the arguments behind its name.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Such a process, seen from the one that drives it.
#[derive(Debug)]
pub struct Child {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub port: u16,
    /// What it runs on.
    pub backend: String,
}

impl Child {
    /// Starts `command`, which begins as `member`, with the arguments of such a process.
    ///
    /// # Errors
    /// It does not listen.
    pub fn start(mut command: Command, id: u8, settings: &[String]) -> Result<Self, String> {
        command.arg(id.to_string()).args(settings).stderr(Stdio::inherit());
        let process = Process::start(&format!("member {id}"), command)?;
        let port = process.await_line("port=", WITHIN)?;
        let backend = process.await_line("backend=", WITHIN)?;
        Ok(Self { process, port: port.parse().map_err(|_| "no port")?, backend })
    }

    /// Its answer to a command.
    ///
    /// # Errors
    /// It has ended, or could not do it.
    pub fn try_ask(&mut self, command: &str) -> Result<String, String> {
        self.process.tell(command)?;
        let answer = self.process.await_line("> ", WITHIN)?;
        match answer.strip_prefix("error ") {
            Some(text) => Err(format!("{command}: {text}")),
            None => Ok(answer),
        }
    }

    /// The same.
    ///
    /// # Panics
    /// Where that is an error.
    pub fn ask(&mut self, command: &str) -> String {
        self.try_ask(command).unwrap_or_else(|text| panic!("{text}"))
    }

    /// The numbers of the messages of a key.
    ///
    /// # Panics
    /// It does not answer.
    pub fn delivered(&mut self, key: u64) -> Vec<u64> {
        numbers(&self.ask(&format!("delivered key={key}"))).expect("runs")
    }
}
