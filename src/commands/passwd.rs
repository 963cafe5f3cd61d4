//! `millstream passwd`: edits a password file. Nothing is started.

use std::io::{IsTerminal, Read, Write};

use anyhow::Context;
use broker::identity::password::{Cost, Edit, Edited, PASSWORD_BYTES_MAX, edit, make};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::print;
use crate::cli;
use crate::exit::Failure;

/// Runs the command.
///
/// # Errors
/// A start failure for a file that cannot be edited, a user that is not there, or a password that is none.
pub fn run(options: cli::Passwd) -> Result<(), Failure> {
    let cli::Passwd {
        file,
        user,
        password,
        delete,
        tenant,
        group,
    } = options;
    let hash;
    let what = if delete {
        Edit::Remove
    } else {
        let password = match password {
            Some(password) => password,
            None => asked(&user)?,
        };
        check(&password)?;
        hash = make(password.as_bytes(), Cost::default()).map_err(Failure::cannot_start)?;
        Edit::Set {
            hash: &hash,
            tenant: tenant.as_deref(),
            groups: (!group.is_empty()).then_some(&group),
        }
    };
    let edited = edit(&file, &user, what).map_err(Failure::cannot_start)?;
    print(match edited {
        Edited::Added => "the user was added\n",
        Edited::Changed => "the user's password was changed\n",
        Edited::Removed => "the user was taken out\n",
    })
}

fn check(password: &str) -> Result<(), Failure> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(Failure::cannot_start(format!(
            "a password has 1 to {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// The password from a terminal, typed twice, or else all of standard input but a line end.
fn asked(user: &str) -> Result<String, Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        let mut password = String::new();
        let most = PASSWORD_BYTES_MAX as u64 + 2;
        input
            .lock()
            .take(most)
            .read_to_string(&mut password)
            .context("cannot read the password from standard input")?;
        password.truncate(password.trim_end_matches(['\r', '\n']).len());
        return Ok(password);
    }
    let password = typed(&format!("Password of {user:?}: "))?;
    if typed("Once more: ")? != password {
        return Err(Failure::cannot_start("the two passwords are not the same"));
    }
    Ok(password)
}

/// A line from the terminal that is not shown.
fn typed(prompt: &str) -> Result<String, Failure> {
    let shown = Echo::off()?;
    let mut terminal = std::io::stderr();
    write!(terminal, "{prompt}").context("cannot write to the terminal")?;
    terminal.flush().context("cannot write to the terminal")?;
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    drop(shown);
    writeln!(terminal).context("cannot write to the terminal")?;
    read.context("cannot read the password")?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

/// The terminal shows nothing of what is typed as long as this is there.
struct Echo(Termios);

impl Echo {
    fn off() -> Result<Self, Failure> {
        let input = std::io::stdin();
        let before = tcgetattr(&input).context("cannot ask the terminal how it is set")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &silent)
            .context("cannot have the terminal show nothing")?;
        Ok(Self(before))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
