//! The operations of the protocol as typed functions. Nodes are JSON objects, since `data` is free-form.

use std::collections::VecDeque;

use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Client, Result};

/// What to look for among nodes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeQuery {
    /// Filter as a JSON object, e.g. `{"kind":"kbuild","result":"fail"}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// Fields to sort by, a `-` in front for descending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sort: Vec<String>,
    /// How many at most; the server has a default (50) and a maximum (1,000).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Only these fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
}

impl NodeQuery {
    /// All nodes that a filter matches.
    pub fn filter(filter: Value) -> Self {
        NodeQuery { filter: Some(filter), ..NodeQuery::default() }
    }
    /// Sorted by this field.
    pub fn sort(mut self, field: impl Into<String>) -> Self {
        self.sort.push(field.into());
        self
    }
    /// At most so many, or so many a page.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// One page of a result.
#[derive(Clone, Debug, Deserialize)]
pub struct Page<T = Value> {
    /// What was found.
    pub items: Vec<T>,
    /// Where the next page begins; `None` after the last.
    #[serde(default)]
    pub next: Option<String>,
}

/// What to change in a node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UpdateNode {
    /// Which node.
    pub id: String,
    /// The fields to replace, each as a whole.
    pub set: Map<String, Value>,
    /// Fails with status 409 unless the node stands at this revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<u64>,
    /// Without an event.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub noevent: bool,
    /// Made by the client if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// A hierarchy of nodes to write under (and with) the node `id`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Submit {
    /// The root, which exists.
    pub id: String,
    /// `{"node": …, "child_nodes": […]}`.
    pub tree: Value,
    /// Made by the client if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Which nodes get events, if not the root alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Value>,
}

/// An event to publish.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Publish {
    /// On which channel.
    pub channel: String,
    /// The payload.
    pub data: Value,
    /// CloudEvent `type`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// CloudEvent `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Further attributes.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
    /// Made by the client if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// What to look for in the history of events.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EventQuery {
    /// On this channel only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Filter as a JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// How many at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// With the node of each event.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
}

fn new_key() -> Option<String> {
    Some(uuid::Uuid::new_v4().to_string())
}

impl Client {
    /// One node; an error of status 404 if there is none.
    pub async fn node_get(&self, id: &str) -> Result<Value> {
        self.call("node.get", json!({"id": id})).await
    }

    /// One page of nodes.
    pub async fn node_find(&self, query: &NodeQuery) -> Result<Page> {
        self.call("node.find", query).await
    }

    /// All nodes that a query finds, page after page as they are asked for. `limit` is the size of a page.
    pub fn node_find_all(&self, query: NodeQuery) -> impl Stream<Item = Result<Value>> + Send + 'static {
        struct Walk {
            client: Client,
            query: NodeQuery,
            page: VecDeque<Value>,
            more: bool,
        }
        let walk = Walk { client: self.clone(), query, page: VecDeque::new(), more: true };
        futures::stream::try_unfold(walk, |mut walk| async move {
            while walk.page.is_empty() && walk.more {
                let page = walk.client.node_find(&walk.query).await?;
                walk.page = page.items.into();
                walk.more = page.next.is_some();
                walk.query.after = page.next;
            }
            Ok(walk.page.pop_front().map(|node| (node, walk)))
        })
    }

    /// How many nodes a filter matches.
    pub async fn node_count(&self, filter: Option<&Value>) -> Result<u64> {
        #[derive(Deserialize)]
        struct Count {
            count: u64,
        }
        let params = filter.map_or_else(|| json!({}), |filter| json!({"filter": filter}));
        self.call::<Count>("node.count", params).await.map(|answer| answer.count)
    }

    /// Creates a node and returns it. Safe against a lost connection: it is created once.
    pub async fn node_create(&self, node: &Value, idempotency_key: Option<String>) -> Result<Value> {
        let key = idempotency_key.or_else(new_key);
        self.call("node.create", json!({"node": node, "idempotency_key": key})).await
    }

    /// Replaces a node as a whole and returns it. Safe against a lost connection: it is done once.
    pub async fn node_replace(&self, id: &str, node: &Value, if_revision: Option<u64>) -> Result<Value> {
        let mut params = json!({"id": id, "node": node, "idempotency_key": new_key()});
        if let Some(revision) = if_revision {
            params["if_revision"] = revision.into();
        }
        self.call("node.replace", params).await
    }

    /// Changes some fields of a node and returns it. Safe against a lost connection: it is done once.
    pub async fn node_update(&self, update: &UpdateNode) -> Result<Value> {
        let mut update = update.clone();
        update.idempotency_key = update.idempotency_key.or_else(new_key);
        self.call("node.update", update).await
    }

    /// Writes a hierarchy of nodes and returns all of them, the root first. Safe against a lost connection.
    pub async fn node_submit(&self, mut submit: Submit) -> Result<Vec<Value>> {
        #[derive(Deserialize)]
        struct Nodes {
            nodes: Vec<Value>,
        }
        submit.idempotency_key = submit.idempotency_key.or_else(new_key);
        self.call::<Nodes>("node.submit", submit).await.map(|answer| answer.nodes)
    }

    /// Sets one field of many nodes and returns how many were changed.
    pub async fn node_mark(&self, ids: &[String], field: &str, value: &Value) -> Result<u64> {
        #[derive(Deserialize)]
        struct Marked {
            updated: u64,
        }
        let params = json!({"ids": ids, "field": field, "value": value, "idempotency_key": new_key()});
        self.call::<Marked>("node.mark", params).await.map(|answer| answer.updated)
    }

    /// Publishes an event, once even if the connection is lost. Returns its number in the channel, or `None` if
    /// it is durable and gets its number later.
    pub async fn event_publish(&self, mut publish: Publish) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        struct Published {
            seq: Option<u64>,
        }
        publish.idempotency_key = publish.idempotency_key.or_else(new_key);
        self.call::<Published>("event.publish", publish).await.map(|answer| answer.seq)
    }

    /// One page of the history of events.
    pub async fn event_find(&self, query: &EventQuery) -> Result<Page> {
        self.call("event.find", query).await
    }

    /// The user that this connection acts as.
    pub async fn whoami(&self) -> Result<Value> {
        self.call("user.whoami", json!({})).await
    }
}
