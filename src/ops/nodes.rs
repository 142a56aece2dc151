//! Nodes: reading them; whole lists are in [`list`], writing is in [`write`] and [`submit`].

mod list;
mod submit;
mod write;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use list::{list, page};
pub use submit::{Events, submit};
pub(in crate::ops) use write::editable;
pub use write::{create, mark, may_edit, replace, update};

use super::schema::types;
use super::{Context, Reply, RestBody, RestReply, paging};
use crate::error::{Error, Result};
use crate::filter::{Filter, NODE};
use crate::model::footprint::of_members;
use crate::model::{Node, ObjectId};
use crate::rpc::ENVELOPE;
use crate::store::{Found, Query, Raw, Wire, indexes};
use crate::sync::Pauses;

const MOST_FOUND: u64 = 1000;
const MOST_FIELDS: usize = 64;
/// A page ends when it has this many bytes, so that an answer stays bounded whatever nodes hold.
const PAGE_BYTES: usize = 8 << 20;

/// One node.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// 24 hex digits.
    id: String,
    /// Only these fields; dotted paths reach into objects.
    #[serde(default)]
    fields: Option<Vec<String>>,
}

/// Which nodes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// `{"kind":"kbuild","result__in":["fail"],"data.arch":"arm64"}`; default: all.
    #[serde(default)]
    #[schemars(with = "Option<types::Filter>")]
    filter: Option<Value>,
    /// Fields, with `-` before for descending, e.g. `["-created"]`; default: oldest first.
    #[serde(default)]
    sort: Vec<String>,
    /// 1 to 1,000; default 50.
    #[serde(default)]
    limit: Option<u64>,
    /// `next` of the page before.
    #[serde(default)]
    after: Option<String>,
    /// Only these fields; dotted paths reach into objects.
    #[serde(default)]
    fields: Option<Vec<String>>,
}

/// A node, or some of its fields.
#[derive(JsonSchema)]
pub struct Got(#[schemars(with = "Node")] Raw);

/// A page of nodes.
#[derive(JsonSchema)]
pub struct FoundPage {
    /// Nodes.
    #[schemars(with = "Vec<Node>")]
    items: Vec<Raw>,
    /// Pass as `after` for what follows; null on the last page.
    next: Option<String>,
}

impl Reply for Got {
    fn weight(&self) -> usize {
        match &self.0 {
            Raw::Text(text) => text.len(),
            Raw::Fields(fields) => of_members(fields),
        }
    }
    fn rpc(&self) -> Result<String> {
        Ok(self.0.json()?.into_owned())
    }
    fn rest(self: Box<Self>, _member: Option<&str>, with_revision: bool) -> Result<RestReply> {
        let (json, revision) = self.0.json_and_revision()?;
        let body = if with_revision { self.0.json()?.into_owned() } else { json };
        Ok(RestReply { body: RestBody::Whole(body), revision })
    }
}

impl FoundPage {
    fn json(&self, with_revision: bool) -> Result<String> {
        let next = serde_json::to_string(&self.next).map_err(Error::internal)?;
        joined("{\"items\":[", &self.items, &format!("],\"next\":{next}}}"), with_revision)
    }
}

impl Reply for FoundPage {
    fn weight(&self) -> usize {
        size(&self.items)
    }
    fn rpc(&self) -> Result<String> {
        self.json(true)
    }
    fn rest(self: Box<Self>, _member: Option<&str>, with_revision: bool) -> Result<RestReply> {
        Ok(RestReply { body: RestBody::Whole(self.json(with_revision)?), revision: None })
    }
}

/// About how many bytes these nodes have as JSON.
fn size(nodes: &[Raw]) -> usize {
    nodes.iter().map(|node| node.size() + 1).sum()
}

/// The nodes, with commas between them, between `head` and `tail`. They may have megabytes, so that room is made once.
fn joined(head: &str, nodes: &[Raw], tail: &str, with_revision: bool) -> Result<String> {
    let mut text = String::with_capacity(head.len() + size(nodes) + tail.len() + ENVELOPE);
    text += head;
    for (at, node) in nodes.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        match with_revision {
            true => text += &node.json()?,
            false => text += &node.json_and_revision()?.0,
        }
    }
    text += tail;
    Ok(text)
}

/// Which nodes to count.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountWhat {
    /// As in `node.find`.
    #[serde(default)]
    #[schemars(with = "Option<types::Filter>")]
    filter: Option<Value>,
}

/// How many.
#[derive(Serialize, JsonSchema)]
pub struct Counted {
    /// Nodes that match.
    count: u64,
}

/// One node; 404 if there is none.
pub async fn get(context: Context, params: Get) -> Result<Got> {
    let id = node_id(&params.id)?;
    let fields = check_fields(params.fields)?;
    let node = context.app.store.raw_nodes(&[id]).await?.pop().ok_or_else(|| missing(id))?;
    Ok(Got(project(node, fields.as_deref())?))
}

/// Bytes that a node which is taken apart counts as.
const PROJECTED: usize = 8 << 10;

/// A page of nodes.
pub async fn find(context: Context, params: Find) -> Result<FoundPage> {
    let limit = paging::limit(params.limit, MOST_FOUND)?;
    let sort = paging::sort_keys(&params.sort)?;
    let fields = check_fields(params.fields)?;
    let mut filter = read_filter(params.filter.as_ref())?;
    if let Some(cursor) = &params.after {
        filter = Filter::And(vec![filter, paging::behind(&sort, cursor)?]);
    }
    // One more than asked for tells whether there is a next page.
    let query = Query { filter, sort, limit: limit + 1, offset: 0, bytes: PAGE_BYTES };
    let _turn = context.search(indexes::serve(&query)).await?;
    let Found { nodes, cut } = context.app.store.find_nodes(&query).await?;
    let mut pauses = Pauses::default();
    let found = nodes.len() as u64;
    let (mut items, mut next, mut bytes) = (Vec::with_capacity(nodes.len()), None, 0);
    for (count, node) in (1..).zip(nodes) {
        let more = (count == limit && found > limit) || (count == found && cut);
        // Once: it is measured here, and goes out later.
        let item = project(node.clone(), fields.as_deref())?.into_text()?;
        bytes += item.json()?.len();
        pauses.after(PROJECTED).await;
        items.push(item);
        if more || (bytes > PAGE_BYTES && count < found) {
            next = Some(paging::cursor(&query.sort, &node.into_wire()?));
            break;
        }
        if count == limit {
            break;
        }
    }
    Ok(FoundPage { items, next })
}

/// How many nodes match.
pub async fn count(context: Context, params: CountWhat) -> Result<Counted> {
    let filter = read_filter(params.filter.as_ref())?;
    let _turn = context.search(indexes::lead_to(&filter)).await?;
    Ok(Counted { count: context.app.store.count_nodes(&filter).await? })
}

/// Reads an id; the sentence of contract 1.5 if it is none.
pub fn node_id(text: &str) -> Result<ObjectId> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Error::bad_request(format!(
            "'{shown}' is not a valid ObjectId, it must be a 12-byte input or a 24-character hex string"
        ))
    })
}

/// Checks an idempotency key.
pub fn idempotency_key(key: Option<&str>) -> Result<Option<&str>> {
    match key {
        Some(key) if key.is_empty() || key.chars().count() > 128 || key.contains('\0') => {
            Err(Error::invalid("idempotency_key", "expected 1 to 128 characters"))
        }
        other => Ok(other),
    }
}

fn missing(id: ObjectId) -> Error {
    Error::not_found(format!("Node not found with id: {id}"))
}

fn read_filter(filter: Option<&Value>) -> Result<Filter> {
    match filter {
        None => Ok(Filter::all()),
        // The form of query strings, for whoever has one at hand: `kind=job&result__in=fail,incomplete`.
        Some(Value::String(text)) => {
            let pairs: Vec<_> = url::form_urlencoded::parse(text.as_bytes()).collect();
            Filter::from_query(pairs.iter().map(|(name, value)| (&**name, &**value)), &NODE)
        }
        Some(filter) => Filter::from_json(filter, &NODE),
    }
}

fn check_fields(fields: Option<Vec<String>>) -> Result<Option<Vec<String>>> {
    match fields {
        Some(fields)
            if fields.len() > MOST_FIELDS
                || fields.iter().any(|path| path.is_empty() || path.len() > 256) =>
        {
            Err(Error::invalid("fields", format!("expected at most {MOST_FIELDS} paths of 1 to 256 bytes")))
        }
        other => Ok(other),
    }
}

/// Only the chosen fields; `{"data.arch"}` gives `{"data":{"arch":…}}`. What is not there is left out.
fn project(node: Raw, fields: Option<&[String]>) -> Result<Raw> {
    let Some(fields) = fields else { return Ok(node) };
    let node = node.into_wire()?;
    let mut chosen = Wire::new();
    for path in fields {
        copy(&node, &mut chosen, path);
    }
    Ok(Raw::Fields(Arc::new(chosen)))
}

fn copy(from: &Wire, to: &mut Wire, path: &str) {
    let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    let (mut from, mut to, mut key, mut rest) = (from, to, key, rest);
    while let Some(inner) = rest {
        let Some(Value::Object(below)) = from.get(key) else { return };
        let slot = to.entry(key).or_insert_with(|| Value::Object(Wire::new()));
        let Value::Object(slot) = slot else { return };
        (from, to) = (below, slot);
        (key, rest) = inner.split_once('.').map_or((inner, None), |(key, rest)| (key, Some(rest)));
    }
    if let Some(value) = from.get(key) {
        to.insert(key.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn projection_keeps_the_shape() {
        let node = json!({"id": "1", "data": {"arch": "arm", "x": {"y": 1}, "z": 2}, "path": ["a"]});
        let fields = ["id", "data.arch", "data.x.y", "data.none", "path.0.q", "path"].map(str::to_owned);
        let got = project(Raw::Text(node.to_string().into()), Some(&fields)).unwrap();
        assert_eq!(
            Value::Object(got.into_wire().unwrap()),
            json!({"id": "1", "data": {"arch": "arm", "x": {"y": 1}}, "path": ["a"]})
        );
    }
}
