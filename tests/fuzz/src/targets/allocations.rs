//! What a thread holds of the heap: so that an input is not believed when it asks for much.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD_BYTES: Cell<isize> = const { Cell::new(0) };
    static MOST_BYTES: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counted for each thread.
struct Counting;

fn note(bytes: isize) {
    // A thread that ends may free after its variables have gone.
    let _ = HELD_BYTES.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST_BYTES.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// A layout is never longer than `isize::MAX`.
fn size(layout: Layout) -> isize {
    layout.size().cast_signed()
}

// SAFETY: all is done by `System`; counting allocates nothing, since the variables are constants at
// first and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(size(layout));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(size(layout));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(-size(layout));
        // SAFETY: as above; what is given back came from `System`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // Both are there for a moment.
        note(new_bytes.cast_signed());
        note(-size(layout));
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, new_bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that this thread has allocated and not given back.
#[must_use]
pub fn held_bytes() -> isize {
    HELD_BYTES.get()
}

/// Runs `body`.
///
/// # Panics
/// It held more than `most_bytes` beside what was held before, at any time.
pub fn within<T>(most_bytes: usize, body: impl FnOnce() -> T) -> T {
    let before = HELD_BYTES.get();
    MOST_BYTES.set(before);
    let done = body();
    let more = MOST_BYTES.get() - before;
    assert!(more <= most_bytes.cast_signed(), "{more} bytes were held; {most_bytes} are to do");
    done
}
