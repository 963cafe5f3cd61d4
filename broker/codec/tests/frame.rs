//! The fixed header: sizes are judged before anything is buffered.

use codec::{DecodeError, HEADER_BYTES_MAX, PACKET_BYTES_MAX, PacketType, ReasonCode, split_frame};

#[test]
fn a_packet_of_256_mb_is_refused_at_its_fifth_byte() {
    let header = b"\x30\xFF\xFF\xFF\x7F";
    for bytes in 0..header.len() {
        assert_eq!(split_frame(&header[..bytes], 1_048_576), Ok(None));
    }
    let error = split_frame(header, 1_048_576).expect_err("too large");
    assert_eq!(
        error,
        DecodeError::TooLarge {
            len: 268_435_460,
            max: 1_048_576
        }
    );
    assert_eq!(error.reason(), ReasonCode::PACKET_TOO_LARGE);
    assert_eq!(split_frame(header, PACKET_BYTES_MAX), Ok(None));
    assert_eq!(PACKET_BYTES_MAX, 268_435_455 + HEADER_BYTES_MAX as u32);
}

#[test]
fn the_maximum_counts_the_fixed_header_too() {
    let packet = b"\x30\x05\0\x01t\0p";
    assert_eq!(packet.len(), 7);
    assert!(split_frame(packet, 7).expect("fits").is_some());
    assert_eq!(
        split_frame(packet, 6),
        Err(DecodeError::TooLarge { len: 7, max: 6 })
    );
    // A maximum of 0 lets nothing pass.
    assert_eq!(
        split_frame(b"\xC0\0", 0),
        Err(DecodeError::TooLarge { len: 2, max: 0 })
    );
}

#[test]
fn nothing_is_known_of_an_empty_buffer() {
    assert_eq!(split_frame(b"", 0), Ok(None));
}

#[test]
fn the_first_byte_alone_is_enough_to_refuse() {
    for first in 0..=u8::MAX {
        let flags = first & 0x0F;
        let possible = match PacketType::from_first_byte(first) {
            None => false,
            // They are for 3.1 to ignore, and looked at with the version.
            Some(PacketType::Connect) => flags & 6 != 6,
            Some(PacketType::Publish) => ![6, 7, 8, 9, 14, 15].contains(&flags),
            // DUP is for 3.1 and looked at with the version.
            Some(PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe) => {
                [0b0010, 0b1010].contains(&flags)
            }
            Some(_) => flags == 0,
        };
        let bytes = [first];
        let split = split_frame(&bytes, PACKET_BYTES_MAX);
        assert_eq!(split.is_ok(), possible, "{first:#04X}: {split:?}");
    }
}

#[test]
fn many_packets_in_one_buffer_come_out_one_by_one() {
    let buffer = b"\xC0\0\x40\x02\0\x07\x30\x05\0\x01t\0p\xE0\0\x30";
    let mut rest = &buffer[..];
    let mut seen = Vec::new();
    while let Some(frame) = split_frame(rest, PACKET_BYTES_MAX).expect("well-formed") {
        seen.push((frame.first, frame.body, frame.len));
        rest = &rest[frame.len..];
    }
    assert_eq!(
        seen,
        [
            (0xC0, &b""[..], 2),
            (0x40, b"\0\x07", 4),
            (0x30, b"\0\x01t\0p", 7),
            (0xE0, b"", 2),
        ]
    );
    assert_eq!(rest, b"\x30");
}

#[test]
fn types_have_their_names() {
    let names: Vec<&str> = (1..16)
        .filter_map(|number| PacketType::from_first_byte(number << 4))
        .map(PacketType::name)
        .collect();
    assert_eq!(
        names.join(" "),
        "CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE \
         UNSUBACK PINGREQ PINGRESP DISCONNECT AUTH"
    );
}
