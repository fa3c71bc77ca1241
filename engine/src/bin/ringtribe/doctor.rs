//! `ringtribe doctor`: what this machine offers a node, tried out where it can be.

use std::process::ExitCode;

use ringtribe::config::{Backend, Config};
use ringtribe::control::{ListenError, trial};
use ringtribe::machine::{self, Limit};
use ringtribe::node::Node;
use ringtribe::ring::{self, RingError};
use ringtribe::shared::Bounds;

use crate::findings::{Findings, Grade};
use crate::output::{bytes, thousands};
use crate::settings::Settings;

/// The first kernel with all that the engine asks of io_uring.
const KERNEL_WANTED: (u32, u32) = (6, 0);
/// Descriptors of a node without any member: its port, the group, rings and doorbells, standard
/// streams.
const OWN_DESCRIPTORS_COUNT: u64 = 64;
/// What Linux 6.18 counts as locked for a worker's ring; control has one too, a smaller one.
const RING_BYTES: u64 = 192 << 10;

/// Looks at everything and says what it found; the exit status is 0 if a node can run.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn run(
    settings: &Settings,
    members_count: u64,
    json: bool,
) -> std::io::Result<ExitCode> {
    let config = &settings.config;
    let mut findings = Findings::default();
    kernel(&mut findings);
    io_uring(config, &mut findings);
    // Before the node, which raises the limit.
    descriptors(config, members_count, &mut findings);
    locked_memory(config, &mut findings);
    memory(config, members_count, &mut findings);
    threads(config, &mut findings);
    socket_buffers(&mut findings);
    port(config, &mut findings);
    multicast(config, &mut findings);
    node(config, &mut findings);
    if !settings.ignored.is_empty() {
        // What nobody knows is refused; this is others' business, or without use here.
        let count = settings.ignored.len();
        findings.fact("server_xml_ignored", settings.ignored.clone());
        findings
            .ok("server.xml", format!("{count} entries are not the engine's; --json lists them"));
    }
    findings.print(json)?;
    Ok(if findings.worst() == Grade::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn kernel(findings: &mut Findings) {
    let Some((release, version)) = machine::kernel() else {
        findings.warn("kernel", "it does not tell its version".into(), "mount /proc");
        return;
    };
    findings.fact("kernel", release.as_str());
    let what = format!("Linux {release}");
    if version >= KERNEL_WANTED {
        findings.ok("kernel", what);
    } else {
        findings.warn("kernel", what, "run 6.0 or newer for io_uring as the engine needs it");
    }
}

fn io_uring(config: &Config, findings: &mut Findings) {
    if config.backend == Backend::Epoll {
        findings.ok("io_uring", "not used: backend is epoll");
        return;
    }
    let disabled = machine::sysctl("kernel.io_uring_disabled");
    let filtered = machine::has_seccomp_filter();
    if let Some(number) = disabled.as_ref().and_then(|text| text.parse::<u64>().ok()) {
        findings.fact("io_uring_disabled", number);
    }
    findings.fact("seccomp_filter", filtered);
    let error = match ring::probe() {
        Ok(()) => {
            findings.fact("io_uring", true);
            findings.ok("io_uring", "a ring can be made");
            return;
        }
        Err(error) => error,
    };
    findings.fact("io_uring", false);
    let RingError::Absent { errno } = &error else {
        let remedy = match error {
            RingError::Lacks { .. } => "io_uring as the engine uses it came with that kernel",
            _ => "see locked memory and descriptors below",
        };
        findings.warn("io_uring", error.to_string(), remedy);
        return;
    };
    let error = std::io::Error::from_raw_os_error(*errno);
    let what = format!("io_uring is refused here ({error})");
    findings.warn("io_uring", what, absence_remedy(*errno, disabled.as_deref(), filtered));
}

/// Why io_uring_setup answers `errno`, and what to do.
fn absence_remedy(errno: i32, disabled: Option<&str>, filtered: bool) -> &'static str {
    const EPERM: i32 = 1;
    match (errno, disabled) {
        (EPERM, Some("2")) => {
            "kernel.io_uring_disabled is 2, nobody may use it: sysctl kernel.io_uring_disabled=0"
        }
        (EPERM, Some("1")) => {
            "kernel.io_uring_disabled is 1, few may use it: sysctl kernel.io_uring_disabled=0, or \
             put this user into the group of kernel.io_uring_group"
        }
        (EPERM, _) if filtered => {
            "a seccomp filter forbids it, as containers' default profiles do: allow \
             io_uring_setup, io_uring_enter and io_uring_register in the profile"
        }
        (EPERM, _) => "a security module forbids it: allow io_uring for this program",
        _ if filtered => {
            "the kernel has none, or a seccomp filter hides it: run Linux 6.0 or newer, and allow \
             io_uring_setup, io_uring_enter and io_uring_register in the profile"
        }
        _ => "run Linux 6.0 or newer, built with io_uring",
    }
}

fn descriptors(config: &Config, members_count: u64, findings: &mut Findings) {
    let Ok(Limit { soft, hard }) = Limit::descriptors() else {
        findings.warn("descriptors", "the limit cannot be read".into(), "ulimit -n tells it");
        return;
    };
    findings.fact("descriptors_soft", soft);
    findings.fact("descriptors_hard", hard);
    // Each other member has a connection for each stream and one for replies, in either direction.
    let each_count = 2 * (workers_count(config) + 1);
    let needed_count = OWN_DESCRIPTORS_COUNT + members_count.saturating_sub(1) * each_count;
    findings.fact("descriptors_needed", needed_count);
    let most = |limit: Option<u64>| limit.map_or("no limit".into(), thousands);
    let needed = format!("{members_count} members need {}", thousands(needed_count));
    let what = format!("{} (a node raises it to {}); {needed}", most(soft), most(hard));
    match hard {
        Some(hard) if hard < OWN_DESCRIPTORS_COUNT + each_count => findings.fail(
            "descriptors",
            what,
            Some(
                "too few for one other member: raise the hard limit (ulimit -Hn, LimitNOFILE=)"
                    .into(),
            ),
        ),
        Some(hard) if hard < needed_count => findings.warn(
            "descriptors",
            what,
            "raise the hard limit (ulimit -Hn, LimitNOFILE= of a service)",
        ),
        _ => findings.ok("descriptors", what),
    }
}

fn locked_memory(config: &Config, findings: &mut Findings) {
    if config.backend == Backend::Epoll {
        return;
    }
    let Ok(Limit { soft, .. }) = Limit::locked_bytes() else { return };
    let needed_bytes = RING_BYTES * (workers_count(config) + 1);
    findings.fact("locked_memory_bytes", soft);
    findings.fact("locked_memory_needed_bytes", needed_bytes);
    let what = format!(
        "{}; a node's rings need {}, of all that this user runs",
        soft.map_or("no limit".into(), bytes),
        bytes(needed_bytes)
    );
    if soft.is_none_or(|soft| soft >= needed_bytes) {
        findings.ok("locked memory", what);
    } else {
        let remedy = "newer kernels count rings: raise it (ulimit -l, LimitMEMLOCK= of a service, \
                      --ulimit memlock of a container); with CAP_IPC_LOCK it does not matter";
        findings.warn("locked memory", what, remedy);
    }
}

/// The workers that a node has, each with a ring and a stream to each member.
fn workers_count(config: &Config) -> u64 {
    Bounds::from(config).worker_count.into()
}

fn memory(config: &Config, members_count: u64, findings: &mut Findings) {
    let Some(memory) = machine::memory() else { return };
    findings.fact("memory_bytes", memory.limit_bytes);
    let others_count = members_count.saturating_sub(1);
    let queued_bytes = config.max_queue_bytes.saturating_mul(others_count);
    let most_bytes = queued_bytes.saturating_add(config.max_receive_bytes);
    findings.fact("queues_bytes", most_bytes);
    let whose = if memory.is_contained { "this container" } else { "this machine" };
    let what = format!(
        "{whose} has {}; queues take at most {}: {others_count} x maxQueueSize + maxReceiveBytes",
        bytes(memory.limit_bytes),
        bytes(most_bytes)
    );
    if most_bytes < memory.limit_bytes {
        findings.ok("memory", what);
    } else {
        findings.warn(
            "memory",
            what,
            "lower maxQueueSize or maxReceiveBytes, or allow more memory",
        );
    }
}

fn threads(config: &Config, findings: &mut Findings) {
    let cores_count = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    findings.fact("cores", cores_count);
    let threads_count = config.tcp_thread_count;
    let what = format!("tcpThreadCount {threads_count} on {cores_count} cores");
    if threads_count <= cores_count {
        findings.ok("threads", what);
    } else {
        let remedy =
            format!("more workers than cores take turns: set tcpThreadCount {cores_count}");
        findings.warn("threads", what, remedy);
    }
}

fn socket_buffers(findings: &mut Findings) {
    let mut words = Vec::new();
    for name in ["net.core.rmem_max", "net.core.wmem_max"] {
        let Some(number) = machine::sysctl(name).and_then(|text| text.parse::<u64>().ok()) else {
            continue;
        };
        findings.fact(&name.replace("net.core.", ""), number);
        words.push(format!("{name} {}", bytes(number)));
    }
    if !words.is_empty() {
        findings.ok("buffers", format!("{}; TCP sizes its own", words.join(", ")));
    }
}

fn port(config: &Config, findings: &mut Findings) {
    let address = match trial::listen(config) {
        Ok(address) => address,
        Err(error) => {
            let remedy = match &error {
                // The text has it.
                ListenError::NotHere { .. }
                | ListenError::InUse { .. }
                | ListenError::OnlyLoopback { .. } => None,
                ListenError::System(_) => Some("see tcpListenAddress and tcpListenPort".into()),
            };
            findings.fail("port", error.to_string(), remedy);
            return;
        }
    };
    findings.fact("address", address.ip().to_string());
    findings.fact("port", address.port());
    let how = match config.tcp_listen_address {
        Some(_) => "as tcpListenAddress says",
        None => "tcpListenAddress is auto",
    };
    let what = format!("peers are told {}; {how}", address.ip());
    if address.ip().is_loopback() {
        let remedy = "a loopback address: only members on this machine can reach it; set \
                      tcpListenAddress, and give the host a name with another address";
        findings.warn("address", what, remedy);
    } else {
        findings.ok("address", what);
    }
    let wanted = config.tcp_listen_port;
    if address.port() == wanted {
        findings.ok("port", format!("{wanted} is free"));
    } else {
        findings.warn(
            "port",
            format!("{wanted} is in use; a node would take {}", address.port()),
            "stop what listens there, or set another tcpListenPort",
        );
    }
}

fn multicast(config: &Config, findings: &mut Findings) {
    if !config.uses_multicast() {
        findings.ok("multicast", "not used: members are found by staticMembers");
        return;
    }
    match trial::multicast(config) {
        Ok(took) => {
            let group = config.mcast_addr;
            let interface =
                config.mcast_bind_addr.map_or("any interface".into(), |a| a.to_string());
            let us = took.as_micros();
            findings.fact("multicast", true);
            findings.ok(
                "multicast",
                format!("a packet to {group} on {interface} came back in {us} µs"),
            );
        }
        Err(error) => {
            findings.fact("multicast", false);
            findings.fail("multicast", error.to_string(), None);
        }
    }
}

/// The proof: a node that nobody hears of.
fn node(config: &Config, findings: &mut Findings) {
    match Node::open(config) {
        Ok(node) => {
            findings.fact("backend", node.backend());
            findings.ok("node", format!("opens, on {}", node.backend()));
        }
        Err(error) => findings.fail("node", error.to_string(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_of_absence_has_a_remedy_of_its_own() {
        for (errno, disabled, filtered, says) in [
            (1, Some("2"), false, "is 2"),
            (1, Some("1"), true, "io_uring_group"),
            (1, Some("0"), true, "seccomp"),
            (1, Some("0"), false, "security module"),
            (1, None, true, "seccomp"),
            (38, None, false, "Linux 6.0"),
            (38, Some("0"), true, "profile"),
        ] {
            let remedy = absence_remedy(errno, disabled, filtered);
            assert!(remedy.contains(says), "{errno} {disabled:?} {filtered}: {remedy}");
        }
    }
}
