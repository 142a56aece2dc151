//! Whose channels are.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::append::Batch;
use super::users::count_of;
use crate::error::{Error, Result};
use crate::model::{ObjectId, Timestamp};
use crate::quota::{Over, Share, Thing};
use crate::store::ChannelOwners;

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS channel_owner (channel TEXT PRIMARY KEY, user TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS channel_owner_goes AFTER DELETE ON channel
    BEGIN DELETE FROM channel_owner WHERE channel = OLD.name; END;
";

#[async_trait]
impl ChannelOwners for SqliteStore {
    async fn claim_channel(&self, channel: &str, share: &Share) -> Result<Result<(), Over>> {
        let (channel, share) = (channel.to_owned(), *share);
        let claim = move |batch: &mut Batch<'_>| {
            let connection = batch.connection;
            let known = "SELECT 1 FROM channel WHERE name = ?1 UNION ALL SELECT 1 FROM channel_owner WHERE channel = ?1";
            if connection.prepare_cached(known)?.exists([&channel])? {
                return Ok(Ok(()));
            }
            let room = share.room(Thing::Channels, count(connection, share.user)?, 1);
            if room.is_ok() {
                let sql = "INSERT INTO channel_owner (channel, user, at) VALUES (?, ?, ?)";
                let params = params![channel, share.user.to_hex(), batch.now.millis()];
                connection.prepare_cached(sql)?.execute(params)?;
            }
            Ok(room)
        };
        self.db.writer.run(1, claim).await
    }

    async fn channel_owner(&self, channel: &str) -> Result<Option<ObjectId>> {
        let channel = channel.to_owned();
        let look = move |connection: &Connection| {
            let sql = "SELECT user FROM channel_owner WHERE channel = ?";
            let find = connection.prepare_cached(sql)?.query_row([&channel], |row| row.get::<_, String>(0));
            find.optional()?.map(|id| id.parse().map_err(Error::internal)).transpose()
        };
        self.db.quick.run(look).await
    }

    async fn count_channels(&self, user: ObjectId) -> Result<u64> {
        self.db.quick.run(move |connection| count(connection, user)).await
    }

    async fn release_channels(&self, user: ObjectId) -> Result<()> {
        let release = move |batch: &mut Batch<'_>| {
            let sql = "DELETE FROM channel_owner WHERE user = ?";
            batch.connection.prepare_cached(sql)?.execute([user.to_hex()])?;
            Ok(())
        };
        self.db.writer.run(10, release).await
    }
}

fn count(connection: &Connection, user: ObjectId) -> Result<u64> {
    let sql = "SELECT count(*) FROM channel_owner WHERE user = ?";
    Ok(connection.prepare_cached(sql)?.query_row([user.to_hex()], count_of)?)
}

/// Removes claims that nothing came of.
pub(super) fn prune(batch: &Batch<'_>, before: Timestamp) -> Result<()> {
    let sql = "DELETE FROM channel_owner
         WHERE at < ? AND NOT EXISTS (SELECT 1 FROM channel WHERE channel.name = channel_owner.channel)";
    batch.connection.prepare_cached(sql)?.execute([before.millis()])?;
    Ok(())
}
