//! WebSocket, a client's side.

use broker::transport::{Layer, LayerError, Sides};
use websocket::{Client, Close, End, Greeting};

/// The client of one connection.
#[derive(Debug)]
pub(super) struct WebSocketClient(Client);

impl WebSocketClient {
    /// `seed`: different for each connection.
    pub(super) fn new(host: &str, path: &str, seed: u64) -> Self {
        Self(Client::new(Greeting {
            host,
            path,
            protocol: "mqtt",
            seed,
        }))
    }
}

fn broken(why: impl ToString) -> LayerError {
    LayerError::Broken {
        layer: "WebSocket",
        why: why.to_string(),
    }
}

impl Layer for WebSocketClient {
    fn begin(&mut self, down: &mut Vec<u8>) {
        self.0.begin(down);
    }

    fn receive(&mut self, wire: &mut [u8], sides: &mut Sides<'_>) -> Result<(), LayerError> {
        self.0.receive(wire, sides.up, sides.down);
        match self.0.end() {
            None | Some(End::Closed(None | Some(1000..=1001))) => Ok(()),
            Some(end) => Err(broken(end)),
        }
    }

    fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        match self.0.send(plain, wire) {
            true => Ok(()),
            false => Err(broken("closed")),
        }
    }

    fn finish(&mut self, wire: &mut Vec<u8>) {
        self.0.close(Close::Normal, wire);
    }

    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    fn is_ended(&self) -> bool {
        self.0.end().is_some()
    }
}
