//! What goes: frames.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::bounds::FRAME_OUT_BYTES_MAX;
use crate::mask::{Masks, apply_mask};

/// Writes frames behind each other.
#[derive(Debug)]
pub(crate) struct Writer {
    /// A client masks what it sends (RFC 6455, 5.1). Boxed: a server has none.
    masks: Option<Box<Masks>>,
    /// A close frame was written, behind which nothing comes (RFC 6455, 5.5.1).
    is_closed: bool,
}

impl Writer {
    pub(crate) fn new(masks: Option<Masks>) -> Self {
        Self {
            masks: masks.map(Box::new),
            is_closed: false,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Payload, as binary messages.
    pub(crate) fn data(&mut self, payload: &[u8], wire: &mut Vec<u8>) {
        if !self.is_closed {
            for part in payload.chunks(FRAME_OUT_BYTES_MAX) {
                self.frame(OpCode::Data(Data::Binary), part, wire);
            }
        }
    }

    /// The answer to a ping.
    pub(crate) fn pong(&mut self, payload: &[u8], wire: &mut Vec<u8>) {
        if !self.is_closed {
            self.frame(OpCode::Control(Control::Pong), payload, wire);
        }
    }

    /// The last frame.
    pub(crate) fn close(&mut self, code: Option<u16>, wire: &mut Vec<u8>) {
        if !self.is_closed {
            let code = code.map(u16::to_be_bytes);
            let payload = code.as_ref().map_or(&[][..], |code| &code[..]);
            self.frame(OpCode::Control(Control::Close), payload, wire);
            self.is_closed = true;
        }
    }

    fn frame(&mut self, opcode: OpCode, payload: &[u8], wire: &mut Vec<u8>) {
        let header = FrameHeader {
            opcode,
            mask: self.masks.as_mut().map(|masks| masks.next()),
            ..FrameHeader::default()
        };
        let length = payload.len() as u64;
        wire.reserve(header.len(length) + payload.len());
        // It fails only where its writer does, and memory does not.
        let result = header.format(length, wire);
        debug_assert!(result.is_ok());
        let at = wire.len();
        wire.extend_from_slice(payload);
        if let Some(mask) = header.mask {
            apply_mask(&mut wire[at..], mask);
        }
    }
}
