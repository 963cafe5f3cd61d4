//! How a connection begins, and what those are told who want something else.

mod support;

use std::sync::Arc;

use support::{BINARY, FIN, Outcome, REQUEST, masked, outcome};
use websocket::{End, REQUEST_BYTES_MAX, Rules, Server, Stranger};

fn asked_with(rules: &Rules, request: &str) -> Outcome {
    let server = || Server::new(Arc::new(rules.clone()));
    let bytes = request.as_bytes();
    let whole = outcome(server(), bytes, []);
    assert_eq!(
        outcome(server(), bytes, vec![1; bytes.len()]),
        whole,
        "{request}"
    );
    whole
}

fn asked(request: &str) -> Outcome {
    asked_with(&Rules::default(), request)
}

/// Asks, and expects this status: the whole answer.
fn status(request: &str, status: u16) -> String {
    let outcome = asked(request);
    let text = String::from_utf8(outcome.said).unwrap();
    assert!(
        text.starts_with(&format!("HTTP/1.1 {status} ")),
        "{request}: {text}"
    );
    match outcome.end {
        Some(End::Answered { status: told, .. }) => assert_eq!(told, status, "{text}"),
        other => panic!("{request}: {other:?}"),
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    if !request.starts_with("HEAD") {
        assert_eq!(length.unwrap().parse::<usize>().unwrap(), body.len());
    }
    assert!(head.contains("\r\nConnection: close"), "{text}");
    text
}

/// Asks, and expects to be let in with this subprotocol.
fn is_let_in(rules: &Rules, request: &str, protocol: &str) {
    let outcome = asked_with(rules, request);
    assert_eq!(outcome.end, None, "{request}");
    let text = String::from_utf8(outcome.said).unwrap();
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    // The example of RFC 6455, 1.3.
    assert!(
        text.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{text}"
    );
    assert!(
        text.contains(&format!("\r\nSec-WebSocket-Protocol: {protocol}\r\n")),
        "{text}"
    );
}

/// The request with one of its lines replaced, or taken away.
fn with(line: &str, other: &str) -> String {
    let before = REQUEST
        .lines()
        .find(|it| it.starts_with(line))
        .expect("it has this line");
    let other = if other.is_empty() {
        String::new()
    } else {
        format!("{other}\r\n")
    };
    REQUEST.replacen(&format!("{before}\r\n"), &other, 1)
}

#[test]
fn a_client_is_let_in_with_the_subprotocol_that_it_offers() {
    let rules = Rules::default();
    is_let_in(&rules, REQUEST, "mqtt");
    let offers = |offer: &str| with("Sec-WebSocket-Protocol", offer);
    is_let_in(
        &rules,
        &offers("Sec-WebSocket-Protocol: mqttv3.1"),
        "mqttv3.1",
    );
    is_let_in(
        &rules,
        &offers("sec-websocket-protocol: chat, mqttv3.1 ,mqtt"),
        "mqttv3.1",
    );
    let twice = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqtt";
    is_let_in(&rules, &offers(twice), "mqtt");
    is_let_in(
        &rules,
        &with("Connection", "Connection: keep-alive, upgrade"),
        "mqtt",
    );
    is_let_in(&rules, &with("Upgrade", "Upgrade: WebSocket"), "mqtt");
    is_let_in(&rules, &with("GET", "GET /mqtt?token=x HTTP/1.1"), "mqtt");
    // Who is asked, is the business of whoever has many names.
    is_let_in(&rules, &with("Host", ""), "mqtt");
    is_let_in(&rules, &REQUEST.replace("\r\n", "\n"), "mqtt");
    let extensions = with(
        "Host",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    );
    is_let_in(&rules, &extensions, "mqtt");
}

#[test]
fn what_comes_right_behind_the_request_is_read() {
    let stream = [REQUEST.as_bytes(), &masked(FIN | BINARY, b"early")].concat();
    for cut in 0..stream.len() {
        let server = Server::new(Arc::new(Rules::default()));
        let outcome = outcome(server, &stream, [cut]);
        assert_eq!(
            (outcome.payload.as_slice(), outcome.end),
            (&b"early"[..], None)
        );
    }
}

#[test]
fn who_asks_for_something_else_is_told_what_is_missing() {
    assert!(status(&with("Sec-WebSocket-Protocol", ""), 400).contains("subprotocol \"mqtt\""));
    assert!(
        status(
            &with("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: MQTT"),
            400
        )
        .contains("mqtt")
    );
    assert!(
        status(
            &with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"),
            426
        )
        .contains("\r\nSec-WebSocket-Version: 13\r\n")
    );
    status(&with("Sec-WebSocket-Version", ""), 426);
    for key in [
        "",
        "c2hvcnQ=",
        "no base 64 at all!!!!!!!",
        "dGhlIHNhbXBsZSBub25jZQ",
    ] {
        let key = with("Sec-WebSocket-Key", &format!("Sec-WebSocket-Key: {key}"));
        assert!(status(&key, 400).contains("Sec-WebSocket-Key"));
    }
    let two = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    status(&with("Sec-WebSocket-Key", two), 400);
    assert!(status(&with("Connection", ""), 400).contains("proxy"));
    status(&with("GET", "GET /other HTTP/1.1"), 404);
    status(&with("GET", "GET /mqtt/ HTTP/1.1"), 404);
    status(&with("GET", "GET /mqtt HTTP/1.0"), 400);
    assert!(status(&with("GET", "POST /mqtt HTTP/1.1"), 405).contains("\r\nAllow: GET, HEAD\r\n"));
    status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    status("GET /mqtt\r\n\r\n", 400);
    status("HELO there\r\n\r\n", 400);
}

#[test]
fn a_browser_and_a_health_check_get_an_answer_that_helps() {
    assert!(
        status("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", 426).contains("\r\nUpgrade: websocket\r\n")
    );
    for path in ["/", "/health"] {
        let body = status(&format!("GET {path} HTTP/1.1\r\n\r\n"), 200);
        assert!(
            body.ends_with("an MQTT broker: connect by WebSocket, with the subprotocol mqtt\n")
        );
        status(&format!("OPTIONS {path} HTTP/1.0\r\n\r\n"), 200);
        assert!(status(&format!("HEAD {path} HTTP/1.0\r\n\r\n"), 200).ends_with("\r\n\r\n"));
    }
    status("GET /favicon.ico HTTP/1.1\r\n\r\n", 404);
}

#[test]
fn pages_of_other_origins_are_kept_out_and_clients_without_one_are_not() {
    let from =
        |origin: &str| REQUEST.replacen("\r\n\r\n", &format!("\r\nOrigin: {origin}\r\n\r\n"), 1);
    let rules = |origins: &[&str]| Rules {
        origins: origins.iter().map(|it| (*it).to_owned()).collect(),
        ..Rules::default()
    };
    let listed = rules(&["https://app.example", "http://localhost:3000"]);
    is_let_in(&listed, REQUEST, "mqtt");
    is_let_in(&listed, &from("https://app.example"), "mqtt");
    is_let_in(&listed, &from("https://APP.example"), "mqtt");
    for origin in [
        "https://evil.example",
        "null",
        "http://app.example",
        "https://app.example:8443",
        "",
    ] {
        let outcome = asked_with(&listed, &from(origin));
        assert!(outcome.said.starts_with(b"HTTP/1.1 403 "), "{origin}");
    }
    is_let_in(&rules(&[]), &from("https://evil.example"), "mqtt");
    is_let_in(
        &rules(&["https://app.example", "*"]),
        &from("https://evil.example"),
        "mqtt",
    );
    let elsewhere = Rules {
        path: "/".to_owned(),
        ..Rules::default()
    };
    is_let_in(&elsewhere, &with("GET", "GET / HTTP/1.1"), "mqtt");
}

#[test]
fn a_request_is_bounded_in_length_and_in_headers() {
    let padded = |length: usize| {
        let padding = "x".repeat(length - REQUEST.len() - "X: \r\n".len());
        with("Host", &format!("Host: broker.example\r\nX: {padding}"))
    };
    assert_eq!(padded(REQUEST_BYTES_MAX).len(), REQUEST_BYTES_MAX);
    is_let_in(&Rules::default(), &padded(REQUEST_BYTES_MAX), "mqtt");
    status(&padded(REQUEST_BYTES_MAX + 1), 431);
    let many = format!("Host: x{}", "\r\nX: y".repeat(64));
    status(&with("Host", &many), 431);
    let endless = format!("GET /{}", "a".repeat(100_000));
    status(&endless, 431);
}

#[test]
fn who_speaks_no_http_is_recognised_by_the_first_byte_and_not_answered() {
    for (bytes, stranger) in [
        (
            &b"\x10\x0E\0\x04MQTT\x04\x02\0\x3C\0\x02me"[..],
            Stranger::Mqtt,
        ),
        (&b"\x16\x03\x01\x02\0"[..], Stranger::Tls),
        (&b"\0\0\0"[..], Stranger::Unknown),
    ] {
        let outcome = outcome(Server::new(Arc::default()), bytes, [1]);
        assert_eq!(outcome.end, Some(End::Stranger(stranger)));
        assert!(outcome.said.is_empty());
    }
}
