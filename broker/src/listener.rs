//! Where clients connect: the `[[broker.listeners]]`, checked once.

mod port;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use settings::{Kind, Section as _};

use crate::bans::Network;

pub use port::ListenerStatus;
pub(crate) use port::{Port, ports};

/// The name of the listener that `broker.listen` stands for.
pub const SHORT_FORM: &str = "mqtt";
/// What the address of a Unix socket begins with.
const UNIX: &str = "unix:";
/// The largest number of listeners; a turn of a worker looks at each.
pub const LISTENERS_MAX: usize = 64;

const NAME: Kind<String> = Kind {
    words: "1 to 64 characters of A-Z a-z 0-9 - _ .",
    fits: |name| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (1..=64).contains(&name.len()) && name.chars().all(fits)
    },
};

const PLACE: Kind<String> = Kind {
    words: "a numeric address and a port, such as \"127.0.0.1:8883\" or \"[::]:8883\", or \"unix:\" and an absolute path",
    fits: |text| Place::of(text).is_some(),
};

/// What a listener's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// MQTT as it is.
    Tcp,
    /// MQTT in TLS.
    Tls,
    /// MQTT in WebSocket.
    Ws,
    /// MQTT in WebSocket, in TLS.
    Wss,
}

impl Carrier {
    /// Whether its bytes are under TLS.
    #[must_use]
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// What is above TLS, by the names that these protocols have in it (ALPN).
    pub(crate) fn above_tls(self) -> &'static [&'static str] {
        match self.has_websocket() {
            // A browser's WebSocket begins as its web pages do.
            true => &["http/1.1", "mqtt"],
            false => &["mqtt"],
        }
    }

    /// Whether its packets are in frames of WebSocket.
    #[must_use]
    pub fn has_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        })
    }
}

const PATH: Kind<String> = Kind {
    words: "a path that begins with \"/\", without \"?\" and \"#\"",
    fits: |path| {
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        path.starts_with('/') && path.bytes().all(fits)
    },
};

const CARRIERS: &str = "\"tcp\", \"tls\", \"ws\" or \"wss\"";

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// They are not asked for one.
    None,
    /// One that they show has to be right.
    Optional,
    /// They have to show one.
    Required,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// A PEM file: the certificate, then those that vouch for it.
    pub certificate: PathBuf,
    /// A PEM file: its private key.
    pub key: PathBuf,
}

settings::section! {
    /// TLS of a listener.
    #[derive(Eq)]
    pub struct TlsConfig {
        /// The server's certificate, then those that vouch for it, but for the root.
        pub certificate: PathBuf = PathBuf::new(), ["path of a PEM file"];
        /// Its private key.
        pub key: PathBuf = PathBuf::new(), ["path of a PEM file"];
        /// Further certificates, each `{ certificate = …, key = … }`: of all the first is shown that is for the name that a
        /// client asks for, else the one above.
        pub more: Vec<CertificateFiles> = Vec::new(), ["list of tables with certificate and key"];
        /// The authorities that vouch for clients.
        pub client_ca: PathBuf = PathBuf::new(), ["path of a PEM file; needed where clients show certificates"];
        /// Whether clients show a certificate: `none`, they are not asked; `optional`, one that is shown has to be right;
        /// `required`, without one nobody comes in.
        pub client_certificate: ClientCertificate = ClientCertificate::None, ["\"none\", \"optional\" or \"required\""];
        /// Certificates of clients that the authorities have taken back; each authority that vouches for a client directly
        /// has to have its list in it.
        pub crl: PathBuf = PathBuf::new(), ["path of a PEM file; empty is none"];
    }
}

settings::section! {
    /// One of `[[broker.listeners]]`.
    #[derive(Eq)]
    pub struct Listener {
        /// What it is called in log, metrics and status.
        pub name: String = String::new(), [is NAME];
        /// Where it listens. The directory of a Unix socket decides who may connect.
        pub address: String = String::new(), [is PLACE];
        /// What its bytes are: `tcp` is MQTT as it is, `tls` MQTT in TLS, `ws` and `wss` are MQTT in WebSocket without and with
        /// TLS.
        pub transport: Carrier = Carrier::Tcp, [words CARRIERS];
        /// Open connections on it; one more is closed at once. `limits.connections_max` bounds all listeners together.
        pub connections_max: u32 = u32::MAX, [1.., "connections"];
        /// Who looks at its clients' credentials, in the place of `broker.authentication.chain`, which counts where this is
        /// empty.
        pub authentication: Vec<String> = Vec::new(), ["list of links, as in broker.authentication.chain"];
        /// Whether clients that say nothing of who they are may connect: with a chain, beside those that it accepts. Without
        /// one and on an address that other machines reach it has to be said.
        pub anonymous: bool = false, ["true or false"];
        /// The path of WebSocket.
        pub path: String = "/mqtt".to_owned(), [is PATH];
        /// Pages of these origins, such as `https://app.example`, may connect by WebSocket; with none, or `"*"` among them, those
        /// of all. Clients that are no browsers name no origin and are not kept out.
        pub origins: Vec<String> = Vec::new(), ["list of origins"];
        /// Whether each connection begins with a header of the PROXY protocol, version 1 or 2, by which a proxy in front says
        /// who its client is. One that does not is closed.
        pub proxy_protocol: bool = false, ["true or false"];
        /// The networks from which such a header is believed; a connection from elsewhere is closed. On a Unix socket its
        /// directory decides.
        pub proxy_from: Vec<String> = vec!["127.0.0.0/8".to_owned(), "::1".to_owned()], ["list of addresses and networks, such as \"10.0.0.0/8\""];
        /// Its certificates. They are read again when they have changed, and at SIGHUP; who is connected stays.
        pub tls: TlsConfig = TlsConfig::default(), [section];
    }
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Net(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    fn of(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = Path::new(path);
            return (path.is_absolute() && path.file_name().is_some())
                .then(|| Self::Unix(path.to_owned()));
        }
        text.parse().ok().map(Self::Net)
    }

    /// Whether only this machine reaches it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Net(address) => match address.ip() {
                IpAddr::V4(ip) => ip.is_loopback(),
                IpAddr::V6(ip) => {
                    ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
                }
            },
            Self::Unix(_) => true,
        }
    }

    /// Whether both cannot be listened on: the same port on addresses of which one stands for the other.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Net(one), Self::Net(other)) => {
                // What is behind port 0 is chosen by the system.
                one.port() == other.port()
                    && one.port() != 0
                    && (one.ip() == other.ip()
                        || one.ip().is_unspecified()
                        || other.ip().is_unspecified())
            }
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Listener {
    /// The plain listener that `broker.listen` stands for.
    #[must_use]
    pub fn short_form(address: &str) -> Self {
        Self {
            name: SHORT_FORM.to_owned(),
            address: address.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn place(&self) -> Result<Place, settings::Error> {
        Place::of(&self.address)
            .ok_or_else(|| settings::Error::text("address", &self.address, PLACE.words))
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        Place::of(&self.address).is_some_and(|place| place.is_local())
    }

    fn validate(&self) -> Result<(), settings::Error> {
        self.check_keys()?;
        self.validate_websocket()?;
        self.validate_proxies()?;
        let tls = &self.tls;
        if !self.transport.has_tls() {
            if *tls != TlsConfig::default() {
                let allowed = format!(
                    "nothing where transport is \"{}\"; with transport = \"tls\" or \"wss\" it is used",
                    self.transport
                );
                return Err(settings::Error::new("tls", "{ … }", allowed));
            }
            return Ok(());
        }
        tls.validate().map_err(|error| error.below("tls"))
    }
}

impl Listener {
    fn validate_websocket(&self) -> Result<(), settings::Error> {
        let default = Self::default();
        if !self.transport.has_websocket() {
            let allowed = format!(
                "nothing where transport is \"{}\"; with \"ws\" and \"wss\" it is used",
                self.transport
            );
            if self.path != default.path {
                return Err(settings::Error::text("path", &self.path, allowed));
            }
            if let Some(origin) = self.origins.first() {
                return Err(settings::Error::text("origins[0]", origin, allowed));
            }
        }
        let is_origin = |text: &str| {
            let host = text.split_once("://").map(|(_, host)| host);
            text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
        };
        for (at, origin) in self.origins.iter().enumerate() {
            if !is_origin(origin) {
                let allowed = "\"*\", or a scheme and a host without a path, such as \"https://app.example\" or \"http://localhost:3000\"";
                return Err(settings::Error::text(
                    format!("origins[{at}]"),
                    origin,
                    allowed,
                ));
            }
        }
        Ok(())
    }

    fn validate_proxies(&self) -> Result<(), settings::Error> {
        if !self.proxy_protocol && self.proxy_from != Self::default().proxy_from {
            let allowed = "nothing without proxy_protocol = true";
            return Err(settings::Error::new("proxy_from", "[ … ]", allowed));
        }
        for (at, network) in self.proxy_from.iter().enumerate() {
            if network.parse::<Network>().is_err() {
                let allowed = "an address or a network, such as \"10.0.0.0/8\" or \"2001:db8::1\"";
                return Err(settings::Error::text(
                    format!("proxy_from[{at}]"),
                    network,
                    allowed,
                ));
            }
        }
        Ok(())
    }
}

impl TlsConfig {
    fn validate(&self) -> Result<(), settings::Error> {
        let missing = |key: &str, why: &str| {
            let allowed = format!("the path of a PEM file{why}");
            Err(settings::Error::text(key, "", allowed))
        };
        let is_empty = |path: &Path| path.as_os_str().is_empty();
        if is_empty(&self.certificate) {
            return missing("certificate", ": TLS needs a certificate");
        }
        if is_empty(&self.key) {
            return missing("key", ": TLS needs the certificate's key");
        }
        for (at, more) in self.more.iter().enumerate() {
            if is_empty(&more.certificate) || is_empty(&more.key) {
                return missing(&format!("more[{at}]"), " for certificate, and one for key");
            }
        }
        let asks = self.client_certificate != ClientCertificate::None;
        if asks && is_empty(&self.client_ca) {
            return missing("client_ca", " with the authorities that vouch for clients");
        }
        let has_authorities = !is_empty(&self.client_ca) || !is_empty(&self.crl);
        if !asks && has_authorities {
            let allowed = "\"optional\" or \"required\" where client_ca or crl is set";
            return Err(settings::Error::text("client_certificate", "none", allowed));
        }
        Ok(())
    }
}

/// Checks listeners one by one and beside each other.
pub(crate) fn validate(listeners: &[Listener]) -> Result<(), settings::Error> {
    if listeners.len() > LISTENERS_MAX {
        let allowed = format!("up to {LISTENERS_MAX} listeners");
        return Err(settings::Error::new("listeners", listeners.len(), allowed));
    }
    let mut names = BTreeSet::new();
    for (at, listener) in listeners.iter().enumerate() {
        let wrong = |error: settings::Error| error.below(&format!("listeners[{at}]"));
        listener.validate().map_err(wrong)?;
        if !names.insert(&listener.name) {
            let allowed = "a name that no other listener has";
            let error = settings::Error::text("name", &listener.name, allowed);
            return Err(wrong(error));
        }
        let place = listener.place().map_err(wrong)?;
        let meets = |other: &&Listener| Place::of(&other.address).is_some_and(|o| o.meets(&place));
        if let Some(other) = listeners[..at].iter().find(meets) {
            let allowed = format!(
                "a port that no other listener has: {:?} listens on {}",
                other.name, other.address
            );
            let error = settings::Error::text("address", &listener.address, allowed);
            return Err(wrong(error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(toml_like: &str) -> Result<Vec<Listener>, String> {
        let listeners: Vec<Listener> =
            serde_json::from_str(toml_like).map_err(|error| error.to_string())?;
        validate(&listeners).map_err(|error| error.to_string())?;
        Ok(listeners)
    }

    #[test]
    fn what_is_wrong_with_a_listener_is_said_with_its_key_and_what_is_allowed() {
        for (text, parts) in [
            (
                r#"[{"address":"127.0.0.1:1"}]"#,
                ["listeners[0].name", "1 to 64"],
            ),
            (
                r#"[{"name":"a b","address":"127.0.0.1:1"}]"#,
                ["listeners[0].name", "a b"],
            ),
            (
                r#"[{"name":"a","address":"localhost:1"}]"#,
                ["listeners[0].address", "numeric"],
            ),
            (
                r#"[{"name":"a","address":"unix:run/x"}]"#,
                ["listeners[0].address", "absolute"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","transport":"tls"}]"#,
                ["listeners[0].tls.certificate", "TLS needs a certificate"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","transport":"tls","tls":{"certificate":"c"}}]"#,
                ["listeners[0].tls.key", "key"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","tls":{"certificate":"c","key":"k"}}]"#,
                ["listeners[0].tls", "transport = \"tls\""],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","transport":"tls",
                    "tls":{"certificate":"c","key":"k","client_certificate":"required"}}]"#,
                ["listeners[0].tls.client_ca", "vouch for clients"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","transport":"tls",
                    "tls":{"certificate":"c","key":"k","client_ca":"ca"}}]"#,
                ["listeners[0].tls.client_certificate", "required"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","transport":"quic"}]"#,
                ["quic", "tls"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","transport":"wss"}]"#,
                ["listeners[0].tls.certificate", "TLS needs a certificate"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","path":"/ws"}]"#,
                ["listeners[0].path", "\"ws\" and \"wss\""],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","transport":"ws","path":"ws"}]"#,
                ["listeners[0].path", "begins with"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","origins":["*"]}]"#,
                ["listeners[0].origins[0]", "\"ws\" and \"wss\""],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","transport":"ws","origins":["*","https://a/"]}]"#,
                ["listeners[0].origins[1]", "https://a/"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","proxy_from":["10.0.0.0/8"]}]"#,
                ["listeners[0].proxy_from", "proxy_protocol = true"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","proxy_protocol":true,"proxy_from":["::1","10.0.0.0/33"]}]"#,
                ["listeners[0].proxy_from[1]", "10.0.0.0/33"],
            ),
            (
                r#"[{"name":"a","address":"127.0.0.1:1","connections_max":0}]"#,
                ["listeners[0].connections_max", "1 or more"],
            ),
        ] {
            let error = list(text).unwrap_err();
            for part in parts {
                assert!(
                    error.contains(part),
                    "{text} gives {error:?}, without {part:?}"
                );
            }
        }
    }

    #[test]
    fn two_listeners_of_one_name_or_one_port_are_refused_in_a_sentence() {
        let two = |one: &str, other: &str| {
            list(&format!(
                r#"[{{"name":"a","address":"{one}"}},{{"name":"b","address":"{other}"}}]"#
            ))
        };
        for (one, other) in [
            ("127.0.0.1:1883", "127.0.0.1:1883"),
            ("0.0.0.0:1883", "127.0.0.1:1883"),
            ("127.0.0.1:1883", "[::]:1883"),
            ("unix:/run/m", "unix:/run/m"),
        ] {
            let error = two(one, other).unwrap_err();
            assert!(error.contains("listeners[1].address"), "{error}");
            assert!(
                error.contains(&format!("\"a\" listens on {one}")),
                "{error}"
            );
        }
        for (one, other) in [
            ("127.0.0.1:1883", "127.0.0.1:8883"),
            ("127.0.0.1:1883", "127.0.0.2:1883"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("unix:/run/m", "unix:/run/n"),
        ] {
            two(one, other).unwrap();
        }
        let error =
            list(r#"[{"name":"a","address":"127.0.0.1:1"},{"name":"a","address":"127.0.0.1:2"}]"#);
        let error = error.unwrap_err();
        assert!(error.contains("listeners[1].name"), "{error}");
    }

    #[test]
    fn who_reaches_a_listener_is_known() {
        for (address, local) in [
            ("127.0.0.1:1", true),
            ("127.8.9.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/run/m", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(Listener::short_form(address).is_local(), local, "{address}");
        }
    }
}
