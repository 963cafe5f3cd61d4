//! Who may ask by way of a browser. A page of any origin can send requests to this machine, and with them commands to
//! devices; and a name that its owner points at this machine (DNS rebinding) makes that page one of ours to the browser.
//!
//! So every request has to be to a name that is ours, and what changes something has to come from a page of ours, or from no
//! page at all, with a body that says that it is JSON: that a foreign page may only send after asking, and we do not answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

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
