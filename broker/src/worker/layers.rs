//! Connections with layers between their socket and MQTT: what differs for them. Beyond that they are
//! as others: what comes out of the layers is handled as if it had come out of a socket.

use std::io;

use super::{Close, Worker};
use crate::connection::Connection;
use crate::limits::{HANDSHAKES_PER_TURN_MAX, LAYER_UNSENT_BYTES_MAX};
use crate::transport::{LayerError, ReadError, Took, Transport};

impl Worker {
    /// Whether a connection is in its handshake and there were enough of those in this turn: each may cost a signature, and
    /// clients that are in wait for their messages meanwhile.
    #[inline]
    pub(super) fn shakes_hands_later(&mut self, slot: u32) -> bool {
        if self.handshakes < HANDSHAKES_PER_TURN_MAX {
            return false;
        }
        let shakes = |connection: &Connection| match &connection.transport {
            Transport::Plain { .. } => false,
            Transport::Layered(layered) => !layered.is_open(),
        };
        let later = self.connections.slab.get(slot).is_some_and(shakes);
        if later {
            self.connections.list(slot);
        }
        later
    }

    /// What a connection's layers brought along from another worker is gone on with: no edge will tell of it.
    pub(super) fn goes_on_held(&mut self, slot: u32) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        let Some(layered) = connection.transport.layered() else {
            return;
        };
        if layered.holds() {
            connection.set_readable(true);
            self.connections.list(slot);
        }
        self.answers(slot);
    }

    /// [`Worker::readable`] of a connection with layers.
    #[cold]
    pub(super) fn readable_layered(&mut self, slot: u32, buffer: &mut [u8]) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        let closing = connection.is_closing();
        let Some(layered) = connection.transport.layered() else {
            return;
        };
        if closing {
            // Nobody listens any more: the bytes are only to be gone.
            let result = layered.discard(buffer);
            return self.read_on(slot, result, buffer);
        }
        let before = layered.before_step();
        let mut plain = std::mem::take(&mut self.plain);
        let result = layered.read_some(buffer, &mut plain);
        self.handshakes += layered.steps_since(before);
        let result = match result {
            Ok(took) => Ok(took),
            Err(ReadError::Layer(error)) => Err(Some(error)),
            Err(ReadError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.set_readable(false);
                self.plain = plain;
                return;
            }
            Err(ReadError::Socket(_)) => Err(None),
        };
        match result {
            Ok(took) => self.took(slot, took, &plain),
            Err(error) => self.layer_failed(slot, error, &plain),
        }
        plain.clear();
        self.plain = plain;
    }

    /// Reads bytes of a client in memory through its layers, as [`Worker::readable_layered`] reads a socket's. `room`: no more
    /// than that comes out at once.
    pub(super) fn feed_layered(&mut self, slot: u32, bytes: &[u8], room: usize) {
        self.counts.bytes_received += bytes.len() as u64;
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        if connection.is_closing() {
            return self.handle_bytes(slot, bytes);
        }
        let Some(layered) = connection.transport.layered() else {
            return;
        };
        let before = layered.before_step();
        let mut plain = std::mem::take(&mut self.plain);
        let result = layered.take(&mut bytes.to_vec(), &mut plain, room);
        self.handshakes += layered.steps_since(before);
        let took = Took {
            wire: 0, // counted above
            more: layered.holds(),
            ended: layered.holds() && !layered.has_held() && plain.is_empty(),
        };
        match result {
            Ok(()) => self.took(slot, took, &plain),
            Err(error) => self.layer_failed(slot, Some(error), &plain),
        }
        plain.clear();
        self.plain = plain;
    }

    /// Bytes came through a connection's layers.
    fn took(&mut self, slot: u32, took: Took, plain: &[u8]) {
        self.counts.bytes_received += took.wire as u64;
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        if took.ended {
            // A layer's part of the goodbye, as far as it goes.
            let _ = connection.transport.flush(&mut self.memory);
            return self.close(slot, Close::Lost);
        }
        let more = took.more || connection.is_ended();
        connection.set_readable(more);
        if !plain.is_empty() {
            self.handle_bytes(slot, plain);
        }
        if more {
            self.connections.list(slot);
        }
        self.answers(slot);
    }

    /// What a connection's layers answer goes out with this turn's flush. One that does not take it is not read from.
    fn answers(&mut self, slot: u32) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        let unsent = connection.transport.unsent();
        if unsent > LAYER_UNSENT_BYTES_MAX {
            connection.set_owes_reading(true);
        }
        if unsent > 0 {
            self.connections.mark(slot);
        }
    }

    /// A layer takes no more of a connection, or its socket has failed: what was whole before counts, and the layer's last
    /// word goes out.
    fn layer_failed(&mut self, slot: u32, error: Option<LayerError>, plain: &[u8]) {
        if !plain.is_empty() {
            self.handle_bytes(slot, plain);
        }
        match error {
            Some(error) => self.close(slot, Close::Layer(error)),
            None => self.close(slot, Close::Lost),
        }
    }

    /// Tells the other side of a connection that nothing more comes, as far as its socket takes it; the rest follows.
    pub(super) fn finish(&mut self, slot: u32) {
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        connection.transport.finish(&mut self.memory);
        if connection.transport.unsent() > 0 {
            self.asks_for_room(slot);
        }
    }
}
