//! What clients have asked and the broker not answered: packet identifiers in use. Kept only for clients that wait.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::num::NonZeroU16;

/// Empty lists kept for the next client that asks something.
const SPARE_MAX: usize = 1_024;

/// Room for this many clients is kept when none waits.
const CLIENTS_KEPT: usize = 16_384;

/// What is due next for a packet identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    SubAck,
    PubAck,
    PubRec,
    PubComp,
}

#[derive(Debug)]
struct Flight {
    /// In the order of asking.
    open: VecDeque<(NonZeroU16, Due)>,
    /// How many of them are SUBSCRIBEs.
    subscribes: u16,
    /// All identifiers from the last one used up to this one are free.
    barrier: NonZeroU16,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flights {
    clients: HashMap<u32, Flight, ahash::RandomState>,
    spare: Vec<VecDeque<(NonZeroU16, Due)>>,
}

impl Flights {
    /// The next identifier of a client that is not in use, after the `last` one.
    ///
    /// # Errors
    /// All are in use.
    pub(super) fn next_id(&mut self, client: u32, last: u16) -> io::Result<NonZeroU16> {
        let after = |last: u16| NonZeroU16::new(last.wrapping_add(1)).unwrap_or(NonZeroU16::MIN);
        let Some(flight) = self.clients.get_mut(&client) else {
            return Ok(after(last));
        };
        if flight.open.len() >= usize::from(u16::MAX) {
            return Err(io::Error::other(
                "65535 packets of one client wait for an answer: there is no identifier for another",
            ));
        }
        let mut id = after(last);
        // Identifiers are given in order, so the search is rare.
        if id == flight.barrier {
            while flight.open.iter().any(|(used, _)| *used == id) {
                id = after(id.get());
            }
            let used = flight.open.iter().map(|(used, _)| *used);
            let next = used.min_by_key(|used| used.get().wrapping_sub(id.get()));
            flight.barrier = next.unwrap_or(flight.barrier);
        }
        Ok(id)
    }

    /// Notes that `id`, which [`Flights::next_id`] gave, is used.
    pub(super) fn begin(&mut self, client: u32, id: NonZeroU16, due: Due) {
        let flight = self.clients.entry(client).or_insert_with(|| Flight {
            open: self.spare.pop().unwrap_or_default(),
            subscribes: 0,
            barrier: id,
        });
        flight.subscribes += u16::from(due == Due::SubAck);
        flight.open.push_back((id, due));
    }

    /// An answer of this kind came: whether it was due. What comes after it is `then`, or nothing.
    pub(super) fn answer(
        &mut self,
        client: u32,
        id: NonZeroU16,
        due: Due,
        then: Option<Due>,
    ) -> bool {
        let Some(flight) = self.clients.get_mut(&client) else {
            return false;
        };
        // Brokers answer in order, mostly.
        let Some(at) = flight.open.iter().position(|open| *open == (id, due)) else {
            return false;
        };
        match then {
            Some(then) => flight.open[at].1 = then,
            None => {
                flight.open.remove(at);
                flight.subscribes -= u16::from(due == Due::SubAck);
                if flight.open.is_empty() {
                    self.forget(client);
                }
            }
        }
        true
    }

    /// Publishes of a client that have no final answer.
    pub(super) fn publishes(&self, client: u32) -> usize {
        let flight = self.clients.get(&client);
        flight.map_or(0, |flight| {
            flight.open.len() - usize::from(flight.subscribes)
        })
    }

    /// The client waits for nothing any more.
    pub(super) fn forget(&mut self, client: u32) {
        let Some(mut flight) = self.clients.remove(&client) else {
            return;
        };
        if self.spare.len() < SPARE_MAX {
            flight.open.clear();
            flight.open.shrink_to(8);
            self.spare.push(flight.open);
        }
        if self.clients.is_empty() && self.clients.capacity() > 2 * CLIENTS_KEPT {
            self.clients.shrink_to(CLIENTS_KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> NonZeroU16 {
        NonZeroU16::new(id).unwrap()
    }

    #[test]
    fn identifiers_go_round_and_pass_by_those_in_use() {
        let mut flights = Flights::default();
        for used in [1, 2, 4] {
            flights.begin(7, id(used), Due::PubAck);
        }
        let mut last = u16::MAX - 1;
        let mut given = Vec::new();
        for _ in 0..4 {
            let next = flights.next_id(7, last).unwrap();
            flights.begin(7, next, Due::PubAck);
            last = next.get();
            given.push(last);
        }
        assert_eq!(given, [u16::MAX, 3, 5, 6]);
        assert_eq!(flights.next_id(8, u16::MAX).unwrap(), id(1));
    }

    #[test]
    fn a_client_with_every_identifier_in_use_is_told_so() {
        let mut flights = Flights::default();
        let mut last = 0;
        for _ in 0..u16::MAX {
            let next = flights.next_id(1, last).unwrap();
            flights.begin(1, next, Due::PubAck);
            last = next.get();
        }
        assert_eq!(last, u16::MAX);
        flights.next_id(1, last).unwrap_err();
        assert!(flights.answer(1, id(300), Due::PubAck, None));
        assert_eq!(flights.next_id(1, last).unwrap(), id(300));
    }

    #[test]
    fn only_what_is_due_is_an_answer() {
        let mut flights = Flights::default();
        flights.begin(1, id(5), Due::PubRec);
        flights.begin(1, id(6), Due::SubAck);
        assert_eq!(flights.publishes(1), 1);
        assert!(!flights.answer(1, id(5), Due::PubAck, None));
        assert!(!flights.answer(1, id(5), Due::PubComp, None));
        assert!(flights.answer(1, id(5), Due::PubRec, Some(Due::PubComp)));
        assert!(!flights.answer(1, id(5), Due::PubRec, None));
        assert!(flights.answer(1, id(5), Due::PubComp, None));
        assert!(!flights.answer(1, id(5), Due::PubComp, None));
        assert!(flights.answer(1, id(6), Due::SubAck, None));
        assert_eq!(flights.publishes(1), 0);
        assert!(flights.clients.is_empty());
    }
}
