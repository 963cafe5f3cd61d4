//! WebSocket between MQTT and what is below it, by the crate of that name.

use std::sync::Arc;

use websocket::{Close, End, Rules, Server, Stranger};

use super::{Layer, LayerError, Sides, Stray};

/// The server's side of one connection.
#[derive(Debug)]
pub struct WebSocketLayer(Server);

impl WebSocketLayer {
    /// A connection of which nothing has come yet, to a listener with these rules.
    #[must_use]
    pub fn new(rules: Arc<Rules>) -> Self {
        Self(Server::new(rules))
    }
}

fn broken(why: impl ToString) -> LayerError {
    LayerError::Broken {
        layer: "WebSocket",
        why: why.to_string(),
    }
}

impl Layer for WebSocketLayer {
    fn receive(&mut self, wire: &mut [u8], sides: &mut Sides<'_>) -> Result<(), LayerError> {
        self.0.receive(wire, sides.up, sides.down);
        match self.0.end() {
            None | Some(End::Closed(_)) => Ok(()),
            Some(End::Stranger(Stranger::Mqtt)) => Err(LayerError::Stray(Stray::Mqtt)),
            Some(End::Stranger(Stranger::Tls)) => Err(LayerError::Stray(Stray::Tls)),
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
