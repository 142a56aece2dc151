//! Groups: two more fields in the document of their consumer, `group` (what it was made with) and `group_state`.

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures::TryStreamExt;

use super::consumers::{Added, Named, TRIES, broken, document, place, read, subscription};
use super::errors::{QUERY_TIME, call, call_on};
use super::{MongoStore, counter};
use crate::error::{Error, Result};
use crate::event_log::redis::history::number;
use crate::model::Timestamp;
use crate::store::consumer_groups::{ConsumerGroups, KeptGroup, OpenedGroup};
use crate::store::consumers::{Cursor, NewConsumer};

#[async_trait]
impl ConsumerGroups for MongoStore {
    async fn open_consumer_group(&self, new: &NewConsumer, settings: &str) -> Result<OpenedGroup> {
        let name = new.name.as_deref().unwrap_or_default();
        for _ in 0..TRIES {
            let found = match self.consumer_of(&new.owner, name).await? {
                Named::There(found) => found,
                Named::Free(stored) => {
                    let id = counter::next(self, "subscription").await?;
                    let mut document = document(id, stored.into(), new);
                    document.extend(doc! {"group": settings, "group_state": Bson::Null});
                    match self.add_consumer(new, &document).await? {
                        Added::Over(over) => return Ok(OpenedGroup::Over(over)),
                        Added::Done | Added::Taken => continue,
                    }
                }
            };
            let consumer = read(&found).ok_or_else(broken)?;
            if consumer.channel != new.channel {
                return Ok(OpenedGroup::OtherChannel(consumer.channel));
            }
            if consumer.group.is_none() {
                return Ok(OpenedGroup::NoGroup);
            }
            if consumer.id.is_some() {
                let kept = kept(&found).ok_or_else(broken)?;
                return Ok(OpenedGroup::Open(Box::new(kept)));
            }
            let id = counter::next(self, "subscription").await?;
            let query = doc! {"_id": found.get("_id"), "turn": number(consumer.turn), "id": Bson::Null};
            let update = doc! {"$set": {"id": id, "group_state": Bson::Null}, "$inc": {"turn": 1_i64}};
            call_on(&self.consumers, self.consumers.update_one(query, update)).await?;
        }
        Err(Error::unavailable("store", anyhow::anyhow!("consumer {name} keeps changing")))
    }

    async fn consumer_group(&self, id: u64) -> Result<Option<KeptGroup>> {
        Ok(self.with_clock(subscription(id)).await?.first().and_then(kept))
    }

    async fn move_consumer_group(&self, id: u64, turn: u64, cursor: &Cursor, state: &str) -> Result<bool> {
        let mut query = subscription(id);
        query.insert("turn", number(turn));
        let mut set = place(cursor);
        set.insert("group_state", state);
        let update = doc! {"$set": set, "$inc": {"turn": 1_i64}, "$currentDate": {"last_poll": true}};
        // On the disks of a majority: whoever was given an event must be known to all, whatever happens.
        Ok(call_on(&self.consumers, self.consumers.update_one(query, update)).await?.matched_count > 0)
    }
}

impl MongoStore {
    /// The consumers that this finds, with the server's time as `now`.
    pub(super) async fn with_clock(&self, query: Document) -> Result<Vec<Document>> {
        let pipeline = [doc! {"$match": query}, doc! {"$addFields": {"now": "$$NOW"}}];
        let find = self.consumers.aggregate(pipeline).max_time(QUERY_TIME);
        call(async { find.await?.try_collect().await }).await
    }
}

fn kept(document: &Document) -> Option<KeptGroup> {
    let consumer = read(document)?;
    let now = match document.get("now") {
        Some(Bson::DateTime(now)) => Timestamp::from_millis(now.timestamp_millis()),
        _ => Timestamp::now(),
    };
    let settings = consumer.group.clone()?;
    Some(KeptGroup {
        consumer,
        settings,
        state: document.get_str("group_state").ok().map(str::to_owned),
        now,
    })
}
