//! Events that have no place in a log yet, and where they are kept until then.

use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::Collection;
use tokio::sync::{oneshot, watch};

use super::clean::without;
use super::history;
use super::stream::Item;
use crate::error::Result;
use crate::model::{Event, ObjectId};
use crate::store::mongo::document::integer;
use crate::store::mongo::errors::{QUERY_TIME, call, call_on};
use crate::store::mongo::stored::Stored;
use crate::sync::in_place;

/// How many nodes with pending events are counted for the metrics.
const MOST_COUNTED: i64 = 10_000;

/// An event on its way into the log. As an outbox entry it is `{id, channel, event}`, or, if it is too large to stand in its
/// node, `{id, channel, beside: true}` with a document of the collection `eventbody`, which is as in the history.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// The event's id.
    pub(crate) id: ObjectId,
    /// The channel that it goes to.
    pub(crate) channel: String,
    /// The CloudEvent as compact JSON text, without `sequence`: exactly what readers will get. Empty as long as it stands
    /// beside the outbox only ([`Outboxes::whole`]).
    pub(crate) json: String,
    /// Whether it stands beside the outbox.
    pub(crate) beside: bool,
}

impl Pending {
    pub(crate) fn new(event: &Event) -> Pending {
        Pending { id: event.id, channel: event.channel.clone(), json: event.to_text(), beside: false }
    }

    pub(crate) fn to_document(&self) -> Document {
        match self.beside {
            true => doc! {"id": self.id, "channel": &self.channel, "beside": true},
            false => doc! {"id": self.id, "channel": &self.channel, "event": &self.json},
        }
    }

    /// What stands beside the outbox.
    pub(crate) fn body(&self) -> Result<Document> {
        let item = Item { seq: 0, epoch: String::new(), json: self.json.clone() };
        history::document(&self.channel, &item)
    }

    /// About how many bytes it takes in the outbox.
    pub(crate) fn size(&self) -> usize {
        const NAMES: usize = 80;
        self.channel.len() + NAMES + if self.beside { 0 } else { self.json.len() }
    }

    /// Reads an outbox entry (`id`), or a document of the collection `eventoutbox` (`_id`).
    pub(crate) fn from_document(document: &Document) -> Option<Pending> {
        let id = document.get_object_id("id").or_else(|_| document.get_object_id("_id")).ok()?;
        let channel = document.get_str("channel").ok()?.to_owned();
        let beside = document.get_bool("beside").unwrap_or(false);
        let json = if beside { "" } else { document.get_str("event").ok()? };
        Some(Pending { id, channel, json: json.to_owned(), beside })
    }

    /// All entries of a node's outbox, oldest first.
    pub(crate) fn outbox(node: &Document) -> Vec<Pending> {
        let Ok(entries) = node.get_array("outbox") else { return Vec::new() };
        entries.iter().filter_map(Bson::as_document).filter_map(Pending::from_document).collect()
    }
}

/// Where a pending event is kept until it is in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the outbox of this node.
    Node(ObjectId),
    /// In the collection `eventoutbox`.
    Collection,
    /// In the hands of who publishes it, as long as that waits for the number.
    Publisher,
}

/// One event to relay.
pub(crate) struct Job {
    pub(crate) source: Source,
    pub(crate) event: Pending,
    /// Made by this process just now: it need not be looked for in the history.
    pub(crate) fresh: bool,
    /// Wants to know the event's number.
    pub(crate) waiter: Option<oneshot::Sender<u64>>,
}

impl Job {
    /// An event that may have been appended before.
    pub(crate) fn foreign(source: Source, event: Pending) -> Job {
        Job { source, event, fresh: false, waiter: None }
    }

    /// Not if who published it has given up: it is in the outbox then, or was refused.
    pub(super) fn is_wanted(&self) -> bool {
        let waits = || self.waiter.as_ref().is_some_and(|waiter| !waiter.is_closed());
        self.source != Source::Publisher || waits()
    }
}

/// The places where pending events are kept.
#[derive(Clone)]
pub(crate) struct Outboxes {
    pub(crate) nodes: Collection<Stored>,
    pub(crate) events: Collection<Stored>,
    /// What is too large for the outbox of its node.
    pub(crate) bodies: Collection<Stored>,
    /// Turns true when the index exists that makes a sweep over the nodes cheap.
    pub(crate) indexed: watch::Receiver<bool>,
}

impl Outboxes {
    /// The events of a node's outbox with those parts that stand beside it.
    pub(crate) async fn whole(&self, node: ObjectId, mut pending: Vec<Pending>) -> Result<Vec<Pending>> {
        let is_part = |event: &Pending| event.beside && event.json.is_empty();
        for event in pending.iter_mut().filter(|event| is_part(event)) {
            let body = call(self.bodies.find_one(doc! {"_id": event.id}).max_time(QUERY_TIME)).await?;
            if let Some(body) = body {
                event.json = in_place(|| history::event(&body).to_text());
            }
        }
        // It goes before its mark does, and when it is in the history.
        let gone: Vec<ObjectId> =
            pending.iter().filter(|event| is_part(event)).map(|event| event.id).collect();
        if !gone.is_empty() {
            call_on(&self.nodes, self.nodes.update_one(doc! {"_id": node}, vec![without(&gone)])).await?;
            pending.retain(|event| !is_part(event));
        }
        Ok(pending)
    }

    /// How many events wait; of more than [`MOST_COUNTED`] nodes that have any, so many.
    pub(crate) async fn pending(&self) -> Result<u64> {
        let mut pending = call(self.events.estimated_document_count().max_time(QUERY_TIME)).await?;
        if *self.indexed.borrow() {
            let stages = [
                doc! {"$match": {"outbox.id": {"$exists": true}}},
                doc! {"$limit": MOST_COUNTED},
                doc! {"$group": {"_id": null, "n": {"$sum": {"$size": "$outbox"}}}},
            ];
            let sums = self.nodes.aggregate(stages).max_time(QUERY_TIME).with_type::<Stored>();
            let sums: Vec<Stored> = call(async { sums.await?.try_collect().await }).await?;
            pending += sums.first().and_then(|sum| integer(sum.get("n")?)).map_or(0, i64::unsigned_abs);
        }
        Ok(pending)
    }
}
