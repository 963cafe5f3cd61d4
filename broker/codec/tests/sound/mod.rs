//! What must hold for any bytes from a peer. The property tests and the fuzz
//! target ask it.

use codec::{
    PACKET_BYTES_MAX, Packet, Properties, Publish, PublishHead, Version, decode, encode_publish,
    encoded_publish_len, publish_forwardable, split_frame,
};

/// Panics if decoding `bytes` in any version is not sound: what is accepted
/// can be looked at, written, and read again as the same.
pub fn assert_sound(bytes: &[u8]) {
    for version in Version::ALL {
        let mut rest = bytes;
        while let Ok(Some(frame)) = split_frame(rest, PACKET_BYTES_MAX) {
            assert_eq!(
                rest.get(frame.len - frame.body.len()..frame.len),
                Some(frame.body)
            );
            if let Ok(packet) = decode(version, frame) {
                assert_reencodes(version, &packet, frame.len);
                look_at(version, &packet);
            }
            rest = &rest[frame.len..];
        }
    }
}

fn assert_reencodes(version: Version, packet: &Packet<'_>, len: usize) {
    let mut out = Vec::new();
    packet
        .encode(version, &mut out)
        .unwrap_or_else(|error| panic!("{version} {packet:?}: {error}"));
    // A DISCONNECT may come without property length, we write it.
    assert!(out.len() <= len + 1, "{version} {packet:?} grew");
    let frame = split_frame(&out, PACKET_BYTES_MAX)
        .expect("we wrote it")
        .expect("it is whole");
    assert_eq!(frame.len, out.len());
    assert_eq!(decode(version, frame).as_ref(), Ok(packet), "{version}");
}

fn look_at(version: Version, packet: &Packet<'_>) {
    match packet {
        Packet::Connect(connect) => {
            assert_listed(connect.properties);
            if let Some(will) = connect.will {
                assert_eq!(topic::validate_name(will.topic), Ok(()));
                assert_listed(will.properties);
            }
        }
        Packet::Publish(publish) => {
            assert_listed(publish.properties);
            assert_forwards(version, publish);
        }
        Packet::Subscribe(subscribe) => {
            assert!(subscribe.filters.count() > 0);
            assert_listed(subscribe.properties);
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert!(unsubscribe.filters.count() > 0);
            assert_listed(unsubscribe.properties);
        }
        Packet::ConnAck(connack) => assert_listed(connack.properties),
        Packet::Disconnect(disconnect) => assert_listed(disconnect.properties),
        Packet::Auth(auth) => assert_listed(auth.properties),
        _ => {}
    }
}

/// Going through them reaches the end.
fn assert_listed(properties: Properties<'_>) {
    let len: usize = properties
        .iter()
        .map(|property| property.encoded_len())
        .sum();
    assert_eq!(len, properties.as_bytes().len());
}

/// A broker can pass on whatever it took.
fn assert_forwards(version: Version, publish: &Publish<'_>) {
    let mut forwardable = Vec::new();
    publish_forwardable(publish.properties, &mut forwardable);
    let head = PublishHead {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: publish.topic,
        packet_id: publish.packet_id,
        forwardable: &forwardable,
        message_expiry: publish.properties.message_expiry(),
        subscription_ids: &[],
        topic_alias: publish.properties.topic_alias(),
    };
    let mut out = Vec::new();
    encode_publish(&mut out, version, &head, publish.payload).expect("was accepted");
    assert_eq!(
        out.len(),
        encoded_publish_len(version, &head, publish.payload.len())
    );
    let frame = split_frame(&out, PACKET_BYTES_MAX)
        .expect("we wrote it")
        .expect("it is whole");
    let Ok(Packet::Publish(forwarded)) = decode(version, frame) else {
        panic!("{publish:?} became {out:02X?}");
    };
    assert_eq!(
        (forwarded.topic, forwarded.payload, forwarded.packet_id),
        (publish.topic, publish.payload, publish.packet_id)
    );
}
