//! What the threads of this process did so far, by their role.

use std::fs::read_to_string;

use serde_json::{Map, Value, json};

use crate::allocations;

/// What one thread, or all of one role, did.
#[derive(Clone, Copy, Default)]
struct Did {
    threads_count: u64,
    /// Times it slept, which is as often as it was woken: voluntary context switches.
    sleeps_count: u64,
    processor_ns: u64,
    allocations_count: u64,
    allocated_bytes: u64,
}

/// The role of a thread, by its name; the kernel keeps 15 characters of it.
fn role(name: &str) -> &'static str {
    match name {
        _ if name.starts_with("ringtribe-worke") => "workers",
        _ if name.starts_with("ringtribe-contr") => "control",
        "poller" => "pollers",
        "reserved" => "reserved",
        "caller" => "callers",
        _ => "others",
    }
}

/// All roles; the numbers only grow while the threads live.
pub(crate) fn sample() -> Value {
    let allocated = allocations::by_thread();
    let mut roles: Vec<(&'static str, Did)> = Vec::new();
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for task in tasks {
        let read = |file: &str| read_to_string(task.path().join(file)).unwrap_or_default();
        let role = role(read("comm").trim());
        let (status, schedule) = (read("status"), read("schedstat"));
        let sleeps = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        let number = |text: Option<&str>| text.and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        let thread = task.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(0);
        let (count, bytes) = allocated.get(&thread).copied().unwrap_or_default();
        let at = roles.iter().position(|(known, _)| *known == role).unwrap_or_else(|| {
            roles.push((role, Did::default()));
            roles.len() - 1
        });
        let sum = &mut roles[at].1;
        sum.threads_count += 1;
        sum.sleeps_count += number(sleeps);
        sum.processor_ns += number(schedule.split(' ').next());
        sum.allocations_count += count;
        sum.allocated_bytes += bytes;
    }
    let all = roles.into_iter().map(|(role, did)| {
        let did = json!({
            "threads_count": did.threads_count, "sleeps_count": did.sleeps_count,
            "processor_ns": did.processor_ns, "allocations_count": did.allocations_count,
            "allocated_bytes": did.allocated_bytes,
        });
        (role.to_owned(), did)
    });
    Value::Object(all.collect::<Map<_, _>>())
}
