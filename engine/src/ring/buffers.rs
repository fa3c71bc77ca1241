//! Provided buffers: memory that the kernel chooses from when bytes arrive.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::setup::{RingError, when_memory_is_free};

/// The group of the receive buffers; each ring has one.
pub(super) const GROUP: u16 = 0;

/// Zeroed memory that frees itself.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn new(bytes: usize) -> Option<Self> {
        // The kernel wants the ring of entries on a page.
        let layout = Layout::from_size_align(bytes.max(1), 4096).ok()?;
        // SAFETY: the layout has a size above 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, layout })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once, here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// The receive buffers of one ring, and the ring of entries that offers them to the kernel.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Shared with those that are lent, so that a loan stays readable whatever happens.
    memory: Rc<Memory>,
    entries: Memory,
    count: u16,
    each_bytes: u32,
    tail: u16,
}

/// One filled buffer, taken from the kernel until it is given back.
#[derive(Debug)]
pub(super) struct Lent {
    memory: Rc<Memory>,
    id: u16,
    at: usize,
    length_bytes: usize,
}

impl Lent {
    /// What arrived.
    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: `at..at + length_bytes` lies inside `memory` (checked in `lend`), which lives as
        // long as this does. The kernel writes to a buffer only between being offered it and
        // completing a receive with its id; this one has completed, and is offered again only by
        // `give_back`, which takes the loan by value.
        unsafe {
            std::slice::from_raw_parts(self.memory.start.as_ptr().add(self.at), self.length_bytes)
        }
    }
}

impl Buffers {
    /// `count` buffers, a power of two up to 32,768, of `each_bytes`, registered with `ring`.
    pub(super) fn register(ring: &IoUring, count: u16, each_bytes: u32) -> Result<Self, RingError> {
        let no_memory = || RingError::System {
            doing: "allocating receive buffers",
            error: std::io::ErrorKind::OutOfMemory.into(),
        };
        let memory =
            Rc::new(Memory::new(usize::from(count) * each_bytes as usize).ok_or_else(no_memory)?);
        let entries =
            Memory::new(usize::from(count) * size_of::<BufRingEntry>()).ok_or_else(no_memory)?;
        let register = || {
            // SAFETY: `entries` is page-aligned, zeroed, holds `count` entries, and is not freed
            // before the ring is: `RingIo` drops its ring first.
            unsafe {
                ring.submitter().register_buf_ring_with_flags(
                    entries.start.as_ptr() as u64,
                    count,
                    GROUP,
                    0,
                )
            }
        };
        when_memory_is_free(register)
            .map_err(|error| RingError::System { doing: "registering receive buffers", error })?;
        let mut buffers = Self { memory, entries, count, each_bytes, tail: 0 };
        for id in 0..count {
            buffers.offer(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// A completed receive filled the first `length_bytes` of buffer `id`.
    pub(super) fn lend(&self, id: u16, length_bytes: usize) -> Lent {
        assert!(id < self.count && length_bytes <= self.each_bytes as usize, "kernel's own ids");
        let at = usize::from(id) * self.each_bytes as usize;
        Lent { memory: Rc::clone(&self.memory), id, at, length_bytes }
    }

    /// Offers a buffer to the kernel again.
    pub(super) fn give_back(&mut self, lent: Lent) {
        self.offer(lent.id);
        self.publish();
    }

    fn offer(&mut self, id: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        let address =
            self.memory.start.as_ptr() as u64 + u64::from(id) * u64::from(self.each_bytes);
        let first = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `place` < count, so the entry lies inside `entries`. The kernel reads an entry
        // only below the tail, which `publish` moves after the entry is written. The tail itself
        // lies in the reserved field of entry 0, which is not written here: address, length and id
        // are the fields beside it.
        unsafe {
            let entry = &mut *first.add(place);
            entry.set_addr(address);
            entry.set_len(self.each_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        let first = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the tail is a u16 inside entry 0, aligned for it, written by this thread only and
        // read by the kernel: hence the atomic store, with release so that entries come first.
        unsafe {
            let tail = BufRingEntry::tail(first).cast_mut().cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}
