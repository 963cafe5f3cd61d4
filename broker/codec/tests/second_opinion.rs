//! A decoder that is not ours reads what we write, writes it in its own way,
//! and we must read the same packet back. So every field crosses both codecs
//! in both directions. The other one is rumqttc's, for 3.1.1 and 5.0.

mod arbitrary;
mod packets;

use bytes::BytesMut;
use codec::{
    PACKET_BYTES_MAX, Packet, Properties, Property, PublishHead, Qos, Version, decode,
    encode_publish, split_frame,
};
use packets::{Expect, cases};
use proptest::prelude::*;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

/// What rumqttc makes of these bytes and writes again.
fn through_rumqttc(version: Version, bytes: &[u8]) -> Result<BytesMut, String> {
    let mut stream = BytesMut::from(bytes);
    let mut out = BytesMut::new();
    if version == Version::V5 {
        let packet = v5::Packet::read(&mut stream, None).map_err(|error| error.to_string())?;
        match packet {
            // It counts a byte less than it writes of this one.
            v5::Packet::Disconnect(v5::Disconnect {
                reason_code,
                properties: None,
            }) => out.extend_from_slice(&[0xE0, 1, reason_code as u8]),
            packet => {
                packet
                    .write(&mut out, None)
                    .map_err(|error| error.to_string())?;
            }
        }
    } else {
        v4::Packet::read(&mut stream, usize::MAX)
            .and_then(|packet| packet.write(&mut out, usize::MAX))
            .map_err(|error| error.to_string())?;
    }
    assert!(stream.is_empty(), "rumqttc saw a shorter packet");
    Ok(out)
}

fn check(version: Version, expect: &Expect) {
    let mut bytes = Vec::new();
    expect.encode(version, &mut bytes).expect("a valid packet");
    let returned = through_rumqttc(version, &bytes)
        .unwrap_or_else(|error| panic!("rumqttc refuses {expect:?}: {error}"));
    let ours = read(version, &bytes);
    let theirs = read(version, &returned);
    assert_eq!(comparable(&ours), comparable(&theirs), "{expect:?}");
}

fn read(version: Version, bytes: &[u8]) -> Packet<'_> {
    let frame = split_frame(bytes, PACKET_BYTES_MAX)
        .expect("a valid packet")
        .expect("a whole packet");
    assert_eq!(frame.len, bytes.len());
    decode(version, frame).expect("a valid packet")
}

/// The packet as text, and its properties sorted: only the order of user
/// properties and of subscription identifiers means anything, and the sort is
/// stable.
fn comparable(packet: &Packet<'_>) -> (String, Vec<String>) {
    fn take(properties: &mut Properties<'_>, all: &mut Vec<String>) {
        let mut list: Vec<_> = properties.iter().collect();
        list.sort_by_key(Property::id);
        all.extend(list.iter().map(|property| format!("{property:?}")));
        *properties = Properties::EMPTY;
    }
    let mut packet = *packet;
    let mut all = Vec::new();
    match &mut packet {
        Packet::Connect(packet) => {
            take(&mut packet.properties, &mut all);
            if let Some(will) = &mut packet.will {
                take(&mut will.properties, &mut all);
            }
        }
        Packet::ConnAck(packet) => take(&mut packet.properties, &mut all),
        Packet::Publish(packet) => take(&mut packet.properties, &mut all),
        Packet::PubAck(packet)
        | Packet::PubRec(packet)
        | Packet::PubRel(packet)
        | Packet::PubComp(packet) => take(&mut packet.properties, &mut all),
        Packet::Subscribe(packet) => take(&mut packet.properties, &mut all),
        Packet::SubAck(packet) => take(&mut packet.properties, &mut all),
        Packet::Unsubscribe(packet) => take(&mut packet.properties, &mut all),
        Packet::UnsubAck(packet) => take(&mut packet.properties, &mut all),
        Packet::Disconnect(packet) => take(&mut packet.properties, &mut all),
        Packet::Auth(packet) => take(&mut packet.properties, &mut all),
        Packet::PingReq | Packet::PingResp => {}
    }
    (format!("{packet:?}"), all)
}

/// Well-formed packets that rumqttc cannot take; each is a limit of its own,
/// not another reading of the specification.
fn rumqttc_can(version: Version, expect: &Expect) -> bool {
    match expect {
        Expect::Packet(Packet::Connect(connect)) => {
            // It keeps the password as text, and takes empty for absent.
            let password = connect.password.map(std::str::from_utf8);
            connect.version == version
                && connect.username != Some("")
                && password != Some(Ok(""))
                && !matches!(password, Some(Err(_)))
        }
        // It wants a body here in 5.0, which may be left out.
        Expect::Packet(Packet::Disconnect(disconnect)) => {
            version != Version::V5 || disconnect.reason.0 != 0 || !disconnect.properties.is_empty()
        }
        // It counts a byte too much for each subscription identifier, and so
        // misses properties that come after one.
        Expect::Packet(Packet::Publish(publish)) => {
            let mut after_first = publish
                .properties
                .iter()
                .skip_while(|property| !matches!(property, Property::SubscriptionIdentifier(_)));
            after_first.nth(1).is_none()
        }
        // It writes AUTH but does not read it.
        Expect::Packet(Packet::Auth(_)) | Expect::Refused { .. } => false,
        _ => true,
    }
}

#[test]
fn rumqttc_agrees_on_the_table() {
    let mut checked = 0;
    for case in cases() {
        for &version in case.versions {
            if version != Version::V31 && rumqttc_can(version, &case.expect) {
                check(version, &case.expect);
                checked += 1;
            }
        }
    }
    assert!(checked > 80, "only {checked} packets were compared");
}

/// The broker's own way to write a PUBLISH, field by field.
#[test]
fn rumqttc_reads_a_forwarded_publish() {
    let head = PublishHead {
        dup: true,
        qos: Qos::AtLeastOnce,
        retain: true,
        topic: "a/b",
        packet_id: Some(packets::id(513)),
        forwardable: b"\x01\x01\x26\0\x01n\0\x01v\x03\0\x01c",
        message_expiry: Some(60),
        subscription_ids: &[300, 7],
        topic_alias: Some(9),
    };
    let mut out = Vec::new();
    let packet_id_at = encode_publish(&mut out, Version::V5, &head, b"hello").expect("valid");
    assert_eq!(out[packet_id_at..][..2], [2, 1]);
    let mut stream = BytesMut::from(&out[..]);
    let Ok(v5::Packet::Publish(publish)) = v5::Packet::read(&mut stream, None) else {
        panic!("rumqttc sees no PUBLISH in {out:02X?}");
    };
    assert!(publish.dup && publish.retain);
    assert_eq!(publish.qos as u8, 1);
    assert_eq!(&publish.topic[..], b"a/b");
    assert_eq!(publish.pkid, 513);
    assert_eq!(&publish.payload[..], b"hello");
    let properties = publish.properties.expect("there are some");
    assert_eq!(properties.payload_format_indicator, Some(1));
    assert_eq!(
        properties.user_properties,
        [("n".to_owned(), "v".to_owned())]
    );
    assert_eq!(properties.content_type.as_deref(), Some("c"));
    assert_eq!(properties.message_expiry_interval, Some(60));
    assert_eq!(properties.topic_alias, Some(9));
    assert_eq!(properties.subscription_identifiers, [300, 7]);

    let mut out = Vec::new();
    encode_publish(&mut out, Version::V311, &head, b"hello").expect("valid");
    let mut stream = BytesMut::from(&out[..]);
    let Ok(v4::Packet::Publish(publish)) = v4::Packet::read(&mut stream, usize::MAX) else {
        panic!("rumqttc sees no PUBLISH in {out:02X?}");
    };
    assert!(publish.dup && publish.retain);
    assert_eq!(publish.qos as u8, 1);
    assert_eq!(publish.topic, "a/b");
    assert_eq!(publish.pkid, 513);
    assert_eq!(&publish.payload[..], b"hello");
}

proptest! {
    #[test]
    fn rumqttc_agrees_on_any_packet_of_3_1_1(packet in arbitrary::packet(Version::V311)) {
        if rumqttc_can(Version::V311, &packet) {
            check(Version::V311, &packet);
        }
    }

    #[test]
    fn rumqttc_agrees_on_any_packet_of_5_0(packet in arbitrary::packet(Version::V5)) {
        if rumqttc_can(Version::V5, &packet) {
            check(Version::V5, &packet);
        }
    }
}
