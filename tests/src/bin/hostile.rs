//! What attackers cost honest members: their rate without an attack, with the same attack aimed at a
//! node that has nothing to do with them, and with the attack aimed at one of them. One run, the three
//! one after the other, several rounds.
//!
//! `hostile [--rounds N] [--seconds S] [--attack NAME]`. Each attacker is a process of its own.

use std::io::BufRead;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringtribe::ids::{Key, MemberId};
use ringtribe_tests::hostile::{ATTACKS, Aim};
use ringtribe_tests::member::{APPLIED, Member, WITHIN};
use ringtribe_tests::process::Process;
use ringtribe_tests::tomcat::free_mcast_port;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLUSTER: &str = "production";
/// Honest threads that send and wait for the listener's outcome.
const CALLERS_COUNT: u64 = 4;
/// An attack has this long to begin.
const WARM: Duration = Duration::from_millis(500);
/// Counters of the node that tell what became of an attack.
const COUNTERS: [&str; 6] = [
    "accepted_count",
    "bad_input_count",
    "refused_hellos_count",
    "refused_connections_count",
    "displaced_connections_count",
    "heartbeats_received_count",
];

/// A member in a process of its own: says who it is, answers `counters`, ends with its input.
fn member(arguments: &[String]) -> Result<(), String> {
    let (id, settings) = arguments.split_first().ok_or("give an id")?;
    let id = id.parse().map_err(|error| format!("{id}: {error}"))?;
    let settings: Option<Vec<(&str, &str)>> =
        settings.iter().map(|setting| setting.split_once('=')).collect();
    let member = Member::start(id, &settings.ok_or("settings are NAME=VALUE")?)?;
    let boot_id = u128::from_be_bytes(member.node.boot_id().0);
    println!("member={} {boot_id}", member.address);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line == "counters" {
            let all = COUNTERS.map(|name| member.counter(name).to_string());
            println!("> {}", all.join(" "));
        }
        member.look(|seen| {
            seen.delivered.clear();
            seen.logs.clear();
        });
    }
    Ok(())
}

/// An attacker: until it is told anything.
fn attacker(arguments: &[String]) -> Result<(), String> {
    let [name, address, group, boot_id, member] = arguments else {
        return Err("attack NAME ADDRESS GROUP BOOT_ID MEMBER".into());
    };
    let (_, attack) = ATTACKS.iter().find(|(is, _)| is == name).ok_or("no such attack")?;
    let parsed = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    let boot_id: u128 = boot_id.parse().map_err(|error| format!("{boot_id}: {error}"))?;
    let aim = Aim {
        address: parsed(address)?,
        group: parsed(group)?,
        boot_id: boot_id.to_be_bytes(),
        cluster: CLUSTER.into(),
        member: parsed(member)?,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().lines().next();
        ends.store(true, Ordering::Release);
    });
    println!("attacks");
    println!("made={}", attack(&aim, &stop));
    Ok(())
}

/// A node that is attacked, or that is not.
struct Node {
    process: Process,
    address: SocketAddr,
    boot_id: String,
    group: String,
}

impl Node {
    fn start(id: u8, mcast_port: u16) -> Result<Self, String> {
        let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
        let port = format!("mcastPort={mcast_port}");
        let name = format!("clusterName={CLUSTER}");
        command.arg("member").arg(id.to_string()).args([
            port.as_str(),
            "mcastBindAddr=127.0.0.1",
            "mcastDropTime=3000",
            "ackTimeout=2000",
            "maxConnections=256",
            "maxMessageBytes=4194304",
            "maxReceiveBytes=8388608",
            &name,
        ]);
        command.stderr(Stdio::inherit());
        let process = Process::start("member", command)?;
        let said = process.await_line("member=", WITHIN)?;
        let (address, boot_id) = said.split_once(' ').ok_or("it says who it is")?;
        let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
        let group = format!("228.0.0.4:{mcast_port}");
        Ok(Self { process, address, boot_id: boot_id.into(), group })
    }

    fn resident_kib(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.process.pid()));
        let pages = text.ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or(0) * 4
    }

    fn counters(&mut self) -> Result<Vec<u64>, String> {
        self.process.tell("counters")?;
        let line = self.process.await_line("> ", WITHIN)?;
        Ok(line.split(' ').filter_map(|word| word.parse().ok()).collect())
    }
}

/// Honest messages a second while `seconds` pass.
fn rate(done_count: &AtomicU64, seconds: f64) -> f64 {
    let (clock, before) = (Instant::now(), done_count.load(Ordering::Acquire));
    while clock.elapsed().as_secs_f64() < seconds {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    (done_count.load(Ordering::Acquire) - before) as f64 / clock.elapsed().as_secs_f64()
}

struct Attacked {
    rate: f64,
    made: u64,
    took: Duration,
}

fn under(
    attack: &str,
    node: &Node,
    member: SocketAddr,
    done_count: &AtomicU64,
    seconds: f64,
) -> Result<Attacked, String> {
    let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
    let (address, member) = (node.address.to_string(), member.to_string());
    command.args(["attack", attack, &address, &node.group, &node.boot_id, &member]);
    command.stderr(Stdio::inherit());
    let mut process = Process::start("attacker", command)?;
    process.await_line("attacks", WITHIN)?;
    let clock = Instant::now();
    let _ = rate(done_count, WARM.as_secs_f64());
    let rate = rate(done_count, seconds);
    process.tell("stop")?;
    let took = clock.elapsed();
    let made = process.await_line("made=", WITHIN)?;
    let made = made.parse().map_err(|error| format!("{made}: {error}"))?;
    Ok(Attacked { rate, made, took })
}

/// Median, least and most.
fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn measure(rounds: usize, seconds: f64, only: Option<&str>) -> Result<(), String> {
    let (here, elsewhere) = (free_mcast_port(), free_mcast_port());
    let mut target = Node::start(1, here)?;
    let decoy = Node::start(3, elsewhere)?;
    let port = here.to_string();
    let settings =
        [("mcastPort", port.as_str()), ("mcastBindAddr", "127.0.0.1"), ("clusterName", CLUSTER)];
    let honest = Member::start(2, &settings)?;
    let to = honest.member_at(target.address.port())?.id;
    let (done_count, failed_count) = (AtomicU64::new(0), AtomicU64::new(0));
    let ended = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        for caller in 0..CALLERS_COUNT {
            let (honest, ended) = (&honest, &ended);
            let (done_count, failed_count) = (&done_count, &failed_count);
            scope.spawn(move || send(honest, caller, to, ended, done_count, failed_count));
        }
        let told = table(&mut target, &decoy, &honest, &done_count, rounds, seconds, only);
        ended.store(true, Ordering::Release);
        told
    });
    println!(
        "honest messages: {} applied, {} failed",
        done_count.into_inner(),
        failed_count.into_inner()
    );
    told
}

fn send(
    honest: &Member,
    caller: u64,
    to: MemberId,
    ended: &AtomicBool,
    done_count: &AtomicU64,
    failed_count: &AtomicU64,
) {
    let key = Some(Key::of(&caller.to_le_bytes()));
    for number in 0.. {
        if ended.load(Ordering::Acquire) {
            return;
        }
        let Ok(message) = honest.compose(caller, number, 500, APPLIED) else { return };
        let counter = match honest.node.send(message, key, false, &[to], Some(20_000)) {
            Ok(()) => done_count,
            Err(_) => failed_count,
        };
        counter.fetch_add(1, Ordering::AcqRel);
    }
}

fn table(
    target: &mut Node,
    decoy: &Node,
    honest: &Member,
    done_count: &AtomicU64,
    rounds: usize,
    seconds: f64,
    only: Option<&str>,
) -> Result<(), String> {
    println!(
        "| attack | made a second | honest alone, 1/s | attack elsewhere | attacked here | attacked / alone | attacked / elsewhere | resident KiB | closed, refused, displaced, heard |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let _ = rate(done_count, 1.0);
    for (name, _) in ATTACKS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let (before_kib, before) = (target.resident_kib(), target.counters()?);
        let mut columns: [Vec<f64>; 6] = Default::default();
        for _ in 0..rounds {
            let alone = rate(done_count, seconds);
            let aside = under(name, decoy, decoy.address, done_count, seconds)?;
            let here = under(name, target, honest.address, done_count, seconds)?;
            let made = here.made as f64 / here.took.as_secs_f64();
            let row =
                [made, alone, aside.rate, here.rate, here.rate / alone, here.rate / aside.rate];
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
            // Everybody is still there, and nobody else.
            if honest.node.members().len() != 1 {
                return Err(format!("{name}: {} members", honest.node.members().len()));
            }
        }
        let (after_kib, after) = (target.resident_kib(), target.counters()?);
        let more: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        let [made, alone, aside, here, ratio, fair] = columns.each_mut().map(|column| {
            let (median, least, most) = spread(column);
            if median > 10.0 {
                format!("{median:.0} ({least:.0} to {most:.0})")
            } else {
                format!("{median:.2} ({least:.2} to {most:.2})")
            }
        });
        println!(
            "| {name} | {made} | {alone} | {aside} | {here} | {ratio} | {fair} | {before_kib} to {after_kib} | {}, {}, {}, {} |",
            more[1],
            more[2] + more[3],
            more[4],
            more[5]
        );
    }
    Ok(())
}

fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("member") => return member(&arguments[1..]),
        Some("attack") => return attacker(&arguments[1..]),
        _ => {}
    }
    let (mut rounds, mut seconds, mut only) = (3, 2.0, None);
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = |error: &dyn std::fmt::Display| format!("{name} {value}: {error}");
        match name.as_str() {
            "--rounds" => rounds = value.parse().map_err(|error| wrong(&error))?,
            "--seconds" => seconds = value.parse().map_err(|error| wrong(&error))?,
            "--attack" => only = Some(value.as_str()),
            _ => return Err(format!("{name}: --rounds N, --seconds S, --attack NAME")),
        }
    }
    if rounds == 0 {
        return Err("--rounds 0: at least 1".into());
    }
    measure(rounds, seconds, only)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
