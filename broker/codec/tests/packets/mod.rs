//! One table of raw packets, well-formed and not, by section of the
//! specification. It drives the decode and encode tests and the seeds of the
//! fuzz target.
//!
//! Each case is the bytes as on the wire and what must come of them. Sections
//! are those of MQTT 5.0.

// Each test that includes this table uses its own part of it.
#![allow(dead_code)]

// A table is read by its columns: not formatted.
#[rustfmt::skip]
pub mod acks;
#[rustfmt::skip]
pub mod connack;
#[rustfmt::skip]
pub mod connect;
#[rustfmt::skip]
pub mod disconnect;
#[rustfmt::skip]
pub mod header;
#[rustfmt::skip]
pub mod publish;
#[rustfmt::skip]
pub mod subscribe;
#[rustfmt::skip]
pub mod types;

use std::num::NonZeroU16;

use codec::{
    EncodeError, Packet, Properties, PropertiesBuf, Property, ReasonCode, SubscribeFilter, Version,
    encode_subscribe, encode_unsubscribe,
};

/// One packet on the wire, and what it is.
#[derive(Debug, Clone)]
pub struct Case {
    /// Section of MQTT 5.0 that says so.
    pub section: &'static str,
    pub name: &'static str,
    /// The versions in which it is so.
    pub versions: &'static [Version],
    pub bytes: &'static [u8],
    pub expect: Expect,
    /// How we write the same packet, if not as `bytes`.
    pub canonical: Option<&'static [u8]>,
}

#[derive(Debug, Clone, Copy)]
pub enum Expect {
    Packet(Packet<'static>),
    Subscribe {
        packet_id: NonZeroU16,
        properties: Properties<'static>,
        filters: &'static [SubscribeFilter<'static>],
    },
    Unsubscribe {
        packet_id: NonZeroU16,
        properties: Properties<'static>,
        filters: &'static [&'static str],
    },
    Refused {
        reason: ReasonCode,
        /// `None`: the error names no clause of its own.
        clause: Option<&'static str>,
    },
}

pub const V3: &[Version] = &[Version::V31, Version::V311];
pub const V31: &[Version] = &[Version::V31];
pub const V311: &[Version] = &[Version::V311];
pub const V311_AND_V5: &[Version] = &[Version::V311, Version::V5];
pub const V5: &[Version] = &[Version::V5];
pub const ALL: &[Version] = &Version::ALL;

/// The whole table.
pub fn cases() -> Vec<Case> {
    [
        types::cases(),
        header::cases(),
        connect::cases(),
        connack::cases(),
        publish::cases(),
        acks::cases(),
        subscribe::cases(),
        disconnect::cases(),
    ]
    .concat()
}

impl Case {
    pub fn is_well_formed(&self) -> bool {
        !matches!(self.expect, Expect::Refused { .. })
    }

    pub fn title(&self) -> String {
        format!("{} {}", self.section, self.name)
    }

    pub fn written(mut self, canonical: &'static [u8]) -> Case {
        self.canonical = Some(canonical);
        self
    }
}

impl Expect {
    /// Writes the packet, if it is one.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match *self {
            Expect::Packet(packet) => packet.encode(version, out),
            Expect::Subscribe {
                packet_id,
                properties,
                filters,
            } => encode_subscribe(out, version, packet_id, properties, filters.iter().copied()),
            Expect::Unsubscribe {
                packet_id,
                properties,
                filters,
            } => encode_unsubscribe(out, version, packet_id, properties, filters.iter().copied()),
            Expect::Refused { .. } => Ok(()),
        }
    }

    #[track_caller]
    pub fn assert_is(&self, packet: &Packet<'_>, title: &str) {
        match (packet, self) {
            (packet, Expect::Packet(expected)) => assert_eq!(packet, expected, "{title}"),
            (
                Packet::Subscribe(subscribe),
                Expect::Subscribe {
                    packet_id,
                    properties,
                    filters,
                },
            ) => {
                assert_eq!(subscribe.packet_id, *packet_id, "{title}");
                assert_eq!(subscribe.properties, *properties, "{title}");
                let got: Vec<_> = subscribe.filters.iter().collect();
                assert_eq!(got, *filters, "{title}");
                assert_eq!(subscribe.filters.count(), filters.len(), "{title}");
            }
            (
                Packet::Unsubscribe(unsubscribe),
                Expect::Unsubscribe {
                    packet_id,
                    properties,
                    filters,
                },
            ) => {
                assert_eq!(unsubscribe.packet_id, *packet_id, "{title}");
                assert_eq!(unsubscribe.properties, *properties, "{title}");
                let got: Vec<_> = unsubscribe.filters.iter().collect();
                assert_eq!(got, *filters, "{title}");
                assert_eq!(unsubscribe.filters.count(), filters.len(), "{title}");
            }
            (packet, expect) => panic!("{title}: expected {expect:?}, got {packet:?}"),
        }
    }
}

/// A well-formed packet, in the versions given.
pub fn good(
    section: &'static str,
    name: &'static str,
    versions: &'static [Version],
    bytes: &'static [u8],
    packet: Packet<'static>,
) -> Case {
    expect(section, name, versions, bytes, Expect::Packet(packet))
}

/// A packet that cannot be parsed.
pub fn malformed(
    section: &'static str,
    name: &'static str,
    versions: &'static [Version],
    bytes: &'static [u8],
    clause: &'static str,
) -> Case {
    let (reason, clause) = (ReasonCode::MALFORMED_PACKET, Some(clause));
    let refused = Expect::Refused { reason, clause };
    expect(section, name, versions, bytes, refused)
}

/// A packet that says what is not allowed.
pub fn protocol(
    section: &'static str,
    name: &'static str,
    versions: &'static [Version],
    bytes: &'static [u8],
    clause: &'static str,
) -> Case {
    let (reason, clause) = (ReasonCode::PROTOCOL_ERROR, Some(clause));
    let refused = Expect::Refused { reason, clause };
    expect(section, name, versions, bytes, refused)
}

/// A packet that is refused with a reason code of its own.
pub fn refused(
    section: &'static str,
    name: &'static str,
    versions: &'static [Version],
    bytes: &'static [u8],
    reason: ReasonCode,
) -> Case {
    let clause = None;
    let refused = Expect::Refused { reason, clause };
    expect(section, name, versions, bytes, refused)
}

pub fn expect(
    section: &'static str,
    name: &'static str,
    versions: &'static [Version],
    bytes: &'static [u8],
    expect: Expect,
) -> Case {
    Case {
        section,
        name,
        versions,
        bytes,
        expect,
        canonical: None,
    }
}

/// Properties that live as long as the table.
pub fn properties(list: &[Property<'_>]) -> Properties<'static> {
    let mut buf = PropertiesBuf::new();
    for &property in list {
        buf.push(property).expect("the table's values are valid");
    }
    Properties::from_validated(buf.into_bytes().leak())
}

pub fn id(packet_id: u16) -> NonZeroU16 {
    NonZeroU16::new(packet_id).expect("the table's identifiers are not 0")
}
