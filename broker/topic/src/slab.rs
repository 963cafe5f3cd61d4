//! A growing array whose freed places are used again. The index of an item stays valid until the
//! item is removed. Memory is given back only by [`Slab::clear`].

/// Items at 32-bit indices, half the size of a reference and an eighth of a `Box` with its heap
/// block.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T: Default> Slab<T> {
    /// An empty slab; allocates nothing.
    pub(crate) const fn new() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }

    /// The number of places, used and free: indices are below it.
    pub(crate) fn places(&self) -> usize {
        self.items.len()
    }

    /// The number of items.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Stores `item` and returns its index, which is never `u32::MAX`.
    ///
    /// # Panics
    ///
    /// If 2^32 - 1 items are stored.
    pub(crate) fn insert(&mut self, item: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.items[index as usize] = item;
            return index;
        }
        let index = u32::try_from(self.items.len())
            .ok()
            .filter(|&index| index != u32::MAX)
            .expect("fewer than 2^32 - 1 items: memory ends long before");
        self.items.push(item);
        index
    }

    /// Takes the item at `index`, which must be in use, and frees the place.
    pub(crate) fn remove(&mut self, index: u32) -> T {
        self.free.push(index);
        std::mem::take(&mut self.items[index as usize])
    }

    /// Drops everything and gives the memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.items[index as usize]
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.items[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_place_is_used_again() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert("a"), slab.insert("b"));
        assert_eq!((a, b, slab.places()), (0, 1, 2));
        assert_eq!(slab.remove(a), "a");
        assert_eq!(slab.insert("c"), a);
        assert_eq!((slab[a], slab[b], slab.places()), ("c", "b", 2));
    }
}
