//! All that is kept of an idle client: eight bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use codec::Version;

/// Shards at most.
pub(super) const SHARDS_MAX: usize = 1 << SHARD_BITS;
/// Classes of keep-alive at most, "none" included.
pub(super) const CLASSES_MAX: usize = 1 << CLASS_BITS;

/// The slot of a client that the broker had no room for.
pub(super) const NO_SLOT: u32 = (1 << SLOT_BITS) - 1;

const SLOT_BITS: u32 = 26;
const SHARD_BITS: u32 = 6;
const PACKET_ID_BITS: u32 = 16;
const STAGE_BITS: u32 = 2;
const VERSION_BITS: u32 = 2;
const CLASS_BITS: u32 = 4;

const SHARD_AT: u32 = SLOT_BITS;
const PACKET_ID_AT: u32 = SHARD_AT + SHARD_BITS;
const STAGE_AT: u32 = PACKET_ID_AT + PACKET_ID_BITS;
const VERSION_AT: u32 = STAGE_AT + STAGE_BITS;
const CLASS_AT: u32 = VERSION_AT + VERSION_BITS;
const PINGED_AT: u32 = CLASS_AT + CLASS_BITS;

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has no connection.
    Away,
    /// CONNECT is on its way.
    Connecting,
    /// CONNACK was here.
    Connected,
}

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State(u64);

impl State {
    fn bits(self, at: u32, bits: u32) -> u64 {
        (self.0 >> at) & ((1 << bits) - 1)
    }

    fn set(&mut self, at: u32, bits: u32, value: u64) {
        let mask = ((1 << bits) - 1) << at;
        self.0 = self.0 & !mask | (value << at) & mask;
    }

    /// The place of its connection in its shard.
    pub(super) fn slot(self) -> u32 {
        self.bits(0, SLOT_BITS) as u32
    }

    pub(super) fn shard(self) -> usize {
        self.bits(SHARD_AT, SHARD_BITS) as usize
    }

    /// The packet identifier that it used last.
    pub(super) fn packet_id(self) -> u16 {
        self.bits(PACKET_ID_AT, PACKET_ID_BITS) as u16
    }

    pub(super) fn stage(self) -> Stage {
        match self.bits(STAGE_AT, STAGE_BITS) {
            0 => Stage::Away,
            1 => Stage::Connecting,
            _ => Stage::Connected,
        }
    }

    pub(super) fn is_connected(self) -> bool {
        self.stage() == Stage::Connected
    }

    pub(super) fn version(self) -> Version {
        match self.bits(VERSION_AT, VERSION_BITS) {
            0 => Version::V311,
            1 => Version::V31,
            _ => Version::V5,
        }
    }

    /// Its class of keep-alive; 0 is none.
    pub(super) fn class(self) -> u8 {
        self.bits(CLASS_AT, CLASS_BITS) as u8
    }

    /// Whether a PINGREQ was not answered yet.
    pub(super) fn is_pinged(self) -> bool {
        self.bits(PINGED_AT, 1) != 0
    }

    pub(super) fn set_place(&mut self, shard: usize, slot: u32) {
        self.set(0, SLOT_BITS, slot.into());
        self.set(SHARD_AT, SHARD_BITS, shard as u64);
    }

    pub(super) fn set_packet_id(&mut self, id: u16) {
        self.set(PACKET_ID_AT, PACKET_ID_BITS, id.into());
    }

    pub(super) fn set_stage(&mut self, stage: Stage) {
        self.set(STAGE_AT, STAGE_BITS, stage as u64);
    }

    pub(super) fn set_version(&mut self, version: Version) {
        let number = match version {
            Version::V311 => 0,
            Version::V31 => 1,
            Version::V5 => 2,
        };
        self.set(VERSION_AT, VERSION_BITS, number);
    }

    pub(super) fn set_class(&mut self, class: u8) {
        self.set(CLASS_AT, CLASS_BITS, class.into());
    }

    pub(super) fn set_pinged(&mut self, pinged: bool) {
        self.set(PINGED_AT, 1, pinged.into());
    }
}

/// The states of all clients, by number. All swarms of a broker share it, as which of them owns a client is known only by
/// its identifier; each client's state is written by its own swarm alone.
#[derive(Debug, Clone)]
pub(super) struct Table(Arc<[AtomicU64]>);

impl Table {
    pub(super) fn new(clients: u32) -> Self {
        Self((0..clients).map(|_| AtomicU64::new(0)).collect())
    }

    /// How many clients there are.
    pub(super) fn len(&self) -> u32 {
        self.0.len() as u32 // made of a u32
    }

    /// The state of a client; one that does not exist is away.
    pub(super) fn get(&self, client: u32) -> State {
        let state = self.0.get(client as usize);
        State(state.map_or(0, |state| state.load(Ordering::Relaxed)))
    }

    pub(super) fn set(&self, client: u32, state: State) {
        if let Some(at) = self.0.get(client as usize) {
            at.store(state.0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_keeps_to_its_bits() {
        let mut state = State::default();
        assert_eq!(state.stage(), Stage::Away);
        state.set_place(SHARDS_MAX - 1, NO_SLOT);
        state.set_packet_id(u16::MAX);
        state.set_stage(Stage::Connected);
        state.set_version(Version::V5);
        state.set_class(CLASSES_MAX as u8 - 1);
        state.set_pinged(true);
        let full = state;
        state.set_place(5, 77);
        assert_eq!((state.shard(), state.slot()), (5, 77));
        assert_eq!(state.packet_id(), u16::MAX);
        state.set_place(SHARDS_MAX - 1, NO_SLOT);
        state.set_packet_id(9);
        assert_eq!((state.packet_id(), state.slot()), (9, NO_SLOT));
        state.set_packet_id(u16::MAX);
        assert!(state == full);
        state.set_pinged(false);
        state.set_stage(Stage::Connecting);
        state.set_class(0);
        assert_eq!(state.stage(), Stage::Connecting);
        assert_eq!(state.shard(), SHARDS_MAX - 1);
        for version in Version::ALL {
            state.set_version(version);
            assert_eq!(state.version(), version);
        }
        assert!(!state.is_pinged());
    }
}
