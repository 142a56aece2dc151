//! Commits of several nodes: one transaction, few round trips whatever the number of nodes.
//!
//! The server's limits: a transaction lives 60 s at most; since MongoDB 4.2 it may be larger than one 16 MiB entry of
//! the replication log. 20,000 nodes or 32 MiB stay within both; what a transaction changes must also fit into
//! mongod's cache (`errors.rs`), which counts on a server with little memory.

use std::collections::HashMap;
use std::time::Duration;

use bson::{Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use mongodb::ClientSession;
use mongodb::error::{
    Error as Mongo, ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT,
};
use mongodb::options::{Acknowledgment, ReadConcern, WriteConcern};

use super::MongoStore;
use super::commit::{Key, Prepared, TOGETHER, conflict};
use super::document::integer;
use super::errors::{self, call, is_duplicate};
use super::failure::Failure;
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::event_log::redis::outbox::Pending;
use crate::model::ObjectId;
use crate::store::{Committed, Expect, Write, is_same_request};
use crate::sync::HEAVY;

/// How often a transaction is tried that ran into another one, or into a conflict that was gone when looked at.
const TRIES: u32 = 12;
/// The server ends a transaction after 60 s.
const LIFE_TIME: Duration = Duration::from_secs(55);
/// Statements and bytes of one `update` command; a command may have 16 MiB.
const STATEMENTS: usize = 1000;
const BYTES: usize = 12 * 1024 * 1024;
/// Nodes of one `insert` command: the driver makes a copy of what it sends.
const INSERTS: usize = 2000;
/// Commits of more writes are prepared off the async threads.
const LARGE: usize = 32;

/// How one try ended.
enum Try {
    Committed(HashMap<ObjectId, Vec<Pending>>),
    /// A node is not as expected.
    Conflict,
    /// The idempotency key is taken.
    Repeated,
}

/// All the writes, or none.
pub(super) async fn write(store: &MongoStore, writes: Vec<Write>, key: Option<Key>) -> Result<Committed> {
    let few = writes.len() <= LARGE && writes.iter().all(|write| write.node.heap() <= HEAVY);
    let (plan, writes) = match few {
        true => Plan::new(writes, key)?,
        false => tokio::task::spawn_blocking(|| Plan::new(writes, key)).await.map_err(Error::internal)??,
    };
    let mut session = call(store.client.start_session()).await?;
    let mut last = None;
    for attempt in 0..TRIES {
        match plan.run(store, &mut session).await {
            Ok(Try::Committed(mut before)) => {
                let mut jobs = Vec::new();
                for write in &writes {
                    let pending = before.remove(&write.id).unwrap_or_default();
                    // What is not whole is left to the sweep, with what comes behind it.
                    if let Some(pending) = store.relay.whole(write.id, pending).await {
                        jobs.extend(write.jobs(pending));
                    }
                }
                store.relay.submit(jobs);
                return Ok(Committed::Done);
            }
            Ok(Try::Repeated) => match &plan.key {
                Some(key) => return recorded(store, key).await,
                None => return Err(Error::internal(anyhow::anyhow!("a key that was not given is taken"))),
            },
            Ok(Try::Conflict) => {
                if let Some(conflict) = conflict(store, &writes).await? {
                    return Ok(conflict);
                }
            }
            Err(error) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => last = Some(error),
            Err(error) => return Err(errors::translate(error)),
        }
        let pause = 1 << attempt.min(8);
        tokio::time::sleep(Duration::from_millis(rand::random_range(pause..=2 * pause))).await;
    }
    match last {
        Some(error) => Err(Error::unavailable("store", Failure::of(&error, None))),
        None => Err(Error::unavailable("store", anyhow::anyhow!("nodes of a hierarchy keep changing"))),
    }
}

/// What a transaction sends, made once for all tries.
struct Plan {
    key: Option<Key>,
    record: Option<Stored>,
    /// New nodes, as they go over the wire: a document in pieces takes several times the memory.
    inserts: Vec<RawDocumentBuf>,
    /// Nodes that are changed, not made, and about how many bytes each has with its new events.
    changed: Vec<(ObjectId, usize)>,
    /// Events that stand beside the outboxes.
    bodies: Vec<RawDocumentBuf>,
    updates: Vec<(i64, RawArrayBuf)>,
}

impl Plan {
    /// What is sent, and what is remembered of each write; that is without the node's fields.
    fn new(writes: Vec<Write>, key: Option<Key>) -> Result<(Plan, Vec<Prepared>)> {
        let mut plan = Plan {
            key,
            record: None,
            inserts: Vec::new(),
            changed: Vec::new(),
            bodies: Vec::new(),
            updates: Vec::new(),
        };
        let mut prepared = Vec::with_capacity(writes.len());
        let (mut bytes, alone) = (0, writes.len() == 1);
        for write in writes {
            let mut one = Prepared::new(&write, true)?;
            drop(write);
            for body in std::mem::take(&mut one.bodies) {
                plan.bodies.push(raw(&body)?);
            }
            let mut document = one.take();
            match one.expect {
                Expect::Absent => {
                    // A single new node has its key where one that is written alone has it.
                    if let Some(key) = plan.key.as_ref().filter(|_| alone) {
                        key.mark(&mut document);
                    }
                    plan.inserts.push(raw(&document)?);
                }
                Expect::Revision(_) => {
                    plan.changed.push((one.id, one.bytes));
                    plan.update(raw(&doc! {"q": one.query(), "u": document})?, &mut bytes);
                }
            }
            prepared.push(one);
        }
        plan.record = plan.key.as_ref().map(|key| Stored(record(key, &prepared)));
        Ok((plan, prepared))
    }

    /// Adds a statement to the last `update` command, or to a new one if that is full. `bytes`: of the last one.
    fn update(&mut self, statement: RawDocumentBuf, bytes: &mut usize) {
        *bytes += statement.as_bytes().len();
        match self.updates.last_mut() {
            Some((count, statements)) if *count < STATEMENTS as i64 && *bytes < BYTES => {
                statements.push(statement);
                *count += 1;
            }
            _ => {
                *bytes = statement.as_bytes().len();
                let mut statements = RawArrayBuf::new();
                statements.push(statement);
                self.updates.push((1, statements));
            }
        }
    }

    /// One try. (The time is limited here and not per call: inside generic helpers the compiler does not see that
    /// the driver's borrowing actions are `Send`.)
    async fn run(&self, store: &MongoStore, session: &mut ClientSession) -> Result<Try, Mongo> {
        let tried = async {
            let _turn = errors::turn().await;
            self.try_once(store, session).await
        };
        match tokio::time::timeout(LIFE_TIME, tried).await {
            Ok(outcome) => outcome,
            // Dropping the session aborts what it had begun.
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    async fn try_once(&self, store: &MongoStore, session: &mut ClientSession) -> Result<Try, Mongo> {
        let majority = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let begin = session.start_transaction().read_concern(ReadConcern::snapshot()).write_concern(majority);
        begin.max_commit_time(Duration::from_secs(20)).await?;
        let outcome = self.statements(store, session).await;
        if let Ok(Try::Committed(_)) = outcome {
            let mut tries = 0;
            // Repeating this is harmless: the server knows the transaction.
            while let Err(error) = session.commit_transaction().await {
                tries += 1;
                if tries > 3 || !error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(100 * tries)).await;
            }
        } else {
            // If this fails the server ends it by itself.
            drop(session.abort_transaction().await);
        }
        outcome
    }

    async fn statements(&self, store: &MongoStore, session: &mut ClientSession) -> Result<Try, Mongo> {
        if let Some(record) = &self.record {
            let records = store.db.collection::<Stored>("idempotency");
            match records.insert_one(record).session(&mut *session).await {
                Err(error) if is_duplicate(&error) => return Ok(Try::Repeated),
                outcome => outcome.map(drop)?,
            }
        }
        // Events that another instance left behind must stay ahead of ours. The snapshot guarantees that nothing is
        // added or removed until the updates: that would be a write conflict.
        let mut before = HashMap::new();
        for part in self.changed.chunks(5_000) {
            let ids: Vec<ObjectId> = part.iter().map(|(id, _)| *id).collect();
            let query = doc! {"_id": {"$in": ids}, "outbox.id": {"$exists": true}};
            let find = store.nodes.find(query).projection(doc! {"outbox": 1});
            let mut cursor = find.session(&mut *session).await?;
            let mut nodes: Vec<Stored> = Vec::new();
            while let Some(node) = cursor.next(&mut *session).await.transpose()? {
                nodes.push(node);
            }
            for node in &nodes {
                if let Ok(id) = node.get_object_id("_id") {
                    before.insert(id, Pending::outbox(node));
                }
            }
        }
        self.make_room(store, session, &mut before).await?;
        let bodies = store.bodies.clone_with_type::<RawDocumentBuf>();
        for body in &self.bodies {
            bodies.insert_one(body).session(&mut *session).await?;
        }
        let nodes = store.nodes.clone_with_type::<RawDocumentBuf>();
        for inserts in self.inserts.chunks(INSERTS) {
            match nodes.insert_many(inserts).session(&mut *session).await {
                Err(error) if is_duplicate(&error) => return Ok(Try::Conflict),
                outcome => outcome.map(drop)?,
            }
        }
        for (count, statements) in &self.updates {
            let command = rawdoc! {"update": "node", "updates": statements.clone(), "ordered": true};
            let answer = store.db.run_raw_command(command).session(&mut *session).await?;
            if let Some(error) = failed(&answer) {
                return Err(error);
            }
            if answer.get("n").and_then(integer) != Some(*count) {
                return Ok(Try::Conflict);
            }
        }
        Ok(Try::Committed(before))
    }

    /// Puts events that wait already beside the outboxes of nodes that would become too large with them.
    async fn make_room(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        before: &mut HashMap<ObjectId, Vec<Pending>>,
    ) -> Result<(), Mongo> {
        for (id, bytes) in &self.changed {
            let Some(pending) = before.get_mut(id) else { continue };
            if bytes + pending.iter().map(Pending::size).sum::<usize>() <= TOGETHER {
                continue;
            }
            for event in pending.iter_mut().filter(|event| !event.beside) {
                let body = event.body().map_err(Mongo::custom)?;
                store.bodies.insert_one(Stored(body)).session(&mut *session).await?;
                event.beside = true;
            }
            let outbox: Vec<Document> = pending.iter().map(Pending::to_document).collect();
            let update = store.nodes.update_one(doc! {"_id": id}, doc! {"$set": {"outbox": outbox}});
            update.session(&mut *session).await?;
        }
        Ok(())
    }
}

fn raw(document: &Document) -> Result<RawDocumentBuf> {
    RawDocumentBuf::try_from(document)
        .map_err(|error| Error::invalid("node", "cannot be stored").because(error))
}

/// The error that a bulk `update` command carries in a successful answer.
fn failed(answer: &Document) -> Option<Mongo> {
    let error = answer.get_array("writeErrors").ok()?.first()?.as_document()?;
    let text = error.get_str("errmsg").unwrap_or("an update failed");
    let answer = doc! {"code": error.get_i32("code").unwrap_or(0), "codeName": "", "errmsg": text};
    let failure = bson::deserialize_from_document(answer).map(ErrorKind::Command);
    Some(failure.map_or_else(|_| Mongo::custom(text.to_owned()), Mongo::from))
}

/// The idempotency record of a commit. It expires after a day (`indexes.rs`).
pub(super) fn record(key: &Key, writes: &[Prepared]) -> Document {
    let nodes: Vec<ObjectId> = writes.iter().map(|write| write.id).collect();
    doc! {"_id": &key.text, "fingerprint": &key.fingerprint, "at": bson::DateTime::now(), "nodes": nodes}
}

/// The answer to a repeated commit; 422 if the key was for another request.
pub(super) async fn recorded(store: &MongoStore, key: &Key) -> Result<Committed> {
    let record = call(store.db.collection::<Stored>("idempotency").find_one(doc! {"_id": &key.text})).await?;
    if let Some(record) = &record {
        is_same_request(record.get_str("fingerprint").ok(), &key.fingerprint)?;
    }
    let nodes = record.as_ref().and_then(|record| record.get_array("nodes").ok());
    match nodes {
        Some(nodes) => Ok(Committed::Repeated(nodes.iter().filter_map(|id| id.as_object_id()).collect())),
        None => {
            Err(Error::unavailable("store", anyhow::anyhow!("idempotency record {} went away", key.text)))
        }
    }
}
