//! The history of events (contract 5.1).
//!
//! One channel is read in the order of its sequence, so that a reader who goes on behind the last `sequence_id` misses
//! nothing. Over all channels, and from a time on, the order is that of time, which is the order in which events came into
//! the log: a client that polls with `from=<the last timestamp>` misses nothing either. Only events of KernelCI's own
//! server have the same time; an answer from a time on does not end between those, and may have more events than `limit`.
//! What was acknowledged before the request is in the answer.

mod items;

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use self::items::{Items, Rest, held, nodes_of};
use super::Context;
use super::channels::{may_read, visible};
use super::events::channel_name;
use super::loose::Loose;
use super::schema::types;
use crate::error::{Error, Result};
use crate::event_log::{After, HISTORY_BYTES, HistoryQuery, Logged};
use crate::filter::{EVENT, Filter, PATTERN_COST, Pattern, Test};
use crate::model::{EventTime, ObjectId};

/// Most events that are read before an answer begins, and most of a session's message.
const MOST_FOUND: usize = 10_000;
/// Most events of one answer that carry their nodes.
const MOST_RECURSIVE: usize = 1000;
/// Most further events of the same time.
const MOST_MORE: usize = 1000;
/// Most `ids`.
const MOST_IDS: usize = 1000;

/// Parameters that REST takes from the query; the others are conditions on the event.
pub const REST: &[&str] = &[
    "channel",
    "after",
    "from",
    "id",
    "ids",
    "node_id",
    "kind",
    "state",
    "result",
    "op",
    "name",
    "group",
    "owner",
    "path",
    "limit",
    "offset",
    "recursive",
];

/// Which events. Conditions are AND-ed; blank text is no condition.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// One channel, in the order of its sequence (from a time on: in the order of time); without it all channels, in the
    /// order of time. Dead letters are for the owner of the group and superusers.
    #[serde(default)]
    channel: Option<String>,
    /// A condition on the CloudEvent, e.g. `{"data.kind":"job"}`, or the text of a query string.
    #[serde(default)]
    #[schemars(with = "Option<types::Filter>")]
    filter: Option<Value>,
    /// Only events behind this one: `next` of the page before, the `id` of an event, or in one channel its
    /// `sequence_id`.
    #[serde(default)]
    after: Option<String>,
    /// Only events later than this ISO date, e.g. the `timestamp` of the last one: nothing comes later that is earlier.
    /// An answer does not end between events of the same time, so it may have more than `limit` events.
    #[serde(default)]
    from: Option<String>,
    /// The event with this id.
    #[serde(default)]
    id: Option<String>,
    /// Events with these ids, separated by commas.
    #[serde(default)]
    ids: Option<String>,
    /// Events whose `data.id` is this.
    #[serde(default)]
    node_id: Option<String>,
    /// Events whose `data.kind` is this; likewise the next ones.
    #[serde(default)]
    kind: Option<String>,
    /// `data.state`
    #[serde(default)]
    state: Option<String>,
    /// `data.result`
    #[serde(default)]
    result: Option<String>,
    /// `data.op`: `created` or `updated`.
    #[serde(default)]
    op: Option<String>,
    /// `data.name`
    #[serde(default)]
    name: Option<String>,
    /// `data.group`
    #[serde(default)]
    group: Option<String>,
    /// `data.owner`
    #[serde(default)]
    owner: Option<String>,
    /// A regular expression that is found in an element of `data.path`.
    #[serde(default)]
    path: Option<String>,
    /// Default 50, and on the REST route all; 0 asks for all. A session's message holds at most 10,000, and `next` tells where to go on. At most 1,000
    /// if recursive.
    #[serde(default)]
    limit: Option<Loose>,
    /// So many are passed over.
    #[serde(default)]
    offset: Option<Loose>,
    /// Adds to each event the node that it is about.
    #[serde(default)]
    recursive: Option<Loose>,
    /// Whether each item has the whole CloudEvent as `event`.
    #[serde(default = "yes")]
    event: bool,
}

fn yes() -> bool {
    true
}

/// A page of the history, oldest first.
#[derive(JsonSchema)]
pub struct Found {
    /// `timestamp, sequence_id, channel, owner, data, id`, the whole CloudEvent as `event`, and `node` if recursive and
    /// there is one.
    #[schemars(with = "Vec<types::HistoryItem>")]
    items: Items,
    /// Pass as `after` for what follows; null when this was all for now.
    next: Option<String>,
    #[schemars(skip)]
    rest: Option<Rest>,
}

/// The history, oldest first.
pub async fn find(context: Context, params: Find) -> Result<Found> {
    let params = Find {
        channel: given(params.channel),
        after: given(params.after),
        from: given(params.from),
        ..params
    };
    if let Some(channel) = &params.channel {
        channel_name("channel", channel)?;
        may_read(&context.app, &context.caller, channel).await?;
    }
    let recursive = Loose::flag("recursive", params.recursive.as_ref())?;
    let limit = limit(&params, recursive)?;
    let skip = Loose::integer(params.offset.as_ref())?.unwrap_or(0);
    let skip = usize::try_from(skip).map_err(|_| Error::bad_request("offset: expected 0 or more"))?;
    let from = params.from.as_deref().map(read_from).transpose()?;
    let mut query = HistoryQuery {
        channel: params.channel.clone(),
        filter: filter(&params)?,
        after: None,
        skip,
        limit: limit.min(MOST_FOUND),
    };
    query.after = match &params.after {
        Some(text) => Some(place(&context, text, params.channel.as_deref()).await?),
        None => from.map(|time| After::Time(time, ObjectId::from_bytes([0xff; 12]))),
    };
    if let (None, Some(visible)) = (&params.channel, visible(&context)) {
        query.filter = Filter::And(vec![query.filter, visible]);
    }
    if let (Some(time), true) = (from, params.after.is_some()) {
        let later = Test::Gt(time.to_text().into());
        query.filter = Filter::And(vec![query.filter, test("time", later)]);
    }
    context.app.log.settled().await;
    let turn = context.search(is_quick(&query.filter)).await?;
    let mut found = context.app.log.find(&query).await?;
    let bytes: usize = found.iter().map(|logged| logged.entry.json.len()).sum();
    let full = found.len() == query.limit || bytes >= HISTORY_BYTES;
    if let (Some(last), Some(_)) = (found.last().filter(|_| full && skip == 0), from) {
        let more = rest_of_moment(&context, &query, last).await?;
        found.extend(more);
    }
    drop(turn);
    let next = found.last().filter(|_| full).map(|last| cursor(last, query.is_by_seq()));
    let left = limit.saturating_sub(found.len());
    let rest = match &next {
        Some(next) if left > 0 => {
            query = HistoryQuery { after: Some(read_cursor(next)?), skip: 0, ..query };
            let (context, whole) = (context.clone(), params.event);
            Some(Rest { context, query, left, whole_moment: from.is_some() && skip == 0, recursive, whole })
        }
        _ => None,
    };
    let nodes = if recursive { nodes_of(&context, &found).await? } else { HashMap::new() };
    let counted = context.app.quotas.large(context.holder(), bytes + held(&nodes))?;
    Ok(Found {
        items: Items { found: found.into(), whole: params.event, nodes, _counted: counted },
        next,
        rest,
    })
}

/// Text that is not blank.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn limit(params: &Find, recursive: bool) -> Result<usize> {
    let limit = Loose::integer(params.limit.as_ref())?;
    let limit = match limit.map_or(Ok(50), usize::try_from) {
        Ok(0) => usize::MAX,
        Ok(limit) => limit,
        Err(_) => return Err(Error::bad_request("limit: expected 0 or more")),
    };
    if recursive && limit > MOST_RECURSIVE {
        return Err(Error::bad_request("Recursive limit is too large, max is 1000"));
    }
    Ok(limit)
}

fn read_from(text: &str) -> Result<EventTime> {
    EventTime::parse_iso(text)
        .map_err(|_| Error::bad_request("Invalid 'from' parameter, must be an ISO 8601 datetime"))
}

/// All conditions but those on the place in the history.
fn filter(params: &Find) -> Result<Filter> {
    let own = match &params.filter {
        None => Filter::all(),
        Some(Value::String(text)) => {
            let pairs: Vec<_> = url::form_urlencoded::parse(text.as_bytes()).collect();
            Filter::from_query(pairs.iter().map(|(name, value)| (&**name, &**value)), &EVENT)?
        }
        Some(filter) => Filter::from_json(filter, &EVENT)?,
    };
    let mut all = Vec::new();
    for (path, value) in [
        ("data.kind", &params.kind),
        ("data.state", &params.state),
        ("data.result", &params.result),
        ("data.op", &params.op),
        ("data.name", &params.name),
        ("data.group", &params.group),
        ("data.owner", &params.owner),
        ("data.id", &params.node_id),
    ] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            all.push(test(path, Test::Eq(value.as_str().into())));
        }
    }
    let both = given(params.node_id.clone()).is_some() && mentions_node(&own);
    if both {
        return Err(Error::bad_request("Provide either node_id or data.id, not both"));
    }
    if let Some(path) = params.path.as_ref().filter(|path| !path.is_empty()) {
        let pattern = Pattern::new(path).map_err(|reason| Error::bad_request(format!("path: {reason}")))?;
        all.push(test("data.path", Test::Re(pattern)));
    }
    all.extend(ids(params)?.map(|ids| test("id", Test::In(ids))));
    all.push(own);
    Ok(Filter::And(all))
}

fn ids(params: &Find) -> Result<Option<Vec<Value>>> {
    let (id, ids) =
        (params.id.as_ref().filter(|id| !id.is_empty()), params.ids.as_ref().filter(|ids| !ids.is_empty()));
    let hex = |text: &str| text.trim().parse::<ObjectId>().ok().map(|id| Value::from(id.to_hex()));
    match (id, ids) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Error::bad_request("Provide either id or ids, not both")),
        (Some(id), None) => match hex(id) {
            Some(id) => Ok(Some(vec![id])),
            None => Err(Error::bad_request("Invalid id format")),
        },
        (None, Some(ids)) => {
            let ids: Vec<&str> = ids.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
            if ids.is_empty() {
                return Err(Error::bad_request("ids must contain at least one id"));
            }
            if ids.len() > MOST_IDS {
                return Err(Error::bad_request(format!("ids: expected at most {MOST_IDS}")));
            }
            let ids: Option<Vec<Value>> = ids.into_iter().map(hex).collect();
            ids.map(Some).ok_or_else(|| Error::bad_request("Invalid ids format"))
        }
    }
}

fn test(path: &str, test: Test) -> Filter {
    Filter::Field { path: path.to_owned(), kind: EVENT.type_of(path), test }
}

fn mentions_node(filter: &Filter) -> bool {
    match filter {
        Filter::And(parts) | Filter::Or(parts) => parts.iter().any(mentions_node),
        Filter::Not(part) => mentions_node(part),
        Filter::Field { path, .. } => path == "data.id",
    }
}

/// Where `after` points to.
async fn place(context: &Context, text: &str, channel: Option<&str>) -> Result<After> {
    if let Ok(id) = text.parse::<ObjectId>() {
        let event = test("id", Test::Eq(id.to_hex().into()));
        let query = HistoryQuery {
            channel: channel.map(str::to_owned),
            filter: event,
            after: None,
            skip: 0,
            limit: 1,
        };
        let found = context.app.log.find(&query).await?;
        let event = found.first().ok_or_else(|| {
            Error::bad_request("after: there is no event with this id in the history (any more)")
        })?;
        return read_cursor(&cursor(event, channel.is_some()));
    }
    let place = match text.parse() {
        Ok(seq) => After::Seq(seq),
        Err(_) => read_cursor(text)?,
    };
    if matches!(place, After::Seq(_)) && channel.is_none() {
        return Err(Error::invalid("after", "a sequence number is a place in one channel: name the channel"));
    }
    Ok(place)
}

/// Whether few events are looked at for each that matches, as far as one can tell: patterns are for what is rare.
fn is_quick(filter: &Filter) -> bool {
    filter.cost() < PATTERN_COST
}

/// What has the same time as `last` and stands behind it.
async fn rest_of_moment(context: &Context, query: &HistoryQuery, last: &Logged) -> Result<Vec<Logged>> {
    let After::Time(time, id) = read_cursor(&cursor(last, false))? else { return Ok(Vec::new()) };
    let same = test("time", Test::Lte(time.to_text().into()));
    let query = HistoryQuery {
        filter: Filter::And(vec![query.filter.clone(), same]),
        after: Some(After::Time(time, id)),
        limit: MOST_MORE,
        ..query.clone()
    };
    context.app.log.find(&query).await
}

pub(super) fn cursor(last: &Logged, by_seq: bool) -> String {
    let event = last.entry.value();
    let place = if by_seq { json!([last.entry.seq]) } else { json!([event.get("time"), event.get("id")]) };
    BASE64_URL_SAFE_NO_PAD.encode(place.to_string())
}

pub(super) fn read_cursor(text: &str) -> Result<After> {
    let read = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let place: Vec<Value> = serde_json::from_slice(&bytes).ok()?;
        match place.as_slice() {
            [seq] => Some(After::Seq(seq.as_u64()?)),
            [time, id] => {
                Some(After::Time(EventTime::parse_iso(time.as_str()?).ok()?, id.as_str()?.parse().ok()?))
            }
            _ => None,
        }
    };
    read().ok_or_else(|| {
        Error::invalid("after", "expected `next` of the page before, an event's id, or a sequence number")
    })
}
