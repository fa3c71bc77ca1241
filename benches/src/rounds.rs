//! Cases on several transports, in turns, so that a drift of the machine meets them all.

use serde_json::{Value, json};

use crate::cases::{Case, Transport};
use crate::cluster::Cluster;
use crate::figures::Row;

/// Runs every case on every transport, `rounds_count` times, to so many receivers.
///
/// # Errors
/// What did not start, failed, or did not arrive.
pub(crate) fn run(
    transports: &[Transport],
    cases: &[Case],
    receivers_count: usize,
    rounds_count: usize,
) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    for case in cases {
        rows.extend(transports.iter().map(|transport| Row {
            receivers_count,
            case: *case,
            transport: *transport,
            rounds: Vec::new(),
        }));
    }
    for _ in 0..rounds_count {
        for (at, transport) in transports.iter().enumerate() {
            let mut cluster = Cluster::start(*transport, receivers_count)?;
            for case in cases {
                cluster.measure(case.warming())?;
            }
            for row in rows.iter_mut().skip(at).step_by(transports.len()) {
                row.rounds.push(cluster.measure(row.case)?.0);
            }
        }
    }
    Ok(rows)
}

const TWO_NUMBERS: [Case; 2] = [Case::asynchronous(60_000), Case::applied(1, 4_000)];

/// The two numbers that stand for all others, beside those of stock Tribes.
///
/// # Errors
/// As [`run`].
pub(crate) fn two_numbers(rounds_count: usize, json: bool) -> Result<(), String> {
    let rows = run(&[Transport::Stock, Transport::Ring], &TWO_NUMBERS, 3, rounds_count)?;
    if json {
        println!("{}", document("two numbers", rounds_count, &rows));
        return Ok(());
    }
    println!(
        "1 KiB to 3 members, each a process of its own on this machine; median [least..most] of {rounds_count} rounds\n"
    );
    println!(
        "{:<26} {:>36} {:>24} {:>26}",
        "", "async, messages/s", "sync p50, µs", "sync p99, µs"
    );
    for transport in [Transport::Stock, Transport::Ring] {
        let of = |name: &str| {
            rows.iter().find(|row| row.transport == transport && row.case.name == name)
        };
        let (Some(queued), Some(applied)) = (of("async"), of("sync applied")) else { continue };
        println!(
            "{:<26} {:>36} {:>24} {:>26}",
            transport.name(),
            queued.spread(|f| f.rate).to_string(),
            applied.spread(|f| f.p50_us).to_string(),
            applied.spread(|f| f.p99_us).to_string(),
        );
    }
    println!(
        "\nasync: messages a second from one caller that does not wait, until the listeners of all 3 members have them all.\n\
         sync: how long one caller waits until the listeners of all 3 members have returned; half of the sends take p50 at most, 99 of 100 p99.\n\
         The stock members are JVMs, those of Ringtribe the engine alone; --matrix has Ringtribe in JVMs too."
    );
    Ok(())
}

const MATRIX: [Case; 4] = [
    Case::applied(1, 4_000),
    Case::applied(8, 16_000),
    Case::applied(64, 32_000),
    Case::asynchronous(100_000),
];

/// All cases on all transports, to 1 and to 3 members.
///
/// # Errors
/// As [`run`].
pub(crate) fn matrix(rounds_count: usize, json: bool) -> Result<(), String> {
    let transports = [Transport::Stock, Transport::Jvm, Transport::Ring, Transport::Epoll];
    let mut rows = run(&transports, &MATRIX, 1, rounds_count)?;
    rows.extend(run(&transports, &MATRIX, 3, rounds_count)?);
    if json {
        println!("{}", document("matrix", rounds_count, &rows));
        return Ok(());
    }
    println!(
        "1 KiB messages, each member a process of its own on this machine, median [least..most] of {rounds_count} rounds\n"
    );
    println!("| members | mode | callers | transport | messages/s | p50 µs | p99 µs |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for row in &rows {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.receivers_count,
            row.case.name,
            row.case.callers,
            row.transport.name(),
            row.spread(|f| f.rate),
            row.spread(|f| f.p50_us),
            row.spread(|f| f.p99_us),
        );
    }
    Ok(())
}

fn document(kind: &str, rounds_count: usize, rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    json!({"kind": kind, "rounds_count": rounds_count, "size_bytes": crate::cases::SIZE_BYTES, "rows": rows})
}
