//! What cannot be written is refused, and nothing of it is written.

use std::num::NonZeroU16;

use codec::{
    Ack, Auth, ConnAck, Connect, Disconnect, EncodeError, Packet, Properties, PropertiesBuf,
    Property, Publish, PublishHead, Qos, ReasonCode, SubAck, SubscribeFilter, SubscriptionOptions,
    UnsubAck, Version, Will, encode_publish, encode_subscribe, encode_unsubscribe,
};

const ID: NonZeroU16 = NonZeroU16::MIN;

const CONNECT: Connect<'static> = Connect {
    version: Version::V311,
    clean_start: true,
    keep_alive: 60,
    client_id: "c",
    will: None,
    username: None,
    password: None,
    properties: Properties::EMPTY,
};

const WILL: Will<'static> = Will {
    topic: "w",
    payload: b"",
    qos: Qos::AtMostOnce,
    retain: false,
    properties: Properties::EMPTY,
};

const PUBLISH: Publish<'static> = Publish {
    dup: false,
    qos: Qos::AtMostOnce,
    retain: false,
    topic: "t",
    packet_id: None,
    properties: Properties::EMPTY,
    payload: b"",
};

#[track_caller]
fn refused(version: Version, packet: Packet<'_>) -> EncodeError {
    let mut out = b"before".to_vec();
    let error = packet
        .encode(version, &mut out)
        .expect_err("cannot be written");
    assert_eq!(out, b"before", "{error}");
    error
}

#[test]
fn strings_that_do_not_fit() {
    let long = "x".repeat(65_536);
    let too_long = |connect| {
        let error = refused(Version::V311, Packet::Connect(connect));
        assert!(
            matches!(error, EncodeError::FieldTooLong { len: 65_536, .. }),
            "{error}"
        );
    };
    too_long(Connect {
        client_id: &long,
        ..CONNECT
    });
    too_long(Connect {
        username: Some(&long),
        ..CONNECT
    });
    too_long(Connect {
        username: Some("u"),
        password: Some(long.as_bytes()),
        ..CONNECT
    });
    too_long(Connect {
        will: Some(Will {
            payload: long.as_bytes(),
            ..WILL
        }),
        ..CONNECT
    });
    let publish = Publish {
        topic: &long,
        ..PUBLISH
    };
    let error = refused(Version::V5, Packet::Publish(publish));
    assert_eq!(
        error.to_string(),
        "topic name of 65536 bytes is longer than the possible 65,535 bytes"
    );
}

#[test]
fn a_packet_larger_than_any() {
    let payload = vec![0; 268_435_455];
    let publish = Publish {
        payload: &payload,
        ..PUBLISH
    };
    assert_eq!(
        refused(Version::V311, Packet::Publish(publish)),
        EncodeError::TooLarge { len: 268_435_458 }
    );
    let head = PublishHead {
        topic: "t",
        ..PublishHead::default()
    };
    let mut out = Vec::new();
    assert_eq!(
        encode_publish(&mut out, Version::V5, &head, &payload),
        Err(EncodeError::TooLarge { len: 268_435_459 })
    );
    assert!(out.is_empty());
}

#[test]
fn names_and_strings_that_are_none() {
    for topic in ["", "a/+", "#", "a\0"] {
        let publish = Packet::Publish(Publish { topic, ..PUBLISH });
        refused(Version::V311, publish);
        refused(Version::V5, publish);
        let will = Some(Will { topic, ..WILL });
        refused(Version::V5, Packet::Connect(Connect { will, ..CONNECT }));
    }
    refused(
        Version::V311,
        Packet::Connect(Connect {
            client_id: "a\0",
            ..CONNECT
        }),
    );
    refused(
        Version::V311,
        Packet::Connect(Connect {
            username: Some("a\0"),
            ..CONNECT
        }),
    );
}

#[test]
fn packet_identifiers_and_qos_that_do_not_fit() {
    let with = |dup, qos, packet_id| {
        refused(
            Version::V311,
            Packet::Publish(Publish {
                dup,
                qos,
                packet_id,
                ..PUBLISH
            }),
        );
        let head = PublishHead {
            dup,
            qos,
            packet_id,
            topic: "t",
            ..PublishHead::default()
        };
        let mut out = Vec::new();
        encode_publish(&mut out, Version::V311, &head, b"").expect_err("cannot be written");
        assert!(out.is_empty());
    };
    with(false, Qos::AtMostOnce, Some(ID));
    with(true, Qos::AtMostOnce, None);
    with(false, Qos::AtLeastOnce, None);
    with(true, Qos::ExactlyOnce, None);
}

#[test]
fn a_forwarded_publish_that_does_not_fit() {
    let mut out = Vec::new();
    let good = PublishHead {
        topic: "t",
        topic_alias: Some(1),
        ..PublishHead::default()
    };
    for (version, head) in [
        (Version::V311, PublishHead { topic: "", ..good }),
        (
            Version::V5,
            PublishHead {
                topic: "",
                topic_alias: None,
                ..good
            },
        ),
        (
            Version::V5,
            PublishHead {
                topic_alias: Some(0),
                ..good
            },
        ),
        (
            Version::V5,
            PublishHead {
                subscription_ids: &[1, 0],
                ..good
            },
        ),
        (
            Version::V5,
            PublishHead {
                subscription_ids: &[268_435_456],
                ..good
            },
        ),
    ] {
        encode_publish(&mut out, version, &head, b"").expect_err("cannot be written");
        assert!(out.is_empty());
    }
    encode_publish(
        &mut out,
        Version::V5,
        &PublishHead { topic: "", ..good },
        b"",
    )
    .expect("an alias is enough in 5.0");
    assert_eq!(out, b"\x30\x06\0\0\x03\x23\0\x01");
}

#[test]
fn what_a_version_does_not_have() {
    let connect = Connect {
        password: Some(b"p"),
        ..CONNECT
    };
    let error = refused(Version::V311, Packet::Connect(connect));
    assert_eq!(
        error.to_string(),
        "MQTT 3.1.1 has no password without a user name"
    );
    let auth = Auth {
        reason: ReasonCode::SUCCESS,
        properties: Properties::EMPTY,
    };
    let error = refused(Version::V31, Packet::Auth(auth));
    assert_eq!(error.to_string(), "MQTT 3.1 has no AUTH packet");
}

#[test]
fn connack_in_3x_has_a_return_code_or_cannot_be_sent() {
    for &reason in ReasonCode::ALL {
        let connack = Packet::ConnAck(ConnAck {
            session_present: false,
            reason,
            properties: Properties::EMPTY,
        });
        let expected = match reason.0 {
            0x00 => Some(0),
            0x84 => Some(1),
            0x85 => Some(2),
            0x88 | 0x89 | 0x97 | 0x9C | 0x9D | 0x9F => Some(3),
            0x86 => Some(4),
            0x87 | 0x8A | 0x8C => Some(5),
            _ => None,
        };
        for version in [Version::V31, Version::V311] {
            match expected {
                Some(code) => {
                    let mut out = Vec::new();
                    connack.encode(version, &mut out).expect("has a code");
                    assert_eq!(out, [0x20, 2, 0, code], "{reason}");
                }
                None => {
                    refused(version, connack);
                }
            }
        }
    }
}

#[test]
fn session_present_is_left_out_in_3_1_and_refused_with_a_failure() {
    let connack = ConnAck {
        session_present: true,
        reason: ReasonCode::SUCCESS,
        properties: Properties::EMPTY,
    };
    let mut out = Vec::new();
    Packet::ConnAck(connack)
        .encode(Version::V31, &mut out)
        .expect("can be left out");
    assert_eq!(out, [0x20, 2, 0, 0]);
    for version in Version::ALL {
        let reason = ReasonCode::NOT_AUTHORIZED;
        refused(version, Packet::ConnAck(ConnAck { reason, ..connack }));
    }
}

#[test]
fn reason_codes_of_other_packets() {
    let properties = Properties::EMPTY;
    let ack = |reason| Ack {
        packet_id: ID,
        reason,
        properties,
    };
    for packet in [
        Packet::PubAck(ack(ReasonCode::PACKET_IDENTIFIER_NOT_FOUND)),
        Packet::PubRec(ack(ReasonCode::KEEP_ALIVE_TIMEOUT)),
        Packet::PubRel(ack(ReasonCode::QUOTA_EXCEEDED)),
        Packet::PubComp(ack(ReasonCode(0x7F))),
        Packet::ConnAck(ConnAck {
            session_present: false,
            reason: ReasonCode::SESSION_TAKEN_OVER,
            properties,
        }),
        Packet::SubAck(SubAck {
            packet_id: ID,
            properties,
            reasons: &[0, 3],
        }),
        Packet::SubAck(SubAck {
            packet_id: ID,
            properties,
            reasons: &[],
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: ID,
            properties,
            reasons: &[0x01],
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: ID,
            properties,
            reasons: &[],
        }),
        Packet::Disconnect(Disconnect {
            reason: ReasonCode::BANNED,
            properties,
        }),
        Packet::Auth(Auth {
            reason: ReasonCode::NOT_AUTHORIZED,
            properties,
        }),
        Packet::Auth(Auth {
            reason: ReasonCode::CONTINUE_AUTHENTICATION,
            properties,
        }),
    ] {
        refused(Version::V5, packet);
    }
}

#[test]
fn every_failure_of_a_subscription_is_0x80_in_3x() {
    let suback = Packet::SubAck(SubAck {
        packet_id: ID,
        properties: Properties::EMPTY,
        reasons: &[
            0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
        ],
    });
    for version in [Version::V31, Version::V311] {
        let mut out = Vec::new();
        suback.encode(version, &mut out).expect("valid");
        assert_eq!(out[..7], [0x90, 14, 0, 1, 0, 1, 2]);
        assert!(out[7..].len() == 9 && out[7..].iter().all(|&code| code == 0x80));
    }
}

#[test]
fn what_3x_cannot_say_is_left_out() {
    let mut why = PropertiesBuf::new();
    why.push(Property::ReasonString("why")).expect("valid");
    let mut out = Vec::new();
    for packet in [
        Packet::PubAck(Ack {
            packet_id: ID,
            reason: ReasonCode::QUOTA_EXCEEDED,
            properties: why.as_properties(),
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: ID,
            properties: why.as_properties(),
            reasons: &[0x11],
        }),
        Packet::Disconnect(Disconnect {
            reason: ReasonCode::SERVER_SHUTTING_DOWN,
            properties: why.as_properties(),
        }),
    ] {
        packet.encode(Version::V311, &mut out).expect("valid");
    }
    assert_eq!(out, b"\x40\x02\0\x01\xB0\x02\0\x01\xE0\0");
}

#[test]
fn subscribe_and_unsubscribe_that_are_none() {
    let mut out = Vec::new();
    let none = Properties::EMPTY;
    let filter = |filter, no_local| SubscribeFilter {
        filter,
        options: SubscriptionOptions {
            no_local,
            ..SubscriptionOptions::default()
        },
    };
    let mut subscribe = |version, filters: &[SubscribeFilter<'_>]| {
        let filters = filters.iter().copied();
        encode_subscribe(&mut out, version, ID, none, filters)
    };
    subscribe(Version::V311, &[]).expect_err("no filter");
    subscribe(Version::V311, &[filter("a\0", false)]).expect_err("U+0000");
    subscribe(
        Version::V5,
        &[filter("a", true), filter("$share/g/a", true)],
    )
    .expect_err("no local on a shared subscription");
    assert!(out.is_empty());

    encode_unsubscribe(&mut out, Version::V311, ID, none, [].into_iter()).expect_err("no filter");
    encode_unsubscribe(&mut out, Version::V311, ID, none, ["a", "b\0"].into_iter())
        .expect_err("U+0000");
    assert!(out.is_empty());
}
