//! Handles: numbers that other languages hold instead of pointers.

use std::sync::{Arc, PoisonError, RwLock};

/// Things by handle. A handle is an index and a generation, so that one that was closed, or was
/// never given out, is recognised; whoever uses a thing while it is closed still holds it alive.
/// All methods may be called from any thread.
#[derive(Debug)]
pub struct Table<T> {
    slots: RwLock<Vec<Slot<T>>>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    thing: Option<Arc<T>>,
}

/// Most things at a time.
const LIMIT_COUNT: usize = 1 << 16;

impl<T> Table<T> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: RwLock::new(Vec::new()) }
    }

    /// Puts a thing in. The handle is above 0; `None` if 65,536 things are open.
    pub fn insert(&self, thing: Arc<T>) -> Option<i64> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let free = slots.iter().position(|slot| slot.thing.is_none());
        let index = free.unwrap_or(slots.len());
        if index == LIMIT_COUNT {
            return None;
        }
        if index == slots.len() {
            slots.push(Slot { generation: 0, thing: None });
        }
        let slot = &mut slots[index];
        slot.generation = (slot.generation % 0x7fff_fffe) + 1;
        slot.thing = Some(thing);
        Some(i64::from(slot.generation) << 32 | i64::try_from(index).ok()?)
    }

    /// The thing of a handle; `None` if it is closed or was never open.
    #[must_use]
    pub fn get(&self, handle: i64) -> Option<Arc<T>> {
        let (index, generation) = Self::parts(handle)?;
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(index).filter(|slot| slot.generation == generation)?;
        slot.thing.clone()
    }

    /// Takes a thing out: the handle is stale from now on.
    pub fn remove(&self, handle: i64) -> Option<Arc<T>> {
        let (index, generation) = Self::parts(handle)?;
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.get_mut(index).filter(|slot| slot.generation == generation)?.thing.take()
    }

    fn parts(handle: i64) -> Option<(usize, u32)> {
        let generation = u32::try_from(handle >> 32).ok()?;
        Some((usize::try_from(handle & 0xffff_ffff).ok()?, generation))
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_handle_stays_stale_when_its_place_is_used_again() {
        let table = Table::new();
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
}
