//! The `[broker.authentication]` section.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use settings::{Error, Kind, Secret, Section as _};

use crate::{http, jwt, password, web};

settings::section! {
    /// The `[broker.authentication]` section.
    #[derive(Eq)]
    pub struct Config {
        /// Who looks at a client's credentials, in this order, until one accepts or refuses them: "file" (a password file),
        /// "jwt" (a signed token), "http" (a service elsewhere). What nobody knows is refused. Without any, whoever can reach the listener may connect: that has to be said by `anonymous`
        /// where others than this machine can.
        pub chain: Vec<String> = Vec::new(), ["list of \"file\", \"jwt\" and \"http\""];
        /// Whether clients that say nothing of who they are may connect: with a chain, beside those that it accepts.
        pub anonymous: bool = false, ["true or false"];
        /// What one address (IPv6: one /64) may have under way or have failed at before it is refused without a look: attempts
        /// that cost something. Those that succeed are forgotten at once.
        pub attempts_burst: u32 = 100, [1..=1_000_000, "attempts"];
        /// How fast failed attempts are forgotten.
        pub attempts_per_minute: u32 = 60, [0..=1_000_000, "attempts a minute"];
        /// Addresses whose attempts are counted one by one; those beyond it share one count.
        pub attempts_addresses_max: u32 = 65_536, [1..=10_000_000, "addresses"];
        /// How often files that it reads are looked at. A change is taken over when a file has stayed as it is for this long; on
        /// SIGHUP at once.
        pub look_interval_ms: u64 = 1_000, [10..=3_600_000, "milliseconds"];
        /// The password file.
        pub file: FileConfig = FileConfig::default(), [section];
        /// Signed tokens.
        pub jwt: JwtConfig = JwtConfig::default(), [section];
        /// A service elsewhere.
        pub http: HttpConfig = HttpConfig::default(), [section];
    }
}

settings::section! {
    /// The `[broker.authentication.file]` section.
    #[derive(Eq)]
    pub struct FileConfig {
        /// The password file; `millstream passwd FILE USER` edits it.
        pub path: String = String::new(), ["path of a file"];
        /// Threads that hash passwords, below the priority of all others. Each needs the memory of a hash while it runs, 19 MiB
        /// by default.
        pub threads: u32 = 2, [1..=64, "threads"];
        /// Passwords that wait for these threads; one more is refused with 0x89 (0x03 in 3.x).
        pub queue_max: u32 = 1_024, [1..=1_000_000, "passwords"];
        /// For how long a password that was right is known without hashing it again, unless the file changes.
        pub cache_s: u32 = 300, [0..=86_400, "seconds; 0 is not at all"];
    }
}

/// Where a client puts its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenIn {
    /// Where others put their password; the user name is not looked at.
    Password,
    /// Where others put their user name.
    User,
}

const URL: Kind<String> = Kind {
    words: "an http:// or https:// address; empty is none",
    fits: |url| url.is_empty() || web::is_url(url),
};

settings::section! {
    /// The `[broker.authentication.jwt]` section.
    #[derive(Eq)]
    pub struct JwtConfig {
        /// A secret that the issuer shares with this node, for HS256, HS384 and HS512: 32 bytes or more.
        pub secret: Secret = Secret::from(""), ["text, \"env:NAME\" or \"file:PATH\""];
        /// Files with keys: public keys as PEM, JSON Web Keys, or sets of these.
        pub key_files: Vec<String> = Vec::new(), ["list of paths"];
        /// Where the issuer shows its keys as a JSON Web Key Set.
        pub jwks_url: String = String::new(), [is URL];
        /// Certificates (PEM) that the server at `jwks_url` is believed by.
        pub ca_file: String = String::new(), ["path of a file; empty is the system's"];
        /// How often the keys at `jwks_url` are fetched; besides, within seconds when a token names a key that is not known.
        pub refresh_s: u32 = 300, [5..=86_400, "seconds"];
        /// For how long keys of `jwks_url` hold when they cannot be fetched again.
        pub stale_s: u32 = 86_400, [1..=31_536_000, "seconds"];
        /// How long a fetch may take as a whole.
        pub timeout_ms: u32 = 5_000, [10..=60_000, "milliseconds"];
        /// Ways of signing that are allowed, among those that the keys are for.
        pub algorithms: Vec<String> = Vec::new(), ["list of \"HS256\", \"HS384\", \"HS512\", \"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \"ES256\", \"ES384\" and \"EdDSA\"; empty is all"];
        /// Issuers (`iss`), of which a token must name one.
        pub issuers: Vec<String> = Vec::new(), ["list of text; empty is any"];
        /// Audiences (`aud`), of which a token must name one.
        pub audiences: Vec<String> = Vec::new(), ["list of text; empty is any"];
        /// How far the issuer's clock and this node's may be apart.
        pub leeway_s: u32 = 30, [0..=3_600, "seconds"];
        /// Whether a token without `exp` is refused.
        pub require_expiry: bool = true, ["true or false"];
        /// Where a client puts its token.
        pub token: TokenIn = TokenIn::Password, ["\"password\" or \"user\""];
        /// A longer token is refused without a look.
        pub token_bytes_max: u32 = 8_192, [64..=65_535, "bytes"];
        /// The claim with the user's name; names with dots between lead into objects.
        pub user_claim: String = "sub".to_owned(), ["name of a claim"];
        /// The claim with the user's tenant; a token without it is refused.
        pub tenant_claim: String = String::new(), ["name of a claim; empty is none"];
        /// The claim with the user's groups: a list, or text with spaces between.
        pub groups_claim: String = "groups".to_owned(), ["name of a claim"];
        /// Other claims that access rules ask for (`${claim.NAME}`): text, numbers, true and false.
        pub claims: Vec<String> = Vec::new(), ["list of names of claims"];
        /// Threads that look at tokens, below the priority of all others.
        pub threads: u32 = 1, [1..=64, "threads"];
        /// Tokens that wait for these threads; one more is refused with 0x89 (0x03 in 3.x).
        pub queue_max: u32 = 4_096, [1..=1_000_000, "tokens"];
        /// Tokens that were right and are known without looking again, until they expire or the keys change.
        pub cache_max: u32 = 65_536, [0..=10_000_000, "tokens"];
    }
}

settings::section! {
    /// The `[broker.authentication.http]` section.
    #[derive(Eq)]
    pub struct HttpConfig {
        /// Where the service is asked, by POST with JSON; docs/SECURITY.md says what it is told and how it answers.
        pub url: String = String::new(), [is URL];
        /// Certificates (PEM) that the service is believed by.
        pub ca_file: String = String::new(), ["path of a file; empty is the system's"];
        /// What the service knows this node by: sent as `Authorization: Bearer …`.
        pub bearer: Secret = Secret::from(""), ["text, \"env:NAME\" or \"file:PATH\"; empty is nothing"];
        /// How long an answer may take as a whole; a client without one is refused with 0x88 (0x03 in 3.x).
        pub timeout_ms: u32 = 2_000, [10..=60_000, "milliseconds"];
        /// Clients that it is asked about at the same time.
        pub requests_max: u32 = 8, [1..=256, "requests"];
        /// Clients that wait for their turn; one more is refused with 0x89 (0x03 in 3.x).
        pub queue_max: u32 = 1_024, [1..=1_000_000, "clients"];
        /// For how long it is not asked again about who was let in.
        pub cache_s: u32 = 60, [0..=86_400, "seconds; 0 is not at all"];
        /// How many of those are known.
        pub cache_max: u32 = 65_536, [0..=10_000_000, "clients"];
    }
}

/// The links that a chain may name.
pub(crate) const LINKS: [&str; 3] = [password::NAME, jwt::NAME, http::NAME];

impl Config {
    /// Checks every value and how they relate.
    ///
    /// # Errors
    /// The first value that is not allowed, with its key and what is.
    pub fn validate(&self) -> Result<(), Error> {
        self.check_keys()?;
        self.jwt.validate().map_err(|error| error.below("jwt"))?;
        self.check_chain("chain", &self.chain)
    }

    /// Checks a chain that stands at `key`.
    ///
    /// # Errors
    /// When a link is unknown, comes twice, or lacks what it needs.
    pub fn check_chain(&self, key: &str, chain: &[String]) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for link in chain {
            if !LINKS.contains(&&**link) || !seen.insert(link) {
                let allowed = format!("each of {} once at most", in_words(&LINKS));
                return Err(Error::new(key, format!("{chain:?}"), allowed));
            }
            if link == password::NAME && self.file.path.is_empty() {
                let allowed = "the path of a password file, where \"file\" is in a chain; `millstream passwd FILE USER` \
                               makes one";
                return Err(Error::text("file.path", "", allowed));
            }
            if link == http::NAME && self.http.url.is_empty() {
                let allowed = "the address of a service, where \"http\" is in a chain";
                return Err(Error::text("http.url", "", allowed));
            }
            if link == jwt::NAME && !self.jwt.has_keys() {
                let allowed = "a list of files with keys, where \"jwt\" is in a chain and neither secret nor jwks_url is set";
                return Err(Error::new("jwt.key_files", "[]", allowed));
            }
        }
        Ok(())
    }
}

impl JwtConfig {
    fn validate(&self) -> Result<(), Error> {
        let is_known = |name: &String| jwt::algorithms().contains(&&**name);
        if let Some(unknown) = self.algorithms.iter().find(|name| !is_known(name)) {
            let allowed = in_words(&jwt::algorithms());
            return Err(Error::text(
                "algorithms",
                unknown,
                format!("each of {allowed}"),
            ));
        }
        if self.user_claim.is_empty() {
            return Err(Self::refused("user_claim", "\"\""));
        }
        Ok(())
    }

    fn has_keys(&self) -> bool {
        !self.secret.reveal().is_empty() || !self.key_files.is_empty() || !self.jwks_url.is_empty()
    }
}

fn in_words(links: &[&str]) -> String {
    let quoted: Vec<_> = links.iter().map(|link| format!("{link:?}")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(chain: &[&str], path: &str) -> Config {
        let mut config = Config {
            chain: chain.iter().map(|&link| link.to_owned()).collect(),
            ..Config::default()
        };
        config.file.path = path.to_owned();
        config
    }

    #[test]
    fn a_chain_names_links_that_there_are_each_once_and_with_what_they_need() {
        config(&[], "").validate().unwrap();
        config(&["file"], "users").validate().unwrap();
        for (chain, path, said) in [
            (&["ldap"][..], "users", "chain = [\"ldap\"]"),
            (&["file", "file"], "users", "once at most"),
            (&["file"], "", "file.path"),
        ] {
            let error = config(chain, path).validate().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
