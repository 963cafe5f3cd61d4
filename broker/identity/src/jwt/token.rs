//! One token: read, checked against keys and against the time, and turned into a principal. The clock is the caller's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::keys::Key;
use crate::config::JwtConfig;
use crate::principal::Principal;

/// The longest name of a user, a tenant or a group.
const NAME_BYTES_MAX: usize = 256;
/// Groups of one token; more are passed over.
const GROUPS_MAX: usize = 256;

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It says so itself, or it cannot be read.
    Token(&'static str),
    /// No key that is known has made it; one that is not known yet may have.
    UnknownKey,
}

/// A token that was read, and of which nothing is believed.
#[derive(Debug)]
pub(super) struct Token<'a> {
    algorithm: Algorithm,
    key_id: Option<Box<str>>,
    message: &'a [u8],
    signature: Vec<u8>,
    payload: &'a str,
}

/// Whether it may be a token: three parts, of which the first is a JSON object in base64.
pub(super) fn looks_like_one(text: &[u8]) -> bool {
    text.starts_with(b"ey") && text.iter().filter(|byte| **byte == b'.').count() == 2
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    match serde_json::from_slice(&bytes).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

impl<'a> Token<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, Wrong> {
        let (message, signature) = text
            .rsplit_once('.')
            .ok_or(Wrong::Token("it is no token"))?;
        let (header, payload) = message
            .split_once('.')
            .ok_or(Wrong::Token("it is no token"))?;
        let header = object(header).ok_or(Wrong::Token("its header cannot be read"))?;
        let name = header.get("alg").and_then(Value::as_str);
        let name = name.ok_or(Wrong::Token("it does not say how it is signed"))?;
        if name.eq_ignore_ascii_case("none") {
            return Err(Wrong::Token("it is not signed"));
        }
        let algorithm = Algorithm::of_name(name)
            .ok_or(Wrong::Token("it is signed in a way that is not known"))?;
        if header.contains_key("crit") {
            return Err(Wrong::Token("it wants extensions that are not known"));
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Wrong::Token("its signature cannot be read"))?;
        Ok(Self {
            algorithm,
            key_id: header.get("kid").and_then(Value::as_str).map(Box::from),
            message: message.as_bytes(),
            signature,
            payload,
        })
    }

    /// Whether it says that it is signed in the way of that name.
    pub(super) fn is_signed_by(&self, name: &str) -> bool {
        Algorithm::of_name(name) == Some(self.algorithm)
    }

    /// Whether one of the keys has made it.
    pub(super) fn verify<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Result<(), Wrong> {
        let (mut has_key, id) = (false, self.key_id.as_deref());
        for key in keys {
            if key.is_for(id, self.algorithm) {
                has_key = true;
                if key.verifies(self.algorithm, self.message, &self.signature) {
                    return Ok(());
                }
            }
        }
        // One without a name may be of a key that came since.
        if has_key && id.is_some() {
            return Err(Wrong::Token("its signature is wrong"));
        }
        Err(Wrong::UnknownKey)
    }

    /// What it says, when its signature is right.
    pub(super) fn claims(&self) -> Result<Claims, Wrong> {
        let claims = object(self.payload).ok_or(Wrong::Token("its claims cannot be read"))?;
        Ok(Claims(claims))
    }
}

/// What a token says.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// The claim of that name, or at that path of names with dots between.
    fn at(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(name) {
            return Some(value);
        }
        let mut names = name.split('.');
        let first = self.0.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }

    /// A time in seconds. What stands there and is no time is not passed over.
    fn time(&self, name: &'static str) -> Result<Option<f64>, Wrong> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(seconds) if seconds.is_finite() => Ok(Some(seconds)),
                _ => Err(Wrong::Token("one of its times is none")),
            },
        }
    }

    /// Whether it holds now, for us: for how many milliseconds more, if it ever ends.
    pub(super) fn hold(&self, config: &JwtConfig, now_s: f64) -> Result<Option<u64>, Wrong> {
        let leeway = f64::from(config.leeway_s);
        let expires = self.time("exp")?;
        match expires {
            None if config.require_expiry => return Err(Wrong::Token("it never expires")),
            Some(at) if at + leeway <= now_s => return Err(Wrong::Token("it has expired")),
            _ => {}
        }
        if self.time("nbf")?.is_some_and(|at| at > now_s + leeway) {
            return Err(Wrong::Token("it is not valid yet"));
        }
        if !config.issuers.is_empty() && !self.names("iss", &config.issuers) {
            return Err(Wrong::Token("it is from another issuer"));
        }
        if !config.audiences.is_empty() && !self.names("aud", &config.audiences) {
            return Err(Wrong::Token("it is for somebody else"));
        }
        Ok(expires.map(|at| ((at + leeway - now_s) * 1_000.0) as u64))
    }

    /// Whether the claim is one of these, or a list with one of them.
    fn names(&self, claim: &str, wanted: &[String]) -> bool {
        let is_wanted = |value: &Value| {
            let text = value.as_str();
            text.is_some_and(|text| wanted.iter().any(|wanted| wanted == text))
        };
        match self.0.get(claim) {
            Some(Value::Array(values)) => values.iter().any(is_wanted),
            Some(value) => is_wanted(value),
            None => false,
        }
    }

    /// Who it says that the client is.
    pub(super) fn principal(&self, config: &JwtConfig) -> Result<Principal, Wrong> {
        let user = self.at(&config.user_claim).and_then(Value::as_str);
        let user = user
            .filter(|user| is_name(user))
            .ok_or(Wrong::Token("it does not say whose it is"))?;
        let mut principal = Principal::new(user);
        if !config.tenant_claim.is_empty() {
            let tenant = self.at(&config.tenant_claim).and_then(Value::as_str);
            let tenant = tenant
                .filter(|tenant| is_name(tenant))
                .ok_or(Wrong::Token("it does not say of which tenant it is"))?;
            principal.tenant = Some(tenant.into());
        }
        principal.groups = match self.at(&config.groups_claim) {
            Some(Value::Array(groups)) => {
                let groups = groups.iter().filter_map(Value::as_str);
                groups
                    .filter(|group| is_name(group))
                    .take(GROUPS_MAX)
                    .map(Box::from)
                    .collect()
            }
            // As scopes are written.
            Some(Value::String(groups)) => {
                let groups = groups.split_whitespace();
                groups
                    .filter(|group| is_name(group))
                    .take(GROUPS_MAX)
                    .map(Box::from)
                    .collect()
            }
            _ => Box::default(),
        };
        let claim = |name: &String| {
            let value = match self.at(name)? {
                Value::String(text) => text.clone(),
                value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
                _ => return None,
            };
            Some((Box::from(name.as_str()), Box::from(value)))
        };
        principal.claims = config.claims.iter().filter_map(claim).collect();
        Ok(principal)
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}
