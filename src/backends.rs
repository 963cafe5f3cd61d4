//! The three backends as one kind of thing: started, watched, served and drained alike.
//!
//! They are libraries of their own that know nothing of each other; this is the only place that lists them.

use runtime::{Running, Tuning};

use crate::config::Config;
use crate::exit::Failure;

/// Which backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rooms and their history.
    Chat,
    /// Devices, their values and commands.
    Iot,
    /// Counts, rates, latencies and the page.
    Dashboard,
}

/// All of them, in the order in which they start.
pub const ALL: [Kind; 3] = [Kind::Chat, Kind::Iot, Kind::Dashboard];

impl Kind {
    /// Its name: the command, the section of the configuration and the path below which `up` serves it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Iot => "iot",
            Self::Dashboard => "dashboard",
        }
    }

    /// Its address as a process of its own.
    pub fn http(self, config: &Config) -> &str {
        match self {
            Self::Chat => &config.http.chat,
            Self::Iot => &config.http.iot,
            Self::Dashboard => &config.http.dashboard,
        }
    }

    /// Its Kafka, consumer group and database, to be set by the command line.
    pub fn settings(self, config: &mut Config) -> Settings<'_> {
        match self {
            Self::Chat => Settings {
                kafka: &mut config.chat.kafka,
                group: &mut config.chat.group,
                database: &mut config.chat.database,
                consumer: &mut config.chat.consumer,
            },
            Self::Iot => Settings {
                kafka: &mut config.iot.kafka,
                group: &mut config.iot.group,
                database: &mut config.iot.database,
                consumer: &mut config.iot.consumer,
            },
            Self::Dashboard => Settings {
                kafka: &mut config.dashboard.kafka,
                group: &mut config.dashboard.group,
                database: &mut config.dashboard.database,
                consumer: &mut config.dashboard.consumer,
            },
        }
    }

    /// The Kafka topics that it reads, and those of its dead letters.
    pub fn kafka_topics(self, config: &Config) -> Vec<String> {
        let (topics, consumer) = match self {
            Self::Chat => (&config.chat.topics, &config.chat.consumer),
            Self::Iot => (&config.iot.topics, &config.iot.consumer),
            Self::Dashboard => (&config.dashboard.topics, &config.dashboard.consumer),
        };
        let dead = topics
            .iter()
            .map(|topic| format!("{topic}{}", consumer.dead_letter_suffix));
        topics.iter().cloned().chain(dead).collect()
    }

    /// Starts it.
    ///
    /// # Errors
    /// A start failure: Kafka cannot be reached, or the database cannot be opened.
    pub async fn start(self, config: &Config) -> Result<Backend, Failure> {
        let started = match self {
            Self::Chat => chat::start(config.chat.clone()).await,
            Self::Iot => iot::start(config.iot.clone()).await,
            Self::Dashboard => dashboard::start(config.dashboard.clone()).await,
        };
        match started {
            Ok(running) => Ok(Backend {
                kind: self,
                running,
            }),
            Err(error) => Err(Failure::cannot_start(format!(
                "the {} backend cannot start: {error}",
                self.name()
            ))),
        }
    }
}

/// What the command line may set of a backend.
pub struct Settings<'c> {
    /// Bootstrap servers.
    pub kafka: &'c mut String,
    /// Consumer group.
    pub group: &'c mut String,
    /// Database URL.
    pub database: &'c mut String,
    /// How its consumer reads.
    pub consumer: &'c mut Tuning,
}

/// A backend at work.
pub struct Backend {
    /// Which one it is.
    pub kind: Kind,
    /// The backend itself.
    pub running: Running,
}
