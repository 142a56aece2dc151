//! Writing a node and everything below it at once: all or nothing, in one commit whatever the number of nodes.

use std::collections::{BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::write::{
    MOST_TRIES, again, editable, event, expect, groups_exist, key, not_permitted, parent_exists, pause,
    repeated, stored, too_busy,
};
use super::{joined, node_id, size};
use crate::auth::rights::may_edit;
use crate::error::{Error, Result};
use crate::model::node::hierarchy::{Known, MAX_NODES, Tree};
use crate::model::{Node, ObjectId, Timestamp};
use crate::ops::{Context, Reply, RestBody, RestReply};
use crate::store::{Commit, Committed, Expect, Raw, Wire, Write};
use crate::sync::apart;

/// Bytes that a hierarchy may well have: work on thousands of nodes takes a while.
const MANY: usize = 1 << 20;

/// A hierarchy: a node with what is below it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The node that becomes the root; it exists.
    id: String,
    /// `{"node": {…}, "child_nodes": [the same shape, …]}`, up to 20,000 nodes.
    #[schemars(with = "Tree")]
    tree: Value,
    /// Repeated with the same key within a day, the nodes of the first time are answered.
    #[serde(default)]
    idempotency_key: Option<String>,
    /// 409 unless the root is at this revision.
    #[serde(default)]
    if_revision: Option<u64>,
    /// One event for the root, or one for each node.
    #[serde(default)]
    events: Events,
}

/// Which events a hierarchy makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Events {
    /// One, for the root.
    #[default]
    Root,
    /// One for each node.
    Each,
}

/// The nodes of a hierarchy, depth first. As text they take a tenth of the memory.
#[derive(JsonSchema)]
pub struct Submitted {
    #[schemars(with = "Vec<Node>")]
    nodes: Vec<Raw>,
}

/// Contract 3.6, all or nothing.
pub async fn submit(context: Context, params: Submit) -> Result<Submitted> {
    let user = context.caller.user()?.clone();
    let id = node_id(&params.id)?;
    let idempotency = key(&context, "node.submit", params.idempotency_key.as_deref())?;
    if let Some(ids) = repeated(&context, idempotency.as_ref()).await? {
        return Submitted::of(again(&context, &ids).await?);
    }
    let mut root = editable(&context, id).await?;
    let mut request = Request::new(params.tree);
    for tries in 0..MOST_TRIES {
        if tries > 0 {
            pause(tries).await;
            root = editable(&context, id).await?;
        }
        let tree;
        (request, tree) = apart(MANY, move || request.parse(None)).await?;
        let tree = match tree {
            Ok(tree) => tree,
            Err(_) => {
                // What is wrong may be what is stored.
                let ids;
                (request, ids) = apart(MANY, move || request.ids()).await?;
                let stored = stored(&context, &ids).await?;
                let known = Known::new(&root, stored.values());
                let tree;
                (request, tree) = apart(MANY, move || request.parse(Some(&known))).await?;
                tree?
            }
        };
        expect(&root, params.if_revision)?;
        let stored = stored(&context, &tree.existing_ids().collect::<Vec<_>>()).await?;
        if stored.values().any(|node| !may_edit(&user, node)) {
            return Err(not_permitted());
        }
        let before = Before { root: root.clone(), stored };
        let (with, name, events) = (context.clone(), user.username.clone(), params.events);
        let Planned { writes, nodes, groups } =
            apart(MANY, move || plan(&with, tree, &before, &name, events)).await?;
        groups_exist(&context, &groups).await?;
        if let Some(new_root) = writes.first().filter(|write| write.node.parent != root.parent) {
            parent_exists(&context, &new_root.node).await?;
        }
        let commit = Commit { writes, idempotency: idempotency.clone() };
        match context.app.store.commit(commit).await? {
            Committed::Done => return Ok(Submitted { nodes }),
            Committed::Repeated(ids) => return Submitted::of(again(&context, &ids).await?),
            Committed::Conflict(..) => {}
        }
    }
    Err(too_busy())
}

/// The request as it came: a tree is used up by every try to write it, and most need one. As text it takes a tenth of
/// the memory.
enum Request {
    Read(Value),
    Text(String),
}

impl Request {
    fn new(tree: Value) -> Request {
        Request::Read(tree)
    }

    /// Nothing is wrong with what is `known`.
    fn parse(self, known: Option<&Known>) -> Result<(Request, Result<Tree>)> {
        let (text, tree) = self.read()?;
        let tree = match known {
            Some(known) => Tree::parse_besides(tree, known),
            None => Tree::parse(tree),
        };
        Ok((Request::Text(text), tree))
    }

    /// The existing nodes below the root that it names, as many as a tree may have.
    fn ids(self) -> Result<(Request, Vec<ObjectId>)> {
        let (text, tree) = self.read()?;
        Ok((Request::Text(text), Tree::ids(&tree).into_iter().take(MAX_NODES).collect()))
    }

    fn read(self) -> Result<(String, Value)> {
        match self {
            Request::Read(tree) => Ok((tree.to_string(), tree)),
            Request::Text(text) => {
                let tree = serde_json::from_str(&text).map_err(Error::internal)?;
                Ok((text, tree))
            }
        }
    }
}

/// What stands where a hierarchy is to be written.
struct Before {
    root: Node,
    /// The nodes below the root that it replaces.
    stored: HashMap<ObjectId, Node>,
}

/// A hierarchy, ready to be written.
struct Planned {
    writes: Vec<Write>,
    /// The answer.
    nodes: Vec<Raw>,
    /// Groups that new nodes name.
    groups: BTreeSet<String>,
}

fn plan(context: &Context, tree: Tree, before: &Before, username: &str, events: Events) -> Result<Planned> {
    let built = tree.build(&before.root, &before.stored, username, Timestamp::now())?;
    context.caller.check_covers_tree(&before.root, &before.stored, built.iter().map(|(node, _)| node))?;
    let new = built.iter().filter(|(_, revision)| revision.is_none());
    let groups = new.flat_map(|(node, _)| node.user_groups.iter().cloned()).collect();
    let nodes = built.iter().map(|(node, _)| text_of(node)).collect::<Result<_>>()?;
    let write = |(node, revision): (Node, Option<u64>)| {
        let is_root = node.id == before.root.id;
        let old = if is_root { Some(&before.root) } else { before.stored.get(&node.id) };
        let op = if old.is_some() { "updated" } else { "created" };
        let previous = old.map(|old| (old.state, old.result));
        let wanted = is_root || events == Events::Each;
        let events = wanted.then(|| event(context, &node, op, previous, true)).into_iter().collect();
        Write { node: node.into(), expect: revision.map_or(Expect::Absent, Expect::Revision), events }
    };
    Ok(Planned { writes: built.into_iter().map(write).collect(), nodes, groups })
}

impl Submitted {
    fn of(nodes: Vec<Wire>) -> Result<Submitted> {
        Ok(Submitted { nodes: nodes.iter().map(text_of).collect::<Result<_>>()? })
    }
}

fn text_of(node: &impl Serialize) -> Result<Raw> {
    Ok(Raw::Text(serde_json::to_string(node).map_err(Error::internal)?.into()))
}

impl Reply for Submitted {
    fn weight(&self) -> usize {
        size(&self.nodes)
    }
    fn rpc(&self) -> Result<String> {
        joined("{\"nodes\":[", &self.nodes, "]}", true)
    }
    fn rest(self: Box<Self>, member: Option<&str>, with_revision: bool) -> Result<RestReply> {
        let (head, tail) = if member.is_some() { ("[", "]") } else { ("{\"nodes\":[", "]}") };
        let body = RestBody::Whole(joined(head, &self.nodes, tail, with_revision)?);
        Ok(RestReply { body, revision: None })
    }
}
