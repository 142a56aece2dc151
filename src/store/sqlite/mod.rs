//! The embedded store: one SQLite file that holds the nodes, the users and the event log.
//!
//! * [`schema`]: the file, its tables and pragmas, and the lock that keeps a second process out.
//! * [`writer`]: one thread owns the only write connection and commits in groups.
//! * [`commit`], [`append`]: what is written inside such a transaction: nodes, and events at their places.
//! * [`readers`]: pools of read connections with time limits.
//! * [`statement`]: which prepared statements are kept.
//! * [`clock`]: the time that ages are measured by.
//! * [`channels`]: what is known of each channel without asking the file, and the wake-ups of its readers.
//! * [`find`], [`filter`], [`indexes`], [`users`], [`groups`], [`tokens`], [`consumers`], [`queues`], [`channel_owners`], [`telemetry`], [`leases`], [`purge`],
//!   [`retention`]: one subject each.
//!
//! The event log on the same file is [`crate::event_log::sqlite`].

mod append;
mod channel_owners;
mod channels;
mod clock;
mod commit;
mod consumer_groups;
mod consumers;
pub mod filter;
mod find;
mod groups;
mod indexes;
mod leases;
mod purge;
mod queues;
mod readers;
mod retention;
mod schema;
mod statement;
mod telemetry;
mod tokens;
mod users;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::gather::{self, Gather, Gets, Most};
use super::{Commit, Committed, Facts, Found, IdempotencyKey, IndexStatus, Query, Raw, Store};
use crate::error::{Error, Result};
use crate::event_log::sqlite::SqliteLog;
use crate::filter::Filter;
use crate::kv::sqlite::SqliteKv;
use crate::model::ObjectId;
use crate::model::timestamp::WallClock;

pub(crate) use append::{Batch, EventRow, SEQ_BITS};
pub(crate) use channels::Channels;
use clock::Clock;
use readers::Readers;
pub(crate) use statement::prepare;
pub(crate) use users::count_of;
use writer::Writer;

/// How the embedded store is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long events stay readable.
    pub retention: Duration,
    /// How long records of telemetry stay.
    pub telemetry_retention: Duration,
    /// How often what is older is looked for and removed.
    pub prune_every: Duration,
    /// How many searches run at once; each has its own connection and thread.
    pub readers: usize,
    /// The longest that one read may take, waiting included; then it ends with 504.
    pub read_limit: Duration,
    /// The same of a search, or of counting.
    pub search_limit: Duration,
    /// What an acknowledged write survives.
    pub synchronous: Synchronous,
    /// The clock of events.
    #[doc(hidden)]
    pub wall: WallClock,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            retention: Duration::from_secs(7 * 24 * 3600),
            telemetry_retention: Duration::from_secs(14 * 24 * 3600),
            prune_every: Duration::from_secs(60),
            readers: 4,
            read_limit: Duration::from_secs(15),
            search_limit: Duration::from_secs(15),
            synchronous: Synchronous::Full,
            wall: WallClock::default(),
        }
    }
}

/// When a commit reaches the disk.
///
/// Either way an acknowledged write survives the death of the process (`kill -9`), because it is in the kernel's
/// page cache, and the file cannot be corrupted. The default is `Full`: acknowledged then means acknowledged, also
/// when the power fails; and since a group of up to 64 writes shares one fsync, it costs little under load. With
/// `Normal` the last commits may be gone when the machine comes up again. Their sequence numbers are given again, so
/// a new epoch begins then: readers are told that history was lost, and never mistake other events for those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// At checkpoints only: the last commits may be lost when the machine loses power.
    Normal,
    /// Before the write is acknowledged.
    Full,
}

impl Synchronous {
    /// As SQLite calls it.
    const fn name(self) -> &'static str {
        match self {
            Synchronous::Normal => "normal",
            Synchronous::Full => "full",
        }
    }
}

/// What indexes the database in `dir` has, lacks, and has without need. Changes nothing, and a server may be using it.
pub async fn index_status(dir: &Path) -> Result<Vec<IndexStatus>> {
    let path = dir.join(schema::FILE);
    tokio::task::spawn_blocking(move || {
        if !path.exists() {
            return Err(Error::not_found(format!("there is no database {} yet", path.display())));
        }
        indexes::status(&schema::open_reader(&path)?)
    })
    .await
    .map_err(Error::internal)?
}

/// Opens the data directory `dir`, which is made if it is missing: the store and the event log in one file.
///
/// Fails with a sentence for the operator if another process has the directory open, or a newer version wrote it.
/// Must be called inside a tokio runtime.
pub async fn open(dir: &Path, options: Options) -> Result<(Arc<SqliteStore>, Arc<SqliteLog>)> {
    let dir = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || Database::open(&dir, options)).await;
    let db = Arc::new(opened.map_err(Error::internal)??);
    retention::spawn(&db);
    Ok((Arc::new(SqliteStore::new(db.clone())), Arc::new(SqliteLog::new(db))))
}

/// What the store and the log share.
pub(crate) struct Database {
    /// Identifies the history of the event log in this file.
    pub(crate) epoch: Arc<str>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) writer: Writer,
    clock: Clock,
    /// For reads that take microseconds (by id, of the log): apart, so that no slow search delays an event.
    pub(crate) quick: Readers,
    /// For searches.
    pub(crate) searches: Readers,
    options: Options,
}

/// How many connections serve the reads that take microseconds.
const QUICK_READERS: usize = 2;

impl Database {
    fn open(dir: &Path, options: Options) -> Result<Database> {
        let lock = schema::lock(dir)?;
        let path: PathBuf = dir.join(schema::FILE);
        let (connection, epoch) = schema::open(&path, options.synchronous)?;
        let noted = consumers::last_use(&connection)?;
        let channels = Arc::new(Channels::default());
        let clock = Clock::start(options.wall.clone(), noted);
        let writer = Writer::start(connection, channels.clone(), clock.clone(), lock)?;
        Ok(Database {
            epoch: epoch.into(),
            channels,
            writer,
            clock,
            quick: Readers::new("read", &path, QUICK_READERS, options.read_limit),
            searches: Readers::new("search", &path, options.readers.max(1), options.search_limit),
            options,
        })
    }
}

/// A connection to a new file with the tables, indexes and settings of the store and nothing else to it: what SQLite
/// itself can do.
pub(crate) fn bare(path: &Path) -> Result<rusqlite::Connection> {
    Ok(schema::open(path, Synchronous::Full)?.0)
}

/// The store in a SQLite file. See the module's documentation.
pub struct SqliteStore {
    db: Arc<Database>,
    /// Single nodes to read: those of the same moment share a hop to another thread.
    gets: Gets,
}

impl SqliteStore {
    fn new(db: Arc<Database>) -> SqliteStore {
        let most = Most { flights: QUICK_READERS, requests: 64, weight: 64 };
        let reading = db.clone();
        let gets = Gather::new(
            most,
            |_| 1,
            move |ids: Vec<ObjectId>| {
                let db = reading.clone();
                Box::pin(async move {
                    let wanted = ids.clone();
                    let found = db.quick.run(move |connection| find::by_ids(connection, &wanted)).await;
                    gather::by_id(&ids, found)
                })
            },
        );
        SqliteStore { db, gets }
    }
    /// Keys and values in the same file.
    pub fn kv(&self) -> SqliteKv {
        SqliteKv::new(self.db.clone())
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn facts(&self) -> Facts {
        Facts { kind: "sqlite", atomic_hierarchies: true }
    }

    async fn ping(&self) -> Result<()> {
        self.db.writer.works().await
    }

    async fn takes_writes(&self) -> Result<()> {
        self.db.writer.takes_writes().await
    }

    async fn raw_nodes(&self, ids: &[ObjectId]) -> Result<Vec<Raw>> {
        if let [id] = ids {
            return Ok(self.gets.ask(*id).await??.into_iter().collect());
        }
        let ids = ids.to_vec();
        let found = self.db.quick.run(move |connection| find::by_ids(connection, &ids)).await?;
        Ok(found.into_iter().map(|(_, node)| node).collect())
    }

    async fn find_nodes(&self, query: &Query) -> Result<Found> {
        let query = query.clone();
        self.db.searches.run(move |connection| find::find(connection, &query)).await
    }

    async fn count_nodes(&self, filter: &Filter) -> Result<u64> {
        let filter = filter.clone();
        self.db.searches.run(move |connection| find::count(connection, &filter)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        if commit.writes.is_empty() && commit.idempotency.is_none() {
            return Ok(Committed::Done);
        }
        let prepared = commit::prepare(commit).await?;
        self.db.writer.run(prepared.rows(), move |batch| prepared.apply(batch)).await
    }

    async fn repeated(&self, key: &IdempotencyKey) -> Result<Option<Vec<ObjectId>>> {
        let (key, now) = (key.clone(), self.db.clock.now());
        self.db.quick.run(move |connection| commit::remembered(connection, &key, now)).await
    }

    async fn indexes(&self) -> Result<Vec<IndexStatus>> {
        self.db.quick.run(indexes::status).await
    }

    /// Refuses new work, finishes what was accepted, and moves the write-ahead log into the file. The directory can
    /// be opened again when this returns.
    async fn close(&self) {
        self.db.writer.close().await;
        self.db.quick.close();
        self.db.searches.close();
    }
}

impl From<rusqlite::Error> for Error {
    /// What the file system did to us is temporary (503), an interrupted query was too slow (504), the rest is a bug.
    fn from(error: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode::*;
        match error.sqlite_error_code() {
            Some(OperationInterrupted) => readers::too_slow(),
            Some(DatabaseBusy | DatabaseLocked | SystemIoFailure | DiskFull | CannotOpen | ReadOnly) => {
                Error::unavailable("store", error)
            }
            _ => Error::internal(error),
        }
    }
}
