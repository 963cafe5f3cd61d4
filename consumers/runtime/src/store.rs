//! The SQLite file of a backend: opened once, one writer, and a record of how far each partition was consumed.
//!
//! What a backend keeps beside that is its own business. See [`Progress`] for how effects become idempotent.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Sqlite, Transaction};

use crate::fault::HandleError;
use crate::status::Sizes;

mod origins;
mod progress;

pub(crate) use origins::{Originals, without_effect};
pub use progress::{Position, Progress};

/// Connections that read beside the writer.
const READERS_MAX: u32 = 4;

/// How long a statement waits for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages of write-ahead log after which SQLite copies them into the main file: 16 MiB.
const CHECKPOINT_PAGES: &str = "4096";

/// The writer's page cache in KiB, as SQLite's `cache_size` wants it: negative. What a batch changes should fit: a page that
/// has to leave the cache is written to the write-ahead log before the commit, and read back and written again when the next
/// record changes it. SQLite's own 2 MiB hold the pages of 500 devices. Memory is taken as pages are touched.
const WRITER_CACHE_KIB: &str = "-32768";

/// Prepared statements kept a connection.
const STATEMENTS_MAX: usize = 64;

/// Rows in one statement; SQLite binds at most 32,766 values. A statement is a way to the connection's thread and back, two
/// switches that each wait for a core on a busy machine, so a call wants few of them. Whole ones are worth keeping prepared:
/// reading the text of one takes a fifth of its time.
pub const ROWS_PER_STATEMENT_MAX: usize = 1_000;

/// Whether a statement of these rows is one that comes again and again: for `persistent`.
#[must_use]
pub fn is_whole<T>(rows: &[T]) -> bool {
    rows.len() == ROWS_PER_STATEMENT_MAX
}

/// The store of a backend.
///
/// Cloning is cheap and shares the connections. Dropping the last clone closes the file.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
    /// `None` in memory: such a store is a new one at each start.
    identity: Option<Arc<str>>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is none that this version understands.
    #[error(
        "database {url:?} is not understood ({reason}); allowed: sqlite:FILE, for example sqlite:chat.db, or sqlite::memory:"
    )]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be opened or read.
    #[error("cannot open database {url}: {source}")]
    Open {
        /// As it was given.
        url: String,
        /// What SQLite says.
        source: sqlx::Error,
    },
    /// The file cannot be written to.
    #[error("database {url} cannot be written to: {source}")]
    Write {
        /// As it was given.
        url: String,
        /// What SQLite says.
        source: sqlx::Error,
    },
    /// The file belongs to another program or backend.
    #[error("database {url} is not a store of {expected}")]
    Foreign {
        /// As it was given.
        url: String,
        /// The backend that opened it.
        expected: &'static str,
    },
    /// The file was written by a later version of the backend.
    #[error(
        "database {url} has schema version {found}, this version of {backend} knows up to {known}"
    )]
    Newer {
        /// As it was given.
        url: String,
        /// The backend that opened it.
        backend: &'static str,
        /// The version in the file.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
}

/// The tables of a backend.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The name of the backend, kept in the file so that one backend does not write into the file of another.
    pub backend: &'static str,
    /// SQL scripts: the first makes the tables of version 1, each further one brings the version before to the next.
    /// Scripts that were released never change.
    pub versions: &'static [&'static str],
}

const PROGRESS_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS store_owner (backend TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS store_identity (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL);
    INSERT OR IGNORE INTO store_identity VALUES (1, lower(hex(randomblob(16))));
    CREATE TABLE IF NOT EXISTS store_progress (
        source INTEGER PRIMARY KEY,
        cluster TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL,
        youngest_ms INTEGER NOT NULL,
        -- The source itself when the topic was made anew after it; 0 for the log of today.
        replaced INTEGER NOT NULL DEFAULT 0,
        UNIQUE (cluster, topic, partition, replaced)
    );
    -- Originals whose copies were consumed, and by which copy.
    CREATE TABLE IF NOT EXISTS store_origins (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        cluster TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        origin INTEGER NOT NULL,
        copy_topic TEXT NOT NULL,
        copy_partition INTEGER NOT NULL,
        copy_offset INTEGER NOT NULL,
        UNIQUE (cluster, topic, partition, origin)
    );
    -- Offsets behind a partition's position that were not consumed: Kafka had them no longer.
    CREATE TABLE IF NOT EXISTS store_gaps (
        cluster TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        first INTEGER NOT NULL,
        next INTEGER NOT NULL,
        PRIMARY KEY (cluster, topic, partition, first)
    );
";

/// A database of a backend.
pub const DATABASE: settings::Kind<String> = settings::Kind {
    words: "sqlite:FILE or sqlite::memory:",
    fits: |url| options_of(url).is_ok(),
};

fn options_of(url: &str) -> Result<SqliteConnectOptions, String> {
    if url.strip_prefix("sqlite:").is_none_or(str::is_empty) {
        return Err("it does not start with sqlite: and name a file".to_owned());
    }
    SqliteConnectOptions::from_str(url).map_err(|error| error.to_string())
}

impl Store {
    /// Opens the store at `url`, makes the file if it is missing, and brings its tables up to date.
    ///
    /// Commits survive a power cut (`synchronous = FULL`): offsets are committed to Kafka after them, so what SQLite forgot
    /// would be lost. Batches make that cheap.
    ///
    /// # Errors
    ///
    /// [`StoreError`], each in one sentence for the user.
    pub async fn open(url: &str, schema: Schema) -> Result<Self, StoreError> {
        let unknown = |reason: String| StoreError::Url {
            url: url.to_owned(),
            reason,
        };
        let options = options_of(url)
            .map_err(unknown)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .statement_cache_capacity(STATEMENTS_MAX);
        let open = |source| StoreError::Open {
            url: url.to_owned(),
            source,
        };
        let writer = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            // A file does not go away as a connection over a network does.
            .test_before_acquire(false)
            .connect_with(
                options
                    .clone()
                    .pragma("cache_size", WRITER_CACHE_KIB)
                    // What undoes a statement that fails half-way otherwise goes to a file of its own, made for each
                    // statement that changes more than 64 KiB of pages.
                    .pragma("temp_store", "MEMORY"),
            )
            .await
            .map_err(open)?;
        // A database in memory belongs to its connection: readers have to share the writer's.
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        let reader = if in_memory {
            writer.clone()
        } else {
            SqlitePoolOptions::new()
                .max_connections(READERS_MAX)
                .connect_lazy_with(options.read_only(true).create_if_missing(false))
        };
        let mut store = Self {
            writer,
            reader,
            identity: None,
        };
        store.migrate(url, schema).await?;
        if !in_memory {
            let id: String = sqlx::query_scalar("SELECT id FROM store_identity")
                .fetch_one(&store.writer)
                .await
                .map_err(open)?;
            store.identity = Some(id.into());
        }
        Ok(store)
    }

    async fn migrate(&self, url: &str, schema: Schema) -> Result<(), StoreError> {
        let open = |source| StoreError::Open {
            url: url.to_owned(),
            source,
        };
        let mut tx = self.write().await.map_err(open)?;
        sqlx::raw_sql(PROGRESS_TABLES)
            .execute(&mut *tx)
            .await
            .map_err(open)?;
        let owner: Option<String> = sqlx::query_scalar("SELECT backend FROM store_owner")
            .fetch_optional(&mut *tx)
            .await
            .map_err(open)?;
        match owner {
            None => {
                sqlx::query("INSERT INTO store_owner (backend) VALUES (?)")
                    .bind(schema.backend)
                    .execute(&mut *tx)
                    .await
                    .map_err(open)?;
            }
            Some(owner) if owner == schema.backend => {}
            Some(_) => {
                return Err(StoreError::Foreign {
                    url: url.to_owned(),
                    expected: schema.backend,
                });
            }
        }
        let found: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *tx)
            .await
            .map_err(open)?;
        let known = i64::try_from(schema.versions.len()).unwrap_or(i64::MAX);
        if found > known {
            let (url, backend) = (url.to_owned(), schema.backend);
            return Err(StoreError::Newer {
                url,
                backend,
                found,
                known,
            });
        }
        let done = usize::try_from(found).unwrap_or(0);
        for version in &schema.versions[done..] {
            sqlx::raw_sql(*version)
                .execute(&mut *tx)
                .await
                .map_err(open)?;
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "PRAGMA user_version = {known}"
        )))
        .execute(&mut *tx)
        .await
        .map_err(open)?;
        tx.commit().await.map_err(open)
    }

    /// Starts the transaction of a writer. It waits for other writers, of this process and of others, before it reads
    /// anything, so what it reads stays true until its commit.
    ///
    /// # Errors
    ///
    /// What SQLite says; [`handle_error`] tells whether to retry.
    pub async fn write(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        match self.writer.begin_with(BEGIN).await {
            // When the disk is full, SQLite may end a transaction by itself. sqlx does not notice, and believes for ever that
            // the connection is still in it: only a fresh one helps.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                let stuck = self.writer.acquire().await?;
                if stuck.is_in_transaction() {
                    stuck.close().await?;
                }
                self.writer.begin_with(BEGIN).await
            }
            begun => begun,
        }
    }

    /// What tells this store from all others, wherever its file is moved; none for one in memory.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<str>> {
        self.identity.clone()
    }

    /// The connections for reading, for HTTP APIs.
    #[must_use]
    pub fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// How large the store is. Rows are counted one by one, beside the writer.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn sizes(&self, tables: &'static [&'static str]) -> sqlx::Result<Sizes> {
        let mut reader = self.reader.acquire().await?;
        let (page, pages, free): (i64, i64, i64) = sqlx::query_as(
            "SELECT page_size, page_count, freelist_count
             FROM pragma_page_size(), pragma_page_count(), pragma_freelist_count()",
        )
        .fetch_one(&mut *reader)
        .await?;
        let bytes = |pages: i64| page.saturating_mul(pages).unsigned_abs();
        let mut sizes = Sizes {
            bytes: bytes(pages),
            free_bytes: bytes(free),
            rows: BTreeMap::new(),
        };
        for table in tables {
            let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            let rows: i64 = sqlx::query_scalar(sql).fetch_one(&mut *reader).await?;
            sizes.rows.insert(table, rows.unsigned_abs());
        }
        Ok(sizes)
    }

    /// Whether the file can be read.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn ping(&self) -> sqlx::Result<()> {
        self.reader.acquire().await?.ping().await
    }

    /// Closes the connections and waits for it; the write-ahead log is folded into the file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// SQLite's primary result codes (<https://www.sqlite.org/rescode.html>) that no retry mends: the statement is wrong
/// (`ERROR`), the file is damaged (`CORRUPT`, `NOTADB`), the data breaks a rule of the tables (`CONSTRAINT`, `MISMATCH`), or
/// the library is misused (`MISUSE`, `RANGE`).
const FATAL_CODES: [u32; 7] = [1, 11, 19, 20, 21, 25, 26];

/// Whether to retry after `error`: a full disk, a locked or unreadable file and the like may pass.
#[must_use]
pub fn handle_error(error: &sqlx::Error) -> HandleError {
    let message = format!("the store failed: {error}");
    let fatal = match error {
        sqlx::Error::Database(error) => error
            .code()
            .and_then(|code| code.parse::<u32>().ok())
            // The low byte of an extended code is the primary one.
            .is_some_and(|code| FATAL_CODES.contains(&(code & 0xff))),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => false,
        _ => true,
    };
    if fatal {
        HandleError::Fatal(message)
    } else {
        HandleError::Transient(message)
    }
}

impl From<sqlx::Error> for HandleError {
    fn from(error: sqlx::Error) -> Self {
        handle_error(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "CREATE TABLE things (thing TEXT NOT NULL)";
    const V2: &str = "ALTER TABLE things ADD COLUMN size INTEGER";

    pub(super) const SCHEMA: Schema = Schema {
        backend: "test",
        versions: &[V1],
    };

    pub(super) fn url(dir: &tempfile::TempDir) -> String {
        format!("sqlite:{}", dir.path().join("test.db").display())
    }

    #[tokio::test]
    async fn a_file_of_another_backend_or_a_later_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let url = url(&dir);
        Store::open(&url, SCHEMA).await.unwrap().close().await;
        let other = Schema {
            backend: "other",
            ..SCHEMA
        };
        let error = Store::open(&url, other).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("database {url} is not a store of other")
        );
        let newer = Schema {
            versions: &[V1, V2],
            ..SCHEMA
        };
        let store = Store::open(&url, newer).await.unwrap();
        let mut tx = store.write().await.unwrap();
        sqlx::query("INSERT INTO things (thing, size) VALUES ('a', 1)")
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        store.close().await;
        let error = Store::open(&url, SCHEMA).await.unwrap_err();
        let expected =
            format!("database {url} has schema version 2, this version of test knows up to 1");
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        std::fs::write(&path, "this is a text and no database, and longer than a header of SQLite is, which has 100 bytes").unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = Store::open(&url(&dir), SCHEMA).await.unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }), "{error}");
        assert!(error.to_string().contains("not a database"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        for url in ["postgres://h/d", "chat.db", "sqlite:x.db?mode=nonsense"] {
            let error = Store::open(url, SCHEMA).await.unwrap_err();
            assert!(
                error.to_string().contains("allowed: sqlite:FILE"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn readers_see_what_was_committed_and_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        for url in [url(&dir), "sqlite::memory:".to_owned()] {
            let store = Store::open(&url, SCHEMA).await.unwrap();
            let mut tx = store.write().await.unwrap();
            sqlx::query("INSERT INTO things VALUES ('a')")
                .execute(&mut *tx)
                .await
                .unwrap();
            tx.commit().await.unwrap();
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM things")
                .fetch_one(store.reader())
                .await
                .unwrap();
            assert_eq!(count, 1, "{url}");
            store.ping().await.unwrap();
        }
        let store = Store::open(&url(&dir), SCHEMA).await.unwrap();
        let error = sqlx::query("DELETE FROM things")
            .execute(store.reader())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("readonly"), "{error}");
    }

    #[tokio::test]
    async fn what_may_pass_is_told_from_what_will_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&url(&dir), SCHEMA).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let wrong = sqlx::query("SELECT nothing FROM nowhere")
            .execute(&mut *tx)
            .await
            .unwrap_err();
        assert!(
            matches!(handle_error(&wrong), HandleError::Fatal(_)),
            "{wrong}"
        );
        let broken = sqlx::query("INSERT INTO things VALUES (NULL)")
            .execute(&mut *tx)
            .await
            .unwrap_err();
        assert!(
            matches!(handle_error(&broken), HandleError::Fatal(_)),
            "{broken}"
        );
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(&mut *tx)
            .await
            .unwrap();
        let full = loop {
            let insert = sqlx::query("INSERT INTO things VALUES (hex(randomblob(1000)))");
            if let Err(error) = insert.execute(&mut *tx).await {
                break error;
            }
        };
        assert!(
            matches!(handle_error(&full), HandleError::Transient(_)),
            "{full}"
        );
        assert!(matches!(
            handle_error(&sqlx::Error::PoolTimedOut),
            HandleError::Transient(_)
        ));
    }
}
