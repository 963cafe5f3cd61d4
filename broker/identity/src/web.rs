//! Services elsewhere, asked over HTTP: bounded in time and in bytes, and nobody is followed anywhere else.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// The largest answer.
const ANSWER_BYTES_MAX: u64 = 1_048_576;
/// Where systems keep the certificates that they trust.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Whether a text is the address of a service.
pub(crate) fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '@';
        !rest.is_empty() && !rest.starts_with('/') && !rest.contains(is_bad)
    })
}

/// An answer: its code and its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: String,
}

/// Asks. Connections are kept and used again.
#[derive(Debug, Clone)]
pub(crate) struct Web {
    agent: ureq::Agent,
}

impl Web {
    /// Everything that one question needs, from the name to the last byte of the answer, is done in `timeout`. `ca_file` has
    /// the certificates that servers are believed by; the system's, where it is empty.
    ///
    /// # Errors
    /// In words, when there is no such file.
    pub(crate) fn new(url: &str, timeout: Duration, ca_file: &str) -> Result<Self, String> {
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("millstream/", env!("CARGO_PKG_VERSION")));
        if url.starts_with("https:") {
            let roots = RootCerts::Specific(Arc::new(certificates(ca_file)?));
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let tls = TlsConfig::builder().root_certs(roots);
            config = config.tls_config(tls.unversioned_rustls_crypto_provider(provider).build());
        }
        Ok(Self {
            agent: config.build().into(),
        })
    }

    pub(crate) fn get(&self, url: &str) -> Result<Answer, String> {
        read(self.agent.get(url).call())
    }

    /// `bearer` is what the service knows us by; nothing, where it is empty.
    pub(crate) fn post(&self, url: &str, bearer: &str, json: &str) -> Result<Answer, String> {
        let mut request = self.agent.post(url).content_type("application/json");
        if !bearer.is_empty() {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        read(request.send(json))
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let code = answer.status().as_u16();
    let body = answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()
        .map_err(|error| error.to_string())?;
    Ok(Answer { code, body })
}

fn certificates(ca_file: &str) -> Result<Vec<Certificate<'static>>, String> {
    let path = match ca_file {
        "" => BUNDLES
            .into_iter()
            .find(|path| std::fs::exists(path).unwrap_or(false))
            .ok_or("the system has no certificates to believe servers by: name a ca_file")?,
        path => path,
    };
    let pem = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(format!("there is no certificate in {path}"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_http() {
        for good in ["http://127.0.0.1:1", "https://id.example/keys?x=1"] {
            assert!(is_url(good), "{good}");
        }
        for bad in [
            "",
            "id.example",
            "ftp://x",
            "https://",
            "http:///x",
            "http://a b",
            "https://u:p@x/",
        ] {
            assert!(!is_url(bad), "{bad}");
        }
    }
}
