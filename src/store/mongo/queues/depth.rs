//! How much is in a queue: collection `queuedepth`, `{_id: list, items, bytes, counted}`.
//!
//! An item is counted before it is there and until it is gone. Who dies on the way, or does not learn what became of a call,
//! leaves too much counted, not too little, and what is wrong does not stay: a list is counted anew before it is called
//! full, if that was not done in the last ten seconds, and a document goes an hour after its list was counted. (Pushes that
//! are under way just then may be missed: the limits hold about.) A list without a document is counted by the first push,
//! also that of a database that never had any.

use bson::doc;
use mongodb::options::{Acknowledgment, WriteConcern};

use super::super::MongoStore;
use super::super::document::integer;
use super::super::errors::{self, QUERY_TIME, call, is_duplicate};
use crate::error::Result;
use crate::store::queues::{MOST_BYTES, MOST_ITEMS, MOST_LISTS, Pushed};

/// The collection.
pub(in super::super) const COLLECTION: &str = "queuedepth";
/// How long a document stays, in seconds.
pub(in super::super) const KEPT_SECONDS: u64 = 3600;
/// A list that is full is counted anew if that was not done for so long.
const COUNT_AGAIN_MS: i64 = 10_000;

/// Counts an item that is about to be pushed; or why it may not be.
pub(super) async fn add(store: &MongoStore, list: &str, bytes: u64) -> Result<Option<Pushed>> {
    let most_bytes = MOST_BYTES as i64 - bytes as i64;
    let room = doc! {"_id": list, "items": {"$lt": MOST_ITEMS as i64}, "bytes": {"$lte": most_bytes}};
    let one_more = doc! {"$inc": {"items": 1_i64, "bytes": bytes as i64}};
    for first in [true, false] {
        let add = store.depths.find_one_and_update(room.clone(), one_more.clone());
        let Some(before) = call(add).await? else {
            if first {
                // It may not be known how much is there, or not so much any more.
                count(store, list).await?;
            }
            continue;
        };
        if before.get("items").and_then(integer).is_none_or(|items| items <= 0)
            && lists(store).await? >= MOST_LISTS
        {
            remove(store, list, bytes as i64).await?;
            return Ok(Some(Pushed::TooManyLists));
        }
        return Ok(None);
    }
    Ok(Some(Pushed::Full))
}

/// Counts one less: an item is gone, or did not come.
pub(super) async fn remove(store: &MongoStore, list: &str, bytes: i64) -> Result<()> {
    // Nobody waits for the disks of a majority: if it is lost, too much is counted.
    let quick = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
    let one_less = doc! {"$inc": {"items": -1_i64, "bytes": -bytes}};
    let remove = store.depths.update_one(doc! {"_id": list, "items": {"$gt": 0}}, one_less);
    call(remove.write_concern(quick)).await.map(drop)
}

/// Counts what there is, if that was not done lately.
async fn count(store: &MongoStore, list: &str) -> Result<()> {
    // Who makes it younger counts, the others take it as it is.
    let old = doc! {"$lt": ["$counted", {"$subtract": ["$$NOW", COUNT_AGAIN_MS]}]};
    let claim =
        store.depths.update_one(doc! {"_id": list, "$expr": old}, vec![doc! {"$set": {"counted": "$$NOW"}}]);
    let is_old = call(claim).await?.matched_count > 0;
    if !is_old && call(store.depths.find_one(doc! {"_id": list}).projection(doc! {"_id": 1})).await?.is_some()
    {
        return Ok(());
    }
    let depth = store.counted(doc! {"list": list}).await?.pop();
    let (items, bytes) = depth.map_or((0, 0), |depth| (depth.items as i64, depth.bytes as i64));
    let set = match is_old {
        true => doc! {"items": items, "bytes": bytes},
        // Somebody else may have made it meanwhile, and counted a push.
        false => doc! {
            "items": {"$ifNull": ["$items", items]},
            "bytes": {"$ifNull": ["$bytes", bytes]},
            "counted": {"$ifNull": ["$counted", "$$NOW"]},
        },
    };
    let write = store.depths.update_one(doc! {"_id": list}, vec![doc! {"$set": set}]).upsert(!is_old);
    match errors::raw(write).await {
        Err(error) if !is_duplicate(&error) => Err(errors::translate(error)),
        _ => Ok(()),
    }
}

/// How many lists are not empty: one step in an index for each.
async fn lists(store: &MongoStore) -> Result<u64> {
    let lists = store.items.distinct("list", doc! {"list": {"$gte": ""}}).max_time(QUERY_TIME);
    Ok(call(lists).await?.len() as u64)
}
