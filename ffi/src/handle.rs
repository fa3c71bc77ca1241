//! Handles: numbers that other languages hold instead of pointers.

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// Things by handle. A handle is an index and a generation, so that one that was closed, or was
/// never given out, is recognised; whoever uses a thing while it is closed still holds it alive.
/// All methods may be called from any thread.
#[derive(Debug)]
pub struct Table<T> {
    state: RwLock<State<T>>,
    limit_count: usize,
}

#[derive(Debug)]
struct State<T> {
    slots: Vec<Slot<T>>,
    /// Indexes of slots without a thing.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    thing: Option<Arc<T>>,
}

impl<T> Table<T> {
    /// An empty table for at most `limit_count` things at a time (and below 2^32).
    #[must_use]
    pub const fn new(limit_count: usize) -> Self {
        let state = State { slots: Vec::new(), free: Vec::new() };
        Self { state: RwLock::new(state), limit_count }
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<T>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a thing in. The handle is above 0; `None` if the table is full.
    pub fn insert(&self, thing: Arc<T>) -> Option<i64> {
        let mut state = self.write();
        let index = match state.free.pop() {
            Some(index) => index,
            None if state.slots.len() < self.limit_count => {
                state.slots.push(Slot { generation: 0, thing: None });
                state.slots.len() - 1
            }
            None => return None,
        };
        let slot = &mut state.slots[index];
        slot.generation = (slot.generation % 0x7fff_fffe) + 1;
        slot.thing = Some(thing);
        Some(i64::from(slot.generation) << 32 | i64::from(u32::try_from(index).ok()?))
    }

    /// The thing of a handle; `None` if it is closed or was never open.
    #[must_use]
    pub fn get(&self, handle: i64) -> Option<Arc<T>> {
        let (index, generation) = Self::parts(handle)?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let slot = state.slots.get(index).filter(|slot| slot.generation == generation)?;
        slot.thing.clone()
    }

    /// Takes a thing out: the handle is stale from now on.
    pub fn remove(&self, handle: i64) -> Option<Arc<T>> {
        self.remove_if(handle, |_| true)
    }

    /// Takes a thing out if it is what the caller thinks it is.
    pub fn remove_if(&self, handle: i64, is_meant: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        let (index, generation) = Self::parts(handle)?;
        let mut state = self.write();
        let slot = state.slots.get_mut(index).filter(|slot| slot.generation == generation)?;
        if !is_meant(slot.thing.as_ref()?) {
            return None;
        }
        let thing = slot.thing.take();
        state.free.push(index);
        thing
    }

    fn parts(handle: i64) -> Option<(usize, u32)> {
        let generation = u32::try_from(handle >> 32).ok()?;
        Some((usize::try_from(handle & 0xffff_ffff).ok()?, generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_handle_stays_stale_when_its_place_is_used_again() {
        let table = Table::new(2);
        let first = table.insert(Arc::new("first")).expect("room");
        assert_eq!(table.get(first).as_deref(), Some(&"first"));
        assert!(table.remove(first).is_some());
        assert!(table.remove(first).is_none(), "closed once");
        let second = table.insert(Arc::new("second")).expect("room");
        assert_ne!(first, second);
        assert!(table.get(first).is_none());
        for forged in [0, -1, i64::MIN, i64::MAX, 1, second + 1, second + (1 << 32)] {
            assert!(table.get(forged).is_none(), "{forged}");
        }
    }

    #[test]
    fn a_table_is_bounded_and_takes_out_only_what_is_meant() {
        let table = Table::new(2);
        let [one, _two] = [1, 2].map(|n| table.insert(Arc::new(n)).expect("room"));
        assert!(table.insert(Arc::new(3)).is_none(), "full");
        assert!(table.remove_if(one, |n| *n == 2).is_none(), "another thing was meant");
        assert_eq!(table.remove_if(one, |n| *n == 1).as_deref(), Some(&1));
        let again = table.insert(Arc::new(3)).expect("the place is free again");
        assert!(table.insert(Arc::new(4)).is_none(), "one place came free, not two");
        assert_eq!(table.get(again).as_deref(), Some(&3));
    }
}
