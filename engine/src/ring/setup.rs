//! Making a ring, and saying why there is none.

use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant};

use io_uring::{IoUring, Probe, opcode};

/// Entries of the submission queue; the completion queue has four times as many.
const ENTRIES_COUNT: u32 = 1024;

/// The kernel frees the rings of a killed process some time after its end, and until then they count
/// as locked memory of its user; a node that is started again at once waits so long for it.
const MEMORY_WAIT: Duration = Duration::from_millis(200);
/// Pause between two attempts; nothing tells when memory is freed.
const MEMORY_PAUSE: Duration = Duration::from_millis(5);

/// Why there is no ring.
#[derive(Debug)]
pub enum RingError {
    /// io_uring is refused here: by a sysctl, a seccomp filter, or a kernel without it.
    Absent {
        /// The errno of the io_uring system call.
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

impl RingError {
    /// Whether this machine does without io_uring for good, so that epoll is the way; all else is
    /// a want that may pass and should be known.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Lacks { .. })
    }

    /// What an io_uring system call other than the first answered: a filter may know only some.
    fn of(doing: &'static str, error: std::io::Error) -> Self {
        Self::absence(&error).unwrap_or(Self::System { doing, error })
    }

    /// Absence, if that is what an error of a library's ring means.
    #[must_use]
    pub(crate) fn absence(error: &std::io::Error) -> Option<Self> {
        let errno = error.raw_os_error().filter(|errno| [ENOSYS, EPERM].contains(errno))?;
        Some(Self::Absent { errno })
    }
}

const ENOSYS: i32 = 38;
const EPERM: i32 = 1;
const EINVAL: i32 = 22;

/// Tries all three system calls of io_uring with a small ring.
///
/// # Errors
/// io_uring is refused, too old, or the machine is out of something; the text has the remedy.
pub fn probe() -> Result<(), RingError> {
    let (mut ring, _) = make_with(8)?;
    let entry = opcode::Nop::new().build();
    // SAFETY: a nop points to nothing.
    let pushed = unsafe { ring.submission().push(&entry) };
    debug_assert!(pushed.is_ok(), "the queue is empty");
    loop {
        match ring.submit_and_wait(1) {
            // A signal says nothing of io_uring.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => {
                return result.map(drop).map_err(|error| RingError::of("io_uring_enter", error));
            }
        }
    }
}

/// Makes a ring with the best of the modes that this kernel knows; returns their names.
pub(super) fn make() -> Result<(IoUring, String), RingError> {
    make_with(ENTRIES_COUNT)
}

fn make_with(entries_count: u32) -> Result<(IoUring, String), RingError> {
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
        builder.setup_cqsize(4 * entries_count);
        set(&mut builder);
        match when_memory_is_free(|| builder.build(entries_count)) {
            Ok(ring) => {
                check(&ring)?;
                return Ok((ring, format!("io_uring ({name})")));
            }
            Err(error) => match error.raw_os_error() {
                Some(EINVAL) => last = EINVAL,
                _ => return Err(RingError::of("io_uring_setup", error)),
            },
        }
    }
    Err(RingError::Absent { errno: last })
}

/// Tries again for a while where memory is short.
pub(super) fn when_memory_is_free<T>(
    mut attempt: impl FnMut() -> std::io::Result<T>,
) -> std::io::Result<T> {
    let until = Instant::now() + MEMORY_WAIT;
    loop {
        match attempt() {
            Err(error)
                if error.kind() == std::io::ErrorKind::OutOfMemory && Instant::now() < until =>
            {
                std::thread::sleep(MEMORY_PAUSE);
            }
            result => return result,
        }
    }
}

fn check(ring: &IoUring) -> Result<(), RingError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| RingError::of("io_uring_register(PROBE)", error))?;
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
