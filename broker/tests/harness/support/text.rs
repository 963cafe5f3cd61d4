//! Packets as text, so that a test says what a client got in the words of the specification:
//!
//! - `PUBLISH a/b hello` (QoS 0), `PUBLISH a/b hello q1 #7 dup retain {expiry 5, alias 1}`
//! - `PUBACK #7`, `PUBREC #7 0x97`, `SUBACK #1 [0x01, 0x80]`, `DISCONNECT 0x8e`, `CONNACK 0x00 present`
//!
//! A payload of more than [`PAYLOAD_SHOWN_BYTES_MAX`] bytes is shown as its length: `(5000 bytes)`.

use std::fmt::Write;

use codec::{Ack, Packet, Properties, Property, Publish, Qos};

const PAYLOAD_SHOWN_BYTES_MAX: usize = 64;

pub fn text(packet: &Packet<'_>) -> String {
    match packet {
        Packet::ConnAck(connack) => {
            let present = if connack.session_present {
                " present"
            } else {
                ""
            };
            let mut text = format!("CONNACK {:#04x}{present}", connack.reason.0);
            // Those of a session that was accepted are looked at elsewhere.
            if connack.reason.is_failure() && !connack.properties.is_empty() {
                write!(text, " {{{}}}", properties_text(connack.properties))
                    .expect("a string takes all");
            }
            text
        }
        Packet::Publish(publish) => publish_text(publish),
        Packet::PubAck(ack) => ack_text("PUBACK", ack),
        Packet::PubRec(ack) => ack_text("PUBREC", ack),
        Packet::PubRel(ack) => ack_text("PUBREL", ack),
        Packet::PubComp(ack) => ack_text("PUBCOMP", ack),
        Packet::SubAck(suback) => format!(
            "SUBACK #{} {:#04x?}",
            suback.packet_id,
            List(suback.reasons)
        ),
        Packet::UnsubAck(unsuback) => {
            format!(
                "UNSUBACK #{} {:#04x?}",
                unsuback.packet_id,
                List(unsuback.reasons)
            )
        }
        Packet::PingResp => "PINGRESP".to_owned(),
        Packet::Disconnect(disconnect) => {
            let mut text = format!("DISCONNECT {:#04x}", disconnect.reason.0);
            if !disconnect.properties.is_empty() {
                write!(text, " {{{}}}", properties_text(disconnect.properties))
                    .expect("a string takes all");
            }
            text
        }
        other => panic!("a server does not send {other:?}"),
    }
}

/// `[0x00, 0x01]` on one line, which `{:#x?}` of a slice is not.
struct List<'a>(&'a [u8]);

impl std::fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let items: Vec<String> = self.0.iter().map(|item| format!("{item:#04x}")).collect();
        write!(f, "[{}]", items.join(", "))
    }
}

fn ack_text(name: &str, ack: &Ack<'_>) -> String {
    if ack.reason.0 == 0 {
        return format!("{name} #{}", ack.packet_id);
    }
    format!("{name} #{} {:#04x}", ack.packet_id, ack.reason.0)
}

fn publish_text(publish: &Publish<'_>) -> String {
    let topic = if publish.topic.is_empty() {
        "-"
    } else {
        publish.topic
    };
    let payload = match std::str::from_utf8(publish.payload) {
        Ok(payload) if payload.len() <= PAYLOAD_SHOWN_BYTES_MAX => payload.to_owned(),
        _ => format!("({} bytes)", publish.payload.len()),
    };
    let mut text = format!("PUBLISH {topic} {payload}");
    if let (true, Some(id)) = (publish.qos != Qos::AtMostOnce, publish.packet_id) {
        write!(text, " q{} #{id}", u8::from(publish.qos)).expect("a string takes all");
    }
    if publish.dup {
        text.push_str(" dup");
    }
    if publish.retain {
        text.push_str(" retain");
    }
    if !publish.properties.is_empty() {
        write!(text, " {{{}}}", properties_text(publish.properties)).expect("a string takes all");
    }
    text
}

fn properties_text(properties: Properties<'_>) -> String {
    let texts: Vec<String> = properties
        .iter()
        .map(|property| match property {
            Property::MessageExpiryInterval(seconds) => format!("expiry {seconds}"),
            Property::TopicAlias(alias) => format!("alias {alias}"),
            Property::SubscriptionIdentifier(id) => format!("subscription {id}"),
            Property::PayloadFormatIndicator(format) => format!("format {format}"),
            Property::ContentType(kind) => format!("type {kind}"),
            Property::ResponseTopic(topic) => format!("response {topic}"),
            Property::CorrelationData(data) => {
                format!("correlation {}", String::from_utf8_lossy(data))
            }
            Property::UserProperty(name, value) => format!("{name}={value}"),
            other => format!("{other:?}"),
        })
        .collect();
    texts.join(", ")
}
