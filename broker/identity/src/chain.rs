//! A chain of links, asked one after the other until one decides. Any of them may answer later.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::attempts::Attempts;
use crate::principal::{Credentials, Principal};

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// User name, password, token or certificate are not right.
    BadCredentials,
    /// It is known who it is, or that it does not say, and it may not connect.
    NotAuthorized,
    /// Its address has too many attempts under way, or has failed too often.
    TooManyAttempts,
    /// There is too much to do now.
    Busy,
    /// Whoever would know does not answer.
    Unavailable,
}

impl Refusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::BadCredentials,
        Self::NotAuthorized,
        Self::TooManyAttempts,
        Self::Busy,
        Self::Unavailable,
    ];
}

/// A refusal, and more about it for the log; never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What the client is told.
    pub refusal: Refusal,
    /// What the operator is told.
    pub why: Cow<'static, str>,
}

impl Refused {
    /// A refusal with its reason.
    #[must_use]
    pub fn new(refusal: Refusal, why: impl Into<Cow<'static, str>>) -> Self {
        Self {
            refusal,
            why: why.into(),
        }
    }
}

/// A client is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Who it is; nobody, where strangers are welcome.
    pub principal: Option<Arc<Principal>>,
    /// For how long from now on, in milliseconds; for as long as it likes, if nothing is said.
    pub lasts_ms: Option<u64>,
}

impl From<Arc<Principal>> for Accepted {
    fn from(principal: Arc<Principal>) -> Self {
        Self {
            principal: Some(principal),
            lasts_ms: None,
        }
    }
}

/// What a chain decides.
pub type Verdict = Result<Accepted, Refused>;

/// What one link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It decides.
    Decided(Verdict),
    /// It knows nothing of these credentials.
    Pass,
}

impl Said {
    /// It refuses.
    #[must_use]
    pub fn refused(refusal: Refusal, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Decided(Err(Refused::new(refusal, why)))
    }
}

/// What became of a question to a link.
#[derive(Debug)]
pub enum Asked {
    /// It answers at once.
    Now(Question, Said),
    /// It keeps the question, and answers by [`Question::answer`].
    Later,
}

/// Looks at credentials.
pub trait Link: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    /// Looks at the question's credentials. Called on a worker's thread: what takes longer than microseconds is answered
    /// later, from another thread.
    fn ask(&self, question: Question) -> Asked;

    /// No link knew the credentials. A link that tells by the time it takes whether it knows a user takes that time here, and
    /// then says [`Said::Pass`].
    fn pad(&self, question: Question) -> Asked {
        Asked::Now(question, Said::Pass)
    }

    /// Looks whether what it goes by has changed, and takes it over if it has: at once where somebody `asked` for it,
    /// otherwise when it has come to rest. Whether it did.
    fn look(&self, asked: bool) -> bool {
        let _ = asked;
        false
    }

    /// Whether what it goes by could be taken over as it is now.
    ///
    /// # Errors
    /// In one sentence, why not.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// What is wrong with it.
    fn problem(&self) -> Option<String> {
        None
    }
}

/// See the module.
pub struct Chain {
    links: Box<[Arc<dyn Link>]>,
    /// Clients that say nothing of who they are come in, unless a link refuses them.
    anonymous: bool,
    attempts: Arc<Attempts>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links: Vec<_> = self.links.iter().map(|link| link.name()).collect();
        f.debug_struct("Chain")
            .field("links", &links)
            .field("anonymous", &self.anonymous)
            .finish_non_exhaustive()
    }
}

impl Chain {
    /// A chain of these links, in their order.
    #[must_use]
    pub fn new(links: Vec<Arc<dyn Link>>, anonymous: bool, attempts: Arc<Attempts>) -> Self {
        Self {
            links: links.into(),
            anonymous,
            attempts,
        }
    }

    /// Asks the links. Whoever gets no verdict hears it later by `tell`, on another thread, exactly once: also when a link
    /// forgets the question.
    pub fn ask(
        self: &Arc<Self>,
        credentials: Credentials,
        tell: impl FnOnce(Verdict) + Send + 'static,
    ) -> Option<Verdict> {
        let question = Question(Some(Box::new(Inner {
            chain: Arc::clone(self),
            credentials,
            at: 0,
            charged: false,
            padded: false,
            tell: Box::new(tell),
        })));
        // Told at once, nobody is told later.
        question.go().map(|(verdict, _)| verdict)
    }
}

type Tell = Box<dyn FnOnce(Verdict) + Send>;

struct Inner {
    chain: Arc<Chain>,
    credentials: Credentials,
    /// Which link is asked.
    at: usize,
    /// An attempt of its address is under way for it.
    charged: bool,
    /// The time that a known user would have taken has been taken.
    padded: bool,
    tell: Tell,
}

/// Credentials on their way through a chain. One that is dropped without an answer is refused: nobody waits for ever, and
/// nobody comes in by an accident.
pub struct Question(Option<Box<Inner>>);

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.0.as_ref().map(|inner| &inner.credentials);
        f.debug_tuple("Question").field(&credentials).finish()
    }
}

impl Question {
    fn inner(&self) -> &Inner {
        self.0.as_ref().expect("it is taken only by its end")
    }

    /// What the client brought.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.inner().credentials
    }

    /// Before a link does what costs: whether the client's address may have it done. The attempt is under way from then on,
    /// and forgotten when it succeeds.
    pub fn charge(&mut self) -> bool {
        let Some(inner) = &mut self.0 else {
            return false;
        };
        if !inner.charged {
            let address = inner.credentials.address;
            inner.charged = address.is_none_or(|address| inner.chain.attempts.take(address));
        }
        inner.charged
    }

    /// The answer of the link that kept the question.
    pub fn answer(mut self, said: Said) {
        if let Some((verdict, tell)) = self.heard(said) {
            tell(verdict);
        }
    }

    /// What a link said: the verdict, unless another link has to be asked that answers later.
    fn heard(&mut self, said: Said) -> Option<(Verdict, Tell)> {
        let mut inner = self.0.take()?;
        match said {
            Said::Decided(verdict) => Some(settle(*inner, verdict)),
            Said::Pass => {
                inner.at += 1;
                Self(Some(inner)).go()
            }
        }
    }

    fn go(mut self) -> Option<(Verdict, Tell)> {
        loop {
            let inner = self.inner();
            let chain = Arc::clone(&inner.chain);
            let asked = match chain.links.get(inner.at) {
                Some(link) => link.ask(self),
                None => return self.nobody_knew(),
            };
            match asked {
                Asked::Later => return None,
                Asked::Now(mut question, Said::Decided(verdict)) => {
                    let inner = question.0.take()?;
                    return Some(settle(*inner, verdict));
                }
                Asked::Now(mut question, Said::Pass) => {
                    if let Some(inner) = &mut question.0 {
                        inner.at += 1;
                    }
                    self = question;
                }
            }
        }
    }

    /// All links passed.
    fn nobody_knew(mut self) -> Option<(Verdict, Tell)> {
        let are_none = self.credentials().are_none();
        if !are_none && !self.inner().padded {
            let chain = Arc::clone(&self.inner().chain);
            if let Some(inner) = &mut self.0 {
                inner.padded = true;
            }
            for link in &chain.links {
                match link.pad(self) {
                    // It comes back here, behind the last link.
                    Asked::Later => return None,
                    Asked::Now(mut question, Said::Decided(verdict)) => {
                        let inner = question.0.take()?;
                        return Some(settle(*inner, verdict));
                    }
                    Asked::Now(question, Said::Pass) => self = question,
                }
            }
        }
        let inner = self.0.take()?;
        let verdict = match (are_none, inner.chain.anonymous) {
            (true, true) => Ok(Accepted::default()),
            (true, false) => Err(Refused::new(
                Refusal::NotAuthorized,
                "it does not say who it is",
            )),
            (false, _) => Err(Refused::new(
                Refusal::BadCredentials,
                "nobody knows these credentials",
            )),
        };
        Some(settle(*inner, verdict))
    }
}

/// The end of a question: its attempt is over, well or not.
fn settle(inner: Inner, verdict: Verdict) -> (Verdict, Tell) {
    if let Some(address) = inner.credentials.address {
        let attempts = &inner.chain.attempts;
        let is_wrong = |refused: &Refused| {
            let refusal = refused.refusal;
            matches!(refusal, Refusal::BadCredentials | Refusal::NotAuthorized)
        };
        match (&verdict, inner.charged) {
            (Err(refused), false) if is_wrong(refused) => {
                attempts.take(address);
            }
            // That there was no room, or nobody who knew, is not the client's fault.
            (Err(refused), true) if !is_wrong(refused) => attempts.give_back(address),
            (Ok(_), true) => attempts.give_back(address),
            _ => {}
        }
    }
    (verdict, inner.tell)
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            let verdict = Err(Refused::new(
                Refusal::Unavailable,
                "whoever had to look at the credentials died over it",
            ));
            let (verdict, tell) = settle(*inner, verdict);
            tell(verdict);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;

    /// Says what it was told to, or keeps the question.
    struct Plays {
        says: Option<Said>,
        kept: Mutex<Vec<Question>>,
    }

    fn link(says: Option<Said>) -> Arc<Plays> {
        let kept = Mutex::default();
        Arc::new(Plays { says, kept })
    }

    impl Link for Plays {
        fn name(&self) -> &'static str {
            "plays"
        }

        fn ask(&self, question: Question) -> Asked {
            match &self.says {
                Some(said) => Asked::Now(question, said.clone()),
                None => {
                    self.kept.lock().unwrap().push(question);
                    Asked::Later
                }
            }
        }
    }

    fn chain(links: &[Arc<Plays>], anonymous: bool, burst: u32) -> Arc<Chain> {
        let links = links.iter().map(|link| Arc::clone(link) as _).collect();
        let attempts = Arc::new(Attempts::new(burst, 1, 16));
        Arc::new(Chain::new(links, anonymous, attempts))
    }

    fn ada() -> Credentials {
        Credentials {
            user: Some("ada".into()),
            address: Some([192, 0, 2, 1].into()),
            ..Credentials::default()
        }
    }

    fn ask(chain: &Arc<Chain>, credentials: Credentials) -> (Option<Verdict>, Receiver<Verdict>) {
        let (tell, told) = sync_channel(64);
        let verdict = chain.ask(credentials, move |verdict| tell.send(verdict).unwrap());
        (verdict, told)
    }

    fn accepts(user: &str) -> Said {
        Said::Decided(Ok(Arc::new(Principal::new(user)).into()))
    }

    fn refusal(verdict: Option<Verdict>) -> Refusal {
        verdict.unwrap().unwrap_err().refusal
    }

    #[test]
    fn the_first_that_decides_decides() {
        let refuses = Said::refused(Refusal::BadCredentials, "wrong");
        let links = [
            link(Some(Said::Pass)),
            link(Some(accepts("ada"))),
            link(Some(refuses.clone())),
        ];
        let (verdict, _) = ask(&chain(&links, false, 9), ada());
        let accepted = verdict.unwrap().unwrap();
        assert_eq!(&*accepted.principal.unwrap().user, "ada");
        let links = [link(Some(refuses)), link(Some(accepts("ada")))];
        let (verdict, _) = ask(&chain(&links, false, 9), ada());
        assert_eq!(refusal(verdict), Refusal::BadCredentials);
    }

    #[test]
    fn who_says_nothing_comes_in_only_where_strangers_may_and_whom_nobody_knows_never() {
        for anonymous in [false, true] {
            let chain = chain(&[link(Some(Said::Pass))], anonymous, 9);
            let (verdict, _) = ask(&chain, ada());
            assert_eq!(refusal(verdict), Refusal::BadCredentials);
            let (verdict, _) = ask(&chain, Credentials::default());
            match anonymous {
                true => assert_eq!(verdict, Some(Ok(Accepted::default()))),
                false => assert_eq!(refusal(verdict), Refusal::NotAuthorized),
            }
        }
    }

    #[test]
    fn an_answer_that_comes_later_goes_on_where_it_was() {
        let (slow, slower) = (link(None), link(None));
        let links = [Arc::clone(&slow), Arc::clone(&slower)];
        let (verdict, told) = ask(&chain(&links, false, 9), ada());
        assert_eq!(verdict, None);
        let question = slow.kept.lock().unwrap().pop().unwrap();
        question.answer(Said::Pass);
        assert!(told.try_recv().is_err());
        let question = slower.kept.lock().unwrap().pop().unwrap();
        question.answer(accepts("ada"));
        assert!(told.recv().unwrap().is_ok());
    }

    #[test]
    fn a_question_that_is_forgotten_is_a_refusal() {
        let slow = link(None);
        let (_, told) = ask(&chain(&[Arc::clone(&slow)], true, 9), ada());
        slow.kept.lock().unwrap().clear();
        assert_eq!(refusal(told.recv().ok()), Refusal::Unavailable);
    }

    /// Charges the address, as one does that hashes.
    struct Costs(Said);

    impl Link for Costs {
        fn name(&self) -> &'static str {
            "costs"
        }

        fn ask(&self, mut question: Question) -> Asked {
            let said = match question.charge() {
                true => self.0.clone(),
                false => Said::refused(Refusal::TooManyAttempts, "too many"),
            };
            Asked::Now(question, said)
        }
    }

    #[test]
    fn failures_of_an_address_use_its_attempts_up_and_successes_do_not() {
        let of = |said: Said, burst| {
            let attempts = Arc::new(Attempts::new(burst, 1, 16));
            Arc::new(Chain::new(vec![Arc::new(Costs(said))], false, attempts))
        };
        let wrong = of(Said::refused(Refusal::BadCredentials, "wrong"), 3);
        for _ in 0..3 {
            let (verdict, _) = ask(&wrong, ada());
            assert_eq!(refusal(verdict), Refusal::BadCredentials);
        }
        let (verdict, _) = ask(&wrong, ada());
        assert_eq!(refusal(verdict), Refusal::TooManyAttempts);
        let elsewhere = Credentials {
            address: Some([192, 0, 2, 2].into()),
            ..ada()
        };
        let (verdict, _) = ask(&wrong, elsewhere);
        assert_eq!(refusal(verdict), Refusal::BadCredentials);
        for said in [accepts("ada"), Said::refused(Refusal::Busy, "busy")] {
            let costs = of(said.clone(), 1);
            for _ in 0..9 {
                let (verdict, _) = ask(&costs, ada());
                assert_eq!(verdict.map(Said::Decided), Some(said.clone()));
            }
        }
    }
}
