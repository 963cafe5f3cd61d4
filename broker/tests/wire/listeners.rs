//! Several listeners of one broker, with mosquitto's clients: TLS in both versions, certificates of clients, Unix sockets, IPv6.

use broker::identity::password::{Cost, Edit, edit, make};
use broker::{Carrier, ClientCertificate, Config, Listener, TlsConfig};

use crate::certificates::{Authority, write};
use crate::support::process::{Process, mosquitto_at};
use crate::support::{Server, poll};

fn listener(name: &str, address: &str, transport: Carrier, tls: TlsConfig) -> Listener {
    Listener {
        name: name.to_owned(),
        address: address.to_owned(),
        transport,
        tls,
        ..Listener::default()
    }
}

struct Setting {
    dir: tempfile::TempDir,
    server: Server,
}

impl Setting {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let authority = Authority::new("authority of the tests");
        let issued = authority.issue(&["localhost"], 1);
        let device = authority.issue(&["device-1"], 2);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let tls = TlsConfig {
            certificate: write(path, "server.pem", &issued.certificate),
            key: write(path, "server.key", &issued.key),
            ..TlsConfig::default()
        };
        let asking = TlsConfig {
            client_ca: write(path, "ca.pem", &authority.pem()),
            client_certificate: ClientCertificate::Required,
            ..tls.clone()
        };
        write(path, "device.pem", &device.certificate);
        write(path, "device.key", &device.key);
        let unix = format!("unix:{}", path.join("mqtt").display());
        let server = Server::with(|config| {
            config.listen = Config::default().listen;
            config.listeners = vec![
                listener("plain", "127.0.0.1:0", Carrier::Tcp, TlsConfig::default()),
                listener("v6", "[::1]:0", Carrier::Tcp, TlsConfig::default()),
                listener("unix", &unix, Carrier::Tcp, TlsConfig::default()),
                listener("secure", "127.0.0.1:0", Carrier::Tls, tls),
                listener("asking", "127.0.0.1:0", Carrier::Tls, asking),
            ];
            change(config);
        });
        Self { dir, server }
    }

    /// What a program of mosquitto's is told to come in by a listener.
    fn to(&self, name: &str, more: &[&str]) -> Vec<String> {
        let of = |name: &str| {
            let listeners = self.server.listeners();
            let listener = listeners.into_iter().find(|listener| listener.name == name);
            listener.expect("there is one of that name").address
        };
        let path = |file: &str| self.dir.path().join(file).display().to_string();
        let port = |address: &str| address.rsplit_once(':').expect("a port").1.to_owned();
        let address = of(name);
        let mut words = match name {
            "unix" => vec!["--unix".to_owned(), path("mqtt")],
            "v6" => vec!["-h".into(), "::1".into(), "-p".into(), port(&address)],
            "plain" => vec!["-h".into(), "127.0.0.1".into(), "-p".into(), port(&address)],
            _ => vec![
                "-h".into(),
                "localhost".into(),
                "-p".into(),
                port(&address),
                "--cafile".into(),
                path("ca.pem"),
            ],
        };
        if name == "asking" {
            words.extend([
                "--cert".into(),
                path("device.pem"),
                "--key".into(),
                path("device.key"),
            ]);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words
    }

    fn publish(&self, name: &str, more: &[&str]) -> Process {
        let words = self.to(name, more);
        mosquitto_at("mosquitto_pub", &words)
    }
}

#[test]
fn a_message_goes_from_every_listener_to_every_other() {
    let setting = Setting::new(|_| ());
    let names = ["plain", "v6", "unix", "secure", "asking"];
    let subscribers: Vec<_> = names
        .iter()
        .map(|name| mosquitto_at("mosquitto_sub", &setting.to(name, &["-t", "t", "-q", "1"])))
        .collect();
    setting.server.until_subscribed(5);
    for name in names {
        for version in ["mqttv311", "mqttv5"] {
            let message = format!("{name} {version}");
            setting
                .publish(name, &["-V", version, "-t", "t", "-q", "1", "-m", &message])
                .finish();
            for subscriber in &subscribers {
                assert_eq!(subscriber.line(), message);
            }
        }
    }
    for version in ["tlsv1.2", "tlsv1.3"] {
        let more = [
            "--tls-version",
            version,
            "-t",
            "t",
            "-q",
            "1",
            "-m",
            version,
        ];
        setting.publish("secure", &more).finish();
        for subscriber in &subscribers {
            assert_eq!(subscriber.line(), version);
        }
    }
    let big = "x".repeat(300_000);
    let file = write(setting.dir.path(), "big", &big);
    let file = file.display().to_string();
    setting
        .publish("secure", &["-t", "t", "-q", "2", "-f", &file])
        .finish();
    for subscriber in &subscribers {
        assert_eq!(subscriber.line(), big);
    }
    let listeners = setting.server.listeners();
    let open: Vec<_> = listeners
        .iter()
        .map(|of| (&*of.name, of.accepted))
        .collect();
    assert_eq!(
        open,
        [
            ("plain", 3),
            ("v6", 3),
            ("unix", 3),
            ("secure", 6),
            ("asking", 3)
        ]
    );
    poll(
        || {
            let listeners = setting.server.listeners();
            listeners.iter().all(|of| of.connections == 1).then_some(())
        },
        || format!("{:?}", setting.server.listeners()),
    );
}

#[test]
fn a_listener_has_a_bound_of_its_own() {
    let setting = Setting::new(|config| config.listeners[2].connections_max = 1);
    let subscriber = mosquitto_at("mosquitto_sub", &setting.to("unix", &["-t", "t"]));
    setting.server.until_subscribed(1);
    setting.publish("unix", &["-t", "t", "-m", "x"]).fails();
    setting.publish("plain", &["-t", "t", "-m", "y"]).finish();
    assert_eq!(subscriber.line(), "y");
    let unix = &setting.server.listeners()[2];
    assert_eq!((unix.connections, unix.refused), (1, 1));
    assert_eq!(setting.server.stats().closed_limit, 1);
}

#[test]
fn a_client_without_a_certificate_or_of_another_name_stays_out() {
    let setting = Setting::new(|_| ());
    let words = setting.to("asking", &["-t", "t", "-m", "x"]);
    let without: Vec<_> = words
        .iter()
        .filter(|word| !word.contains("device") && !["--cert", "--key"].contains(&word.as_str()))
        .cloned()
        .collect();
    mosquitto_at("mosquitto_pub", &without).fails();
    let by_number: Vec<_> = setting
        .to("secure", &["-t", "t", "-m", "x"])
        .into_iter()
        .map(|word| word.replace("localhost", "127.0.0.1"))
        .collect();
    mosquitto_at("mosquitto_pub", &by_number).fails();
    assert_eq!(setting.server.stats().clients_connected, 0);
}

#[test]
fn each_listener_has_its_own_way_of_knowing_clients() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    let cost = Cost {
        memory_kib: 64,
        passes: 1,
    };
    let hash = &make(b"secret", cost).unwrap();
    let ada = Edit::Set {
        hash,
        tenant: None,
        groups: None,
    };
    edit(&users, "ada", ada).unwrap();
    let setting = Setting::new(|config| {
        config.authentication.file.path = users.display().to_string();
        for secure in &mut config.listeners[3..] {
            secure.authentication = vec!["file".to_owned()];
        }
    });
    let message = ["-t", "t", "-m", "x"];
    setting.publish("plain", &message).finish();
    setting.publish("unix", &message).finish();
    setting.publish("secure", &message).fails();
    setting.publish("asking", &message).fails();
    let as_ada = ["-u", "ada", "-P", "secret", "-t", "t", "-m", "x"];
    setting.publish("secure", &as_ada).finish();
    assert_eq!(setting.server.stats().clients_connected, 3);
}

#[test]
fn the_path_of_a_unix_socket_goes_with_the_broker() {
    let mut setting = Setting::new(|_| ());
    let path = setting.dir.path().join("mqtt");
    assert!(path.exists());
    setting.server.stop();
    assert!(!path.exists());
}
