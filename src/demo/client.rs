//! One MQTT client of the demo fleet: a real one, over a real socket, by a library that is not ours.
//!
//! Rooms speak MQTT 3.1.1 and devices 5.0; this module is the one place that knows both of the library's faces.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Keep-alive of every demo client.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long the broker keeps the session of a demo client that is away.
const SESSION_EXPIRY_S: u32 = 300;
/// Publishes that a demo client may have in flight.
const IN_FLIGHT_MAX: u16 = 16;
/// Requests to, and events from, the library's event loop that may wait.
const QUEUE_MAX: usize = 64;
/// Pause before a client that lost its connection tries again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// The protocol version that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    V5,
}

/// What a client saw.
#[derive(Debug)]
pub enum Seen {
    /// All its subscriptions are granted: from now on it misses nothing.
    Ready,
    /// The broker acknowledged the publish with this tag.
    Acknowledged(u64),
    /// The broker refused the publish with this tag.
    Refused(u64),
    /// The session was gone, and with it the publish with this tag.
    Forgotten(u64),
    /// A message came.
    Message(Message),
}

/// A message that came.
#[derive(Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// User property [`ID`], when there is one.
    pub id: Option<String>,
    /// Where an answer is wanted.
    pub response_topic: Option<String>,
    /// What an answer must carry.
    pub correlation_data: Option<Vec<u8>>,
}

/// The user property that carries a message's identifier in the ledger, where the payload has no place for it.
pub const ID: &str = "demo-id";

/// A message to publish with QoS 1.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// What [`Seen::Acknowledged`] says when it is acknowledged.
    pub tag: u64,
    /// Sent by 5.0 clients as user property [`ID`].
    pub id: Option<String>,
    /// Sent by 5.0 clients.
    pub correlation_data: Option<Vec<u8>>,
}

/// See the module.
pub struct Client {
    half: Half,
    seen: mpsc::Receiver<Raw>,
    polling: JoinHandle<()>,
    filters: Vec<String>,
    granted: usize,
    connected: bool,
    online: Arc<AtomicUsize>,
    /// Tags of the publishes in flight, in their order, which is the order of their acknowledgements
    /// [MQTT-4.6.0-2].
    in_flight: VecDeque<u64>,
    /// Told one at a time after a session was lost.
    forgotten: VecDeque<u64>,
}

enum Half {
    V311(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// The events of both versions that matter here.
enum Raw {
    Connected { session_present: bool },
    Disconnected(String),
    Granted(bool),
    Acknowledged(bool),
    Message(Message),
}

impl Client {
    /// Connects as `id` and subscribes to `filters` with QoS 1; `online` counts the connected clients of the fleet.
    pub fn connect(
        version: Version,
        id: &str,
        address: SocketAddr,
        filters: Vec<String>,
        online: Arc<AtomicUsize>,
    ) -> Self {
        let (tell, seen) = mpsc::channel(QUEUE_MAX);
        let (host, port) = (address.ip().to_string(), address.port());
        let (half, polling) = match version {
            Version::V311 => {
                let mut options = rumqttc::MqttOptions::new(id, host, port);
                options
                    .set_keep_alive(KEEP_ALIVE)
                    .set_clean_session(false)
                    .set_inflight(IN_FLIGHT_MAX);
                let (client, events) = rumqttc::AsyncClient::new(options, QUEUE_MAX);
                (Half::V311(client), tokio::spawn(poll_v311(events, tell)))
            }
            Version::V5 => {
                let mut options = rumqttc::v5::MqttOptions::new(id, host, port);
                options
                    .set_keep_alive(KEEP_ALIVE)
                    .set_clean_start(false)
                    .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
                    .set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX);
                let (client, events) = rumqttc::v5::AsyncClient::new(options, QUEUE_MAX);
                (Half::V5(client), tokio::spawn(poll_v5(events, tell)))
            }
        };
        Self {
            half,
            seen,
            polling,
            filters,
            granted: 0,
            connected: false,
            online,
            in_flight: VecDeque::new(),
            forgotten: VecDeque::new(),
        }
    }

    /// Whether a publish would be sent now and not wait for others.
    pub fn may_publish(&self) -> bool {
        self.connected && self.in_flight.len() < usize::from(IN_FLIGHT_MAX)
    }

    /// Publishes with QoS 1. `false`: not now, see [`Client::may_publish`].
    pub fn publish(&mut self, message: Outgoing) -> bool {
        if !self.may_publish() {
            return false;
        }
        let sent = match &self.half {
            Half::V311(client) => client
                .try_publish(
                    message.topic,
                    rumqttc::QoS::AtLeastOnce,
                    false,
                    message.payload,
                )
                .is_ok(),
            Half::V5(client) => {
                let mut properties = v5::PublishProperties {
                    correlation_data: message.correlation_data.map(Into::into),
                    ..v5::PublishProperties::default()
                };
                properties
                    .user_properties
                    .extend(message.id.map(|id| (ID.into(), id)));
                let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                client
                    .try_publish_with_properties(
                        message.topic,
                        qos,
                        false,
                        message.payload,
                        properties,
                    )
                    .is_ok()
            }
        };
        if sent {
            self.in_flight.push_back(message.tag);
        }
        sent
    }

    /// The next thing that this client saw; `None` when it was closed. Safe to cancel.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(tag) = self.forgotten.pop_front() {
                return Some(Seen::Forgotten(tag));
            }
            match self.seen.recv().await? {
                Raw::Connected { session_present } => {
                    self.set_connected(true);
                    if !session_present {
                        self.forgotten = std::mem::take(&mut self.in_flight);
                        self.granted = 0;
                        self.subscribe();
                    }
                }
                Raw::Disconnected(why) => {
                    self.set_connected(false);
                    tracing::debug!(why, "demo client disconnected");
                }
                Raw::Granted(true) => {
                    self.granted += 1;
                    if self.granted == self.filters.len() {
                        return Some(Seen::Ready);
                    }
                }
                Raw::Granted(false) => {
                    tracing::warn!(filters = ?self.filters, "a demo subscription was refused")
                }
                Raw::Acknowledged(accepted) => {
                    if let Some(tag) = self.in_flight.pop_front() {
                        return Some(if accepted {
                            Seen::Acknowledged(tag)
                        } else {
                            Seen::Refused(tag)
                        });
                    }
                }
                Raw::Message(message) => return Some(Seen::Message(message)),
            }
        }
    }

    /// Disconnects properly.
    pub fn disconnect(&mut self) {
        // When the queue is full the socket closes at drop, which the broker survives as well.
        match &self.half {
            Half::V311(client) => drop(client.try_disconnect()),
            Half::V5(client) => drop(client.try_disconnect()),
        }
        self.set_connected(false);
    }

    fn subscribe(&self) {
        for filter in &self.filters {
            let sent = match &self.half {
                Half::V311(client) => client
                    .try_subscribe(filter, rumqttc::QoS::AtLeastOnce)
                    .is_ok(),
                Half::V5(client) => {
                    let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                    client.try_subscribe(filter, qos).is_ok()
                }
            };
            if !sent {
                tracing::warn!(
                    filter,
                    "the demo client's queue is full, it does not subscribe"
                );
            }
        }
    }

    fn set_connected(&mut self, connected: bool) {
        match (self.connected, connected) {
            (false, true) => drop(self.online.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.online.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        self.connected = connected;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.set_connected(false);
        self.polling.abort();
    }
}

async fn poll_v311(mut events: rumqttc::EventLoop, tell: mpsc::Sender<Raw>) {
    use rumqttc::{Event, Outgoing, Packet, SubscribeReasonCode};
    loop {
        let raw = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => Raw::Connected {
                session_present: ack.session_present,
            },
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                Raw::Granted(!ack.return_codes.contains(&SubscribeReasonCode::Failure))
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => Raw::Acknowledged(true),
            Ok(Event::Incoming(Packet::Publish(publish))) => Raw::Message(Message {
                topic: publish.topic,
                payload: publish.payload.to_vec(),
                id: None,
                response_topic: None,
                correlation_data: None,
            }),
            // Said and flushed: polling on would connect again.
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => continue,
            Err(rumqttc::ConnectionError::RequestsDone) => return,
            Err(error) => {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                Raw::Disconnected(error.to_string())
            }
        };
        if tell.send(raw).await.is_err() {
            return;
        }
    }
}

async fn poll_v5(mut events: rumqttc::v5::EventLoop, tell: mpsc::Sender<Raw>) {
    use rumqttc::v5::{ConnectionError, Event};
    loop {
        let raw = match events.poll().await {
            Ok(Event::Incoming(v5::Packet::ConnAck(ack))) => Raw::Connected {
                session_present: ack.session_present,
            },
            Ok(Event::Incoming(v5::Packet::SubAck(ack))) => Raw::Granted(
                ack.return_codes
                    .iter()
                    .all(|code| matches!(code, v5::SubscribeReasonCode::Success(_))),
            ),
            Ok(Event::Incoming(v5::Packet::PubAck(ack))) => Raw::Acknowledged(matches!(
                ack.reason,
                v5::PubAckReason::Success | v5::PubAckReason::NoMatchingSubscribers
            )),
            Ok(Event::Incoming(v5::Packet::Publish(publish))) => Raw::Message(message_v5(publish)),
            Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return,
            Ok(_) => continue,
            Err(ConnectionError::RequestsDone) => return,
            Err(error) => {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                Raw::Disconnected(error.to_string())
            }
        };
        if tell.send(raw).await.is_err() {
            return;
        }
    }
}

fn message_v5(publish: v5::Publish) -> Message {
    let properties = publish.properties.unwrap_or_default();
    let mut users = properties.user_properties.into_iter();
    let id = users.find_map(|(name, value)| (name == ID).then_some(value));
    Message {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.to_vec(),
        id,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data.map(|data| data.to_vec()),
    }
}
