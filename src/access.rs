//! What a start says of who may do what: which default is in force, and what an operator may believe in vain.

use std::net::SocketAddr;

use broker::{AccessConfig, Action, Config, Effect};

/// The rules and what holds where none matches, in one line.
pub fn in_words(access: &AccessConfig) -> String {
    let rules = match access.rules.len() {
        0 => "no rules".to_owned(),
        1 => "1 rule".to_owned(),
        rules => format!("{rules} rules"),
    };
    let [connect, publish, subscribe] =
        Action::ALL.map(|action| match access.default_for(action) {
            Effect::Allow => "allowed",
            Effect::Deny => "denied",
        });
    format!("{rules}; else connect is {connect}, publish {publish}, subscribe {subscribe}")
}

/// Warnings for the log.
pub fn warnings(config: &Config, mqtt: SocketAddr) -> Vec<String> {
    let access = &config.access;
    let mut warnings = Vec::new();
    let is_open = !mqtt.ip().is_loopback();
    let are_known = !config.authentication.chain.is_empty();
    if is_open && access.rules.is_empty() && !are_known {
        warnings.push(format!(
            "MQTT listens on {mqtt} without any access rule: whoever reaches it may connect, publish and subscribe to \
             everything; give it users (--password-file), write rules in [broker.access], or listen on 127.0.0.1"
        ));
    }
    if !are_known && (is_open || !access.rules.is_empty()) {
        warnings.push(
            "user names and passwords are not checked (broker.authentication): access rules go by the client identifier, which each client \
             chooses itself"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(rules: &str) -> AccessConfig {
        serde_json::from_str(&format!("{{\"rules\":[{rules}]}}")).unwrap()
    }

    const ALLOW: &str = r#"{"effect":"allow","action":"publish","filter":"a"}"#;

    #[test]
    fn the_default_in_force_is_said() {
        assert_eq!(
            in_words(&access("")),
            "no rules; else connect is allowed, publish allowed, subscribe allowed"
        );
        assert_eq!(
            in_words(&access(ALLOW)),
            "1 rule; else connect is allowed, publish denied, subscribe allowed"
        );
    }

    #[test]
    fn what_is_open_and_what_nobody_checks_is_a_warning() {
        let config = |rules: &str| Config {
            access: access(rules),
            ..Config::default()
        };
        let said = |rules: &str, mqtt: &str| warnings(&config(rules), mqtt.parse().unwrap());
        assert!(said("", "127.0.0.1:1883").is_empty() && said("", "[::1]:1883").is_empty());
        let [open, unchecked] = &said("", "0.0.0.0:1883")[..] else {
            panic!("not two warnings");
        };
        assert!(open.contains("without any access rule"), "{open}");
        assert!(
            unchecked.contains("passwords are not checked"),
            "{unchecked}"
        );
        for mqtt in ["127.0.0.1:1883", "10.0.0.1:1883"] {
            assert_eq!(said(ALLOW, mqtt), std::slice::from_ref(unchecked));
        }
        let mut known = config("");
        known.authentication.chain.push("file".to_owned());
        assert!(warnings(&known, "0.0.0.0:1883".parse().unwrap()).is_empty());
    }
}
