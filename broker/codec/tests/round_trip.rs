//! Properties that hold for all packets and for all bytes.

mod arbitrary;
mod packets;
mod sound;

use codec::{
    DecodeError, PACKET_BYTES_MAX, Packet, Properties, Publish, PublishHead, Version, decode,
    encode_publish, encoded_publish_len, publish_forwardable, split_frame,
};
use packets::{Expect, cases};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sound::assert_sound;

fn any_version() -> impl Strategy<Value = Version> {
    select(&Version::ALL[..])
}

fn packet_and_version() -> impl Strategy<Value = (Version, Expect)> {
    any_version().prop_flat_map(|version| (Just(version), arbitrary::packet(version)))
}

/// Takes packets off the front as they become whole.
fn drain<'a>(version: Version, buffer: &mut &'a [u8]) -> Result<Vec<Packet<'a>>, DecodeError> {
    let mut packets = Vec::new();
    while let Some(frame) = split_frame(buffer, PACKET_BYTES_MAX)? {
        packets.push(decode(version, frame)?);
        *buffer = &buffer[frame.len..];
    }
    Ok(packets)
}

#[test]
fn every_packet_of_the_table_is_sound_in_every_version() {
    for case in cases() {
        assert_sound(case.bytes);
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same((version, packet) in packet_and_version()) {
        let mut out = Vec::new();
        packet.encode(version, &mut out).expect("a valid packet");
        let mut rest = &out[..];
        let decoded = drain(version, &mut rest).expect("what we write, we read");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(decoded.len(), 1);
        packet.assert_is(&decoded[0], "round trip");
    }

    #[test]
    fn fed_in_pieces_equals_fed_at_once(
        (version, packets) in any_version()
            .prop_flat_map(|v| (Just(v), vec(arbitrary::packet(v), 1..6))),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let mut stream = Vec::new();
        for packet in &packets {
            packet.encode(version, &mut stream).expect("a valid packet");
        }
        let mut rest = &stream[..];
        let at_once = drain(version, &mut rest).expect("what we write, we read");
        prop_assert_eq!(at_once.len(), packets.len());

        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        // Every byte alone where the stream is short enough to try.
        if stream.len() < 2_000 {
            ends = (1..=stream.len()).collect();
        }
        let mut in_pieces = Vec::new();
        let mut start = 0;
        for end in ends {
            let mut buffered = &stream[start..end];
            in_pieces.extend(drain(version, &mut buffered).expect("what we write, we read"));
            start = end - buffered.len();
        }
        prop_assert_eq!(start, stream.len());
        prop_assert_eq!(in_pieces, at_once);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        assert_sound(&bytes);
    }

    #[test]
    fn random_bodies_of_each_packet_never_panic(
        first in any::<u8>(),
        body in vec(prop_oneof![any::<u8>(), 0..8_u8], 0..120),
    ) {
        let len = u8::try_from(body.len()).expect("short");
        let bytes = [&[first, len], &body[..]].concat();
        assert_sound(&bytes);
    }

    #[test]
    fn damaged_packets_never_panic(
        (version, packet) in packet_and_version(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).expect("a valid packet");
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        assert_sound(&bytes);
    }

    #[test]
    fn damaged_packets_of_the_table_never_panic(
        case in any::<Index>(),
        at in any::<Index>(),
        byte in any::<u8>(),
    ) {
        let cases = cases();
        let mut bytes = cases[case.index(cases.len())].bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        assert_sound(&bytes);
    }

    /// The broker's way to write a PUBLISH against the plain one.
    #[test]
    fn a_forwarded_publish_has_all_that_must_be_forwarded(
        (version, packet) in packet_and_version(),
        to in any_version(),
        expiry in proptest::option::of(any::<u32>()),
        alias in proptest::option::of(1..=u16::MAX),
        subscription_ids in vec(1..=268_435_455_u32, 0..4),
    ) {
        let Expect::Packet(Packet::Publish(publish)) = packet else { return Ok(()) };
        prop_assume!(!publish.topic.is_empty());
        let mut forwardable = Vec::new();
        publish_forwardable(publish.properties, &mut forwardable);
        let head = PublishHead {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: publish.topic,
            packet_id: publish.packet_id,
            forwardable: &forwardable,
            message_expiry: expiry,
            subscription_ids: &subscription_ids,
            topic_alias: alias,
        };
        let mut out = b"before".to_vec();
        let packet_id_at = encode_publish(&mut out, to, &head, publish.payload).expect("valid");
        match publish.packet_id {
            Some(id) => prop_assert_eq!(&out[packet_id_at..][..2], &id.get().to_be_bytes()),
            None => prop_assert_eq!(packet_id_at, 0),
        }
        let bytes = out.strip_prefix(b"before").expect("only appends");
        prop_assert_eq!(bytes.len(), encoded_publish_len(to, &head, publish.payload.len()));
        let mut rest = bytes;
        let decoded = drain(to, &mut rest).expect("what we write, we read");
        let [Packet::Publish(forwarded)] = decoded[..] else { panic!("{decoded:?}") };
        prop_assert_eq!(
            Publish { properties: Properties::EMPTY, ..forwarded },
            Publish { properties: Properties::EMPTY, ..publish }
        );
        let (before, after) = (publish.properties, forwarded.properties);
        if version == Version::V5 && to == Version::V5 {
            prop_assert_eq!(after.payload_format(), before.payload_format());
            prop_assert_eq!(after.content_type(), before.content_type());
            prop_assert_eq!(after.response_topic(), before.response_topic());
            prop_assert_eq!(after.correlation_data(), before.correlation_data());
            let user = |p: Properties<'_>| -> Vec<(String, String)> {
                p.user_properties().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
            };
            prop_assert_eq!(user(after), user(before));
        }
        if to == Version::V5 {
            prop_assert_eq!(after.message_expiry(), expiry);
            prop_assert_eq!(after.topic_alias(), alias);
            prop_assert_eq!(after.subscription_identifiers().collect::<Vec<_>>(), subscription_ids);
        } else {
            prop_assert!(after.is_empty());
        }
    }
}
