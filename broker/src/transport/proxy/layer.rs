//! The layer that takes a proxy's header off, below all others. It stays when it has done so: where a client comes from is
//! asked for as long as the client is there.

use super::{ProxyHeader, parse};
use crate::transport::{Facts, Layer, LayerError, Sides};

/// What it waits for, and what it has got.
#[derive(Debug)]
pub struct ProxyLayer {
    /// Whether this proxy is believed.
    is_trusted: bool,
    /// The beginning of a header whose rest has not come yet.
    partial: Vec<u8>,
    header: Option<Box<ProxyHeader>>,
}

impl ProxyLayer {
    /// A connection that has to begin with a header. `is_trusted`: it comes from one of the proxies that may say who their
    /// client is.
    #[must_use]
    pub fn new(is_trusted: bool) -> Self {
        Self {
            is_trusted,
            partial: Vec::new(),
            header: None,
        }
    }
}

impl Layer for ProxyLayer {
    fn receive(&mut self, wire: &mut [u8], sides: &mut Sides<'_>) -> Result<(), LayerError> {
        if self.header.is_some() {
            sides.up.extend_from_slice(wire);
            return Ok(());
        }
        let broken = |why: String| LayerError::Broken {
            layer: "PROXY protocol",
            why,
        };
        if !self.is_trusted {
            let why = "it comes from no address of proxy_from".to_owned();
            return Err(broken(why));
        }
        self.partial.extend_from_slice(wire);
        match parse(&self.partial) {
            Ok(None) => Ok(()),
            Ok(Some((header, len))) => {
                sides.up.extend_from_slice(&self.partial[len..]);
                self.partial = Vec::new();
                self.header = Some(Box::new(header));
                Ok(())
            }
            Err(error) => Err(broken(error.to_string())),
        }
    }

    fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        wire.extend_from_slice(plain);
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.header.is_some()
    }

    fn tell(&self, facts: &mut Facts) {
        let Some(header) = &self.header else { return };
        // A proxy that speaks for itself, or does not know, leaves it at its own address.
        facts.address = header.source.or(facts.address);
        facts.is_secure |= header.is_tls;
        if let Some(name) = &header.tls_name {
            facts.server_name = Some(name.to_string());
        }
        if let Some(name) = &header.certificate_name {
            facts.common_name = Some(name.to_string());
        }
    }
}
