//! Consumers.

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::SqliteStore;
use super::append::Batch;
use super::users::count_of;
use crate::error::{Error, Result};
use crate::model::{ObjectId, Timestamp};
use crate::quota::{Over, Thing};
use crate::store::consumers::{
    self, Consumer, ConsumerKey, Consumers, Cursor, MOST_RESERVED, NewConsumer, Opened, Owner, Reserved,
};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS consumer (n INTEGER PRIMARY KEY, id INTEGER UNIQUE, name TEXT UNIQUE, channel TEXT NOT NULL,
    user TEXT NOT NULL, user_id TEXT, promiscuous INTEGER NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
    offered INTEGER, handed INTEGER NOT NULL, turn INTEGER NOT NULL, created INTEGER NOT NULL, last_poll INTEGER,
    session TEXT);
CREATE TABLE IF NOT EXISTS reserved_consumer (name TEXT PRIMARY KEY, user TEXT NOT NULL) WITHOUT ROWID;
";

/// At the start: whoever was to say what became of an offered event has died with the process. It is offered again.
pub(super) fn forget_offers(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE consumer SET offered = NULL WHERE offered IS NOT NULL AND handed = 0", [])?;
    Ok(())
}

/// When a consumer was used last: one that is read for notes that every few seconds.
pub(super) fn last_use(connection: &Connection) -> Result<Option<Timestamp>> {
    let last = "SELECT max(last_poll) FROM consumer";
    let last: Option<i64> = connection.query_row(last, [], |row| row.get(0))?;
    Ok(last.map(Timestamp::from_millis))
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
            ConsumerKey::Name(name) => (select!("WHERE name = ?"), Value::Text(name.to_owned())),
            ConsumerKey::Own(owner, name) => {
                let (owner, name) = (owner.clone(), name.to_owned());
                let find = move |connection: &Connection| Ok(named(connection, &owner, &name)?.0);
                return self.db.quick.run(find).await;
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
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let list = move |connection: &Connection| {
            let (sql, params) = match &user {
                None => (select!("ORDER BY n LIMIT ?1"), vec![limit.into()]),
                // Only very old ones have no id.
                Some(Owner { id, name }) => {
                    let id = id.map(ObjectId::to_hex);
                    let sql =
                        select!("WHERE user_id = ?2 OR user_id IS NULL AND user = ?3 ORDER BY n LIMIT ?1");
                    (sql, vec![Value::from(limit), id.into(), name.clone().into()])
                }
            };
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params_from_iter(params))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(read(row)?);
            }
            Ok(found)
        };
        self.db.quick.run(list).await
    }

    async fn count_consumers(&self, user: ObjectId) -> Result<(u64, u64)> {
        let count = move |connection: &Connection| {
            Ok((count(connection, user, true)?, count(connection, user, false)?))
        };
        self.db.quick.run(count).await
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

    async fn delete_consumers_of(&self, user: &Owner) -> Result<()> {
        let Owner { id, name } = user.clone();
        let change = move |batch: &mut Batch<'_>| {
            let id = id.map(ObjectId::to_hex);
            let sql = "DELETE FROM consumer WHERE user_id = ?1 OR user_id IS NULL AND user = ?2";
            batch.connection.prepare_cached(sql)?.execute(params![id, name])?;
            batch.connection.prepare_cached("DELETE FROM reserved_consumer WHERE user = ?")?.execute([id])?;
            Ok(())
        };
        self.db.writer.run(10, change).await
    }

    async fn reserve_consumer(&self, name: &str, user: Option<ObjectId>) -> Result<Reserved> {
        let name = name.to_owned();
        self.db.writer.run(1, move |batch| reserve(batch.connection, &name, user)).await
    }

    async fn reserved_consumers(&self) -> Result<Vec<(String, ObjectId)>> {
        let list = |connection: &Connection| {
            let sql = "SELECT name, user FROM reserved_consumer ORDER BY name";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
            let all: Vec<(String, String)> = rows.collect::<rusqlite::Result<_>>()?;
            Ok(all.into_iter().filter_map(|(name, user)| Some((name, user.parse().ok()?))).collect())
        };
        self.db.quick.run(list).await
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
    let (found, stored) = match &new.name {
        None => (None, None),
        Some(name) => {
            let (found, stored) = named(connection, &new.owner, name)?;
            (found, Some(stored))
        }
    };
    if let Some(found) = &found {
        if found.channel != new.channel {
            return Ok(Opened::OtherChannel(found.channel.clone()));
        }
        if found.group.is_some() {
            return Ok(Opened::Group);
        }
    } else if let Err(over) = room(connection, new)? {
        return Ok(Opened::Over(over));
    }
    let id = next_id(connection, batch.now)?;
    let user_id = new.owner.id.map(|id| id.to_hex());
    let taken_over = match &found {
        Some(found) => {
            let sql = "UPDATE consumer SET id = ?, user = ?, user_id = ?, promiscuous = ?, offered = NULL, handed = 0,
                 turn = turn + 1, last_poll = ?, session = ? WHERE name = ?";
            let now = batch.now.millis();
            let params = params![id, new.owner.name, user_id, new.promiscuous, now, new.session, stored];
            connection.prepare_cached(sql)?.execute(params)?;
            found.id
        }
        None => {
            let sql = "INSERT INTO consumer (id, name, channel, user, user_id, promiscuous, epoch, seq, handed, turn, created, session)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)";
            let (cursor, now) = (&new.cursor, batch.now.millis());
            let params = params![
                id,
                stored,
                new.channel,
                new.owner.name,
                user_id,
                new.promiscuous,
                cursor.epoch,
                cursor.seq as i64,
                now,
                new.session
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

/// The owner's consumer of this name, and what it is stored as, or would be.
pub(super) fn named(
    connection: &Connection,
    owner: &Owner,
    name: &str,
) -> Result<(Option<Consumer>, String)> {
    let apart = owner.apart(name);
    let mut statement = connection.prepare_cached(select!("WHERE name IN (?, ?)"))?;
    let mut rows = statement.query([name, &apart])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    let is_taken = found.iter().any(|one| one.name.as_deref() == Some(name));
    if let Some(own) = consumers::own(found, owner, name) {
        let stored = own.name.clone().unwrap_or_default();
        return Ok((Some(own), stored));
    }
    let sql = "SELECT 1 FROM reserved_consumer WHERE name = ? AND user IS NOT ?";
    let id = owner.id.map(ObjectId::to_hex);
    let is_free = !is_taken && !connection.prepare_cached(sql)?.exists(params![name, id])?;
    Ok((None, if is_free { name.to_owned() } else { apart }))
}

/// Whether the owner may have one more.
pub(super) fn room(connection: &Connection, new: &NewConsumer) -> Result<Result<(), Over>> {
    let Some(share) = &new.share else { return Ok(Ok(())) };
    let thing = if new.name.is_some() { Thing::Consumers } else { Thing::UnnamedConsumers };
    Ok(share.room(thing, count(connection, share.user, new.name.is_some())?, 1))
}

fn count(connection: &Connection, user: ObjectId, is_named: bool) -> Result<u64> {
    let sql = match is_named {
        true => "SELECT count(*) FROM consumer WHERE user_id = ? AND name IS NOT NULL",
        false => "SELECT count(*) FROM consumer WHERE user_id = ? AND name IS NULL",
    };
    Ok(connection.prepare_cached(sql)?.query_row([user.to_hex()], count_of)?)
}

fn reserve(connection: &Connection, name: &str, user: Option<ObjectId>) -> Result<Reserved> {
    let Some(user) = user else {
        connection.prepare_cached("DELETE FROM reserved_consumer WHERE name = ?")?.execute([name])?;
        return Ok(Reserved::Done);
    };
    let mut statement = connection.prepare_cached(select!("WHERE name = ?"))?;
    let holder = statement.query([name])?.next()?.map(read).transpose()?.map(|holder| holder.owner);
    if let Some(holder) = holder.filter(|holder| holder.id != Some(user)) {
        return Ok(Reserved::Taken(holder));
    }
    let sql = "SELECT count(*) FROM reserved_consumer WHERE name <> ?";
    if connection.prepare_cached(sql)?.query_row([name], count_of)? >= MOST_RESERVED {
        return Ok(Reserved::TooMany);
    }
    let sql = "INSERT OR REPLACE INTO reserved_consumer (name, user) VALUES (?, ?)";
    connection.prepare_cached(sql)?.execute(params![name, user.to_hex()])?;
    Ok(Reserved::Done)
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
        session: row.get("session")?,
    })
}
