//! The connections of a driver, by slot and generation.

use crate::io::ConnId;

/// Generations travel beside the slot in the 64 bits that a kernel gives back, and leave 8 of them.
pub(crate) const GENERATION_MASK: u32 = 0x00ff_ffff;

/// A table whose ids are recognised as stale once their entry is removed.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    pub(crate) fn insert(&mut self, entry: T) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let place = &mut self.slots[slot as usize];
        place.0 = (place.0 + 1) & GENERATION_MASK;
        place.1 = Some(entry);
        ConnId { slot, generation: place.0 }
    }

    pub(crate) fn get(&mut self, id: ConnId) -> Option<&mut T> {
        let (generation, entry) = self.slots.get_mut(id.slot as usize)?;
        entry.as_mut().filter(|_| *generation == id.generation)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<T> {
        self.get(id)?;
        self.free.push(id.slot);
        self.slots[id.slot as usize].1.take()
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn ids(&self) -> Vec<ConnId> {
        (0_u32..)
            .zip(&self.slots)
            .filter(|(_, (_, entry))| entry.is_some())
            .map(|(slot, (generation, _))| ConnId { slot, generation: *generation })
            .collect()
    }
}
