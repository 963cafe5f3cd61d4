//! Frames of a client, one rule after the other.

mod support;

use support::{
    BINARY, CLOSE, CONTINUATION, FIN, MASK, Outcome, PING, PONG, TEXT, frame, head, masked, opened,
    outcome, receive,
};
use websocket::{Close, End, FRAME_BYTES_MAX, FRAME_OUT_BYTES_MAX, Violation};

/// The same, however the bytes are cut in two and byte by byte.
fn always(bytes: &[u8]) -> Outcome {
    let whole = outcome(opened(), bytes, []);
    for cut in 0..bytes.len() {
        assert_eq!(outcome(opened(), bytes, [cut]), whole, "cut at {cut}");
    }
    assert_eq!(outcome(opened(), bytes, vec![1; bytes.len()]), whole);
    whole
}

fn close_frame(code: u16) -> Vec<u8> {
    frame(FIN | CLOSE, None, &code.to_be_bytes())
}

fn broken(bytes: &[u8], violation: Violation, code: u16) {
    // What came before it counts, and what comes behind it does not.
    let stream = [
        &masked(FIN | BINARY, b"before"),
        bytes,
        &masked(FIN | BINARY, b"behind"),
    ]
    .concat();
    let expected = Outcome {
        payload: b"before".to_vec(),
        end: Some(End::Broken(violation)),
        said: close_frame(code),
    };
    assert_eq!(always(&stream), expected, "{violation}");
}

#[test]
fn the_payload_of_binary_messages_is_one_stream() {
    let large: Vec<u8> = (0..70_000_u32).map(|n| n as u8).collect();
    let stream = [
        masked(FIN | BINARY, b"ab"),
        masked(FIN | BINARY, b""),
        masked(BINARY, b"cd"),
        masked(CONTINUATION, b""),
        masked(CONTINUATION, b"e"),
        masked(FIN | CONTINUATION, b"f"),
        masked(FIN | BINARY, &large[..200]),
    ]
    .concat();
    let expected = [b"abcdef", &large[..200]].concat();
    assert_eq!(
        always(&stream),
        Outcome {
            payload: expected,
            end: None,
            said: Vec::new()
        }
    );
    let whole = outcome(opened(), &masked(FIN | BINARY, &large), [7, 60_000]);
    assert_eq!(whole.payload, large);
}

#[test]
fn a_ping_within_a_fragmented_message_is_answered_and_does_not_disturb_it() {
    let stream = [
        masked(BINARY, b"ab"),
        masked(FIN | PING, b"are you there?"),
        masked(FIN | PONG, b"nobody asked"),
        masked(FIN | CONTINUATION, b"cd"),
    ]
    .concat();
    let pong = frame(FIN | PONG, None, b"are you there?");
    assert_eq!(
        always(&stream),
        Outcome {
            payload: b"abcd".to_vec(),
            end: None,
            said: pong
        }
    );
    assert_eq!(
        always(&masked(FIN | PING, b"")).said,
        frame(FIN | PONG, None, b"")
    );
    let longest = [7; 125];
    assert_eq!(
        always(&masked(FIN | PING, &longest)).said,
        frame(FIN | PONG, None, &longest)
    );
}

#[test]
fn of_100_000_pings_the_latest_of_each_read_is_answered() {
    let pings = (0..100_000_u32).flat_map(|number| masked(FIN | PING, &number.to_be_bytes()));
    let pings: Vec<u8> = pings.collect();
    let latest = frame(FIN | PONG, None, &99_999_u32.to_be_bytes());
    assert_eq!(outcome(opened(), &pings, []).said, latest);
    // However they are cut, no more is said than came.
    let byte_by_byte = outcome(opened(), &pings, vec![1; pings.len()]);
    assert!(byte_by_byte.said.len() <= pings.len() && byte_by_byte.said.ends_with(&latest));
}

#[test]
fn what_breaks_the_rules_is_told_so() {
    broken(
        &frame(FIN | BINARY, None, b"bare"),
        Violation::NotMasked,
        1002,
    );
    broken(&frame(FIN | PING, None, b""), Violation::NotMasked, 1002);
    for bit in [0x40, 0x20, 0x10] {
        broken(
            &masked(FIN | bit | BINARY, b"x"),
            Violation::ReservedBits,
            1002,
        );
    }
    for opcode in (3..8).chain(11..16) {
        broken(&masked(FIN | opcode, b""), Violation::Opcode, 1002);
    }
    broken(&masked(FIN | TEXT, b"hello"), Violation::Text, 1003);
    broken(&masked(TEXT, b"hel"), Violation::Text, 1003);
    broken(
        &masked(FIN | CONTINUATION, b"x"),
        Violation::Continuation,
        1002,
    );
    broken(&masked(PING, b"x"), Violation::FragmentedControl, 1002);
    broken(&masked(CLOSE, b""), Violation::FragmentedControl, 1002);
    broken(&masked(FIN | PING, &[0; 126]), Violation::LongControl, 1002);
    broken(
        &head(FIN | BINARY, Some(MASK), 1 << 63),
        Violation::Length,
        1002,
    );
    broken(
        &head(FIN | BINARY, Some(MASK), u64::MAX),
        Violation::Length,
        1002,
    );
    broken(
        &head(FIN | BINARY, Some(MASK), (1 << 63) - 1),
        Violation::TooLarge,
        1009,
    );
    let too_large = u64::from(FRAME_BYTES_MAX) + 1;
    broken(
        &head(FIN | BINARY, Some(MASK), too_large),
        Violation::TooLarge,
        1009,
    );
    let parts = [
        masked(BINARY, b"x"),
        head(CONTINUATION, Some(MASK), too_large - 1),
    ]
    .concat();
    let outcome = always(&parts);
    assert_eq!(outcome.end, Some(End::Broken(Violation::TooLarge)));
    let parts = [masked(BINARY, b"x"), masked(FIN | BINARY, b"y")].concat();
    let outcome = always(&parts);
    assert_eq!(outcome.end, Some(End::Broken(Violation::Interleaved)));
    assert_eq!(outcome.payload, b"x");
}

#[test]
fn the_largest_message_is_taken_in_one_frame_and_in_several() {
    let one = head(FIN | BINARY, Some(MASK), FRAME_BYTES_MAX.into());
    let rest = head(
        FIN | CONTINUATION,
        Some(MASK),
        u64::from(FRAME_BYTES_MAX) - 1,
    );
    for head in [one, [masked(BINARY, b"x"), rest].concat()] {
        let outcome = outcome(opened(), &[&head[..], b"payload"].concat(), []);
        assert_eq!(outcome.end, None);
        assert!(outcome.payload.len() >= 7);
    }
}

#[test]
fn a_close_frame_is_answered_with_its_code() {
    for code in [1000, 1001, 1011, 3000, 4999] {
        let close = masked(FIN | CLOSE, &[&u16::to_be_bytes(code)[..], b"bye"].concat());
        let stream = [
            masked(FIN | BINARY, b"last"),
            close,
            masked(FIN | BINARY, b"more"),
        ]
        .concat();
        let expected = Outcome {
            payload: b"last".to_vec(),
            end: Some(End::Closed(Some(code))),
            said: close_frame(code),
        };
        assert_eq!(always(&stream), expected);
    }
    let bare = always(&masked(FIN | CLOSE, b""));
    assert_eq!(
        (bare.end, bare.said),
        (Some(End::Closed(None)), frame(FIN | CLOSE, None, b""))
    );
    broken(&masked(FIN | CLOSE, b"x"), Violation::CloseCode, 1002);
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        broken(
            &masked(FIN | CLOSE, &code.to_be_bytes()),
            Violation::CloseCode,
            1002,
        );
    }
    broken(
        &masked(FIN | CLOSE, b"\x03\xE8\xFF"),
        Violation::CloseReason,
        1007,
    );
}

#[test]
fn what_is_sent_is_framed_with_the_shortest_header() {
    let mut server = opened();
    for length in [1, 125, 126, 65_535, FRAME_OUT_BYTES_MAX] {
        let (payload, mut wire) = (vec![9; length], b"before".to_vec());
        assert!(server.send(&payload, &mut wire));
        assert_eq!(
            wire,
            [b"before", &frame(FIN | BINARY, None, &payload)[..]].concat()
        );
    }
    let payload: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let frames = payload.chunks(FRAME_OUT_BYTES_MAX);
    let frames = frames.map(|part| frame(FIN | BINARY, None, part));
    let mut wire = Vec::new();
    assert!(server.send(&payload, &mut wire));
    assert_eq!(wire, frames.collect::<Vec<_>>().concat());
}

#[test]
fn who_has_closed_reads_on_and_says_no_more() {
    let mut server = opened();
    let mut wire = Vec::new();
    server.close(Close::Away, &mut wire);
    server.close(Close::Normal, &mut wire);
    assert!(!server.send(b"more", &mut wire));
    assert_eq!(wire, close_frame(1001));
    let (up, said) = receive(&mut server, &masked(FIN | PING, b"too late"));
    assert!(up.is_empty() && said.is_empty());
    let (up, _) = receive(&mut server, &masked(FIN | BINARY, b"still read"));
    assert_eq!(up, b"still read");
    let (_, said) = receive(&mut server, &masked(FIN | CLOSE, b"\x03\xE9"));
    assert_eq!(server.end(), Some(End::Closed(Some(1001))));
    assert!(said.is_empty(), "one close frame is enough");
}
