//! Nodes in the order of their making, as many as are asked for: the lists of contract 4.3 and 4.4.
//!
//! A list may be longer than memory should hold. The first nodes are read before anything is answered, so that what
//! goes wrong has its status; over REST the rest follows piece by piece, each found by the id of the last node before
//! it. A message of a session holds the first ones only: longer lists are paged there (`node.find`).

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{PAGE_BYTES, joined, read_filter, size};
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::model::Node;
use crate::ops::lists::Place;
use crate::ops::loose::Loose;
use crate::ops::{Context, Reply, RestBody, RestReply, paging};
use crate::store::{Found, Query, Raw, Wire, indexes};
use crate::sync::apart;

/// Nodes that are read at a time.
const PIECE: u64 = 1000;
/// About how many bytes a later piece has.
const PIECE_BYTES: usize = 4 << 20;

/// Which nodes, from which on, how many.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageOf {
    /// As in `node.find`.
    #[serde(default)]
    filter: Option<Value>,
    /// At least 1; default 50. A session's message holds at most 1,000.
    #[serde(default)]
    #[schemars(range(min = 1))]
    limit: Option<u64>,
    /// Skip this many first.
    #[serde(default)]
    offset: Option<u64>,
}

/// A page of nodes, oldest first, and how many there are in all.
#[derive(JsonSchema)]
pub struct Page {
    /// Nodes.
    #[schemars(with = "Vec<Node>")]
    items: Nodes,
    /// All that match.
    total: u64,
    /// As asked.
    limit: u64,
    /// As asked.
    offset: u64,
}

/// Which nodes, from which on, how many.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListOf {
    /// As in `node.find`.
    #[serde(default)]
    filter: Option<Value>,
    /// At most this many; 0 or nothing: all. A session's message holds at most 1,000.
    #[serde(default)]
    limit: Option<Loose>,
    /// Skip this many first.
    #[serde(default)]
    offset: Option<Loose>,
}

/// Nodes, oldest first.
#[derive(JsonSchema)]
pub struct Listed {
    /// Nodes.
    #[schemars(with = "Vec<Node>")]
    items: Nodes,
}

/// The nodes that were read, and the way to the others.
struct Nodes {
    read: Vec<Raw>,
    rest: Option<Rest>,
}

/// What is left of a list, and its place among those that are read at a time.
struct Rest {
    context: Context,
    filter: Filter,
    last: Wire,
    left: u64,
    place: Place,
}

/// Contract 4.3.
pub async fn page(context: Context, params: PageOf) -> Result<Page> {
    let (limit, offset) = (params.limit.unwrap_or(50), params.offset.unwrap_or(0));
    if limit == 0 {
        return Err(Error::invalid("limit", "expected 1 or more"));
    }
    let filter = read_filter(params.filter.as_ref())?;
    let items = Nodes::read(&context, filter.clone(), offset, limit).await?;
    let here = items.read.len() as u64;
    // The end of the list is the end of counting. (A page beyond the end says nothing about where the end is.)
    let total = match items.rest.is_none() && here < limit && (here > 0 || offset == 0) {
        true => offset.saturating_add(here),
        false => {
            let _turn = context.search(indexes::lead_to(&filter)).await?;
            context.app.store.count_nodes(&filter).await?
        }
    };
    Ok(Page { items, total, limit, offset })
}

/// Contract 4.4.
pub async fn list(context: Context, params: ListOf) -> Result<Listed> {
    let limit = match Loose::integer(params.limit.as_ref())?.unwrap_or(0).unsigned_abs() {
        0 => u64::MAX,
        limit => limit,
    };
    let offset = u64::try_from(Loose::integer(params.offset.as_ref())?.unwrap_or(0))
        .map_err(|_| Error::bad_request("skip must be >= 0"))?;
    let filter = read_filter(params.filter.as_ref())?;
    let items = Nodes::read(&context, filter, offset, limit).await;
    Ok(Listed { items: items.map_err(too_slow)? })
}

fn too_slow(error: Error) -> Error {
    match error.kind() {
        Kind::Timeout => Error::new(Kind::Timeout, "Timeout while fetching nodes: "),
        _ => error,
    }
}

/// How an answer with a list begins.
const ITEMS: &str = "{\"items\":[";

impl Nodes {
    async fn read(context: &Context, filter: Filter, offset: u64, limit: u64) -> Result<Nodes> {
        // One more than a piece tells whether there is more.
        let wanted = limit.min(PIECE + 1);
        let sort = paging::sort_keys(&[])?;
        let query = Query { filter: filter.clone(), sort, limit: wanted, offset, bytes: PAGE_BYTES };
        let turn = context.search(indexes::serve(&query)).await?;
        let Found { nodes: mut read, cut } = context.app.store.find_nodes(&query).await?;
        drop(turn);
        if read.len() as u64 >= limit || (!cut && (read.len() as u64) <= PIECE) {
            return Ok(Nodes { read, rest: None });
        }
        read.truncate(PIECE as usize);
        let place = context.app.lists.place(context.holder())?;
        let last = read.last().map_or_else(|| Ok(Wire::new()), key)?;
        let left = limit - read.len() as u64;
        Ok(Nodes { read, rest: Some(Rest { context: context.clone(), filter, last, left, place }) })
    }

    /// A message with the items, which must be all there are, before `tail`.
    fn message(&self, tail: &str) -> Result<String> {
        let text = joined(ITEMS, &self.read, tail, true)?;
        match self.rest.is_none() && text.len() <= PAGE_BYTES + ITEMS.len() + tail.len() {
            true => Ok(text),
            false => Err(Error::new(
                Kind::TooLarge,
                format!(
                    "limit: a message holds at most {PIECE} nodes and {PAGE_BYTES} bytes: read the pages of node.find, or ask over REST"
                ),
            )),
        }
    }

    /// All items between `head` and `tail`.
    fn body(self, head: &str, tail: String, with_revision: bool) -> Result<RestReply> {
        let body = match self.rest {
            None => RestBody::Whole(joined(head, &self.read, &tail, with_revision)?),
            Some(rest) => {
                let first = joined(head, &self.read, "", with_revision)?;
                let first = stream::once(std::future::ready(Ok(first)));
                let tail = stream::once(std::future::ready(Ok(tail)));
                RestBody::Pieces(first.chain(rest.pieces(with_revision)).chain(tail).boxed())
            }
        };
        Ok(RestReply { body, revision: None })
    }
}

impl Rest {
    fn pieces(self, with_revision: bool) -> BoxStream<'static, Result<String>> {
        stream::try_unfold(self, move |mut rest| async move {
            if rest.left == 0 {
                return Ok(None);
            }
            rest.place.keep()?;
            let sort = paging::sort_keys(&[])?;
            let behind = paging::behind(&sort, &paging::cursor(&sort, &rest.last))?;
            let filter = Filter::And(vec![rest.filter.clone(), behind]);
            let query = Query { filter, sort, limit: rest.left.min(PIECE), offset: 0, bytes: PIECE_BYTES };
            let turn = rest.context.search(indexes::serve(&query)).await?;
            let Found { nodes, cut } = rest.context.app.store.find_nodes(&query).await?;
            drop(turn);
            let Some(last) = nodes.last() else { return Ok(None) };
            rest.last = key(last)?;
            rest.left = match !cut && (nodes.len() as u64) < query.limit {
                true => 0,
                false => rest.left - nodes.len() as u64,
            };
            let text = apart(size(&nodes), move || joined(",", &nodes, "", with_revision)).await?;
            Ok(Some((text, rest)))
        })
        .boxed()
    }
}

/// What finds the place behind a node again.
fn key(node: &Raw) -> Result<Wire> {
    let mut node = node.clone().into_wire()?;
    node.retain(|key, _| key == "id");
    Ok(node)
}

impl Page {
    fn tail(&self) -> String {
        format!("],\"total\":{},\"limit\":{},\"offset\":{}}}", self.total, self.limit, self.offset)
    }
}

impl Reply for Page {
    fn weight(&self) -> usize {
        size(&self.items.read)
    }
    fn rpc(&self) -> Result<String> {
        self.items.message(&self.tail())
    }
    fn rest(self: Box<Self>, _member: Option<&str>, with_revision: bool) -> Result<RestReply> {
        let tail = self.tail();
        self.items.body(ITEMS, tail, with_revision)
    }
}

impl Reply for Listed {
    fn weight(&self) -> usize {
        size(&self.items.read)
    }
    fn rpc(&self) -> Result<String> {
        self.items.message("]}")
    }
    fn rest(self: Box<Self>, member: Option<&str>, with_revision: bool) -> Result<RestReply> {
        match member {
            Some(_) => self.items.body("[", "]".into(), with_revision),
            None => self.items.body(ITEMS, "]}".into(), with_revision),
        }
    }
}
