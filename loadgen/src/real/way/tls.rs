//! TLS, a client's side, by rustls.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::transport::{Layer, LayerError, Sides};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConnection, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, NamedGroup, RootCertStore,
    SignatureScheme,
};

use super::{Tls, Trust};
use crate::swarm::Handshakes;

/// What all clients share.
#[derive(Debug)]
pub(super) struct TlsClients {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    pub(super) handshakes: Arc<Counted>,
}

/// Handshakes that came to their end.
#[derive(Debug, Default)]
pub(super) struct Counted {
    full: AtomicU64,
    resumed: AtomicU64,
}

impl Counted {
    pub(super) fn so_far(&self) -> Handshakes {
        Handshakes {
            full: self.full.load(Ordering::Relaxed),
            resumed: self.resumed.load(Ordering::Relaxed),
        }
    }
}

impl TlsClients {
    /// `protocol`: the one above, by the name that it has in TLS (ALPN). `clients`: how many of them may go on with an earlier
    /// session at the same time.
    pub(super) fn new(
        host: &str,
        tls: &Tls,
        protocol: &str,
        clients: usize,
    ) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("\"{host}\" is no name and no address that a certificate has"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &tls.trust {
            Trust::Everybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Credulous(provider))),
            Trust::Authorities(pem) => {
                let verifier = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(authorities(pem)?),
                    provider,
                );
                let verifier = verifier.build().map_err(|error| error.to_string())?;
                builder.with_webpki_verifier(verifier)
            }
        };
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.0.as_bytes())
                    .map_err(|error| format!("the clients' key: {error}"))?;
                builder
                    .with_client_auth_cert(chain(certificates)?, key)
                    .map_err(|error| format!("the clients' certificate and key: {error}"))?
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.resumption = match tls.resume {
            true => Resumption::store(Arc::new(Sessions::new(clients))),
            false => Resumption::disabled(),
        };
        Ok(Self {
            config: Arc::new(config),
            name,
            handshakes: Arc::default(),
        })
    }

    pub(super) fn client(&self) -> Result<TlsClient, String> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let mut connection = connection.map_err(|error| error.to_string())?;
        // What waits for the end of the handshake is bounded by the client's outbox.
        connection.set_buffer_limit(None);
        Ok(TlsClient {
            connection: Box::new(connection),
            handshakes: Arc::clone(&self.handshakes),
            is_counted: false,
            is_ended: false,
        })
    }
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the clients' certificate: {error}"))?;
    match certificates.is_empty() {
        true => Err("the clients' certificate: there is none in it".to_owned()),
        false => Ok(certificates),
    }
}

fn authorities(pem: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("the authorities: {error}"))?;
        // A system's bundle may have one that this library does not take; the others count.
        let _ = store.add(certificate);
    }
    match store.is_empty() {
        true => Err("the authorities: there is no certificate of one in it".to_owned()),
        false => Ok(store),
    }
}

/// The client of one connection.
#[derive(Debug)]
pub(super) struct TlsClient {
    connection: Box<ClientConnection>,
    handshakes: Arc<Counted>,
    is_counted: bool,
    is_ended: bool,
}

fn broken(error: impl ToString) -> LayerError {
    LayerError::Broken {
        layer: "TLS",
        why: error.to_string(),
    }
}

impl TlsClient {
    /// Appends what the library wants to send.
    fn drain(&mut self, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        while self.connection.wants_write() {
            self.connection.write_tls(wire).map_err(broken)?;
        }
        Ok(())
    }

    fn count(&mut self) {
        if self.is_counted || self.connection.is_handshaking() {
            return;
        }
        self.is_counted = true;
        let count = match self.connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => &self.handshakes.resumed,
            _ => &self.handshakes.full,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Layer for TlsClient {
    fn begin(&mut self, down: &mut Vec<u8>) {
        // Into memory it cannot fail.
        let _ = self.drain(down);
    }

    fn receive(&mut self, wire: &mut [u8], sides: &mut Sides<'_>) -> Result<(), LayerError> {
        let mut rest = &wire[..];
        while !rest.is_empty() && !self.is_ended {
            self.connection.read_tls(&mut rest).map_err(broken)?;
            let state = match self.connection.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The alert that tells the other side.
                    self.drain(sides.down)?;
                    return Err(broken(error));
                }
            };
            let (before, came) = (sides.up.len(), state.plaintext_bytes_to_read());
            sides.up.resize(before + came, 0);
            let mut reader = self.connection.reader();
            reader.read_exact(&mut sides.up[before..]).map_err(broken)?;
            self.is_ended = state.peer_has_closed();
        }
        self.count();
        self.drain(sides.down)
    }

    fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        self.connection.writer().write_all(plain).map_err(broken)?;
        self.drain(wire)
    }

    fn finish(&mut self, wire: &mut Vec<u8>) {
        self.connection.send_close_notify();
        let _ = self.drain(wire);
    }

    fn is_open(&self) -> bool {
        !self.connection.is_handshaking()
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}

/// Sessions that clients can go on with, of all of them together: which client it was makes no difference to a broker. The
/// library's own store keeps eight tickets of a server, and a storm of clients that come back would find those alone.
#[derive(Debug)]
struct Sessions {
    kept: Mutex<Kept>,
    tickets_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// Each is used once (RFC 8446, appendix C.4).
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Sessions {
    fn new(tickets_max: usize) -> Self {
        Self {
            kept: Mutex::default(),
            tickets_max,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tickets.len() >= self.tickets_max {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tickets.pop_back()
    }
}

/// Believes any certificate. That the broker has its key is proven all the same.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
