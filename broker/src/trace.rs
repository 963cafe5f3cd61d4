//! What a client sends and gets, or what happens to the messages of a topic, told line by line to whoever traces it: for a
//! bounded time and a bounded number of lines. Payloads are shortened, and what proves who somebody is, is never told.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use codec::{Ack, Packet, Properties, Property, Publish};

use crate::limits::{TRACE_PAYLOAD_BYTES_MAX, TRACE_TEXT_BYTES_MAX};
use crate::time::Time;

/// What is traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Traced {
    /// All packets of one client.
    Client(String),
    /// Publishes on topics that match a filter, and what became of each of their deliveries.
    Topic(String),
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceKind {
    /// A packet of the client.
    Received,
    /// A packet to the client, as it was written.
    Sent,
    /// A delivery, and what became of it.
    Delivery,
    /// Something else: a connection was refused or closed.
    Event,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceLine {
    /// When.
    pub at: Time,
    /// Which client.
    pub client_id: String,
    /// What the line is about.
    pub kind: TraceKind,
    /// What happened. Control characters are escapes.
    pub text: String,
}

/// Who hears the lines, on the worker's thread: it should be short. False: nobody hears any more.
pub type TraceTo = Arc<dyn Fn(TraceLine) -> bool + Send + Sync>;

/// A trace, as a worker has it.
pub(crate) struct Trace {
    pub(crate) of: Traced,
    pub(crate) until: Time,
    /// Lines that may still be told, by all workers.
    pub(crate) left: Arc<AtomicU32>,
    pub(crate) to: TraceTo,
    /// The connection whose CONNECT came last: it may be refused.
    pub(crate) connecting: Option<u32>,
    /// The connection whose written bytes are followed.
    pub(crate) follows: Option<(u32, u16)>,
    /// Bytes that were written to it, from the beginning of a packet on.
    pub(crate) written: Vec<u8>,
    /// Nobody hears any more, or enough was told.
    pub(crate) is_over: bool,
}

impl Trace {
    pub(crate) fn new(of: Traced, until: Time, left: Arc<AtomicU32>, to: TraceTo) -> Self {
        Self {
            of,
            until,
            left,
            to,
            connecting: None,
            follows: None,
            written: Vec::new(),
            is_over: false,
        }
    }

    pub(crate) fn is_of_client(&self, client_id: &str) -> bool {
        matches!(&self.of, Traced::Client(of) if of == client_id)
    }

    pub(crate) fn is_of_topic(&self, topic: &str) -> bool {
        matches!(&self.of, Traced::Topic(filter) if topic::matches(filter, topic))
    }

    pub(crate) fn tell(&mut self, at: Time, client_id: &str, kind: TraceKind, text: String) {
        let less = |left: u32| left.checked_sub(1);
        let order = Ordering::Relaxed;
        if self.is_over || self.left.fetch_update(order, order, less).is_err() {
            self.is_over = true;
            return;
        }
        let line = TraceLine {
            at,
            client_id: client_id.to_owned(),
            kind,
            text,
        };
        self.is_over = !(self.to)(line);
    }
}

/// Text of a client, escaped, and cut where it is very long.
fn text(text: &str) -> String {
    let end = text.floor_char_boundary(TRACE_TEXT_BYTES_MAX);
    let more = if end < text.len() { "…" } else { "" };
    format!("{}{more}", text[..end].escape_debug())
}

/// The beginning of a payload: as text, where it is text.
fn payload(payload: &[u8]) -> String {
    let mut shown = format!("{} bytes", payload.len());
    let some = &payload[..payload.len().min(TRACE_PAYLOAD_BYTES_MAX)];
    // Cut within a character, it is text all the same.
    let valid = match std::str::from_utf8(some) {
        Ok(valid) => Some(valid),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&some[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let more = if some.len() < payload.len() {
        "…"
    } else {
        ""
    };
    match valid {
        _ if payload.is_empty() => {}
        Some(valid) => drop(write!(shown, " \"{}{more}\"", valid.escape_debug())),
        None => {
            shown.push_str(" 0x");
            for byte in some {
                let _ = write!(shown, "{byte:02x}");
            }
            shown.push_str(more);
        }
    }
    shown
}

fn properties(all: Properties<'_>) -> String {
    let shown: Vec<String> = all
        .iter()
        .map(|property| match property {
            Property::AuthenticationData(data) => {
                format!("AuthenticationData({} bytes, not shown)", data.len())
            }
            Property::CorrelationData(data) => format!("CorrelationData({})", payload(data)),
            Property::UserProperty(name, value) => {
                format!("UserProperty({}, {})", text(name), text(value))
            }
            other => text(&format!("{other:?}")),
        })
        .collect();
    if shown.is_empty() {
        return String::new();
    }
    format!(" {{{}}}", shown.join(", "))
}

fn ack(name: &str, ack: &Ack<'_>) -> String {
    let reason = match ack.reason.0 {
        0 => String::new(),
        _ => format!(" {:#04x} {}", ack.reason.0, ack.reason),
    };
    format!(
        "{name} #{}{reason}{}",
        ack.packet_id,
        properties(ack.properties)
    )
}

fn codes(reasons: &[u8]) -> String {
    let shown: Vec<String> = reasons.iter().map(|code| format!("{code:#04x}")).collect();
    shown.join(" ")
}

/// A publish, with its topic where that is known from elsewhere.
pub(crate) fn publish(publish: &Publish<'_>, topic: &str) -> String {
    let mut shown = format!("PUBLISH {} q{}", text(topic), u8::from(publish.qos));
    if let Some(packet_id) = publish.packet_id {
        let _ = write!(shown, " #{packet_id}");
    }
    for (is, word) in [(publish.dup, " dup"), (publish.retain, " retain")] {
        if is {
            shown.push_str(word);
        }
    }
    shown + " " + &payload(publish.payload) + &properties(publish.properties)
}

/// A packet in words. Passwords and what proves an identity otherwise are not in it.
pub(crate) fn describe(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect(connect) => {
            let mut shown = format!(
                "CONNECT {} {:?} keep-alive {} s",
                text(connect.client_id),
                connect.version,
                connect.keep_alive
            );
            if connect.clean_start {
                shown.push_str(" clean");
            }
            if let Some(name) = connect.username {
                let _ = write!(shown, " user {}", text(name));
            }
            if let Some(password) = connect.password {
                let _ = write!(shown, " password ({} bytes, not shown)", password.len());
            }
            if let Some(will) = &connect.will {
                let (qos, retain) = (u8::from(will.qos), if will.retain { " retain" } else { "" });
                let (topic, payload) = (text(will.topic), payload(will.payload));
                let _ = write!(shown, " will {topic} q{qos}{retain} {payload}");
                shown.push_str(&properties(will.properties));
            }
            shown + &properties(connect.properties)
        }
        Packet::ConnAck(connack) => {
            let present = if connack.session_present {
                " present"
            } else {
                ""
            };
            let (code, reason) = (connack.reason.0, connack.reason);
            format!(
                "CONNACK {code:#04x} {reason}{present}{}",
                properties(connack.properties)
            )
        }
        Packet::Publish(one) => {
            let topic = if one.topic.is_empty() {
                "(alias)"
            } else {
                one.topic
            };
            publish(one, topic)
        }
        Packet::PubAck(one) => ack("PUBACK", one),
        Packet::PubRec(one) => ack("PUBREC", one),
        Packet::PubRel(one) => ack("PUBREL", one),
        Packet::PubComp(one) => ack("PUBCOMP", one),
        Packet::Subscribe(subscribe) => {
            let mut shown = format!("SUBSCRIBE #{}", subscribe.packet_id);
            for one in subscribe.filters.iter() {
                let _ = write!(
                    shown,
                    " {} q{}",
                    text(one.filter),
                    u8::from(one.options.qos)
                );
                if shown.len() > 4 * TRACE_TEXT_BYTES_MAX {
                    shown.push_str(" …");
                    break;
                }
            }
            shown + &properties(subscribe.properties)
        }
        Packet::SubAck(one) => {
            let (id, codes) = (one.packet_id, codes(one.reasons));
            format!("SUBACK #{id} {codes}{}", properties(one.properties))
        }
        Packet::Unsubscribe(unsubscribe) => {
            let mut shown = format!("UNSUBSCRIBE #{}", unsubscribe.packet_id);
            for filter in unsubscribe.filters.iter() {
                let _ = write!(shown, " {}", text(filter));
                if shown.len() > 4 * TRACE_TEXT_BYTES_MAX {
                    shown.push_str(" …");
                    break;
                }
            }
            shown
        }
        Packet::UnsubAck(one) => {
            let (id, codes) = (one.packet_id, codes(one.reasons));
            format!("UNSUBACK #{id} {codes}{}", properties(one.properties))
        }
        Packet::PingReq => "PINGREQ".to_owned(),
        Packet::PingResp => "PINGRESP".to_owned(),
        Packet::Disconnect(one) => {
            let (code, reason) = (one.reason.0, one.reason);
            format!(
                "DISCONNECT {code:#04x} {reason}{}",
                properties(one.properties)
            )
        }
        Packet::Auth(one) => {
            let (code, reason) = (one.reason.0, one.reason);
            format!("AUTH {code:#04x} {reason}{}", properties(one.properties))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::{Connect, PropertiesBuf, Version};

    #[test]
    fn what_proves_an_identity_is_not_told() {
        let mut of = PropertiesBuf::new();
        of.push(Property::AuthenticationMethod("SCRAM")).unwrap();
        of.push(Property::AuthenticationData(b"hunter2")).unwrap();
        let told = describe(&Packet::Connect(Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive: 60,
            client_id: "c\u{1b}",
            will: None,
            username: Some("anna"),
            password: Some(b"hunter2"),
            properties: of.as_properties(),
        }));
        assert!(
            !told.contains("hunter2") && !told.contains("68756e74"),
            "{told}"
        );
        assert!(
            told.contains("user anna password (7 bytes, not shown)"),
            "{told}"
        );
        assert!(told.contains("c\\u{1b}"), "{told}");
    }

    #[test]
    fn payloads_are_shortened_and_text_stays_text() {
        assert_eq!(payload(b""), "0 bytes");
        assert_eq!(payload("on\n\u{1b}".as_bytes()), "4 bytes \"on\\n\\u{1b}\"");
        assert_eq!(payload(&[0xff, 1]), "2 bytes 0xff01");
        let long = "ä".repeat(1_000);
        let told = payload(&[b"x", long.as_bytes()].concat());
        assert!(
            told.starts_with("2001 bytes \"xää") && told.ends_with("ä…\""),
            "{told}"
        );
        assert!(told.len() < 2 * TRACE_PAYLOAD_BYTES_MAX, "{told}");
    }
}
