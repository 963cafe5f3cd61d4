//! Brokers that are not there, refuse, hang up or talk nonsense: each is found out, in words that can be counted.

mod real_support;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use codec::{Qos, ReasonCode, Version};
use loadgen::real::RealOptions;
use loadgen::swarm::{Client, Hello, Leave, Notice, Outgoing, Swarm, SwarmError};
use real_support::{
    CONN_ACK, CONN_ACK_PRESENT, Clients, Peer, fake_broker, hello, is_acknowledged, is_delivered,
    is_subscribed, is_unasked,
};

fn hello311() -> Hello<'static> {
    hello("c", Version::V311)
}

/// Connects once to a broker that says `bytes` to CONNECT: why it ended.
fn answer_to_connect(version: Version, bytes: &'static [u8]) -> String {
    let broker = fake_broker(move |mut peer| {
        peer.expect(1);
        peer.send(bytes);
        peer.until_end();
    });
    Clients::new(broker, 1).connect_in_vain(0, &hello("c", version))
}

#[test]
fn nobody_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = listener.local_addr().unwrap();
    drop(listener);
    let mut clients = Clients::new(broker, 2);
    for client in [0, 1, 0] {
        let why = clients.connect_in_vain(client, &hello311());
        assert_eq!(why, "connection refused");
    }
}

#[test]
fn other_protocols_are_named() {
    for (bytes, why) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "it speaks HTTP"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it speaks TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "its first packet is no CONNACK"),
        (b"\x40\x02\x00\x01", "its first packet is no CONNACK"),
    ] {
        let told = answer_to_connect(Version::V311, bytes);
        assert_eq!(told, format!("the broker sent no MQTT: {why}"));
    }
}

#[test]
fn refusals_say_why() {
    let refused = "refused by the broker: ";
    let told = answer_to_connect(Version::V311, &[0x20, 2, 0, 5]);
    assert_eq!(told, format!("{refused}Not authorized"));
    let told = answer_to_connect(Version::V5, &[0x20, 3, 0, 0x97, 0]);
    assert_eq!(told, format!("{refused}Quota exceeded"));
    let told = answer_to_connect(Version::V5, &[0x20, 3, 0, 0x86, 0]);
    assert_eq!(told, format!("{refused}Bad User Name or Password"));
}

#[test]
fn the_reason_is_read_although_the_broker_hangs_up_behind_it() {
    let broker = fake_broker(|mut peer| {
        peer.expect(1);
        peer.send(&[0x20, 3, 0, 0, 0, 0xE0, 2, 0x8B, 0]);
        peer.close();
    });
    let why = Clients::new(broker, 1).connect_in_vain(0, &hello("c", Version::V5));
    assert_eq!(why, "disconnected by the broker: Server shutting down");
}

#[test]
fn one_that_never_answers_is_given_up() {
    let broker = fake_broker(|mut peer| peer.until_end());
    let mut clients = Clients::with(RealOptions {
        connect_timeout: Duration::from_millis(50),
        ..RealOptions::new(broker, 3)
    });
    for client in 0..3 {
        clients.swarm.connect(Client(client), &hello311()).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(clients.closed(), "no CONNACK in time");
    }
}

#[test]
fn one_that_hangs_up_is_told_and_the_client_comes_again() {
    let broker = fake_broker(|mut peer| match peer.number {
        0 => {
            peer.expect(1);
        }
        1 => {
            peer.accept();
        }
        2 => {
            peer.accept();
            peer.send(&[0x30, 100, 0]);
        }
        _ => {
            peer.accept();
            peer.until_end();
        }
    });
    let mut clients = Clients::new(broker, 1);
    let why = clients.connect_in_vain(0, &hello311());
    assert_eq!(why, "closed by the broker before CONNACK");
    for why in [
        "closed by the broker",
        "closed by the broker in the middle of a packet",
    ] {
        clients.connect(0, &hello311());
        assert_eq!(clients.closed(), why);
        assert_eq!(clients.swarm.room(Client(0)), 0);
        assert_eq!(clients.publish(0, "t", Qos::AtLeastOnce, 1), None);
    }
    assert!(!clients.connect(0, &hello311()));
    assert!(clients.swarm.room(Client(0)) > 0);
}

#[test]
fn nonsense_in_a_session_ends_it() {
    for (bytes, why) in [
        (
            &[0x66_u8, 2, 0, 1][..],
            "the broker sent no MQTT: malformed packet: the reserved flags of the fixed header are wrong [MQTT-2.1.3-1]",
        ),
        (&[0xC0, 0], "an unexpected PINGREQ"),
        (CONN_ACK, "an unexpected CONNACK"),
        (
            &[0x30, 0xFF, 0xFF, 0x7F],
            "the broker sent a packet of more than 1048576 bytes",
        ),
    ] {
        let broker = fake_broker(move |mut peer| {
            peer.accept();
            peer.send(bytes);
            peer.until_end();
        });
        let mut clients = Clients::new(broker, 1);
        clients.swarm.connect(Client(0), &hello311()).unwrap();
        assert_eq!(clients.closed(), why);
    }
}

#[test]
fn answers_that_nobody_asked_for_are_told_and_end_nothing() {
    let broker = fake_broker(|mut peer| {
        peer.accept();
        let publish = peer.expect(3);
        assert_eq!(&publish[..5], &[0, 1, b't', 0, 1]);
        peer.expect(8);
        // PUBACK of another identifier, of the SUBSCRIBE's, PUBREC and PUBCOMP of the right one, SUBACK of a wrong one,
        // an UNSUBACK, and at last the right answers, twice.
        peer.send(&[0x40, 2, 0, 9, 0x40, 2, 0, 2]);
        peer.send(&[0x50, 2, 0, 1, 0x70, 2, 0, 1]);
        peer.send(&[0x90, 3, 0, 7, 0, 0xB0, 2, 0, 2]);
        peer.send(&[0x40, 2, 0, 1, 0x40, 2, 0, 1]);
        peer.send(&[0x90, 3, 0, 2, 1, 0x90, 3, 0, 2, 1]);
        peer.until_end();
    });
    let mut clients = Clients::new(broker, 1);
    clients.connect(0, &hello311());
    assert_eq!(clients.publish(0, "t", Qos::AtLeastOnce, 1), Some(1));
    clients
        .swarm
        .subscribe(Client(0), &[("t", Qos::AtLeastOnce)])
        .unwrap();
    clients.until("unasked answers", |notices| {
        notices.iter().filter(|notice| is_unasked(notice)).count() == 8
    });
    assert_eq!(clients.count(is_acknowledged), 1);
    assert_eq!(clients.count(is_subscribed), 1);
}

#[test]
fn a_repeated_publish_of_qos_2_is_told_once() {
    let broker = fake_broker(|mut peer| {
        peer.accept();
        for _ in 0..2 {
            peer.send_publish(0x34, 5, 1);
            peer.send_publish(0x3C, 5, 1);
            for _ in 0..2 {
                assert_eq!(peer.expect(5), [0, 5]);
            }
            peer.send(&[0x62, 2, 0, 5]);
            assert_eq!(peer.expect(7), [0, 5]);
        }
        // Released already.
        peer.send(&[0x62, 2, 0, 5]);
        assert_eq!(peer.expect(7), [0, 5]);
        peer.send_publish(0x32, 5, 2);
        assert_eq!(peer.expect(4), [0, 5]);
        peer.until_end();
    });
    let mut clients = Clients::new(broker, 1);
    clients.connect(0, &hello311());
    clients.until("deliveries", |notices| {
        notices.iter().filter(|notice| is_delivered(notice)).count() == 3
    });
    assert_eq!(clients.delivered(), [1, 1, 2]);
    assert_eq!(clients.count(is_unasked), 1);
}

#[test]
fn a_session_that_goes_on_may_repeat_and_a_new_one_may_not() {
    let broker = fake_broker(|mut peer| {
        peer.expect(1);
        // The second connection goes on with the session of the first one, the third does not.
        let answers = [CONN_ACK, CONN_ACK_PRESENT, CONN_ACK];
        peer.send(answers[peer.number]);
        peer.send_publish(0x34, 5, 1);
        assert_eq!(peer.expect(5), [0, 5]);
        if peer.number == 1 {
            // What this client has forgotten is ended, and is no fault of the broker.
            peer.send(&[0x50, 2, 0, 77, 0x62, 2, 0, 78]);
            assert_eq!(peer.expect(6), [0, 77]);
            assert_eq!(peer.expect(7), [0, 78]);
            peer.send(&[0x70, 2, 0, 77]);
        }
        peer.send(&[0x30, 4, 0, 1, b'e', b'.']);
        peer.until_end();
    });
    let mut clients = Clients::new(broker, 1);
    for told in [2, 3, 5] {
        let session = clients.connect(0, &hello311());
        assert_eq!(session, told == 3);
        clients.until("the last message", |notices| {
            notices.iter().filter(|notice| is_delivered(notice)).count() == told
        });
        clients.swarm.disconnect(Client(0), Leave::Politely);
    }
    assert_eq!(clients.count(is_unasked), 0);
}

/// A 5.0 broker that takes two messages at once, packets of 100 bytes, and wants a sign of life every second.
fn strict(mut peer: Peer) {
    peer.expect(1);
    peer.send(&[
        0x20, 14, 0, 0, 11, 0x21, 0, 2, 0x27, 0, 0, 0, 100, 0x13, 0, 1,
    ]);
    let mut pings = 0;
    while let Some((first, body)) = peer.packet() {
        match first >> 4 {
            // Says nothing to longer topic names than `t`; refuses QoS 2, and QoS 1 not.
            3 if body[1] > 1 => {}
            3 if first & 0b100 != 0 => peer.send(&[0x50, 3, body[3], body[4], 0x97]),
            3 => peer.send(&[0x40, 3, body[3], body[4], 0x10]),
            12 if pings < 2 => {
                pings += 1;
                peer.send(&[0xD0, 0]);
            }
            _ => {}
        }
    }
}

#[test]
fn what_connack_says_is_kept_to() {
    let mut clients = Clients::new(fake_broker(strict), 1);
    clients.connect(0, &hello("c", Version::V5));
    assert_eq!(clients.swarm.room(Client(0)), 2);
    assert_eq!(clients.publish(0, "tt", Qos::AtLeastOnce, 1), Some(1));
    assert_eq!(clients.publish(0, "tt", Qos::ExactlyOnce, 2), Some(2));
    assert_eq!(clients.swarm.room(Client(0)), 0);
    assert_eq!(clients.publish(0, "tt", Qos::AtLeastOnce, 3), None);
    let too_large = Outgoing {
        topic: "t",
        qos: Qos::AtMostOnce,
        retain: false,
        payload: &[0; 95],
    };
    let error = clients.swarm.publish(Client(0), &too_large).unwrap_err();
    assert!(
        matches!(error, SwarmError::TooLarge { len: 101, max: 100 }),
        "{error}"
    );
    let filter = "f".repeat(100);
    let error = clients
        .swarm
        .subscribe(Client(0), &[(&filter, Qos::AtMostOnce)]);
    assert!(matches!(error, Err(SwarmError::TooLarge { .. })));
    // Keep-alive is the server's: two pings are answered, the third one is not.
    assert_eq!(clients.closed(), "no PINGRESP");
}

#[test]
fn a_refused_publish_ends_and_gives_its_room_back() {
    let mut clients = Clients::new(fake_broker(strict), 1);
    clients.connect(0, &hello("c", Version::V5));
    clients.publish(0, "t", Qos::ExactlyOnce, 1).unwrap();
    clients.until_one("answer", is_acknowledged);
    assert!(clients.notices.contains(&Notice::Acknowledged {
        client: Client(0),
        packet_id: std::num::NonZeroU16::MIN,
        reason: ReasonCode::QUOTA_EXCEEDED,
    }));
    assert_eq!(clients.swarm.room(Client(0)), 2);
    clients.publish(0, "t", Qos::AtLeastOnce, 2).unwrap();
    clients.until("second answer", |notices| {
        notices
            .iter()
            .filter(|notice| is_acknowledged(notice))
            .count()
            == 2
    });
}

#[test]
fn one_that_does_not_read_leaves_no_room() {
    let (done, wait) = sync_channel::<()>(1);
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let broker = fake_broker(move |mut peer| {
        peer.accept();
        wait.lock().unwrap().recv().unwrap();
    });
    let mut clients = Clients::new(broker, 1);
    clients.connect(0, &hello311());
    let message = Outgoing {
        topic: "t",
        qos: Qos::AtMostOnce,
        retain: false,
        payload: &[7; 100_000],
    };
    let mut sent = 0_u64;
    while clients.swarm.room(Client(0)) > 0 {
        clients.swarm.publish(Client(0), &message).unwrap();
        clients.turn();
        sent += 100_000;
        assert!(sent < 1 << 30);
    }
    assert_eq!(clients.notices.len(), 1);
    done.send(()).unwrap();
    clients.closed();
}

#[test]
fn packets_arrive_in_any_pieces() {
    let broker = fake_broker(|mut peer| {
        peer.stream.set_nodelay(true).unwrap();
        peer.expect(1);
        for &byte in CONN_ACK {
            peer.send(&[byte]);
        }
        // Far more than is read for one client in a turn, with the end of the last packet apart.
        let mut packet = vec![0x30, 3 + 24, 0, 1, b't'];
        packet.extend_from_slice(&real_support::payload(4));
        let many = packet.repeat(40_000);
        let (most, last) = many.split_at(many.len() - 7);
        peer.send(most);
        peer.send(last);
        peer.until_end();
    });
    let mut clients = Clients::new(broker, 1);
    clients.connect(0, &hello311());
    clients.until("40,000 deliveries", |notices| {
        notices.iter().filter(|notice| is_delivered(notice)).count() == 40_000
    });
    assert!(clients.delivered().iter().all(|&number| number == 4));
}

#[test]
fn goodbyes_are_said_and_cuts_are_not() {
    let (tell, told) = sync_channel(4);
    let broker = fake_broker(move |mut peer| {
        peer.accept();
        let mut last = 0;
        while let Some((first, _)) = peer.packet() {
            last = first;
        }
        tell.send(last).unwrap();
    });
    let mut clients = Clients::new(broker, 1);
    for (how, last) in [(Leave::Politely, 0xE0), (Leave::Abruptly, 0)] {
        clients.connect(0, &hello311());
        clients.swarm.disconnect(Client(0), how);
        assert_eq!(clients.swarm.room(Client(0)), 0);
        // The polite one waits a while for the broker, which waits for it.
        let mut heard = None;
        let until = std::time::Instant::now() + real_support::DEADLINE;
        while heard.is_none() && std::time::Instant::now() < until {
            clients.turn();
            heard = told.try_recv().ok();
        }
        assert_eq!(heard, Some(last));
    }
    assert_eq!(
        clients.count(|notice| matches!(notice, Notice::Closed { .. })),
        0
    );
}

#[test]
fn connect_says_what_it_was_told_to() {
    let (tell, told) = sync_channel(4);
    let broker = fake_broker(move |mut peer| {
        tell.send(peer.accept()).unwrap();
        peer.until_end();
    });
    let mut clients = Clients::new(broker, 1);
    for version in [Version::V311, Version::V5] {
        let hello = Hello {
            clean_start: false,
            session_expiry_s: 600,
            keep_alive_s: 45,
            username: Some("user"),
            password: Some(b"secret"),
            ..hello("me", version)
        };
        clients.swarm.connect(Client(0), &hello).unwrap();
        clients.until("an end or CONNACK", |notices| !notices.is_empty());
        clients.notices.clear();
        let connect = told.recv_timeout(real_support::DEADLINE).unwrap();
        let mut wanted = b"\0\x04MQTT".to_vec();
        wanted.extend_from_slice(&[version as u8, 0b1100_0000, 0, 45]);
        if version == Version::V5 {
            wanted.extend_from_slice(&[5, 0x11, 0, 0, 2, 88]);
        }
        wanted.extend_from_slice(b"\0\x02me\0\x04user\0\x06secret");
        assert_eq!(connect, wanted);
    }
    let no_user = Hello {
        password: Some(b"secret"),
        ..hello311()
    };
    let error = clients.swarm.connect(Client(0), &no_user).unwrap_err();
    assert!(matches!(error, SwarmError::Encode(_)), "{error}");
}

#[test]
fn clients_come_from_the_addresses_that_they_are_given() {
    let (tell, told) = sync_channel(4);
    let broker = fake_broker(move |mut peer| {
        peer.accept();
        tell.send(peer.stream.peer_addr().unwrap().ip()).unwrap();
        peer.until_end();
    });
    let sources: Vec<std::net::IpAddr> = ["127.0.0.2", "127.0.0.3"]
        .map(|ip| ip.parse().unwrap())
        .into();
    let mut clients = Clients::with(RealOptions {
        source_addresses: sources.clone(),
        ..RealOptions::new(broker, 3)
    });
    for client in 0..3 {
        clients.connect(client, &hello311());
        let from = told.recv_timeout(real_support::DEADLINE).unwrap();
        assert_eq!(from, sources[client as usize % 2]);
    }
}

#[test]
fn an_address_that_cannot_be_used_is_an_error_of_the_swarm() {
    let broker = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut clients = Clients::with(RealOptions {
        source_addresses: vec!["::1".parse().unwrap(), "::1".parse().unwrap()],
        ..RealOptions::new(broker, 1)
    });
    let error = clients.swarm.connect(Client(0), &hello311()).unwrap_err();
    assert!(matches!(error, SwarmError::Io(_)), "{error}");
    clients.turn();
    assert_eq!(clients.notices, []);
}

/// The end of the connection stands behind more than a client takes that reads nothing.
#[test]
fn one_that_ends_the_connection_of_a_client_that_does_not_read_is_noticed() {
    let broker = fake_broker(|mut peer| {
        peer.accept();
        peer.expect(8);
        peer.send(&[0x90, 3, 0, 1, 0]);
        peer.stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        while std::io::Write::write(&mut peer.stream, &[0xD0, 0]).is_ok() {}
    });
    let mut clients = Clients::new(broker, 1);
    clients.connect(0, &hello311());
    let filter = [("a", Qos::AtMostOnce)];
    clients.swarm.subscribe(Client(0), &filter).unwrap();
    clients.until_one("SUBACK", is_subscribed);
    clients.swarm.read_slowly(Client(0), 0);
    assert_eq!(clients.closed(), "connection reset");
}
