//! What of one connection waits for listeners: its worker waits for it, pollers wake the worker.

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What is received on one connection and not yet done with; shared by its worker and pollers.
#[derive(Debug, Default)]
pub struct ConnLoad {
    /// Bytes delivered or waiting for it.
    undelivered_bytes: AtomicUsize,
    /// The worker waits for a resume order.
    paused: AtomicBool,
}

impl ConnLoad {
    /// More waits for its listener.
    pub(super) fn add(&self, bytes: usize) {
        self.undelivered_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The worker asks to be resumed. False if nothing is undelivered: then nobody might.
    ///
    /// All changes of the flag stand in one order. If this one comes before that of whoever ends the
    /// last message, he sees the flag; else this one sees his subtraction.
    pub(crate) fn pause(&self) -> bool {
        self.paused.swap(true, Ordering::AcqRel);
        self.undelivered_bytes.load(Ordering::Relaxed) != 0
    }

    /// The worker does not wait any more.
    pub(crate) fn unpause(&self) {
        self.paused.swap(false, Ordering::AcqRel);
    }

    /// A listener ended; `relaxed`: the node has room again. Whether a resume order is due, which is
    /// so for one of those that end.
    pub(super) fn ended(&self, bytes: usize, relaxed: bool) -> bool {
        let left_bytes = self.undelivered_bytes.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        (relaxed || left_bytes == 0) && self.paused.swap(false, Ordering::AcqRel)
    }
}
