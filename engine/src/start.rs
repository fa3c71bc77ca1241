//! Starting the workers of a node, all on one kind of driver.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant as WallInstant;

use crate::error::OpenError;
use crate::order::Order;
use crate::protocol::core::{Crew, WorkerCore};
use crate::shared::{Shared, count};
use crate::status::Status;
use crate::worker::{self, Driver, DriverSettings, Inbox, Input, Upcalls};

/// The workers that run; all of them unless `outcome` is an error, and then they are to be closed.
pub(crate) struct Started {
    pub(crate) inboxes: Vec<Arc<Inbox<Input<Order>>>>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    /// The features of the driver, or why one of the workers does not run.
    pub(crate) outcome: Result<String, OpenError>,
}

/// Starts a thread for each worker. A driver may belong to the thread that makes it, so each thread
/// makes its own.
pub(crate) fn workers<D: Driver>(
    shared: &Arc<Shared>,
    started: WallInstant,
    upcalls: impl Fn() -> Box<dyn Upcalls>,
    make: impl Fn(DriverSettings, Box<dyn Upcalls>) -> Result<D, OpenError> + Copy + Send + 'static,
) -> Started {
    let crew = Arc::new(Crew::default());
    let (ready, when_ready) = std::sync::mpsc::channel();
    let mut threads = Vec::new();
    let mut outcome = Ok(String::new());
    for index in 0..shared.bounds.worker_count {
        let (shared, crew) = (Arc::clone(shared), Arc::clone(&crew));
        let (upcalls, ready) = (upcalls(), ready.clone());
        let spawned = crate::ring::random_bytes().and_then(|seed| {
            let settings = DriverSettings::new(index, started, u64::from_le_bytes(seed));
            let thread = std::thread::Builder::new().name(format!("ringtribe-worker-{index}"));
            thread.spawn(move || {
                let io = match make(settings, upcalls) {
                    Ok(io) => io,
                    Err(error) => {
                        let _ = ready.send((index, Err(error)));
                        return;
                    }
                };
                // Weak: what is shared holds the inboxes.
                let (bell, counting) = (io.doorbell(), Arc::downgrade(&shared));
                let inbox = Arc::new(Inbox::new(Box::new(move || {
                    if let Some(shared) = counting.upgrade() {
                        count(&shared.counters.doorbells_count, 1);
                    }
                    bell();
                })));
                let _ = ready.send((index, Ok((Arc::clone(&inbox), io.features()))));
                drop(ready);
                let core = WorkerCore::new(Arc::clone(&shared), crew, index);
                if let Err(text) = worker::run(core, &inbox, io, &shared.counters.io_calls_count) {
                    WorkerCore::report_bug(&shared, &text);
                    shared.deliveries.close();
                    for other in 0..shared.bounds.worker_count {
                        shared.orders().push(other, Order::Close { status: Status::Bug });
                    }
                }
            })
        });
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                outcome = Err(OpenError::System(error));
                break;
            }
        }
    }
    drop(ready);
    let mut made: Vec<_> = when_ready.iter().take(threads.len()).collect();
    made.sort_by_key(|(index, _)| *index);
    let mut inboxes = Vec::new();
    for (_, result) in made {
        match result {
            Ok((inbox, features)) => {
                inboxes.push(inbox);
                outcome = outcome.map(|_| features);
            }
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    Started { inboxes, threads, outcome }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::backend::{Substrate, choose};
    use crate::config::{Backend, Config};
    use crate::delivery::{PollEnd, Polled, PollerClass};
    use crate::epoll::EpollIo;
    use crate::error::OpenError;
    use crate::event::{Event, LogLevel};
    use crate::node::Node;
    use crate::ring::{RingError, RingIo, probe};

    const ENOSYS: i32 = 38;

    /// How many descriptors of this process are of a kind.
    fn descriptors_count(kind: &str) -> usize {
        let all = std::fs::read_dir("/proc/self/fd").expect("procfs").flatten();
        all.filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .filter(|target| target.as_os_str() == kind)
            .count()
    }

    /// A node whose second of three workers gets no ring.
    fn refused_half_way(substrate: Substrate) -> Result<Node, OpenError> {
        let mut config = Config::default();
        config.set("tcpThreadCount", "3").expect("in range");
        match substrate {
            Substrate::IoUring => Node::start_on(&config, substrate, |settings, upcalls| {
                if settings.worker == 1 {
                    return Err(OpenError::Ring(RingError::Absent { errno: ENOSYS }));
                }
                RingIo::new(settings, upcalls).map_err(OpenError::Ring)
            }),
            Substrate::Epoll => Node::start_on(&config, substrate, |settings, upcalls| {
                EpollIo::new(settings, upcalls).map_err(OpenError::System)
            }),
        }
    }

    #[test]
    fn a_ring_refused_half_way_leaves_no_ring_and_a_node_whole_on_epoll() {
        let refused = choose(Backend::IoUring, probe, refused_half_way).expect_err("by name");
        assert!(refused.to_string().contains("kernel with io_uring"), "{refused}");
        assert_eq!(descriptors_count("anon_inode:[io_uring]"), 0);
        assert_eq!(descriptors_count("anon_inode:[eventpoll]"), 0);

        let (node, text) = choose(Backend::Auto, probe, refused_half_way).expect("epoll is there");
        assert!(text.expect("said").contains("kernel with io_uring"));
        assert!(node.backend().starts_with("epoll"), "{}", node.backend());
        assert_eq!(descriptors_count("anon_inode:[io_uring]"), 0);
        // Three workers and the control thread.
        assert!(descriptors_count("anon_inode:[eventpoll]") >= 4);
        drop(node);
        assert_eq!(descriptors_count("anon_inode:[eventpoll]"), 0);

        // With a ring everywhere nothing is said.
        let mut config = Config::default();
        config.set("tcpThreadCount", "2").expect("in range");
        let node = Node::open(&config).expect("this machine has io_uring");
        assert!(node.backend().starts_with("io_uring"), "{}", node.backend());
        let mut taken = Vec::new();
        let end = node.poll(PollerClass::Reserved, 1, 8, Duration::ZERO, &mut taken);
        assert_ne!(end, PollEnd::Closed);
        let warned = taken.iter().any(|polled| {
            matches!(polled, Polled::Event(Event::Log { level: LogLevel::Warn, text })
                if text.contains("epoll"))
        });
        assert!(!warned, "{taken:?}");
    }
}
