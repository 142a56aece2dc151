//! Events as the history shows them, piece by piece: an answer may be longer than memory should hold.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Found, cursor, is_quick, read_cursor, rest_of_moment};
use crate::error::{Error, Result};
use crate::event_log::{HISTORY_BYTES, HistoryQuery, Logged};
use crate::model::{EventTime, ObjectId};
use crate::ops::lists::Place as Reading;
use crate::ops::{Context, Reply, RestBody, RestReply};
use crate::quota::Place;
use crate::store::Wire;
use crate::sync::apart;

/// About how many bytes go out at a time.
const PIECE: usize = 64 << 10;
/// Events that are read at a time once the answer has begun.
const READ: usize = 1000;

/// Events that were found, as they stand in the log. What they are shown as is made when it goes out: it takes many times
/// their room.
pub(super) struct Items {
    pub(super) found: VecDeque<Logged>,
    /// Whether each shows the whole CloudEvent.
    pub(super) whole: bool,
    /// The nodes that they are about, if wanted.
    pub(super) nodes: HashMap<String, Wire>,
    /// Among the large answers, as long as they are there.
    pub(super) _counted: Option<Place>,
}

/// What is left of a history whose first events were read.
pub(super) struct Rest {
    pub(super) context: Context,
    /// Everything but where it goes on, and how many events are wanted.
    pub(super) query: HistoryQuery,
    pub(super) left: usize,
    /// Whether the last millisecond is shown whole.
    pub(super) whole_moment: bool,
    /// Whether they carry their nodes.
    pub(super) recursive: bool,
    /// Whether each shows the whole CloudEvent.
    pub(super) whole: bool,
}

impl Items {
    /// Writes one event as KernelCI's history shows it (contract 5.1).
    fn write(&self, logged: &Logged, with_revision: bool, out: &mut String) -> Result<()> {
        let event: &RawValue = serde_json::from_str(&logged.entry.json).map_err(Error::internal)?;
        let parts: Parts<'_> = serde_json::from_str(event.get()).map_err(Error::internal)?;
        let time = parts.time.and_then(|text| EventTime::parse_iso(&text).ok());
        let node = subject(parts.data).and_then(|id| self.nodes.get(&id.to_hex()));
        let node = node.map(|node| {
            let mut node = node.clone();
            if !with_revision {
                node.shift_remove("revision");
            }
            node
        });
        let shown = Shown {
            timestamp: time.map(EventTime::to_wire),
            sequence_id: logged.entry.seq,
            channel: &logged.channel,
            owner: parts.owner,
            data: parts.data,
            id: parts.id,
            event: self.whole.then_some(event),
            node,
        };
        out.push_str(&serde_json::to_string(&shown).map_err(Error::internal)?);
        Ok(())
    }

    /// Bytes of the events that have not gone out.
    fn bytes(&self) -> usize {
        self.found.iter().map(|logged| logged.entry.json.len()).sum()
    }

    /// The next of them, about so many bytes, with commas before all but the very first.
    fn take(&mut self, bytes: usize, is_first: bool, with_revision: bool) -> Result<String> {
        let mut text = String::new();
        while text.len() < bytes
            && let Some(logged) = self.found.pop_front()
        {
            if !(is_first && text.is_empty()) {
                text.push(',');
            }
            self.write(&logged, with_revision, &mut text)?;
        }
        Ok(text)
    }

    /// All of them, with commas before each.
    fn texts(self, with_revision: bool) -> BoxStream<'static, Result<String>> {
        let texts = stream::try_unfold(self, move |mut items| async move {
            let Some(next) = items.found.front().map(|logged| logged.entry.json.len()) else {
                return Ok(None);
            };
            let work = move || Ok((items.take(PIECE, false, with_revision)?, items));
            apart(next, work).await.map(Some)
        });
        texts.boxed()
    }
}

impl Rest {
    fn pieces(self, reading: Reading) -> BoxStream<'static, Result<Items>> {
        let pieces = stream::try_unfold((self, reading), async |(mut rest, reading)| {
            if rest.left == 0 {
                return Ok(None);
            }
            reading.keep()?;
            let items = rest.next().await?;
            Ok(items.map(|items| (items, (rest, reading))))
        });
        pieces.boxed()
    }

    /// The next events, if there are any.
    async fn next(&mut self) -> Result<Option<Items>> {
        let app = &self.context.app;
        self.query.limit = self.left.min(READ);
        let turn = self.context.search(is_quick(&self.query.filter)).await?;
        let mut found = app.log.find(&self.query).await?;
        let bytes: usize = found.iter().map(|logged| logged.entry.json.len()).sum();
        let full = found.len() == self.query.limit || bytes >= HISTORY_BYTES;
        self.left = if full { self.left - found.len() } else { 0 };
        let Some(last) = found.last() else { return Ok(None) };
        self.query.after = Some(read_cursor(&cursor(last, self.query.is_by_seq()))?);
        if full && self.left == 0 && self.whole_moment {
            let more = rest_of_moment(&self.context, &self.query, last).await?;
            found.extend(more);
        }
        drop(turn);
        let nodes = if self.recursive { nodes_of(&self.context, &found).await? } else { HashMap::new() };
        let counted = app.quotas.large(self.context.holder(), bytes + held(&nodes))?;
        Ok(Some(Items { found: found.into(), whole: self.whole, nodes, _counted: counted }))
    }
}

/// The parts of an event that the history shows by themselves, as they stand in its text: an event may hold a hundred
/// thousand values.
#[derive(Deserialize)]
struct Parts<'e> {
    #[serde(default, borrow)]
    time: Option<Cow<'e, str>>,
    #[serde(default, borrow)]
    owner: Option<&'e RawValue>,
    #[serde(default, borrow)]
    data: Option<&'e RawValue>,
    #[serde(default, borrow)]
    id: Option<&'e RawValue>,
}

/// An event as the history shows it.
#[derive(Serialize)]
struct Shown<'e> {
    timestamp: Option<String>,
    sequence_id: u64,
    channel: &'e str,
    owner: Option<&'e RawValue>,
    data: Option<&'e RawValue>,
    id: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Wire>,
}

/// The node that an event with this payload is about.
fn subject(data: Option<&RawValue>) -> Option<ObjectId> {
    #[derive(Deserialize)]
    struct About<'e> {
        #[serde(borrow)]
        id: Cow<'e, str>,
    }
    serde_json::from_str::<About<'_>>(data?.get()).ok()?.id.parse().ok()
}

/// About how many bytes these nodes take: a value has some five times as many as its text.
pub(super) fn held(nodes: &HashMap<String, Wire>) -> usize {
    nodes.values().filter_map(|node| serde_json::to_string(node).ok()).map(|text| 5 * text.len()).sum()
}

/// The nodes that these events are about.
pub(super) async fn nodes_of(context: &Context, found: &[Logged]) -> Result<HashMap<String, Wire>> {
    let id = |logged: &Logged| subject(serde_json::from_str::<Parts<'_>>(&logged.entry.json).ok()?.data);
    let mut ids: Vec<ObjectId> = found.iter().filter_map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    let nodes = context.app.store.nodes(&ids).await?;
    let id = |node: &Wire| Some(node.get("id")?.as_str()?.to_owned());
    Ok(nodes.into_iter().filter_map(|node| Some((id(&node)?, node))).collect())
}

impl Reply for Found {
    fn weight(&self) -> usize {
        self.items.bytes() + held(&self.items.nodes)
    }

    fn rpc(&self) -> Result<String> {
        let mut text = String::from("{\"items\":[");
        for (number, logged) in self.items.found.iter().enumerate() {
            if number > 0 {
                text.push(',');
            }
            self.items.write(logged, true, &mut text)?;
        }
        text.push_str(&self.tail());
        Ok(text)
    }

    /// In pieces if it is large: each event is dropped when it has gone out. Over REST all events follow that are asked
    /// for.
    fn rest(self: Box<Self>, member: Option<&str>, with_revision: bool) -> Result<RestReply> {
        let (head, tail, rest) = match member {
            Some(_) => ("[", "]".to_owned(), self.rest),
            // Who is told where to go on goes on by themselves.
            None => ("{\"items\":[", self.tail(), None),
        };
        let mut items = self.items;
        let first = head.to_owned() + &items.take(PIECE, true, with_revision)?;
        if items.found.is_empty() && rest.is_none() {
            return Ok(RestReply { body: RestBody::Whole(first + &tail), revision: None });
        }
        let rest = rest.map(|rest| {
            let reading = rest.context.app.lists.place(rest.context.holder())?;
            Ok::<_, Error>(rest.pieces(reading))
        });
        let rest = rest.transpose()?.unwrap_or_else(|| stream::empty().boxed());
        let rest = rest.map_ok(move |items| items.texts(with_revision)).try_flatten();
        let around = |text: String| stream::once(std::future::ready(Ok(text)));
        let pieces = around(first).chain(items.texts(with_revision)).chain(rest).chain(around(tail)).boxed();
        Ok(RestReply { body: RestBody::Pieces(pieces), revision: None })
    }
}

impl Found {
    fn tail(&self) -> String {
        format!("],\"next\":{}}}", json!(self.next))
    }
}
