//! Connections whose client has said goodbye. The broker closes first, as it should [MQTT-3.14.4-1]; so the port is
//! free at once, and does not wait for a minute in the kernel. One that stays open is closed after a while.

use std::collections::{HashMap, VecDeque};
use std::io;

use broker::outbox::Outbox;
use broker::transport::{MemoryOutput, Transport};
use mio::{Interest, Registry, Token};

use super::bounds::{LEAVING_MAX, LEAVING_MS_MAX, LEAVING_READS_MAX};

/// Tokens from here on are of connections that leave.
pub(crate) const TOKENS_FROM: usize = 1 << 32;

#[derive(Debug)]
struct Leaver {
    transport: Transport,
    outbox: Box<Outbox>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    leavers: HashMap<u32, Leaver>,
    /// Serial numbers and deadlines, in order.
    deadlines: VecDeque<(u32, u32)>,
    next: u32,
}

impl Leaving {
    /// Whether nobody is leaving.
    pub(crate) fn is_empty(&self) -> bool {
        self.leavers.is_empty()
    }

    /// Takes over a connection whose last packet is in `outbox`.
    pub(crate) fn add(
        &mut self,
        transport: Transport,
        outbox: Box<Outbox>,
        registry: &Registry,
        memory: &mut MemoryOutput,
        now_ms: u32,
    ) {
        let serial = self.next;
        self.next = serial.wrapping_add(1);
        let mut leaver = Leaver { transport, outbox };
        let Some(source) = leaver.transport.source() else {
            return;
        };
        let token = Token(TOKENS_FROM + serial as usize);
        if registry
            .reregister(source, token, Interest::READABLE | Interest::WRITABLE)
            .is_err()
            || leaver.is_done(&mut [0; 512], memory)
        {
            return;
        }
        self.leavers.insert(serial, leaver);
        let deadline = now_ms.wrapping_add(LEAVING_MS_MAX);
        self.deadlines.push_back((serial, deadline));
    }

    /// The socket with this token says that something has changed.
    pub(crate) fn on_event(&mut self, token: Token, memory: &mut MemoryOutput) {
        let serial = (token.0 - TOKENS_FROM) as u32;
        let mut scratch = [0; 4_096];
        if let Some(leaver) = self.leavers.get_mut(&serial)
            && leaver.is_done(&mut scratch, memory)
        {
            self.leavers.remove(&serial);
        }
    }

    /// Closes what has waited for too long, and the oldest if there are too many.
    pub(crate) fn expire(&mut self, now_ms: u32) {
        while let Some(&(serial, deadline)) = self.deadlines.front() {
            let is_late = now_ms.wrapping_sub(deadline) < u32::MAX / 2;
            let is_here = self.leavers.contains_key(&serial);
            if is_here && !is_late && self.leavers.len() <= LEAVING_MAX {
                return;
            }
            self.leavers.remove(&serial);
            self.deadlines.pop_front();
        }
    }
}

impl Leaver {
    /// Writes what is left and throws away what comes; `true` when the broker has closed, or the connection is gone.
    fn is_done(&mut self, scratch: &mut [u8], memory: &mut MemoryOutput) -> bool {
        let written = self.outbox.write_to(&mut self.transport, memory);
        match written.and_then(|_| self.transport.flush(memory)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
        for _ in 0..LEAVING_READS_MAX {
            match self.transport.read(scratch) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        // It goes on talking after the goodbye: nobody listens.
        true
    }
}
