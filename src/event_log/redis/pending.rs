//! Events that are durable with their write but have no place in a log yet: the outbox entries of nodes.

use bson::{Bson, Document, doc};

use crate::model::{Event, ObjectId};

/// An event on its way into the log. As an outbox entry it is `{id, channel, event}`.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// The event's id.
    pub(crate) id: ObjectId,
    /// The channel that it goes to.
    pub(crate) channel: String,
    /// The CloudEvent as compact JSON text, without `sequence`: exactly what readers will get.
    pub(crate) json: String,
}

impl Pending {
    pub(crate) fn new(event: &Event) -> Pending {
        Pending { id: event.id, channel: event.channel.clone(), json: event.to_text() }
    }

    pub(crate) fn to_document(&self) -> Document {
        doc! {"id": self.id, "channel": &self.channel, "event": &self.json}
    }

    /// Reads an outbox entry (`id`), or a document of the collection `eventoutbox` (`_id`).
    pub(crate) fn from_document(document: &Document) -> Option<Pending> {
        let id = document.get_object_id("id").or_else(|_| document.get_object_id("_id")).ok()?;
        let channel = document.get_str("channel").ok()?.to_owned();
        Some(Pending { id, channel, json: document.get_str("event").ok()?.to_owned() })
    }

    /// All entries of a node's outbox, oldest first.
    pub(crate) fn outbox(node: &Document) -> Vec<Pending> {
        let Ok(entries) = node.get_array("outbox") else { return Vec::new() };
        entries.iter().filter_map(Bson::as_document).filter_map(Pending::from_document).collect()
    }
}
