//! How much is in a queue, and how much a user has in all queues: collection `queuedepth`, `{_id, items, bytes, counted}`.
//! `_id` is the list, or what [`Tally::user`] says, which no list is called.
//!
//! An item is counted before it is there and until it is gone. Who dies on the way, or does not learn what became of a call,
//! leaves too much counted, not too little, and what is wrong does not stay: all is counted anew before it is called too
//! much, if that was not done in the last ten seconds, and a document goes an hour after that. (Pushes that are under way
//! just then may be missed: the limits hold about.) What has no document is counted by the first push, also in a database
//! that never had any.

use std::collections::HashMap;

use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::options::{Acknowledgment, WriteConcern};

use super::super::MongoStore;
use super::super::document::integer;
use super::super::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use super::super::stored::Stored;
use crate::error::Result;
use crate::model::ObjectId;

/// The collection.
pub(in super::super) const COLLECTION: &str = "queuedepth";
/// How long a document stays, in seconds.
pub(in super::super) const KEPT_SECONDS: u64 = 3600;
/// What is too much is counted anew if that was not done for so long.
const COUNT_AGAIN_MS: i64 = 10_000;

/// Something that is counted.
pub(super) struct Tally {
    id: String,
    /// Which items.
    which: Document,
}

impl Tally {
    /// What is in this list.
    pub(super) fn list(list: &str) -> Tally {
        Tally { id: list.to_owned(), which: doc! {"list": list} }
    }

    /// What this user has pushed.
    pub(super) fn user(user: ObjectId) -> Tally {
        Tally { id: format!("user {user}"), which: doc! {"owner": user} }
    }

    /// Items and bytes of several.
    pub(super) async fn read(store: &MongoStore, ids: &[Bson]) -> Result<HashMap<String, (u64, u64)>> {
        let find = store.depths.find(doc! {"_id": {"$in": ids}}).max_time(QUERY_TIME);
        let found: Vec<Stored> = call(async { find.await?.try_collect().await }).await?;
        let read = |found: &Stored| {
            let number = |key| found.get(key).and_then(integer).map(|number| number.max(0).unsigned_abs());
            Some((found.get_str("_id").ok()?.to_owned(), (number("items")?, number("bytes")?)))
        };
        Ok(found.iter().filter_map(read).collect())
    }

    /// Items and bytes.
    pub(super) async fn get(&self, store: &MongoStore) -> Result<(u64, u64)> {
        let id = [Bson::from(&*self.id)];
        if let Some(known) = Tally::read(store, &id).await?.remove(&self.id) {
            return Ok(known);
        }
        self.count(store).await?;
        Ok(Tally::read(store, &id).await?.remove(&self.id).unwrap_or_default())
    }

    /// Counts an item that is about to be pushed. How many there were; `None`: it would be too much.
    pub(super) async fn add(
        &self,
        store: &MongoStore,
        bytes: u64,
        most_items: u64,
        most_bytes: u64,
    ) -> Result<Option<u64>> {
        let [bytes, most_items, most_bytes] = [bytes, most_items, most_bytes].map(|number| number as i64);
        let room =
            doc! {"_id": &self.id, "items": {"$lt": most_items}, "bytes": {"$lte": most_bytes - bytes}};
        let one_more = doc! {"$inc": {"items": 1_i64, "bytes": bytes}};
        for first in [true, false] {
            let add = store.depths.find_one_and_update(room.clone(), one_more.clone());
            if let Some(before) = call_on(&store.depths, add).await? {
                return Ok(Some(before.get("items").and_then(integer).unwrap_or(0).max(0).unsigned_abs()));
            }
            if first {
                // It may not be known how much is there, or not so much any more.
                self.count(store).await?;
            }
        }
        Ok(None)
    }

    /// Counts one less: an item is gone, or did not come.
    pub(super) async fn remove(&self, store: &MongoStore, bytes: i64) -> Result<()> {
        let one_less = doc! {"$inc": {"items": -1_i64, "bytes": -bytes}};
        let remove = store.depths.update_one(doc! {"_id": &self.id, "items": {"$gt": 0}}, one_less);
        call_on(&store.depths, remove.write_concern(quick())).await.map(drop)
    }

    /// Many items are gone: whoever wants to know counts what is left.
    pub(super) async fn forget(&self, store: &MongoStore) -> Result<()> {
        call_on(&store.depths, store.depths.delete_one(doc! {"_id": &self.id})).await.map(drop)
    }

    /// Counts what there is, if that was not done lately.
    pub(super) async fn count(&self, store: &MongoStore) -> Result<()> {
        // Who makes it younger counts, the others take it as it is.
        let old = doc! {"$lt": ["$counted", {"$subtract": ["$$NOW", COUNT_AGAIN_MS]}]};
        let this = || doc! {"_id": &self.id};
        let mut claim = this();
        claim.insert("$expr", old);
        let claim = store.depths.update_one(claim, vec![doc! {"$set": {"counted": "$$NOW"}}]);
        let is_old = call_on(&store.depths, claim).await?.matched_count > 0;
        if !is_old && call(store.depths.find_one(this()).projection(doc! {"_id": 1})).await?.is_some() {
            return Ok(());
        }
        let depths = store.counted(self.which.clone()).await?;
        let items: u64 = depths.iter().map(|depth| depth.items).sum();
        let bytes: u64 = depths.iter().map(|depth| depth.bytes).sum();
        let (items, bytes) = (items as i64, bytes as i64);
        let set = match is_old {
            true => doc! {"items": items, "bytes": bytes},
            // Somebody else may have made it meanwhile, and counted a push.
            false => doc! {
                "items": {"$ifNull": ["$items", items]},
                "bytes": {"$ifNull": ["$bytes", bytes]},
                "counted": {"$ifNull": ["$counted", "$$NOW"]},
            },
        };
        let write = store.depths.update_one(this(), vec![doc! {"$set": set}]).upsert(!is_old);
        match errors::raw(write).await {
            Err(error) if !is_duplicate(&error) => Err(errors::translate(error)),
            _ => Ok(()),
        }
    }
}

/// Nobody waits for the disks of a majority: if it is lost, too much is counted.
fn quick() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Nodes(1)).build()
}
