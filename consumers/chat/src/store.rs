//! What the backend keeps, in the runtime's SQLite store.

mod batch;
mod forget;
mod members;
mod views;

use runtime::store::{Schema, StoreError};

pub use batch::{Applied, Changed, Incoming, Limits, Partition, Stored};
pub(crate) use forget::Forgetter;
pub use members::{LimitReached, Membership};
pub use views::Direction;

const SCHEMA: Schema = Schema {
    backend: "chat",
    versions: &[
        include_str!("store/schema.sql"),
        include_str!("store/schema_2.sql"),
        include_str!("store/schema_3.sql"),
    ],
};

/// The tables that grow.
pub const TABLES: &[&str] = &["rooms", "messages", "members"];

/// The store. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Store(runtime::store::Store);

impl Store {
    /// Opens the database and makes what it lacks.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        runtime::store::Store::open(url, SCHEMA).await.map(Self)
    }

    /// The runtime's store below it.
    pub fn file(&self) -> &runtime::store::Store {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use runtime::Growth;

    use super::*;

    pub(crate) async fn store(dir: &tempfile::TempDir) -> Store {
        let url = format!("sqlite:{}", dir.path().join("chat.db").display());
        Store::open(&url).await.expect("opens")
    }

    /// One whose numbers nobody reads.
    pub(crate) fn growth(store: &Store) -> Growth {
        let registry = prometheus::Registry::new();
        Growth::new(store.file(), "chat", TABLES, &[], &registry).expect("registers")
    }

    impl Store {
        /// Makes the disk full (`Some`: from this many pages on) or gives it room again.
        pub(crate) async fn limit_pages(&self, pages_max: Option<u32>) {
            let pages_max = pages_max.unwrap_or(u32::MAX - 1);
            let mut tx = self.0.write().await.expect("begins");
            let sql = format!("PRAGMA max_page_count = {pages_max}");
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .execute(&mut *tx)
                .await
                .expect("sets");
            tx.commit().await.expect("commits");
        }
    }
}
