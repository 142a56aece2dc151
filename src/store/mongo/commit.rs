//! A commit: which of the ways to write it is taken, and what all of them share.

use bson::{Bson, Document, doc};
use futures::TryStreamExt;

use super::document::{fields, revision};
use super::errors::{QUERY_TIME, call};
use super::stored::Stored;
use super::{MongoStore, single, transaction};
use crate::error::{Error, Kind, Result};
use crate::event_log::redis::history::number;
use crate::event_log::redis::outbox::{Job, Pending, Source};
use crate::model::ObjectId;
use crate::store::{Commit, Committed, Expect, IdempotencyKey, Write, is_same_request, size};
use crate::sync::{HEAVY, in_place_if};

/// A write, ready for the server.
pub(super) struct Prepared {
    pub(super) id: ObjectId,
    pub(super) parent: Option<ObjectId>,
    pub(super) expect: Expect,
    pub(super) fields: Document,
    pub(super) events: Vec<Pending>,
    /// Events that stand beside the outbox, as they are stored there.
    pub(super) bodies: Vec<Document>,
    /// About how many bytes the node has with its outbox.
    pub(super) bytes: usize,
}

/// Bytes that a node may have with the events that it gets, so that there is room for some that are pending already. With
/// more the events stand beside it.
pub(super) const TOGETHER: usize = 15 << 20;

impl Prepared {
    /// Selects the node where it stands as expected. (Documents of an older server have no revision.)
    pub(super) fn query(&self) -> Document {
        match self.expect {
            Expect::Absent | Expect::Revision(0) => {
                doc! {"_id": self.id, "revision": {"$in": [0, Bson::Null]}}
            }
            Expect::Revision(revision) => doc! {"_id": self.id, "revision": number(revision)},
        }
    }

    /// `atomic`: several documents can be written at once. 413 if the node is too large, or does not fit into a document
    /// with its events and has to.
    pub(super) fn new(write: &Write, atomic: bool) -> Result<Prepared> {
        size::check(write)?;
        let node = size::node(&write.node);
        let mut events: Vec<Pending> = write.events.iter().map(Pending::new).collect();
        let outbox = |events: &[Pending]| events.iter().map(Pending::size).sum::<usize>();
        let together = node + outbox(&events);
        let mut bodies = Vec::new();
        if atomic && together > TOGETHER {
            for event in &mut events {
                bodies.push(event.body()?);
                event.beside = true;
            }
        } else if together > size::MOST {
            let detail = format!(
                "a node and its event have at most {} bytes together where MongoDB is no replica set, these have {together}",
                size::MOST
            );
            return Err(Error::new(Kind::TooLarge, detail));
        }
        let bytes = node + outbox(&events);
        let (id, parent, expect) = (write.node.id, write.node.parent, write.expect);
        Ok(Prepared { id, parent, expect, fields: fields(&write.node)?, events, bodies, bytes })
    }

    /// Sets our fields and adds the events; fields of others in the document stay.
    pub(super) fn update(&self) -> Document {
        self.update_with(self.fields.clone())
    }

    /// The update or the new document of a write that nobody will ask for them again.
    pub(super) fn take(&mut self) -> Document {
        let fields = std::mem::take(&mut self.fields);
        match self.expect {
            Expect::Absent => self.insert_with(fields),
            Expect::Revision(_) => self.update_with(fields),
        }
    }

    fn update_with(&self, fields: Document) -> Document {
        let mut update = doc! {"$set": fields};
        if !self.events.is_empty() {
            update.insert("$push", doc! {"outbox": {"$each": self.outbox()}});
        }
        update
    }

    /// The whole document of a new node.
    pub(super) fn insert(&self) -> Document {
        self.insert_with(self.fields.clone())
    }

    fn insert_with(&self, fields: Document) -> Document {
        let mut document = doc! {"_id": self.id};
        document.extend(fields);
        if !self.events.is_empty() {
            document.insert("outbox", self.outbox());
        }
        document
    }

    fn outbox(&self) -> Vec<Document> {
        self.events.iter().map(Pending::to_document).collect()
    }

    /// The events for the relay, behind those that were pending already.
    pub(super) fn jobs(&self, before: Vec<Pending>) -> Vec<Job> {
        let source = Source::Node(self.id);
        let before = before.into_iter().map(|event| Job::foreign(source, event));
        let fresh =
            self.events.iter().map(|event| Job { source, event: event.clone(), fresh: true, waiter: None });
        before.chain(fresh).collect()
    }
}

/// Writes a commit in the simplest way that keeps it atomic.
pub(super) async fn commit(store: &MongoStore, commit: Commit) -> Result<Committed> {
    let Commit { writes, idempotency } = commit;
    let atomic = store.facts.atomic_hierarchies;
    if let ([write], None) | ([write @ Write { expect: Expect::Absent, .. }], Some(_)) =
        (writes.as_slice(), &idempotency)
    {
        let prepared = in_place_if(write.node.heap() > HEAVY, || Prepared::new(write, atomic))?;
        let alone = match (&write.expect, prepared.bodies.is_empty()) {
            (Expect::Absent, true) => {
                return single::insert(store, &prepared, idempotency.as_ref().map(Key::of)).await;
            }
            (Expect::Revision(_), true) => Some(single::update(store, &prepared).await),
            (_, false) => None,
        };
        match alone {
            // With events that wait already it does not fit: they move.
            Some(Err(error)) if atomic && error.kind() == Kind::TooLarge => {}
            Some(outcome) => return outcome,
            None => {}
        }
        // A single node of the same key may have kept it in its document.
        if let Some(key) = &idempotency
            && let Some(ids) = repeated(store, key).await?
        {
            return Ok(Committed::Repeated(ids));
        }
    }
    let key = idempotency.as_ref().map(Key::of);
    match (writes.as_slice(), key) {
        ([], None) => Ok(Committed::Done),
        (_, key) if atomic => transaction::write(store, writes, key).await,
        (writes, key) => {
            let writes: Vec<_> =
                writes.iter().map(|write| Prepared::new(write, false)).collect::<Result<_>>()?;
            single::in_turn(store, &writes, key).await
        }
    }
}

/// The nodes that a commit with this key wrote; 422 if that was another request. One write keeps its key in the document,
/// several in a record.
pub(super) async fn repeated(store: &MongoStore, key: &IdempotencyKey) -> Result<Option<Vec<ObjectId>>> {
    let key = Key::of(key);
    let records = store.db.collection::<Stored>("idempotency");
    if let Some(record) = call(records.find_one(doc! {"_id": &key.text}).max_time(QUERY_TIME)).await? {
        is_same_request(record.get_str("fingerprint").ok(), &key.fingerprint)?;
        // A record without nodes belongs to a write that is still under way.
        let nodes = record.get_array("nodes").ok();
        return Ok(nodes.map(|nodes| nodes.iter().filter_map(|id| id.as_object_id()).collect()));
    }
    Ok(key.made(store).await?.map(|id| vec![id]))
}

/// An idempotency key as it is stored.
pub(super) struct Key {
    /// `<user>:<method>:<key>`.
    pub(super) text: String,
    pub(super) fingerprint: String,
}

impl Key {
    fn of(key: &IdempotencyKey) -> Key {
        let text = format!("{}:{}:{}", key.user.to_hex(), key.method, key.key);
        Key { text, fingerprint: key.fingerprint.clone() }
    }

    /// Puts it into the document of a node that it makes.
    pub(super) fn mark(&self, node: &mut Document) {
        node.insert("idempotency", &self.text);
        node.insert("idempotency_of", &self.fingerprint);
    }

    /// The single node that was made with it; 422 if that was another request.
    pub(super) async fn made(&self, store: &MongoStore) -> Result<Option<ObjectId>> {
        let find = store.nodes.find_one(doc! {"idempotency": &self.text});
        let find = find.projection(doc! {"_id": 1, "idempotency_of": 1}).max_time(QUERY_TIME);
        let Some(node) = call(find).await? else { return Ok(None) };
        is_same_request(node.get_str("idempotency_of").ok(), &self.fingerprint)?;
        Ok(node.get_object_id("_id").ok())
    }
}

/// The first of these writes whose node is not as expected.
pub(super) async fn conflict(store: &MongoStore, writes: &[Prepared]) -> Result<Option<Committed>> {
    for part in writes.chunks(5_000) {
        let ids: Vec<ObjectId> = part.iter().map(|write| write.id).collect();
        let find = store.nodes.find(doc! {"_id": {"$in": ids}}).projection(doc! {"revision": 1});
        let found: Vec<Stored> = call(async { find.max_time(QUERY_TIME).await?.try_collect().await }).await?;
        let found: std::collections::HashMap<ObjectId, u64> =
            found.iter().filter_map(|doc| Some((doc.get_object_id("_id").ok()?, revision(doc)))).collect();
        for write in part {
            let current = found.get(&write.id).copied();
            let expected = match write.expect {
                Expect::Absent => None,
                Expect::Revision(revision) => Some(revision),
            };
            if current != expected {
                return Ok(Some(Committed::Conflict(write.id, current)));
            }
        }
    }
    Ok(None)
}
