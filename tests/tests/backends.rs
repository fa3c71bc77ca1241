//! What a node runs on, seen from outside: seccomp takes io_uring away, ptrace counts the calls.

use std::io::Write;
use std::process::{Command, Output};

use ringtribe_tests::trace::{Calls, TraceError, trace};

fn pair(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pair"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> (Output, String, String) {
    let output = pair(arguments).output().expect("the pair runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

#[test]
fn where_io_uring_is_refused_nodes_run_on_epoll_and_say_why_in_a_line() {
    let refused = "Operation not permitted";
    let unknown = "Function not implemented";
    for (errno, call, cause, cure) in [
        ("eperm", "io_uring_setup", refused, "kernel.io_uring_disabled"),
        ("enosys", "io_uring_setup", unknown, "Linux 6.0"),
        // A filter that knows only some of the calls.
        ("eperm", "io_uring_register", refused, "seccomp profile"),
        ("eperm", "io_uring_enter", refused, "seccomp profile"),
    ] {
        let (output, out, err) =
            run(&["--refuse", errno, "--call", call, "--count", "300", "--callers", "3"]);
        assert!(output.status.success(), "{errno} {call}: {out}{err}");
        assert_eq!(out.matches(" backend=epoll").count(), 2, "{errno} {call}: {out}");
        assert!(out.contains("delivered=300"), "{out}");
        for node in ["a", "b"] {
            let warned = format!("{node} log=Warn this node runs on epoll: ");
            let lines: Vec<&str> = out.lines().filter(|line| line.starts_with(&warned)).collect();
            let [line] = lines[..] else { panic!("{errno} {call}: {out}") };
            assert!(line.contains(cause) && line.contains(cure), "{line}");
        }
    }
}

#[test]
fn io_uring_by_name_or_for_another_reason_is_refused_with_cause_and_cure() {
    let by_name = ["--backend", "io_uring", "--refuse", "eperm"];
    let out_of_memory = ["--refuse", "enomem"];
    for (arguments, cause, cure) in [
        (&by_name[..], "Operation not permitted", "kernel.io_uring_disabled"),
        (&out_of_memory, "Cannot allocate memory", "ulimit"),
    ] {
        let (output, out, err) = run(arguments);
        assert!(!output.status.success(), "{out}");
        assert!(err.contains(cause) && err.contains(cure), "{err}");
        assert!(err.contains("backend=\"epoll\""), "the other way out: {err}");
        assert_eq!(err.trim().lines().count(), 1, "{err}");
    }
}

#[test]
fn on_epoll_no_call_of_io_uring_is_made() {
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        let (output, out, err) =
            run(&["--backend", "epoll", "--refuse", "kill", "--call", call, "--count", "300"]);
        assert!(output.status.success(), "{call}: {out}{err}");
        assert!(out.contains("delivered=300"), "{out}");
        // Whoever makes it is killed.
        let (output, ..) = run(&["--backend", "io_uring", "--refuse", "kill", "--call", call]);
        assert!(!output.status.success() && output.status.code().is_none(), "{call}: {output:?}");
    }
}

/// Calls that reach a socket past the backend.
const BESIDE_THE_RING: [&str; 10] = [
    "read", "readv", "recvfrom", "recvmsg", "recvmmsg", "write", "writev", "sendto", "sendmsg",
    "sendmmsg",
];

fn calls(backend: &str) -> Option<Calls> {
    match trace(pair(&["--wait", "--backend", backend, "--count", "200"])) {
        Ok((calls, output)) => {
            assert!(output.contains("delivered=200"), "{output}");
            Some(calls)
        }
        Err(TraceError::Refused(why)) => {
            // Past the test's capture: a test that did not look should not pass unseen.
            let cure = "allow ptrace (kernel.yama.ptrace_scope, seccomp)";
            let _ = writeln!(std::io::stderr(), "skipped: {why}; {cure} to see the calls");
            None
        }
        Err(TraceError::Failed(why)) => panic!("{why}"),
    }
}

#[test]
fn the_data_threads_of_a_backend_make_its_calls_and_no_others() {
    // The kernel keeps 15 bytes of "ringtribe-worker-0".
    let worker = "ringtribe-worke";
    let count = |calls: &Calls, thread: &str, names: &[&str], on: &str| -> u64 {
        let matching = calls.iter().filter(|(call, _)| {
            call.thread.starts_with(thread) && names.contains(&call.name) && call.on.starts_with(on)
        });
        matching.map(|(_, count)| *count).sum()
    };
    let waits = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll"];
    let of_ring = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

    let Some(ring) = calls("io_uring") else { return };
    assert!(count(&ring, worker, &["io_uring_enter"], "anon_inode:[io_uring]") > 200, "{ring:#?}");
    assert_eq!(count(&ring, worker, &BESIDE_THE_RING, "socket"), 0, "{ring:#?}");
    assert_eq!(count(&ring, worker, &waits, ""), 0, "{ring:#?}");
    assert!(count(&ring, "ringtribe-contr", &of_ring, "") > 0, "{ring:#?}");

    let Some(epoll) = calls("epoll") else { return };
    assert_eq!(count(&epoll, "", &of_ring, ""), 0, "{epoll:#?}");
    for names in [&["sendmsg"][..], &["recvfrom"]] {
        assert!(count(&epoll, worker, names, "socket") > 200, "{epoll:#?}");
    }
    // 400 messages with those that warm up, and their acknowledgements: one read each, not a second
    // one to see that nothing is left.
    assert!(count(&epoll, worker, &["recvfrom"], "socket") < 2 * 400 + 100, "{epoll:#?}");
    let asked_count = count(&epoll, worker, &waits, "anon_inode:[eventpoll]");
    assert!(asked_count > 200, "{epoll:#?}");
    assert_eq!(count(&epoll, worker, &["read", "write"], "socket"), 0, "{epoll:#?}");
}
