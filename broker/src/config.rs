//! The broker's part of the configuration file: what it may say, checked once.

use std::net::SocketAddr;

use settings::{Kind, Section as _};

use crate::access::AccessConfig;
use crate::limits::{Limits, WORKERS_MAX};
use crate::listener::{self, Listener};
use crate::router::ShareStrategy;

const ADDRESS: Kind<String> = Kind {
    words: "a numeric address and a port, such as \"127.0.0.1:1883\", \"0.0.0.0:1883\" or \"[::]:1883\"",
    fits: |text| text.parse::<SocketAddr>().is_ok(),
};

settings::section! {
    /// How a broker node is set up.
    #[derive(Eq)]
    pub struct Config {
        /// Where MQTT clients (3.1, 3.1.1 and 5.0) connect: the short form of one listener, named "mqtt", without TLS. It
        /// counts where there are no `listeners`; beside them it is refused.
        pub listen: String = "127.0.0.1:1883".to_owned(), [is ADDRESS];
        /// Where MQTT clients connect, each one `[[broker.listeners]]` with the keys in
        /// [OPERATIONS.md](OPERATIONS.md#listeners-and-tls).
        pub listeners: Vec<Listener> = Vec::new(), ["list of listeners"];
        /// Threads that own connections and sessions.
        pub workers: usize = 0, [0..=WORKERS_MAX, "threads; 0 is one a core"];
        /// How often `$SYS/broker/…` is published.
        pub sys_interval_s: u32 = 10, [0.., "seconds; 0 is never"];
        /// Whether an empty client identifier gets one assigned, or is refused.
        pub assign_client_ids: bool = true, ["true or false"];
        /// Which member of a shared subscription (`$share/…`) gets a message, among those with room for it: "round-robin",
        /// each in turn; "sticky-client", the same one for all messages of a publisher; "sticky-topic", the same one for all
        /// of a topic; "least-in-flight", the one with the fewest to acknowledge. The sticky ones keep a publisher's or a
        /// topic's messages in order as long as their member is there and keeps up.
        pub shared_subscription_strategy: ShareStrategy = ShareStrategy::RoundRobin, ["\"round-robin\", \"sticky-client\", \"sticky-topic\" or \"least-in-flight\""];
        /// How the node ends.
        pub drain: Drain = Drain::default(), [section];
        /// Who clients are.
        pub authentication: identity::Config = identity::Config::default(), [section];
        /// Who may do what.
        #[serde(deserialize_with = "AccessConfig::deserialize_table")]
        pub access: AccessConfig = AccessConfig::default(), [section];
        /// The bounds.
        pub limits: Limits = Limits::default(), [section];
    }
}

const REFERENCE: Kind<String> = Kind {
    words: "HOST:PORT, several with spaces between; empty is none",
    fits: |text| {
        let is_place = |place: &str| {
            place
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        };
        text.len() <= REFERENCE_BYTES_MAX && (text.is_empty() || text.split(' ').all(is_place))
    },
};

/// The longest server reference.
const REFERENCE_BYTES_MAX: usize = 1_024;

settings::section! {
    /// The `[broker.drain]` section.
    #[derive(Eq)]
    pub struct Drain {
        /// How long the node still takes clients when it is to end and `/health/ready` says 503 already, so that load balancers
        /// see it.
        pub ready_wait_ms: u64 = 0, [0..=600_000, "milliseconds"];
        /// Over how long its clients are sent away after that, so that they do not come to other nodes all at once. Those that
        /// wait for an answer stay until they have it, within limits.drain_timeout_ms.
        pub spread_ms: u64 = 0, [0..=3_600_000, "milliseconds; 0 is at once"];
        /// Where 5.0 clients are told to go, as a server reference.
        pub server_reference: String = String::new(), [is REFERENCE];
        /// Whether they shall go there for good (0x9D, server moved) or for now (0x9C, use another server).
        pub moved: bool = false, ["true or false"];
    }
}

impl Config {
    /// Checks every value and how they relate.
    ///
    /// # Errors
    /// The first value that is not allowed, with its key and what is.
    pub fn validate(&self) -> Result<(), settings::Error> {
        self.check_keys()?;
        self.limits
            .validate()
            .map_err(|error| error.below("limits"))?;
        self.authentication
            .validate()
            .map_err(|error| error.below("authentication"))?;
        self.access
            .validate()
            .map_err(|error| error.below("access"))?;
        listener::validate(&self.listeners)?;
        if !self.listeners.is_empty() {
            let allowed = "nothing beside [[broker.listeners]], of which it is the short form";
            if self.listen != Self::default().listen {
                return Err(settings::Error::text("listen", &self.listen, allowed));
            }
        }
        for (at, listener) in self.listeners.iter().enumerate() {
            let key = format!("listeners[{at}].authentication");
            let checked = self
                .authentication
                .check_chain(&key, &listener.authentication);
            checked.map_err(|error| match error.key == key {
                true => error,
                false => error.below("authentication"), // what a link of it lacks
            })?;
        }
        Ok(())
    }

    /// The listeners, that of the short form where there are no others.
    #[must_use]
    pub fn all_listeners(&self) -> Vec<Listener> {
        if self.listeners.is_empty() {
            return vec![Listener::short_form(&self.listen)];
        }
        self.listeners.clone()
    }

    /// Who looks at a listener's clients, and whether those come in that say nothing of who they are.
    #[must_use]
    pub fn chain_of<'a>(&'a self, listener: &'a Listener) -> (&'a [String], bool) {
        match &*listener.authentication {
            [] => {
                let of_all = &self.authentication;
                (&of_all.chain, listener.anonymous || of_all.anonymous)
            }
            own => (own, listener.anonymous),
        }
    }

    /// Refuses to be open to others than this machine unless somebody said so. To be asked when all is said, the command line
    /// included.
    ///
    /// # Errors
    /// Says what to write.
    pub fn check_openness(&self) -> Result<(), settings::Error> {
        for (at, listener) in self.all_listeners().iter().enumerate() {
            let (chain, anonymous) = self.chain_of(listener);
            if listener.is_local() || anonymous || !chain.is_empty() {
                continue;
            }
            let (key, remedy) = match self.listeners.is_empty() {
                true => (
                    "listen".to_owned(),
                    "give users a password file (--password-file FILE, or chain = [\"file\"] in [broker.authentication]), or \
                     let everybody in (--anonymous, or anonymous = true there)",
                ),
                false => (
                    format!("listeners[{at}].address"),
                    "name who looks at its clients (authentication = [\"file\"], or chain in [broker.authentication]), or let \
                     everybody in (anonymous = true)",
                ),
            };
            let allowed = format!(
                "an address that only this machine reaches, until it is said who may connect: {remedy}"
            );
            return Err(settings::Error::text(key, &listener.address, allowed));
        }
        Ok(())
    }

    /// The address to listen on.
    ///
    /// # Errors
    /// When it is not `ADDRESS:PORT` with a numeric address.
    pub fn listen_addr(&self) -> Result<SocketAddr, settings::Error> {
        self.listen
            .parse()
            .map_err(|_| settings::Error::text("listen", &self.listen, ADDRESS.words))
    }

    /// The number of worker threads to start.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        if self.workers > 0 {
            return self.workers;
        }
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(WORKERS_MAX)
    }
}
