//! What the owner of connections in memory does in place of the kernel: bytes in, bytes out, hanging up, not reading.

use super::{Close, Worker};
use crate::connection::Connection;
use crate::time::Time;
use crate::transport::{Memory, MemoryOutput, Socket, Transport};

impl Worker {
    /// What was written to connections in memory since it was last taken.
    pub(crate) fn memory(&mut self) -> &mut MemoryOutput {
        &mut self.memory
    }

    /// Whether something waits to be flushed.
    pub(crate) fn has_dirty(&self) -> bool {
        self.connections.has_dirty()
    }

    /// When the next timer fires.
    pub(crate) fn next_timer(&self) -> Option<Time> {
        self.timers.next()
    }

    /// How many timers are set.
    pub(crate) fn timers(&self) -> usize {
        self.timers.len()
    }

    fn memory_at(&mut self, slot: u32, peer: u32) -> Option<&mut Memory> {
        match self.connections.slab.get_mut(slot)?.transport.socket_mut() {
            Socket::Memory(memory) if memory.peer == peer => Some(memory),
            _ => None,
        }
    }

    /// How many bytes of a client in memory are read now.
    pub(crate) fn reads(&mut self, slot: u32) -> usize {
        if self.is_closing(slot) {
            return self.room(slot);
        }
        // What its layers hold is handled before more is read.
        let waits = |connection: &mut Connection| {
            let held = connection
                .transport
                .layered()
                .is_some_and(|layered| layered.holds());
            connection.waits() || held
        };
        let waits = self.connections.slab.get_mut(slot).is_some_and(waits);
        if self.may_read() && !waits && !self.shakes_hands_later(slot) {
            self.room(slot)
        } else {
            0
        }
    }

    /// Reads bytes of a client in memory: false when it is not read from now.
    pub(crate) fn feed(&mut self, slot: u32, peer: u32, bytes: &[u8]) -> bool {
        self.reads(slot) > 0 && self.feed_anyway(slot, peer, bytes)
    }

    /// Reads bytes of a client in memory as a socket's are read, no more at once: how many.
    pub(crate) fn feed_some(&mut self, slot: u32, peer: u32, bytes: &[u8]) -> usize {
        let some = bytes.len().min(self.reads(slot));
        if some > 0 && self.feed_anyway(slot, peer, &bytes[..some]) {
            some
        } else {
            0
        }
    }

    /// Reads bytes of a client in memory although no others may be read: false when there is no such client.
    pub(crate) fn feed_anyway(&mut self, slot: u32, peer: u32, bytes: &[u8]) -> bool {
        if self.memory_at(slot, peer).is_none() {
            return false;
        }
        let transport = self
            .connections
            .slab
            .get(slot)
            .map(|connection| &connection.transport);
        if let Some(Transport::Layered(_)) = transport {
            let room = bytes.len().max(self.room(slot));
            self.feed_layered(slot, bytes, room);
        } else {
            self.counts.bytes_received += bytes.len() as u64;
            self.handle_bytes(slot, bytes);
        }
        true
    }

    /// Bytes that wait for a client in memory.
    pub(crate) fn unsent(&self, slot: u32, peer: u32) -> usize {
        let connection = self.connections.slab.get(slot);
        let is_it = |connection: &&Connection| {
            let memory = connection.transport.memory();
            memory.is_some_and(|memory| memory.peer == peer)
        };
        connection.filter(is_it).map_or(0, Connection::unsent_bytes)
    }

    /// The client's end is gone.
    pub(crate) fn hang_up(&mut self, slot: u32, peer: u32) {
        if self.memory_at(slot, peer).is_some() {
            self.close(slot, Close::Lost);
        }
    }

    /// The client takes no bytes any more, or takes them again.
    pub(crate) fn set_blocked(&mut self, slot: u32, peer: u32, blocked: bool) {
        if let Some(memory) = self.memory_at(slot, peer) {
            memory.blocked = blocked;
            if !blocked {
                self.writable(slot);
            }
        }
    }
}
