//! The demo's members, seen from outside: processes that are told and asked, and what they said.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ringtribe::config::Config;
use ringtribe::control::trial;
use serde_json::Value;

use crate::demo_ledger::{Held, Holdings, Ledger, Name};

/// Longest wait for anything that a member does.
const WITHIN: Duration = Duration::from_secs(10);
/// Lines of the members that may wait; then the members do.
const LINES_COUNT: usize = 1_024;
const SIGKILL: i32 = 9;

/// One member's process.
struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    replies: VecDeque<Value>,
    ended: bool,
    killed: bool,
    /// Its own process has said of these that they are there, and when they went and why.
    sees: BTreeMap<u8, Option<(Instant, String)>>,
    /// Sends that every member acknowledged, and those that some did not.
    ok_count: u64,
    failed_count: u64,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Closed, it ends by itself; killed, it surely does.
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All members, and the ledger of what they said was acknowledged.
pub(crate) struct Peers {
    all: BTreeMap<u8, Peer>,
    lines: Receiver<(u8, Option<String>)>,
    pub(crate) ledger: Ledger,
}

/// The group of one run, on this machine alone.
pub(crate) struct Group {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
}

impl Group {
    /// A group that nobody else has, tried out.
    ///
    /// # Errors
    /// Multicast does not work on the loopback interface, with the remedy.
    pub(crate) fn found() -> Result<Self, String> {
        let [a, b] = ringtribe::ring::random_bytes().map_err(|error| error.to_string())?;
        let address = Ipv4Addr::new(239, 255, a, b);
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let port = free.map_err(|error| format!("no UDP port is free: {error}"))?.port();
        let config = Config {
            mcast_addr: address.into(),
            mcast_port: port,
            mcast_bind_addr: Some(Ipv4Addr::LOCALHOST.into()),
            ..Config::default()
        };
        match trial::multicast(&config) {
            Ok(_) => Ok(Self { address, port }),
            Err(error) => Err(format!("multicast does not work on this machine: {error}")),
        }
    }
}

impl Peers {
    /// Starts members 1 to `count`, of which `drops` acknowledges without keeping.
    ///
    /// # Errors
    /// A process cannot be started, or its node cannot.
    pub(crate) fn start(group: &Group, count: u8, drops: Option<u8>) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let (line_in, lines) = sync_channel(LINES_COUNT);
        let mut peers = Self { all: BTreeMap::new(), lines, ledger: Ledger::default() };
        for number in 1..=count {
            let mut command = Command::new(&program);
            command.args(["demo-member", "--number", &number.to_string()]);
            command.args(["--group", &group.address.to_string()]);
            command.args(["--port", &group.port.to_string()]);
            if drops == Some(number) {
                command.arg("--drop-replication");
            }
            let peer = Peer::start(command, number, line_in.clone());
            let peer = peer.map_err(|error| format!("member {number} cannot start: {error}"))?;
            peers.all.insert(number, peer);
        }
        Ok(peers)
    }

    fn peer(&mut self, member: u8) -> Result<&mut Peer, String> {
        self.all.get_mut(&member).ok_or_else(|| format!("member {member} is no more"))
    }

    /// The process of a member.
    pub(crate) fn pid(&self, member: u8) -> u32 {
        self.all.get(&member).map_or(0, |peer| peer.child.id())
    }

    /// Tells a member to do something.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn tell(&mut self, member: u8, line: &str) -> Result<(), String> {
        let peer = self.peer(member)?;
        let input = peer.input.as_mut().ok_or("its input is closed")?;
        writeln!(input, "{line}").map_err(|error| format!("member {member}: {error}"))
    }

    /// The next answer of a member to what it was told.
    ///
    /// # Errors
    /// It has ended, or nothing came in time.
    pub(crate) fn reply(&mut self, member: u8) -> Result<Value, String> {
        self.await_that(&format!("an answer of member {member}"), WITHIN, |peers| {
            peers.all.get(&member).is_some_and(|peer| !peer.replies.is_empty())
        })?;
        self.peer(member)?.replies.pop_front().ok_or_else(|| "it was there".into())
    }

    /// Tells and takes the answer.
    ///
    /// # Errors
    /// As both.
    pub(crate) fn ask(&mut self, member: u8, line: &str) -> Result<Value, String> {
        self.tell(member, line)?;
        self.reply(member)
    }

    /// Waits until each of `members` sees all the others of them.
    ///
    /// # Errors
    /// One does not in time.
    pub(crate) fn await_view(&mut self, members: &[u8]) -> Result<(), String> {
        self.await_that("a member that sees all the others", WITHIN, |peers| {
            members.iter().all(|member| {
                let sees = &peers.all[member].sees;
                members.iter().all(|other| other == member || matches!(sees.get(other), Some(None)))
            })
        })
    }

    /// Waits until each of `members` has seen `gone` go; returns for each how long after `since`,
    /// and why.
    ///
    /// # Errors
    /// One does not in time.
    pub(crate) fn await_gone(
        &mut self,
        members: &[u8],
        gone: u8,
        since: Instant,
    ) -> Result<Vec<(u8, Duration, String)>, String> {
        let seen = |peers: &Self, member: u8| {
            peers.all.get(&member).and_then(|peer| peer.sees.get(&gone)).cloned().flatten()
        };
        self.await_that("a member that notices", WITHIN, |peers| {
            members.iter().all(|member| seen(peers, *member).is_some())
        })?;
        let noticed = members.iter().filter_map(|member| {
            let (when, cause) = seen(self, *member)?;
            Some((*member, when.saturating_duration_since(since), cause))
        });
        Ok(noticed.collect())
    }

    /// Sends of a member while it talks: acknowledged by all, and not by all.
    pub(crate) fn sends(&self, member: u8) -> (u64, u64) {
        self.all.get(&member).map_or((0, 0), |peer| (peer.ok_count, peer.failed_count))
    }

    /// Waits until each of `members` had `more` sends acknowledged beyond what it has now.
    ///
    /// # Errors
    /// One has not in time.
    pub(crate) fn await_sends(&mut self, members: &[u8], more: u64) -> Result<(), String> {
        let wanted: Vec<(u8, u64)> =
            members.iter().map(|member| (*member, self.sends(*member).0 + more)).collect();
        self.await_that("acknowledged messages", WITHIN, |peers| {
            wanted.iter().all(|(member, count)| peers.sends(*member).0 >= *count)
        })
    }

    /// Kills a member by SIGKILL, and takes all that it had said before.
    ///
    /// # Errors
    /// It cannot be killed, or it ended otherwise.
    pub(crate) fn kill(&mut self, member: u8) -> Result<(), String> {
        let peer = self.peer(member)?;
        peer.killed = true;
        peer.child.kill().map_err(|error| format!("member {member}: {error}"))?;
        self.await_that("the end of a process that was killed", WITHIN, |peers| {
            peers.all.get(&member).is_none_or(|peer| peer.ended)
        })?;
        let status = self.peer(member)?.child.wait().map_err(|error| error.to_string())?;
        match status.signal() {
            Some(SIGKILL) => Ok(()),
            _ => Err(format!("member {member} ended otherwise than by SIGKILL: {status}")),
        }
    }

    /// What a member holds, and how many messages came to it behind a newer one.
    ///
    /// # Errors
    /// It does not tell.
    pub(crate) fn holdings(&mut self, member: u8) -> Result<(Holdings, u64), String> {
        let answer = self.ask(member, "map")?;
        let values = answer["values"].as_array().ok_or("no map")?;
        let holdings = values.iter().filter_map(|value| {
            let name = name(&value[0], &value[1])?;
            let (version, digest) = (value[2].as_u64()?, value[3].as_u64()?);
            Some((name, Held { version, digest }))
        });
        let count = answer["out_of_order_count"].as_u64().ok_or("no count")?;
        Ok((holdings.collect(), count))
    }

    /// Takes lines until `done`.
    fn await_that(
        &mut self,
        what: &str,
        within: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let until = Instant::now() + within;
        while !done(self) {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((member, line)) => self.take(member, line),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("waited {} s in vain for {what}", within.as_secs()));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("all members ended before {what}"));
                }
            }
            let by_itself = |(_, peer): &(&u8, &Peer)| peer.ended && !peer.killed;
            if let Some((member, _)) = self.all.iter().find(by_itself) {
                return Err(format!("member {member} ended by itself"));
            }
        }
        Ok(())
    }

    fn take(&mut self, member: u8, line: Option<String>) {
        let Some(peer) = self.all.get_mut(&member) else { return };
        let Some(line) = line else {
            peer.ended = true;
            return;
        };
        // A line that was cut off by the end of its process is none.
        let Ok(line) = serde_json::from_str::<Value>(&line) else { return };
        if line["reply"].is_string() {
            for entry in line["acknowledged"].as_array().into_iter().flatten() {
                if let (Some(name), Some(other), Some(version)) =
                    (name(&member.into(), &entry[0]), number(&entry[1]), entry[2].as_u64())
                {
                    self.ledger.acknowledged(other, name, version);
                }
            }
            peer.replies.push_back(line);
        } else if let Some(ok) = line["ok"].as_array() {
            if line["failed"] == 0 {
                peer.ok_count += 1
            } else {
                peer.failed_count += 1
            }
            let [key, version, members] = ok.as_slice() else { return };
            let (Some(name), Some(version)) = (name(&member.into(), key), version.as_u64()) else {
                return;
            };
            for other in members.as_array().into_iter().flatten().filter_map(number) {
                self.ledger.acknowledged(other, name, version);
            }
        } else if let Some(other) = number(&line["member"]) {
            let gone = line["event"] == "gone";
            let cause = line["cause"].as_str().unwrap_or_default().to_owned();
            peer.sees.insert(other, gone.then(|| (Instant::now(), cause)));
        } else if let Some(text) = line["text"].as_str() {
            eprintln!("member {member}: {text}");
        }
    }
}

fn number(value: &Value) -> Option<u8> {
    u8::try_from(value.as_u64()?).ok()
}

fn name(owner: &Value, key: &Value) -> Option<Name> {
    Some(Name { owner: number(owner)?, key: u32::try_from(key.as_u64()?).ok()? })
}

impl Peer {
    fn start(
        mut command: Command,
        number: u8,
        line_in: SyncSender<(u8, Option<String>)>,
    ) -> std::io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let reading = move || {
            for line in output.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
                let Ok(line) = line else { break };
                if line_in.send((number, Some(line))).is_err() {
                    return;
                }
            }
            let _ = line_in.send((number, None));
        };
        let peer = Self {
            child,
            input,
            replies: VecDeque::new(),
            ended: false,
            killed: false,
            sees: BTreeMap::new(),
            ok_count: 0,
            failed_count: 0,
        };
        std::thread::Builder::new().name(format!("member-{number}")).spawn(reading)?;
        Ok(peer)
    }
}
