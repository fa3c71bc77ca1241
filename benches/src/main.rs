//! Ringtribe beside stock Tribes: the same Java program on either transport, each member a JVM of
//! its own, in turns in one run. `--rounds N` (3) repeats; figures are medians with their range.

use std::process::ExitCode;
use std::time::Instant;

use ringtribe_tests::build::Flavour::{self, Ringtribe, Stock};
use ringtribe_tests::peer::{Peer, number};
use ringtribe_tests::tomcat::free_mcast_port;

const INTERCEPTORS: &str = "interceptors=MessageDispatchInterceptor,TcpFailureDetector";
const SIZE_BYTES: u64 = 1024;
/// USE_ACK and SYNCHRONIZED_ACK: acknowledged when the listener has returned.
const APPLIED: u64 = 6;
const ASYNCHRONOUS: u64 = 8;

/// One cell of the table.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    options: u64,
    callers: u64,
    messages_count: u64,
}

const CASES: [Case; 4] = [
    Case { name: "sync applied", options: APPLIED, callers: 1, messages_count: 4_000 },
    Case { name: "sync applied", options: APPLIED, callers: 8, messages_count: 16_000 },
    Case { name: "async", options: ASYNCHRONOUS, callers: 1, messages_count: 100_000 },
    Case { name: "async", options: ASYNCHRONOUS, callers: 8, messages_count: 100_000 },
];

/// What one run of a case measured.
#[derive(Clone, Copy, Default)]
struct Figures {
    /// Messages a second: until the last caller returned, or, asynchronous, until the last message
    /// was delivered at the last member.
    rate: u64,
    p50_us: u64,
    p99_us: u64,
}

struct Cluster {
    sender: Peer,
    receivers: Vec<Peer>,
}

impl Cluster {
    fn start(flavour: Flavour, members_count: usize) -> Result<Self, String> {
        let mcast_port = free_mcast_port();
        let start =
            |name: &str| Peer::start("TribesPeer", name, flavour, mcast_port, &[INTERCEPTORS]);
        let receivers: Vec<Peer> = (0..members_count)
            .map(|n| start(&format!("receiver-{n}")))
            .collect::<Result<_, _>>()?;
        let mut sender = start("sender")?;
        let answer = sender.ask(&format!("members count={members_count}"))?;
        if answer != format!("members={members_count}") {
            return Err(answer);
        }
        Ok(Self { sender, receivers })
    }

    fn measure(&mut self, case: Case) -> Result<Figures, String> {
        let Case { options, callers, messages_count, .. } = case;
        let clock = Instant::now();
        let answer = self.sender.ask(&format!(
            "bench size={SIZE_BYTES} options={options} callers={callers} count={messages_count}"
        ))?;
        if number(&answer, "failed")? != 0 {
            return Err(answer);
        }
        for receiver in &mut self.receivers {
            let got = receiver.ask(&format!("received count={messages_count}"))?;
            if number(&got, "received")? < messages_count || number(&got, "damaged")? != 0 {
                return Err(got);
            }
        }
        let delivered_us = u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = if options == ASYNCHRONOUS {
            messages_count * 1_000_000 / delivered_us
        } else {
            number(&answer, "rate")?
        };
        Ok(Figures { rate, p50_us: number(&answer, "p50_us")?, p99_us: number(&answer, "p99_us")? })
    }
}

/// "median [least..most]".
fn summary(figures: &[Figures], pick: impl Fn(&Figures) -> u64) -> String {
    let mut values: Vec<u64> = figures.iter().map(pick).collect();
    values.sort_unstable();
    match values.as_slice() {
        [] => "-".into(),
        all => format!("{} [{}..{}]", all[all.len() / 2], all[0], all[all.len() - 1]),
    }
}

fn run(rounds_count: usize) -> Result<(), String> {
    println!(
        "1 KiB messages, each member a JVM of its own on this machine, {rounds_count} rounds\n"
    );
    println!("| members | mode | callers | transport | messages/s | p50 µs | p99 µs |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for members_count in [1, 3] {
        let mut found = vec![[const { Vec::new() }; 2]; CASES.len()];
        for _ in 0..rounds_count {
            // In turns, so that a drift of the machine meets both.
            for (at, flavour) in [Stock, Ringtribe].into_iter().enumerate() {
                let mut cluster = Cluster::start(flavour, members_count)?;
                for case in CASES {
                    // The JVMs compile what they run; this run is not counted.
                    let warm = Case { messages_count: case.messages_count / 4, ..case };
                    cluster.measure(warm)?;
                }
                for (row, case) in found.iter_mut().zip(CASES) {
                    row[at].push(cluster.measure(case)?);
                }
            }
        }
        for (case, row) in CASES.iter().zip(&found) {
            for (figures, transport) in row.iter().zip(["stock", "Ringtribe"]) {
                println!(
                    "| {members_count} | {} | {} | {transport} | {} | {} | {} |",
                    case.name,
                    case.callers,
                    summary(figures, |f| f.rate),
                    summary(figures, |f| f.p50_us),
                    summary(figures, |f| f.p99_us),
                );
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds_count = arguments
        .windows(2)
        .find(|pair| pair[0] == "--rounds")
        .and_then(|pair| pair[1].parse().ok())
        .unwrap_or(3);
    match run(rounds_count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("the measurement stopped: {text}");
            ExitCode::FAILURE
        }
    }
}
