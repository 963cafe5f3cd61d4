//! The password file: a line for each user, `USER:HASH`, and behind that what else is known of it.
//!
//! ```text
//! # comments and empty lines stay what they are
//! ada:$argon2id$v=19$m=19456,t=2,p=1$…
//! bob:$argon2id$v=19$m=19456,t=2,p=1$…:tenant=acme:groups=ops,staff
//! ```

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hash::Hash;
use crate::principal::Principal;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 256 * 1_048_576;
/// The longest name of a user, a tenant or a group.
const NAME_BYTES_MAX: usize = 256;

/// Why a password file cannot be used: the file, the place and what is wrong there. What stands there is not said: it may be
/// a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    path: PathBuf,
    line: usize,
    what: String,
}

impl FileError {
    fn of(path: &Path, what: impl fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            line: 0,
            what: what.to_string(),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the password file {}", self.path.display())?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for FileError {}

/// A user of the file.
#[derive(Debug)]
pub(super) struct User {
    pub(super) hash: Hash,
    pub(super) principal: Arc<Principal>,
}

/// Reads all users. A file that ends in the middle of a line, or has no user, is one that somebody is writing.
pub(super) fn read(path: &Path) -> Result<HashMap<Box<str>, User>, FileError> {
    let text = text_of(path)?;
    if !text.is_empty() && !text.ends_with('\n') {
        let what = "its last line has no end: is it being written?";
        return Err(FileError::of(path, what));
    }
    let mut users = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: String| FileError {
            path: path.to_owned(),
            line: at + 1,
            what,
        };
        let Some((name, rest)) = entry(line).map_err(wrong)? else {
            continue;
        };
        let user = user(name, rest).map_err(wrong)?;
        if users.insert(name.into(), user).is_some() {
            return Err(wrong(format!("the user {name:?} stands here twice")));
        }
    }
    if users.is_empty() {
        let what = "there is no user in it; `millstream passwd FILE USER` adds one";
        return Err(FileError::of(path, what));
    }
    Ok(users)
}

/// What is wrong with who may read or write the file.
pub(super) fn permissions(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let what = match mode {
        mode if mode & 0o022 != 0 => "others than its owner can write it, and so add users",
        mode if mode & 0o007 != 0 => "everybody on this machine can read it",
        _ => return None,
    };
    Some(format!(
        "the password file {}: {what} (mode {:03o}); chmod 600 or 640 mends that",
        path.display(),
        mode & 0o777
    ))
}

fn text_of(path: &Path) -> Result<String, FileError> {
    let wrong = |error: io::Error| FileError::of(path, error);
    let bytes = fs::metadata(path).map_err(wrong)?.len();
    if bytes > FILE_BYTES_MAX {
        let what = format!("{bytes} bytes; at most {FILE_BYTES_MAX} are read");
        return Err(FileError::of(path, what));
    }
    fs::read_to_string(path).map_err(wrong)
}

/// A line's user and the rest of it; nothing where it is no entry.
fn entry(line: &str) -> Result<Option<(&str, &str)>, String> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, rest) = line
        .split_once(':')
        .ok_or_else(|| "no USER:HASH".to_owned())?;
    check_name("user", name)?;
    Ok(Some((name, rest)))
}

fn user(name: &str, rest: &str) -> Result<User, String> {
    let mut parts = rest.split(':');
    let hash = Hash::parse(parts.next().unwrap_or_default())?;
    let mut principal = Principal::new(name);
    for part in parts {
        match part.split_once('=') {
            Some(("tenant", tenant)) => {
                check_name("tenant", tenant)?;
                principal.tenant = Some(tenant.into());
            }
            Some(("groups", groups)) => {
                let groups: Vec<&str> = groups.split(',').collect();
                groups
                    .iter()
                    .try_for_each(|group| check_name("group", group))?;
                principal.groups = groups.into_iter().map(Box::from).collect();
            }
            _ => {
                return Err("behind the hash stands something else than tenant= or groups=".into());
            }
        }
    }
    Ok(User {
        hash,
        principal: Arc::new(principal),
    })
}

/// What a name may be, so that a line can hold it and a terminal show it.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let is_bad = |c: char| c.is_control() || c == ':';
    let is_wrong = name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || name.contains(is_bad)
        || name.trim() != name
        || name.starts_with('#')
        || (what == "group" && name.contains(','));
    if is_wrong {
        return Err(format!(
            "{name:?} is no name of a {what}: 1 to {NAME_BYTES_MAX} bytes without colons and control characters, with no space \
             at its ends and no # at its beginning"
        ));
    }
    Ok(())
}

/// What is to become of a user's line.
#[derive(Debug, Clone, Copy)]
pub enum Edit<'a> {
    /// It is there, with this hash; tenant and groups stay what they are unless they are given.
    Set {
        /// A PHC string.
        hash: &'a str,
        /// Whose user it is.
        tenant: Option<&'a str>,
        /// What it belongs to.
        groups: Option<&'a [String]>,
    },
    /// It is not there.
    Remove,
}

/// What [`edit`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edited {
    /// There is one user more, perhaps in a new file.
    Added,
    /// The user has another line.
    Changed,
    /// There is one user less.
    Removed,
}

/// Changes one user's line. The file is there whole at any time, before or after: it is written beside and put in its
/// place. It is made when it is not there, for its owner alone.
///
/// # Errors
/// When the file cannot be read or written, holds the user twice, or the name is none.
pub fn edit(path: &Path, name: &str, edit: Edit<'_>) -> Result<Edited, FileError> {
    let wrong = |error: &dyn fmt::Display| FileError::of(path, error);
    check_name("user", name).map_err(|what| wrong(&what))?;
    // A link's target is what is replaced, not the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Two who edit at once take turns.
    let turn = File::open(directory).map_err(|error| wrong(&error))?;
    turn.lock().map_err(|error| wrong(&error))?;
    let is_new = !target.exists();
    let text = if is_new {
        String::new()
    } else {
        text_of(&target)?
    };
    let (text, edited) = change(path, &text, name, edit)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|error| wrong(&error))?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| keep_owner(&target, file.as_file(), is_new))
        .and_then(|()| file.as_file().sync_all());
    written.map_err(|error| wrong(&error))?;
    file.persist(&target).map_err(|error| wrong(&error.error))?;
    turn.sync_all().map_err(|error| wrong(&error))?;
    Ok(edited)
}

/// The new file belongs to whom the old one belonged, and may be read by the same.
fn keep_owner(target: &Path, file: &File, is_new: bool) -> io::Result<()> {
    if is_new {
        return Ok(());
    }
    let old = fs::metadata(target)?;
    file.set_permissions(old.permissions())?;
    let new = file.metadata()?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    Ok(())
}

fn change(
    path: &Path,
    text: &str,
    name: &str,
    edit: Edit<'_>,
) -> Result<(String, Edited), FileError> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_his = |line: &String| line.split_once(':').is_some_and(|(user, _)| user == name);
    let mut his = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| is_his(line))
        .map(|(at, _)| at);
    let (at, again) = (his.next(), his.next());
    if let Some(again) = again {
        return Err(FileError {
            path: path.to_owned(),
            line: again + 1,
            what: format!("the user {name:?} stands here twice; take one of the lines out"),
        });
    }
    let edited = match (edit, at) {
        (Edit::Remove, Some(at)) => {
            lines.remove(at);
            Edited::Removed
        }
        (Edit::Remove, None) => {
            return Err(FileError::of(path, format!("there is no user {name:?}")));
        }
        (
            Edit::Set {
                hash,
                tenant,
                groups,
            },
            at,
        ) => {
            let before = at.map(|at| lines[at].clone()).unwrap_or_default();
            let of_before = |key: &str| {
                let mut parts = before.split(':').skip(2);
                parts
                    .find_map(|part| part.strip_prefix(key))
                    .map(str::to_owned)
            };
            let tenant = tenant.map(str::to_owned).or_else(|| of_before("tenant="));
            let groups = groups
                .map(|groups| groups.join(","))
                .or_else(|| of_before("groups="));
            let mut line = format!("{name}:{hash}");
            for (key, value) in [("tenant", tenant), ("groups", groups)] {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    line = format!("{line}:{key}={value}");
                }
            }
            let parsed = line
                .split_once(':')
                .map(|(name, rest)| user(name, rest))
                .transpose();
            parsed.map_err(|what| FileError::of(path, what))?;
            match at {
                Some(at) => {
                    lines[at] = line;
                    Edited::Changed
                }
                None => {
                    lines.push(line);
                    Edited::Added
                }
            }
        }
    };
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    Ok((text, edited))
}

#[cfg(test)]
mod tests {
    use super::super::hash::{Cost, make};
    use super::*;

    fn hash(password: &str) -> String {
        let cost = Cost {
            memory_kib: 16,
            passes: 1,
        };
        make(password.as_bytes(), cost).unwrap()
    }

    fn set(hash: &str) -> Edit<'_> {
        Edit::Set {
            hash,
            tenant: None,
            groups: None,
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn said(text: &str) -> String {
        let (_directory, path) = file(text);
        read(&path).unwrap_err().to_string()
    }

    #[test]
    fn users_have_their_hash_tenant_and_groups() {
        let text = format!(
            "# users\n\nada:{}\nbob x:{}:tenant=acme:groups=ops,staff\n",
            hash("a"),
            hash("b")
        );
        let (_directory, path) = file(&text);
        let users = read(&path).unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(*users["ada"].principal, Principal::new("ada"));
        let bob = &users["bob x"];
        assert!(bob.hash.is_of(b"b"));
        assert_eq!(bob.principal.tenant.as_deref(), Some("acme"));
        assert!(bob.principal.is_in("ops") && bob.principal.is_in("staff"));
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_place_and_without_what_stands_there() {
        let hash = hash("a");
        let twice = said(&format!("ada:{hash}\n# x\nada:{hash}\n"));
        assert!(
            twice.contains("line 3") && twice.contains("\"ada\" stands here twice"),
            "{twice}"
        );
        let cut = said(&format!("ada:{hash}\nbob:{}", &hash[..40]));
        assert!(cut.contains("no end"), "{cut}");
        let cut = said(&format!("ada:{hash}\nbob:{}\n", &hash[..40]));
        assert!(cut.contains("line 2"), "{cut}");
        for empty in ["", "\n# nobody\n"] {
            let empty = said(empty);
            assert!(empty.contains("no user"), "{empty}");
        }
        let clear = said("ada:hunter2\n");
        assert!(
            clear.contains("line 1") && !clear.contains("hunter2"),
            "{clear}"
        );
        let more = said(&format!("ada:{hash}:hunter2\n"));
        assert!(
            more.contains("tenant=") && !more.contains("hunter2"),
            "{more}"
        );
        for name in ["", " ada", "a\u{1b}[31m", "#"] {
            let line = format!("x:{hash}\n{name}:{hash}\n");
            if !name.starts_with('#') {
                let error = said(&line);
                assert!(error.contains("no name of a user"), "{error}");
                assert!(!error.contains('\u{1b}'), "{error:?}");
            }
        }
        let error = read(Path::new("/no/such/users")).unwrap_err().to_string();
        assert!(error.contains("/no/such/users"), "{error}");
    }

    #[test]
    fn an_edit_changes_one_line_and_leaves_the_file_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let (first, second) = (hash("a"), hash("b"));
        assert_eq!(edit(&path, "ada", set(&first)), Ok(Edited::Added));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let groups = ["ops".to_owned()];
        let with_more = Edit::Set {
            hash: &first,
            tenant: Some("acme"),
            groups: Some(&groups),
        };
        assert_eq!(edit(&path, "bob", with_more), Ok(Edited::Added));
        let text = format!("# kept\n{}", fs::read_to_string(&path).unwrap());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(edit(&link, "bob", set(&second)), Ok(Edited::Changed));
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("# kept\nada:{first}\nbob:{second}:tenant=acme:groups=ops\n")
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(edit(&path, "ada", Edit::Remove), Ok(Edited::Removed));
        let error = edit(&path, "ada", Edit::Remove).unwrap_err().to_string();
        assert!(error.contains("no user \"ada\""), "{error}");
        assert_eq!(read(&path).unwrap().len(), 1);
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "nothing else is left"
        );
    }

    #[test]
    fn an_edit_is_refused_for_names_that_are_none_and_for_users_that_stand_twice() {
        let hash = hash("a");
        let (_directory, path) = file(&format!("ada:{hash}\nada:{hash}\n"));
        let before = fs::read_to_string(&path).unwrap();
        let error = edit(&path, "ada", set(&hash)).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("twice"),
            "{error}"
        );
        for name in ["", "a:b", "a\nb", "a\0", "#a", " a"] {
            assert!(edit(&path, name, set(&hash)).is_err(), "{name:?}");
        }
        let groups = ["a,b".to_owned()];
        let groups = Edit::Set {
            hash: &hash,
            tenant: Some("a:b"),
            groups: Some(&groups),
        };
        assert!(edit(&path, "bob", groups).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn who_else_may_read_or_write_is_a_warning() {
        let (_directory, path) = file("");
        for (mode, said) in [
            (0o600, None),
            (0o640, None),
            (0o644, Some("can read it")),
            (0o660, Some("add users")),
            (0o666, Some("add users")),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let warning = permissions(&path);
            match said {
                None => assert_eq!(warning, None),
                Some(said) => assert!(warning.unwrap().contains(said), "{mode:o}"),
            }
        }
    }
}
