//! Every packet of the table, decoded and encoded, whole and in pieces.

mod packets;

use codec::{
    DecodeError, Frame, PACKET_BYTES_MAX, Packet, PacketType, Property, Version, decode,
    split_frame,
};
use packets::{Case, Expect, cases};

/// Both steps at once, for bytes that hold one whole packet.
fn decode_bytes(version: Version, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    let frame = split_frame(bytes, PACKET_BYTES_MAX)?.expect("the packet is whole");
    assert_eq!(frame.len, bytes.len(), "the packet has another length");
    decode(version, frame)
}

fn each(mut check: impl FnMut(&Case, Version, &str)) {
    for case in cases() {
        for &version in case.versions {
            check(&case, version, &format!("{version}: {}", case.title()));
        }
    }
}

fn clause(error: DecodeError) -> Option<&'static str> {
    match error {
        DecodeError::Malformed { clause, .. } | DecodeError::Protocol { clause, .. } => {
            Some(clause)
        }
        _ => None,
    }
}

#[test]
fn decodes_to_what_the_table_says() {
    each(
        |case, version, title| match (decode_bytes(version, case.bytes), &case.expect) {
            (
                Err(error),
                Expect::Refused {
                    reason,
                    clause: expected,
                },
            ) => {
                assert_eq!(error.reason(), *reason, "{title}: {error}");
                assert_eq!(clause(error), *expected, "{title}: {error}");
            }
            (Ok(packet), expect) => expect.assert_is(&packet, title),
            (Err(error), _) => panic!("{title}: {error}"),
        },
    );
}

#[test]
fn encodes_to_what_the_table_says() {
    each(|case, version, title| {
        if !case.is_well_formed() {
            return;
        }
        let mut out = b"before".to_vec();
        case.expect
            .encode(version, &mut out)
            .unwrap_or_else(|error| panic!("{title}: {error}"));
        let bytes = out.strip_prefix(b"before").expect("only appends");
        assert_eq!(bytes, case.canonical.unwrap_or(case.bytes), "{title}");
    });
}

#[test]
fn a_decoded_packet_encodes_to_the_same_packet() {
    each(|case, version, title| {
        if let Ok(packet) = decode_bytes(version, case.bytes) {
            let mut out = Vec::new();
            packet.encode(version, &mut out).expect(title);
            assert_eq!(out, case.canonical.unwrap_or(case.bytes), "{title}");
            let again = decode_bytes(version, &out).expect(title);
            case.expect.assert_is(&again, title);
        }
    });
}

#[test]
fn fed_byte_by_byte_nothing_comes_before_the_last_byte() {
    each(|case, _, title| {
        let whole = split_frame(case.bytes, PACKET_BYTES_MAX);
        for cut in 0..case.bytes.len() {
            match split_frame(&case.bytes[..cut], PACKET_BYTES_MAX) {
                Ok(None) => {}
                // What is wrong in the fixed header is known early.
                Err(error) => assert_eq!(Err(error), whole, "{title}: after {cut} bytes"),
                Ok(Some(frame)) => panic!("{title}: {frame:?} after {cut} bytes"),
            }
        }
        let mut more = case.bytes.to_vec();
        more.extend_from_slice(b"\xC0\0");
        assert_eq!(split_frame(&more, PACKET_BYTES_MAX), whole, "{title}");
    });
}

#[test]
fn a_packet_cut_short_is_refused_or_another_packet_but_never_a_panic() {
    each(|case, version, title| {
        let Ok(Some(frame)) = split_frame(case.bytes, PACKET_BYTES_MAX) else {
            return;
        };
        for cut in 0..frame.body.len() {
            let short = Frame {
                body: &frame.body[..cut],
                len: frame.len - frame.body.len() + cut,
                ..frame
            };
            if let Ok(packet) = decode(version, short) {
                let mut out = Vec::new();
                packet.encode(version, &mut out).expect(title);
                assert_eq!(decode_bytes(version, &out), Ok(packet), "{title}");
            }
        }
    });
}

#[test]
fn the_table_has_each_packet_of_each_version_in_both_kinds() {
    for version in Version::ALL {
        for number in 1..=15 {
            let kind = PacketType::from_first_byte(number << 4).expect("15 types");
            if kind == PacketType::Auth && version != Version::V5 {
                continue;
            }
            for well_formed in [true, false] {
                assert!(
                    cases().iter().any(|case| {
                        case.bytes[0] >> 4 == number
                            && case.versions.contains(&version)
                            && case.is_well_formed() == well_formed
                    }),
                    "no {} of {version}, well-formed: {well_formed}",
                    kind.name()
                );
            }
        }
    }
}

#[test]
fn the_table_has_each_property() {
    let mut seen = std::collections::BTreeSet::new();
    for case in cases() {
        let properties = match case.expect {
            Expect::Packet(packet) => match packet {
                Packet::Connect(packet) => {
                    let will = packet.will.map(|will| will.properties).unwrap_or_default();
                    seen.extend(will.iter().map(|property| property.id()));
                    packet.properties
                }
                Packet::ConnAck(packet) => packet.properties,
                Packet::Publish(packet) => packet.properties,
                Packet::Disconnect(packet) => packet.properties,
                Packet::Auth(packet) => packet.properties,
                _ => continue,
            },
            _ => continue,
        };
        seen.extend(
            properties
                .iter()
                .map(|property: Property<'_>| property.id()),
        );
    }
    assert_eq!(seen.len(), 27, "{seen:02X?}");
}

#[test]
fn the_tables_titles_are_unique() {
    let mut titles: Vec<String> = cases().iter().map(Case::title).collect();
    titles.sort_unstable();
    let all = titles.len();
    titles.dedup();
    assert_eq!(titles.len(), all);
}
