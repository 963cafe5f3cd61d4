//! A listener at work: what all workers that accept on it share.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use websocket::Rules;

use super::{Carrier, Listener};
use crate::bans::Network;
use crate::tls::{self, Keys};
use crate::transport::{Layer, ProxyLayer, Socket, Stray, WebSocketLayer};

/// See the module.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    carrier: Carrier,
    /// Where it listens, once it does: the port that the system chose, where 0 was asked for.
    pub(crate) address: OnceLock<String>,
    connections_max: u32,
    connections: AtomicU32,
    accepted: AtomicU64,
    refused: AtomicU64,
    pub(crate) keys: Option<Keys>,
    /// Which requests open a WebSocket.
    websocket: Option<Arc<Rules>>,
    /// From where the header of a proxy is believed, where there has to be one.
    proxies: Option<Vec<Network>>,
    /// Protocols that came and do not belong here, and that the log has told of: a bit each.
    strays: AtomicU8,
}

/// What a listener does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// What its bytes are.
    pub transport: Carrier,
    /// Connections open now.
    pub connections: u32,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections closed at once because of its own bound.
    pub refused: u64,
    /// Its certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<tls::CertificateStatus>,
    /// Why certificates that have changed are not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The listeners of a configuration, ready to be listened on.
///
/// # Errors
/// Why a listener's certificates cannot be used.
pub(crate) fn ports(listeners: &[Listener]) -> Result<Box<[Port]>, String> {
    listeners.iter().map(Port::new).collect()
}

impl Port {
    fn new(listener: &Listener) -> Result<Self, String> {
        let keys = match listener.transport.has_tls() {
            true => Some(
                Keys::load(&listener.tls, listener.transport.above_tls())
                    .map_err(|why| format!("the listener {:?} has no TLS: {why}", listener.name))?,
            ),
            false => None,
        };
        let proxies = listener.proxy_from.iter().map(|text| text.parse());
        let proxies = listener.proxy_protocol.then(|| proxies.collect());
        Ok(Self {
            name: listener.name.clone(),
            carrier: listener.transport,
            address: OnceLock::new(),
            connections_max: listener.connections_max,
            connections: AtomicU32::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            keys,
            websocket: listener.transport.has_websocket().then(|| {
                Arc::new(Rules {
                    path: listener.path.clone(),
                    origins: listener.origins.clone(),
                })
            }),
            proxies: proxies.transpose()?,
            strays: AtomicU8::new(0),
        })
    }

    /// What a new connection has between its socket and MQTT, the lowest first.
    pub(crate) fn layers(&self, socket: &Socket) -> Vec<Box<dyn Layer>> {
        let mut layers: Vec<Box<dyn Layer>> = Vec::new();
        if let Some(proxies) = &self.proxies {
            layers.push(Box::new(ProxyLayer::new(match socket {
                Socket::Tcp(_) => {
                    let from = socket.peer_address();
                    from.is_some_and(|from| proxies.iter().any(|proxy| proxy.contains(from.ip())))
                }
                // Whoever may open its directory is believed.
                Socket::Unix(_) | Socket::Memory(_) => true,
            })));
        }
        if let Some(keys) = &self.keys {
            layers.push(keys.layer());
        }
        if let Some(rules) = &self.websocket {
            layers.push(Box::new(WebSocketLayer::new(Arc::clone(rules))));
        }
        layers
    }

    /// Counts a connection that was accepted; false when there is no room for it.
    pub(crate) fn admit(&self) -> bool {
        let admitted = self.connections.fetch_add(1, Ordering::Relaxed) < self.connections_max;
        if admitted {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.let_go();
        }
        admitted
    }

    /// A connection that was admitted is gone.
    pub(crate) fn let_go(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether MQTT is spoken here as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.carrier == Carrier::Tcp && self.proxies.is_none()
    }

    /// What is spoken here, in words.
    pub(crate) fn words(&self) -> &'static str {
        match self.carrier {
            Carrier::Tcp => "MQTT without TLS",
            Carrier::Tls => "MQTT in TLS",
            Carrier::Ws => "MQTT in WebSocket without TLS",
            Carrier::Wss => "MQTT in WebSocket in TLS",
        }
    }

    /// How many may be open.
    pub(crate) fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// Whether a protocol came for the first time that does not belong here.
    pub(crate) fn is_first(&self, stray: Stray) -> bool {
        let bit = 1 << stray as u8;
        self.strays.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    pub(crate) fn status(&self) -> ListenerStatus {
        ListenerStatus {
            name: self.name.clone(),
            address: self.address.get().cloned().unwrap_or_default(),
            transport: self.carrier,
            connections: self.connections.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            certificates: self.keys.as_ref().map_or_else(Vec::new, Keys::certificates),
            problem: self.keys.as_ref().and_then(Keys::problem),
        }
    }
}
