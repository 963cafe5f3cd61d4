//! Real clients over TLS and WebSocket, against servers that are not ours: mosquitto for TLS, and for WebSocket tungstenite in
//! front of mosquitto, as Debian's has none.

mod real_support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use codec::{Qos, Version};
use loadgen::plan::Secret;
use loadgen::real::{RealOptions, RealSwarm, Tls, Trust, Way, check};
use loadgen::swarm::{Client, Handshakes, Leave, Swarm};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use real_support::mosquitto::Mosquitto;
use real_support::{Clients, hello, is_acknowledged, is_delivered, is_subscribed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::{Message, WebSocket};

/// An authority, what it signed, and another that nobody believes.
struct Papers {
    ca: String,
    server: (String, String),
    client: (String, String),
    other_ca: String,
}

impl Papers {
    fn new() -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let name = name.to_owned();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let ca = authority("authority");
        let sign = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(names).unwrap();
            let certificate = params.signed_by(&key, &ca).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        Self {
            server: sign(&["localhost", "127.0.0.1"]),
            client: sign(&["client"]),
            other_ca: authority("other").pem(),
            ca: ca.pem(),
        }
    }

    fn believed(&self) -> Tls {
        Tls {
            trust: Trust::Authorities(self.ca.clone()),
            identity: None,
            resume: true,
        }
    }

    fn identified(&self) -> Tls {
        let (certificate, key) = self.client.clone();
        Tls {
            identity: Some((certificate, Secret(key))),
            ..self.believed()
        }
    }
}

fn over(tls: Option<Tls>, websocket: Option<&str>) -> Way {
    Way {
        host: "127.0.0.1".to_owned(),
        tls,
        websocket: websocket.map(str::to_owned),
    }
}

/// A mosquitto, with TLS where there are papers.
fn mosquitto(papers: Option<&Papers>, client_certificates: bool) -> Mosquitto {
    Mosquitto::start(|folder| {
        let Some(papers) = papers else {
            return String::new();
        };
        // Started by root it would become somebody who may not read the key.
        let mut text = "user root\n".to_owned();
        let mut file = |option: &str, content: &str| {
            let path = folder.join(option);
            std::fs::write(&path, content).unwrap();
            text.push_str(&format!("{option} {}\n", path.display()));
        };
        file("cafile", &papers.ca);
        file("certfile", &papers.server.0);
        file("keyfile", &papers.server.1);
        text.push_str(&format!("require_certificate {client_certificates}\n"));
        text
    })
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A WebSocket server, by tungstenite, that hands everything on to a broker over TCP. With papers it speaks TLS. It lets in
/// who asks for `/mqtt` with the subprotocol.
fn relay(broker: SocketAddr, papers: Option<&Papers>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = papers.map(|papers| {
        let (certificate, key) = &papers.server;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        // What a web server expects above TLS.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            let (config, raw) = (config.clone(), stream.try_clone().unwrap());
            std::thread::spawn(move || {
                let stream: Box<dyn Stream> = match config {
                    None => Box::new(stream),
                    Some(config) => {
                        let connection = ServerConnection::new(config).unwrap();
                        Box::new(StreamOwned::new(connection, stream))
                    }
                };
                // Whoever is turned away, or goes, ends the conversation.
                drop(relay_one(stream, &raw, broker));
            });
        }
    });
    address
}

fn relay_one(
    stream: Box<dyn Stream>,
    raw: &TcpStream,
    broker: SocketAddr,
) -> Result<(), Box<dyn std::error::Error>> {
    #[expect(clippy::result_large_err, reason = "tungstenite's type")]
    let choose = |request: &Request, mut response: Response| {
        let offered = request.headers().get("Sec-WebSocket-Protocol");
        if request.uri().path() != "/mqtt" || offered.is_none_or(|it| it != "mqtt") {
            let mut refused = ErrorResponse::new(None);
            *refused.status_mut() = tungstenite::http::StatusCode::NOT_FOUND;
            return Err(refused);
        }
        let headers = response.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
        Ok(response)
    };
    let mut socket = tungstenite::accept_hdr(stream, choose).map_err(|error| error.to_string())?;
    let mut broker = TcpStream::connect(broker)?;
    broker.set_nodelay(true)?;
    for stream in [raw, &broker] {
        stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    }
    let mut buffer = [0; 65_536];
    let mut pinged = false;
    loop {
        take_message(&mut socket, &mut broker)?;
        match broker.read(&mut buffer) {
            Ok(0) => return Ok(socket.close(None)?),
            Ok(read) => {
                // In the middle of a packet, and in pieces: both are allowed.
                let (first, second) = buffer[..read].split_at(read / 2);
                socket.send(Message::Binary(first.to_vec().into()))?;
                if !std::mem::replace(&mut pinged, true) {
                    socket.send(Message::Ping(b"ping".to_vec().into()))?;
                }
                socket.send(Message::Binary(second.to_vec().into()))?;
            }
            Err(error) if is_nothing(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn take_message(
    socket: &mut WebSocket<Box<dyn Stream>>,
    broker: &mut TcpStream,
) -> Result<(), Box<dyn std::error::Error>> {
    match socket.read() {
        Ok(Message::Binary(bytes)) => Ok(broker.write_all(&bytes)?),
        Ok(Message::Close(_)) => Err("closed".into()),
        Ok(Message::Pong(payload)) => {
            assert_eq!(payload, "ping");
            Ok(())
        }
        Ok(other) => panic!("{other:?}"),
        Err(tungstenite::Error::Io(error)) if is_nothing(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn clients(address: SocketAddr, way: &Way, count: u32) -> Clients {
    Clients::with(RealOptions {
        way: way.clone(),
        ..RealOptions::new(address, count)
    })
}

/// Two clients talk, with every QoS and in both versions.
fn conversation(address: SocketAddr, way: &Way) -> Handshakes {
    const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
    let mut clients = clients(address, way, 2);
    for version in [Version::V311, Version::V5] {
        clients.connect(0, &hello("subscriber", version));
        clients.connect(1, &hello("publisher", version));
        let filters = [("q/0", QOS[0]), ("q/1", QOS[1]), ("q/2", QOS[2])];
        clients.swarm.subscribe(Client(0), &filters).unwrap();
        clients.until_one("SUBACK", is_subscribed);
        clients.notices.clear();
        for number in 0..60 {
            let (topic, qos) = filters[number as usize % 3];
            clients.publish(1, topic, qos, number);
            if number % 12 == 11 {
                clients.until("acknowledgements", |notices| {
                    let count = notices.iter().filter(|it| is_acknowledged(it)).count();
                    count == (number as usize + 1) * 2 / 3
                });
            }
        }
        clients.until("everything", |notices| {
            notices.iter().filter(|it| is_delivered(it)).count() == 60
        });
        let mut delivered = clients.delivered();
        delivered.sort_unstable();
        assert!(delivered.into_iter().eq(0..60));
        clients.swarm.disconnect(Client(0), Leave::Politely);
        clients.swarm.disconnect(Client(1), Leave::Abruptly);
        clients.notices.clear();
        clients.turn();
        assert!(clients.notices.is_empty());
    }
    clients.swarm.handshakes()
}

#[test]
fn tls_goes_both_ways_and_clients_that_come_back_go_on_with_their_sessions() {
    let papers = Papers::new();
    let mosquitto = mosquitto(Some(&papers), false);
    let counted = conversation(mosquitto.address, &over(Some(papers.believed()), None));
    assert_eq!(counted.full + counted.resumed, 4);
    assert!(counted.resumed >= 2, "{counted:?}");
    let strangers = Tls {
        resume: false,
        ..papers.believed()
    };
    let counted = conversation(mosquitto.address, &over(Some(strangers), None));
    assert_eq!((counted.full, counted.resumed), (4, 0));
}

#[test]
fn clients_show_their_certificate_where_one_is_required() {
    let papers = Papers::new();
    let mosquitto = mosquitto(Some(&papers), true);
    conversation(mosquitto.address, &over(Some(papers.identified()), None));
    let way = over(Some(papers.believed()), None);
    let mut clients = clients(mosquitto.address, &way, 1);
    let why = clients.connect_in_vain(0, &hello("x", Version::V311));
    assert!(why.contains("alert") || why.contains("reset"), "{why}");
}

#[test]
fn a_broker_that_is_not_believed_is_not_talked_to_unless_asked_for() {
    let papers = Papers::new();
    let mosquitto = mosquitto(Some(&papers), false);
    let believes = |ca: &str, host: &str| Way {
        host: host.to_owned(),
        ..over(
            Some(Tls {
                trust: Trust::Authorities(ca.to_owned()),
                ..papers.believed()
            }),
            None,
        )
    };
    for (way, expected) in [
        (believes(&papers.other_ca, "localhost"), "UnknownIssuer"),
        (believes(&papers.ca, "broker.example"), "not valid for name"),
    ] {
        let mut clients = clients(mosquitto.address, &way, 1);
        let why = clients.connect_in_vain(0, &hello("x", Version::V311));
        assert!(why.contains("TLS: ") && why.contains(expected), "{why}");
    }
    let credulous = Tls {
        trust: Trust::Everybody,
        ..papers.believed()
    };
    let way = Way {
        host: "broker.example".to_owned(),
        ..over(Some(credulous), None)
    };
    conversation(mosquitto.address, &way);
}

#[test]
fn websocket_goes_both_ways() {
    let mosquitto = mosquitto(None, false);
    let address = relay(mosquitto.address, None);
    let counted = conversation(address, &over(None, Some("/mqtt")));
    assert_eq!(counted, Handshakes::default());
    let mut clients = clients(address, &over(None, Some("/other")), 1);
    let why = clients.connect_in_vain(0, &hello("x", Version::V311));
    assert!(why.contains("HTTP status 404"), "{why}");
}

#[test]
fn websocket_over_tls_goes_both_ways() {
    let papers = Papers::new();
    let mosquitto = mosquitto(None, false);
    let address = relay(mosquitto.address, Some(&papers));
    let way = over(Some(papers.believed()), Some("/mqtt"));
    let counted = conversation(address, &way);
    assert_eq!(counted.full + counted.resumed, 4);
}

#[test]
fn a_broker_without_tls_or_websocket_is_said_to_have_none() {
    let mosquitto = mosquitto(None, false);
    let papers = Papers::new();
    for way in [
        over(Some(papers.believed()), None),
        over(None, Some("/mqtt")),
    ] {
        // It may say nothing, and hang up.
        let mut clients = clients(mosquitto.address, &way, 1);
        let why = clients.connect_in_vain(0, &hello("x", Version::V311));
        let is_hang_up = why.contains("closed by the broker") || why.contains("reset");
        assert!(is_hang_up, "{way}: {why}");
    }
}

#[test]
fn certificates_that_are_none_are_said_before_anybody_connects() {
    let papers = Papers::new();
    let wrong = |tls: Tls, expected: &str| {
        let way = over(Some(tls), None);
        let why = check(&way).unwrap_err();
        assert!(why.contains(expected), "{why}");
        let options = RealOptions {
            way,
            ..RealOptions::new(SocketAddr::from(([127, 0, 0, 1], 1)), 1)
        };
        assert!(RealSwarm::new(options).is_err());
    };
    let authorities = |pem: &str| Tls {
        trust: Trust::Authorities(pem.to_owned()),
        ..papers.believed()
    };
    wrong(authorities(""), "no certificate");
    wrong(authorities(&papers.server.1), "no certificate");
    let identity = |certificate: &str, key: &str| Tls {
        identity: Some((certificate.to_owned(), Secret(key.to_owned()))),
        ..papers.believed()
    };
    wrong(identity("", &papers.client.1), "the clients' certificate");
    wrong(identity(&papers.client.0, ""), "the clients' key");
    wrong(
        identity(&papers.client.0, &papers.server.1),
        "certificate and key",
    );
    let nameless = Way {
        host: "no name".to_owned(),
        ..over(Some(papers.believed()), None)
    };
    assert!(
        check(&nameless)
            .unwrap_err()
            .contains("no name and no address")
    );
    check(&over(Some(papers.identified()), Some("/mqtt"))).unwrap();
}

#[test]
fn what_another_process_is_told_is_the_same_way() {
    let papers = Papers::new();
    let way = over(Some(papers.identified()), Some("/mqtt"));
    let text = serde_json::to_string(&way).unwrap();
    assert_eq!(serde_json::from_str::<Way>(&text).unwrap(), way);
    assert!(!format!("{way:?}").contains("PRIVATE KEY"));
}
