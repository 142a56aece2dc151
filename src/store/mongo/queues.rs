//! Queues: collection `queueitem`, `{_id: number, list, event: JSON text, bytes, key?, until, token?, deliveries, owner?}`,
//! `owner` being the id of who has pushed it. An item that is gone and had a key stays without `list`, `event` and `owner`
//! until `gone` is a day old.
//!
//! An item is free while `until` is 0. Leases are timed by the clock of the database, which is the same for all instances.

pub(super) mod depth;
pub(super) mod reference;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::options::ReturnDocument;

use self::depth::Tally;
use super::document::integer;
use super::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use super::stored::Stored;
use super::{MongoStore, counter};
use crate::error::{Error, Result};
use crate::model::ObjectId;
use crate::quota::{Over, Thing};
use crate::store::is_same_request;
use crate::store::queues::{
    Depth, Lease, Leased, MOST_BYTES, MOST_ITEMS, MOST_LISTS, NewItem, Pushed, Queues,
};
use crate::sync::lock;

/// For how long it is known how many lists there are.
const LISTS_KNOWN: Duration = Duration::from_secs(10);
/// Lists that are not known to be counted are counted so many at a time, the others when somebody asks again.
const MOST_COUNTED: usize = 100;

/// About how many lists there are, counted not so long ago; those that have been emptied since are still in it.
#[derive(Default)]
pub(super) struct Lists {
    known: Option<(Instant, u64)>,
}

/// `until` of an item that nobody has.
const FREE: bson::DateTime = bson::DateTime::from_millis(0);

#[async_trait]
impl Queues for MongoStore {
    async fn push_item(&self, item: &NewItem) -> Result<Pushed> {
        if let Some(key) = &item.key
            && let Some(known) = self.pushed(key).await?
        {
            is_same_request(known.get_str("fingerprint").ok(), &item.fingerprint)?;
            return Ok(Pushed::Done);
        }
        let mut lane = None;
        if let Some(share) = &item.share {
            let own = doc! {"owner": share.user, "list": &item.list};
            if call(self.items.find_one(own).projection(doc! {"_id": 1})).await?.is_none() {
                lane = Some(self.lanes.of(share.user).await);
                if let Err(over) = share.room(Thing::Queues, self.lists(doc! {"owner": share.user}).await?, 1)
                {
                    return Ok(Pushed::Over(over));
                }
            }
        }
        let pushed = self.push(item).await;
        drop(lane);
        pushed
    }

    async fn take_item(&self, list: &str, lease: Duration) -> Result<Option<Leased>> {
        self.take_over(list).await;
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
        let taken =
            call_on(&self.items, take.return_document(ReturnDocument::After).max_time(QUERY_TIME)).await?;
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
            doc! {"$unset": ["list", "event", "token", "owner"]},
        ];
        // One with a key is remembered; it is never without the key, so at most one of the two finds it.
        let counted = doc! {"list": 1, "bytes": 1, "owner": 1};
        let gone = match call_on(
            &self.items,
            self.items.find_one_and_update(keyed, empty).projection(counted.clone()),
        )
        .await?
        {
            None => {
                call_on(&self.items, self.items.find_one_and_delete(held(lease)).projection(counted)).await?
            }
            gone => gone,
        };
        let Some(gone) = gone else { return Ok(false) };
        if let (Ok(list), Some(bytes)) = (gone.get_str("list"), gone.get("bytes").and_then(integer)) {
            let tallies = [Some(Tally::list(list)), gone.get_object_id("owner").ok().map(Tally::user)];
            for tally in tallies.into_iter().flatten() {
                if let Err(error) = tally.remove(self, bytes).await {
                    tracing::debug!(%error, list, "an item that is gone is still counted");
                }
            }
        }
        Ok(true)
    }

    async fn release_item(&self, lease: &Lease) -> Result<Option<String>> {
        let free = doc! {"$set": {"until": FREE}, "$unset": {"token": ""}};
        let released = call_on(&self.items, self.items.find_one_and_update(held(lease), free)).await?;
        Ok(released.and_then(|item| item.get_str("list").ok().map(str::to_owned)))
    }

    async fn extend_item(&self, lease: &Lease, for_so_long: Duration) -> Result<bool> {
        let ms = i64::try_from(for_so_long.as_millis()).unwrap_or(i64::MAX);
        let extend = vec![doc! {"$set": {"until": {"$add": ["$$NOW", ms]}}}];
        Ok(call_on(&self.items, self.items.update_one(held(lease), extend)).await?.matched_count > 0)
    }

    async fn queues(&self) -> Result<Vec<Depth>> {
        let lists = self.items.distinct("list", doc! {"list": {"$gte": ""}}).max_time(QUERY_TIME);
        let lists: Vec<Bson> = call(lists).await?;
        let mut depths = Tally::read(self, &lists).await?;
        let unknown: Vec<&str> =
            lists.iter().filter_map(Bson::as_str).filter(|list| !depths.contains_key(*list)).collect();
        if !unknown.is_empty() {
            for list in unknown.into_iter().take(MOST_COUNTED) {
                Tally::list(list).count(self).await?;
            }
            depths = Tally::read(self, &lists).await?;
        }
        let depth = |list: &str| {
            let (items, bytes) = *depths.get(list)?;
            Some(Depth { list: list.to_owned(), items, bytes })
        };
        // Not in the order of the index, if MongoDB puts several looks together.
        let mut all: Vec<Depth> = lists.iter().filter_map(Bson::as_str).filter_map(depth).collect();
        all.sort_by(|one, other| one.list.cmp(&other.list));
        Ok(all)
    }

    async fn count_queues(&self, user: ObjectId) -> Result<(u64, u64)> {
        let bytes = async { Tally::user(user).get(self).await.map(|(_, bytes)| bytes) };
        tokio::try_join!(self.lists(doc! {"owner": user}), bytes)
    }

    async fn delete_items_of(&self, user: ObjectId) -> Result<()> {
        let free = vec![
            doc! {"$match": {"owner": user, "list": {"$gte": ""}, "$expr": {"$lte": ["$until", "$$NOW"]}}},
            doc! {"$project": {"list": 1}},
        ];
        let find = self.items.aggregate(free).max_time(QUERY_TIME);
        let found: Vec<Document> = call(async { find.await?.try_collect().await }).await?;
        for some in found.chunks(1000) {
            let ids: Vec<&Bson> = some.iter().filter_map(|item| item.get("_id")).collect();
            // Unless somebody has taken it meanwhile.
            let still_free = doc! {"$expr": {"$lte": ["$until", "$$NOW"]}, "_id": {"$in": ids}};
            call_on(&self.items, self.items.delete_many(still_free)).await?;
        }
        let lists: HashSet<&str> = found.iter().filter_map(|item| item.get_str("list").ok()).collect();
        let tallies = lists.into_iter().map(Tally::list).chain([Tally::user(user)]);
        for tally in tallies {
            tally.forget(self).await?;
        }
        Ok(())
    }
}

impl MongoStore {
    async fn push(&self, item: &NewItem) -> Result<Pushed> {
        let bytes = item.json.len() as i64;
        let tally = Tally::list(&item.list);
        let listed = tally.add(self, bytes.unsigned_abs(), MOST_ITEMS, MOST_BYTES);
        let shared = async {
            let Some(share) = &item.share else { return Ok(Some(0)) };
            let most = share.most.of(Thing::QueuedBytes);
            Tally::user(share.user).add(self, bytes.unsigned_abs(), i64::MAX as u64, most).await
        };
        let (number, listed, shared) = tokio::try_join!(counter::next(self, "queueitem"), listed, shared)?;
        let refused = match (listed, shared, &item.share) {
            (None, ..) => Some(Pushed::Full),
            (_, None, Some(share)) => {
                let (_, used) = Tally::user(share.user).get(self).await?;
                let most = share.most.of(Thing::QueuedBytes);
                Some(Pushed::Over(Over { thing: Thing::QueuedBytes, used, most }))
            }
            (Some(0), ..) if !self.has_room_for_list().await? => Some(Pushed::TooManyLists),
            _ => None,
        };
        let uncount = async || {
            if listed.is_some() {
                tally.remove(self, bytes).await?;
            }
            if let Some(share) = item.share.as_ref().filter(|_| shared.is_some()) {
                Tally::user(share.user).remove(self, bytes).await?;
            }
            Ok::<_, Error>(())
        };
        if let Some(refused) = refused {
            uncount().await?;
            return Ok(refused);
        }
        let mut document = doc! {
            "_id": number,
            "list": &item.list,
            "event": &item.json,
            "bytes": bytes,
            "until": FREE,
            "deliveries": 0_i64,
        };
        if let Some(share) = &item.share {
            document.insert("owner", share.user);
        }
        if let Some(key) = &item.key {
            document.insert("key", key);
            document.insert("fingerprint", &item.fingerprint);
        }
        match errors::raw(self.items.insert_one(Stored(document))).await {
            Ok(_) => Ok(Pushed::Done),
            // The same push on another connection was first.
            Err(error) if is_duplicate(&error) && item.key.is_some() => {
                uncount().await?;
                if let Some(key) = &item.key
                    && let Some(known) = self.pushed(key).await?
                {
                    is_same_request(known.get_str("fingerprint").ok(), &item.fingerprint)?;
                }
                Ok(Pushed::Done)
            }
            Err(error) => Err(errors::translate(error)),
        }
    }

    /// The item that was pushed with this key, there or gone.
    async fn pushed(&self, key: &str) -> Result<Option<Stored>> {
        call(self.items.find_one(doc! {"key": key}).projection(doc! {"fingerprint": 1})).await
    }

    /// Whether there may be one more list. All are looked through only now and then, and before anybody is refused.
    async fn has_room_for_list(&self) -> Result<bool> {
        if let Some((counted, lists)) = &mut lock(&self.lists).known
            && counted.elapsed() < LISTS_KNOWN
            && *lists < MOST_LISTS
        {
            *lists += 1;
            return Ok(true);
        }
        let lists = self.lists(doc! {"list": {"$gte": ""}}).await?;
        lock(&self.lists).known = Some((Instant::now(), lists + 1));
        Ok(lists < MOST_LISTS)
    }

    /// In how many lists such items are: one step in an index for each.
    async fn lists(&self, which: Document) -> Result<u64> {
        Ok(call(self.items.distinct("list", which).max_time(QUERY_TIME)).await?.len() as u64)
    }

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
            call_on(&self.items, self.items.update_many(overdue, doc! {"$set": {"until": FREE}})).await?;
        }
        Ok(())
    }

    /// Read off the index `list_1_bytes_1` or `owner_1_list_1_bytes_1`.
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
