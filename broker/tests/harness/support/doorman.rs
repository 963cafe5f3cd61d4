//! A chain's link that does what the test says: it answers at once, later, or never.

use std::sync::{Arc, Mutex};

use broker::identity::{
    Accepted, Asked, Attempts, Chain, Link, Principal, Question, Refusal, Said,
};

/// Answers `at once …` at once; keeps the questions of all other users until the test answers them.
#[derive(Debug, Default)]
pub struct Doorman {
    kept: Mutex<Vec<Question>>,
}

impl Link for Doorman {
    fn name(&self) -> &'static str {
        "doorman"
    }

    fn ask(&self, question: Question) -> Asked {
        match question.credentials().user.as_deref() {
            None => Asked::Now(question, Said::Pass),
            Some("at once wrong") => Asked::Now(question, Self::wrong()),
            Some(user) if user.starts_with("at once") => {
                let said = Self::is(user);
                Asked::Now(question, said)
            }
            Some(_) => {
                self.kept.lock().unwrap().push(question);
                Asked::Later
            }
        }
    }
}

impl Doorman {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A chain of this link alone.
    pub fn chain(self: &Arc<Self>, anonymous: bool) -> Arc<Chain> {
        let links = vec![Arc::clone(self) as Arc<dyn Link>];
        Arc::new(Chain::new(
            links,
            anonymous,
            Arc::new(Attempts::new(1, 1, 1)),
        ))
    }

    /// It is that user.
    pub fn is(user: &str) -> Said {
        Said::Decided(Ok(Arc::new(Principal::new(user)).into()))
    }

    /// It is that user, for so long.
    pub fn is_for_ms(user: &str, ms: u64) -> Said {
        Said::Decided(Ok(Accepted {
            principal: Some(Arc::new(Principal::new(user))),
            lasts_ms: Some(ms),
        }))
    }

    pub fn wrong() -> Said {
        Said::refused(Refusal::BadCredentials, "the test says so")
    }

    /// Users whose questions are kept, in the order in which they were asked.
    pub fn asked(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap();
        let user = |question: &Question| question.credentials().user.as_deref().map(str::to_owned);
        kept.iter().filter_map(user).collect()
    }

    /// Answers the first question of a user.
    pub fn answer(&self, user: &str, said: Said) {
        self.take(user).answer(said);
    }

    /// Takes the first question of a user.
    pub fn take(&self, user: &str) -> Question {
        let mut kept = self.kept.lock().unwrap();
        let is_his = |question: &Question| question.credentials().user.as_deref() == Some(user);
        let at = kept.iter().position(is_his).expect("it was asked");
        kept.remove(at)
    }
}
