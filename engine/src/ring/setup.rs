//! Making a ring, and saying why there is none.

use std::fmt;
use std::io::Read;

use io_uring::{IoUring, Probe, opcode};

/// Entries of the submission queue; the completion queue has four times as many.
const ENTRIES_COUNT: u32 = 1024;

/// Why there is no ring.
#[derive(Debug)]
pub enum RingError {
    /// io_uring is refused here: by a sysctl, a seccomp filter, or a kernel without it.
    Absent {
        /// The errno of io_uring_setup.
        errno: i32,
    },
    /// The kernel is older than what the engine needs.
    Lacks {
        /// The missing operation.
        operation: &'static str,
    },
    /// The machine is out of something.
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        error: std::io::Error,
    },
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                let remedy = match *errno {
                    1 => {
                        "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp \
                         profile, and set the sysctl kernel.io_uring_disabled to 0"
                    }
                    38 => "run a kernel with io_uring (Linux 6.0 or newer)",
                    _ => "run Linux 6.0 or newer with io_uring enabled",
                };
                write!(f, "io_uring is refused here ({error}): {remedy}")
            }
            Self::Lacks { operation } => {
                write!(f, "this kernel's io_uring lacks {operation}: run Linux 6.0 or newer")
            }
            Self::System { doing, error } => write!(
                f,
                "{doing} failed ({error}): raise the limits of memory, locked memory (ulimit -l) \
                 or descriptors (ulimit -n)"
            ),
        }
    }
}

impl std::error::Error for RingError {}

const ENOSYS: i32 = 38;
const EPERM: i32 = 1;
const EINVAL: i32 = 22;

/// Makes a ring as a worker would, and lets it go.
///
/// # Errors
/// io_uring is refused, too old, or the machine is out of something; the text has the remedy.
pub fn probe() -> Result<(), RingError> {
    make().map(drop)
}

/// Makes a ring with the best of the modes that this kernel knows; returns their names.
pub(super) fn make() -> Result<(IoUring, String), RingError> {
    type Mode = (&'static str, fn(&mut io_uring::Builder));
    let modes: [Mode; 3] = [
        ("single-issuer defer-taskrun", |builder| {
            builder.setup_single_issuer().setup_defer_taskrun();
        }),
        ("coop-taskrun", |builder| {
            builder.setup_coop_taskrun();
        }),
        ("plain", |_| {}),
    ];
    let mut last = EINVAL;
    for (name, set) in modes {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(4 * ENTRIES_COUNT);
        set(&mut builder);
        match builder.build(ENTRIES_COUNT) {
            Ok(ring) => {
                check(&ring)?;
                return Ok((ring, format!("io_uring ({name})")));
            }
            Err(error) => match error.raw_os_error() {
                Some(EINVAL) => last = EINVAL,
                Some(errno @ (ENOSYS | EPERM)) => return Err(RingError::Absent { errno }),
                _ => return Err(RingError::System { doing: "io_uring_setup", error }),
            },
        }
    }
    Err(RingError::Absent { errno: last })
}

fn check(ring: &IoUring) -> Result<(), RingError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| RingError::System { doing: "io_uring_register(PROBE)", error })?;
    let needed = [
        (opcode::SendMsg::CODE, "SENDMSG"),
        (opcode::Recv::CODE, "RECV"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        (opcode::Read::CODE, "READ"),
        // Came with multishot receive and provided-buffer rings, which the probe cannot tell.
        (opcode::SendZc::CODE, "the operations of Linux 6.0 (multishot receive)"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        None => Ok(()),
        Some((_, operation)) => Err(RingError::Lacks { operation }),
    }
}

/// Random bytes from the kernel: the core takes randomness from outside only.
///
/// # Errors
/// `/dev/urandom` cannot be read.
pub fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
