//! Starting the workers of a node, all on one kind of driver.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant as WallInstant;

use crate::error::OpenError;
use crate::order::Order;
use crate::protocol::core::{Crew, WorkerCore};
use crate::shared::Shared;
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
                let inbox = Arc::new(Inbox::new(io.doorbell()));
                let _ = ready.send((index, Ok((Arc::clone(&inbox), io.features()))));
                drop(ready);
                let core = WorkerCore::new(Arc::clone(&shared), crew, index);
                if let Err(text) = worker::run(core, &inbox, io) {
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
