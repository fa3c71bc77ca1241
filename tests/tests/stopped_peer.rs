//! A member that is stopped and goes on: a stopped process accepts connections and answers nothing.
//!
//! Three processes: this one sends to two others, of which one gets SIGSTOP.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringtribe::event::Event;
use ringtribe::ids::MemberId;
use ringtribe::status::Status;
use ringtribe_tests::driven::Child;
use ringtribe_tests::member::{APPLIED, ASYNCHRONOUS, Member, Seen};
use ringtribe_tests::tomcat::free_mcast_port;

const DROP_MS: u64 = 1_000;
/// What a busy machine may add to any of them.
const SLACK: Duration = Duration::from_millis(1_000);
const QUEUE_BYTES: usize = 256 << 10;
const MESSAGE_BYTES: usize = 4 << 10;
/// What a message costs in a queue beside its payload.
const OVERHEAD_BYTES: usize = ringtribe::budget::MESSAGE_OVERHEAD_BYTES;
/// Pollers of messages that a member has.
const LISTENERS_COUNT: u64 = 2;

/// Keys by their senders: two that wait, one that takes completions, one that asks for nothing, and
/// one that speaks to B alone.
const WAITING: [u64; 2] = [1, 2];
const COMPLETED: u64 = 3;
const UNASKED: u64 = 4;
const ALONE: u64 = 5;

fn start(id: u8, settings: &[String]) -> Child {
    let command = Command::new(env!("CARGO_BIN_EXE_member"));
    Child::start(command, id, settings).expect("it listens")
}

/// What became of a message at one member.
type Outcomes = BTreeMap<(u64, u64), Status>;

/// What the senders noted.
#[derive(Debug, Default)]
struct Notes {
    /// Messages that named C.
    to_c: Outcomes,
    b_failures: Vec<(u64, u64, Status)>,
    /// When each message to B alone began, and how long it took.
    alone: Vec<(Instant, Duration)>,
    /// The longest call that named C.
    longest: Duration,
    /// Messages of each key, by token.
    tokens: Vec<(u64, u64)>,
    last: BTreeMap<u64, u64>,
}

struct Trial {
    a: Member,
    b: MemberId,
    /// C as it is known now, if it is.
    c: Mutex<Option<MemberId>>,
    notes: Mutex<Notes>,
    ended: AtomicBool,
}

impl Trial {
    fn notes<T>(&self, note: impl FnOnce(&mut Notes) -> T) -> T {
        note(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn c(&self) -> Option<MemberId> {
        *self.c.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is to have the next message: both, as long as the engine knows C.
    fn both(&self) -> Vec<MemberId> {
        let c = self.c().filter(|c| self.a.node.member(*c).is_some());
        [self.b].into_iter().chain(c).collect()
    }

    /// Notes how a message to `to` ended.
    fn note(&self, key: u64, number: u64, to: &[MemberId], failures: &[(MemberId, Status)]) {
        let status = |member: MemberId| {
            let failure = failures.iter().find(|(failed, _)| *failed == member);
            failure.map_or(Status::Ok, |(_, status)| *status)
        };
        self.notes(|notes| {
            if !status(self.b).is_ok() {
                notes.b_failures.push((key, number, status(self.b)));
            }
            if let [_, c] = to {
                notes.to_c.insert((key, number), status(*c));
            }
        });
    }

    fn waiting(&self, key: u64) {
        for number in 0.. {
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            let to = self.both();
            let clock = Instant::now();
            let sent = self.a.send(key, number, MESSAGE_BYTES, APPLIED, &to);
            let took = clock.elapsed();
            self.note(key, number, &to, &sent.err().map(|e| e.failures).unwrap_or_default());
            self.notes(|notes| {
                notes.longest = notes.longest.max(took);
                notes.last.insert(key, number);
            });
        }
    }

    fn asynchronous(&self) {
        for number in 0.. {
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            for key in [COMPLETED, UNASKED] {
                let to = self.both();
                let token = self.notes(|notes| {
                    notes.last.insert(key, number);
                    if key == UNASKED {
                        return None;
                    }
                    notes.tokens.push((number, to.get(1).copied().map_or(0, MemberId::to_bits)));
                    Some(notes.tokens.len() as u64 - 1)
                });
                let options = if key == UNASKED { ASYNCHRONOUS } else { APPLIED };
                let clock = Instant::now();
                let sent = self.a.submit(key, number, MESSAGE_BYTES, options, &to, token);
                let took = clock.elapsed();
                self.notes(|notes| notes.longest = notes.longest.max(took));
                let failures = sent.err().map(|e| e.failures).unwrap_or_default();
                assert!(token.is_none() || failures.is_empty(), "it comes with the completion");
                if key == UNASKED {
                    let of_b = failures.iter().any(|(member, _)| *member == self.b);
                    assert!(!of_b, "{failures:?}");
                }
            }
        }
    }

    fn alone(&self) {
        for number in 0.. {
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            let clock = Instant::now();
            let sent = self.a.send(ALONE, number, MESSAGE_BYTES, APPLIED, &[self.b]);
            self.notes(|notes| {
                notes.alone.push((clock, clock.elapsed()));
                notes.last.insert(ALONE, number);
            });
            sent.expect("B alone is not touched by it");
        }
    }

    /// Messages a second to B alone between two moments, and their p99.
    fn rate(&self, name: &str, from: Instant, to: Instant) -> f64 {
        let mut took: Vec<Duration> = self.notes(|notes| {
            let within = notes.alone.iter().filter(|(at, _)| (from..to).contains(at));
            within.map(|(_, took)| *took).collect()
        });
        took.sort_unstable();
        let count = u32::try_from(took.len()).expect("few");
        let rate = f64::from(count) / (to - from).as_secs_f64();
        let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
        println!("{name}: {rate:.0} messages/s from A to B alone, p99 {p99:?}");
        rate
    }

    /// Waits for the completions that are due, and notes them.
    fn take_completions(&self) {
        let tokens = self.notes(|notes| std::mem::take(&mut notes.tokens));
        let completed = self.a.wait("completions", |seen| {
            (seen.completed.len() == tokens.len()).then(|| seen.completed.clone())
        });
        let completed = completed.expect("each token comes back");
        for (token, (number, c)) in tokens.iter().enumerate() {
            let c = (*c != 0).then(|| MemberId::from_bits(*c));
            let to: Vec<MemberId> = [self.b].into_iter().chain(c).collect();
            self.note(COMPLETED, *number, &to, &completed[&(token as u64)]);
        }
    }
}

/// Runs the senders while `story` happens.
fn during(ack_ms: u64, story: impl FnOnce(&Trial, &mut Child)) -> (Trial, Child, Child) {
    let group = [
        format!("mcastPort={}", free_mcast_port()),
        "mcastBindAddr=127.0.0.1".into(),
        "mcastFrequency=200".into(),
        format!("mcastDropTime={DROP_MS}"),
        format!("ackTimeout={ack_ms}"),
        format!("maxQueueSize={QUEUE_BYTES}"),
    ];
    let (mut b, mut c) = (start(2, &group), start(3, &group));
    let settings: Vec<_> = group.iter().filter_map(|word| word.split_once('=')).collect();
    let a = Member::start(1, &settings).expect("it starts");
    let entries = [b.port, c.port].map(|port| a.member_at(port).expect("it is seen"));
    for child in [&mut b, &mut c] {
        child.ask("members count=2");
    }
    assert!(entries.iter().all(|entry| entry.boot_id().is_some()), "the own format");
    let trial = Trial {
        a,
        b: entries[0].id,
        c: Mutex::new(Some(entries[1].id)),
        notes: Mutex::default(),
        ended: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for key in WAITING {
            let trial = &trial;
            scope.spawn(move || trial.waiting(key));
        }
        scope.spawn(|| trial.asynchronous());
        scope.spawn(|| trial.alone());
        // A story that fails must not leave the senders running.
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&trial, &mut c)));
        trial.ended.store(true, Ordering::Release);
        if let Err(why) = told {
            let _ = c.process.signal(Signal::SIGCONT);
            std::panic::resume_unwind(why);
        }
    });
    trial.take_completions();
    // The queue is a bound whatever happens, with one message more than fits.
    for entry in entries {
        let (_, most_bytes) = entry.budget.used_and_most_bytes();
        let limit_bytes = QUEUE_BYTES + MESSAGE_BYTES + OVERHEAD_BYTES;
        println!("at most {most_bytes} bytes were queued for {}", entry.address);
        assert!(most_bytes <= limit_bytes, "{most_bytes} of {limit_bytes} bytes");
    }
    let longest = trial.notes(|notes| notes.longest);
    println!("the longest call that named C took {longest:?}");
    assert!(longest <= Duration::from_millis(ack_ms) + SLACK / 2, "{longest:?}");
    let b_failures = trial.notes(|notes| std::mem::take(&mut notes.b_failures));
    assert_eq!(b_failures, [], "B is not touched by it");
    (trial, b, c)
}

/// Lets time pass while the senders run.
fn pass(time: Duration) -> (Instant, Instant) {
    let from = Instant::now();
    while from.elapsed() < time {
        std::thread::park_timeout(time.saturating_sub(from.elapsed()));
    }
    (from, Instant::now())
}

/// B has everything, once and in order; so has C of `keys`.
fn has_everything(trial: &Trial, child: &mut Child, keys: &[u64]) {
    for key in keys {
        let last = trial.notes(|notes| notes.last[key]);
        child.ask(&format!("await key={key} number={last}"));
        let numbers = child.delivered(*key);
        let gap = numbers.iter().zip(0..).find(|(is, should)| **is != *should);
        assert!(gap.is_none() && numbers.len() as u64 == last + 1, "key {key} of {last}: {gap:?}");
    }
}

fn all_gaps_count(seen: &mut Seen) -> usize {
    seen.events.iter().filter(|event| matches!(event, Event::Gap { .. })).count()
}

const TO_BOTH: [u64; 4] = [WAITING[0], WAITING[1], COMPLETED, UNASKED];

#[test]
fn one_that_goes_on_before_it_is_cut_resumes_and_misses_nothing() {
    let (trial, mut b, mut c) = during(1_500, |trial, c| {
        let (from, to) = pass(Duration::from_millis(700));
        trial.rate("before", from, to);
        c.process.signal(Signal::SIGSTOP).expect("it runs");
        let (from, to) = pass(Duration::from_millis(DROP_MS / 2));
        trial.rate("while C is stopped", from, to);
        c.process.signal(Signal::SIGCONT).expect("it is there");
        let (from, to) = pass(Duration::from_millis(700));
        trial.rate("after", from, to);
    });
    has_everything(&trial, &mut b, &[1, 2, 3, 4, 5]);
    has_everything(&trial, &mut c, &TO_BOTH);
    let failed = trial.notes(|notes| notes.to_c.values().filter(|s| !s.is_ok()).count());
    assert_eq!(failed, 0, "it was slow, no more");
    let gaps_with_a = format!("gaps port={}", trial.a.address.port());
    assert_eq!(c.ask(&gaps_with_a), "here=0 there=0");
    trial.a.look(|seen| {
        let gone = seen.events.iter().any(|event| matches!(event, Event::MemberGone { .. }));
        assert!(!gone && all_gaps_count(seen) == 0, "{:?}", seen.events);
    });
}

fn is_cut_and_comes_back(ack_ms: u64) {
    let (trial, mut b, mut c) = during(ack_ms, |trial, c| {
        let (from, to) = pass(Duration::from_secs(1));
        let before = trial.rate("before", from, to);
        c.process.signal(Signal::SIGSTOP).expect("it runs");
        let stopped = Instant::now();
        let gone = trial.a.wait("C to be given up", |seen| {
            seen.events.iter().find_map(|event| match event {
                Event::MemberGone { member, cause, .. } => Some((*member, *cause)),
                _ => None,
            })
        });
        let detected = stopped.elapsed();
        assert_eq!(gone.expect("it is seen").0, trial.c().expect("known"));
        println!("C was given up after {detected:?}");
        assert!(detected <= Duration::from_millis(DROP_MS + 1_000) + SLACK, "{detected:?}");
        trial.rate("while C is stopped", stopped, stopped + detected);
        let (from, to) = pass(Duration::from_secs(1));
        let after = trial.rate("after C was given up", from, to);
        println!("{:.2} of the rate before", after / before);
        assert!(after > 0.3 * before, "{after:.0} of {before:.0} messages/s");

        c.process.signal(Signal::SIGCONT).expect("it is there");
        let again = trial.a.member_at(c.port).expect("it comes back");
        *trial.c.lock().expect("no panic") = Some(again.id);
        pass(Duration::from_millis(500));
        // One gap on both sides, however many streams and messages there are.
        let gaps_with_a = format!("gaps port={}", trial.a.address.port());
        let gaps: Vec<Event> = trial.a.look(|seen| {
            let gaps = seen.events.iter().filter(|event| matches!(event, Event::Gap { .. }));
            gaps.cloned().collect()
        });
        let [Event::Gap { member, here: false, messages_count }] = gaps[..] else {
            panic!("{gaps:?}")
        };
        assert!(member == again.id && messages_count > 0, "{gaps:?}");
        assert_eq!(c.ask(&gaps_with_a), "here=1 there=0");
        trial.a.node.repaired(again.id);
        assert_eq!(c.ask("repaired"), "repaired");
        pass(Duration::from_millis(300));
        assert_eq!(trial.a.look(all_gaps_count), 1);
        assert_eq!(c.ask(&gaps_with_a), "here=1 there=0");
    });
    has_everything(&trial, &mut b, &[1, 2, 3, 4, 5]);
    let mut late: BTreeMap<Status, u64> = BTreeMap::new();
    let mut failed_counts: BTreeMap<Status, u64> = BTreeMap::new();
    for key in TO_BOTH {
        let last = trial.notes(|notes| notes.last[&key]);
        c.ask(&format!("await key={key} number={last}"));
        let delivered = c.delivered(key);
        // A message of the old epoch behind one of the new would be out of order.
        assert!(delivered.is_sorted_by(|a, b| a < b), "key {key}: in order, nothing twice");
        let before_pause: usize =
            c.ask(&format!("before-pause key={key}")).parse().expect("a number");
        let after_pause: BTreeSet<u64> = delivered[before_pause..].iter().copied().collect();
        let delivered: BTreeSet<u64> = delivered.into_iter().collect();
        let of_key: Vec<(u64, Status)> = trial.notes(|notes| {
            let range = notes.to_c.range((key, 0)..(key + 1, 0));
            range.map(|((_, number), status)| (*number, *status)).collect()
        });
        for (number, status) in &of_key {
            let is_there = delivered.contains(number);
            assert!(is_there || !status.is_ok(), "key {key} number {number}: said Ok, not there");
            if !status.is_ok() {
                *failed_counts.entry(*status).or_default() += 1;
                if after_pause.contains(number) {
                    *late.entry(*status).or_default() += 1;
                }
            }
        }
    }
    println!("failed at C: {failed_counts:?}, of which were delivered after it went on: {late:?}");
    assert!(!failed_counts.is_empty(), "something failed by name");
    // Neither what its kernel held nor what its engine did is delivered any more; what a poller had
    // been given when the process stopped is with its listener, and one message each is given.
    let late_count = late.values().sum::<u64>();
    assert!(late_count <= LISTENERS_COUNT, "{late:?} of {failed_counts:?}");
}

#[test]
fn one_that_was_cut_comes_back_with_a_gap_after_its_messages_timed_out() {
    is_cut_and_comes_back(1_500);
}

#[test]
fn one_that_was_cut_comes_back_with_a_gap_after_its_messages_were_cut() {
    is_cut_and_comes_back(4_000);
}
