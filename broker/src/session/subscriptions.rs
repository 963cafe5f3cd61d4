//! What a session is subscribed to.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::router::Member;

/// The filters that a session is subscribed to, as they were given (`$share/…` included). Most clients have one, which
/// costs no allocation of its own.
#[derive(Debug)]
pub(crate) enum Subscriptions {
    /// A plain one.
    One(Arc<str>),
    /// All else, none included: in that shape the whole takes two words.
    Many(Option<Box<Many>>),
}

#[derive(Debug, Default)]
pub(crate) struct Many {
    filters: HashSet<Arc<str>, ahash::RandomState>,
    /// Bytes of `filters`.
    bytes: usize,
    /// Those of them that are shared subscriptions, with the session's part in each.
    shares: Option<Box<Shares>>,
}

type Shares = HashMap<Arc<str>, Arc<Member>, ahash::RandomState>;

impl Default for Subscriptions {
    fn default() -> Self {
        Self::Many(None)
    }
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(many) => many.as_ref().map_or(0, |many| many.filters.len()),
        }
    }

    /// The bytes of all filters.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::One(one) => one.len(),
            Self::Many(many) => many.as_ref().map_or(0, |many| many.bytes),
        }
    }

    pub(crate) fn get(&self, filter: &str) -> Option<&Arc<str>> {
        match self {
            Self::One(one) => (**one == *filter).then_some(one),
            Self::Many(many) => many.as_ref()?.filters.get(filter),
        }
    }

    /// Adds a filter that is not there.
    pub(crate) fn insert(&mut self, filter: Arc<str>) {
        match self {
            Self::Many(None) => *self = Self::One(filter),
            _ => self.many().insert(filter),
        }
    }

    /// Adds a shared subscription that is not there.
    pub(crate) fn insert_share(&mut self, filter: Arc<str>, member: Arc<Member>) {
        let many = self.many();
        many.shares
            .get_or_insert_default()
            .insert(Arc::clone(&filter), member);
        many.insert(filter);
    }

    fn many(&mut self) -> &mut Many {
        if let Self::One(one) = self {
            let mut many = Box::<Many>::default();
            many.insert(Arc::clone(one));
            *self = Self::Many(Some(many));
        }
        match self {
            Self::Many(many) => many.get_or_insert_default(),
            Self::One(_) => unreachable!("it was made many"),
        }
    }

    /// Takes a filter out: whether it was there.
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        match self {
            Self::One(one) if **one == *filter => *self = Self::default(),
            Self::One(_) | Self::Many(None) => return false,
            Self::Many(Some(many)) => {
                if !many.remove(filter) {
                    return false;
                }
                if many.filters.is_empty() {
                    *self = Self::default();
                }
            }
        }
        true
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, many.as_ref()),
        };
        one.into_iter()
            .chain(many.into_iter().flat_map(|many| many.filters.iter()))
    }

    /// The session's parts in shared subscriptions.
    pub(crate) fn shares(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.all_shares().into_iter().flat_map(HashMap::values)
    }

    /// How many of them are shared.
    pub(crate) fn shares_len(&self) -> usize {
        self.all_shares().map_or(0, HashMap::len)
    }

    fn all_shares(&self) -> Option<&Shares> {
        match self {
            Self::Many(Some(many)) => many.shares.as_deref(),
            Self::One(_) | Self::Many(None) => None,
        }
    }
}

impl Many {
    fn insert(&mut self, filter: Arc<str>) {
        self.bytes += filter.len();
        self.filters.insert(filter);
    }

    fn remove(&mut self, filter: &str) -> bool {
        let was_there = self.filters.remove(filter);
        if was_there {
            self.bytes -= filter.len();
        }
        if let Some(shares) = &mut self.shares {
            shares.remove(filter);
            if shares.is_empty() {
                self.shares = None;
            }
        }
        was_there
    }
}
