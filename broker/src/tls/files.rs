//! From files to what rustls is told: all of them are right, or none is used.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, ParsedCertificate, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::CertificateStatus;
use crate::listener::{ClientCertificate, TlsConfig};

/// Tickets that a client of TLS 1.3 gets: it has one connection, and resumes once.
const TICKETS: usize = 1;

/// See the module.
pub(super) struct Loaded {
    pub(super) config: ServerConfig,
    pub(super) certificates: Vec<CertificateStatus>,
}

/// What the files were like at a time: when each was changed, and how long it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<(SystemTime, u64)>>);

impl Stamp {
    pub(super) fn of(files: &TlsConfig) -> Self {
        let of = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        let own = [&files.certificate, &files.key, &files.client_ca, &files.crl];
        let more = files
            .more
            .iter()
            .flat_map(|more| [&more.certificate, &more.key]);
        Self(own.into_iter().chain(more).map(of).collect())
    }
}

/// Reads all files. `before` is what they were: sessions go on with their tickets, unless clients show certificates, for one
/// that was taken back since must not come in by a ticket.
pub(super) fn load(
    files: &TlsConfig,
    protocols: &[&str],
    before: Option<&ServerConfig>,
) -> Result<Loaded, String> {
    let provider = Arc::new(ring::default_provider());
    let mut certificates = Vec::new();
    let mut keys = Vec::new();
    let pairs = [(&files.certificate, &files.key)];
    let more = files.more.iter().map(|more| (&more.certificate, &more.key));
    for (certificate, key) in pairs.into_iter().chain(more) {
        let chain = certificates_of(certificate)?;
        certificates.push(status(certificate, &chain)?);
        let key_der =
            PrivateKeyDer::from_pem_file(key).map_err(|error| cannot("the key", key, error))?;
        let pair =
            CertifiedKey::from_der(chain, key_der, &provider).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => format!(
                    "the key {} is not that of the certificate {}",
                    key.display(),
                    certificate.display()
                ),
                error => cannot("the key", key, error),
            })?;
        keys.push(Arc::new(pair));
    }
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match files.client_certificate {
        ClientCertificate::None => builder.with_no_client_auth(),
        asked => {
            let mut roots = RootCertStore::empty();
            for root in certificates_of(&files.client_ca)? {
                roots
                    .add(root)
                    .map_err(|error| cannot("the authority", &files.client_ca, error))?;
            }
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if !files.crl.as_os_str().is_empty() {
                let lists = lists_of(&files.crl)?;
                verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
            }
            if asked == ClientCertificate::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier
                .build()
                .map_err(|error| cannot("the list of revoked certificates", &files.crl, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    config.send_tls13_tickets = TICKETS;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = match before {
        Some(before) if files.client_certificate == ClientCertificate::None => {
            Arc::clone(&before.ticketer)
        }
        _ => tickets()?,
    };
    Ok(Loaded {
        config,
        certificates,
    })
}

/// Tickets that any worker can open: a session that is resumed costs no memory here.
fn tickets() -> Result<Arc<dyn ProducesTickets>, String> {
    ring::Ticketer::new().map_err(|error| format!("no keys for session tickets: {error}"))
}

fn cannot(what: &str, path: &Path, error: impl std::fmt::Display) -> String {
    format!("{what} {} cannot be used: {error}", path.display())
}

fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error| cannot("the certificate", path, error);
    let all = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if all.is_empty() {
        return Err(format!("there is no certificate in {}", path.display()));
    }
    Ok(all)
}

fn lists_of(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let wrong = |error| cannot("the list of revoked certificates", path, error);
    let all = CertificateRevocationListDer::pem_file_iter(path).map_err(wrong)?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if all.is_empty() {
        let path = path.display();
        return Err(format!(
            "there is no list of revoked certificates in {path}"
        ));
    }
    Ok(all)
}

fn status(path: &Path, chain: &[CertificateDer<'_>]) -> Result<CertificateStatus, String> {
    let first = chain.first().map_or(&[][..], |first| first);
    let (_, certificate) =
        X509Certificate::from_der(first).map_err(|error| cannot("the certificate", path, error))?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or_else(Vec::new, |names| {
        let dns = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        };
        names.value.general_names.iter().filter_map(dns).collect()
    });
    Ok(CertificateStatus {
        file: path.display().to_string(),
        names,
        expires_at_s: certificate.validity().not_after.timestamp(),
    })
}

/// The first certificate that is for the name that a client asks for, else the first.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.0.first();
        let (Some(name), true) = (hello.server_name(), self.0.len() > 1) else {
            return first.cloned();
        };
        let name = ServerName::try_from(name).ok()?;
        let is_for = |pair: &&Arc<CertifiedKey>| {
            let certificate = pair.cert.first();
            certificate
                .and_then(|certificate| ParsedCertificate::try_from(certificate).ok())
                .is_some_and(|certificate| verify_server_name(&certificate, &name).is_ok())
        };
        self.0.iter().find(is_for).or(first).cloned()
    }
}
