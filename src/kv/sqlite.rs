//! Keys and values in the store's file.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Kv, NewValue};
use crate::error::Result;
use crate::model::ObjectId;
use crate::quota::{Over, Share, Thing};
use crate::store::sqlite::{Batch, Database, count_of};

/// The tables. `owner` has set the value (nobody has in older files); what each has is counted by triggers.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS kv (namespace TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, owner TEXT,
    PRIMARY KEY (namespace, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kv_share (user TEXT PRIMARY KEY, keys INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS kv_share_grows AFTER INSERT ON kv WHEN NEW.owner IS NOT NULL
    BEGIN
        INSERT INTO kv_share (user, keys, bytes) VALUES (NEW.owner, 1, length(CAST(NEW.namespace || NEW.key || NEW.value AS BLOB)))
            ON CONFLICT (user) DO UPDATE SET keys = keys + 1, bytes = bytes + excluded.bytes;
    END;
CREATE TRIGGER IF NOT EXISTS kv_share_shrinks AFTER DELETE ON kv WHEN OLD.owner IS NOT NULL
    BEGIN
        UPDATE kv_share SET keys = keys - 1, bytes = bytes - length(CAST(OLD.namespace || OLD.key || OLD.value AS BLOB))
            WHERE user = OLD.owner;
        DELETE FROM kv_share WHERE user = OLD.owner AND keys = 0;
    END;
CREATE TRIGGER IF NOT EXISTS kv_share_changes AFTER UPDATE ON kv
    BEGIN
        INSERT INTO kv_share (user, keys, bytes)
            SELECT NEW.owner, 1, length(CAST(NEW.namespace || NEW.key || NEW.value AS BLOB)) WHERE NEW.owner IS NOT NULL
            ON CONFLICT (user) DO UPDATE SET keys = keys + 1, bytes = bytes + excluded.bytes;
        UPDATE kv_share SET keys = keys - 1, bytes = bytes - length(CAST(OLD.namespace || OLD.key || OLD.value AS BLOB))
            WHERE user = OLD.owner;
        DELETE FROM kv_share WHERE user = OLD.owner AND keys = 0;
    END;
";

/// Keys and values in a SQLite file.
pub struct SqliteKv {
    db: Arc<Database>,
}

impl SqliteKv {
    pub(crate) fn new(db: Arc<Database>) -> SqliteKv {
        SqliteKv { db }
    }
}

#[async_trait]
impl Kv for SqliteKv {
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<String>> {
        let names = [namespace.to_owned(), key.to_owned()];
        let read = move |connection: &Connection| {
            let sql = "SELECT value FROM kv WHERE namespace = ? AND key = ?";
            Ok(connection.prepare_cached(sql)?.query_row(names, |row| row.get(0)).optional()?)
        };
        self.db.quick.run(read).await
    }

    async fn set(&self, what: &NewValue<'_>, share: Option<&Share>) -> Result<Result<(), Over>> {
        let [namespace, key, value] = [what.namespace, what.key, what.value].map(str::to_owned);
        let share = share.copied();
        let write = move |batch: &mut Batch<'_>| {
            let connection = batch.connection;
            if let Some(share) = &share {
                let (keys, bytes) = shared(connection, share.user)?;
                let sql = "SELECT length(CAST(namespace || key || value AS BLOB)) FROM kv
                     WHERE namespace = ? AND key = ? AND owner = ?";
                let owner = share.user.to_hex();
                let had = connection
                    .prepare_cached(sql)?
                    .query_row(params![namespace, key, owner], count_of)
                    .optional()?;
                let size = (namespace.len() + key.len() + value.len()) as u64;
                let others = bytes.saturating_sub(had.unwrap_or(0));
                let room = share.room(Thing::Keys, keys, u64::from(had.is_none()));
                // What is used already is told with it.
                let room = room.and_then(|()| {
                    let over = share.room(Thing::KeyBytes, others, size);
                    over.map_err(|over| Over { used: bytes, ..over })
                });
                if room.is_err() {
                    return Ok(room);
                }
            }
            let sql = "INSERT INTO kv (namespace, key, value, owner) VALUES (?, ?, ?, ?)
                       ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, owner = excluded.owner";
            let owner = share.map(|share| share.user.to_hex());
            connection.prepare_cached(sql)?.execute(params![namespace, key, value, owner])?;
            Ok(Ok(()))
        };
        self.db.writer.run(1, write).await
    }

    async fn remove(&self, namespace: &str, key: &str) -> Result<()> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let write = move |batch: &mut Batch<'_>| {
            let sql = "DELETE FROM kv WHERE namespace = ? AND key = ?";
            batch.connection.prepare_cached(sql)?.execute(params![namespace, key])?;
            Ok(())
        };
        self.db.writer.run(1, write).await
    }

    async fn count(&self, user: ObjectId) -> Result<(u64, u64)> {
        self.db.quick.run(move |connection| shared(connection, user)).await
    }

    async fn remove_all_of(&self, user: ObjectId) -> Result<()> {
        // A piece at a time: others write as well.
        let remove = move |batch: &mut Batch<'_>| {
            let sql = "DELETE FROM kv WHERE (namespace, key) IN
                 (SELECT namespace, key FROM kv WHERE owner = ? LIMIT 1000)";
            Ok(batch.connection.prepare_cached(sql)?.execute([user.to_hex()])?)
        };
        while self.db.writer.run(1000, remove).await? == 1000 {}
        Ok(())
    }
}

/// Keys and bytes of a user.
fn shared(connection: &Connection, user: ObjectId) -> Result<(u64, u64)> {
    let sql = "SELECT keys, bytes FROM kv_share WHERE user = ?";
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let (keys, bytes) =
        connection.prepare_cached(sql)?.query_row([user.to_hex()], read).optional()?.unwrap_or_default();
    Ok((keys.unsigned_abs(), bytes.unsigned_abs()))
}
