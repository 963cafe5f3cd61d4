//! Who may ask by way of a browser. A page of any origin can send requests to this machine, and with them commands to
//! devices; and a name that its owner points at this machine (DNS rebinding) makes that page one of ours to the browser.
//!
//! So every request has to be to a name that is ours, and what changes something has to come from a page of ours, or from no
//! page at all, with a body that says that it is JSON: that a foreign page may only send after asking, and we do not answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use settings::Secret;

use crate::config::Http;

/// In [`Http::hosts`]: any.
const ANY: &str = "*";

/// What a browser says of where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is allowed beside what is ours anyway.
#[derive(Clone, Debug)]
pub struct Guard {
    hosts: Arc<[String]>,
    origins: Arc<[String]>,
}

impl From<&Http> for Guard {
    fn from(config: &Http) -> Self {
        Self {
            hosts: config.hosts.as_slice().into(),
            origins: config.origins.as_slice().into(),
        }
    }
}

/// Who may use the operators' API: whoever knows the token or, where there is none, whoever is on this machine.
#[derive(Clone, Debug)]
pub struct AdminGuard {
    token: Option<Arc<Secret>>,
    /// Only programs of this machine reach it.
    is_local: bool,
}

impl AdminGuard {
    /// The guard of a server on that address.
    pub fn new(config: &Http, listening: IpAddr) -> Self {
        Self {
            token: config.admin_token.clone().map(Arc::new),
            is_local: listening.to_canonical().is_loopback(),
        }
    }

    /// Whether nobody may.
    pub fn is_shut(&self) -> bool {
        self.token.is_none() && !self.is_local
    }

    /// Who may, for the start's output.
    pub fn in_words(&self) -> &'static str {
        match (&self.token, self.is_local) {
            (Some(_), _) => "whoever knows http.admin_token",
            (None, true) => "whoever is on this machine (http.admin_token is not set)",
            (None, false) => {
                "nobody: HTTP listens on an address that others reach, and http.admin_token is not set"
            }
        }
    }

    fn judge(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            if self.is_local {
                return Ok(());
            }
            let message = "the operators' API is served on an address that others reach only to those who know \
                           http.admin_token, which is not set"
                .to_owned();
            return Err((StatusCode::FORBIDDEN, "authorization", message));
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .map(HeaderValue::as_bytes);
        let given = given.and_then(|given| {
            let (scheme, rest) = given.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
        });
        if given.is_some_and(|given| is_same(given, token.reveal().as_bytes())) {
            return Ok(());
        }
        let message = "the operators' API needs the header authorization: Bearer TOKEN, with the token of http.admin_token"
            .to_owned();
        Err((StatusCode::UNAUTHORIZED, "authorization", message))
    }
}

/// Compares without telling by the time it takes how much is the same.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    let differs = given
        .iter()
        .zip(wanted)
        .fold(0, |differs, (a, b)| differs | (a ^ b));
    given.len() == wanted.len() && std::hint::black_box(differs) == 0
}

/// The one gate of the operators' API: lets a request through, or answers it.
pub async fn check_admin(
    State(guard): State<AdminGuard>,
    request: Request,
    next: Next,
) -> Response {
    let Err((status, field, message)) = guard.judge(request.headers()) else {
        return next.run(request).await;
    };
    tracing::debug!(%status, message, "an operator's request was refused");
    let error = json!({"error": {"message": message, "field": field}});
    let mut response = (status, axum::Json(error)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// Why a request is refused, in words for whoever sent it or runs this process.
type Refusal = (StatusCode, &'static str, String);

/// Lets a request through, or answers it.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.judge(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, field, message)) => {
            tracing::debug!(%status, message, "a request was refused");
            let error = json!({"error": {"message": message, "field": field}});
            (status, axum::Json(error)).into_response()
        }
    }
}

impl Guard {
    fn judge(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = host(uri, headers)?;
        if let Some(host) = host.as_deref() {
            self.is_ours(host)?;
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        self.comes_from_us(host.as_deref(), headers)?;
        says_json(headers)
    }

    fn is_ours(&self, host: &str) -> Result<(), Refusal> {
        let name = name_of(host);
        let is_ours = name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self
                .hosts
                .iter()
                .any(|ours| ours == ANY || ours.eq_ignore_ascii_case(name));
        if is_ours {
            return Ok(());
        }
        let message = format!(
            "this process does not answer to the name {name}: allowed are numeric addresses, localhost, and what stands in \
             http.hosts"
        );
        Err((StatusCode::MISDIRECTED_REQUEST, "host", message))
    }

    fn comes_from_us(&self, host: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
        let refused = |field, what: &str| {
            let message = format!(
                "{what} may not change anything here: allowed are this process's own pages, programs that are no browser, and \
                 what stands in http.origins"
            );
            Err((StatusCode::FORBIDDEN, field, message))
        };
        if let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let own = origin.split_once("://").map(|(_, place)| place);
            let is_own =
                own.is_some_and(|own| host.is_some_and(|host| host.eq_ignore_ascii_case(own)));
            let is_named = self
                .origins
                .iter()
                .any(|ours| ours.eq_ignore_ascii_case(origin));
            return if is_own || is_named {
                Ok(())
            } else {
                refused("origin", &format!("a page of {origin}"))
            };
        }
        match headers.get(SEC_FETCH_SITE).map(|site| site.as_bytes()) {
            Some(b"cross-site" | b"same-site") => {
                refused("sec-fetch-site", "a page of another origin")
            }
            _ => Ok(()),
        }
    }
}

/// Whom a request is for: the authority of its target, else its only `Host`. HTTP/1.0 may have none; browsers always say.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let wrong = || {
        let message = "a request has one host".to_owned();
        (StatusCode::BAD_REQUEST, "host", message)
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let (first, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(wrong());
    }
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.as_str().to_owned()));
    }
    first
        .map(|host| host.to_str().map(str::to_owned).map_err(|_| wrong()))
        .transpose()
}

/// The name or address in `NAME:PORT`, without brackets, and without the dot of a name that is complete.
fn name_of(host: &str) -> &str {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if let Some(address) = host.strip_prefix('[') {
        return address.split(']').next().unwrap_or_default();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

/// A body is JSON by its own word. A page of another origin may send forms and plain text without asking, and JSON only after.
fn says_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let length = headers.get(header::CONTENT_LENGTH);
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || length.is_some_and(|length| length.as_bytes() != b"0");
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_json = kind.eq_ignore_ascii_case("application/json")
        || kind.to_ascii_lowercase().ends_with("+json");
    if !has_body || is_json {
        return Ok(());
    }
    let message = "a body needs the header content-type: application/json (curl --json)".to_owned();
    Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard {
            hosts: ["node.example".to_owned()].into(),
            origins: ["https://ops.example".to_owned()].into(),
        }
    }

    /// The status of a request with these headers; 200 is let through.
    fn judged(guard: &Guard, method: &Method, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let judged = guard.judge(method, &Uri::from_static("/x"), &map);
        judged.map_or_else(|(status, ..)| status.as_u16(), |()| 200)
    }

    #[test]
    fn only_our_own_names_are_answered_to() {
        for host in [
            "127.0.0.1:8080",
            "10.1.2.3",
            "[::1]:8080",
            "localhost:8080",
            "LOCALHOST",
            "node.example:80",
            "node.example.",
        ] {
            assert_eq!(
                judged(&guard(), &Method::GET, &[("host", host)]),
                200,
                "{host}"
            );
        }
        for host in [
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
        ] {
            assert_eq!(
                judged(&guard(), &Method::GET, &[("host", host)]),
                421,
                "{host}"
            );
        }
        let two = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
        assert_eq!(judged(&guard(), &Method::GET, &two), 400);
        assert_eq!(judged(&guard(), &Method::GET, &[]), 200);
        let any = Guard {
            hosts: [ANY.to_owned()].into(),
            ..guard()
        };
        assert_eq!(judged(&any, &Method::GET, &[("host", "evil.example")]), 200);
    }

    #[test]
    fn only_our_own_pages_and_programs_change_anything() {
        let with = |header: &'static str, value: &str| {
            let headers = [("host", "127.0.0.1:8080"), (header, value)];
            [Method::GET, Method::POST, Method::PUT, Method::DELETE]
                .map(|method| judged(&guard(), &method, &headers))
        };
        assert_eq!(with("accept", "*/*"), [200; 4]);
        for ours in ["http://127.0.0.1:8080", "https://ops.example"] {
            assert_eq!(with("origin", ours), [200; 4], "{ours}");
        }
        for other in [
            "null",
            "http://127.0.0.1:9999",
            "http://evil.example",
            "http://127.0.0.1:8080.evil.example",
            "http://ops.example",
        ] {
            assert_eq!(with("origin", other), [200, 403, 403, 403], "{other}");
        }
        assert_eq!(with("sec-fetch-site", "same-origin"), [200; 4]);
        assert_eq!(with("sec-fetch-site", "none"), [200; 4]);
        assert_eq!(with("sec-fetch-site", "cross-site"), [200, 403, 403, 403]);
    }

    #[test]
    fn operators_know_the_token_or_are_on_this_machine() {
        let judged = |token: Option<&str>, listening: &str, given: Option<&str>| {
            let config = Http {
                admin_token: token.map(Secret::from),
                ..Http::default()
            };
            let guard = AdminGuard::new(&config, listening.parse().unwrap());
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(header::AUTHORIZATION, given.parse().unwrap());
            }
            guard
                .judge(&headers)
                .map_or_else(|(status, ..)| status.as_u16(), |()| 200)
        };
        for local in ["127.0.0.1", "::1", "127.9.9.9", "::ffff:127.0.0.1"] {
            assert_eq!(judged(None, local, None), 200, "{local}");
        }
        for open in ["0.0.0.0", "::", "10.0.0.1"] {
            assert_eq!(judged(None, open, Some("Bearer x")), 403, "{open}");
            assert!(AdminGuard::new(&Http::default(), open.parse().unwrap()).is_shut());
        }
        let token = "0123456789abcdef";
        for listening in ["127.0.0.1", "0.0.0.0"] {
            let with = |given| judged(Some(token), listening, given);
            for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef"] {
                assert_eq!(with(Some(right)), 200);
            }
            for wrong in [
                None,
                Some(""),
                Some("Bearer "),
                Some("Bearer 0123456789abcdee"),
                Some("Bearer 0123456789abcde"),
                Some("Bearer 0123456789abcdef0"),
                Some("Basic 0123456789abcdef"),
                Some("0123456789abcdef"),
            ] {
                assert_eq!(with(wrong), 401, "{wrong:?}");
            }
        }
    }

    #[test]
    fn a_body_says_that_it_is_json() {
        let with = |kind: &'static str, length: &'static str| {
            let headers = [("content-type", kind), ("content-length", length)];
            judged(&guard(), &Method::POST, &headers)
        };
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
        ] {
            assert_eq!(with(json, "2"), 200, "{json}");
        }
        for other in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "",
        ] {
            assert_eq!(with(other, "2"), 415, "{other}");
            assert_eq!(with(other, "0"), 200, "{other}");
        }
        let chunked = [("transfer-encoding", "chunked")];
        assert_eq!(judged(&guard(), &Method::POST, &chunked), 415);
    }
}
