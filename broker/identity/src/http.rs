//! Users that a service elsewhere knows, asked over HTTP: the link `http`.
//!
//! It is asked by POST with JSON, and answers with JSON. Whatever else it does (another code, no JSON, nothing in time) lets
//! nobody in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::rand_core::{OsRng, RngCore as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::Sha256;

use crate::chain::{Accepted, Asked, Link, Question, Refusal, Refused, Said};
use crate::config::HttpConfig;
use crate::node::StartError;
use crate::pool::Pool;
use crate::principal::{Credentials, Principal};
use crate::web::{Answer, Web};

/// The link's name.
pub const NAME: &str = "http";
/// The longest name of a user, a tenant or a group, and the longest claim.
const NAME_BYTES_MAX: usize = 256;

const TOO_MANY: &str = "its address has too many attempts under way or failed";
const BUSY: &str = "too many wait for the service: broker.authentication.http.queue_max";
const DENIED: &str = "the service says no";

/// See the module.
pub struct HttpLink {
    inner: Arc<Inner>,
    pool: Pool,
}

struct Inner {
    config: HttpConfig,
    web: Web,
    key: [u8; 32],
    known: Mutex<HashMap<[u8; 32], Known>>,
    problem: Mutex<Option<String>>,
}

/// Whom the service has let in lately.
struct Known {
    principal: Option<Arc<Principal>>,
    /// When what it was let in by ends.
    ends: Option<Instant>,
    /// Until when the service is not asked again.
    until: Instant,
}

/// What the service says.
#[derive(Debug, Deserialize)]
struct Says {
    result: Decision,
    user: Option<String>,
    tenant: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    claims: Map<String, Value>,
    expires_in_s: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Allow,
    Deny,
    Ignore,
}

impl HttpLink {
    /// Starts the threads that ask.
    ///
    /// # Errors
    /// When there are no certificates to believe the service by, or the system gives no thread.
    pub fn start(config: &HttpConfig) -> Result<Self, StartError> {
        let timeout = Duration::from_millis(config.timeout_ms.into());
        let web = Web::new(&config.url, timeout, &config.ca_file).map_err(|error| {
            StartError::Service(format!(
                "cannot ask {} who clients are: {error}",
                config.url
            ))
        })?;
        let mut key = [0; 32];
        OsRng.fill_bytes(&mut key);
        Ok(Self {
            inner: Arc::new(Inner {
                config: config.clone(),
                web,
                key,
                known: Mutex::default(),
                problem: Mutex::default(),
            }),
            pool: Pool::start(
                "service",
                config.requests_max as usize,
                config.queue_max as usize,
            )?,
        })
    }
}

impl Inner {
    /// Names all that the service is told.
    fn mac(&self, credentials: &Credentials) -> [u8; 32] {
        let mac = Hmac::<Sha256>::new_from_slice(&self.key);
        let mut mac = mac.expect("a key of any length will do");
        let text = question(credentials).to_string();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn remembers(&self, credentials: &Credentials, now: Instant) -> Option<Accepted> {
        if self.config.cache_s == 0 {
            return None;
        }
        let mac = self.mac(credentials);
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&mac).filter(|known| known.until > now)?;
        let lasts_ms = match known.ends {
            Some(ends) if ends <= now => return None,
            ends => ends.map(|ends| millis(ends - now)),
        };
        Some(Accepted {
            principal: known.principal.clone(),
            lasts_ms,
        })
    }

    fn remember(&self, credentials: &Credentials, accepted: &Accepted, now: Instant) {
        let most = self.config.cache_max as usize;
        if self.config.cache_s == 0 || most == 0 {
            return;
        }
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= most {
            all.retain(|_, known| known.until > now);
        }
        if all.len() >= most
            && let Some(some) = all.keys().next().copied()
        {
            all.remove(&some);
        }
        let lasts = accepted.lasts_ms.map(Duration::from_millis);
        let known = Known {
            principal: accepted.principal.clone(),
            ends: lasts.and_then(|lasts| now.checked_add(lasts)),
            until: now + Duration::from_secs(self.config.cache_s.into()),
        };
        all.insert(self.mac(credentials), known);
    }

    /// Asks the service.
    fn judge(&self, credentials: &Credentials) -> Said {
        // Of many who came with the same the first has found out.
        if let Some(accepted) = self.remembers(credentials, Instant::now()) {
            return Said::Decided(Ok(accepted));
        }
        let body = question(credentials).to_string();
        let bearer = self.config.bearer.reveal();
        let answer = self.web.post(&self.config.url, bearer, &body);
        let said = answer.and_then(|answer| understand(&answer, credentials));
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Ok(said) => {
                if problem.take().is_some() {
                    tracing::info!(
                        url = self.config.url,
                        "the service that knows clients answers again"
                    );
                }
                if let Said::Decided(Ok(accepted)) = &said {
                    self.remember(credentials, accepted, Instant::now());
                }
                said
            }
            Err(why) => {
                let what = format!(
                    "{} does not say who clients are: {why}; they are refused",
                    self.config.url
                );
                if problem.is_none() {
                    tracing::error!("{what}");
                }
                *problem = Some(what);
                Said::refused(
                    Refusal::Unavailable,
                    "the service that would know does not answer",
                )
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the service is told.
fn question(credentials: &Credentials) -> Value {
    let password = credentials
        .password
        .as_ref()
        .map(|password| password.reveal());
    let certificate = credentials.certificate.as_ref().map(|certificate| {
        json!({
            "common_name": certificate.common_name,
            "alternative_names": certificate.alternative_names,
        })
    });
    let mut question = json!({
        "client_id": credentials.client_id,
        "user": credentials.user,
        "address": credentials.address,
        "listener": &*credentials.listener,
        "certificate": certificate,
        "password": null,
    });
    match password.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        Some((Ok(text), _)) => question["password"] = text.into(),
        Some((Err(_), bytes)) => question["password_base64"] = STANDARD.encode(bytes).into(),
        None => {}
    }
    question
}

/// What the service means.
fn understand(answer: &Answer, credentials: &Credentials) -> Result<Said, String> {
    match answer.code {
        200 => {}
        401 | 403 => return Ok(Said::refused(Refusal::BadCredentials, DENIED)),
        code => return Err(format!("it answers with {code}")),
    }
    let says: Says = serde_json::from_str(&answer.body)
        .map_err(|error| format!("its answer is not understood ({error})"))?;
    match says.result {
        Decision::Deny => return Ok(Said::refused(Refusal::BadCredentials, DENIED)),
        Decision::Ignore => return Ok(Said::Pass),
        Decision::Allow => {}
    }
    let user = says.user.as_deref().or(credentials.user.as_deref());
    let names = user.into_iter().chain(says.tenant.as_deref());
    if let Some(name) = names
        .chain(says.groups.iter().map(String::as_str))
        .find(|name| !is_name(name))
    {
        return Ok(Said::Decided(Err(Refused::new(
            Refusal::NotAuthorized,
            format!("the service lets it in under a name that is none: {name:.64?}"),
        ))));
    }
    let claim = |(name, value): (String, Value)| {
        let text = match value {
            Value::String(text) => text,
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return None,
        };
        Some((Box::from(name), Box::from(text)))
    };
    let groups = says.groups.iter().map(|group| Box::from(group.as_str()));
    let groups = groups.collect();
    let claims = says.claims.into_iter().filter_map(claim).collect();
    let principal = user.map(|user| {
        Arc::new(Principal::with(
            user,
            says.tenant.as_deref(),
            groups,
            claims,
        ))
    });
    Ok(Said::Decided(Ok(Accepted {
        principal,
        lasts_ms: says
            .expires_in_s
            .map(|seconds| seconds.saturating_mul(1_000)),
    })))
}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

impl Link for HttpLink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ask(&self, mut question: Question) -> Asked {
        if let Some(accepted) = self.inner.remembers(question.credentials(), Instant::now()) {
            return Asked::Now(question, Said::Decided(Ok(accepted)));
        }
        if !question.charge() {
            return Asked::Now(question, Said::refused(Refusal::TooManyAttempts, TOO_MANY));
        }
        let inner = Arc::clone(&self.inner);
        let job = move |question: Question| {
            let said = inner.judge(question.credentials());
            question.answer(said);
        };
        match self.pool.run(question, job) {
            Ok(()) => Asked::Later,
            Err(question) => Asked::Now(question, Said::refused(Refusal::Busy, BUSY)),
        }
    }

    /// Whoever asks for everything to be read again has everybody asked about again.
    fn look(&self, asked: bool) -> bool {
        if asked {
            let mut known = self
                .inner
                .known
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            known.clear();
        }
        false
    }

    fn problem(&self) -> Option<String> {
        let problem = self
            .inner
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        problem.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::attempts::Attempts;
    use crate::chain::{Chain, Verdict};
    use crate::principal::Password;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Answers each request with what `answer` makes of its body; nothing is no answer at all.
    fn service(answer: impl Fn(Value) -> Option<String> + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || serve(client, &*answer));
            }
        });
        address
    }

    fn serve(mut client: TcpStream, answer: &dyn Fn(Value) -> Option<String>) {
        let mut request = Vec::new();
        let mut buffer = [0; 4_096];
        loop {
            let n = client.read(&mut buffer).unwrap_or(0);
            request.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
            if let Some(Ok(body)) = body.map(serde_json::from_str::<Value>) {
                match answer(body) {
                    Some(answer) => drop(client.write_all(answer.as_bytes())),
                    // It hangs until the other side gives up.
                    None => drop(client.read(&mut buffer)),
                }
                return;
            }
            if n == 0 {
                return;
            }
        }
    }

    fn ok(body: &Value) -> Option<String> {
        let body = body.to_string();
        Some(format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    struct Fixture {
        link: Arc<HttpLink>,
        chain: Arc<Chain>,
    }

    fn fixture(address: SocketAddr, change: impl FnOnce(&mut HttpConfig)) -> Fixture {
        let mut config = HttpConfig {
            url: format!("http://{address}/who"),
            timeout_ms: 5_000,
            ..HttpConfig::default()
        };
        change(&mut config);
        let link = Arc::new(HttpLink::start(&config).unwrap());
        let attempts = Arc::new(Attempts::new(100, 0, 16));
        let links = vec![Arc::clone(&link) as Arc<dyn Link>];
        Fixture {
            link,
            chain: Arc::new(Chain::new(links, false, attempts)),
        }
    }

    impl Fixture {
        fn ask(&self, user: &str, password: &[u8]) -> (Verdict, bool) {
            let credentials = Credentials {
                client_id: "c".into(),
                user: Some(user.into()),
                password: Some(Password::from(password)),
                address: Some([192, 0, 2, 1].into()),
                listener: "mqtt".into(),
                ..Credentials::default()
            };
            let (tell, told) = sync_channel(64);
            let verdict = self.chain.ask(credentials, move |verdict| {
                let _ = tell.send(verdict);
            });
            match verdict {
                Some(verdict) => (verdict, true),
                None => (told.recv_timeout(PATIENCE).unwrap(), false),
            }
        }

        fn refusal(&self, user: &str) -> Refusal {
            self.ask(user, b"x").0.unwrap_err().refusal
        }
    }

    #[test]
    fn the_service_is_told_everything_and_names_the_client() {
        let (saw, seen) = sync_channel(64);
        let address = service(move |body| {
            saw.send(body).unwrap();
            ok(
                &json!({"result": "allow", "user": "ada", "tenant": "acme", "groups": ["ops"],
                "claims": {"site": "north", "floor": 3, "more": {}}, "expires_in_s": 60}),
            )
        });
        let fixture = fixture(address, |_| ());
        let (verdict, _) = fixture.ask("someone", b"hunter2");
        let accepted = verdict.unwrap();
        let principal = accepted.principal.unwrap();
        assert_eq!(
            (&*principal.user, principal.tenant.as_deref()),
            ("ada", Some("acme"))
        );
        assert!(principal.is_in("ops"));
        assert_eq!(
            (principal.claim("floor"), principal.claim("more")),
            (Some("3"), None)
        );
        assert_eq!(accepted.lasts_ms, Some(60_000));
        let body = seen.recv().unwrap();
        assert_eq!(
            body,
            json!({"client_id": "c", "user": "someone", "password": "hunter2", "address": "192.0.2.1",
                "listener": "mqtt", "certificate": null})
        );
        fixture.ask("someone", &[0xff]).0.unwrap();
        assert_eq!(seen.recv().unwrap()["password_base64"], "/w==");
    }

    #[test]
    fn who_was_let_in_is_known_for_a_time_and_who_was_not_is_asked_about_again() {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let address = service(move |body| {
            counted.fetch_add(1, Ordering::SeqCst);
            let result = if body["password"] == "right" {
                "allow"
            } else {
                "deny"
            };
            ok(&json!({ "result": result }))
        });
        let fixture = fixture(address, |config| config.cache_max = 2);
        for at_once in [false, true] {
            let (verdict, was) = fixture.ask("ada", b"right");
            assert_eq!(&*verdict.unwrap().principal.unwrap().user, "ada");
            assert_eq!(was, at_once);
        }
        for _ in 0..2 {
            assert!(!fixture.ask("ada", b"wrong").1);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        for user in ["a", "b", "c"] {
            fixture.ask(user, b"right").0.unwrap();
        }
        assert_eq!(fixture.link.inner.known.lock().unwrap().len(), 2);
        fixture.link.look(true);
        assert!(
            !fixture.ask("c", b"right").1,
            "everybody is asked about again"
        );
    }

    #[test]
    fn whatever_else_the_service_does_lets_nobody_in() {
        let address = service(|body| {
            let answer = |code: &str, body: &str| {
                let length = body.len();
                Some(format!(
                    "HTTP/1.1 {code}\r\nconnection: close\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: {length}\r\n\r\n{body}"
                ))
            };
            match body["user"].as_str() {
                Some("hang") => None,
                Some("garbage") => Some("no HTTP at all\r\n\r\n".to_owned()),
                Some("500") => answer("500 Oh", "{\"result\":\"allow\"}"),
                Some("204") => answer("204 No Content", ""),
                Some("302") => answer("302 Found", "{\"result\":\"allow\"}"),
                Some("403") => answer("403 Forbidden", ""),
                Some("text") => answer("200 OK", "allow"),
                Some("maybe") => answer("200 OK", "{\"result\":\"maybe\"}"),
                Some("empty") => answer("200 OK", "{}"),
                Some("huge") => answer(
                    "200 OK",
                    &format!(
                        "{{\"result\":\"allow\",\"x\":\"{}\"}}",
                        "x".repeat(2_000_000)
                    ),
                ),
                Some("name") => {
                    answer("200 OK", "{\"result\":\"allow\",\"user\":\"a\\u001b[31m\"}")
                }
                Some("ignore") => answer("200 OK", "{\"result\":\"ignore\"}"),
                _ => answer("200 OK", "{\"result\":\"allow\"}"),
            }
        });
        let fixture = fixture(address, |config| config.timeout_ms = 300);
        for user in [
            "hang", "garbage", "500", "204", "302", "text", "maybe", "empty", "huge",
        ] {
            assert_eq!(fixture.refusal(user), Refusal::Unavailable, "{user}");
            let problem = fixture.link.problem().unwrap();
            assert!(problem.contains(&address.to_string()), "{problem}");
        }
        assert_eq!(fixture.refusal("403"), Refusal::BadCredentials);
        assert_eq!(fixture.refusal("ignore"), Refusal::BadCredentials);
        let refused = fixture.ask("name", b"x").0.unwrap_err();
        assert_eq!(refused.refusal, Refusal::NotAuthorized);
        assert!(!refused.why.contains('\u{1b}'), "{refused:?}");
        assert!(fixture.ask("ada", b"x").0.is_ok());
        assert_eq!(fixture.link.problem(), None);
    }

    #[test]
    fn no_more_is_asked_at_once_than_may_be() {
        let (begun, begins) = sync_channel(64);
        let (go_on, goes_on) = sync_channel::<()>(64);
        let goes_on = Mutex::new(goes_on);
        let address = service(move |_| {
            begun.send(()).unwrap();
            let _ = goes_on.lock().unwrap().recv();
            ok(&json!({"result": "allow"}))
        });
        let fixture = fixture(address, |config| {
            config.requests_max = 2;
            config.queue_max = 1;
        });
        let (tell, told) = sync_channel(64);
        let ask = |user: &str| {
            let credentials = Credentials {
                user: Some(user.into()),
                ..Credentials::default()
            };
            let tell = tell.clone();
            fixture
                .chain
                .ask(credentials, move |verdict| tell.send(verdict).unwrap())
        };
        for user in ["a", "b"] {
            assert_eq!(ask(user), None);
            begins.recv_timeout(PATIENCE).unwrap();
        }
        assert_eq!(ask("c"), None);
        let busy = ask("d").unwrap().unwrap_err();
        assert_eq!(busy.refusal, Refusal::Busy);
        for _ in 0..3 {
            go_on.send(()).unwrap();
        }
        for _ in 0..3 {
            assert!(told.recv_timeout(PATIENCE).unwrap().is_ok());
        }
    }
}
