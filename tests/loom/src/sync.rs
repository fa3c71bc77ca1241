//! Loom's primitives in the place of the engine's `sync` module.

pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

pub(crate) mod thread {
    pub(crate) use loom::thread::Thread;

    /// A deadline that is in the future does not pass in a model, so who sleeps for want of a wake-up
    /// is found: loom reports a deadlock.
    pub(crate) fn park_timeout(_longest: std::time::Duration) {
        loom::thread::park();
    }
}

/// Stands in for the lock-free queue, so that loom explores the doorbell and not crossbeam.
#[derive(Debug)]
pub(crate) struct SegQueue<T>(Mutex<std::collections::VecDeque<T>>);

impl<T> SegQueue<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(std::collections::VecDeque::new()))
    }

    pub(crate) fn push(&self, value: T) {
        self.0.lock().expect("no panic holds it").push_back(value);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.0.lock().expect("no panic holds it").pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().expect("no panic holds it").is_empty()
    }
}
