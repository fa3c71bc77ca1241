//! What a node runs on: one decision for all of its threads.

use crate::config::Backend;
use crate::error::OpenError;
use crate::ring::RingError;

/// What moves the bytes of a node, on its workers and on its control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Substrate {
    /// io_uring everywhere.
    IoUring,
    /// epoll everywhere: no system call of io_uring at all.
    Epoll,
}

/// Starts a node on what is wanted and there. With [`Backend::Auto`] a node for which io_uring
/// turns out to be absent, at the probe or at any of its threads, starts whole on epoll; `start`
/// leaves nothing running when it fails. The text says why, if it came so.
///
/// # Errors
/// As `start`, and absence where io_uring is asked for by name. A machine that has io_uring but is
/// out of something is an error always: silently slower would hide it.
pub(crate) fn choose<T>(
    wanted: Backend,
    probe: impl FnOnce() -> Result<(), RingError>,
    mut start: impl FnMut(Substrate) -> Result<T, OpenError>,
) -> Result<(T, Option<String>), OpenError> {
    if wanted == Backend::Epoll {
        return Ok((start(Substrate::Epoll)?, None));
    }
    let tried = probe().map_err(OpenError::Ring).and_then(|()| start(Substrate::IoUring));
    match tried {
        Err(OpenError::Ring(cause)) if wanted == Backend::Auto && cause.is_absence() => {
            let text = format!(
                "this node runs on epoll: {cause}; backend=\"epoll\" chooses it without this word"
            );
            Ok((start(Substrate::Epoll)?, Some(text)))
        }
        other => other.map(|node| (node, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPERM: i32 = 1;

    fn absent() -> RingError {
        RingError::Absent { errno: EPERM }
    }

    fn out_of_memory() -> RingError {
        RingError::System { doing: "a test", error: std::io::ErrorKind::OutOfMemory.into() }
    }

    /// What was started in turn, and how it ended.
    fn chosen(
        wanted: Backend,
        probe: Result<(), RingError>,
        ring: Result<(), RingError>,
    ) -> (Vec<Substrate>, Result<Option<String>, String>) {
        let (mut ring, mut started) = (Some(ring), Vec::new());
        let outcome = choose(
            wanted,
            || probe,
            |substrate| {
                started.push(substrate);
                match substrate {
                    Substrate::IoUring => ring.take().expect("once").map_err(OpenError::Ring),
                    Substrate::Epoll => Ok(()),
                }
            },
        );
        (started, outcome.map(|((), text)| text).map_err(|error| error.to_string()))
    }

    #[test]
    fn only_absence_leads_to_epoll_and_only_unasked() {
        use Backend::{Auto, Epoll, IoUring};
        let ring_alone = vec![Substrate::IoUring];
        assert_eq!(chosen(Auto, Ok(()), Ok(())), (ring_alone.clone(), Ok(None)));
        assert_eq!(chosen(Epoll, Ok(()), Ok(())), (vec![Substrate::Epoll], Ok(None)));
        for absence in [absent(), RingError::Lacks { operation: "RECV" }] {
            let (started, outcome) = chosen(Auto, Err(absence), Ok(()));
            assert_eq!(started, [Substrate::Epoll]);
            let text = outcome.expect("it runs").expect("it says why");
            assert!(text.contains("epoll") && text.contains("Linux") | text.contains("seccomp"));
            assert!(!text.contains('\n'), "{text}");
        }
        // Refused half-way: from the beginning, on the other.
        let (started, outcome) = chosen(Auto, Ok(()), Err(absent()));
        assert_eq!(started, [Substrate::IoUring, Substrate::Epoll]);
        assert!(outcome.expect("it runs").expect("it says why").contains("seccomp"));
        // Something else that fails is told.
        assert_eq!(chosen(Auto, Err(out_of_memory()), Ok(())).0, []);
        let (started, outcome) = chosen(Auto, Ok(()), Err(out_of_memory()));
        assert_eq!(started, ring_alone);
        assert!(outcome.expect_err("told").contains("ulimit"));
        // By name there is no other way.
        let (started, outcome) = chosen(IoUring, Err(absent()), Ok(()));
        assert_eq!(started, []);
        assert!(outcome.expect_err("refused").contains("seccomp"));
        assert_eq!(chosen(IoUring, Ok(()), Err(absent())).0, ring_alone);
    }
}
