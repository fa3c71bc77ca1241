//! Senders that wait for each message and note what was acknowledged.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtribe::ids::MemberId;
use ringtribe::status::Status;

use crate::member::{APPLIED, Member};

/// What senders do.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The first key; each sender has one of its own.
    pub first_key: u64,
    /// Senders.
    pub keys_count: u64,
    /// Payload of a message.
    pub bytes: usize,
    /// Wait after each message.
    pub pause: Duration,
}

/// What became of the messages.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Messages of which every member was asked.
    pub sent_count: u64,
    /// Messages at a member, applied.
    pub acked_count: u64,
    /// Messages at a member that were not, by what was said.
    pub failed: BTreeMap<Status, u64>,
    /// The longest call.
    pub longest: Duration,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: u64 = self.failed.values().sum();
        write!(f, "sent={} acked={} failed={failed}", self.sent_count, self.acked_count)?;
        write!(f, " longest={}", self.longest.as_millis())?;
        self.failed.iter().try_for_each(|(status, count)| write!(f, " {status:?}={count}"))
    }
}

/// Running senders.
#[derive(Debug)]
pub struct Load {
    ended: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
    totals: Arc<Mutex<Totals>>,
}

impl Load {
    /// Starts senders to all members that `member` knows; what is acknowledged goes to `notes`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn start(member: &Arc<Member>, pace: Pace, notes: Option<&Path>) -> Result<Self, String> {
        let notes = notes.map(|path| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|error| format!("{}: {error}", path.display()))
        });
        let notes = Arc::new(Mutex::new(notes.transpose()?));
        let (ended, totals) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Totals>>::default());
        let senders = (0..pace.keys_count).map(|key| {
            let (member, notes) = (Arc::clone(member), Arc::clone(&notes));
            let (ended, totals) = (Arc::clone(&ended), Arc::clone(&totals));
            std::thread::spawn(move || {
                for number in 0.. {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                    send(&member, pace, (pace.first_key + key, number), &notes, &totals);
                    std::thread::park_timeout(pace.pause);
                }
            })
        });
        let senders = senders.collect();
        Ok(Self { ended, senders, totals })
    }

    /// What has become of them so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends them, after the call that each is in.
    ///
    /// # Panics
    /// One of them did.
    #[must_use]
    pub fn stop(mut self) -> Totals {
        self.ended.store(true, Ordering::Release);
        for sender in self.senders.drain(..) {
            sender.thread().unpark();
            sender.join().expect("a sender");
        }
        self.totals()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        for sender in self.senders.drain(..) {
            sender.thread().unpark();
            let _ = sender.join();
        }
    }
}

fn send(
    member: &Member,
    pace: Pace,
    (key, number): (u64, u64),
    notes: &Mutex<Option<File>>,
    totals: &Mutex<Totals>,
) {
    let members = member.node.members();
    if members.is_empty() {
        std::thread::park_timeout(Duration::from_millis(5));
        return;
    }
    let to: Vec<MemberId> = members.iter().map(|entry| entry.id).collect();
    let clock = Instant::now();
    let sent = member.send(key, number, pace.bytes, APPLIED, &to);
    let took = clock.elapsed();
    let failures = sent.err().map(|failure| failure.failures).unwrap_or_default();
    let applied: Vec<_> = members
        .iter()
        .filter(|entry| !failures.iter().any(|(failed, _)| *failed == entry.id))
        .map(|entry| entry.address)
        .collect();
    let lines: String =
        applied.iter().map(|address| format!("{key} {number} {address}\n")).collect();
    if let Some(notes) = &mut *notes.lock().unwrap_or_else(PoisonError::into_inner) {
        notes.write_all(lines.as_bytes()).expect("it can be noted");
    }
    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
    totals.sent_count += 1;
    totals.acked_count += applied.len() as u64;
    totals.longest = totals.longest.max(took);
    for (_, status) in failures {
        *totals.failed.entry(status).or_default() += 1;
    }
}
