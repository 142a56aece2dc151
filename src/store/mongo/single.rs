//! Writes of one document: atomic on any MongoDB, no transaction needed.

use std::collections::HashMap;
use std::time::Duration;

use bson::{RawDocumentBuf, doc};
use mongodb::Collection;
use mongodb::options::ReturnDocument;
use tokio_util::sync::CancellationToken;

use super::MongoStore;
use super::commit::{Key, Prepared, conflict};
use super::errors::{self, call_on, is_duplicate};
use super::stored::Stored;
use super::transaction::{record, recorded};
use crate::background;
use crate::error::Result;
use crate::event_log::redis::outbox::Pending;
use crate::model::ObjectId;
use crate::store::gather::{self, Gather, Gets, Most};
use crate::store::{Committed, Expect};

/// How long an idempotency key is remembered.
pub(super) const KEY_SECONDS: u32 = 24 * 3600;

/// Nodes that are read at the same time.
const READS: Most = Most { flights: 4, requests: 64, weight: 64 };
/// Nodes that are added at the same time, and their bytes. Less than one document may have: one that is too large
/// travels alone.
const INSERTS: Most = Most { flights: 4, requests: 128, weight: 8 << 20 };

/// Single nodes to add, as they will be stored.
pub(super) type Inserts = Gather<RawDocumentBuf, mongodb::error::Result<()>>;

/// Single nodes to read, those of the same moment in one query.
pub(super) fn gets(nodes: Collection<Stored>) -> Gets {
    Gather::new(
        READS,
        |_| 1,
        move |ids| {
            let nodes = nodes.clone();
            Box::pin(async move { gather::by_id(&ids, super::nodes_by_id(&nodes, &ids).await) })
        },
    )
}

/// Single nodes to add, those of the same moment with one command: each is still a write of its own.
pub(super) fn inserts(nodes: Collection<Stored>) -> Inserts {
    let nodes = nodes.clone_with_type::<RawDocumentBuf>();
    let bytes = |document: &RawDocumentBuf| document.as_bytes().len();
    Gather::new(INSERTS, bytes, move |documents| {
        let nodes = nodes.clone();
        Box::pin(async move {
            match errors::raw(nodes.insert_many(&documents).ordered(false)).await {
                Ok(_) => documents.iter().map(|_| Ok(())).collect(),
                Err(error) => (0..documents.len()).map(|at| errors::of_insert(&error, at)).collect(),
            }
        })
    })
}

/// Adds one node. Its idempotency key stands in the document itself, under a unique index.
pub(super) async fn insert(store: &MongoStore, write: &Prepared, key: Option<Key>) -> Result<Committed> {
    let mut document = write.insert();
    if let Some(key) = &key {
        key.mark(&mut document);
    }
    let document = RawDocumentBuf::try_from(&document).map_err(|error| errors::translate(error.into()))?;
    for _ in 0..3 {
        match store.inserts.ask(document.clone()).await? {
            Ok(()) => {
                store.relay.submit(write.jobs(Vec::new()));
                return Ok(Committed::Done);
            }
            Err(error) if !is_duplicate(&error) => return Err(errors::translate(error)),
            Err(_) => {}
        }
        // The key first: a repetition may well bring the same node id.
        if let Some(key) = &key
            && let Some(id) = key.made(store).await?
        {
            return Ok(Committed::Repeated(vec![id]));
        }
        if let Some(conflict) = conflict(store, std::slice::from_ref(write)).await? {
            return Ok(conflict);
        }
        // What was in the way has gone in the meantime.
    }
    Err(crate::error::Error::unavailable(
        "store",
        anyhow::anyhow!("node {} keeps appearing and going", write.id),
    ))
}

/// Updates one node if it is where the write expects it.
pub(super) async fn update(store: &MongoStore, write: &Prepared) -> Result<Committed> {
    for _ in 0..3 {
        let update = store.nodes.find_one_and_update(write.query(), write.update());
        let update = update.projection(doc! {"outbox": 1}).return_document(ReturnDocument::After);
        if let Some(after) = call_on(&store.nodes, update).await? {
            // All that is pending, not only ours: should another instance have left something, ours must not overtake it.
            let mut before = Pending::outbox(&after);
            before.retain(|event| write.events.iter().all(|own| own.id != event.id));
            if !write.events.is_empty()
                && let Some(before) = store.relay.whole(write.id, before).await
            {
                store.relay.submit(write.jobs(before));
            }
            return Ok(Committed::Done);
        }
        if let Some(conflict) = conflict(store, std::slice::from_ref(write)).await? {
            return Ok(conflict);
        }
    }
    Err(crate::error::Error::unavailable("store", anyhow::anyhow!("node {} keeps changing", write.id)))
}

/// Several nodes on a server without transactions: children before parents, so that whoever sees a parent's change
/// sees its children. Conflicts are looked for first; one that comes up later is undone as far as possible.
pub(super) async fn in_turn(store: &MongoStore, writes: &[Prepared], key: Option<Key>) -> Result<Committed> {
    let records = store.db.collection::<Stored>("idempotency");
    if let Some(key) = &key
        && let Err(error) = errors::raw(records.insert_one(Stored(record(key, writes)))).await
    {
        if is_duplicate(&error) {
            return recorded(store, key).await;
        }
        return Err(errors::translate(error));
    }
    let mut inserted = Vec::new();
    let outcome = match conflict(store, writes).await {
        Ok(None) => write_in_turn(store, writes, &mut inserted).await,
        Ok(Some(conflict)) => Ok(conflict),
        Err(error) => Err(error),
    };
    if !matches!(outcome, Ok(Committed::Done)) {
        if !inserted.is_empty() {
            let undo = doc! {"_id": {"$in": &inserted}, "revision": 1_i64};
            if let Err(error) = call_on(&store.nodes, store.nodes.delete_many(undo)).await {
                tracing::error!(%error, ?inserted, "nodes of a failed hierarchy could not be removed");
            }
        }
        if let Some(key) = &key {
            drop(call_on(&records, records.delete_one(doc! {"_id": &key.text})).await);
        }
    }
    outcome
}

async fn write_in_turn(
    store: &MongoStore,
    writes: &[Prepared],
    inserted: &mut Vec<ObjectId>,
) -> Result<Committed> {
    let depths = depths(writes);
    let mut order: Vec<&Prepared> = writes.iter().collect();
    order.sort_by_key(|write| std::cmp::Reverse(depths.get(&write.id).copied().unwrap_or(0)));
    for write in order {
        let outcome = match write.expect {
            Expect::Absent => insert(store, write, None).await?,
            Expect::Revision(_) => update(store, write).await?,
        };
        if outcome != Committed::Done {
            return Ok(outcome);
        }
        if write.expect == Expect::Absent {
            inserted.push(write.id);
        }
    }
    Ok(Committed::Done)
}

/// How many of a node's ancestors are in the same commit.
fn depths(writes: &[Prepared]) -> HashMap<ObjectId, usize> {
    let parents: HashMap<ObjectId, Option<ObjectId>> =
        writes.iter().map(|write| (write.id, write.parent)).collect();
    let depth = |id: ObjectId| {
        let mut at = id;
        let up = std::iter::from_fn(|| {
            at = parents.get(&at).copied().flatten()?;
            parents.contains_key(&at).then_some(())
        });
        // No hierarchy is deeper; a cycle would be endless.
        up.take(1000).count()
    };
    parents.keys().map(|&id| (id, depth(id))).collect()
}

/// Every hour, removes the idempotency keys of nodes that are older than a day.
pub(super) fn forget_old_keys(nodes: Collection<Stored>, stop: CancellationToken) {
    background::spawn("old keys", async move {
        loop {
            let pause = Duration::from_secs(rand::random_range(3000..=4200));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            let now = u32::try_from(crate::model::Timestamp::now().millis() / 1000).unwrap_or(u32::MAX);
            let day_ago = ObjectId::from_parts(now.saturating_sub(KEY_SECONDS), [0; 5], [0; 3]);
            let query = doc! {"idempotency": {"$exists": true}, "_id": {"$lt": day_ago}};
            if let Err(error) = call_on(
                &nodes,
                nodes.update_many(query, doc! {"$unset": {"idempotency": "", "idempotency_of": ""}}),
            )
            .await
            {
                tracing::warn!(%error, "old idempotency keys could not be removed");
            }
        }
    });
}
