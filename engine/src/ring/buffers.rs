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
    lent_count: usize,
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
        let buffers = Self::new(count, each_bytes).ok_or_else(|| RingError::System {
            doing: "allocating receive buffers",
            error: std::io::ErrorKind::OutOfMemory.into(),
        })?;
        let register = || {
            // SAFETY: `entries` is page-aligned, zeroed, holds `count` entries, and is not freed
            // before the ring is: `RingIo` drops its ring first.
            unsafe {
                ring.submitter().register_buf_ring_with_flags(
                    buffers.entries.start.as_ptr() as u64,
                    count,
                    GROUP,
                    0,
                )
            }
        };
        when_memory_is_free(register)
            .map_err(|error| RingError::System { doing: "registering receive buffers", error })?;
        Ok(buffers)
    }

    /// Buffers that are all offered.
    fn new(count: u16, each_bytes: u32) -> Option<Self> {
        let memory = Rc::new(Memory::new(usize::from(count) * each_bytes as usize)?);
        let entries = Memory::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let mut buffers = Self { memory, entries, count, each_bytes, tail: 0, lent_count: 0 };
        for id in 0..count {
            buffers.offer(id);
        }
        buffers.publish();
        Some(buffers)
    }

    /// A completed receive filled the first `length_bytes` of buffer `id`.
    pub(super) fn lend(&mut self, id: u16, length_bytes: usize) -> Lent {
        assert!(id < self.count && length_bytes <= self.each_bytes as usize, "kernel's own ids");
        self.lent_count += 1;
        let at = usize::from(id) * self.each_bytes as usize;
        Lent { memory: Rc::clone(&self.memory), id, at, length_bytes }
    }

    /// Offers a buffer to the kernel again.
    pub(super) fn give_back(&mut self, lent: Lent) {
        self.lent_count -= 1;
        self.offer(lent.id);
        self.publish();
    }

    /// Buffers that the kernel does not have.
    pub(super) const fn lent_count(&self) -> usize {
        self.lent_count
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

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u16 = 4;
    const EACH_BYTES: u32 = 16;

    /// The kernel's side of the ring, in a thread of its own: takes `takes_count` buffers in the order
    /// of the ring as they are offered, fills each with its number and says its id.
    fn kernel(entries: usize, takes_count: u16, ids: &std::sync::mpsc::Sender<u16>) {
        let first = std::ptr::with_exposed_provenance::<BufRingEntry>(entries);
        for head in 0..takes_count {
            // SAFETY: the test keeps the ring until this thread has ended; the tail is an aligned
            // u16 in it, and atomic at both sides.
            let tail = unsafe { &*BufRingEntry::tail(first).cast::<AtomicU16>() };
            while tail.load(Ordering::Acquire) == head {
                std::thread::yield_now();
            }
            // SAFETY: an entry below the tail, which was written before the tail moved beyond it.
            let (address, length, id) = unsafe {
                let entry = first.add(usize::from(head % COUNT)).cast::<u8>();
                let id = entry.add(12).cast::<u16>().read();
                (entry.cast::<u64>().read(), entry.add(8).cast::<u32>().read(), id)
            };
            assert_eq!(length, EACH_BYTES);
            let address = usize::try_from(address).expect("an address");
            let buffer = std::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: the buffer is offered, so nobody else looks at its `length` bytes.
            unsafe { buffer.write_bytes(head.to_le_bytes()[0], length as usize) };
            ids.send(id).expect("the test waits");
        }
    }

    #[test]
    fn buffers_go_round_between_kernel_and_loans() {
        let mut buffers = Buffers::new(COUNT, EACH_BYTES).expect("memory");
        let entries = buffers.entries.start.as_ptr().expose_provenance();
        let _ = buffers.memory.start.as_ptr().expose_provenance();
        let (ids, filled) = std::sync::mpsc::channel();
        let takes_count = 3 * COUNT;
        let thread = std::thread::spawn(move || kernel(entries, takes_count, &ids));
        let mut kept: Option<Lent> = None;
        for take in 0..takes_count {
            let id = filled.recv().expect("the kernel fills one");
            let lent = buffers.lend(id, 16);
            assert_eq!(lent.as_slice(), [take.to_le_bytes()[0]; 16]);
            // One loan is always out while others come.
            if let Some(before) = kept.replace(lent) {
                assert_eq!(before.as_slice(), [take.to_le_bytes()[0] - 1; 16]);
                buffers.give_back(before);
            }
        }
        thread.join().expect("no panic");
        drop(buffers);
        let last = kept.expect("one is out");
        assert_eq!(
            last.as_slice(),
            [takes_count.to_le_bytes()[0] - 1; 16],
            "readable without ring"
        );
    }
}
