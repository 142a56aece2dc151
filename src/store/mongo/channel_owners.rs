//! Whose channels are: collection `channelowner`, `{_id: channel, user, at}`. What has ended is removed where channels
//! end (`event_log/redis/ends.rs`).

use async_trait::async_trait;
use bson::doc;

use super::MongoStore;
use super::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use super::stored::Stored;
use crate::error::Result;
use crate::model::ObjectId;
use crate::quota::{Over, Share, Thing};
use crate::store::ChannelOwners;

/// The collection.
pub(crate) const COLLECTION: &str = "channelowner";

#[async_trait]
impl ChannelOwners for MongoStore {
    async fn claim_channel(&self, channel: &str, share: &Share) -> Result<Result<(), Over>> {
        let owners = self.db.collection::<Stored>(COLLECTION);
        let this = doc! {"_id": channel};
        if call(owners.find_one(this.clone()).max_time(QUERY_TIME)).await?.is_some() {
            return Ok(Ok(()));
        }
        let lane = self.lanes.of(share.user).await;
        let room = share.room(Thing::Channels, self.count_channels(share.user).await?, 1);
        if room.is_err() {
            return Ok(room);
        }
        let claim = Stored(doc! {"_id": channel, "user": share.user, "at": bson::DateTime::now()});
        let claimed = match errors::raw(owners.insert_one(claim)).await {
            Err(error) if !is_duplicate(&error) => Err(errors::translate(error)),
            _ => Ok(Ok(())),
        };
        drop(lane);
        claimed
    }

    async fn channel_owner(&self, channel: &str) -> Result<Option<ObjectId>> {
        let owners = self.db.collection::<Stored>(COLLECTION);
        let found = call(owners.find_one(doc! {"_id": channel}).max_time(QUERY_TIME)).await?;
        Ok(found.and_then(|found| found.get_object_id("user").ok()))
    }

    async fn count_channels(&self, user: ObjectId) -> Result<u64> {
        let owners = self.db.collection::<Stored>(COLLECTION);
        call(owners.count_documents(doc! {"user": user}).max_time(QUERY_TIME)).await
    }

    async fn release_channels(&self, user: ObjectId) -> Result<()> {
        let owners = self.db.collection::<Stored>(COLLECTION);
        call_on(&owners, owners.delete_many(doc! {"user": user})).await.map(drop)
    }
}
