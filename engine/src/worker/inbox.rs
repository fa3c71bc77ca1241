//! Orders from many threads to one worker.

use crate::sync::SegQueue;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The queue in front of one worker: any thread pushes, the worker pops.
///
/// The order of the queue is the order of the messages at every member. Its length is bounded
/// upstream, in bytes: each message in it owns a budget token, each outcome belongs to a delivery.
/// The doorbell costs a system call, so it rings only for a worker that sleeps.
pub struct Inbox<T> {
    queue: SegQueue<T>,
    sleeping: AtomicBool,
    closed: AtomicBool,
    bell: Box<dyn Fn() + Send + Sync>,
}

impl<T> std::fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl<T> Inbox<T> {
    /// An empty inbox whose worker is woken by `bell`.
    #[must_use]
    pub fn new(bell: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            queue: SegQueue::new(),
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            bell,
        }
    }

    /// Puts `value` at the end, and wakes the worker if it sleeps.
    ///
    /// # Errors
    /// Gives `value` back when the worker has ended.
    pub fn push(&self, value: T) -> Result<(), T> {
        if self.closed.load(Ordering::Acquire) {
            return Err(value);
        }
        self.queue.push(value);
        if self.closed.load(Ordering::SeqCst) {
            // The worker ended meanwhile and may have looked before: nothing stays inside.
            while self.pop().is_some() {}
            return Ok(());
        }
        // All changes of the flag stand in one order. If this one comes before the worker's "asleep",
        // the worker's look at the queue after it sees the value; else this one sees "asleep".
        if self.sleeping.swap(false, Ordering::AcqRel) {
            (self.bell)();
        }
        Ok(())
    }

    /// The next value; only the worker calls this.
    #[must_use]
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Says that the worker is about to sleep; false if something is there and it must not.
    #[must_use]
    pub fn prepare_sleep(&self) -> bool {
        self.sleeping.swap(true, Ordering::AcqRel);
        if self.queue.is_empty() {
            return true;
        }
        self.woke();
        false
    }

    /// Says that the worker is awake.
    pub fn woke(&self) {
        self.sleeping.swap(false, Ordering::AcqRel);
    }

    /// Ends it: later pushes are refused, what is inside is dropped.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        while self.pop().is_some() {}
    }
}
