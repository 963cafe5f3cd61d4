//! Open files: each connection takes one, so their number is the first bound that a node meets.
//!
//! The soft limit, often 1,024, is raised to the hard one at the start. A part of it is kept back for HTTP, Kafka and the
//! databases, so that a node full of clients can still say how it is.

use broker::Limits;

use crate::exit::Failure;

/// Files that are not for MQTT clients: HTTP connections, Kafka's and SQLite's files, the threads' polls. A process with few
/// files keeps half of them.
const KEPT_BACK: u64 = 256;

/// What the number of open files allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// Open files that this process may have.
    open_files: u64,
}

impl Files {
    /// Raises this process's soft limit to its hard one.
    ///
    /// # Errors
    /// A start failure when the system refuses.
    pub fn raise() -> Result<Self, Failure> {
        let open_files = loadgen::scenario::raise_open_files().map_err(|error| {
            Failure::cannot_start(format!(
                "the number of open files cannot be raised to the hard limit ({error}): raise the soft limit with \
                 ulimit -n, or LimitNOFILE= in a systemd unit"
            ))
        })?;
        Ok(Self { open_files })
    }

    /// Connections for which there are files.
    fn connections(self) -> u64 {
        self.open_files - KEPT_BACK.min(self.open_files / 2)
    }

    /// Lowers the bound on connections to what there are files for. Returns the bound.
    pub fn bound(self, limits: &mut Limits) -> u32 {
        let connections = u32::try_from(self.connections()).unwrap_or(u32::MAX);
        limits.connections_max = limits.connections_max.min(connections);
        limits.connections_max
    }

    /// How many connections there may be and why, for the start's output.
    pub fn in_words(self, connections_max: u32) -> String {
        let connections = crate::screen::grouped(connections_max.into());
        if u64::from(connections_max) < self.connections() {
            return format!("{connections} connections (broker.limits.connections_max)");
        }
        format!(
            "{connections} connections ({} open files, hard limit; ulimit -Hn)",
            crate::screen::grouped(self.open_files)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_back() {
        for (open_files, connections) in [
            (20_000, 19_744),
            (1_024, 768),
            (300, 150),
            (u64::MAX, 10_000_000),
        ] {
            let mut limits = Limits::default();
            assert_eq!(Files { open_files }.bound(&mut limits), connections);
            assert_eq!(limits.connections_max, connections);
        }
    }

    #[test]
    fn the_words_name_the_bound_that_holds() {
        let files = Files { open_files: 1_024 };
        assert_eq!(
            files.in_words(768),
            "768 connections (1,024 open files, hard limit; ulimit -Hn)"
        );
        assert_eq!(
            files.in_words(100),
            "100 connections (broker.limits.connections_max)"
        );
    }
}
