//! Takes io_uring away, as a container's seccomp profile does.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// From here on `call` fails for this thread, and for the threads and programs that it starts: with
/// EPERM, ENOSYS or ENOMEM, or (`kill`) by the end of the process.
///
/// # Errors
/// Another word, or seccomp is refused.
pub fn refuse(how: &str, call: &str) -> Result<(), String> {
    let action = match how {
        "eperm" => SeccompAction::Errno(nix::libc::EPERM.unsigned_abs()),
        "enosys" => SeccompAction::Errno(nix::libc::ENOSYS.unsigned_abs()),
        "enomem" => SeccompAction::Errno(nix::libc::ENOMEM.unsigned_abs()),
        "kill" => SeccompAction::KillProcess,
        _ => return Err(format!("--refuse {how}: give eperm, enosys, enomem or kill")),
    };
    let numbers = [
        ("io_uring_setup", nix::libc::SYS_io_uring_setup),
        ("io_uring_enter", nix::libc::SYS_io_uring_enter),
        ("io_uring_register", nix::libc::SYS_io_uring_register),
    ];
    let rules =
        numbers.iter().filter(|(name, _)| *name == call).map(|(_, number)| (*number, vec![]));
    apply(rules.collect(), action)
}

/// From here on rings of more than so many entries are refused with EPERM: a small one to try is not.
///
/// # Errors
/// Seccomp is refused.
pub fn refuse_rings_above(entries_count: u64) -> Result<(), String> {
    let length = SeccompCmpArgLen::Dword;
    let rule = SeccompCondition::new(0, length, SeccompCmpOp::Gt, entries_count)
        .and_then(|above| SeccompRule::new(vec![above]))
        .map_err(|error| format!("the filter: {error}"))?;
    let rules = [(nix::libc::SYS_io_uring_setup, vec![rule])].into();
    apply(rules, SeccompAction::Errno(nix::libc::EPERM.unsigned_abs()))
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, action: SeccompAction) -> Result<(), String> {
    let machine = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, machine)
        .and_then(BpfProgram::try_from)
        .map_err(|error| format!("the filter: {error}"))?;
    seccompiler::apply_filter(&filter).map_err(|error| format!("seccomp is refused: {error}"))
}
