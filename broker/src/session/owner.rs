//! Whose a session is: a client identifier and, where somebody knows it, a principal.

use std::sync::Arc;

use identity::{Accepted, Principal};

use crate::time::Time;

/// Two words. A client that nobody knows costs its identifier and nothing more.
#[derive(Debug)]
pub(crate) enum Owner {
    /// Whoever has the identifier.
    Anybody(Box<str>),
    /// A user.
    Known(Box<Known>),
}

#[derive(Debug)]
pub(crate) struct Known {
    client_id: Box<str>,
    principal: Arc<Principal>,
    /// When what it is known by ends.
    ends_at: Option<Time>,
}

impl Owner {
    pub(crate) fn new(client_id: &str) -> Self {
        Self::Anybody(client_id.into())
    }

    pub(crate) fn client_id(&self) -> &str {
        match self {
            Self::Anybody(client_id) => client_id,
            Self::Known(known) => &known.client_id,
        }
    }

    pub(crate) fn principal(&self) -> Option<&Arc<Principal>> {
        match self {
            Self::Anybody(_) => None,
            Self::Known(known) => Some(&known.principal),
        }
    }

    /// When what it is known by ends, if ever.
    pub(crate) fn ends_at(&self) -> Option<Time> {
        match self {
            Self::Anybody(_) => None,
            Self::Known(known) => known.ends_at,
        }
    }

    /// Whether a client that is let in as this one may have the session: another user's it may not.
    pub(crate) fn admits(&self, accepted: &Accepted) -> bool {
        match (self, &accepted.principal) {
            (Self::Anybody(_), _) => true,
            (Self::Known(known), Some(principal)) => known.principal.is_same_user(principal),
            (Self::Known(_), None) => false,
        }
    }

    /// From now on it is this one's.
    pub(crate) fn identify(&mut self, accepted: Accepted, now: Time) {
        let Some(principal) = accepted.principal else {
            return; // it was anybody's before, or `admits` had refused it
        };
        let client_id = match self {
            Self::Anybody(client_id) => std::mem::take(client_id),
            Self::Known(known) => std::mem::take(&mut known.client_id),
        };
        *self = Self::Known(Box::new(Known {
            client_id,
            principal,
            ends_at: accepted.lasts_ms.map(|ms| now.plus_ms(ms)),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_session_is_takes_two_words_where_nobody_asks() {
        assert_eq!(size_of::<Owner>(), 2 * size_of::<usize>());
    }

    #[test]
    fn a_users_session_is_no_other_users() {
        let accepted = |user: &str| Accepted::from(Arc::new(Principal::new(user)));
        let mut owner = Owner::new("c");
        assert!(owner.admits(&accepted("ada")) && owner.admits(&Accepted::default()));
        owner.identify(
            Accepted {
                lasts_ms: Some(5),
                ..accepted("ada")
            },
            Time(1),
        );
        assert_eq!((owner.client_id(), owner.ends_at()), ("c", Some(Time(6))));
        assert!(owner.admits(&accepted("ada")));
        assert!(!owner.admits(&accepted("bob")) && !owner.admits(&Accepted::default()));
        owner.identify(accepted("ada"), Time(2));
        assert_eq!((owner.client_id(), owner.ends_at()), ("c", None));
    }
}
