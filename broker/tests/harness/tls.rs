//! TLS, by rustls on both sides, in memory: the same listener, files and layers as on sockets.

use std::path::Path;
use std::sync::Arc;

use broker::{Carrier, CertificateFiles, ClientCertificate, Config, Listener, Reloaded, TlsConfig};
use codec::Version;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};

use crate::certificates::{Authority, Issued, expired, write};
use crate::support::{Client, Far, NOTHING, Net, Pub, Secure, Side, Way, trusting};

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];
const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];
/// The places of the listeners in the configuration.
const TLS: u16 = 1;

/// An authority, a server that it vouches for, and a directory with the server's files.
struct Setting {
    authority: Authority,
    dir: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let authority = Authority::new("authority of this test");
        let server = authority.issue(&["localhost"], 1);
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "server.pem", &server.certificate);
        write(dir.path(), "server.key", &server.key);
        write(dir.path(), "ca.pem", &authority.pem());
        Self { authority, dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn files(&self) -> TlsConfig {
        TlsConfig {
            certificate: self.path().join("server.pem"),
            key: self.path().join("server.key"),
            ..TlsConfig::default()
        }
    }

    fn asking(&self, client_certificate: ClientCertificate) -> TlsConfig {
        TlsConfig {
            client_certificate,
            client_ca: self.path().join("ca.pem"),
            ..self.files()
        }
    }

    fn net(&self, tls: TlsConfig, change: impl FnOnce(&mut Config)) -> Net {
        Net::with(|config| {
            let listener = |name: &str, port, transport, tls| Listener {
                name: name.to_owned(),
                address: format!("127.0.0.1:{port}"),
                transport,
                tls,
                ..Listener::default()
            };
            config.listeners = vec![
                listener("plain", 1883, Carrier::Tcp, TlsConfig::default()),
                listener("secure", 8883, Carrier::Tls, tls),
            ];
            change(config);
        })
    }

    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shows: Option<&Issued>,
    ) -> Arc<ClientConfig> {
        Arc::new(trusting(self.authority.der(), versions, shows))
    }
}

fn way(config: &Arc<ClientConfig>) -> Way {
    way_to(config, "localhost")
}

fn way_to(config: &Arc<ClientConfig>, name: &'static str) -> Way {
    let config = Arc::clone(config);
    Way::new(move || {
        let far = Secure::new(&config, name);
        let far: Box<dyn Far> = Box::new(far);
        (Side::Listener(TLS), far)
    })
}

#[test]
fn a_conversation_under_tls_is_the_same_in_all_pieces() {
    let setting = Setting::new();
    for versions in VERSIONS {
        let client = setting.client(versions, None);
        for (workers, piece) in [(1, usize::MAX), (3, usize::MAX), (3, 1), (1, 13)] {
            let way = way(&client).in_pieces(piece);
            let net = setting.net(setting.files(), |config| config.workers = workers);
            let net = net.over(&way);
            let mut listener = net.join("listener");
            listener.subscribe("t/#", 2);
            for (version, id) in Version::ALL.into_iter().zip(["a", "b", "c"]) {
                let mut client = net.client(id).version(version).connect();
                client.publish("t/1", 0, "nought");
                client.publish("t/2", 1, "one");
                assert_eq!(client.got(), ["PUBACK #1"]);
                assert_eq!(listener.got().len(), 2);
                client.disconnect();
                assert_eq!(client.got(), ["closed"]);
                assert_eq!(client.far().failed(), None);
            }
            assert_eq!(net.stats().connections, 1);
        }
    }
}

#[test]
fn large_messages_and_slow_readers_get_all_in_order() {
    let setting = Setting::new();
    for versions in VERSIONS {
        let client = setting.client(versions, None);
        let net = setting.net(setting.files(), |config| {
            config.workers = 3;
            config.limits.read_bytes_per_turn = 4_096;
        });
        let net = net.over(&way(&client));
        let mut listener = net.join("listener");
        listener.subscribe("t", 1);
        let mut talker = net.join("talker");
        let sizes = |from: usize, to: usize| {
            let size = |n| format!("PUBLISH t ({} bytes) q1 #{n}", 150_000 + n);
            (from..=to).map(size).collect::<Vec<_>>()
        };
        for number in 1..=4 {
            talker.publish("t", 1, vec![b'x'; 150_000 + number]);
        }
        assert_eq!(listener.got(), sizes(1, 4));
        listener.block(true);
        for number in 5..=12 {
            talker.publish("t", 1, vec![b'x'; 150_000 + number]);
        }
        assert_eq!(listener.got(), NOTHING);
        listener.block(false);
        assert_eq!(listener.got(), sizes(5, 12));
        assert_eq!(net.stats().unaccounted(), 0);
    }
}

#[test]
fn what_comes_with_the_last_step_of_the_handshake_goes_along_to_the_home_worker() {
    let setting = Setting::new();
    for versions in VERSIONS {
        let client = setting.client(versions, None);
        let net = setting.net(setting.files(), |config| config.workers = 3);
        let net = net.over(&way(&client));
        for id in ["a", "b", "c", "d", "e", "f"] {
            let mut client = Client::open_silent(&net, Version::V5);
            let mut bytes = net.client(id).bytes();
            bytes.extend(client.encode_publish(&Pub::new("t", "x").qos(1, 1)));
            bytes.extend([0xc0, 0, 0xc0]);
            // Said before the handshake began, and so sent with its end.
            client.write(&bytes);
            assert_eq!(client.got(), ["CONNACK 0x00", "PUBACK #1", "PINGRESP"]);
            client.write(&[0]);
            assert_eq!(client.got(), ["PINGRESP"]);
        }
    }
}

#[test]
fn a_connection_cut_at_any_byte_of_its_handshake_leaves_nothing_behind() {
    let setting = Setting::new();
    let net = setting.net(setting.files(), |config| config.workers = 3);
    for versions in VERSIONS {
        let net = net.over(&way(&setting.client(versions, None)));
        let connect = net.client("a").bytes();
        let mut at = 0;
        loop {
            let mut client = Client::open_silent(&net, Version::V5);
            let mut left = at;
            let mut wire = client.far().seal(&connect);
            while !wire.is_empty() && left > 0 {
                let some = wire.len().min(left);
                client.push_wire(&wire[..some]);
                left -= some;
                let answer = client.got_wire();
                let mut plain = Vec::new();
                wire = client.far().open(&answer, &mut plain);
            }
            client.cut();
            let stats = net.stats();
            assert_eq!((stats.connections, stats.sessions), (0, 0), "cut at {at}");
            if left > 0 {
                break; // all of it was sent
            }
            at += 1 + at / 16; // densely where the records begin
        }
        assert!(at > 300, "{at}");
    }
}

#[test]
fn handshakes_that_are_not_ended_are_closed_in_their_time_and_keep_nobody_out() {
    let setting = Setting::new();
    let net = setting.net(setting.files(), |config| {
        config.limits.connect_timeout_ms = 5_000;
        config.limits.connections_max = 20_000;
    });
    let net = net.over(&way(&setting.client(&[&TLS13], None)));
    let mut hello = Client::open_silent(&net, Version::V5);
    let hello = hello.far().begin();
    let half_open: Vec<_> = (0..10_000)
        .map(|number| {
            let mut client = Client::open_silent(&net, Version::V5);
            client.push_wire(&hello[..number % hello.len()]);
            client
        })
        .collect();
    net.run();
    let mut client = net.join("in");
    client.publish("t", 1, "x");
    assert_eq!(client.got(), ["PUBACK #1"]);
    net.advance_ms(5_200);
    assert!(half_open.iter().all(|client| !client.is_open()));
    assert!(client.is_open());
    assert_eq!(net.stats().closed_connect_timeout, 10_001);
}

/// A hello whose message is cut into records of so many bytes.
fn cut(hello: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    let (head, message) = hello.split_at(5);
    assert_eq!(head[0], 0x16, "one record of a handshake");
    let record = |part: &[u8]| [&head[..3], &(part.len() as u16).to_be_bytes(), part].concat();
    message.chunks(bytes).map(record).collect()
}

#[test]
fn a_hello_in_many_records_is_one_and_a_part_of_it_none() {
    let setting = Setting::new();
    for versions in VERSIONS {
        let net = setting.net(setting.files(), |_| ());
        let net = net.over(&way(&setting.client(versions, None)));
        for (bytes, sent) in [(40, 1), (40, 3), (1, 50), (100, 2)] {
            let mut client = Client::open_silent(&net, Version::V5);
            let hello = client.far().begin();
            for record in &cut(&hello, bytes)[..sent] {
                client.push_wire(record);
                net.run();
            }
            assert!(client.is_open());
            net.advance_s(11);
            assert!(!client.is_open());
        }
        for bytes in [1, 40, 100] {
            let mut client = Client::open_silent(&net, Version::V5);
            let mut wire = cut(&client.far().begin(), bytes).concat();
            let connect = net.client("a").bytes();
            for _ in 0..4 {
                client.push_wire(&wire);
                let answer = client.got_wire();
                wire = client.far().open(&answer, &mut Vec::new());
            }
            client.write(&connect);
            assert_eq!(client.got(), ["CONNACK 0x00"]);
        }
        // Every message of the client's in small records.
        let mut config = trusting(setting.authority.der(), versions, None);
        config.max_fragment_size = Some(40);
        let mut client = net.over(&way(&Arc::new(config))).join("b");
        client.publish("t", 1, vec![b'x'; 1_000]);
        assert_eq!(client.got(), ["PUBACK #1"]);
    }
}

#[test]
fn who_is_connected_is_served_while_many_shake_hands() {
    let setting = Setting::new();
    let net = setting.net(setting.files(), |_| ());
    let net = net.over(&way(&setting.client(&[&TLS13], None)));
    let mut inside = net.join("inside");
    let mut clients: Vec<_> = (0..200)
        .map(|_| Client::open_silent(&net, Version::V5))
        .collect();
    for client in &mut clients {
        let hello = client.far().begin();
        client.push_wire(&hello);
    }
    let ping = inside.encode(&codec::Packet::PingReq);
    inside.push(&ping);
    net.sim().turn([0]);
    assert_eq!(inside.unread(), 0);
    let waiting = clients.iter().filter(|client| client.unread() > 0).count();
    assert!(waiting > 150, "{waiting} of 200 wait for their turn");
    assert_eq!(inside.got(), ["PINGRESP"]);
}

#[test]
fn other_protocols_get_an_answer_or_an_end() {
    let setting = Setting::new();
    let net = setting.net(setting.files(), |_| ());
    let secure = net.over(&way(&setting.client(BOTH, None)));
    let mut http = Client::open_silent(&secure, Version::V5);
    http.push_wire(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = String::from_utf8(http.got_wire()).expect("text");
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("TLS"),
        "{answer}"
    );
    assert!(!http.is_open());
    let mut mqtt = Client::open_silent(&secure, Version::V5);
    mqtt.push_wire(&net.client("a").bytes());
    assert_eq!(mqtt.got_wire(), b"");
    assert!(!mqtt.is_open());
    // And on the plain listener.
    let mut http = net.open();
    http.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = String::from_utf8(http.got_wire()).expect("text");
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("MQTT"),
        "{answer}"
    );
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(answer.contains(&length), "{answer}");
    let mut tls = net.open();
    let hello = Client::open_silent(&secure, Version::V5).far().begin();
    tls.write(&hello);
    assert_eq!(tls.got(), ["closed"]);
    assert_eq!(net.stats().closed_not_mqtt, 4);
}

#[test]
fn what_is_no_tls_is_told_so_in_tls() {
    let setting = Setting::new();
    let net = setting.net(setting.files(), |_| ());
    let secure = net.over(&way(&setting.client(BOTH, None)));
    for wire in [
        // A record that is too long; a message that is no hello; a hello that is cut; rubbish behind the first byte.
        &b"\x16\x03\x01\xff\xff0123456789"[..],
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x99\x99\x00\x05\x01\x00\x00\x01\x00",
    ] {
        let mut client = Client::open_silent(&secure, Version::V5);
        client.push_wire(wire);
        let answer = client.got_wire();
        assert_eq!(&answer[..3], [0x15, 3, 3], "an alert, no {answer:02x?}");
        assert_eq!(answer[5], 2, "fatal: {answer:02x?}");
        assert!(!client.is_open());
    }
    let mut client = Client::open_silent(&secure, Version::V5);
    client.push_wire(&[0x80, 0x2e, 1, 0, 2]); // SSL 2.0
    assert_eq!(client.got_wire(), b"");
    assert!(!client.is_open());
    assert_eq!(net.stats().closed_layer, 5);
}

#[test]
fn a_client_asks_for_mqtt_or_for_nothing() {
    let setting = Setting::new();
    let net = setting.net(setting.files(), |_| ());
    for versions in VERSIONS {
        for (asks, comes_in) in [
            (&[][..], true),
            (&[&b"mqtt"[..]], true),
            (&[b"h2", b"mqtt"], true),
            (&[b"http/1.1"], false),
        ] {
            let mut config = trusting(setting.authority.der(), versions, None);
            config.alpn_protocols = asks.iter().map(|name| name.to_vec()).collect();
            let net = net.over(&way(&Arc::new(config)));
            if comes_in {
                net.join("a");
                continue;
            }
            let mut client = net.client("a").attempt();
            let why = client.far().failed().expect("it is told");
            assert!(why.contains("NoApplicationProtocol"), "{why}");
            assert_eq!(client.got(), ["closed"]);
        }
    }
}

#[test]
fn the_certificate_is_the_one_for_the_name_that_is_asked_for() {
    let setting = Setting::new();
    let other = setting
        .authority
        .issue(&["other.example", "*.wild.example"], 2);
    let dir = setting.path();
    let more = vec![CertificateFiles {
        certificate: write(dir, "other.pem", &other.certificate),
        key: write(dir, "other.key", &other.key),
    }];
    let net = setting.net(
        TlsConfig {
            more,
            ..setting.files()
        },
        |_| (),
    );
    for versions in VERSIONS {
        let client = setting.client(versions, None);
        for name in ["localhost", "other.example", "a.wild.example"] {
            net.over(&way_to(&client, name)).join("a");
        }
        let mut client = net
            .over(&way_to(&client, "third.example"))
            .client("a")
            .attempt();
        let why = client.far().failed().expect("it refuses");
        assert!(why.contains("not valid for name"), "{why}");
        assert_eq!(client.got(), ["closed"]);
    }
}

#[test]
fn clients_show_certificates_that_are_right_or_stay_out() {
    let setting = Setting::new();
    let authority = &setting.authority;
    let good = authority.issue(&["device-7"], 10);
    let old = authority.issue_with(&["device-8"], 11, expired);
    let taken_back = authority.issue(&["device-9"], 12);
    let foreign = Authority::new("another authority").issue(&["device-7"], 10);
    let crl = write(
        setting.path(),
        "crl.pem",
        &authority.revoked(&[&taken_back]),
    );
    for (asked, without_comes_in) in [
        (ClientCertificate::Required, false),
        (ClientCertificate::Optional, true),
    ] {
        let tls = TlsConfig {
            crl: crl.clone(),
            ..setting.asking(asked)
        };
        let net = setting.net(tls, |_| ());
        for versions in VERSIONS {
            for (shows, comes_in) in [
                (Some(&good), true),
                (None, without_comes_in),
                (Some(&old), false),
                (Some(&taken_back), false),
                (Some(&foreign), false),
            ] {
                let net = net.over(&way(&setting.client(versions, shows)));
                let mut client = net.client("a").attempt();
                if comes_in {
                    assert_eq!(client.got(), ["CONNACK 0x00"]);
                    continue;
                }
                assert_eq!(client.got(), ["closed"], "{asked:?}");
                let why = client.far().failed().expect("it is told");
                assert!(why.contains("received fatal alert"), "{why}");
            }
        }
    }
}

#[test]
fn sessions_are_resumed_on_any_worker_and_after_a_change_of_certificates() {
    let setting = Setting::new();
    let net = setting.net(setting.files(), |config| config.workers = 3);
    for versions in VERSIONS {
        let config = setting.client(versions, None);
        let mut kinds = Vec::new();
        for round in 0..4 {
            if round == 3 {
                let again = setting.authority.issue(&["localhost"], 20);
                write(setting.path(), "server.pem", &again.certificate);
                write(setting.path(), "server.key", &again.key);
                let read = net.handle().read_certificates().expect("they are right");
                assert_eq!(read.changed(), ["secure"]);
                read.apply();
            }
            let kind = Arc::new(std::sync::Mutex::new(None));
            let (told, config) = (Arc::clone(&kind), Arc::clone(&config));
            let way = Way::new(move || {
                let far = Secure::telling(&config, "localhost", Arc::clone(&told));
                let far: Box<dyn Far> = Box::new(far);
                (Side::Listener(TLS), far)
            });
            let mut client = net.over(&way).join(&format!("c-{round}"));
            client.ping();
            assert_eq!(client.got(), ["PINGRESP"]);
            kinds.push(kind.lock().expect("no panic").expect("a handshake"));
        }
        use rustls::HandshakeKind::{Full, Resumed};
        assert!(
            matches!(
                kinds[..],
                [
                    Full | rustls::HandshakeKind::FullWithHelloRetryRequest,
                    Resumed,
                    Resumed,
                    Resumed
                ]
            ),
            "{kinds:?}"
        );
    }
}

#[test]
fn certificates_are_read_again_all_or_none_and_nobody_is_dropped() {
    let setting = Setting::new();
    let net = setting.net(setting.files(), |_| ());
    let client = setting.client(BOTH, None);
    let secure = net.over(&way(&client));
    let mut stays = secure.join("stays");
    let look = || {
        let reloaded = net.handle().look_at_certificates();
        let [(name, reloaded)] = &reloaded[..] else {
            panic!("one listener has certificates: {reloaded:?}");
        };
        assert_eq!(name, "secure");
        reloaded.clone()
    };
    assert_eq!(look(), Reloaded::Same);
    // Half of a change: another certificate, and not yet its key.
    let renewed = setting
        .authority
        .issue(&["localhost", "renewed.example"], 30);
    write(setting.path(), "server.pem", &renewed.certificate);
    let Reloaded::Refused(why) = look() else {
        panic!("not refused");
    };
    assert!(
        why.contains("server.key") && why.contains("server.pem"),
        "{why}"
    );
    assert_eq!(net.handle().listeners()[1].problem, Some(why));
    assert_eq!(look(), Reloaded::Same);
    secure.join("still");
    // A file that is being written.
    write(setting.path(), "server.pem", &renewed.certificate[..300]);
    assert!(matches!(look(), Reloaded::Refused(why) if why.contains("server.pem")));
    let why = net.handle().read_certificates().expect_err("half a file");
    assert!(
        why.contains("\"secure\"") && why.contains("server.pem"),
        "{why}"
    );
    secure.join("still");
    // The rest of it.
    write(setting.path(), "server.pem", &renewed.certificate);
    write(setting.path(), "server.key", &renewed.key);
    assert_eq!(look(), Reloaded::Changed);
    let status = &net.handle().listeners()[1];
    assert_eq!(status.problem, None);
    assert_eq!(
        status.certificates[0].names,
        ["localhost", "renewed.example"]
    );
    net.over(&way_to(&client, "renewed.example")).join("new");
    stays.ping();
    assert_eq!(stays.got(), ["PINGRESP"]);
}

#[test]
fn a_certificate_that_was_taken_back_does_not_come_in_by_a_ticket() {
    let setting = Setting::new();
    let authority = &setting.authority;
    let device = authority.issue(&["device"], 40);
    let crl = write(setting.path(), "crl.pem", &authority.revoked(&[]));
    let tls = TlsConfig {
        crl: crl.clone(),
        ..setting.asking(ClientCertificate::Required)
    };
    let net = setting.net(tls, |_| ());
    for versions in VERSIONS {
        write(setting.path(), "crl.pem", &authority.revoked(&[]));
        net.handle().read_certificates().expect("right").apply();
        let secure = net.over(&way(&setting.client(versions, Some(&device))));
        secure.join("a").ping();
        secure.join("a").ping();
        write(setting.path(), "crl.pem", &authority.revoked(&[&device]));
        net.handle().read_certificates().expect("right").apply();
        assert_eq!(secure.client("a").attempt().got(), ["closed"]);
    }
}

#[test]
fn renegotiation_is_refused_and_the_connection_goes_on_or_ends() {
    // A second hello inside the session, as renegotiation begins: rustls offers none, so a client of the tests cannot begin
    // one. What can be sent is a record of a handshake in clear text behind the handshake.
    let setting = Setting::new();
    let net = setting.net(setting.files(), |_| ());
    for versions in VERSIONS {
        let secure = net.over(&way(&setting.client(versions, None)));
        let hello = Client::open_silent(&secure, Version::V5).far().begin();
        let mut client = secure.join("a");
        client.push_wire(&hello);
        net.run();
        assert!(!client.is_open());
    }
    assert_eq!(net.stats().closed_layer, 2);
}

#[test]
fn a_goodbye_is_said_in_tls_on_both_sides() {
    let setting = Setting::new();
    let net = setting.net(setting.files(), |_| ());
    for versions in VERSIONS {
        let secure = net.over(&way(&setting.client(versions, None)));
        let mut client = secure.join("a");
        client.disconnect();
        assert_eq!(client.got(), ["closed"]);
        assert_eq!(client.far().failed(), None);
        // Ending without a word of MQTT publishes the will.
        let mut listener = secure.join("listener");
        listener.subscribe("gone", 0);
        let mut client = secure.client("b").will("gone", "x").connect();
        let goodbye = client.far().goodbye();
        client.push_wire(&goodbye);
        net.run();
        assert_eq!(listener.got().len(), 1);
        assert!(!client.is_open());
        assert_eq!(client.got_wire().len(), 0, "it was closed at once");
    }
    assert_eq!(net.stats().unaccounted(), 0);
}
