//! Tokens that OpenSSL signed (testdata/tokens, checked with testdata/public.pem), the examples of the RFCs, tokens of
//! our own that are wrong in one way each, and services that hang, lie or shrink.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac as ring_hmac;
use serde_json::{Value, json};

use super::*;
use crate::attempts::Attempts;
use crate::chain::{Chain, Verdict};
use crate::principal::{Credentials, Password};

const TOKENS: &str = include_str!("../../testdata/tokens");
const PUBLIC: &str = include_str!("../../testdata/public.pem");
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> JwtConfig {
    JwtConfig {
        secret: SECRET.into(),
        ..JwtConfig::default()
    }
}

/// A token of our own, with this header and these claims.
fn token_with(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = ring_hmac::Key::new(ring_hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = ring_hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn token(claims: &Value) -> String {
    token_with(&json!({"alg": "HS256"}), claims)
}

fn judge(config: &JwtConfig, token: &str, now_s: f64) -> Result<Accepted, Wrong> {
    let keys = local_keys(config).unwrap();
    let inner = Inner {
        config: config.clone(),
        local: RwLock::new(Arc::clone(&keys)),
        known: Mutex::default(),
        key: [0; 32],
        problem: Mutex::default(),
    };
    inner.judge(token, &[keys], now_s)
}

fn why(config: &JwtConfig, token: &str, now_s: f64) -> String {
    format!("{:?}", judge(config, token, now_s).unwrap_err())
}

fn public_file() -> (tempfile::NamedTempFile, JwtConfig) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), PUBLIC).unwrap();
    let config = JwtConfig {
        key_files: vec![file.path().display().to_string()],
        ..JwtConfig::default()
    };
    (file, config)
}

#[test]
fn what_openssl_signed_is_accepted_in_every_way_of_signing_and_not_when_a_bit_is_another() {
    let (_file, mut config) = public_file();
    config.tenant_claim = "realm.tenant".to_owned();
    config.claims = vec!["site".into(), "floor".into(), "nothing".into()];
    config.issuers = vec!["https://id.example".into()];
    config.audiences = vec!["mqtt".into()];
    let mut ways = 0;
    for line in TOKENS.lines() {
        let (name, token) = line.split_once(' ').unwrap();
        let accepted = judge(&config, token, 1_700_000_000.0).unwrap();
        let principal = accepted.principal.unwrap();
        assert_eq!(&*principal.user, "ada", "{name}");
        assert_eq!(principal.tenant.as_deref(), Some("acme"));
        assert!(principal.is_in("ops") && principal.is_in("staff"));
        assert_eq!(principal.claim("site"), Some("north"));
        assert_eq!(principal.claim("floor"), Some("3"));
        assert_eq!(principal.claim("nothing"), None);
        let lasts_s = 4_102_444_800_u64 - 1_700_000_000 + 30;
        assert_eq!(accepted.lasts_ms, Some(lasts_s * 1_000));
        // Another claim, another signature.
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[9] ^= 1;
        let broken = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes));
        assert_eq!(
            why(&config, &broken, 0.0),
            "Token(\"its signature is wrong\")"
        );
        let (header, _) = message.split_once('.').unwrap();
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"root","exp":4102444800}"#);
        let forged = format!("{header}.{claims}.{signature}");
        assert_eq!(
            why(&config, &forged, 0.0),
            "Token(\"its signature is wrong\")"
        );
        ways += 1;
    }
    assert_eq!(ways, 9);
}

#[test]
fn the_examples_of_the_rfcs_are_understood() {
    let hs256 = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let es256 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let file = tempfile::NamedTempFile::new().unwrap();
    let jwks = json!({"keys": [
        {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
        {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    ]});
    std::fs::write(file.path(), jwks.to_string()).unwrap();
    let config = JwtConfig {
        key_files: vec![file.path().display().to_string()],
        user_claim: "iss".to_owned(),
        ..JwtConfig::default()
    };
    for token in [hs256, es256] {
        let accepted = judge(&config, token, 1_300_819_000.0).unwrap();
        assert_eq!(&*accepted.principal.unwrap().user, "joe");
        let expired = why(&config, token, 1_300_819_411.0);
        assert_eq!(expired, "Token(\"it has expired\")");
    }
}

#[test]
fn times_hold_with_the_leeway_and_not_beyond_it() {
    let config = config();
    let at = |now_s: f64, claims: Value| judge(&config, &token(&claims), now_s);
    let claims = json!({"sub": "ada", "exp": 1_000, "nbf": 500});
    assert_eq!(at(1_029.0, claims.clone()).unwrap().lasts_ms, Some(1_000));
    assert_eq!(
        at(1_030.0, claims.clone()),
        Err(Wrong::Token("it has expired"))
    );
    assert!(at(470.0, claims.clone()).is_ok());
    assert_eq!(at(469.0, claims), Err(Wrong::Token("it is not valid yet")));
    // What is no time is no leave to go on.
    for exp in [json!("1000"), json!(null), json!([1_000]), json!({})] {
        let said = at(0.0, json!({"sub": "ada", "exp": exp}));
        assert_eq!(said, Err(Wrong::Token("one of its times is none")));
        let said = at(0.0, json!({"sub": "ada", "exp": 1_000, "nbf": exp}));
        assert_eq!(said, Err(Wrong::Token("one of its times is none")));
    }
    assert_eq!(
        at(0.0, json!({"sub": "ada"})),
        Err(Wrong::Token("it never expires"))
    );
    let lenient = JwtConfig {
        require_expiry: false,
        ..config.clone()
    };
    let forever = judge(&lenient, &token(&json!({"sub": "ada"})), 0.0).unwrap();
    assert_eq!(forever.lasts_ms, None);
}

#[test]
fn a_token_that_is_not_ours_is_refused() {
    let strict = JwtConfig {
        issuers: vec!["us".into()],
        audiences: vec!["mqtt".into()],
        ..config()
    };
    let claims =
        |iss: Value, aud: Value| token(&json!({"sub": "ada", "exp": 9, "iss": iss, "aud": aud}));
    assert!(judge(&strict, &claims(json!("us"), json!(["x", "mqtt"])), 0.0).is_ok());
    for (iss, aud, said) in [
        (json!("them"), json!("mqtt"), "issuer"),
        (json!(null), json!("mqtt"), "issuer"),
        (json!("us"), json!("mqtt2"), "somebody else"),
        (json!("us"), json!([]), "somebody else"),
        (json!("us"), json!({"mqtt": true}), "somebody else"),
    ] {
        let why = why(&strict, &claims(iss, aud), 0.0);
        assert!(why.contains(said), "{why}");
    }
    for (header, said) in [
        (json!({"alg": "none"}), "not signed"),
        (json!({"alg": "NoNe"}), "not signed"),
        (json!({"alg": "HS1"}), "not known"),
        (json!({"typ": "JWT"}), "does not say how"),
        (json!({"alg": "HS256", "crit": ["b64"]}), "extensions"),
        (json!(["HS256"]), "header"),
    ] {
        let token = token_with(&header, &json!({"sub": "ada", "exp": 9}));
        let said_why = why(&config(), &token, 0.0);
        assert!(said_why.contains(said), "{said_why}");
        // And with nothing where the signature should be.
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert!(judge(&config(), &unsigned, 0.0).is_err());
    }
    for subject in [
        json!(""),
        json!(7),
        json!("a\nb"),
        json!("a\u{0}"),
        json!("x".repeat(257)),
    ] {
        let why = why(&config(), &token(&json!({"sub": subject, "exp": 9})), 0.0);
        assert!(why.contains("whose it is"), "{why}");
    }
    for text in [
        "",
        ".",
        "..",
        "eyJ.e30.",
        "a.b.c",
        "eyJhbGciOiJIUzI1NiJ9.e30",
    ] {
        assert!(judge(&config(), text, 0.0).is_err(), "{text}");
    }
}

/// The public half of a key is no secret that a token can be made with.
#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let (_file, config) = public_file();
    for secret in [PUBLIC, PUBLIC.trim()] {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"root","exp":9}"#);
        let message = format!("{header}.{claims}");
        let key = ring_hmac::Key::new(ring_hmac::HMAC_SHA256, secret.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(ring_hmac::sign(&key, message.as_bytes()));
        let forged = format!("{message}.{signature}");
        assert_eq!(judge(&config, &forged, 0.0), Err(Wrong::UnknownKey));
    }
    let only_es = JwtConfig {
        algorithms: vec!["ES256".into()],
        ..config
    };
    let rs256 = TOKENS.lines().next().unwrap().split_once(' ').unwrap().1;
    assert!(why(&only_es, rs256, 0.0).contains("not allowed"));
}

struct Fixture {
    link: Arc<JwtLink>,
    chain: Arc<Chain>,
}

impl Fixture {
    fn new(config: &JwtConfig) -> Self {
        let link = Arc::new(JwtLink::start(config).unwrap());
        let attempts = Arc::new(Attempts::new(100, 0, 16));
        let links = vec![Arc::clone(&link) as Arc<dyn Link>];
        let chain = Arc::new(Chain::new(links, false, attempts));
        Self { link, chain }
    }

    fn begin(&self, token: &str) -> (Option<Verdict>, Receiver<Verdict>) {
        let credentials = Credentials {
            user: Some("whoever".into()),
            password: Some(Password::from(token.as_bytes())),
            address: Some([192, 0, 2, 1].into()),
            ..Credentials::default()
        };
        let (tell, told) = sync_channel(64);
        let verdict = self.chain.ask(credentials, move |verdict| {
            let _ = tell.send(verdict);
        });
        (verdict, told)
    }

    fn ask(&self, token: &str) -> (Verdict, bool) {
        match self.begin(token) {
            (Some(verdict), _) => (verdict, true),
            (None, told) => (told.recv_timeout(PATIENCE).unwrap(), false),
        }
    }

    fn refusal(&self, token: &str) -> Refusal {
        self.ask(token).0.unwrap_err().refusal
    }
}

fn valid() -> String {
    token(&json!({"sub": "ada", "exp": now_s() as u64 + 3_600}))
}

#[test]
fn a_right_token_is_known_the_second_time_and_ends_when_it_says() {
    let fixture = Fixture::new(&config());
    let token = valid();
    for at_once in [false, true] {
        let (verdict, was) = fixture.ask(&token);
        let accepted = verdict.unwrap();
        let lasts_s = accepted.lasts_ms.unwrap() / 1_000;
        assert!((3_600..=3_630).contains(&lasts_s), "{lasts_s}");
        assert_eq!(was, at_once);
    }
    // It is known no longer than it lasts.
    let soon = super::tests::token(&json!({"sub": "ada", "exp": now_s() + 0.3}));
    let short = Fixture::new(&JwtConfig {
        leeway_s: 0,
        ..config()
    });
    assert!(short.ask(&soon).0.is_ok());
    assert!(short.link.inner.remembers(&soon, now_s() + 0.4).is_none());
    assert!(short.link.inner.remembers(&soon, now_s() - 0.4).is_some());
}

#[test]
fn what_is_no_token_is_passed_on_and_what_is_too_long_is_not_looked_at() {
    let fixture = Fixture::new(&config());
    for other in ["hunter2", "a.b.c", "ey", "eyJ.x"] {
        let (verdict, at_once) = fixture.ask(other);
        assert_eq!(verdict.unwrap_err().why, "nobody knows these credentials");
        assert!(at_once);
    }
    let claims = json!({"sub": "ada", "exp": 9, "more": "x".repeat(1_000_000)});
    let (verdict, at_once) = fixture.ask(&token(&claims));
    assert_eq!(verdict.unwrap_err().why, TOO_LONG);
    assert!(at_once);
}

#[test]
fn a_changed_key_file_is_taken_over_and_a_broken_one_is_a_problem() {
    let (file, config) = public_file();
    let fixture = Fixture::new(&config);
    let token = TOKENS.lines().next().unwrap().split_once(' ').unwrap().1;
    assert!(fixture.ask(token).0.is_ok());
    std::fs::write(file.path(), &PUBLIC[..100]).unwrap();
    assert!(!fixture.link.look(true));
    let problem = fixture.link.problem().unwrap();
    assert!(
        problem.contains(&*file.path().display().to_string()),
        "{problem}"
    );
    assert!(fixture.ask(token).0.is_ok(), "the keys of before hold");
    let last = PUBLIC.rfind("-----BEGIN").unwrap();
    std::fs::write(file.path(), &PUBLIC[last..]).unwrap();
    assert!(fixture.link.look(true));
    assert_eq!(fixture.link.problem(), None);
    assert_eq!(fixture.refusal(token), Refusal::BadCredentials);
}

/// A service that gives each request the next of the bodies, and then the last one again; it hangs where there is none.
struct Service {
    address: SocketAddr,
    bodies: SyncSender<Option<String>>,
    asked: Receiver<()>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (bodies, next) = sync_channel::<Option<String>>(64);
        let (ask, asked) = sync_channel(64);
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            while let Ok((mut client, _)) = listener.accept() {
                let mut head = [0; 4_096];
                let _ = client.read(&mut head);
                let _ = ask.send(());
                match next.recv() {
                    Ok(Some(body)) => {
                        let length = body.len();
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                        );
                        let _ = client.write_all(answer.as_bytes());
                    }
                    Ok(None) => hanging.push(client),
                    Err(_) => return,
                }
            }
        });
        Self {
            address,
            bodies,
            asked,
        }
    }

    fn config(&self) -> JwtConfig {
        JwtConfig {
            jwks_url: format!("http://{}/keys", self.address),
            timeout_ms: 200,
            ..JwtConfig::default()
        }
    }

    fn gives(&self, body: impl Into<String>) {
        self.bodies.send(Some(body.into())).unwrap();
    }

    fn until_asked(&self) {
        self.asked.recv_timeout(PATIENCE).unwrap();
    }
}

const ES256_TOKEN_LINE: usize = 6;

/// The RFC's key, under this name, and a token that the key has not made.
fn jwks(names: &[&str]) -> String {
    let key = |name: &&str| {
        json!({"kty": "EC", "crv": "P-256", "kid": name, "use": "sig",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
    };
    json!({"keys": names.iter().map(key).collect::<Vec<_>>()}).to_string()
}

/// The P-256 key of testdata as a JSON Web Key.
fn p256_jwk(name: &str) -> Value {
    let key = keys::of_file(PUBLIC).unwrap().remove(1);
    let debug = format!("{key:?}");
    assert!(debug.contains("P-256"), "{debug}");
    let (x, y) = keys::coordinates(&key);
    json!({"kty": "EC", "crv": "P-256", "kid": name, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
}

fn es256() -> &'static str {
    let line = TOKENS.lines().nth(ES256_TOKEN_LINE).unwrap();
    line.strip_prefix("ES256 ").unwrap()
}

fn until_problem(link: &JwtLink, is_there: bool) -> String {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let problem = link.problem();
        if problem.is_some() == is_there {
            return problem.unwrap_or_default();
        }
        assert!(std::time::Instant::now() < until, "{problem:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn keys_at_a_url_are_fetched_and_a_token_of_a_new_key_waits_for_them() {
    let service = Service::start();
    service.gives(json!({"keys": [p256_jwk("p256")]}).to_string());
    let fixture = Fixture::new(&service.config());
    // It came before the keys did.
    let (verdict, _) = fixture.ask(es256());
    assert_eq!(&*verdict.unwrap().principal.unwrap().user, "ada");
    assert_eq!(fixture.link.problem(), None);
}

#[test]
fn a_service_that_hangs_or_lies_lets_nobody_in_and_takes_nobody_out() {
    let service = Service::start();
    service.bodies.send(None).unwrap();
    let fixture = Fixture::new(&service.config());
    assert_eq!(fixture.refusal(es256()), Refusal::Unavailable);
    let problem = until_problem(&fixture.link, true);
    assert!(problem.contains("cannot be had"), "{problem}");
    // Then it is there.
    let remote = fixture.link.remote.as_ref().unwrap();
    service.until_asked();
    service.gives(json!({"keys": [p256_jwk("p256")]}).to_string());
    remote.forget_pause();
    until_problem(&fixture.link, false);
    assert!(fixture.ask(es256()).0.is_ok());
    lock(&fixture.link.inner.known).clear();
    // And then it lies: what it said before holds.
    for lie in [
        "<html>sign in</html>".to_owned(),
        "{\"keys\":[]}".to_owned(),
        "{\"keys\":{}}".to_owned(),
        format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(2_000_000)),
    ] {
        service.gives(lie);
        remote.forget_pause();
        let problem = until_problem(&fixture.link, true);
        assert!(problem.contains("hold until"), "{problem}");
        assert!(fixture.ask(es256()).0.is_ok());
        lock(&fixture.link.inner.known).clear();
        service.gives(json!({"keys": [p256_jwk("p256")]}).to_string());
        remote.forget_pause();
        until_problem(&fixture.link, false);
    }
}

#[test]
fn a_key_that_is_gone_from_the_set_is_gone_and_what_was_known_by_it_too() {
    let service = Service::start();
    service.gives(json!({"keys": [p256_jwk("p256")]}).to_string());
    let fixture = Fixture::new(&service.config());
    assert!(fixture.ask(es256()).0.is_ok());
    assert!(fixture.ask(es256()).1, "it is remembered");
    let remote = fixture.link.remote.as_ref().unwrap();
    service.gives(jwks(&["another"]));
    remote.forget_pause();
    let until = std::time::Instant::now() + PATIENCE;
    while !lock(&fixture.link.inner.known).is_empty() {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(fixture.refusal(es256()), Refusal::BadCredentials);
}

#[test]
fn keys_that_were_fetched_too_long_ago_hold_no_more() {
    let service = Service::start();
    service.gives(json!({"keys": [p256_jwk("p256")]}).to_string());
    let fixture = Fixture::new(&JwtConfig {
        stale_s: 1,
        cache_max: 0,
        ..service.config()
    });
    assert!(fixture.ask(es256()).0.is_ok());
    let remote = fixture.link.remote.as_ref().unwrap();
    remote.pretend_fetched_before(Duration::from_secs(2));
    assert!(remote.keys().is_none());
}
