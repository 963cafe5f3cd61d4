//! The configuration: one TOML file, one section for each part, command line over file over defaults.
//!
//! Raw text becomes a [`Config`] that was checked once, or one sentence that names file, line, key, value and what is
//! allowed. What a section may say is its crate's business; this module only puts the sections together.

mod kafka;
mod locate;
pub mod reference;
pub mod up;

use std::path::Path;

use serde::{Deserialize, Serialize};
use settings::{Secret, Section as _};

use crate::exit::Failure;
use crate::{backends, demo, log};

/// The whole configuration file. Every section and every key may be left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Logging.
    pub log: log::Config,
    /// Where the processes serve HTTP.
    pub http: Http,
    /// What every part says of Kafka.
    pub kafka: kafka::Config,
    /// What `millstream up` adds to its parts.
    pub up: up::Config,
    /// The demo fleet of `up --demo`.
    pub demo: demo::Config,
    /// The MQTT tier.
    pub broker: broker::Config,
    /// MQTT to Kafka and back.
    pub bridge: bridge::Config,
    /// The chat backend.
    pub chat: chat::Config,
    /// The IoT backend.
    pub iot: iot::Config,
    /// The dashboard backend.
    pub dashboard: dashboard::Config,
}

settings::section! {
    /// The `[http]` section: one address for each kind of process, and the bounds of each.
    pub struct Http {
        /// Address of `up` (page, APIs, metrics, health, status) and of `broker` (metrics, health, status).
        pub broker: String = "127.0.0.1:8080".into(), [is ADDRESS];
        /// Address of `chat` as a process of its own.
        pub chat: String = "127.0.0.1:8081".into(), [is ADDRESS];
        /// Address of `iot` as a process of its own.
        pub iot: String = "127.0.0.1:8082".into(), [is ADDRESS];
        /// Address of `dashboard` as a process of its own.
        pub dashboard: String = "127.0.0.1:8083".into(), [is ADDRESS];
        /// Names under which this process is asked, beside localhost and numeric addresses, such as that of a proxy; `*` is any.
        /// Others are refused: whoever owns a name can point it at this machine, and a page of it would be one of ours.
        pub hosts: Vec<String> = Vec::new(), [is HOSTS];
        /// Origins whose pages may change something here, beside the process's own.
        pub origins: Vec<String> = Vec::new(), [is ORIGINS];
        /// What whoever uses the operators' API (`/api/admin/…`, `millstream ctl`) has to know; better given as `env:NAME` or
        /// `file:PATH`. Without it that API is served only on addresses of this machine itself, to everybody there.
        pub admin_token: Option<Secret> = None, [is TOKEN];
        /// Open connections of one process; one more is answered with 503 and closed.
        pub connections_max: u32 = 128, [8..=100_000, "connections"];
        /// How long a connection may take to say what it wants, idle ones between two requests included.
        pub head_timeout_ms: u64 = 30_000, [100..=600_000, "milliseconds"];
        /// How long a request that brings a body may take as a whole; then it is answered with 408.
        pub body_timeout_ms: u64 = 60_000, [100..=600_000, "milliseconds"];
    }
}

/// Guessing a shorter one is no matter of years.
const TOKEN_CHARACTERS_MIN: usize = 16;

const TOKEN: settings::Kind<Option<Secret>> = settings::Kind {
    words: "16 characters or more, without spaces",
    fits: |token| {
        token.as_ref().is_none_or(|token| {
            let text = token.reveal();
            text.len() >= TOKEN_CHARACTERS_MIN && text.bytes().all(|byte| byte.is_ascii_graphic())
        })
    },
};

const HOSTS: settings::Kind<Vec<String>> = settings::Kind {
    words: "list of names without port, such as \"node.example\"",
    fits: |hosts| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let fits = |host: &String| host == "*" || (!host.is_empty() && host.chars().all(is_name));
        hosts.iter().all(fits)
    },
};

const ORIGINS: settings::Kind<Vec<String>> = settings::Kind {
    words: "list of origins, such as \"https://ops.example\" or \"http://10.0.0.5:3000\"",
    fits: |origins| {
        let is_place = |place: &str| !place.is_empty() && !place.contains(['/', ' ', '*']);
        let fits = |origin: &String| {
            let place = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            place.is_some_and(is_place)
        };
        origins.iter().all(fits)
    },
};

const ADDRESS: settings::Kind<String> = settings::Kind {
    words: "HOST:PORT",
    fits: |text| crate::address::resolve("http", text).is_ok(),
};

impl Config {
    /// Reads and checks `file`; without one, the defaults.
    ///
    /// # Errors
    /// A start failure that names file, line, key, value and what is allowed.
    pub fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::cannot_start(format!(
                "cannot read the configuration {name} ({error}): check the path, or leave --config out to run on the \
                 defaults"
            ))
        })?;
        Self::parse(&text).map_err(|problem| Failure::cannot_start(format!("{name}{problem}")))
    }

    /// Parses and checks `text`; the error begins with the place, for example `, line 3: …`.
    fn parse(text: &str) -> Result<Self, String> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| locate::explain(text, &error))?;
        config
            .check_kafka()
            .map_err(|wrong| format!("{}: {wrong}", locate::place_of_key(text, &wrong.key)))?;
        let given: toml::Table =
            toml::from_str(text).map_err(|error| locate::explain(text, &error))?;
        kafka::spread(&mut config, |section, key| {
            given
                .get(section)
                .and_then(|section| section.get(key))
                .is_some()
        });
        config
            .validate()
            .map_err(|wrong| format!("{}: {wrong}", locate::place_of_key(text, &wrong.key)))?;
        Ok(config)
    }

    fn check_kafka(&self) -> Result<(), settings::Error> {
        self.kafka
            .check_keys()
            .and_then(|()| bridge::check_properties(&self.kafka.properties))
            .map_err(|error| error.below("kafka"))
    }

    /// An error about a property that a part has from `[kafka]` is one of that section.
    fn where_it_was_said(&self, mut error: settings::Error) -> settings::Error {
        if let Some((_, name)) = error.key.split_once(".properties.")
            && self.kafka.properties.get(name).is_some()
        {
            error.key = format!("kafka.properties.{name}");
        }
        error
    }

    /// Checks every value of every section.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), settings::Error> {
        for (section, result) in [
            ("log", self.log.check_keys()),
            ("http", self.http.check_keys()),
            ("up", self.up.check_keys()),
            ("demo", self.demo.check_keys()),
            ("broker", self.broker.validate()),
            ("bridge", self.bridge.validate()),
        ] {
            result.map_err(|error| error.below(section))?;
        }
        for backend in backends::ALL {
            backend
                .validate(self)
                .map_err(|error| self.where_it_was_said(error.below(backend.name())))?;
        }
        Ok(())
    }

    /// The resolved configuration as TOML, every key with its value, secrets left out.
    ///
    /// # Errors
    /// When a value cannot be written as TOML, which would be a bug.
    pub fn resolved(&self) -> anyhow::Result<String> {
        Ok(toml::to_string_pretty(self)?)
    }
}

/// What the reference allows for `section.key`; empty when it has no entry.
pub fn allowed(section: &str, key: &str) -> String {
    reference::sections()
        .into_iter()
        .find(|other| other.name == section)
        .and_then(|section| section.entry(key).map(|entry| entry.allowed.to_string()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed_and_an_empty_file_means_them() {
        Config::default().validate().unwrap();
        let config = Config::parse("").unwrap();
        assert_eq!(
            config.resolved().unwrap(),
            Config::default().resolved().unwrap()
        );
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let listeners = "[[broker.listeners]]\nname = \"a\"\naddress = \"127.0.0.1:8883\"\ntransport = \"tls\"\n\
                         tls = { certificate = \"c\", key = \"k\" }\n";
        for text in ["", listeners] {
            let printed = Config::parse(text).unwrap().resolved().unwrap();
            assert_eq!(
                Config::parse(&printed).unwrap().resolved().unwrap(),
                printed
            );
        }
    }

    #[test]
    fn a_problem_names_line_key_value_and_what_is_allowed() {
        for (text, parts) in [
            (
                "[broker]\nworkers = \"two\"\n",
                &[", line 2", "broker.workers", "\"two\"", "allowed"][..],
            ),
            (
                "[broker]\n\nworkres = 2\n",
                &[", line 3", "broker.workres", "no key", "workers"],
            ),
            (
                "[brokers]\n",
                &[", line 1", "brokers", "no section", "bridge"],
            ),
            ("[broker]\nworkers = \n", &[", line 2", "TOML"]),
            (
                "[broker]\nworkers = 2\nworkers = 3\n",
                &[", line 3", "TOML", "duplicate"],
            ),
            (
                "[demo]\nrooms = 1\ntalkers_per_room = 99\n",
                &[", line 3", "demo.talkers_per_room", "99", "1 to 31"],
            ),
            (
                "[broker.limits]\nconnect_timeout_ms = \"10s\"\n",
                &[
                    ", line 2",
                    "broker.limits.connect_timeout_ms",
                    "10s",
                    "milliseconds",
                ],
            ),
            (
                "[chat]\ndatabase = \"mysql://x\"\n",
                &[", line 2", "chat.database", "mysql://x", "sqlite:FILE"],
            ),
            (
                "[iot]\ndatabase = \"sqlite:x?mode=never\"\n",
                &[", line 2", "iot.database", "sqlite:FILE"],
            ),
            (
                "[log]\nfilter = \"loud\"\n",
                &[", line 2", "log.filter", "loud", "debug"],
            ),
            (
                "[[broker.access]]\neffect = \"deny\"\naction = \"connect\"\n",
                &[
                    ", line 1",
                    "broker.access",
                    "[[broker.access.rules]]",
                    "default",
                ],
            ),
            (
                "[broker]\nlisten = \"127.0.0.1:1884\"\n[[broker.listeners]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\n",
                &[", line 2", "broker.listen", "short form"],
            ),
            (
                "[[broker.listeners]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\nauthentication = [\"x\"]\n",
                &["broker.listeners[0].authentication", "file"],
            ),
            (
                "[[broker.listeners]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\ntransport = \"tls\"\n",
                &["broker.listeners[0].tls.certificate", "needs a certificate"],
            ),
            (
                "[broker.access]\ndefault = \"refuse\"\n",
                &[
                    ", line 2",
                    "broker.access.default",
                    "refuse",
                    "\"allow\" or \"deny\"",
                ],
            ),
            (
                "[broker.access]\nruls = []\n",
                &[", line 2", "broker.access.ruls", "no key", "rules"],
            ),
            (
                "[[broker.access.rules]]\neffect = \"allow\"\naction = \"publish\"\nfilter = \"a/%x\"\n",
                &[", line 4", "broker.access.rules[0].filter", "%x", "%c"],
            ),
            (
                "[http]\nbroker = \"nowhere\"\n",
                &[", line 2", "http.broker", "nowhere", "HOST:PORT"],
            ),
        ] {
            let message = Config::parse(text).unwrap_err();
            for part in parts {
                assert!(
                    message.contains(part),
                    "{text:?} gives {message:?}, which lacks {part:?}"
                );
            }
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn secrets_of_kafka_are_not_printed() {
        let text = "[bridge.properties]\n\"sasl.password\" = \"hunter2\"\n\"ssl.ca.location\" = \"/x\"\n\
                    [chat.consumer.properties]\n\"ssl.key.password\" = \"hunter2\"\n";
        let printed = Config::parse(text).unwrap().resolved().unwrap();
        assert!(!printed.contains("hunter2"), "{printed}");
        let hidden = |text: &str| text.matches("\"***\"").count();
        let always = hidden(&Config::default().resolved().unwrap());
        assert_eq!(hidden(&printed), always + 2, "{printed}");
        assert!(printed.contains("\"/x\""), "{printed}");
    }

    #[test]
    fn what_all_parts_say_of_kafka_is_said_once_and_a_part_may_differ() {
        let text = "[kafka]\nservers = \"a:1\"\n[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\
                    \"sasl.password\" = \"env:CARGO_PKG_NAME\"\n[iot]\nkafka = \"b:2\"\n\
                    [iot.consumer.properties]\n\"security.protocol\" = \"plaintext\"\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(
            [
                &config.bridge.kafka,
                &config.chat.kafka,
                &config.iot.kafka,
                &config.dashboard.kafka,
                &config.up.kafka
            ],
            ["a:1", "a:1", "b:2", "a:1", "a:1"]
        );
        let protocol = |properties: &settings::kafka::Properties| {
            properties.get("security.protocol").map(str::to_owned)
        };
        assert_eq!(protocol(&config.bridge.properties).unwrap(), "ssl");
        assert_eq!(protocol(&config.chat.consumer.properties).unwrap(), "ssl");
        assert_eq!(
            protocol(&config.iot.consumer.properties).unwrap(),
            "plaintext"
        );
        assert_eq!(
            config.iot.consumer.properties.get("sasl.password"),
            Some("millstream")
        );
        let printed = config.resolved().unwrap();
        assert!(!printed.contains("\"millstream\""), "{printed}");
        // Without the section nothing changes: `up` has a Kafka in memory.
        assert_eq!(Config::parse("[chat]\n").unwrap().up.kafka, "");
    }

    #[test]
    fn a_wrong_property_is_named_and_no_secret_is_printed_with_it() {
        for (text, parts) in [
            (
                "[bridge.properties]\n\"sasl.password\" = \"hunter2\"\n\"sasl.pasword\" = \"hunter2\"\n",
                &["line 3", "bridge.properties.sasl.pasword", "No such"][..],
            ),
            (
                "[kafka]\n[kafka.properties]\n\"sasl.pasword\" = \"hunter2\"\n",
                &["line 3", "kafka.properties.sasl.pasword", "No such"],
            ),
            (
                "[kafka.properties]\n\"max.poll.interval.ms\" = \"5\"\n",
                &["line 2", "kafka.properties.max.poll.interval.ms"],
            ),
            (
                "[chat.consumer.properties]\n\"sasl.password\" = 2222\n",
                &["line 2", "chat.consumer.properties", "***"],
            ),
            (
                "[bridge.properties]\n\"sasl.password\" = \"env:NO_SUCH_VARIABLE_2222\"\n",
                &["line 2", "NO_SUCH_VARIABLE_2222", "not set"],
            ),
            (
                "[bridge.properties]\n\"socket.timeout.ms\" = \"soon\"\n",
                &["line 2", "bridge.properties.socket.timeout.ms", "\"soon\""],
            ),
        ] {
            let message = Config::parse(text).unwrap_err();
            assert!(
                !message.contains("hunter2") && !message.contains(" 2222"),
                "{message}"
            );
            for part in parts {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        }
    }
}
