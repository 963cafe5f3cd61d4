//! What a start says of who may do what: which default is in force, and what an operator may believe in vain.

use broker::{AccessConfig, Action, Carrier, Config, Effect};

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
pub fn warnings(config: &Config) -> Vec<String> {
    let (access, listeners) = (&config.access, config.all_listeners());
    let mut warnings = Vec::new();
    let is_known = |listener: &broker::Listener| !config.chain_of(listener).0.is_empty();
    let are_known = listeners.iter().all(is_known);
    let is_open = listeners.iter().any(|listener| !listener.is_local());
    for listener in listeners.iter().filter(|listener| !listener.is_local()) {
        let (name, mqtt) = (&listener.name, &listener.address);
        if access.rules.is_empty() && !is_known(listener) {
            warnings.push(format!(
                "MQTT listens on {mqtt} without any access rule: whoever reaches it may connect, publish and subscribe to \
                 everything; give it users (--password-file), write rules in [broker.access], or listen on 127.0.0.1"
            ));
        }
        if listener.transport == Carrier::Tcp {
            warnings.push(format!(
                "the listener {name:?} on {mqtt} has no TLS: whoever is on the way reads every message and password; set \
                 transport = \"tls\", or listen on 127.0.0.1"
            ));
        }
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
        let config = |rules: &str, mqtt: &str| Config {
            access: access(rules),
            listen: mqtt.to_owned(),
            ..Config::default()
        };
        let said = |rules: &str, mqtt: &str| warnings(&config(rules, mqtt));
        assert!(said("", "127.0.0.1:1883").is_empty() && said("", "[::1]:1883").is_empty());
        let [open, plain, unchecked] = &said("", "0.0.0.0:1883")[..] else {
            panic!("not three warnings");
        };
        assert!(open.contains("without any access rule"), "{open}");
        assert!(plain.contains("has no TLS"), "{plain}");
        assert!(
            unchecked.contains("passwords are not checked"),
            "{unchecked}"
        );
        assert_eq!(
            said(ALLOW, "127.0.0.1:1883"),
            std::slice::from_ref(unchecked)
        );
        assert_eq!(said(ALLOW, "10.0.0.1:1883").len(), 2);
        let mut known = config("", "0.0.0.0:1883");
        known.authentication.chain.push("file".to_owned());
        assert_eq!(warnings(&known), std::slice::from_ref(plain));
    }
}
