//! Removing old nodes.

use std::collections::HashSet;

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures::TryStreamExt;

use super::MongoStore;
use super::document::date;
use super::errors::{QUERY_TIME, call, call_on};
use super::stored::Stored;
use crate::error::Result;
use crate::model::{ObjectId, Timestamp};
use crate::store::purge::{KEPT, Old, Purge, Purged};

#[async_trait]
impl Purge for MongoStore {
    async fn purge_nodes(&self, old: &Old, limit: usize) -> Result<Purged> {
        let mut which = removable(old.before);
        if let Some((created, id)) = old.behind {
            let created = date(created);
            which.insert("created", doc! {"$lte": created});
            which.insert("$or", vec![doc! {"created": {"$lt": created}}, doc! {"_id": {"$lt": id}}]);
        }
        let find =
            self.nodes.find(which).sort(doc! {"created": -1, "_id": -1}).projection(doc! {"created": 1});
        let find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX)).max_time(QUERY_TIME);
        let found: Vec<Stored> = call(async { find.await?.try_collect().await }).await?;
        let ids: Vec<ObjectId> = found.iter().filter_map(|node| node.get_object_id("_id").ok()).collect();
        let parents = self.nodes.distinct("parent", doc! {"parent": {"$in": &ids}}).max_time(QUERY_TIME);
        let parents: HashSet<ObjectId> = call(parents).await?.iter().filter_map(Bson::as_object_id).collect();
        let gone: Vec<ObjectId> = ids.iter().filter(|id| !parents.contains(id)).copied().collect();
        let mut removed = 0;
        if !gone.is_empty() {
            let mut which = removable(old.before);
            which.insert("_id", doc! {"$in": gone});
            which.insert("outbox.id", doc! {"$exists": false});
            removed = call_on(&self.nodes, self.nodes.delete_many(which)).await?.deleted_count;
        }
        let last = found.last().filter(|_| found.len() == limit);
        let behind = last.and_then(|last| {
            let created = last.get_datetime("created").ok()?.timestamp_millis();
            Some((Timestamp::from_millis(created), last.get_object_id("_id").ok()?))
        });
        Ok(Purged { removed, kept: (found.len() as u64).saturating_sub(removed), behind })
    }
}

fn removable(before: Timestamp) -> Document {
    doc! {"created": {"$lt": date(before)}, "kind": {"$ne": KEPT}}
}
