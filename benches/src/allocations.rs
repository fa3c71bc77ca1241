//! The allocator of the benchmark: mimalloc, as in every artefact, and a count for each thread.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use mimalloc::MiMalloc;

/// Threads of one process that are counted; what later ones allocate is not.
const SLOTS_COUNT: usize = 4096;

/// What one thread has allocated; only that thread writes it.
#[repr(align(64))]
struct Slot {
    thread: AtomicI32,
    count: AtomicU64,
    bytes: AtomicU64,
}

static SLOTS: [Slot; SLOTS_COUNT] = [const {
    Slot { thread: AtomicI32::new(0), count: AtomicU64::new(0), bytes: AtomicU64::new(0) }
}; SLOTS_COUNT];
static TAKEN_COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: Cell<Option<usize>> = const { Cell::new(None) };
}

fn count(bytes: usize) {
    let mine = MINE.get().unwrap_or_else(|| {
        let taken = TAKEN_COUNT.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = SLOTS.get(taken) {
            slot.thread.store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
        }
        MINE.set(Some(taken));
        taken
    });
    if let Some(slot) = SLOTS.get(mine) {
        slot.count.store(slot.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        slot.bytes.store(slot.bytes.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
    }
}

/// Allocations and their bytes so far, by thread id.
pub(crate) fn by_thread() -> BTreeMap<i32, (u64, u64)> {
    let taken = TAKEN_COUNT.load(Ordering::Relaxed).min(SLOTS_COUNT);
    let read = |slot: &Slot| {
        let counted = (slot.count.load(Ordering::Relaxed), slot.bytes.load(Ordering::Relaxed));
        (slot.thread.load(Ordering::Relaxed), counted)
    };
    // A thread id may come again: the later thread's slot stands behind.
    SLOTS[..taken].iter().map(read).collect()
}

/// Counts, and asks mimalloc.
pub(crate) struct Counting;

// SAFETY: every call goes to mimalloc unchanged, which keeps the contract; counting allocates nothing
// and does not unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from mimalloc with this layout, as the caller promises.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: the pointer came from mimalloc with this layout, as the caller promises.
        unsafe { MiMalloc.realloc(pointer, layout, new_size) }
    }
}
