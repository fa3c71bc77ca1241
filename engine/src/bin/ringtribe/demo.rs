//! `ringtribe demo`: what replication does on this machine, and what is left when a member is
//! killed.

use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

use crate::arguments::Demo;
use crate::demo_ledger::{Check, KEYS_COUNT};
use crate::demo_peers::{Group, Peers};
use crate::output::{self, thousands};

/// The member that sends in the measurements.
const SENDER: u8 = 1;
/// Callers besides one.
const MANY_CALLERS_COUNT: u64 = 16;
/// Asynchronous messages for each one that is acknowledged: they are that much faster.
const ASYNCHRONOUS_TIMES: u64 = 10;
/// Longest wait for the last asynchronous messages.
const ARRIVE_WITHIN_MS: u64 = 5_000;

/// A line of the table.
struct Measurement {
    mode: &'static str,
    callers_count: u64,
    messages_count: u64,
    /// Messages that were not acknowledged by all, or, asynchronous, did not arrive at all.
    failed_count: u64,
    rate: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// What a member that lives holds of what was acknowledged.
struct Verified {
    member: u8,
    check: Check,
    out_of_order_count: u64,
}

/// What the demo found.
struct Report {
    members: Vec<Value>,
    measurements: Vec<Measurement>,
    killed: Value,
    verified: Vec<Verified>,
    seconds: f64,
}

/// Runs the demo.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn run(options: &Demo) -> std::io::Result<ExitCode> {
    let say = |text: &str| if options.json { Ok(()) } else { output::line(text) };
    match play(options, &say) {
        Ok(report) => {
            let held = report.is_held();
            if options.json {
                output::object(&report.json(options))?;
            } else {
                output::line(&report.verdict())?;
            }
            Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(Stopped::Closed(error)) => Err(error),
        Err(Stopped::Failed(text)) => {
            if options.json {
                output::object(&json!({"held": false, "error": text}))?;
            } else {
                output::line(&format!("NOT SHOWN: {text}"))?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Why the demo did not come to its end.
enum Stopped {
    Closed(std::io::Error),
    Failed(String),
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Self::Closed(error)
    }
}

impl From<String> for Stopped {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

fn play(options: &Demo, say: &dyn Fn(&str) -> std::io::Result<()>) -> Result<Report, Stopped> {
    let started = Instant::now();
    let group = Group::found()?;
    let count = u8::try_from(options.members_count).unwrap_or(u8::MAX);
    let all: Vec<u8> = (1..=count).collect();
    say(&format!(
        "ringtribe demo: {count} members on this machine, group {}:{}",
        group.address, group.port
    ))?;
    // The last one that lives.
    let dropper = options.drop_replication.then_some(count - 1);
    let mut peers = Peers::start(&group, count, dropper)?;
    let mut members = Vec::new();
    for member in &all {
        let ready = peers.reply(*member)?;
        let (address, backend) = (text(&ready["address"]), text(&ready["backend"]));
        let pid = peers.pid(*member);
        say(&format!("  member {member}   pid {pid:<8} {address:<16} {backend}"))?;
        members.push(json!({
            "member": member, "pid": pid, "address": address, "backend": backend
        }));
    }
    peers.await_view(&all)?;

    let size = options.size_bytes;
    let size_text = output::bytes(size as u64);
    say(&format!(
        "\nmember {SENDER} sends messages of {size_text}, {KEYS_COUNT} keys, to {}",
        if count == 2 { "the other".into() } else { format!("the {} others", count - 1) }
    ))?;
    say(&format!("  {:<24} {:>12} {:>9} {:>9}", "", "messages/s", "p50 µs", "p99 µs"))?;
    let mut measurements = Vec::new();
    for (mode, callers_count, messages_count) in [
        ("applied", 1, options.messages_count),
        ("applied", MANY_CALLERS_COUNT, options.messages_count),
        ("asynchronous", 1, options.messages_count * ASYNCHRONOUS_TIMES),
    ] {
        let measured = measure(&mut peers, &all, mode, callers_count, messages_count, size)?;
        say(&measured.line())?;
        measurements.push(measured);
    }

    let killed = kill(&mut peers, &all, options, say)?;
    let living = &all[..all.len() - 1];
    let mut verified = Vec::new();
    say("\nof what was acknowledged, newest value of each key")?;
    for member in living {
        let (holdings, out_of_order_count) = peers.holdings(*member)?;
        let check = peers.ledger.check(*member, &holdings, size);
        let verified_one = Verified { member: *member, check, out_of_order_count };
        say(&verified_one.line())?;
        verified.push(verified_one);
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Report { members, measurements, killed, verified, seconds })
}

fn measure(
    peers: &mut Peers,
    all: &[u8],
    mode: &'static str,
    callers_count: u64,
    messages_count: u64,
    size_bytes: usize,
) -> Result<Measurement, String> {
    let receivers: Vec<u8> = all.iter().copied().filter(|member| *member != SENDER).collect();
    let mut before = Vec::new();
    for receiver in &receivers {
        let answer = peers.ask(*receiver, &format!("await {SENDER} 0 0"))?;
        before.push(number(&answer["count"])?);
    }
    let started = Instant::now();
    let answer =
        peers.ask(SENDER, &format!("{mode} {messages_count} {callers_count} {size_bytes}"))?;
    let ok_count = number(&answer["ok_count"])?;
    let mut failed_count = number(&answer["failed_count"])?;
    let mut took_us = number(&answer["took_us"])?;
    let is_applied = mode == "applied";
    if !is_applied {
        // What is queued and returned is not there yet; what counts is the last one's arrival.
        for (receiver, before_count) in receivers.iter().zip(&before) {
            let wanted = before_count + ok_count;
            peers.tell(*receiver, &format!("await {SENDER} {wanted} {ARRIVE_WITHIN_MS}"))?;
        }
        for (receiver, before_count) in receivers.iter().zip(&before) {
            let arrived_count = number(&peers.reply(*receiver)?["count"])? - before_count;
            failed_count += ok_count.saturating_sub(arrived_count);
        }
        took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    }
    let percentile = |name: &str| answer[name].as_u64().filter(|_| is_applied);
    Ok(Measurement {
        mode,
        callers_count,
        messages_count: ok_count,
        failed_count,
        rate: ok_count.saturating_mul(1_000_000) / took_us.max(1),
        p50_us: percentile("p50_us"),
        p99_us: percentile("p99_us"),
    })
}

/// Lets all members send, kills the last one meanwhile, and lets the others go on for a while.
fn kill(
    peers: &mut Peers,
    all: &[u8],
    options: &Demo,
    say: &dyn Fn(&str) -> std::io::Result<()>,
) -> Result<Value, Stopped> {
    let more_count = (options.messages_count / 10).clamp(20, 1_000);
    for member in all {
        peers.ask(*member, &format!("traffic {}", options.size_bytes))?;
    }
    peers.await_sends(all, more_count)?;
    let (living, victim) = (&all[..all.len() - 1], all[all.len() - 1]);
    let pid = peers.pid(victim);
    let since = Instant::now();
    peers.kill(victim)?;
    say(&format!("\nall send; member {victim} (pid {pid}) is killed by SIGKILL"))?;
    let mut noticed = Vec::new();
    for (member, after, cause) in peers.await_gone(living, victim, since)? {
        let after_ms = after.as_secs_f64() * 1_000.0;
        say(&format!("  member {member}   noticed after {after_ms:.0} ms: {cause}"))?;
        noticed.push(json!({"member": member, "after_ms": after_ms, "cause": cause}));
    }
    // Sending goes on without it.
    peers.await_sends(living, more_count)?;
    for member in living {
        peers.ask(*member, "stop")?;
    }
    let sums = all.iter().map(|member| peers.sends(*member));
    let (ok_count, failed_count) = sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    say(&format!(
        "  {} sends acknowledged by all, {} of them the killed one's; {} named who failed",
        thousands(ok_count),
        thousands(peers.sends(victim).0),
        thousands(failed_count)
    ))?;
    Ok(json!({
        "member": victim, "pid": pid, "signal": "SIGKILL", "noticed": noticed,
        "acknowledged_count": ok_count, "failed_count": failed_count,
        "own_acknowledged_count": peers.sends(victim).0,
    }))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn number(value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| "a member answered something else than it was asked".into())
}

impl Measurement {
    fn line(&self) -> String {
        let callers = if self.callers_count == 1 { "caller" } else { "callers" };
        let name = format!("{}, {} {callers}", self.mode, self.callers_count);
        let us = |value: Option<u64>| value.map_or("-".into(), thousands);
        let (rate, p50, p99) = (thousands(self.rate), us(self.p50_us), us(self.p99_us));
        let mut line = format!("  {name:<24} {rate:>12} {p50:>9} {p99:>9}");
        if self.failed_count > 0 {
            line.push_str(&format!("   {} failed", thousands(self.failed_count)));
        }
        line
    }

    fn json(&self) -> Value {
        json!({
            "mode": self.mode, "callers_count": self.callers_count,
            "messages_count": self.messages_count, "failed_count": self.failed_count,
            "messages_per_second": self.rate, "p50_us": self.p50_us, "p99_us": self.p99_us,
        })
    }
}

impl Verified {
    /// Something was acknowledged, all of it is there, and each key's messages came in their order.
    fn is_good(&self) -> bool {
        let good_count = self.check.good_count();
        good_count > 0 && good_count == self.check.keys_count && self.out_of_order_count == 0
    }

    fn line(&self) -> String {
        let Check { keys_count, missing_count, older_count, damaged_count } = self.check;
        let mut line = format!(
            "  member {}   has {} of {}",
            self.member,
            thousands(self.check.good_count()),
            thousands(keys_count)
        );
        for (count, what) in [
            (missing_count, "missing"),
            (older_count, "older"),
            (damaged_count, "with other bytes"),
            (self.out_of_order_count, "messages out of order"),
        ] {
            if count > 0 {
                line.push_str(&format!(", {} {what}", thousands(count)));
            }
        }
        line
    }

    fn json(&self) -> Value {
        json!({
            "member": self.member, "keys_count": self.check.keys_count,
            "missing_count": self.check.missing_count, "older_count": self.check.older_count,
            "damaged_count": self.check.damaged_count,
            "out_of_order_count": self.out_of_order_count,
        })
    }
}

impl Report {
    fn is_held(&self) -> bool {
        self.measurements.iter().all(|measurement| measurement.failed_count == 0)
            && self.verified.iter().all(Verified::is_good)
    }

    fn verdict(&self) -> String {
        let verdict = if self.is_held() {
            "HELD: nothing that was acknowledged is missing"
        } else if self.verified.iter().all(Verified::is_good) {
            "NOT HELD: messages failed while all members lived"
        } else {
            "NOT HELD: what was acknowledged is not what is there"
        };
        format!("\n{verdict} ({:.1} s)", self.seconds)
    }

    fn json(&self, options: &Demo) -> Value {
        json!({
            "held": self.is_held(),
            "size_bytes": options.size_bytes,
            "seconds": self.seconds,
            "members": self.members,
            "measurements": self.measurements.iter().map(Measurement::json).collect::<Vec<_>>(),
            "killed": self.killed,
            "verified": self.verified.iter().map(Verified::json).collect::<Vec<_>>(),
        })
    }
}
