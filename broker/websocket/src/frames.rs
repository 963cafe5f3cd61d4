//! Both directions of a connection that is open.

use crate::end::End;
use crate::input::Input;
use crate::mask::Masks;
use crate::writer::Writer;

/// Frames that come and frames that go.
#[derive(Debug)]
pub(crate) struct Frames {
    input: Input,
    pub(crate) writer: Writer,
}

impl Frames {
    /// The server's side.
    pub(crate) fn of_server() -> Self {
        Self {
            input: Input::new(true),
            writer: Writer::new(None),
        }
    }

    /// A client's side.
    pub(crate) fn of_client(masks: Masks) -> Self {
        Self {
            input: Input::new(false),
            writer: Writer::new(Some(masks)),
        }
    }

    /// Takes what came: its payload goes up, and what has to be answered is answered downwards. The end, if it is in it.
    pub(crate) fn receive(
        &mut self,
        wire: &mut [u8],
        up: &mut Vec<u8>,
        down: &mut Vec<u8>,
    ) -> Option<End> {
        let mut ping = None;
        let end = self.input.take(wire, up, &mut ping);
        // Of several pings the latest is answered (RFC 6455, 5.5.3): so no more is said than comes.
        if let Some(ping) = ping {
            self.writer.pong(ping.payload(), down);
        }
        match end {
            // The code is repeated (RFC 6455, 5.5.1).
            Some(End::Closed(code)) => self.writer.close(code, down),
            Some(End::Broken(violation)) => self.writer.close(Some(violation.close() as u16), down),
            _ => {}
        }
        end
    }
}
