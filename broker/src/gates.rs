//! At which listener who looks at a client's credentials: a gate for each, with its chain.

use std::fmt;
use std::sync::Arc;

use identity::{Chain, Identity};

use crate::config::Config;

/// What a listener knows its clients by.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// The listener's name.
    pub(crate) name: Arc<str>,
    /// Nobody looks where there is none: whoever reaches the listener may connect.
    pub(crate) chain: Option<Arc<Chain>>,
}

/// The gates of a node, by the listener's place.
#[derive(Default)]
pub(crate) struct Gates {
    gates: Box<[Gate]>,
    identity: Option<Identity>,
}

/// Of the one listener that a test has.
const NAME: &str = "mqtt";

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.gates).finish()
    }
}

impl Gates {
    /// Makes what the listeners' chains need.
    ///
    /// # Errors
    /// When a link cannot do its work.
    pub(crate) fn start(config: &Config) -> Result<Self, identity::StartError> {
        let listeners = config.all_listeners();
        let chains = listeners.iter().map(|listener| config.chain_of(listener).0);
        let identity = Identity::start(&config.authentication, chains)?;
        let gate = |listener: &crate::listener::Listener| {
            let (chain, anonymous) = config.chain_of(listener);
            Gate {
                name: (&*listener.name).into(),
                chain: identity.chain(chain, anonymous),
            }
        };
        Ok(Self {
            gates: listeners.iter().map(gate).collect(),
            identity: Some(identity),
        })
    }

    /// One gate with this chain.
    pub(crate) fn of(chain: Arc<Chain>) -> Self {
        let gate = Gate {
            name: NAME.into(),
            chain: Some(chain),
        };
        Self {
            gates: [gate].into(),
            identity: None,
        }
    }

    /// The gate of a listener.
    pub(crate) fn at(&self, listener: usize) -> Option<&Gate> {
        self.gates.get(listener)
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}
