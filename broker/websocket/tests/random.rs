//! Streams of any bytes, sound, damaged or neither: nothing panics, nothing grows, and it does not matter where they are cut.

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use support::{FIN, MASK, REQUEST, frame, opened, outcome};
use websocket::{Client, Greeting, Server};

/// A pong of the longest kind, and a close frame.
const SAID_BYTES_MAX: usize = 2 + 125 + 4;

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => Just(FIN | 2),
        2 => prop_oneof![Just(2_u8), Just(0), Just(FIN)],
        2 => Just(FIN | 9),
        1 => Just(FIN | 8),
        1 => any::<u8>(),
    ];
    let mask = prop_oneof![9 => Just(Some(MASK)), 1 => Just(None)];
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..140),
        Just(b"\x03\xE8".to_vec()),
        proptest::collection::vec(any::<u8>(), 400..600),
    ];
    (first, mask, payload).prop_map(|(first, mask, payload)| frame(first, mask, &payload))
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let frames = proptest::collection::vec(any_frame(), 0..12).prop_map(|frames| frames.concat());
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let damaged = (frames, damage).prop_map(|(mut bytes, damage)| {
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    });
    prop_oneof![4 => damaged, 1 => proptest::collection::vec(any::<u8>(), 0..300)]
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![1..4_usize, 1..100_usize], 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_becomes_of_a_stream_does_not_depend_on_where_it_is_cut(
        stream in stream(), pieces in pieces(),
    ) {
        let whole = outcome(opened(), &stream, []);
        prop_assert!(whole.payload.len() <= stream.len());
        prop_assert!(whole.said.len() <= SAID_BYTES_MAX);
        let cut = outcome(opened(), &stream, pieces);
        prop_assert_eq!((&cut.payload, cut.end), (&whole.payload, whole.end));
        // Of several pings in one piece the latest is answered.
        prop_assert!(cut.said.ends_with(&whole.said) && cut.said.len() <= stream.len() + 4);
    }

    #[test]
    fn neither_does_a_request_that_is_damaged(
        at in 0..REQUEST.len(), byte in any::<u8>(), stream in stream(), pieces in pieces(),
    ) {
        let mut bytes = REQUEST.as_bytes().to_vec();
        bytes[at] = byte;
        bytes.extend(stream);
        let server = || Server::new(Arc::default());
        let (whole, cut) = (outcome(server(), &bytes, []), outcome(server(), &bytes, pieces));
        prop_assert_eq!((cut.payload, cut.end), (whole.payload, whole.end));
    }

    #[test]
    fn a_client_survives_any_server(stream in stream(), pieces in pieces()) {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let greeting = Greeting { host: "h", path: "/", protocol: "mqtt", seed: 3 };
        let mut client = Client::new(greeting);
        let mut rest = &stream[..];
        for piece in pieces.into_iter().chain([usize::MAX]) {
            let (piece, behind) = rest.split_at(piece.min(rest.len()));
            client.receive(&mut piece.to_vec(), &mut up, &mut down);
            rest = behind;
        }
        prop_assert!(up.len() + down.len() <= stream.len() + 8);
    }
}
