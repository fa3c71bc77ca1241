//! What one message costs in steady state, beside the budget of the hot path.

use serde_json::{Value, json};

use crate::cases::{APPLIED, Case, SIZE_BYTES, Transport};
use crate::cluster::Cluster;

/// In flight on each stream under load.
const LOAD_COUNT: u64 = 64;

/// The roles whose work is a message's; a sender has callers, a receiver pollers.
const ROLES: [&str; 5] = ["callers", "workers", "pollers", "reserved", "control"];

/// One situation on one backend.
struct Cost {
    transport: Transport,
    situation: String,
    case: Case,
    rate: u64,
    sender: Side,
    receiver: Side,
}

impl Cost {
    const fn backend(&self) -> &'static str {
        match self.transport {
            Transport::Epoll => "epoll",
            _ => "ring",
        }
    }
}

/// What one process did, for each message.
struct Side {
    io_calls: f64,
    doorbells: f64,
    sends: f64,
    frame_bytes: f64,
    received_bytes: f64,
    roles: Vec<RoleCost>,
}

struct RoleCost {
    role: &'static str,
    sleeps: f64,
    allocations: f64,
    allocated_bytes: f64,
    processor_us: f64,
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per(messages_count: u64, before: &Value, after: &Value) -> f64 {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    number(after).saturating_sub(number(before)) as f64 / messages_count as f64
}

impl Side {
    fn of(messages_count: u64, before: &Value, after: &Value) -> Self {
        let stat = |name: &str| per(messages_count, &before["stats"][name], &after["stats"][name]);
        let roles = ROLES.into_iter().filter(|role| after["threads"][*role].is_object());
        let role = |role: &'static str| {
            let of = |name: &str| {
                let (before, after) = (&before["threads"][role], &after["threads"][role]);
                per(messages_count, &before[name], &after[name])
            };
            RoleCost {
                role,
                sleeps: of("sleeps_count"),
                allocations: of("allocations_count"),
                allocated_bytes: of("allocated_bytes"),
                processor_us: of("processor_ns") / 1_000.0,
            }
        };
        Self {
            io_calls: stat("io_calls_count"),
            doorbells: stat("doorbells_count"),
            sends: stat("sends_count"),
            frame_bytes: stat("frames_sent_bytes"),
            received_bytes: stat("received_bytes"),
            roles: roles.map(role).collect(),
        }
    }

    fn role(&self, role: &str, pick: impl Fn(&RoleCost) -> f64) -> f64 {
        self.roles.iter().filter(|cost| cost.role == role).map(pick).sum()
    }

    fn all(&self, pick: impl Fn(&RoleCost) -> f64) -> f64 {
        self.roles.iter().map(pick).sum()
    }

    fn json(&self) -> Value {
        let role = |cost: &RoleCost| {
            json!({
                "role": cost.role, "sleeps": cost.sleeps, "allocations": cost.allocations,
                "allocated_bytes": cost.allocated_bytes, "processor_us": cost.processor_us,
            })
        };
        json!({
            "io_calls": self.io_calls, "doorbells": self.doorbells, "sends": self.sends,
            "frame_bytes": self.frame_bytes, "received_bytes": self.received_bytes,
            "roles": self.roles.iter().map(role).collect::<Vec<_>>(),
        })
    }
}

fn measure(cluster: &mut Cluster, transport: Transport) -> Result<Vec<Cost>, String> {
    let callers = LOAD_COUNT * cluster.streams_count.max(1);
    let situations = [
        (format!("{LOAD_COUNT} in flight a stream"), Case::applied(callers, callers * 800)),
        ("1 in flight".to_owned(), Case::applied(1, 10_000)),
        ("async".to_owned(), Case::asynchronous(200_000)),
    ];
    let mut found = Vec::new();
    for (situation, case) in situations {
        cluster.measure(case.warming())?;
        let before = cluster.sample_receiver()?;
        let (figures, answer) = cluster.measure(case)?;
        let after = cluster.sample_receiver()?;
        found.push(Cost {
            transport,
            situation,
            case,
            rate: figures.rate,
            sender: Side::of(
                case.messages_count,
                &answer["before"],
                &sender_after(cluster, &answer)?,
            ),
            receiver: Side::of(case.messages_count, &before, &after),
        });
    }
    Ok(found)
}

/// The sender's counts at the end: of an asynchronous case it is done when the receiver is, but its
/// callers are done, and gone, before.
fn sender_after(cluster: &mut Cluster, answer: &Value) -> Result<Value, String> {
    let mut after = cluster.sample_sender()?;
    after["threads"]["callers"] = answer["after"]["threads"]["callers"].clone();
    Ok(after)
}

/// Measures both backends and prints.
///
/// # Errors
/// What did not start, failed, or did not arrive.
pub(crate) fn run(json: bool) -> Result<(), String> {
    let mut costs = Vec::new();
    for transport in [Transport::Ring, Transport::Epoll] {
        let mut cluster = Cluster::start(transport, 1)?;
        if !json {
            println!(
                "{}: {}, {} streams",
                transport.name(),
                cluster.backend,
                cluster.streams_count
            );
        }
        costs.extend(measure(&mut cluster, transport)?);
    }
    if json {
        let all = costs.iter().map(|cost| {
            json!({
                "transport": cost.transport.name(), "situation": cost.situation,
                "messages_count": cost.case.messages_count, "messages_per_second": cost.rate,
                "sender": cost.sender.json(), "receiver": cost.receiver.json(),
            })
        });
        println!("{}", json!({"kind": "counts", "costs": all.collect::<Vec<_>>()}));
        return Ok(());
    }
    println!(
        "\nFor each message of 1 KiB to one member, own format, both sides a process of its own:\n"
    );
    details(&costs);
    println!("\nBeside the budget (DESIGN.md of the engine):\n");
    budget(&costs);
    println!("{COPIES}");
    Ok(())
}

const COPIES: &str = "
Copies of the payload in user space, by reading the code; the kernel's are not counted:
- down, through compose(): zeroed once, then written once by the caller into the buffer that goes out (submit.rs, message.rs);
  compose_shared(): none. Bodies up to 256 bytes, envelope and payload, are copied once more beside their
  head (sending.rs, COPIED_BYTES). A checksum reads each body once, whatever the number of members.
- up: once, out of the receive buffer into a pooled one (receiving.rs); no other up to the listener's slice. A frame that two
  receives cut is copied once all the same, from both into its pooled buffer.
- JVM: one more down (byte[] to the buffer), one more up (the direct buffer of poll).
Sleeps are voluntary context switches of a role's threads: each is one wake-up.";

fn details(costs: &[Cost]) {
    println!(
        "| backend | situation | messages/s | side | I/O calls | doorbells | sleeps | allocations | allocated bytes | processor µs |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for cost in costs {
        for (name, side) in [("sender", &cost.sender), ("receiver", &cost.receiver)] {
            let by_role = |pick: &dyn Fn(&RoleCost) -> f64, digits: usize| {
                let told = side.roles.iter().filter(|role| role.processor_us > 0.005);
                let told = told.map(|role| format!("{} {:.digits$}", role.role, pick(role)));
                told.collect::<Vec<_>>().join(", ")
            };
            println!(
                "| {} | {} | {} | {name} | {:.3} | {:.3} | {} | {} | {} | {} |",
                cost.backend(),
                cost.situation,
                crate::figures::grouped(cost.rate),
                side.io_calls,
                side.doorbells,
                by_role(&|role| role.sleeps, 3),
                by_role(&|role| role.allocations, 2),
                by_role(&|role| role.allocated_bytes, 0),
                by_role(&|role| role.processor_us, 2),
            );
        }
    }
}

/// One line: what, its value and, if there is one, its budget.
struct Line {
    what: &'static str,
    budget: Option<f64>,
    found: f64,
}

#[allow(clippy::cast_precision_loss, reason = "1024 is exact")]
fn lines(cost: &Cost) -> Vec<Line> {
    let calls = match (cost.case.options, cost.case.callers, cost.transport) {
        (APPLIED, 1, _) => 2.0,
        (_, _, Transport::Epoll) => 1.0 / 4.0,
        _ => 1.0 / 16.0,
    };
    let (sender, receiver) = (&cost.sender, &cost.receiver);
    let waiting = (cost.case.options == APPLIED).then_some(1.0);
    let sleeps = |side: &Side, role: &str| side.role(role, |cost| cost.sleeps);
    let allocations = |side: &Side| side.all(|role| role.allocations);
    let processor_us = |side: &Side| side.all(|role| role.processor_us);
    let line = |what, budget, found| Line { what, budget, found };
    vec![
        line("I/O system calls, sender", Some(calls), sender.io_calls),
        line("I/O system calls, receiver", Some(calls), receiver.io_calls),
        line("doorbells, sender", None, sender.doorbells),
        line("doorbells, receiver", None, receiver.doorbells),
        line("wake-ups of callers", waiting, sleeps(sender, "callers")),
        line("wake-ups of workers, sender", None, sleeps(sender, "workers")),
        line("wake-ups of workers, receiver", None, sleeps(receiver, "workers")),
        line("wake-ups of pollers", None, sleeps(receiver, "pollers")),
        line("heap allocations, sender", Some(0.0), allocations(sender)),
        line("heap allocations, receiver", Some(0.0), allocations(receiver)),
        line("wire bytes beside the payload", Some(64.0), sender.frame_bytes - SIZE_BYTES as f64),
        line("bytes of acks and control back", None, sender.received_bytes),
        line("processor µs, sender", None, processor_us(sender)),
        line("processor µs, receiver", None, processor_us(receiver)),
    ]
}

/// A column for each situation: what was found, and its part of the budget.
fn budget(costs: &[Cost]) {
    let columns: Vec<Vec<Line>> = costs.iter().map(lines).collect();
    let heads = costs.iter().map(|cost| format!("{}, {}", cost.backend(), cost.situation));
    println!("| found (of budget) | {} |", heads.collect::<Vec<_>>().join(" | "));
    println!("| --- |{}", " --- |".repeat(costs.len()));
    for at in 0..columns.first().map_or(0, Vec::len) {
        let cells = columns.iter().map(|column| match column[at] {
            Line { budget: None, found, .. } => format!("{found:.3}"),
            Line { budget: Some(0.0), found, .. } => format!("{found:.3} (of 0)"),
            Line { budget: Some(budget), found, .. } => {
                format!("{found:.3} ({:.2} of {budget})", found / budget)
            }
        });
        println!("| {} | {} |", columns[0][at].what, cells.collect::<Vec<_>>().join(" | "));
    }
}
