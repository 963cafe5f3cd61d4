//! Why a call of a handler failed.

/// Why a call failed; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// May pass (disk full, database locked): the partitions are paused and the same records come again, less and less often.
    #[error("{0}")]
    Transient(String),
    /// Will not pass (the store is another version's, or damaged): the consumer stops and says why. Nothing is lost; the
    /// records come again after a restart.
    #[error("{0}")]
    Fatal(String),
}
