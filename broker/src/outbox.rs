//! Bytes that wait for one client's socket. Small frames are copied one behind the other, so that a turn's worth of
//! them leaves in one `write`; large payloads are shared by reference with every other receiver.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use crate::limits::WRITE_SLICES_MAX;
use crate::message::Message;
use crate::transport::{MemoryOutput, Transport};

/// An outbox. It holds no more than its user lets it: ask [`Outbox::bytes`] before adding what may be left out.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Segments in front of `tail`; empty but for large payloads.
    front: VecDeque<Segment>,
    /// Copied frames: what is added goes here.
    tail: Vec<u8>,
    /// Bytes of the first segment (or of `tail`, when there is none) that were written already.
    written: usize,
    /// Bytes that wait.
    bytes: usize,
    /// Packets that were added since it was last asked.
    packets: u32,
    /// Bytes that were counted when it was last asked.
    counted: usize,
}

#[derive(Debug)]
enum Segment {
    Copied(Vec<u8>),
    Payload(Message),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Payload(message) => message.payload(),
        }
    }
}

impl Outbox {
    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many more bytes wait than when this was last asked (fewer, where it wraps around).
    pub(crate) fn more(&mut self) -> u64 {
        let more = (self.bytes as u64).wrapping_sub(self.counted as u64);
        self.counted = self.bytes;
        more
    }

    /// Packets that were added since this was last asked.
    pub(crate) fn more_packets(&mut self) -> u64 {
        std::mem::take(&mut self.packets).into()
    }

    /// Bytes that waited when it was last asked for more.
    pub(crate) fn counted(&self) -> u64 {
        self.counted as u64
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Memory that it keeps while empty.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.tail.capacity()
    }

    /// Appends a frame by copying it: its offset, to patch it with [`Outbox::patch`] before anything else happens.
    pub fn push(&mut self, frame: &[u8]) -> usize {
        let at = self.tail.len();
        self.tail.extend_from_slice(frame);
        self.bytes += frame.len();
        self.packets += 1;
        at
    }

    /// Appends what `encode` writes; what it wrote is taken back if it fails.
    ///
    /// # Errors
    /// What `encode` returns.
    pub fn encode<T, E>(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.tail.len();
        let result = encode(&mut self.tail);
        if result.is_err() {
            self.tail.truncate(before);
        }
        self.bytes += self.tail.len() - before;
        self.packets += u32::from(result.is_ok());
        result
    }

    /// Replaces two bytes of the frame that was pushed last.
    pub fn patch(&mut self, at: usize, value: u16) {
        if let Some(place) = self.tail.get_mut(at..at + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Appends a message's payload without copying it.
    pub fn push_payload(&mut self, message: Message) {
        self.bytes += message.payload().len();
        if !self.tail.is_empty() {
            self.front
                .push_back(Segment::Copied(std::mem::take(&mut self.tail)));
        }
        self.front.push_back(Segment::Payload(message));
    }

    /// A copy of what waits.
    pub(crate) fn unwritten(&self) -> Vec<u8> {
        let all = self.front.iter().map(Segment::bytes);
        let all: Vec<&[u8]> = all.chain(std::iter::once(&self.tail[..])).collect();
        all.concat().split_off(self.written)
    }

    /// Writes until nothing is left or the other side takes no more.
    ///
    /// # Errors
    /// `WouldBlock` when bytes are left; anything else means that the connection is gone.
    pub fn write_to(
        &mut self,
        transport: &mut Transport,
        memory: &mut MemoryOutput,
    ) -> io::Result<usize> {
        let mut total = 0;
        while self.bytes > 0 {
            let result = if self.front.is_empty() {
                transport.write(&[IoSlice::new(&self.tail[self.written..])], memory)
            } else {
                let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
                let mut used = 0;
                let mut skip = self.written;
                let segments = self.front.iter().map(Segment::bytes);
                for bytes in segments
                    .chain(std::iter::once(&self.tail[..]))
                    .take(WRITE_SLICES_MAX)
                {
                    slices[used] = IoSlice::new(&bytes[skip..]);
                    skip = 0;
                    used += 1;
                }
                transport.write(&slices[..used], memory)
            };
            let written = match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && total > 0 => break,
                Err(error) => return Err(error),
            };
            total += written;
            self.advance(written);
        }
        Ok(total)
    }

    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        self.written += written;
        while let Some(first) = self.front.front() {
            let len = first.bytes().len();
            if self.written < len {
                return;
            }
            self.written -= len;
            self.front.pop_front();
        }
        if self.bytes == 0 {
            self.tail.clear();
            self.written = 0;
        } else if self.written > self.tail.len() / 2 && self.written > 65_536 {
            // A slow reader's outbox must not keep what it has read already.
            self.tail.drain(..self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageParts;
    use crate::time::Time;
    use codec::Qos;

    fn message(payload: &[u8]) -> Message {
        Message::new(&MessageParts {
            topic: "t",
            payload,
            qos: Qos::AtMostOnce,
            retain: false,
            properties: &[],
            expires_at: None,
            arrived_at: Time(0),
        })
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        let mut outbox = Outbox::default();
        let mut memory = MemoryOutput::default();
        let mut transport = Transport::from(crate::transport::Memory {
            peer: 7,
            blocked: true,
        });
        outbox.push(b"ab");
        outbox.push_payload(message(b"large"));
        let at = outbox.push(b"c..");
        outbox.patch(at + 1, 0x3132);
        assert_eq!(outbox.bytes(), 10);
        let error = outbox.write_to(&mut transport, &mut memory).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        transport = Transport::from(crate::transport::Memory {
            peer: 7,
            blocked: false,
        });
        assert_eq!(outbox.write_to(&mut transport, &mut memory).unwrap(), 10);
        assert_eq!(memory.bytes, b"ablargec12");
        assert!(outbox.is_empty());
    }

    #[test]
    fn partial_writes_continue_where_they_stopped() {
        let mut outbox = Outbox::default();
        outbox.push(b"abc");
        outbox.push_payload(message(b"defg"));
        outbox.push(b"hij");
        outbox.advance(1);
        outbox.advance(4);
        outbox.advance(3);
        assert_eq!(outbox.bytes(), 2);
        let mut memory = MemoryOutput::default();
        let mut transport = Transport::from(crate::transport::Memory::default());
        outbox.write_to(&mut transport, &mut memory).unwrap();
        assert_eq!(memory.bytes, b"ij");
    }

    #[test]
    fn a_frame_that_cannot_be_encoded_leaves_nothing_behind() {
        let mut outbox = Outbox::default();
        outbox.push(b"a");
        let result: Result<(), ()> = outbox.encode(|out| {
            out.push(1);
            Err(())
        });
        assert_eq!(result, Err(()));
        assert_eq!(outbox.bytes(), 1);
    }
}
