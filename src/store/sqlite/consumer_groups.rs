//! Groups: what they know, beside their consumers.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::append::Batch;
use super::consumers::{named, next_id, read, room, select};
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::store::consumer_groups::{ConsumerGroups, KeptGroup, OpenedGroup};
use crate::store::consumers::{Consumer, Cursor, NewConsumer};

/// One row a group, with the number of its consumer, which it goes with.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS consumer_group (n INTEGER PRIMARY KEY, settings TEXT NOT NULL, state TEXT);
CREATE TRIGGER IF NOT EXISTS consumer_group_goes AFTER DELETE ON consumer
    BEGIN DELETE FROM consumer_group WHERE n = OLD.n; END;
";

#[async_trait]
impl ConsumerGroups for SqliteStore {
    async fn open_consumer_group(&self, new: &NewConsumer, settings: &str) -> Result<OpenedGroup> {
        let (new, settings) = (new.clone(), settings.to_owned());
        self.db.writer.run(2, move |batch| open(batch, &new, &settings)).await
    }

    async fn consumer_group(&self, id: u64) -> Result<Option<KeptGroup>> {
        // Not the wall clock: leases go by this one, see `KeptGroup::now`.
        let now = self.db.clock.now();
        let find = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(select!("WHERE id = ?"))?;
            let mut rows = statement.query([id as i64])?;
            let Some(consumer) = rows.next()?.map(read).transpose()? else { return Ok(None) };
            kept(connection, consumer, now)
        };
        self.db.quick.run(find).await
    }

    async fn move_consumer_group(&self, id: u64, turn: u64, cursor: &Cursor, state: &str) -> Result<bool> {
        let (cursor, state) = (cursor.clone(), state.to_owned());
        let change = move |batch: &mut Batch<'_>| {
            let sql = "UPDATE consumer SET epoch = ?, seq = ?, turn = turn + 1, last_poll = ?
                 WHERE id = ? AND turn = ? RETURNING n";
            let mut statement = batch.connection.prepare_cached(sql)?;
            let (seq, now) = (cursor.seq as i64, batch.now.millis());
            let params = params![cursor.epoch, seq, now, id as i64, turn as i64];
            let Some(n) = statement.query_row(params, |row| row.get::<_, i64>(0)).optional()? else {
                return Ok(false);
            };
            let sql = "UPDATE consumer_group SET state = ? WHERE n = ?";
            batch.connection.prepare_cached(sql)?.execute(params![state, n])?;
            Ok(true)
        };
        self.db.writer.run(1, change).await
    }
}

fn open(batch: &mut Batch<'_>, new: &NewConsumer, settings: &str) -> Result<OpenedGroup> {
    let connection = batch.connection;
    let name = new.name.as_deref().unwrap_or_default();
    let (known, stored) = named(connection, &new.owner, name)?;
    match known {
        Some(known) if known.channel != new.channel => return Ok(OpenedGroup::OtherChannel(known.channel)),
        Some(known) if known.group.is_none() => return Ok(OpenedGroup::NoGroup),
        Some(known) if known.id.is_some() => {}
        Some(_) => {
            let id = next_id(connection, batch.now)?;
            let sql = "UPDATE consumer SET id = ?, turn = turn + 1 WHERE name = ? RETURNING n";
            let n: i64 = connection.prepare_cached(sql)?.query_row(params![id, stored], |row| row.get(0))?;
            connection.prepare_cached("UPDATE consumer_group SET state = NULL WHERE n = ?")?.execute([n])?;
        }
        None => {
            if let Err(over) = room(connection, new)? {
                return Ok(OpenedGroup::Over(over));
            }
            let id = next_id(connection, batch.now)?;
            let user_id = new.owner.id.map(|id| id.to_hex());
            let sql = "INSERT INTO consumer (id, name, channel, user, user_id, promiscuous, epoch, seq, handed, turn, created)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?) RETURNING n";
            let (owner, cursor, now) = (&new.owner.name, &new.cursor, batch.now.millis());
            let (seq, all) = (cursor.seq as i64, new.promiscuous);
            let params = params![id, stored, new.channel, owner, user_id, all, cursor.epoch, seq, now];
            let n: i64 = connection.prepare_cached(sql)?.query_row(params, |row| row.get(0))?;
            let sql = "INSERT OR REPLACE INTO consumer_group (n, settings) VALUES (?, ?)";
            connection.prepare_cached(sql)?.execute(params![n, settings])?;
        }
    }
    let stands = named(connection, &new.owner, name)?
        .0
        .map(|consumer| kept(connection, consumer, batch.now))
        .transpose()?;
    let stands = stands.flatten();
    stands
        .map(|group| OpenedGroup::Open(Box::new(group)))
        .ok_or_else(|| Error::internal(anyhow::anyhow!("group {:?} was not written", new.name)))
}

fn kept(connection: &Connection, consumer: Consumer, now: Timestamp) -> Result<Option<KeptGroup>> {
    let Some(settings) = consumer.group.clone() else { return Ok(None) };
    let sql = "SELECT state FROM consumer_group WHERE n = (SELECT n FROM consumer WHERE name = ?)";
    let state = connection.prepare_cached(sql)?.query_row([&consumer.name], |row| row.get(0)).optional()?;
    Ok(Some(KeptGroup { consumer, settings, state: state.flatten(), now }))
}
