//! Packet identifiers of one client: which are in use and for what, so that an answer to another one is found out. They
//! are given out one after the other and answered mostly in that order, so all that is kept is one byte for each from
//! the oldest in use to the newest.

use std::collections::VecDeque;
use std::num::NonZeroU16;

/// There are so many packet identifiers: 1 to 65,535.
const IDS: u32 = 65_535;
/// Identifiers in use at once. Half of all, so that the next free one is near.
pub(crate) const IDS_IN_USE_MAX: u16 = 32_768;
/// From the oldest to the newest identifier; what is older and still in use is kept apart, so that a broker that never
/// answers one publish does not stop its publisher after 65,535 others.
const SPAN_MAX: usize = 49_152;
const _: () = assert!((IDS_IN_USE_MAX as usize) < SPAN_MAX && SPAN_MAX < IDS as usize);

/// What a packet identifier waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Nothing: it is free.
    Nothing,
    /// The end of a QoS 1 publish.
    PubAck,
    /// The first answer to a QoS 2 publish.
    PubRec,
    /// Its end.
    PubComp,
    /// The end of a SUBSCRIBE.
    SubAck,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PacketIds {
    /// The identifier of the first entry of `states`, less 1.
    first: u16,
    states: VecDeque<Awaited>,
    /// What fell out of `states` unanswered.
    stragglers: Vec<(u16, Awaited)>,
    in_use: u16,
    publishes: u16,
    /// Identifiers of QoS 2 messages that the broker has not released, oldest first.
    received: VecDeque<NonZeroU16>,
}

impl PacketIds {
    /// `next` is the identifier to give out first, less 1.
    pub(crate) fn new(next: u16) -> Self {
        Self {
            first: next,
            states: VecDeque::new(),
            stragglers: Vec::new(),
            in_use: 0,
            publishes: 0,
            received: VecDeque::new(),
        }
    }

    /// The identifier that would be given out next, less 1.
    pub(crate) fn next(&self) -> u16 {
        plus(self.first, self.states.len())
    }

    /// QoS 1 and 2 publishes that have not ended.
    pub(crate) fn publishes(&self) -> u16 {
        self.publishes
    }

    /// Whether nothing is in use and nothing remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_use == 0 && self.received.is_empty()
    }

    /// User memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.states.capacity()
            + self.stragglers.capacity() * size_of::<(u16, Awaited)>()
            + self.received.capacity() * size_of::<NonZeroU16>()
    }

    /// Gives out an identifier; `None` when [`IDS_IN_USE_MAX`] are in use.
    pub(crate) fn take(&mut self, awaited: Awaited) -> Option<NonZeroU16> {
        if self.in_use >= IDS_IN_USE_MAX {
            return None;
        }
        loop {
            if self.states.len() >= SPAN_MAX {
                self.retire_first();
            }
            let index = self.next();
            if self.stragglers.iter().any(|&(at, _)| at == index) {
                self.states.push_back(Awaited::Nothing);
                self.trim();
                continue;
            }
            self.states.push_back(awaited);
            self.in_use += 1;
            self.publishes += u16::from(awaited != Awaited::SubAck);
            return NonZeroU16::new(index + 1);
        }
    }

    /// An answer came: `id` goes on to wait for `next`. `false` when it had not waited for this answer.
    pub(crate) fn answer(&mut self, id: NonZeroU16, awaited: Awaited, next: Awaited) -> bool {
        let index = id.get() - 1;
        let offset = (u32::from(index) + IDS - u32::from(self.first)) % IDS;
        match self.states.get_mut(offset as usize) {
            Some(state) if *state == awaited => {
                *state = next;
                if next == Awaited::Nothing && offset == 0 {
                    self.trim();
                }
            }
            _ => {
                let straggler = (index, awaited);
                let Some(at) = self.stragglers.iter().position(|&one| one == straggler) else {
                    return false;
                };
                if next == Awaited::Nothing {
                    self.stragglers.swap_remove(at);
                } else {
                    self.stragglers[at].1 = next;
                }
            }
        }
        if next == Awaited::Nothing {
            self.in_use -= 1;
            self.publishes -= u16::from(awaited != Awaited::SubAck);
        }
        true
    }

    /// Takes back an identifier that [`take`](Self::take) gave last and that was not sent.
    pub(crate) fn untake(&mut self) {
        if let Some(awaited) = self.states.pop_back() {
            self.in_use -= 1;
            self.publishes -= u16::from(awaited != Awaited::SubAck);
        }
    }

    /// Notes a QoS 2 message from the broker: whether it is new, and not one that is repeated.
    pub(crate) fn receive(&mut self, id: NonZeroU16) -> bool {
        if self.received.contains(&id) {
            return false;
        }
        self.received.push_back(id);
        true
    }

    /// The broker releases a QoS 2 message: whether there was one.
    pub(crate) fn release(&mut self, id: NonZeroU16) -> bool {
        match self.received.iter().position(|&one| one == id) {
            Some(at) => self.received.remove(at).is_some(),
            None => false,
        }
    }

    /// Forgets what is in flight to the broker; what came from it is remembered until the session ends.
    pub(crate) fn forget_sent(&mut self) {
        let received = std::mem::take(&mut self.received);
        *self = Self {
            received,
            ..Self::new(self.next())
        };
    }

    /// Forgets what came from the broker.
    pub(crate) fn forget_received(&mut self) {
        self.received = VecDeque::new();
    }

    fn retire_first(&mut self) {
        if let Some(state) = self.states.pop_front() {
            if state != Awaited::Nothing {
                self.stragglers.push((self.first, state));
            }
            self.first = plus(self.first, 1);
            self.trim();
        }
    }

    fn trim(&mut self) {
        while self.states.front() == Some(&Awaited::Nothing) {
            self.states.pop_front();
            self.first = plus(self.first, 1);
        }
    }
}

/// Counts on within the identifiers, less 1.
fn plus(index: u16, count: usize) -> u16 {
    ((usize::from(index) + count) % IDS as usize) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> NonZeroU16 {
        NonZeroU16::new(id).unwrap()
    }

    #[test]
    fn identifiers_go_round_and_are_never_zero() {
        let mut ids = PacketIds::new(65_533);
        let given: Vec<u16> = (0..3)
            .map(|_| ids.take(Awaited::PubAck).unwrap().get())
            .collect();
        assert_eq!(given, [65_534, 65_535, 1]);
        for id_ in given {
            assert!(ids.answer(id(id_), Awaited::PubAck, Awaited::Nothing));
        }
        assert!(ids.is_empty());
        assert_eq!(ids.next(), 1);
    }

    #[test]
    fn an_answer_is_taken_once_and_only_for_what_was_asked() {
        let mut ids = PacketIds::new(0);
        let [first, second] = [Awaited::PubAck, Awaited::PubRec].map(|a| ids.take(a).unwrap());
        assert!(!ids.answer(id(3), Awaited::PubAck, Awaited::Nothing));
        assert!(!ids.answer(first, Awaited::PubRec, Awaited::PubComp));
        assert!(ids.answer(second, Awaited::PubRec, Awaited::PubComp));
        assert!(ids.answer(second, Awaited::PubComp, Awaited::Nothing));
        assert_eq!(ids.publishes(), 1);
        assert!(ids.answer(first, Awaited::PubAck, Awaited::Nothing));
        assert!(!ids.answer(first, Awaited::PubAck, Awaited::Nothing));
        assert!(ids.is_empty());
    }

    #[test]
    fn one_that_is_never_answered_stops_nothing_and_is_not_given_out_again() {
        let mut ids = PacketIds::new(0);
        let stuck = ids.take(Awaited::PubAck).unwrap();
        for _ in 0..200_000 {
            let next = ids.take(Awaited::PubAck).unwrap();
            assert_ne!(next, stuck);
            assert!(ids.answer(next, Awaited::PubAck, Awaited::Nothing));
        }
        assert_eq!(ids.publishes(), 1);
        assert!(ids.answer(stuck, Awaited::PubAck, Awaited::Nothing));
        assert!(ids.is_empty());
    }

    #[test]
    fn no_more_than_the_bound_are_in_use() {
        let mut ids = PacketIds::new(60_000);
        for _ in 0..IDS_IN_USE_MAX {
            ids.take(Awaited::PubAck).unwrap();
        }
        assert_eq!(ids.take(Awaited::PubAck), None);
        ids.untake();
        assert!(ids.take(Awaited::SubAck).is_some());
    }

    #[test]
    fn received_ones_outlive_what_was_sent() {
        let mut ids = PacketIds::new(0);
        assert!(ids.receive(id(9)));
        assert!(!ids.receive(id(9)));
        ids.take(Awaited::PubRec).unwrap();
        ids.forget_sent();
        assert_eq!((ids.publishes(), ids.next()), (0, 1));
        assert!(!ids.is_empty() && !ids.receive(id(9)));
        assert!(ids.release(id(9)) && !ids.release(id(9)));
        assert!(ids.is_empty());
    }
}
