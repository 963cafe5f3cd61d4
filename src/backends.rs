//! The backends as one kind of thing: listed, configured, started, watched, served and drained alike.
//!
//! They are libraries of their own that know nothing of each other. This is the only place that lists them; beside it a
//! backend has its section in `config.rs` and its dependency in `Cargo.toml`.

use runtime::{Running, Tuning};

use crate::cli;
use crate::config::Config;
use crate::exit::Failure;

/// From one entry for each backend (its name is that of its crate, its command, its section of the configuration and the
/// path below which `up` serves it) all that the binary needs of it.
macro_rules! backends {
    ($(#[doc = $about:literal] $kind:ident = $name:ident, example: $example:literal;)+) => {
        /// Which backend.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $about] $kind,)+
        }

        /// All of them, in the order in which they start.
        pub const ALL: [Kind; [$(Kind::$kind),+].len()] = [$(Kind::$kind),+];

        /// A backend as a process of its own, on the command line.
        #[derive(Debug, clap::Subcommand)]
        pub enum Command {
            $(
                #[doc = $about]
                #[command(
                    about = concat!("Run the ", stringify!($name), " backend:", $about),
                    long_about = None,
                    after_help = $example,
                )]
                $kind(cli::Backend),
            )+
        }

        impl Command {
            /// Which backend, and how.
            pub fn into_parts(self) -> (Kind, cli::Backend) {
                match self {
                    $(Self::$kind(options) => (Kind::$kind, options),)+
                }
            }
        }

        impl Kind {
            /// Its name: the command, the section of the configuration and the path below which `up` serves it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($name),)+
                }
            }

            /// Its address as a process of its own.
            pub fn http(self, config: &Config) -> &str {
                match self {
                    $(Self::$kind => &config.http.$name,)+
                }
            }

            /// Its Kafka, consumer group and database, to be set by the command line.
            pub fn settings(self, config: &mut Config) -> Settings<'_> {
                match self {
                    $(Self::$kind => Settings {
                        kafka: &mut config.$name.kafka,
                        group: &mut config.$name.group,
                        database: &mut config.$name.database,
                        consumer: &mut config.$name.consumer,
                    },)+
                }
            }

            /// Checks its section of the configuration.
            ///
            /// # Errors
            /// The first value that is not allowed.
            pub fn validate(self, config: &Config) -> Result<(), settings::Error> {
                match self {
                    $(Self::$kind => config.$name.validate(),)+
                }
            }

            /// The keys of its section, for the reference.
            pub fn keys(self) -> Vec<settings::Key> {
                match self {
                    $(Self::$kind => <$name::Config as settings::Section>::keys(),)+
                }
            }

            /// The Kafka topics that it reads, and those of its dead letters.
            pub fn kafka_topics(self, config: &Config) -> Vec<String> {
                let (topics, consumer) = match self {
                    $(Self::$kind => (&config.$name.topics, &config.$name.consumer),)+
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
                    $(Self::$kind => $name::start(config.$name.clone()).await,)+
                };
                match started {
                    Ok(running) => Ok(Backend { kind: self, running }),
                    Err(error) => Err(Failure::cannot_start(format!(
                        "the {} backend cannot start: {error}",
                        self.name()
                    ))),
                }
            }
        }
    };
}

backends! {
    /// rooms, sequence numbers, history, receipts, unread counts
    Chat = chat, example: "\
Examples:
  millstream chat --kafka 127.0.0.1:9092 --database sqlite:chat.db
      Its HTTP API is at http://127.0.0.1:8081/.
  millstream chat --kafka 127.0.0.1:9092 --database sqlite:chat.db --http 127.0.0.1:8091
      A second process with the same group and database: the two share the partitions.";
    /// last values, time series, alerts, commands and their replies
    Iot = iot, example: "\
Examples:
  millstream iot --kafka 127.0.0.1:9092 --database sqlite:iot.db
      Its HTTP API is at http://127.0.0.1:8082/.
  millstream iot --kafka 127.0.0.1:9092 --database sqlite:again.db --group again --http 127.0.0.1:8092
      With a group and a database of its own: everything that Kafka keeps is read from the beginning.";
    /// counts, rates and latencies, and the page that shows them
    Dashboard = dashboard, example: "\
Example:
  millstream dashboard --kafka 127.0.0.1:9092 --database sqlite:dashboard.db
      The page is at http://127.0.0.1:8083/.";
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
