//! Immutable, reference-counted message buffers from thread-cached pools.
//!
//! A pool shared by two threads turns a 30 ns copy into 150 to 600 ns, so each thread keeps a few
//! buffers of each size class and only exchanges half of them with the shared pool at a time.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Capacities of the pooled size classes, in bytes; what is larger is allocated for once.
const CLASS_BYTES: [usize; 4] = [1 << 10, 4 << 10, 16 << 10, 64 << 10];
/// Buffers a thread keeps of each class: at most 544 KiB, since an application may have hundreds of
/// threads that take messages. Of the large ones few: beside their copy an exchange costs nothing.
const CACHED_COUNTS: [usize; CLASS_BYTES.len()] = [32, 32, 8, 4];
/// Buffers the shared pool keeps of each class: at most 21 MiB in all.
const SHARED_COUNT: usize = 256;

/// Bytes of all buffers that there are, pooled or not. Buffers are made and freed seldom, so all
/// threads may count in one place.
static MADE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The memory of one buffer, counted as long as it is there.
#[derive(Debug)]
struct Room {
    vec: Vec<u8>,
    counted_bytes: usize,
}

impl Room {
    fn new(capacity_bytes: usize) -> Self {
        let mut room = Self { vec: Vec::with_capacity(capacity_bytes), counted_bytes: 0 };
        room.count();
        room
    }

    /// Counts what it has become: a vector grows.
    fn count(&mut self) {
        let bytes = self.vec.capacity();
        if bytes != self.counted_bytes {
            MADE_BYTES.fetch_add(bytes.wrapping_sub(self.counted_bytes), Ordering::Relaxed);
            self.counted_bytes = bytes;
        }
    }
}

impl Clone for Room {
    fn clone(&self) -> Self {
        let mut room = Self { vec: self.vec.clone(), counted_bytes: 0 };
        room.count();
        room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        MADE_BYTES.fetch_sub(self.counted_bytes, Ordering::Relaxed);
    }
}

static SHARED: [Mutex<Vec<Arc<Room>>>; CLASS_BYTES.len()] =
    [const { Mutex::new(Vec::new()) }; CLASS_BYTES.len()];

/// What each thread keeps, in bytes: written by that thread alone.
static KEPT: Mutex<Vec<Arc<AtomicUsize>>> = Mutex::new(Vec::new());

fn kept() -> std::sync::MutexGuard<'static, Vec<Arc<AtomicUsize>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The buffers of one thread.
struct Cache {
    rooms: [Vec<Arc<Room>>; CLASS_BYTES.len()],
    bytes: Arc<AtomicUsize>,
}

impl Cache {
    fn new() -> Self {
        let bytes = Arc::new(AtomicUsize::new(0));
        kept().push(Arc::clone(&bytes));
        Self { rooms: [const { Vec::new() }; CLASS_BYTES.len()], bytes }
    }

    /// Writes down that a class had `before` buffers and has `after`.
    fn note(&self, class: usize, before: usize, after: usize) {
        let bytes = self.bytes.load(Ordering::Relaxed) + after * CLASS_BYTES[class];
        self.bytes.store(bytes - before * CLASS_BYTES[class], Ordering::Relaxed);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        kept().retain(|other| !Arc::ptr_eq(other, &self.bytes));
    }
}

thread_local! {
    static CACHED: RefCell<Cache> = RefCell::new(Cache::new());
}

/// Bytes of the buffers of this process that somebody holds, and of those that lie idle in pools.
/// Read while others work, the two do not belong to one moment.
#[must_use]
pub fn used_and_idle_bytes() -> (usize, usize) {
    let kept_bytes: usize = kept().iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum();
    let shared_bytes: usize =
        (0..CLASS_BYTES.len()).map(|class| shared(class).len() * CLASS_BYTES[class]).sum();
    let idle_bytes = kept_bytes + shared_bytes;
    (MADE_BYTES.load(Ordering::Relaxed).saturating_sub(idle_bytes), idle_bytes)
}

fn class_of(length_bytes: usize) -> Option<usize> {
    CLASS_BYTES.iter().position(|capacity| length_bytes <= *capacity)
}

fn shared(class: usize) -> std::sync::MutexGuard<'static, Vec<Arc<Room>>> {
    SHARED[class].lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(class: usize) -> Option<Arc<Room>> {
    CACHED
        .try_with(|cached| {
            let mut cached = cached.borrow_mut();
            let mine = &mut cached.rooms[class];
            let before = mine.len();
            if mine.is_empty() {
                let mut pool = shared(class);
                let keep = pool.len().saturating_sub(CACHED_COUNTS[class] / 2);
                mine.extend(pool.drain(keep..));
            }
            let room = mine.pop();
            let after = mine.len();
            cached.note(class, before, after);
            room
        })
        .ok()
        .flatten()
}

fn put(class: usize, room: Arc<Room>) {
    // A thread that is being torn down has no cache any more: then the buffer is simply freed.
    let _ = CACHED.try_with(|cached| {
        let mut cached = cached.borrow_mut();
        let mine = &mut cached.rooms[class];
        let before = mine.len();
        mine.push(room);
        if mine.len() > CACHED_COUNTS[class] {
            let mut pool = shared(class);
            let room = SHARED_COUNT.saturating_sub(pool.len());
            let give = (CACHED_COUNTS[class] / 2).min(room);
            let keep = mine.len() - give;
            pool.extend(mine.drain(keep..));
            mine.truncate(CACHED_COUNTS[class]);
        }
        let after = mine.len();
        cached.note(class, before, after);
    });
}

/// A buffer that is being filled, owned by one thread.
#[derive(Debug)]
pub struct BufferMut {
    room: Arc<Room>,
}

impl BufferMut {
    /// An empty buffer with room for `capacity_bytes`; from the pool up to 64 KiB.
    #[must_use]
    pub fn with_capacity(capacity_bytes: usize) -> Self {
        let room = match class_of(capacity_bytes) {
            Some(class) => take(class).unwrap_or_else(|| Arc::new(Room::new(CLASS_BYTES[class]))),
            None => Arc::new(Room::new(capacity_bytes)),
        };
        Self { room }
    }

    /// The vector to fill. It may grow beyond its capacity; then it leaves its size class.
    pub fn vec(&mut self) -> &mut Vec<u8> {
        // Nobody else holds it: a pooled buffer is put back by its last owner only.
        &mut Arc::make_mut(&mut self.room).vec
    }

    /// Ends filling: from here the bytes never change.
    #[must_use]
    pub fn freeze(mut self) -> Buffer {
        if let Some(room) = Arc::get_mut(&mut self.room) {
            room.count();
        }
        Buffer { room: Some(self.room) }
    }
}

/// An immutable buffer; cloning counts a reference. The last owner gives it back to the pool.
#[derive(Clone, Debug)]
pub struct Buffer {
    room: Option<Arc<Room>>,
}

impl Buffer {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.room.as_ref().map_or(&[], |room| room.vec.as_slice())
    }

    /// A copy of `bytes` in a pooled buffer.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = BufferMut::with_capacity(bytes.len());
        buffer.vec().extend_from_slice(bytes);
        buffer.freeze()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(mut room) = self.room.take() else { return };
        // When two owners drop at once neither may see itself alone; the buffer is then freed
        // instead of pooled, which is rare and harmless.
        let Some(alone) = Arc::get_mut(&mut room) else { return };
        if let Some(class) = CLASS_BYTES.iter().position(|c| *c == alone.vec.capacity()) {
            alone.vec.clear();
            put(class, room);
        }
    }
}

/// A run of bytes of a message: a pooled buffer, or one that the application handed over.
#[derive(Clone, Debug)]
pub enum Segment {
    /// Pooled.
    Pooled(Buffer),
    /// Bytes `from..to` of a pooled buffer.
    Part {
        /// The whole buffer.
        buffer: Buffer,
        /// Where the part starts.
        from: usize,
        /// Where it ends.
        to: usize,
    },
    /// The application's own, without a copy.
    Shared(Bytes),
}

impl Segment {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Pooled(buffer) => buffer.as_slice(),
            Self::Part { buffer, from, to } => &buffer.as_slice()[*from..*to],
            Self::Shared(bytes) => bytes,
        }
    }
}

impl From<Buffer> for Segment {
    fn from(buffer: Buffer) -> Self {
        Self::Pooled(buffer)
    }
}

impl From<Bytes> for Segment {
    fn from(bytes: Bytes) -> Self {
        Self::Shared(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_reused_by_its_thread_and_comes_back_empty() {
        let first = Buffer::copy_of(&[7; 300]);
        let place = first.as_slice().as_ptr();
        let second_owner = first.clone();
        drop(first);
        assert_eq!(second_owner.as_slice(), &[7; 300], "an owner is left");
        drop(second_owner);
        let mut again = BufferMut::with_capacity(10);
        assert!(again.vec().is_empty());
        again.vec().push(1);
        assert_eq!(again.freeze().as_slice().as_ptr(), place);
    }

    #[test]
    fn a_thread_keeps_little_and_what_it_keeps_is_counted() {
        std::thread::spawn(|| {
            for class_bytes in CLASS_BYTES {
                let many: Vec<Buffer> =
                    (0..100).map(|_| Buffer::copy_of(&vec![1; class_bytes])).collect();
                assert!(MADE_BYTES.load(Ordering::Relaxed) >= 100 * class_bytes, "held");
                drop(many);
            }
            CACHED.with(|cached| {
                let cached = cached.borrow();
                let kept_bytes: usize =
                    (0..4).map(|class| cached.rooms[class].len() * CLASS_BYTES[class]).sum();
                assert_eq!(cached.bytes.load(Ordering::Relaxed), kept_bytes);
                assert!((1..=544 << 10).contains(&kept_bytes), "{kept_bytes}");
            });
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn large_buffers_are_not_kept() {
        let large = Buffer::copy_of(&vec![1; 1 << 20]);
        assert_eq!(large.as_slice().len(), 1 << 20);
        drop(large);
        CACHED.with(|cached| {
            for class in &cached.borrow().rooms {
                assert!(class.iter().all(|room| room.vec.capacity() <= 64 << 10));
            }
        });
    }

    /// Buffers that are made in one thread and dropped in another, as those of messages are, come back
    /// through the shared pool; none is given to two.
    #[test]
    fn buffers_change_threads_and_belong_to_one_at_a_time() {
        let rounds_count: u8 = if cfg!(miri) { 2 } else { 200 };
        let (give, take) = std::sync::mpsc::sync_channel::<(u8, Buffer, Buffer)>(4);
        let maker = std::thread::spawn(move || {
            for round in 0..rounds_count {
                // More than a thread keeps, so that half of them pass the shared pool.
                let own: Vec<Buffer> =
                    (0..=CACHED_COUNTS[0]).map(|_| Buffer::copy_of(&[round; 40])).collect();
                for buffer in &own {
                    assert_eq!(buffer.as_slice(), [round; 40]);
                    // Two owners that may drop it at once.
                    give.send((round, buffer.clone(), buffer.clone())).expect("it is taken");
                }
            }
        });
        for (round, one, other) in take {
            assert_eq!(one.as_slice(), [round; 40]);
            drop(one);
            // Mine now, or one that nobody holds; in no case that of the message.
            let mut mine = BufferMut::with_capacity(40);
            mine.vec().extend_from_slice(&[255; 40]);
            assert_eq!(other.as_slice(), [round; 40]);
        }
        maker.join().expect("no panic");
    }
}
