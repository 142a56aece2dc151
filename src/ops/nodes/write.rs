//! Nodes: writing one, or one flag of many. Every write reads the node, applies the rules of the model, and commits on
//! the condition that the node still is what was read; if it is not, all of it is done again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{idempotency_key, missing, node_id};
use crate::error::{Error, Kind, Result};
use crate::model::node::described::{Body, Changes};
use crate::model::node::{self, IdLast, event_data};
use crate::model::{Event, NODE_CHANNEL, Node, ObjectId, Timestamp, footprint};
use crate::ops::events::EVENT_TYPE;
use crate::ops::{Context, Object, Reply, RestBody, RestReply};
use crate::store::{Commit, Committed, Expect, IdempotencyKey, Wire, Write};
use crate::sync::{HEAVY, in_place_if};

/// How often a write is done again because others were faster.
pub(super) const MOST_TRIES: u32 = 50;
/// As many as a hierarchy may have.
const MOST_MARKED: usize = 20_000;

/// A new node.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The node, without `id`; `kind`, `name` and `path` are required.
    #[schemars(with = "Body")]
    node: Value,
    /// Repeated with the same key (1 to 128 characters) within a day, the node of the first time is answered.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// A node's new content.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// 24 hex digits.
    id: String,
    /// The whole node.
    #[schemars(with = "Body")]
    node: Value,
    /// 409 unless the node is at this revision.
    #[serde(default)]
    if_revision: Option<u64>,
    /// Write without an event.
    #[serde(default)]
    noevent: bool,
    /// Repeated with the same key (1 to 128 characters) within a day, it is done once.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// Some fields of a node.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// 24 hex digits.
    id: String,
    /// New values out of `state, result, artifacts, data, debug, jobfilter, platform_filter, timeout, holdoff,
    /// processed_by_kcidb_bridge`; each replaces the old value whole.
    #[schemars(with = "Changes")]
    set: Object,
    /// 409 unless the node is at this revision.
    #[serde(default)]
    if_revision: Option<u64>,
    /// Write without an event.
    #[serde(default)]
    noevent: bool,
    /// Pass over fields that cannot be set, instead of refusing them.
    #[serde(default)]
    ignore_others: bool,
    /// Repeated with the same key (1 to 128 characters) within a day, it is done once.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// One flag for many nodes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// At most 20,000 ids.
    ids: Vec<String>,
    /// `processed_by_kcidb_bridge`.
    field: String,
    /// true or false.
    #[schemars(with = "bool")]
    value: Value,
    /// Write without events.
    #[serde(default)]
    noevent: bool,
    /// Repeated with the same key (1 to 128 characters) within a day, it is done once.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// How many were written.
#[derive(Serialize, JsonSchema)]
pub struct Marked {
    /// Nodes that were updated.
    updated: u64,
}

/// A node as it was written.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Answer {
    /// Just made.
    New(#[schemars(with = "Node")] IdLast),
    /// Just changed.
    Written(#[schemars(with = "Node")] Arc<Node>),
    /// Read, because it was written earlier.
    Stored(#[schemars(with = "Node")] Wire),
}

impl Answer {
    fn wire(&self) -> Result<Value> {
        match self {
            Answer::New(node) => serde_json::to_value(node),
            Answer::Written(node) => serde_json::to_value(&**node),
            Answer::Stored(wire) => serde_json::to_value(wire),
        }
        .map_err(Error::internal)
    }
}

impl Reply for Answer {
    fn weight(&self) -> usize {
        match self {
            Answer::New(IdLast(node)) | Answer::Written(node) => node.heap(),
            Answer::Stored(wire) => footprint::of_members(wire),
        }
    }
    fn rpc(&self) -> Result<String> {
        match self {
            Answer::New(node) => serde_json::to_string(node),
            Answer::Written(node) => serde_json::to_string(&**node),
            Answer::Stored(wire) => serde_json::to_string(wire),
        }
        .map_err(Error::internal)
    }
    fn rest(self: Box<Self>, _member: Option<&str>, with_revision: bool) -> Result<RestReply> {
        let mut body = self.wire()?;
        let revision = body.get("revision").and_then(Value::as_u64);
        if let Some(node) = body.as_object_mut().filter(|_| !with_revision) {
            node.shift_remove("revision");
        }
        Ok(RestReply { body: RestBody::Whole(body.to_string()), revision })
    }
}

/// Contract 3.2.
pub async fn create(context: Context, params: Create) -> Result<Answer> {
    let user = context.caller.user()?;
    let idempotency = key(&context, "node.create", params.idempotency_key.as_deref())?;
    let mut node = Node::create(&params.node, Timestamp::now())?;
    node.owner = Some(user.username.clone());
    context.caller.check_covers(&node)?;
    let store = &context.app.store;
    if let Err(error) = references_exist(&context, &node).await {
        // What the node refers to may have gone since the first time. (The commit itself finds the key otherwise.)
        return match repeated(&context, idempotency.as_ref()).await? {
            Some(ids) => Ok(Answer::Stored(id_last(again(&context, &ids).await?.swap_remove(0)))),
            None => Err(error),
        };
    }
    let event = event(&context, &node, "created", None, false);
    let node = Arc::new(node);
    let write = Write { node: node.clone(), expect: Expect::Absent, events: vec![event] };
    match store.commit(Commit { writes: vec![write], idempotency }).await? {
        Committed::Done => Ok(Answer::New(IdLast(node))),
        Committed::Repeated(ids) => Ok(Answer::Stored(id_last(again(&context, &ids).await?.swap_remove(0)))),
        Committed::Conflict(id, _) => Err(Error::internal(anyhow::anyhow!("the new id {id} is taken"))),
    }
}

/// As [`IdLast`].
fn id_last(mut node: Wire) -> Wire {
    if let Some(id) = node.shift_remove("id") {
        node.insert("id".into(), id);
    }
    node
}

/// Contract 3.3.
pub async fn replace(context: Context, params: Replace) -> Result<Answer> {
    let idempotency = key(&context, "node.replace", params.idempotency_key.as_deref())?;
    let options = Options { if_revision: params.if_revision, noevent: params.noevent, idempotency };
    change(&context, &params.id, options, |stored, now| stored.replace(&params.node, now)).await
}

/// Contract 3.5.
pub async fn update(context: Context, params: Update) -> Result<Answer> {
    let idempotency = key(&context, "node.update", params.idempotency_key.as_deref())?;
    let options = Options { if_revision: params.if_revision, noevent: params.noevent, idempotency };
    change(&context, &params.id, options, |stored, now| stored.patch(&params.set, now, !params.ignore_others))
        .await
}

struct Options {
    if_revision: Option<u64>,
    noevent: bool,
    idempotency: Option<IdempotencyKey>,
}

/// Reads, checks and writes one node until nobody was faster.
async fn change(
    context: &Context,
    id: &str,
    options: Options,
    edit: impl Fn(&Node, Timestamp) -> Result<Node>,
) -> Result<Answer> {
    let id = node_id(id)?;
    for tries in 0..MOST_TRIES {
        let (stored, node) = match edited(context, id, &options, &edit).await {
            Ok(edited) => edited,
            // The rules may speak against what the first time has done. (The commit itself finds the key otherwise.)
            Err(error) => {
                return match repeated(context, options.idempotency.as_ref()).await? {
                    Some(ids) => Ok(Answer::Stored(again(context, &ids).await?.swap_remove(0))),
                    None => Err(error),
                };
            }
        };
        let previous = Some((stored.state, stored.result));
        let events = match options.noevent {
            true => Vec::new(),
            false => {
                in_place_if(node.heap() > HEAVY, || vec![event(context, &node, "updated", previous, false)])
            }
        };
        let node = Arc::new(node);
        let write = Write { node: node.clone(), expect: Expect::Revision(stored.revision), events };
        let commit = Commit { writes: vec![write], idempotency: options.idempotency.clone() };
        match context.app.store.commit(commit).await? {
            Committed::Done => return Ok(Answer::Written(node)),
            Committed::Repeated(ids) => {
                return Ok(Answer::Stored(again(context, &ids).await?.swap_remove(0)));
            }
            Committed::Conflict(_, None) => return Err(missing(id)),
            Committed::Conflict(..) => pause(tries).await,
        }
    }
    Err(too_busy())
}

/// The node as it stands, and as it would be.
async fn edited(
    context: &Context,
    id: ObjectId,
    options: &Options,
    edit: impl Fn(&Node, Timestamp) -> Result<Node>,
) -> Result<(Node, Node)> {
    let stored = editable(context, id).await?;
    expect(&stored, options.if_revision)?;
    let node = in_place_if(stored.heap() > HEAVY, || edit(&stored, Timestamp::now()))?;
    context.caller.check_covers(&node)?;
    if node.parent != stored.parent {
        parent_exists(context, &node).await?;
    }
    Ok((stored, node))
}

/// Contract 3.7: nodes that the user may not edit are skipped; a missing one is 404 and nothing is written.
pub async fn mark(context: Context, params: Mark) -> Result<Marked> {
    let idempotency = key(&context, "node.mark", params.idempotency_key.as_deref())?;
    if params.ids.len() > MOST_MARKED {
        return Err(Error::invalid("ids", format!("expected at most {MOST_MARKED}")));
    }
    let mut ids = params.ids.iter().map(|id| node_id(id)).collect::<Result<Vec<_>>>()?;
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(Marked { updated: 0 });
    }
    let value = node::mark(&params.field, &params.value)?;
    for tries in 0..MOST_TRIES {
        let mut stored = stored(&context, &ids).await?;
        if let Some(gone) = ids.iter().find(|id| !stored.contains_key(id)) {
            return Err(missing(*gone));
        }
        stored.retain(|_, node| context.caller.may_edit(node));
        let now = Timestamp::now();
        let writes: Vec<Write> = stored
            .values()
            .map(|before| {
                let node = before.marked(value, now);
                let previous = Some((before.state, before.result));
                let event = (!params.noevent).then(|| event(&context, &node, "updated", previous, false));
                let events = event.into_iter().collect();
                Write { node: node.into(), expect: Expect::Revision(before.revision), events }
            })
            .collect();
        let updated = writes.len() as u64;
        if updated == 0 {
            return Ok(Marked { updated });
        }
        match context.app.store.commit(Commit { writes, idempotency: idempotency.clone() }).await? {
            Committed::Conflict(..) => pause(tries).await,
            _ => return Ok(Marked { updated }),
        }
    }
    Err(too_busy())
}

/// The node, if the user may edit it (contract 3.4).
pub(in crate::ops) async fn editable(context: &Context, id: ObjectId) -> Result<Node> {
    let wire = context.app.store.nodes(&[id]).await?.pop().ok_or_else(|| missing(id))?;
    let node = in_place_if(footprint::of_members(&wire) > HEAVY, || Node::from_wire(&wire))?;
    if !context.caller.may_edit(&node) {
        return Err(not_permitted());
    }
    Ok(node)
}

/// Fails unless the node is there and the caller's to edit.
pub async fn may_edit(context: Context, id: String) -> Result<()> {
    editable(&context, node_id(&id)?).await.map(drop)
}

pub(super) async fn stored(context: &Context, ids: &[ObjectId]) -> Result<HashMap<ObjectId, Node>> {
    let nodes = context.app.store.nodes(ids).await?;
    nodes.iter().map(|wire| Node::from_wire(wire).map(|node| (node.id, node))).collect()
}

async fn references_exist(context: &Context, node: &Node) -> Result<()> {
    parent_exists(context, node).await?;
    groups_exist(context, &node.user_groups).await
}

pub(super) async fn parent_exists(context: &Context, node: &Node) -> Result<()> {
    match node.parent {
        Some(parent) if context.app.store.nodes(&[parent]).await?.is_empty() => {
            Err(Error::not_found(format!("Parent not found with id: {parent}")))
        }
        _ => Ok(()),
    }
}

pub(super) async fn groups_exist(context: &Context, names: impl IntoIterator<Item = &String>) -> Result<()> {
    for name in names {
        if context.app.store.group(name).await?.is_none() {
            return Err(Error::bad_request(format!("User group does not exist with name: {name}")));
        }
    }
    Ok(())
}

/// What a request of the same key wrote: before the rules are applied again to what it has changed.
pub(super) async fn repeated(
    context: &Context,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Vec<ObjectId>>> {
    match key {
        Some(key) => context.app.store.repeated(key).await,
        None => Ok(None),
    }
}

/// The nodes of a request that was done before, in the order of its answer.
pub(super) async fn again(context: &Context, ids: &[ObjectId]) -> Result<Vec<Wire>> {
    let nodes = context.app.store.nodes(ids).await?;
    let place: HashMap<String, usize> = ids.iter().enumerate().map(|(at, id)| (id.to_hex(), at)).collect();
    let at = |node: &Wire| node.get("id").and_then(Value::as_str).and_then(|id| place.get(id).copied());
    let mut nodes: Vec<Wire> = nodes.into_iter().filter(|node| at(node).is_some()).collect();
    nodes.sort_by_key(at);
    if nodes.is_empty() {
        return Err(Error::not_found("the node that this idempotency key made is gone"));
    }
    Ok(nodes)
}

pub(super) fn expect(stored: &Node, if_revision: Option<u64>) -> Result<()> {
    match if_revision {
        Some(wanted) if wanted != stored.revision => Err(Error::revision_conflict(stored.revision)),
        _ => Ok(()),
    }
}

pub(super) fn event(
    context: &Context,
    node: &Node,
    op: &'static str,
    previous: Option<(node::State, Option<node::Outcome>)>,
    is_hierarchy: bool,
) -> Event {
    Event {
        id: ObjectId::new(),
        channel: NODE_CHANNEL.to_owned(),
        source: context.app.config.cloud_events_source.clone(),
        kind: EVENT_TYPE.to_owned(),
        subject: Some(node.id.to_hex()),
        // Not that of the node, which its author may say.
        time: Timestamp::now().into(),
        owner: node.owner.clone(),
        partitionkey: node.treeid.clone(),
        extensions: Object::new(),
        data: Value::Object(event_data(node, op, previous, is_hierarchy)),
    }
}

pub(super) fn key(
    context: &Context,
    method: &'static str,
    key: Option<&str>,
) -> Result<Option<IdempotencyKey>> {
    let (user, key) = (context.caller.user()?.id, idempotency_key(key)?);
    let fingerprint = context.fingerprint().to_owned();
    Ok(key.map(|key| IdempotencyKey { user, method, key: key.to_owned(), fingerprint }))
}

pub(super) fn not_permitted() -> Error {
    Error::new(Kind::Unauthorized, "Unauthorized to complete the operation")
}

pub(super) fn too_busy() -> Error {
    Error::new(Kind::Conflict, "the node is written by too many at once, try again").retry_after(500)
}

/// Lets the others finish, a little longer each time and never all together.
pub(super) async fn pause(tries: u32) {
    if tries > 0 {
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..500 * u64::from(tries)))).await;
    }
}
