//! What is between the clients' sockets and MQTT: nothing, TLS, WebSocket, or WebSocket over TLS.

mod tls;
mod websocket;

use std::fmt;

use broker::transport::Layer;
use serde::{Deserialize, Serialize};

use crate::plan::Secret;
use crate::swarm::Handshakes;

use tls::TlsClients;
use websocket::WebSocketClient;

/// How clients reach their broker, beyond its address. It can be told to another process: files are in it, not their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// What the broker is called, for its certificate and for the headers of WebSocket.
    pub host: String,
    /// TLS, and how.
    pub tls: Option<Tls>,
    /// WebSocket, and the path to ask for.
    pub websocket: Option<String>,
}

/// How clients do TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Whose certificates are believed.
    pub trust: Trust,
    /// The clients' certificate with its chain and its key, as PEM; all of them show the same.
    pub identity: Option<(String, Secret)>,
    /// Whether a client that comes back goes on with an earlier session.
    pub resume: bool,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Those of these authorities, as PEM.
    Authorities(String),
    /// Anybody's.
    Everybody,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.tls, &self.websocket) {
            (None, None) => "TCP",
            (Some(_), None) => "TLS",
            (None, Some(_)) => "WebSocket",
            (Some(_), Some(_)) => "WebSocket over TLS",
        })
    }
}

/// Makes the layers of each client's connection.
#[derive(Debug)]
pub(crate) struct Layers {
    tls: Option<TlsClients>,
    /// The host and the path.
    websocket: Option<(String, String)>,
    /// Connections so far: each has masks of its own.
    made: u64,
}

impl Layers {
    /// `clients`: how many of them may go on with an earlier session at the same time.
    ///
    /// # Errors
    /// A certificate or a key is none, or they do not belong together.
    pub(crate) fn new(way: &Way, clients: usize) -> Result<Self, String> {
        let protocol = match way.websocket {
            None => "mqtt",
            Some(_) => "http/1.1",
        };
        let tls = way.tls.as_ref();
        let tls = tls.map(|tls| TlsClients::new(&way.host, tls, protocol, clients));
        Ok(Self {
            tls: tls.transpose()?,
            websocket: way.websocket.clone().map(|path| (way.host.clone(), path)),
            made: 0,
        })
    }

    /// The layers of a new connection, the lowest first.
    ///
    /// # Errors
    /// TLS cannot begin.
    pub(crate) fn make(&mut self) -> Result<Vec<Box<dyn Layer>>, String> {
        let mut layers: Vec<Box<dyn Layer>> = Vec::new();
        if let Some(tls) = &self.tls {
            layers.push(Box::new(tls.client()?));
        }
        if let Some((host, path)) = &self.websocket {
            self.made += 1;
            layers.push(Box::new(WebSocketClient::new(host, path, self.made)));
        }
        Ok(layers)
    }

    /// TLS handshakes so far.
    pub(crate) fn handshakes(&self) -> Handshakes {
        let tls = self.tls.as_ref();
        tls.map_or_else(Handshakes::default, |tls| tls.handshakes.so_far())
    }
}

/// Whether clients could begin that way: what `Layers::new` would say.
///
/// # Errors
/// They could not: why.
pub fn check(way: &Way) -> Result<(), String> {
    Layers::new(way, 1)?.make().map(drop)
}
