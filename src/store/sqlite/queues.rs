//! Queues.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::append::Batch;
use crate::error::Result;
use crate::model::ObjectId;
use crate::quota::{Over, Thing};
use crate::store::is_same_request;
use crate::store::queues::{
    Depth, KEY_SECONDS, Lease, Leased, MOST_BYTES, MOST_ITEMS, MOST_LISTS, NewItem, Pushed, Queues,
};

/// An item that is gone and had a key stays without `list` and `doc`. It is free while `until` is 0.
///
/// What is in a list is counted by triggers, in the transaction that changes it; and for each user (`owner`, who has pushed
/// it) what is in each list. Items of older files have no owner. (Files of version 2 have `UNIQUE (list, n)`,
/// which nothing needs.)
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS queue_item (n INTEGER PRIMARY KEY AUTOINCREMENT, list TEXT, doc TEXT, bytes INTEGER NOT NULL,
    key TEXT UNIQUE, until INTEGER NOT NULL, token TEXT, deliveries INTEGER NOT NULL, gone INTEGER, owner TEXT,
    fingerprint TEXT);
CREATE TABLE IF NOT EXISTS queue (list TEXT PRIMARY KEY, items INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS queue_item_comes AFTER INSERT ON queue_item WHEN NEW.list IS NOT NULL
    BEGIN
        INSERT INTO queue (list, items, bytes) VALUES (NEW.list, 1, NEW.bytes)
            ON CONFLICT (list) DO UPDATE SET items = items + 1, bytes = bytes + NEW.bytes;
    END;
CREATE TRIGGER IF NOT EXISTS queue_item_goes AFTER DELETE ON queue_item WHEN OLD.list IS NOT NULL
    BEGIN
        UPDATE queue SET items = items - 1, bytes = bytes - OLD.bytes WHERE list = OLD.list;
        DELETE FROM queue WHERE list = OLD.list AND items = 0;
    END;
CREATE TRIGGER IF NOT EXISTS queue_item_leaves AFTER UPDATE OF list ON queue_item WHEN OLD.list IS NOT NULL AND NEW.list IS NULL
    BEGIN
        UPDATE queue SET items = items - 1, bytes = bytes - OLD.bytes WHERE list = OLD.list;
        DELETE FROM queue WHERE list = OLD.list AND items = 0;
    END;
CREATE TABLE IF NOT EXISTS queue_share (user TEXT NOT NULL, list TEXT NOT NULL, items INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (user, list)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS queue_share_grows AFTER INSERT ON queue_item WHEN NEW.list IS NOT NULL AND NEW.owner IS NOT NULL
    BEGIN
        INSERT INTO queue_share (user, list, items, bytes) VALUES (NEW.owner, NEW.list, 1, NEW.bytes)
            ON CONFLICT (user, list) DO UPDATE SET items = items + 1, bytes = bytes + NEW.bytes;
    END;
CREATE TRIGGER IF NOT EXISTS queue_share_goes AFTER DELETE ON queue_item WHEN OLD.list IS NOT NULL AND OLD.owner IS NOT NULL
    BEGIN
        UPDATE queue_share SET items = items - 1, bytes = bytes - OLD.bytes WHERE user = OLD.owner AND list = OLD.list;
        DELETE FROM queue_share WHERE user = OLD.owner AND list = OLD.list AND items = 0;
    END;
CREATE TRIGGER IF NOT EXISTS queue_share_shrinks AFTER UPDATE OF list ON queue_item
    WHEN OLD.list IS NOT NULL AND NEW.list IS NULL AND OLD.owner IS NOT NULL
    BEGIN
        UPDATE queue_share SET items = items - 1, bytes = bytes - OLD.bytes WHERE user = OLD.owner AND list = OLD.list;
        DELETE FROM queue_share WHERE user = OLD.owner AND list = OLD.list AND items = 0;
    END;
";

/// Names and definitions of the indexes: the next item of a list, and what need not be remembered any more.
pub(super) const INDEXES: [(&str, &str, &str); 2] = [
    ("queue_item_by_until", "list, until", "(list, until)"),
    ("queue_item_by_gone", "gone", "(gone) WHERE gone IS NOT NULL"),
];

/// Counts what is in a file that had no triggers yet.
pub(super) fn count(connection: &Connection) -> Result<()> {
    let sql = "INSERT INTO queue (list, items, bytes)
         SELECT list, count(*), sum(bytes) FROM queue_item WHERE list IS NOT NULL GROUP BY list";
    Ok(connection.execute_batch(sql)?)
}

#[async_trait]
impl Queues for SqliteStore {
    async fn push_item(&self, item: &NewItem) -> Result<Pushed> {
        let item = item.clone();
        self.db.writer.run(1, move |batch| push(batch, &item)).await
    }

    async fn take_item(&self, list: &str, lease: Duration) -> Result<Option<Leased>> {
        let list = list.to_owned();
        // Most looks find nothing and need not wait for the writer.
        let (look, now) = (list.clone(), self.db.clock.now().millis());
        let has = move |connection: &Connection| {
            let sql = "SELECT 1 FROM queue_item WHERE list = ? AND until <= ? LIMIT 1";
            Ok(connection.prepare_cached(sql)?.exists(params![look, now])?)
        };
        if !self.db.quick.run(has).await? {
            return Ok(None);
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        self.db.writer.run(1, move |batch| take(batch, &list, &token, lease)).await
    }

    async fn remove_item(&self, lease: &Lease) -> Result<bool> {
        let lease = lease.clone();
        self.db.writer.run(1, move |batch| remove(batch, &lease)).await
    }

    async fn release_item(&self, lease: &Lease) -> Result<Option<String>> {
        let lease = lease.clone();
        let release = move |batch: &mut Batch<'_>| {
            let sql =
                "UPDATE queue_item SET until = 0, token = NULL WHERE n = ? AND token = ? RETURNING list";
            let mut statement = batch.connection.prepare_cached(sql)?;
            let list = statement.query_row(params![lease.item as i64, lease.token], |row| row.get(0));
            Ok(list.optional()?)
        };
        self.db.writer.run(1, release).await
    }

    async fn extend_item(&self, lease: &Lease, for_so_long: Duration) -> Result<bool> {
        let lease = lease.clone();
        let extend = move |batch: &mut Batch<'_>| {
            let sql = "UPDATE queue_item SET until = ? WHERE n = ? AND token = ?";
            let until = end_of_lease(batch.now.millis(), for_so_long);
            let params = params![until, lease.item as i64, lease.token];
            Ok(batch.connection.prepare_cached(sql)?.execute(params)? == 1)
        };
        self.db.writer.run(1, extend).await
    }

    async fn count_queues(&self, user: ObjectId) -> Result<(u64, u64)> {
        self.db.quick.run(move |connection| shared(connection, user)).await
    }

    async fn delete_items_of(&self, user: ObjectId) -> Result<()> {
        // A piece at a time: others write as well.
        let delete = move |batch: &mut Batch<'_>| {
            let sql = "DELETE FROM queue_item
                 WHERE n IN (SELECT n FROM queue_item WHERE owner = ? AND until <= ? LIMIT 1000)";
            let params = params![user.to_hex(), batch.now.millis()];
            Ok(batch.connection.prepare_cached(sql)?.execute(params)?)
        };
        while self.db.writer.run(1000, delete).await? == 1000 {}
        Ok(())
    }

    async fn queues(&self) -> Result<Vec<Depth>> {
        let list = |connection: &Connection| {
            let sql = "SELECT list, items, bytes FROM queue ORDER BY list";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                let (items, bytes): (i64, i64) = (row.get(1)?, row.get(2)?);
                Ok(Depth { list: row.get(0)?, items: items as u64, bytes: bytes as u64 })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        };
        self.db.quick.run(list).await
    }
}

/// What is in queues for a user: lists and bytes.
fn shared(connection: &Connection, user: ObjectId) -> Result<(u64, u64)> {
    let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM queue_share WHERE user = ?";
    let counted = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let (lists, bytes) = connection.prepare_cached(sql)?.query_row([user.to_hex()], counted)?;
    Ok((lists.unsigned_abs(), bytes.unsigned_abs()))
}

/// Whether who pushes the item may have it in the list.
fn room(connection: &Connection, item: &NewItem) -> Result<Result<(), Over>> {
    let Some(share) = &item.share else { return Ok(Ok(())) };
    let (lists, bytes) = shared(connection, share.user)?;
    let sql = "SELECT 1 FROM queue_share WHERE user = ? AND list = ?";
    let is_new = !connection.prepare_cached(sql)?.exists(params![share.user.to_hex(), item.list])?;
    let lists = share.room(Thing::Queues, lists, u64::from(is_new));
    Ok(lists.and_then(|()| share.room(Thing::QueuedBytes, bytes, item.json.len() as u64)))
}

fn push(batch: &Batch<'_>, item: &NewItem) -> Result<Pushed> {
    let connection = batch.connection;
    if let Some(key) = &item.key {
        let sql = "SELECT gone, fingerprint FROM queue_item WHERE key = ?";
        let known: Option<(Option<i64>, Option<String>)> = connection
            .prepare_cached(sql)?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match known {
            Some((Some(gone), _)) if gone < batch.now.plus_seconds(-KEY_SECONDS).millis() => {
                connection.prepare_cached("DELETE FROM queue_item WHERE key = ?")?.execute([key])?;
            }
            Some((_, fingerprint)) => {
                is_same_request(fingerprint.as_deref(), &item.fingerprint)?;
                return Ok(Pushed::Done);
            }
            None => {}
        }
    }
    let sql = "SELECT items, bytes FROM queue WHERE list = ?";
    let depth = connection.prepare_cached(sql)?.query_row([&item.list], |row| Ok((row.get(0)?, row.get(1)?)));
    let (items, bytes): (i64, i64) = depth.optional()?.unwrap_or_default();
    if items as u64 >= MOST_ITEMS || bytes as u64 + item.json.len() as u64 > MOST_BYTES {
        return Ok(Pushed::Full);
    }
    if items == 0 {
        let sql = "SELECT count(*) FROM queue";
        let lists: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        if lists as u64 >= MOST_LISTS {
            return Ok(Pushed::TooManyLists);
        }
    }
    if let Err(over) = room(connection, item)? {
        return Ok(Pushed::Over(over));
    }
    let sql = "INSERT INTO queue_item (list, doc, bytes, key, until, deliveries, owner, fingerprint) VALUES (?, ?, ?, ?, 0, 0, ?, ?)";
    let owner = item.share.map(|share| share.user.to_hex());
    let params = params![item.list, item.json, item.json.len() as i64, item.key, owner, item.fingerprint];
    connection.prepare_cached(sql)?.execute(params)?;
    Ok(Pushed::Done)
}

fn end_of_lease(now: i64, lease: Duration) -> i64 {
    now.saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX))
}

fn take(batch: &Batch<'_>, list: &str, token: &str, lease: Duration) -> Result<Option<Leased>> {
    let now = batch.now.millis();
    let until = end_of_lease(now, lease);
    // Overdue ones are free again, each once. Their takers may still settle them, until somebody else has them.
    let sql = "UPDATE queue_item SET until = 0 WHERE list = ? AND until > 0 AND until <= ?";
    batch.connection.prepare_cached(sql)?.execute(params![list, now])?;
    let sql = "UPDATE queue_item SET until = ?, token = ?, deliveries = deliveries + 1
         WHERE n = (SELECT n FROM queue_item WHERE list = ? AND until = 0 ORDER BY n LIMIT 1)
         RETURNING n, doc, deliveries";
    let mut statement = batch.connection.prepare_cached(sql)?;
    let taken = statement.query_row(params![until, token, list], |row| {
        let lease = Lease { item: row.get::<_, i64>(0)? as u64, token: token.to_owned() };
        Ok(Leased { lease, json: row.get(1)?, deliveries: row.get::<_, i64>(2)? as u64 })
    });
    Ok(taken.optional()?)
}

fn remove(batch: &Batch<'_>, lease: &Lease) -> Result<bool> {
    let connection = batch.connection;
    // One with a key is remembered.
    let empty = "UPDATE queue_item SET list = NULL, doc = NULL, bytes = 0, token = NULL, gone = ?
         WHERE n = ? AND token = ? AND key IS NOT NULL";
    let now = batch.now.millis();
    let kept = connection.prepare_cached(empty)?.execute(params![now, lease.item as i64, lease.token])?;
    let delete = "DELETE FROM queue_item WHERE n = ? AND token = ?";
    let gone = connection.prepare_cached(delete)?.execute(params![lease.item as i64, lease.token])?;
    Ok(kept + gone > 0)
}

/// Forgets up to `limit` keys whose day is over; whether there may be more.
pub(super) fn prune(batch: &Batch<'_>, limit: i64) -> Result<bool> {
    let sql = "DELETE FROM queue_item WHERE n IN (SELECT n FROM queue_item WHERE gone < ? LIMIT ?)";
    let oldest = batch.now.plus_seconds(-KEY_SECONDS).millis();
    Ok(batch.connection.prepare_cached(sql)?.execute(params![oldest, limit])? as i64 == limit)
}

#[cfg(test)]
mod tests;
