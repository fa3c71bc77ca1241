//! Which system calls the threads of a program make, seen through ptrace: as strace, without it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What the recorded calls are called, and whether their first argument is a descriptor.
const CALLS: &[(i64, &str, bool)] = &[
    (nix::libc::SYS_io_uring_setup, "io_uring_setup", false),
    (nix::libc::SYS_io_uring_enter, "io_uring_enter", true),
    (nix::libc::SYS_io_uring_register, "io_uring_register", true),
    (nix::libc::SYS_epoll_create1, "epoll_create1", false),
    (nix::libc::SYS_epoll_wait, "epoll_wait", true),
    (nix::libc::SYS_epoll_pwait, "epoll_pwait", true),
    (nix::libc::SYS_epoll_pwait2, "epoll_pwait2", true),
    (nix::libc::SYS_poll, "poll", false),
    (nix::libc::SYS_read, "read", true),
    (nix::libc::SYS_readv, "readv", true),
    (nix::libc::SYS_recvfrom, "recvfrom", true),
    (nix::libc::SYS_recvmsg, "recvmsg", true),
    (nix::libc::SYS_recvmmsg, "recvmmsg", true),
    (nix::libc::SYS_write, "write", true),
    (nix::libc::SYS_writev, "writev", true),
    (nix::libc::SYS_sendto, "sendto", true),
    (nix::libc::SYS_sendmsg, "sendmsg", true),
    (nix::libc::SYS_sendmmsg, "sendmmsg", true),
];

/// A kind of call by a kind of thread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The thread's name, as far as the kernel keeps it (15 bytes).
    pub thread: String,
    /// The call's name.
    pub name: &'static str,
    /// What its descriptor is, without numbers: `socket`, `anon_inode:[eventfd]`, or empty.
    pub on: String,
}

/// How often each was made.
pub type Calls = BTreeMap<Call, u64>;

/// Why there is nothing to see.
#[derive(Debug)]
pub enum TraceError {
    /// This machine lets nobody look.
    Refused(String),
    /// The program failed, or looking did.
    Failed(String),
}

impl From<Errno> for TraceError {
    fn from(error: Errno) -> Self {
        Self::Failed(format!("ptrace: {error}"))
    }
}

/// Runs `command`, which says `ready` and then waits for a line before it does anything and before it
/// has a second thread; returns its calls from there on, and its standard output.
///
/// # Errors
/// ptrace is refused, or the program fails.
pub fn trace(mut command: Command) -> Result<(Calls, String), TraceError> {
    let failed = |text: &str| TraceError::Failed(text.to_owned());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
    let mut output = BufReader::new(child.stdout.take().ok_or(failed("no output"))?);
    let mut line = String::new();
    output.read_line(&mut line).map_err(|error| failed(&error.to_string()))?;
    if line.trim() != "ready" {
        return Err(failed(&format!("it said {line:?} instead of ready")));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|e| failed(&e.to_string()))?);
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    if let Err(error) = ptrace::seize(pid, options) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(match error {
            Errno::EPERM | Errno::ENOSYS => {
                TraceError::Refused(format!("ptrace is refused here: {error}"))
            }
            error => error.into(),
        });
    }
    ptrace::interrupt(pid)?;
    let mut input = child.stdin.take().ok_or(failed("no input"))?;
    input.write_all(b"go\n").map_err(|error| failed(&error.to_string()))?;
    let (calls, end) = watch(pid)?;
    let mut text = String::new();
    output.read_to_string(&mut text).map_err(|error| failed(&error.to_string()))?;
    match end {
        WaitStatus::Exited(_, 0) => Ok((calls, text)),
        other => Err(failed(&format!("it ended with {other:?}: {text}"))),
    }
}

/// Follows all threads of `pid` to its end.
fn watch(pid: Pid) -> Result<(Calls, WaitStatus), TraceError> {
    let mut calls = Calls::new();
    // Only what this thread traces: other tests have children too.
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let mut ended = BTreeSet::new();
    loop {
        let status = waitpid(None, Some(flags))?;
        let (thread, signal) = match status {
            WaitStatus::Exited(who, _) | WaitStatus::Signaled(who, ..) => {
                ended.insert(who);
                if who == pid {
                    return Ok((calls, status));
                }
                continue;
            }
            WaitStatus::PtraceSyscall(thread) => {
                record(pid, thread, &mut calls)?;
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            _ => continue,
        };
        go_on(thread, signal)?;
    }
}

fn go_on(thread: Pid, signal: Option<Signal>) -> Result<(), TraceError> {
    match ptrace::syscall(thread, signal) {
        // The process ends: the thread is gone already.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn record(pid: Pid, thread: Pid, calls: &mut Calls) -> Result<(), TraceError> {
    let is_entry = match ptrace::syscall_info(thread) {
        Ok(info) => info.op == nix::libc::PTRACE_SYSCALL_INFO_ENTRY,
        Err(Errno::ESRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !is_entry {
        return Ok(());
    }
    let Some((number, first)) = number_and_first_argument(thread)? else { return Ok(()) };
    let Some((_, name, has_descriptor)) = CALLS.iter().find(|(of, ..)| *of == number) else {
        return Ok(());
    };
    let of_thread = format!("/proc/{pid}/task/{thread}/comm");
    let on = if *has_descriptor {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{first}"));
        let target = target.map(|path| path.display().to_string()).unwrap_or_default();
        target.split_once(":[").map_or(target.clone(), |(kind, rest)| {
            if kind == "anon_inode" { format!("{kind}:[{rest}") } else { kind.to_owned() }
        })
    } else {
        String::new()
    };
    let thread = std::fs::read_to_string(of_thread).unwrap_or_default().trim().to_owned();
    *calls.entry(Call { thread, name, on }).or_default() += 1;
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn number_and_first_argument(thread: Pid) -> Result<Option<(i64, u64)>, TraceError> {
    match ptrace::getregs(thread) {
        Ok(registers) => Ok(Some((registers.orig_rax.cast_signed(), registers.rdi))),
        Err(Errno::ESRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn number_and_first_argument(_: Pid) -> Result<Option<(i64, u64)>, TraceError> {
    Err(TraceError::Refused("where registers hold a system call is known for x86_64 only".into()))
}
