//! The server's side of a connection.

use std::sync::Arc;

use crate::end::{Close, End};
use crate::frames::Frames;
use crate::request::{Request, Rules, Step};

/// The server's side of a connection: at first an HTTP request, then frames. An idle one that is open owns nothing but this
/// struct.
#[derive(Debug)]
pub struct Server {
    phase: Phase,
    frames: Frames,
}

#[derive(Debug)]
enum Phase {
    /// What has come of the request.
    Request(Box<Request>),
    Open,
    Ended(Box<End>),
}

impl Server {
    /// A connection of which nothing has come yet.
    #[must_use]
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            phase: Phase::Request(Box::new(Request::new(rules))),
            frames: Frames::of_server(),
        }
    }

    /// Whether the client has been let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Takes all of `wire` as it came; its memory may be used to work in. Payload goes to `up`; what has to be answered to
    /// `down`. Behind the [end](Server::end) everything is thrown away.
    pub fn receive(&mut self, wire: &mut [u8], up: &mut Vec<u8>, down: &mut Vec<u8>) {
        let mut rest = wire;
        if let Phase::Request(request) = &mut self.phase {
            match request.take(rest) {
                Step::More => return,
                Step::Upgrade { taken, response } => {
                    self.phase = Phase::Open;
                    down.extend_from_slice(&response);
                    rest = &mut rest[taken..];
                }
                Step::Answer { end, response } => {
                    self.phase = Phase::Ended(Box::new(end));
                    down.extend_from_slice(&response);
                }
            }
        }
        if self.is_open()
            && let Some(end) = self.frames.receive(rest, up, down)
        {
            self.phase = Phase::Ended(Box::new(end));
        }
    }

    /// Why nothing more comes, once nothing does.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match &self.phase {
            Phase::Ended(end) => Some(**end),
            _ => None,
        }
    }

    /// Appends the frames for `plain` to `wire`, once it is [open](Server::is_open). Behind a close frame nothing is sent any
    /// more: false.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> bool {
        self.frames.writer.data(plain, wire);
        !self.frames.writer.is_closed()
    }

    /// Says that nothing more will come, if there was a beginning and this was not said before.
    pub fn close(&mut self, code: Close, wire: &mut Vec<u8>) {
        if self.is_open() {
            self.frames.writer.close(Some(code as u16), wire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Server>() <= 72, "{}", size_of::<Server>());
    }
}
