//! Queues: collection `queueitem`, `{_id: number, list, event: JSON text, bytes, key?, until, token?, deliveries}`. An
//! item that is gone and had a key stays without `list` and `event` until `gone` is a day old.
//!
//! An item is free while `until` is 0. Leases are timed by the clock of the database, which is the same for all instances.

pub(super) mod depth;

use std::time::Duration;

use async_trait::async_trait;
use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::options::ReturnDocument;

use super::document::integer;
use super::errors::{self, QUERY_TIME, call, is_duplicate};
use super::stored::Stored;
use super::{MongoStore, counter};
use crate::error::{Error, Result};
use crate::store::queues::{Depth, Lease, Leased, NewItem, Pushed, Queues};

/// `until` of an item that nobody has.
const FREE: bson::DateTime = bson::DateTime::from_millis(0);

#[async_trait]
impl Queues for MongoStore {
    async fn push_item(&self, item: &NewItem) -> Result<Pushed> {
        if let Some(key) = &item.key
            && call(self.items.find_one(doc! {"key": key}).projection(doc! {"_id": 1})).await?.is_some()
        {
            return Ok(Pushed::Done);
        }
        let bytes = item.json.len() as i64;
        let counted = depth::add(self, &item.list, bytes.unsigned_abs());
        let number = match tokio::try_join!(counter::next(self, "queueitem"), counted)? {
            (number, None) => number,
            (_, Some(refused)) => return Ok(refused),
        };
        let mut document = doc! {
            "_id": number,
            "list": &item.list,
            "event": &item.json,
            "bytes": bytes,
            "until": FREE,
            "deliveries": 0_i64,
        };
        if let Some(key) = &item.key {
            document.insert("key", key);
        }
        match errors::raw(self.items.insert_one(Stored(document))).await {
            Ok(_) => Ok(Pushed::Done),
            // The same push on another connection was first.
            Err(error) if is_duplicate(&error) && item.key.is_some() => {
                depth::remove(self, &item.list, bytes).await?;
                Ok(Pushed::Done)
            }
            Err(error) => Err(errors::translate(error)),
        }
    }

    async fn take_item(&self, list: &str, lease: Duration) -> Result<Option<Leased>> {
        self.free_overdue(list).await?;
        let token = uuid::Uuid::new_v4().simple().to_string();
        let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let free = doc! {"list": list, "until": FREE};
        let update = vec![doc! {"$set": {
            "until": {"$add": ["$$NOW", lease_ms]},
            "token": &token,
            "deliveries": {"$add": ["$deliveries", 1_i64]},
        }}];
        let take = self.items.find_one_and_update(free, update).sort(doc! {"_id": 1});
        let taken = call(take.return_document(ReturnDocument::After).max_time(QUERY_TIME)).await?;
        let Some(taken) = taken else { return Ok(None) };
        let number = |key| taken.get(key).and_then(integer).and_then(|n| u64::try_from(n).ok());
        let broken = || Error::internal(anyhow::anyhow!("an item of list {list} cannot be read"));
        Ok(Some(Leased {
            lease: Lease { item: number("_id").ok_or_else(broken)?, token },
            json: taken.get_str("event").map_err(|_| broken())?.to_owned(),
            deliveries: number("deliveries").unwrap_or(1),
        }))
    }

    async fn remove_item(&self, lease: &Lease) -> Result<bool> {
        let mut keyed = held(lease);
        keyed.insert("key", doc! {"$exists": true});
        let empty = vec![
            doc! {"$set": {"gone": "$$NOW", "bytes": 0_i64}},
            doc! {"$unset": ["list", "event", "token"]},
        ];
        // One with a key is remembered; it is never without the key, so at most one of the two finds it.
        let counted = doc! {"list": 1, "bytes": 1};
        let gone =
            match call(self.items.find_one_and_update(keyed, empty).projection(counted.clone())).await? {
                None => call(self.items.find_one_and_delete(held(lease)).projection(counted)).await?,
                gone => gone,
            };
        let Some(gone) = gone else { return Ok(false) };
        if let (Ok(list), Some(bytes)) = (gone.get_str("list"), gone.get("bytes").and_then(integer))
            && let Err(error) = depth::remove(self, list, bytes).await
        {
            tracing::debug!(%error, list, "an item that is gone is still counted");
        }
        Ok(true)
    }

    async fn release_item(&self, lease: &Lease) -> Result<Option<String>> {
        let free = doc! {"$set": {"until": FREE}, "$unset": {"token": ""}};
        let released = call(self.items.find_one_and_update(held(lease), free)).await?;
        Ok(released.and_then(|item| item.get_str("list").ok().map(str::to_owned)))
    }

    async fn extend_item(&self, lease: &Lease, for_so_long: Duration) -> Result<bool> {
        let ms = i64::try_from(for_so_long.as_millis()).unwrap_or(i64::MAX);
        let extend = vec![doc! {"$set": {"until": {"$add": ["$$NOW", ms]}}}];
        Ok(call(self.items.update_one(held(lease), extend)).await?.matched_count > 0)
    }

    async fn queues(&self) -> Result<Vec<Depth>> {
        self.counted(doc! {"list": {"$type": "string"}}).await
    }
}

impl MongoStore {
    /// Overdue items are free again, each once. Their takers may still settle them, until somebody else has them.
    async fn free_overdue(&self, list: &str) -> Result<()> {
        let held = doc! {"list": list, "until": {"$gt": FREE}};
        let first =
            self.items.find_one(held).sort(doc! {"until": 1}).projection(doc! {"until": 1, "now": "$$NOW"});
        let Some(first) = call(first.max_time(QUERY_TIME)).await? else { return Ok(()) };
        let time = |key| first.get_datetime(key).ok();
        if let (Some(until), Some(now)) = (time("until"), time("now"))
            && until <= now
        {
            let overdue = doc! {"list": list, "until": {"$gt": FREE, "$lte": now}};
            call(self.items.update_many(overdue, doc! {"$set": {"until": FREE}})).await?;
        }
        Ok(())
    }

    /// Read off the index `list_1_bytes_1`.
    pub(super) async fn counted(&self, which: Document) -> Result<Vec<Depth>> {
        let stages = [
            doc! {"$match": which},
            doc! {"$group": {"_id": "$list", "items": {"$sum": 1_i64}, "bytes": {"$sum": "$bytes"}}},
            doc! {"$sort": {"_id": 1}},
        ];
        let aggregate = self.items.aggregate(stages).max_time(QUERY_TIME);
        let found: Vec<Document> = call(async { aggregate.await?.try_collect().await }).await?;
        let depth = |found: &Document| {
            let number = |key| found.get(key).and_then(integer).and_then(|n| u64::try_from(n).ok());
            Some(Depth {
                list: found.get_str("_id").ok()?.to_owned(),
                items: number("items")?,
                bytes: number("bytes")?,
            })
        };
        Ok(found.iter().filter_map(depth).collect())
    }
}

fn held(lease: &Lease) -> Document {
    doc! {"_id": i64::try_from(lease.item).unwrap_or(-1), "token": &lease.token}
}
