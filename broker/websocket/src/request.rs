//! The HTTP request that opens a connection (RFC 6455, 4.2), and answers to those that do not: to people who look with a
//! browser, to health checks of a proxy, and to clients that ask for the wrong thing.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tungstenite::handshake::derive_accept_key;

use crate::bounds::{HEADERS_MAX, REQUEST_BYTES_MAX};
use crate::end::{End, Stranger};

/// Paths at which a plain request is told that all is well.
const HEALTH_PATHS: [&str; 2] = ["/", "/health"];

/// The subprotocols of MQTT: the registered one [MQTT-6.0.0-3], and the one of MQTT 3.1.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Which requests are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The path to ask for.
    pub path: String,
    /// The origins of the pages that may connect, such as `https://example.org`. With none, or `*` among them, any may. A
    /// client that is no browser names none, and is not kept out by this.
    pub origins: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            path: "/mqtt".to_owned(),
            origins: Vec::new(),
        }
    }
}

impl Rules {
    fn allows(&self, origin: &str) -> bool {
        let is_it = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(origin);
        self.origins.is_empty() || self.origins.iter().any(is_it)
    }
}

/// A request of which the end has not come yet.
#[derive(Debug)]
pub(crate) struct Request {
    rules: Arc<Rules>,
    head: Vec<u8>,
}

/// What has become of a request.
#[derive(Debug)]
pub(crate) enum Step {
    /// Its end has not come yet.
    More,
    /// It opens a connection. So many of the bytes were its.
    Upgrade { taken: usize, response: Vec<u8> },
    /// It does not. Nobody is answered who does not speak HTTP.
    Answer { end: End, response: Vec<u8> },
}

/// An answer that does not open a connection.
struct Answer {
    status: u16,
    phrase: &'static str,
    /// Whole header lines.
    headers: &'static str,
    why: &'static str,
}

const HEALTHY: Answer = Answer {
    status: 200,
    phrase: "OK",
    headers: "",
    why: "an MQTT broker: connect by WebSocket, with the subprotocol mqtt",
};

impl Request {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            head: Vec::new(),
        }
    }

    /// Takes what came.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Step {
        let before = self.head.len();
        if let (0, Some(stranger)) = (before, bytes.first().and_then(|it| Stranger::of(*it))) {
            return Step::Answer {
                end: End::Stranger(stranger),
                response: Vec::new(),
            };
        }
        let room = REQUEST_BYTES_MAX - before;
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        match end_of_head(&self.head, before) {
            Some(end) => {
                self.head.truncate(end);
                self.judge(end - before)
            }
            None if bytes.len() >= room => self.answer(&Answer {
                status: 431,
                phrase: "Request Header Fields Too Large",
                headers: "",
                why: "the request is longer than 8,192 bytes",
            }),
            None => Step::More,
        }
    }

    fn judge(&self, taken: usize) -> Step {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let answer = match request.parse(&self.head) {
            Ok(httparse::Status::Complete(_)) => match self.accept(&request) {
                Ok(response) => return Step::Upgrade { taken, response },
                Err(answer) => answer,
            },
            Err(httparse::Error::TooManyHeaders) => Answer {
                status: 431,
                phrase: "Request Header Fields Too Large",
                headers: "",
                why: "the request has more than 64 headers",
            },
            Err(httparse::Error::Version) => Answer {
                status: 505,
                phrase: "HTTP Version Not Supported",
                headers: "",
                why: "WebSocket here begins with HTTP/1.1",
            },
            Ok(httparse::Status::Partial) | Err(_) => bad("this is no HTTP request"),
        };
        self.answer(&answer)
    }

    /// What lets the client in.
    fn accept(&self, request: &httparse::Request<'_, '_>) -> Result<Vec<u8>, Answer> {
        let target = request.path.unwrap_or_default();
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let method = request.method.unwrap_or_default();
        let headers = Headers(request.headers);
        let upgrades = headers.has("upgrade", "websocket");
        if !upgrades && HEALTH_PATHS.contains(&path) && matches!(method, "GET" | "HEAD" | "OPTIONS")
        {
            return Err(HEALTHY);
        }
        if !matches!(method, "GET" | "HEAD") {
            return Err(Answer {
                status: 405,
                phrase: "Method Not Allowed",
                headers: "Allow: GET, HEAD\r\n",
                why: "a WebSocket begins with GET",
            });
        }
        if path != self.rules.path {
            return Err(Answer {
                status: 404,
                phrase: "Not Found",
                headers: "",
                why: "MQTT is at another path of this listener, by default /mqtt",
            });
        }
        if !upgrades || method != "GET" {
            return Err(Answer {
                status: 426,
                phrase: "Upgrade Required",
                headers: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                why: "here is MQTT over WebSocket: connect with an MQTT client, with the subprotocol mqtt",
            });
        }
        if request.version != Some(1) {
            return Err(bad("a WebSocket begins with HTTP/1.1"));
        }
        if !headers.has("connection", "upgrade") {
            return Err(bad(
                "the header \"Connection: Upgrade\" is missing; a proxy in between may have taken it away",
            ));
        }
        if headers.only("sec-websocket-version") != Some("13") {
            return Err(Answer {
                status: 426,
                phrase: "Upgrade Required",
                headers: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                why: "the version of WebSocket is 13",
            });
        }
        let key = headers.only("sec-websocket-key").unwrap_or_default();
        if !STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
            return Err(bad(
                "the header Sec-WebSocket-Key is not 16 bytes in base 64",
            ));
        }
        let origin = headers.values("origin").find(|it| !self.rules.allows(it));
        if origin.is_some() {
            return Err(Answer {
                status: 403,
                phrase: "Forbidden",
                headers: "",
                why: "pages of this origin may not connect",
            });
        }
        let mut offered = headers.tokens("sec-websocket-protocol");
        let Some(protocol) = offered.find(|it| PROTOCOLS.contains(it)) else {
            return Err(bad(
                "the client has to offer the subprotocol \"mqtt\" (or \"mqttv3.1\")",
            ));
        };
        let accept = derive_accept_key(key.as_bytes());
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        Ok(response.into_bytes())
    }

    fn answer(&self, answer: &Answer) -> Step {
        let Answer {
            status,
            phrase,
            headers,
            why,
        } = *answer;
        let length = why.len() + 1;
        let mut response = format!(
            "HTTP/1.1 {status} {phrase}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        );
        if !self.head.starts_with(b"HEAD ") {
            response.push_str(why);
            response.push('\n');
        }
        Step::Answer {
            end: End::Answered { status, why },
            response: response.into_bytes(),
        }
    }
}

fn bad(why: &'static str) -> Answer {
    Answer {
        status: 400,
        phrase: "Bad Request",
        headers: "",
        why,
    }
}

/// Where the head ends, which is not before `from`: behind its first empty line.
pub(crate) fn end_of_head(head: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(3);
    let newlines = head.iter().enumerate().skip(from);
    newlines
        .filter(|(_, byte)| **byte == b'\n')
        .find_map(|(at, _)| match &head[at + 1..] {
            [b'\n', ..] => Some(at + 2),
            [b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        })
}

/// Headers by name.
pub(crate) struct Headers<'a, 'b>(pub(crate) &'a [httparse::Header<'b>]);

impl<'b> Headers<'_, 'b> {
    /// The values of all headers of this name; what is no UTF-8 is none that is looked for.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &'b str> {
        let of_name = self
            .0
            .iter()
            .filter(move |it| it.name.eq_ignore_ascii_case(name));
        of_name.map(|header| std::str::from_utf8(header.value).map_or("", str::trim))
    }

    /// The value of the only header of this name.
    pub(crate) fn only(&self, name: &str) -> Option<&'b str> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Elements of lists that are separated by commas.
    pub(crate) fn tokens(&self, name: &str) -> impl Iterator<Item = &'b str> {
        self.values(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
    }

    /// Whether a list has this element, in capital letters or not.
    pub(crate) fn has(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|it| it.eq_ignore_ascii_case(token))
    }
}
