//! The file: its lock, its tables, its version, and how connections to it are set up.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::{
    Synchronous, channel_owners, consumer_groups, consumers, filter, groups, indexes, leases, queues,
    statement, telemetry, tokens, users,
};
use crate::error::{Error, Kind, Result};
use crate::kv::sqlite as kv;

/// The database, in the data directory.
pub(super) const FILE: &str = "kernelci.db";

/// Kept in `user_version`. Raise it with every change of the tables that an older program could not live with; new tables
/// need no more, anything else a migration in [`open`].
const VERSION: i64 = 3;

/// The tables of all parts of the store.
pub(super) const PARTS: &[&str] = &[
    TABLES,
    users::TABLES,
    groups::TABLES,
    tokens::TABLES,
    leases::TABLES,
    telemetry::TABLES,
    kv::TABLES,
    consumers::TABLES,
    consumer_groups::TABLES,
    queues::TABLES,
    channel_owners::TABLES,
];

/// Rows are keyed by small integers, because every index entry repeats the key. Nodes and events are JSONB, which
/// filters read several times faster than text.
///
/// `event.n` is `channel.number << 40 | seq`: a channel's events lie together, in order, and need no second index.
/// `event.time` is in milliseconds, `us` the microseconds within.
/// `event.clock` is the latest time (in milliseconds) up to there in the channel; it never decreases, so that places in time are found
/// by bisection and what retention removes is always a prefix.
/// `ended` has, by place, the highest sequence number and channel number of those that have ended: neither is given again.
/// The idempotency table is read by its key and pruned by rowid, which is the order in which it was written.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS node (n INTEGER PRIMARY KEY, revision INTEGER NOT NULL, doc BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS channel (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, head INTEGER NOT NULL DEFAULT 0,
    floor INTEGER NOT NULL DEFAULT 1, clock INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS ended (place INTEGER PRIMARY KEY, head INTEGER NOT NULL, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS event (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time INTEGER NOT NULL, clock INTEGER NOT NULL,
    doc BLOB NOT NULL, us INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS idempotency (n INTEGER PRIMARY KEY, user TEXT NOT NULL, method TEXT NOT NULL, key TEXT NOT NULL,
    at INTEGER NOT NULL, ids TEXT NOT NULL, fingerprint TEXT, UNIQUE (user, method, key));
";

/// Makes the directory if needed and takes it for this process, as long as the returned file is open.
///
/// The lock is on a file of its own: SQLite's locks on the database vanish when any other handle on it is closed.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let failed = |what: &str, error: std::io::Error| {
        Error::new(Kind::Unavailable, format!("cannot {what} the data directory {}: {error}", dir.display()))
    };
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    // Password hashes are in there.
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir).map_err(|error| failed("make", error))?;
    let file = File::create(dir.join("kernelci.lock")).map_err(|error| failed("write to", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            Kind::Unavailable,
            format!("the data directory {} is in use by another kernelci-live process", dir.display()),
        )),
        Err(TryLockError::Error(error)) => Err(failed("lock", error)),
    }
}

/// Opens the write connection, makes or checks tables and indexes, and reads the epoch. Everything that is in the file
/// now is on the disk when this returns, whatever `synchronous` says of what follows.
pub(super) fn open(path: &Path, synchronous: Synchronous) -> Result<(Connection, String)> {
    make_private(path)?;
    let mut connection = Connection::open(path)?;
    // Before anything else opens the file: switching to WAL needs it alone.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", Synchronous::Full.name())?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    tune(&connection)?;
    // The upper levels of all indexes, on which every write lands.
    connection.pragma_update(None, "cache_size", -64 * 1024)?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    match transaction.pragma_query_value(None, "user_version", |row| row.get(0))? {
        version @ 0..=VERSION => {
            ["queue_item", "kv"]
                .iter()
                .try_for_each(|table| add_column(&transaction, table, "owner", "TEXT"))?;
            add_column(&transaction, "idempotency", "fingerprint", "TEXT")?;
            add_column(&transaction, "queue_item", "fingerprint", "TEXT")?;
            add_column(&transaction, "consumer", "session", "TEXT")?;
            add_column(&transaction, "event", "us", "INTEGER NOT NULL DEFAULT 0")?;
            // Version 2 only added tables.
            PARTS.iter().try_for_each(|tables| transaction.execute_batch(tables))?;
            if version < 3 {
                queues::count(&transaction)?;
            }
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        other => {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "{} has schema version {other}, this program knows {VERSION}: use a newer kernelci-live",
                    path.display()
                ),
            ));
        }
    }
    indexes::ensure(&transaction)?;
    consumers::forget_offers(&transaction)?;
    let epoch = epoch(&transaction)?;
    begin_use(&transaction, synchronous)?;
    transaction.commit()?;
    connection.pragma_update(None, "synchronous", synchronous.name())?;
    Ok((connection, epoch))
}

/// Adds a column to the table of an older file, if it has it. Such a file stays of use to older programs: what they write
/// is nobody's and on the millisecond, and triggers count what they remove.
fn add_column(transaction: &Transaction<'_>, table: &str, column: &str, kind: &str) -> Result<()> {
    let columns = "SELECT count(*), sum(name = ?2) FROM pragma_table_info(?1)";
    let columns: (i64, Option<i64>) =
        transaction.query_row(columns, [table, column], |row| Ok((row.get(0)?, row.get(1)?)))?;
    match columns {
        (1.., Some(0)) => {
            Ok(transaction.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?)
        }
        (_, None | Some(_)) => Ok(()),
    }
}

/// Makes the file if there is none, readable by nobody else wherever the directory is: password hashes will be in there.
/// SQLite gives the files beside it the same rights.
fn make_private(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.write(true).create_new(true).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Error::new(Kind::Unavailable, format!("cannot make {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Opens a read connection to a file that [`open`] has made.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    // Not SQLITE_OPEN_READ_ONLY: a reader may have to make the shared-memory index of the write-ahead log.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    tune(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn tune(connection: &Connection) -> Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    connection.pragma_update(None, "mmap_size", 1_i64 << 30)?;
    connection.set_prepared_statement_cache_capacity(statement::MOST_KEPT);
    filter::register(connection)?;
    Ok(())
}

/// The name of this file's history. A new one if the machine may have taken acknowledged events with it: their numbers
/// will be given again, and whoever has seen them must not take the new ones for what follows.
fn epoch(transaction: &Transaction<'_>) -> Result<String> {
    if let Some(epoch) = meta(transaction, "epoch")? {
        if !may_have_lost_commits(meta(transaction, IN_USE)?.as_deref()) {
            return Ok(epoch);
        }
        tracing::warn!(
            "the machine stopped while SQLITE_SYNCHRONOUS was normal: the last writes may be lost, a new epoch begins"
        );
    }
    let epoch = uuid::Uuid::new_v4().simple().to_string();
    set_meta(transaction, "epoch", &epoch)?;
    Ok(epoch)
}

/// In `meta` from the start to the orderly end of a process: how it syncs, and the boot of the machine that it runs on.
const IN_USE: &str = "in_use";

/// Notes that the file is in use.
fn begin_use(transaction: &Transaction<'_>, synchronous: Synchronous) -> Result<()> {
    set_meta(transaction, IN_USE, &format!("{} {}", synchronous.name(), boot().unwrap_or_default()))
}

/// Notes that everything is in the file; the last thing before it is closed.
pub(super) fn end_use(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM meta WHERE key = ?", [IN_USE]).map(drop)
}

/// Writes something of this size, which fails when there is no room for it.
pub(super) fn try_room(connection: &Connection, bytes: u32) -> Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('room', zeroblob(?))", [bytes])?;
    Ok(())
}

/// Removes what [`try_room`] has written.
pub(super) fn give_room_back(connection: &Connection) -> Result<()> {
    connection.execute("DELETE FROM meta WHERE key = 'room'", [])?;
    Ok(())
}

/// Whether commits of a process that left this behind may be lost: it did not sync them, and the kernel that had them
/// in its page cache is not the one that runs now (or cannot be told from it).
fn may_have_lost_commits(in_use: Option<&str>) -> bool {
    let Some((synchronous, boot_then)) = in_use.and_then(|in_use| in_use.split_once(' ')) else {
        return false;
    };
    synchronous == Synchronous::Normal.name()
        && (boot_then.is_empty() || boot().as_deref() != Some(boot_then))
}

/// Which boot of which machine this is, where the kernel tells.
fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

fn meta(connection: &Connection, key: &str) -> Result<Option<String>> {
    let mut statement = connection.prepare("SELECT value FROM meta WHERE key = ?")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

fn set_meta(connection: &Connection, key: &str, value: &str) -> Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", params![key, value])?;
    Ok(())
}
