//! Taking events that are in the history out of their outboxes, many at a time and behind everything else.
//!
//! Nothing depends on when that happens, or on its being durable: what stays, or comes back with an election, is found
//! by the sweep, which sees that it is in the history.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::WriteConcern;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::outbox::{Job, Outboxes, Source};
use crate::background;
use crate::error::Result;
use crate::model::ObjectId;
use crate::store::mongo::errors::call_on;

/// Batches that may wait; then the relay waits, too, so that outboxes stay short.
const QUEUE: usize = 16;
/// Events that are taken out with one command.
const MOST: usize = 1024;
/// How long events gather: under load, one command for many; and what is written meanwhile is not held up.
const GATHER: Duration = Duration::from_millis(20);

/// An event that is in the history.
struct Relayed {
    source: Source,
    id: ObjectId,
    /// Whether it stands beside the outbox.
    beside: bool,
}

/// The task that does it.
pub(super) struct Cleaner {
    queue: Option<mpsc::Sender<Vec<Relayed>>>,
    task: Option<JoinHandle<()>>,
}

impl Cleaner {
    pub(super) fn start(outboxes: Outboxes) -> Cleaner {
        let (queue, mut relayed) = mpsc::channel::<Vec<Relayed>>(QUEUE);
        let task = background::spawn("outboxes", async move {
            while let Some(mut events) = relayed.recv().await {
                // Not when the server stops.
                if !relayed.is_closed() {
                    tokio::time::sleep(GATHER).await;
                }
                while events.len() < MOST {
                    let Ok(more) = relayed.try_recv() else { break };
                    events.extend(more);
                }
                if let Err(error) = clean(&outboxes, &events).await {
                    tracing::debug!(%error, "relayed events stay in their outboxes for now");
                }
            }
        });
        Cleaner { queue: Some(queue), task: Some(task) }
    }

    /// These are in the history.
    pub(super) async fn clean(&self, jobs: &[Job]) {
        let Some(queue) = &self.queue else { return };
        // Fails if the task has died; the sweep does its work then.
        let kept = jobs.iter().filter(|job| job.source != Source::Publisher);
        let relayed = |job: &Job| Relayed { source: job.source, id: job.event.id, beside: job.event.beside };
        let events: Vec<_> = kept.map(relayed).collect();
        if !events.is_empty() {
            _ = queue.send(events).await;
        }
    }

    /// Finishes what waits.
    pub(super) async fn close(&mut self) {
        self.queue = None;
        if let Some(task) = self.task.take() {
            _ = task.await;
        }
    }
}

async fn clean(outboxes: &Outboxes, events: &[Relayed]) -> Result<()> {
    let (mut nodes, mut in_nodes, mut in_collection) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        match event.source {
            Source::Node(id) => {
                nodes.push(id);
                in_nodes.push(event.id);
            }
            Source::Collection => in_collection.push(event.id),
            Source::Publisher => {}
        }
    }
    let bodies: Vec<ObjectId> = events.iter().filter(|event| event.beside).map(|event| event.id).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let unhurried = || WriteConcern::builder().w(mongodb::options::Acknowledgment::Nodes(1)).build();
    // Before the marks of them, which would be all that leads to what is left.
    if !bodies.is_empty() {
        let delete = outboxes.bodies.delete_many(doc! {"_id": {"$in": bodies}});
        call_on(&outboxes.bodies, delete.write_concern(unhurried())).await?;
    }
    if !nodes.is_empty() {
        let query = doc! {"_id": {"$in": nodes}, "outbox.id": {"$in": &in_nodes}};
        let update = outboxes.nodes.update_many(query, vec![without(&in_nodes)]);
        call_on(&outboxes.nodes, update.write_concern(unhurried())).await?;
    }
    if !in_collection.is_empty() {
        let delete = outboxes.events.delete_many(doc! {"_id": {"$in": in_collection}});
        call_on(&outboxes.events, delete.write_concern(unhurried())).await?;
    }
    Ok(())
}

/// An update that removes these events from a node's outbox, and the outbox with its last event.
pub(super) fn without(ids: &[ObjectId]) -> Document {
    let rest = doc! {"$filter": {"input": "$outbox", "cond": {"$not": {"$in": ["$$this.id", ids]}}}};
    let outbox = doc! {"$cond": [{"$eq": ["$$rest", []]}, "$$REMOVE", "$$rest"]};
    doc! {"$set": {"outbox": {"$let": {"vars": {"rest": rest}, "in": outbox}}}}
}
