//! The client's end of TLS in memory.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SupportedProtocolVersion,
};

use super::Far;

/// See the module.
pub struct Secure {
    connection: ClientConnection,
    failed: Option<String>,
    /// Where it tells what its handshake was like.
    tells: Option<Kind>,
}

type Kind = Arc<std::sync::Mutex<Option<HandshakeKind>>>;

/// A client's side of TLS that trusts this authority, speaks these versions and shows this certificate.
pub fn trusting(
    root: rustls::pki_types::CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    shows: Option<&crate::certificates::Issued>,
) -> ClientConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match shows {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = vec![
                CertificateDer::from_pem_slice(issued.certificate.as_bytes())
                    .expect("a certificate"),
            ];
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    }
}

impl Secure {
    pub fn new(config: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a connection");
        connection.set_buffer_limit(None);
        Self {
            connection,
            failed: None,
            tells: None,
        }
    }

    /// One that tells what its handshake was like.
    pub fn telling(config: &Arc<ClientConfig>, name: &str, kind: Kind) -> Self {
        let mut secure = Self::new(config, name);
        secure.tells = Some(kind);
        secure
    }

    fn take_output(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut wire).expect("memory");
        }
        wire
    }
}

impl Far for Secure {
    fn begin(&mut self) -> Vec<u8> {
        self.take_output()
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        if self.failed.is_none() {
            self.connection.writer().write_all(plain).expect("memory");
        }
        self.take_output()
    }

    fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Vec<u8> {
        let mut wire = wire;
        while !wire.is_empty() {
            if self.failed.is_some() || self.connection.read_tls(&mut wire).is_err() {
                break;
            }
            if let Err(error) = self.connection.process_new_packets() {
                self.failed.get_or_insert(error.to_string());
                break;
            }
            if let Some(kind) = &self.tells {
                *kind.lock().expect("no panic") = self.connection.handshake_kind();
            }
            // An end without its goodbye would be an error here; what is there counts.
            let _ = self.connection.reader().read_to_end(plain);
        }
        self.take_output()
    }

    fn goodbye(&mut self) -> Vec<u8> {
        self.connection.send_close_notify();
        self.take_output()
    }

    fn failed(&self) -> Option<String> {
        self.failed.clone()
    }
}
