//! Orders from many threads to one worker.

#[cfg(ringtribe_loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(ringtribe_loom))]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(not(ringtribe_loom))]
use crossbeam::queue::SegQueue;

/// Stands in for the lock-free queue, so that loom explores the doorbell and not crossbeam.
#[cfg(ringtribe_loom)]
#[derive(Debug)]
struct SegQueue<T>(loom::sync::Mutex<std::collections::VecDeque<T>>);

#[cfg(ringtribe_loom)]
impl<T> SegQueue<T> {
    fn new() -> Self {
        Self(loom::sync::Mutex::new(std::collections::VecDeque::new()))
    }
    fn push(&self, value: T) {
        self.0.lock().expect("no panic holds it").push_back(value);
    }
    fn pop(&self) -> Option<T> {
        self.0.lock().expect("no panic holds it").pop_front()
    }
    fn is_empty(&self) -> bool {
        self.0.lock().expect("no panic holds it").is_empty()
    }
}

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

#[cfg(all(test, ringtribe_loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::AtomicUsize;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// An eventfd as far as it matters: a ring is not lost, whether it comes before the sleep or in
    /// it.
    #[derive(Default)]
    struct Bell {
        rung: Mutex<bool>,
        wake: Condvar,
    }

    fn explore(pushers_count: usize) {
        let mut model = loom::model::Builder::new();
        // All orders of one pusher; of two, those with up to three switches against a thread's will.
        model.preemption_bound = (pushers_count > 1).then_some(3);
        model.check(move || {
            let bell = Arc::new(Bell::default());
            let rings = Arc::new(AtomicUsize::new(0));
            let inbox = {
                let (bell, rings) = (Arc::clone(&bell), Arc::clone(&rings));
                Arc::new(Inbox::new(Box::new(move || {
                    rings.fetch_add(1, Ordering::Relaxed);
                    *bell.rung.lock().unwrap() = true;
                    bell.wake.notify_one();
                })))
            };
            let pushers: Vec<_> = (0..pushers_count)
                .map(|n| {
                    let inbox = Arc::clone(&inbox);
                    thread::spawn(move || inbox.push(n).unwrap())
                })
                .collect();
            let mut got_count = 0;
            while got_count < pushers_count {
                while inbox.pop().is_some() {
                    got_count += 1;
                }
                if got_count < pushers_count && inbox.prepare_sleep() {
                    // loom reports a deadlock if the bell never rings.
                    let mut rung = bell.rung.lock().unwrap();
                    while !*rung {
                        rung = bell.wake.wait(rung).unwrap();
                    }
                    *rung = false;
                    drop(rung);
                    inbox.woke();
                }
            }
            for pusher in pushers {
                pusher.join().unwrap();
            }
            assert!(rings.load(Ordering::Relaxed) <= pushers_count);
        });
    }

    #[test]
    fn loom_no_wake_up_is_lost_with_one_pusher() {
        explore(1);
    }

    #[test]
    fn loom_no_wake_up_is_lost_with_two_pushers() {
        explore(2);
    }
}
