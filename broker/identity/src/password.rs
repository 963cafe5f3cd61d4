//! Users of a password file: the link `file`.

mod file;
mod hash;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use argon2::password_hash::rand_core::{OsRng, RngCore as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::chain::{Asked, Link, Question, Refusal, Said};
use crate::config::FileConfig;
use crate::node::StartError;
use crate::pool::Pool;
use crate::principal::Principal;
use crate::watch::Watch;
use file::User;

pub use file::{Edit, Edited, FileError, edit};
pub use hash::{Cost, make};

/// The link's name.
pub const NAME: &str = "file";
/// A longer password is nobody's.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

const WRONG: &str = "the password is wrong";
const TOO_MANY: &str = "its address has too many attempts under way or failed";
const BUSY: &str = "too many passwords wait to be looked at: broker.authentication.file.queue_max";

/// See the module.
pub struct FileLink {
    path: PathBuf,
    table: RwLock<Arc<Table>>,
    pool: Pool,
    remembers: Duration,
    watch: Mutex<Watch>,
    problem: Mutex<Option<String>>,
}

/// The users of one state of the file.
struct Table {
    users: HashMap<Box<str>, Known>,
    /// Costs what users' hashes cost, for those who are none.
    pad: hash::Hash,
    key: [u8; 32],
    remembers: Duration,
}

struct Known {
    user: User,
    /// The password that was right lately: its keyed hash, and until when it is remembered.
    right: Mutex<Option<([u8; 32], Instant)>>,
}

impl Table {
    fn read(path: &Path, remembers: Duration) -> Result<Self, FileError> {
        let users = file::read(path)?;
        let Some(pad) = users.values().next().map(|user| user.hash.like()) else {
            unreachable!("a file without users is refused");
        };
        let known = |(name, user)| {
            let right = Mutex::default();
            (name, Known { user, right })
        };
        let mut key = [0; 32];
        OsRng.fill_bytes(&mut key);
        Ok(Self {
            users: users.into_iter().map(known).collect(),
            pad,
            key,
            remembers,
        })
    }

    /// Takes the place of `old`: users that are what they were are the same, and the others are none any more.
    fn replaces(&mut self, old: &Self) {
        for (name, old) in &old.users {
            match self.users.get_mut(name) {
                Some(new)
                    if new.user.hash == old.user.hash
                        && new.user.principal == old.user.principal =>
                {
                    new.user.principal = Arc::clone(&old.user.principal);
                }
                _ => old.user.principal.revoke(),
            }
        }
    }

    fn mac(&self, password: &[u8]) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.key);
        let mut mac = mac.expect("a key of any length will do");
        mac.update(password);
        mac
    }

    /// Whether this was the user's password a short time ago.
    fn remembers(&self, known: &Known, password: &[u8], now: Instant) -> Option<Arc<Principal>> {
        let right = *known.right.lock().unwrap_or_else(PoisonError::into_inner);
        let (right, until) = right?;
        let is_it = until > now && self.mac(password).verify_slice(&right).is_ok();
        is_it.then(|| Arc::clone(&known.user.principal))
    }

    /// What a hash has to say of it.
    fn judge(&self, name: &str, password: &[u8], now: Instant) -> Said {
        let Some(known) = self.users.get(name) else {
            return Said::Pass;
        };
        // Of many who came with it at once the first has found out.
        if let Some(principal) = self.remembers(known, password, now) {
            return Said::Decided(Ok(principal.into()));
        }
        if !known.user.hash.is_of(password) {
            return Said::refused(Refusal::BadCredentials, WRONG);
        }
        if !self.remembers.is_zero() {
            let mac = self.mac(password).finalize().into_bytes().into();
            let right = Some((mac, now + self.remembers));
            *known.right.lock().unwrap_or_else(PoisonError::into_inner) = right;
        }
        Said::Decided(Ok(Arc::clone(&known.user.principal).into()))
    }
}

impl FileLink {
    /// Reads the file and starts the threads.
    ///
    /// # Errors
    /// When the file cannot be used, or the system gives no thread.
    pub fn start(config: &FileConfig) -> Result<Self, StartError> {
        let path = PathBuf::from(&config.path);
        let remembers = Duration::from_secs(config.cache_s.into());
        let watch = Watch::new(vec![path.clone()]);
        let table = Table::read(&path, remembers).map_err(StartError::File)?;
        warn_of_permissions(&path);
        tracing::info!(path = %path.display(), users = table.users.len(), "users are known by a password file");
        Ok(Self {
            path,
            table: RwLock::new(Arc::new(table)),
            pool: Pool::start(
                "passwords",
                config.threads as usize,
                config.queue_max as usize,
            )?,
            remembers,
            watch: Mutex::new(watch),
            problem: Mutex::default(),
        })
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has a thread do what costs, if the client's address may have it done and there is room.
    fn work(&self, mut question: Question, job: impl FnOnce(Question) + Send + 'static) -> Asked {
        if !question.charge() {
            return Asked::Now(question, Said::refused(Refusal::TooManyAttempts, TOO_MANY));
        }
        match self.pool.run(question, job) {
            Ok(()) => Asked::Later,
            Err(question) => Asked::Now(question, Said::refused(Refusal::Busy, BUSY)),
        }
    }
}

/// A user and a password, where there are both.
fn parts(question: &Question) -> Option<(&str, &[u8])> {
    let credentials = question.credentials();
    let password = credentials.password.as_ref()?.reveal();
    Some((credentials.user.as_deref()?, password))
}

impl Link for FileLink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ask(&self, question: Question) -> Asked {
        let table = self.table();
        let Some((name, password)) = parts(&question) else {
            return Asked::Now(question, Said::Pass);
        };
        let Some(known) = table.users.get(name) else {
            return Asked::Now(question, Said::Pass);
        };
        if password.len() > PASSWORD_BYTES_MAX {
            let said = Said::refused(Refusal::BadCredentials, WRONG);
            return Asked::Now(question, said);
        }
        if let Some(principal) = table.remembers(known, password, Instant::now()) {
            return Asked::Now(question, Said::Decided(Ok(principal.into())));
        }
        self.work(question, move |question| {
            let said = parts(&question).map_or(Said::Pass, |(name, password)| {
                table.judge(name, password, Instant::now())
            });
            question.answer(said);
        })
    }

    fn pad(&self, question: Question) -> Asked {
        let fits = |(_, password): (&str, &[u8])| password.len() <= PASSWORD_BYTES_MAX;
        if !parts(&question).is_some_and(fits) {
            return Asked::Now(question, Said::Pass);
        }
        let table = self.table();
        self.work(question, move |question| {
            if let Some((_, password)) = parts(&question) {
                table.pad.is_of(password);
            }
            question.answer(Said::Pass);
        })
    }

    fn look(&self, asked: bool) -> bool {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if !watch.is_due(asked) {
            return false;
        }
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match Table::read(&self.path, self.remembers) {
            Ok(mut table) => {
                warn_of_permissions(&self.path);
                let users = table.users.len();
                tracing::info!(path = %self.path.display(), users, "the password file was read again");
                // Whoever is let in from here on is a user of the new ones, or is seen by who looks for the revoked.
                let mut current = self.table.write().unwrap_or_else(PoisonError::into_inner);
                table.replaces(&current);
                *current = Arc::new(table);
                drop(current);
                *problem = None;
                true
            }
            Err(error) => {
                let what = format!("{error}; the users of before go on to hold");
                tracing::error!("{what}");
                *problem = Some(what);
                false
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let read = Table::read(&self.path, self.remembers);
        read.map(drop).map_err(|error| {
            let what = format!("{error}; the users of before go on to hold");
            let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
            *problem = Some(what.clone());
            what
        })
    }

    fn problem(&self) -> Option<String> {
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        problem.clone()
    }
}

fn warn_of_permissions(path: &Path) {
    if let Some(warning) = file::permissions(path) {
        tracing::warn!("{warning}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::attempts::Attempts;
    use crate::chain::{Chain, Verdict};
    use crate::principal::{Credentials, Password};

    struct Fixture {
        directory: tempfile::TempDir,
        link: Arc<FileLink>,
        chain: Arc<Chain>,
    }

    const CHEAP: Cost = Cost {
        memory_kib: 16,
        passes: 1,
    };

    fn set(path: &Path, user: &str, password: &str) {
        let hash = make(password.as_bytes(), CHEAP).unwrap();
        let edit_to = Edit::Set {
            hash: &hash,
            tenant: None,
            groups: None,
        };
        edit(path, user, edit_to).unwrap();
    }

    fn fixture(cache_s: u32) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        set(&path, "ada", "hunter2");
        let link = FileLink::start(&FileConfig {
            path: path.display().to_string(),
            cache_s,
            ..FileConfig::default()
        });
        let link = Arc::new(link.unwrap());
        let attempts = Arc::new(Attempts::new(3, 0, 16));
        let links = vec![Arc::clone(&link) as Arc<dyn Link>];
        let chain = Arc::new(Chain::new(links, false, attempts));
        Fixture {
            directory,
            link,
            chain,
        }
    }

    impl Fixture {
        fn path(&self) -> PathBuf {
            self.directory.path().join("users")
        }

        /// The verdict, and whether it came at once.
        fn ask(&self, user: &str, password: &[u8]) -> (Verdict, bool) {
            self.ask_from([192, 0, 2, 1], user, password)
        }

        fn ask_from(&self, address: [u8; 4], user: &str, password: &[u8]) -> (Verdict, bool) {
            let credentials = Credentials {
                user: Some(user.into()),
                password: Some(Password::from(password)),
                address: Some(address.into()),
                ..Credentials::default()
            };
            let (tell, told) = sync_channel(64);
            let verdict = self.chain.ask(credentials, move |verdict| {
                tell.send(verdict).unwrap();
            });
            match verdict {
                Some(verdict) => (verdict, true),
                None => (told.recv().unwrap(), false),
            }
        }

        fn refusal(&self, user: &str, password: &[u8]) -> (Refusal, bool) {
            let (verdict, at_once) = self.ask(user, password);
            (verdict.unwrap_err().refusal, at_once)
        }
    }

    #[test]
    fn a_right_password_is_hashed_once_and_then_remembered() {
        let fixture = fixture(300);
        let (verdict, at_once) = fixture.ask("ada", b"hunter2");
        assert_eq!(&*verdict.unwrap().principal.unwrap().user, "ada");
        assert!(!at_once);
        let (verdict, at_once) = fixture.ask("ada", b"hunter2");
        assert!(verdict.is_ok() && at_once);
        // Another password is none of those that are remembered.
        assert_eq!(
            fixture.refusal("ada", b"hunter3"),
            (Refusal::BadCredentials, false)
        );
        let forgetful = super::tests::fixture(0);
        for _ in 0..2 {
            let (verdict, at_once) = forgetful.ask("ada", b"hunter2");
            assert!(verdict.is_ok() && !at_once);
        }
    }

    #[test]
    fn a_user_that_does_not_exist_costs_what_one_that_does() {
        let fixture = fixture(300);
        let wrong = (Refusal::BadCredentials, false);
        assert_eq!(fixture.refusal("nobody", b"hunter2"), wrong);
        assert_eq!(fixture.refusal("ada", b"wrong"), wrong);
        // No hash is made of what can be no password.
        let long = vec![b'x'; PASSWORD_BYTES_MAX + 1];
        assert_eq!(
            fixture.refusal("ada", &long),
            (Refusal::BadCredentials, true)
        );
    }

    #[test]
    fn an_address_that_fails_too_often_is_not_looked_at_and_others_are() {
        let fixture = fixture(300);
        for password in [b"1", b"2", b"3"] {
            assert_eq!(
                fixture.refusal("ada", password),
                (Refusal::BadCredentials, false)
            );
        }
        let too_many = (Refusal::TooManyAttempts, true);
        assert_eq!(fixture.refusal("ada", b"hunter2"), too_many);
        assert_eq!(fixture.refusal("nobody", b"x"), too_many);
        let (verdict, _) = fixture.ask_from([192, 0, 2, 2], "ada", b"hunter2");
        assert!(verdict.is_ok());
        // A password that is remembered costs nothing.
        let (verdict, at_once) = fixture.ask("ada", b"hunter2");
        assert!(verdict.is_ok() && at_once);
    }

    #[test]
    fn a_changed_file_holds_when_it_rests_and_what_was_remembered_is_forgotten() {
        let fixture = fixture(300);
        assert!(fixture.ask("ada", b"hunter2").0.is_ok());
        assert!(!fixture.link.look(false), "nothing has changed");
        set(&fixture.path(), "ada", "another");
        assert!(!fixture.link.look(false), "it may be being written");
        assert!(fixture.ask("ada", b"hunter2").0.is_ok());
        assert!(fixture.link.look(false));
        assert_eq!(
            fixture.refusal("ada", b"hunter2"),
            (Refusal::BadCredentials, false)
        );
        assert!(fixture.ask("ada", b"another").0.is_ok());
        set(&fixture.path(), "ada", "hunter2");
        assert!(fixture.link.look(true), "who asks for it has it at once");
        assert!(fixture.ask("ada", b"hunter2").0.is_ok());
    }

    #[test]
    fn a_half_written_file_changes_nothing_and_is_a_problem_by_name() {
        let fixture = fixture(300);
        let text = std::fs::read_to_string(fixture.path()).unwrap();
        let mut states: Vec<String> = (0..text.len()).map(|at| text[..at].to_owned()).collect();
        states.push(format!("{text}{text}"));
        for state in states {
            std::fs::write(fixture.path(), &state).unwrap();
            assert!(!fixture.link.look(true), "{state:?}");
            let problem = fixture.link.problem().unwrap();
            let path = fixture.path().display().to_string();
            assert!(
                problem.contains(&path) && problem.contains("of before"),
                "{problem}"
            );
        }
        assert!(fixture.ask("ada", b"hunter2").0.is_ok());
        std::fs::remove_file(fixture.path()).unwrap();
        assert!(!fixture.link.look(true));
        assert!(fixture.link.problem().is_some());
        std::fs::write(fixture.path(), &text).unwrap();
        assert!(fixture.link.look(true));
        assert_eq!(fixture.link.problem(), None);
    }

    #[test]
    fn a_full_queue_is_said_at_once_and_costs_the_client_no_attempt() {
        let fixture = fixture(0);
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let (started, has_started) = sync_channel(64);
        for _ in 0..2 {
            let (gate, started) = (Arc::clone(&gate), started.clone());
            let wait = move |()| {
                started.send(()).unwrap();
                drop(gate.lock());
            };
            fixture.link.pool.run((), wait).unwrap();
            has_started.recv().unwrap();
        }
        while fixture.link.pool.run((), drop).is_ok() {}
        for _ in 0..9 {
            assert_eq!(fixture.refusal("ada", b"hunter2"), (Refusal::Busy, true));
        }
        drop(closed);
    }
}
