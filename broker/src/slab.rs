//! Slots with generations: an index that outlived what it named is noticed, not reused.

/// A vector of slots that are reused; each reuse is a new generation.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u16,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Puts `value` into a free slot: its index and generation.
    pub(crate) fn insert(&mut self, value: T) -> (u32, u16) {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return (index, slot.generation);
        }
        let index =
            u32::try_from(self.slots.len()).expect("bounded by connections_max and sessions");
        self.slots.push(Slot {
            generation: 0,
            value: Some(value),
        });
        (index, 0)
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.retire(index)?;
        self.give_back(index);
        Some(value)
    }

    /// Takes a value out and keeps its slot from being used again until [`Slab::give_back`]: for what is named by its slot
    /// for so long that generations could come round.
    pub(crate) fn retire(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        Some(value)
    }

    /// A slot that was retired may be used again; to be said once.
    pub(crate) fn give_back(&mut self, index: u32) {
        self.free.push(index);
    }

    /// All slots are below this.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.value.as_mut()
    }

    /// The value at `index` if it is still of that generation.
    pub(crate) fn get_mut_if(&mut self, index: u32, generation: u16) -> Option<&mut T> {
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation == generation {
            slot.value.as_mut()
        } else {
            None
        }
    }

    pub(crate) fn generation(&self, index: u32) -> u16 {
        self.slots
            .get(index as usize)
            .map_or(0, |slot| slot.generation)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.value.is_some())
            .map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_is_of_another_generation() {
        let mut slab = Slab::default();
        let (first, generation) = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        assert_eq!(slab.remove(first), None);
        let (second, next) = slab.insert("b");
        assert_eq!(first, second);
        assert_ne!(generation, next);
        assert!(slab.get_mut_if(first, generation).is_none());
        assert_eq!(slab.get_mut_if(second, next), Some(&mut "b"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_retired_slot_is_not_used_before_it_is_given_back() {
        let mut slab = Slab::default();
        let (first, generation) = slab.insert("a");
        assert_eq!(slab.retire(first), Some("a"));
        assert_eq!(slab.retire(first), None);
        assert!(slab.get_mut_if(first, generation).is_none());
        for _ in 0..3 {
            let (other, _) = slab.insert("b");
            assert_ne!(other, first);
            slab.remove(other);
        }
        slab.give_back(first);
        let (again, next) = slab.insert("c");
        assert_eq!(again, first);
        assert_ne!(next, generation);
    }
}
