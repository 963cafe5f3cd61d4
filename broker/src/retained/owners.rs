//! How much of the retained store each client has set, so that none fills it alone. A client is known here by 32 bits of its
//! identifier's hash, and each retained message names it by a number of 24 bits: most that retain something retain little, and
//! what is kept of each should be less than that.

use hashbrown::HashTable;

/// Who has set a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner(u32);

impl Owner {
    /// No client: the node itself, or whoever publishes through the handle.
    pub(super) const NOBODY: Self = Self(0);
    /// Bits of a number.
    pub(super) const BITS: u32 = 24;
    const MAX: u32 = (1 << Self::BITS) - 1;

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits as u32 & Self::MAX)
    }

    pub(super) fn bits(self) -> u64 {
        self.0.into()
    }
}

/// What a client has set. While it has nothing: a number that is free, and in `client` the next one.
#[derive(Debug)]
struct Held {
    client: u32,
    messages: u32,
    bytes: u64,
}

/// The clients that have set retained messages.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By their number less one.
    held: Vec<Held>,
    /// The first number that is free; 0 is none.
    free: u32,
    /// Their numbers, by client.
    numbers: HashTable<u32>,
}

/// Spreads what is half of a hash over a whole one.
fn spread(client: u32) -> u64 {
    u64::from(client).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Owners {
    fn of(&self, owner: Owner) -> Option<&Held> {
        self.held.get((owner.0 as usize).checked_sub(1)?)
    }

    /// The number of a client that has set something.
    pub(super) fn find(&self, client: u32) -> Option<Owner> {
        let is_it = |number: &u32| {
            self.of(Owner(*number))
                .is_some_and(|held| held.client == client)
        };
        self.numbers.find(spread(client), is_it).copied().map(Owner)
    }

    /// Messages and bytes that an owner has set.
    pub(super) fn held(&self, owner: Owner) -> (u32, u64) {
        self.of(owner)
            .map_or((0, 0), |held| (held.messages, held.bytes))
    }

    /// A client has set a message of so many bytes: who owns it.
    pub(super) fn add(&mut self, client: u32, bytes: u64) -> Owner {
        let owner = self.find(client).unwrap_or_else(|| self.number(client));
        if let Some(held) = self.held.get_mut((owner.0 as usize).wrapping_sub(1)) {
            held.messages += 1;
            held.bytes += bytes;
        }
        owner
    }

    /// Gives a client its number: nobody's, if there are more clients than numbers.
    fn number(&mut self, client: u32) -> Owner {
        let number = match self.free {
            0 if self.held.len() >= Owner::MAX as usize => return Owner::NOBODY,
            0 => {
                self.held.push(Held {
                    client,
                    messages: 0,
                    bytes: 0,
                });
                self.held.len() as u32
            }
            free => {
                let held = &mut self.held[free as usize - 1];
                self.free = std::mem::replace(&mut held.client, client);
                free
            }
        };
        let held = &self.held;
        self.numbers
            .insert_unique(spread(client), number, |number| {
                spread(held[*number as usize - 1].client)
            });
        Owner(number)
    }

    /// A message of so many bytes of that owner is gone.
    pub(super) fn remove(&mut self, owner: Owner, bytes: u64) {
        let Some(held) = self.held.get_mut((owner.0 as usize).wrapping_sub(1)) else {
            return;
        };
        held.messages -= 1;
        held.bytes -= bytes;
        if held.messages > 0 {
            return;
        }
        let client = std::mem::replace(&mut held.client, self.free);
        self.free = owner.0;
        if let Ok(entry) = self
            .numbers
            .find_entry(spread(client), |number| *number == owner.0)
        {
            entry.remove();
        }
        if self.numbers.is_empty() {
            *self = Self::default(); // lets the memory go
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_has_set_adds_up_and_numbers_are_used_again() {
        let mut owners = Owners::default();
        let mut expected = std::collections::HashMap::new();
        for round in 0..3_u32 {
            for client in 0..1_000 {
                let first = owners.add(client, 10);
                assert_ne!(first, Owner::NOBODY);
                let bytes = 5 + u64::from(round);
                assert_eq!(owners.add(client, bytes), first);
                assert_eq!(owners.find(client), Some(first));
                assert_eq!(owners.held(first), (2, 10 + bytes));
                expected.insert(client, (first, bytes));
            }
            // Every second one lets go of all, the last in the last round too.
            for client in (0..1_000).filter(|client| round == 2 || client % 2 == 0) {
                let (owner, bytes) = expected[&client];
                owners.remove(owner, 10);
                assert_eq!(owners.held(owner), (1, bytes));
                owners.remove(owner, bytes);
                assert_eq!(owners.find(client), None);
            }
            for client in (0..1_000).filter(|client| round < 2 && client % 2 == 1) {
                let (owner, bytes) = expected[&client];
                assert_eq!(owners.held(owner), (2, 10 + bytes));
                owners.remove(owner, 10);
                owners.remove(owner, bytes);
            }
            assert!(owners.held.is_empty(), "round {round}");
        }
    }

    #[test]
    fn little_is_kept_of_a_client() {
        assert!(size_of::<Held>() <= 16);
        let mut owners = Owners::default();
        for client in 0..1_000 {
            owners.add(client, 1);
        }
        for client in 0..500 {
            owners.remove(owners.find(client).unwrap(), 1);
        }
        for client in 5_000..5_500 {
            owners.add(client, 1);
        }
        assert_eq!(owners.held.len(), 1_000, "free numbers are used first");
    }

    #[test]
    fn a_number_fits_its_bits() {
        let owner = Owner(Owner::MAX);
        assert_eq!(Owner::from_bits(owner.bits() | 1 << Owner::BITS), owner);
    }
}
