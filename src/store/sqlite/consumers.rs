//! Consumers.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::append::Batch;
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::store::consumers::{Consumer, ConsumerKey, Consumers, Cursor, NewConsumer, Opened, Owner};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS consumer (n INTEGER PRIMARY KEY, id INTEGER UNIQUE, name TEXT UNIQUE, channel TEXT NOT NULL,
    user TEXT NOT NULL, user_id TEXT, promiscuous INTEGER NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
    offered INTEGER, handed INTEGER NOT NULL, turn INTEGER NOT NULL, created INTEGER NOT NULL, last_poll INTEGER);
";

/// At the start: whoever was to say what became of an offered event has died with the process. It is offered again.
pub(super) fn forget_offers(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE consumer SET offered = NULL WHERE offered IS NOT NULL AND handed = 0", [])?;
    Ok(())
}

/// A consumer's columns, for [`read`].
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT consumer.*, (SELECT settings FROM consumer_group WHERE n = consumer.n) AS settings FROM consumer ",
            $rest
        )
    };
}
pub(super) use select;

#[async_trait]
impl Consumers for SqliteStore {
    async fn open_consumer(&self, new: &NewConsumer) -> Result<Opened> {
        let new = new.clone();
        self.db.writer.run(2, move |batch| open(batch, &new)).await
    }

    async fn consumer(&self, key: ConsumerKey<'_>) -> Result<Option<Consumer>> {
        let (by, value) = match key {
            ConsumerKey::Id(id) => (select!("WHERE id = ?"), (id as i64).into()),
            ConsumerKey::Name(name) => {
                (select!("WHERE name = ?"), rusqlite::types::Value::Text(name.to_owned()))
            }
        };
        let find = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(by)?;
            let mut rows = statement.query([value])?;
            rows.next()?.map(read).transpose()
        };
        self.db.quick.run(find).await
    }

    async fn consumers(&self, user: Option<&Owner>, limit: usize) -> Result<Vec<Consumer>> {
        let user = user.cloned();
        let list = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(select!("ORDER BY n"))?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while found.len() < limit
                && let Some(row) = rows.next()?
            {
                let consumer = read(row)?;
                if user.as_ref().is_none_or(|user| consumer.owner.is(user)) {
                    found.push(consumer);
                }
            }
            Ok(found)
        };
        self.db.quick.run(list).await
    }

    async fn move_consumer(&self, id: u64, turn: u64, cursor: &Cursor) -> Result<bool> {
        let cursor = cursor.clone();
        let change = move |batch: &mut Batch<'_>| {
            let sql = "UPDATE consumer SET epoch = ?, seq = ?, offered = ?, handed = ?, turn = turn + 1, last_poll = ?
                 WHERE id = ? AND turn = ?";
            let offered = cursor.offered.map(|seq| seq as i64);
            let (seq, now) = (cursor.seq as i64, batch.now.millis());
            let params = params![cursor.epoch, seq, offered, cursor.handed, now, id as i64, turn as i64];
            Ok(batch.connection.prepare_cached(sql)?.execute(params)? == 1)
        };
        self.db.writer.run(1, change).await
    }

    async fn settle_consumer(&self, id: u64, turn: u64, handed: bool) -> Result<()> {
        let sql = match handed {
            true => "UPDATE consumer SET handed = 1 WHERE id = ? AND turn = ? AND offered IS NOT NULL",
            false => "UPDATE consumer SET offered = NULL WHERE id = ? AND turn = ? AND NOT handed",
        };
        let change = move |batch: &mut Batch<'_>| {
            batch.connection.prepare_cached(sql)?.execute(params![id as i64, turn as i64])?;
            Ok(())
        };
        self.db.writer.run(1, change).await
    }

    async fn ack_consumer(&self, id: u64, epoch: &str, seq: u64) -> Result<bool> {
        let epoch = epoch.to_owned();
        let change = move |batch: &mut Batch<'_>| {
            let sql = "UPDATE consumer SET epoch = ?, seq = max(seq, ?), last_poll = ? WHERE id = ?";
            let params = params![epoch, seq as i64, batch.now.millis(), id as i64];
            Ok(batch.connection.prepare_cached(sql)?.execute(params)? == 1)
        };
        self.db.writer.run(1, change).await
    }

    async fn touch_consumer(&self, id: u64) -> Result<bool> {
        let change = move |batch: &mut Batch<'_>| {
            let sql = "UPDATE consumer SET last_poll = ? WHERE id = ?";
            Ok(batch.connection.prepare_cached(sql)?.execute(params![batch.now.millis(), id as i64])? == 1)
        };
        self.db.writer.run(1, change).await
    }

    async fn close_consumer(&self, id: u64) -> Result<bool> {
        let change = move |batch: &mut Batch<'_>| {
            let keep = "UPDATE consumer SET id = NULL, offered = NULL, handed = 0, turn = turn + 1
                 WHERE id = ? AND name IS NOT NULL";
            let remove = "DELETE FROM consumer WHERE id = ?";
            let kept = batch.connection.prepare_cached(keep)?.execute([id as i64])?;
            let removed = batch.connection.prepare_cached(remove)?.execute([id as i64])?;
            Ok(kept + removed > 0)
        };
        self.db.writer.run(1, change).await
    }

    async fn seek_consumer(&self, name: &str, cursor: &Cursor) -> Result<bool> {
        let (name, cursor) = (name.to_owned(), cursor.clone());
        let change = move |batch: &mut Batch<'_>| {
            let sql = "UPDATE consumer SET id = NULL, epoch = ?, seq = ?, offered = NULL, handed = 0, turn = turn + 1
                 WHERE name = ?";
            let params = params![cursor.epoch, cursor.seq as i64, name];
            Ok(batch.connection.prepare_cached(sql)?.execute(params)? == 1)
        };
        self.db.writer.run(1, change).await
    }

    async fn delete_consumer(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        let change = move |batch: &mut Batch<'_>| {
            let sql = "DELETE FROM consumer WHERE name = ?";
            Ok(batch.connection.prepare_cached(sql)?.execute([&name])? == 1)
        };
        self.db.writer.run(1, change).await
    }

    async fn expire_consumers(&self, unnamed_after: u64, named_after: u64) -> Result<(u64, u64)> {
        let change = move |batch: &mut Batch<'_>| {
            let remove = |sql: &str, after: u64| -> Result<u64> {
                let after = i64::try_from(after).unwrap_or(i64::MAX);
                let before = batch.now.plus_seconds(after.saturating_neg()).millis();
                Ok(batch.connection.prepare_cached(sql)?.execute([before])? as u64)
            };
            let unnamed = "DELETE FROM consumer WHERE name IS NULL AND coalesce(last_poll, created) < ?";
            let named = "DELETE FROM consumer WHERE name IS NOT NULL AND coalesce(last_poll, created) < ?";
            Ok((remove(unnamed, unnamed_after)?, remove(named, named_after)?))
        };
        self.db.writer.run(10, change).await
    }
}

fn open(batch: &mut Batch<'_>, new: &NewConsumer) -> Result<Opened> {
    let connection = batch.connection;
    let found = match &new.name {
        None => None,
        Some(name) => {
            let mut statement = connection.prepare_cached(select!("WHERE name = ?"))?;
            let mut rows = statement.query([name])?;
            rows.next()?.map(read).transpose()?
        }
    };
    if let Some(found) = &found {
        if !found.owner.is(&new.owner) {
            return Ok(Opened::Foreign);
        }
        if found.channel != new.channel {
            return Ok(Opened::OtherChannel(found.channel.clone()));
        }
        if found.group.is_some() {
            return Ok(Opened::Group);
        }
    }
    let id = next_id(connection, batch.now)?;
    let user_id = new.owner.id.map(|id| id.to_hex());
    let taken_over = match &found {
        Some(found) => {
            let sql = "UPDATE consumer SET id = ?, user = ?, user_id = ?, promiscuous = ?, offered = NULL, handed = 0,
                 turn = turn + 1, last_poll = ? WHERE name = ?";
            let now = batch.now.millis();
            let params = params![id, new.owner.name, user_id, new.promiscuous, now, new.name];
            connection.prepare_cached(sql)?.execute(params)?;
            found.id
        }
        None => {
            let sql = "INSERT INTO consumer (id, name, channel, user, user_id, promiscuous, epoch, seq, handed, turn, created)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?)";
            let (cursor, now) = (&new.cursor, batch.now.millis());
            let params = params![
                id,
                new.name,
                new.channel,
                new.owner.name,
                user_id,
                new.promiscuous,
                cursor.epoch,
                cursor.seq as i64,
                now
            ];
            connection.prepare_cached(sql)?.execute(params)?;
            None
        }
    };
    let mut statement = connection.prepare_cached(select!("WHERE id = ?"))?;
    let mut rows = statement.query([id])?;
    let consumer = rows.next()?.map(read).transpose()?;
    let consumer =
        consumer.ok_or_else(|| Error::internal(anyhow::anyhow!("consumer {id} was not written")))?;
    Ok(Opened::Open { consumer: Box::new(consumer), taken_over })
}

/// Numbers begin at the time of the first one, so that those of an earlier database or server are not given again.
pub(super) fn next_id(connection: &Connection, now: Timestamp) -> Result<i64> {
    let last = connection
        .prepare_cached("SELECT value FROM meta WHERE key = 'consumer'")?
        .query_row([], |row| row.get::<_, String>(0))
        .optional()?;
    let last = last.and_then(|text| text.parse().ok()).unwrap_or(now.millis() / 1000);
    let next: i64 = last + 1;
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('consumer', ?)")?
        .execute([next.to_string()])?;
    Ok(next)
}

pub(super) fn read(row: &Row<'_>) -> Result<Consumer> {
    let number =
        |name: &str| row.get::<_, Option<i64>>(name).map(|number| number.map(|number| number as u64));
    let user_id = row.get::<_, Option<String>>("user_id")?;
    Ok(Consumer {
        id: number("id")?,
        name: row.get("name")?,
        channel: row.get("channel")?,
        owner: Owner { id: user_id.and_then(|id| id.parse().ok()), name: row.get("user")? },
        promiscuous: row.get("promiscuous")?,
        cursor: Cursor {
            epoch: row.get("epoch")?,
            seq: number("seq")?.unwrap_or_default(),
            offered: number("offered")?,
            handed: row.get("handed")?,
        },
        turn: number("turn")?.unwrap_or_default(),
        created: Timestamp::from_millis(row.get("created")?),
        last_poll: row.get::<_, Option<i64>>("last_poll")?.map(Timestamp::from_millis),
        group: row.get("settings")?,
    })
}
