//! What a client brings, and who it turns out to be.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who a client is. Shared by all clients of one user, where the link that names it can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Principal {
    /// The user's name.
    pub user: Box<str>,
    /// Whose user it is, where the node serves several.
    pub tenant: Option<Box<str>>,
    /// What it belongs to.
    pub groups: Box<[Box<str>]>,
    /// What else is known of it, by name: for placeholders of access rules.
    pub claims: Box<[(Box<str>, Box<str>)]>,
    /// Set when it is none any more.
    revoked: Revoked,
}

/// Whether a principal is none any more. No part of who it is.
#[derive(Debug, Default)]
struct Revoked(AtomicBool);

impl Clone for Revoked {
    fn clone(&self) -> Self {
        Self(AtomicBool::new(self.0.load(Ordering::Relaxed)))
    }
}

impl PartialEq for Revoked {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Revoked {}

impl Principal {
    /// A user without tenant, groups and claims.
    #[must_use]
    pub fn new(user: &str) -> Self {
        Self {
            user: user.into(),
            ..Self::default()
        }
    }

    /// A user of a tenant, with what else is known of it.
    #[must_use]
    pub fn with(
        user: &str,
        tenant: Option<&str>,
        groups: Vec<Box<str>>,
        claims: Vec<(Box<str>, Box<str>)>,
    ) -> Self {
        Self {
            user: user.into(),
            tenant: tenant.map(Box::from),
            groups: groups.into(),
            claims: claims.into(),
            revoked: Revoked::default(),
        }
    }

    /// It is none any more: whoever still goes by it is to be asked to leave.
    pub fn revoke(&self) {
        self.revoked.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is none any more.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked.0.load(Ordering::Relaxed)
    }

    /// Whether it belongs to `group`.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|other| **other == *group)
    }

    /// The claim of that name.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&str> {
        let of_name = |(other, _): &&(Box<str>, Box<str>)| **other == *name;
        self.claims.iter().find(of_name).map(|(_, value)| &**value)
    }

    /// Whether both are the same user of the same tenant, whatever else is known of them.
    #[must_use]
    pub fn is_same_user(&self, other: &Self) -> bool {
        self.user == other.user && self.tenant == other.tenant
    }
}

/// A password, or whatever stands in its place. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<[u8]>);

impl Password {
    /// The password itself.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Password {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(settings::HIDDEN)
    }
}

/// The names in a certificate that the transport has verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's common name.
    pub common_name: Option<Box<str>>,
    /// The subject's alternative names: host names, addresses of electronic mail, URIs.
    pub alternative_names: Box<[Box<str>]>,
}

/// What a CONNECT and its connection say of who the client is.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The client identifier; empty where the broker assigns one.
    pub client_id: Box<str>,
    /// The user name.
    pub user: Option<Box<str>>,
    /// The password.
    pub password: Option<Password>,
    /// The client's certificate.
    pub certificate: Option<Arc<Certificate>>,
    /// Where it comes from; nothing for a connection in memory or over a Unix socket.
    pub address: Option<IpAddr>,
    /// The listener that it came to.
    pub listener: Arc<str>,
}

impl Credentials {
    /// Whether there is nothing to know anybody by.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.user.is_none() && self.password.is_none() && self.certificate.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed() {
        let credentials = Credentials {
            user: Some("ada".into()),
            password: Some(Password::from(&b"hunter2"[..])),
            ..Credentials::default()
        };
        let printed = format!("{credentials:?}");
        assert!(
            printed.contains("ada") && !printed.contains("hunter2"),
            "{printed}"
        );
        assert!(!printed.contains("104, 117"), "{printed}");
    }

    #[test]
    fn groups_and_claims_are_found_by_name() {
        let groups = vec!["ops".into(), "staff".into()];
        let claims = vec![("site".into(), "north".into())];
        let principal = Principal::with("ada", None, groups, claims);
        assert!(principal.is_in("staff") && !principal.is_in("sta"));
        assert_eq!(principal.claim("site"), Some("north"));
        assert_eq!(principal.claim("sit"), None);
        assert!(principal.is_same_user(&Principal::new("ada")));
        let of_tenant = Principal::with("ada", Some("acme"), Vec::new(), Vec::new());
        assert!(!principal.is_same_user(&of_tenant));
    }
}
