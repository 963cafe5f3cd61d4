//! What TLS costs for an idle client in the broker's own memory, counted at the allocator beside a client without it. One
//! test, because the allocator counts for the whole process.

mod certificates;
mod idle;

use std::io::Write;
use std::sync::Arc;

use broker::sim::{Peer, Sim};
use broker::{Carrier, ClientCertificate, Config, Listener, NoSink, TlsConfig};
use certificates::{Authority, Issued, write};
use idle::{held, hello};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

const CLIENTS: u32 = 200;
/// What TLS adds to an idle client: 3,502 seen with TLS 1.2, 3,296 with TLS 1.3.
const TLS_BYTES_MAX: f64 = 4_096.0;
/// The same of one that showed its certificate, which rustls keeps: 4,553 and 5,612 seen.
const SHOWN_BYTES_MAX: f64 = 6_144.0;

fn plain(sim: &mut Sim, number: u32) -> Peer {
    let peer = sim.connect_to(0);
    sim.send(peer, &hello(number));
    sim.run();
    assert_eq!(sim.receive(peer).len(), 9);
    peer
}

fn secure(sim: &mut Sim, listener: u16, number: u32, config: &Arc<ClientConfig>) -> Peer {
    let peer = sim.connect_to(listener);
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(config), name).expect("a connection");
    client.writer().write_all(&hello(number)).expect("memory");
    for _ in 0..6 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        sim.send(peer, &wire);
        sim.run();
        let answer = sim.receive(peer);
        let mut answer = &answer[..];
        while !answer.is_empty() {
            client.read_tls(&mut answer).expect("memory");
            client.process_new_packets().expect("the broker speaks TLS");
        }
    }
    assert_eq!(
        client
            .process_new_packets()
            .expect("TLS")
            .plaintext_bytes_to_read(),
        9
    );
    peer
}

fn client(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    shows: &Issued,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).expect("a root");
    let chain =
        CertificateDer::from_pem_slice(shows.certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(shows.key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![chain], key)
        .expect("a pair");
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

#[test]
fn what_tls_costs_an_idle_client() {
    let authority = Authority::new("authority");
    let server = authority.issue(&["localhost"], 1);
    let device = authority.issue(&["device"], 2);
    let dir = tempfile::tempdir().expect("a directory");
    let files = TlsConfig {
        certificate: write(dir.path(), "server.pem", &server.certificate),
        key: write(dir.path(), "server.key", &server.key),
        ..TlsConfig::default()
    };
    let asking = TlsConfig {
        client_ca: write(dir.path(), "ca.pem", &authority.pem()),
        client_certificate: ClientCertificate::Required,
        ..files.clone()
    };
    let listener = |port, transport, tls| Listener {
        name: format!("listener-{port}"),
        address: format!("127.0.0.1:{port}"),
        transport,
        tls,
        ..Listener::default()
    };
    let config = Config {
        workers: 1,
        sys_interval_s: 0,
        listeners: vec![
            listener(1, Carrier::Tcp, TlsConfig::default()),
            listener(2, Carrier::Tls, files),
            listener(3, Carrier::Tls, asking),
        ],
        ..Config::default()
    };
    let mut sim = Sim::new(&config, Arc::new(NoSink), 1).expect("a valid configuration");
    let clients = [&TLS12, &TLS13].map(|version| client(&authority, version, &device));
    // Tables grow, and what is made once is made.
    let mut number = 0..;
    for _ in 0..10 {
        plain(&mut sim, number.next().expect("numbers"));
        for client in &clients {
            secure(&mut sim, 1, number.next().expect("numbers"), client);
            secure(&mut sim, 2, number.next().expect("numbers"), client);
        }
    }
    let mut each = |what: &str, open: &dyn Fn(&mut Sim, u32) -> Peer| {
        let before = held();
        for _ in 0..CLIENTS {
            open(&mut sim, number.next().expect("numbers"));
        }
        let bytes = (held() - before) / f64::from(CLIENTS);
        println!("{what:<40} {bytes:8.1} bytes");
        bytes
    };
    let without = each("without TLS", &plain);
    for (version, client) in ["1.2", "1.3"].iter().zip(&clients) {
        let with = each(&format!("TLS {version}"), &|sim, number| {
            secure(sim, 1, number, client)
        });
        assert!(with - without <= TLS_BYTES_MAX, "{}", with - without);
        let with = each(
            &format!("TLS {version}, a certificate shown"),
            &|sim, number| secure(sim, 2, number, client),
        );
        assert!(with - without <= SHOWN_BYTES_MAX, "{}", with - without);
    }
}
