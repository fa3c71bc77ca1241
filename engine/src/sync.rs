//! The primitives that the engine's own synchronisation is made of, in one place: `tests/loom` builds
//! the same sources with those of loom, which tries every order of their steps.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};

pub(crate) use crossbeam::queue::SegQueue;

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

pub(crate) mod thread {
    pub(crate) use std::thread::{Thread, park_timeout};
}
