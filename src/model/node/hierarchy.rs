//! Writing a node and everything below it at once (contract 3.6, as mended by D-4 to D-7).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Node, fields, kinds, state, write};
use crate::error::{Error, Kind, Result};
use crate::model::problem::{At, Problems};
use crate::model::{ObjectId, Timestamp};

/// Most nodes of a tree.
pub const MAX_NODES: usize = 20_000;
/// Most generations of a tree.
pub const MAX_DEPTH: usize = 64;

/// A checked request: a node with its children, `{"node": …, "child_nodes": [ {same}, … ]}`.
#[derive(Debug)]
pub struct Tree {
    /// Depth first, the root first, so parents stand before their children.
    items: Vec<Item>,
}

/// The nodes that a request replaces, as they are stored.
#[derive(Debug, Default)]
pub struct Known {
    root: Option<Arc<Value>>,
    below: HashMap<ObjectId, Arc<Value>>,
}

impl Known {
    /// The root, and nodes below it.
    pub fn new<'n>(root: &Node, below: impl IntoIterator<Item = &'n Node>) -> Known {
        let below = below.into_iter().map(|node| (node.id, node.known())).collect();
        Known { root: Some(root.known()), below }
    }

    /// That of the item at this place of the request, the root being the first one.
    fn of(&self, here: usize, id: Option<ObjectId>) -> Option<&Arc<Value>> {
        if here == 0 { self.root.as_ref() } else { self.below.get(&id?) }
    }
}

/// The id that the body of a node gives; `_id` wins.
fn given_id(node: &Value) -> Option<ObjectId> {
    node.get("_id").or_else(|| node.get("id")).and_then(super::shape::id)
}

/// One node of the request.
#[derive(Debug)]
struct Item {
    /// Where its parent stands, and its place among the parent's children.
    parent: Option<(usize, usize)>,
    /// Of an existing node that it replaces. Of the root the body does not say.
    id: Option<ObjectId>,
    /// Its known fields, normalised.
    fields: Map<String, Value>,
}

impl Tree {
    /// Reads a request.
    ///
    /// 422 with a list of items for its shape and for fields that every node has; 400 for a kind or its `data` and for
    /// an id that stands there twice; 413 for more than [`MAX_NODES`] nodes.
    pub fn parse(body: Value) -> Result<Tree> {
        Tree::parse_besides(body, &Known::default())
    }

    /// As [`Tree::parse`], where nothing is wrong with what is stored.
    pub fn parse_besides(body: Value, known: &Known) -> Result<Tree> {
        let mut tree = Tree { items: Vec::new() };
        let mut problems = Problems::default();
        if body.is_null() {
            problems.missing(&At::ROOT, &body);
        } else {
            tree.read(body, known, &mut problems)?;
        }
        problems.into_items()?;
        tree.check_kinds(known)?;
        tree.check_ids()?;
        Ok(tree)
    }

    /// The existing nodes below the root that a request names, whatever else may be wrong with it.
    pub fn ids(body: &Value) -> HashSet<ObjectId> {
        let (mut ids, mut todo) = (HashSet::new(), vec![body]);
        while let Some(item) = todo.pop() {
            let children = item.get("child_nodes").and_then(Value::as_array);
            for child in children.into_iter().flatten() {
                ids.extend(child.get("node").and_then(given_id));
                todo.push(child);
            }
        }
        ids
    }

    /// Walks the request with a list of what is still to do, so that nesting costs no stack.
    fn read(&mut self, body: Value, known: &Known, problems: &mut Problems) -> Result<()> {
        let mut todo = vec![(body, None, 1)];
        while let Some((value, parent, depth)) = todo.pop() {
            let here = self.items.len();
            self.items.push(Item { parent, id: None, fields: Map::new() });
            let mut own = problems.of_part();
            let children = self.read_item(here, value, known, &mut own);
            if depth == MAX_DEPTH && !children.is_empty() {
                let at = At::ROOT.key("child_nodes");
                own.value_error(&at, "trees are at most 64 generations deep", &Value::Null);
            } else {
                if self.items.len() + todo.len() + children.len() > MAX_NODES {
                    let detail = format!("child_nodes: a tree has at most {MAX_NODES} nodes");
                    return Err(Error::new(Kind::TooLarge, detail));
                }
                let children = children.into_iter().enumerate().rev();
                todo.extend(children.map(|(i, child)| (child, Some((here, i)), depth + 1)));
            }
            if !own.is_empty() {
                problems.absorb(own, &self.place(here));
            }
        }
        Ok(())
    }

    /// Reads one node and returns its children.
    fn read_item(&mut self, here: usize, mut value: Value, known: &Known, own: &mut Problems) -> Vec<Value> {
        let Value::Object(item) = &value else {
            fields::not_an_object(&value, &At::ROOT, own);
            return Vec::new();
        };
        if !item.contains_key("node") {
            own.missing(&At::ROOT.key("node"), &value);
        }
        let mut late = own.of_part();
        let at = At::ROOT.key("child_nodes");
        match item.get("child_nodes") {
            Some(Value::Array(_)) => {}
            Some(other) => late.add(&at, "list_type", "Input should be a valid list", other, None),
            None => late.missing(&at, &value),
        }
        if let Some(node) = value.get_mut("node").map(Value::take) {
            let mut below = own.of_part().besides(known.of(here, given_id(&node)));
            let fields = fields::take_node(node, &mut below);
            own.absorb(below, &["node".into()]);
            if let Some(item) = self.items.get_mut(here) {
                // The id of the root is in the address of the request.
                item.id = fields.get("id").and_then(super::shape::id).filter(|_| here > 0);
                item.fields = fields;
            }
        }
        own.absorb(late, &[]);
        match value.get_mut("child_nodes").map(Value::take) {
            Some(Value::Array(children)) => children,
            _ => Vec::new(),
        }
    }

    /// How the request leads to an item: `child_nodes, 3, child_nodes, 0`.
    fn place(&self, item: usize) -> Vec<Value> {
        let mut place = Vec::new();
        let mut here = self.items.get(item);
        while let Some((up, index)) = here.and_then(|item| item.parent) {
            place.push(index.into());
            place.push("child_nodes".into());
            here = self.items.get(up);
        }
        place.reverse();
        place
    }

    /// 400 for the first node whose kind or `data` is wrong; good `data` is filled in (contract 2.3).
    fn check_kinds(&mut self, known: &Known) -> Result<()> {
        for here in 0..self.items.len() {
            let Some(item) = self.items.get_mut(here) else { break };
            let known = known.of(here, item.id);
            let name = item.fields.get("kind").and_then(Value::as_str).unwrap_or("node");
            let Some(kind) = kinds::of_stored(name, known.map(|known| &**known))? else { continue };
            let data = match item.fields.get_mut("data").map(Value::take) {
                None => Some(Map::new()),
                Some(Value::Object(data)) => Some(data),
                Some(_) => None,
            };
            let mut own = Problems::default().besides(known);
            kind.check(data.as_ref(), &mut own);
            if own.is_empty() {
                let data = data.map_or(Value::Null, |data| Value::Object(kind.fill(data)));
                item.fields.insert("data".to_owned(), data);
                continue;
            }
            let mut place = self.place(here);
            if here > 0 {
                place.push("node".into());
            }
            let mut problems = Problems::default();
            problems.absorb(own, &place);
            problems.into_text(kind.title)?;
        }
        Ok(())
    }

    /// 400 for an id that stands in the request twice.
    fn check_ids(&self) -> Result<()> {
        let mut seen = HashSet::new();
        match self.existing_ids().find(|id| !seen.insert(*id)) {
            Some(id) => Err(twice(id)),
            None => Ok(()),
        }
    }

    /// The existing nodes below the root that the request replaces. The operation reads them, and sees to it that the
    /// caller may edit each.
    pub fn existing_ids(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.items.iter().filter_map(|item| item.id)
    }

    /// How many nodes the request writes.
    pub fn node_count(&self) -> usize {
        self.items.len()
    }

    /// The nodes as they stand after the request, depth first and the root first, each with the revision that it
    /// replaces (`None`: it is new).
    ///
    /// Consumes the request: a large one is not held twice. All get submitter and tree of the stored root. Replaced nodes keep owner, submitter, groups and the time of
    /// their making, and follow the state machine; new ones belong to `caller`. 400 if a node is not in `stored`, is the
    /// root again, would become its own ancestor, or cannot go to its state.
    pub fn build(
        self,
        stored_root: &Node,
        stored: &HashMap<ObjectId, Node>,
        caller: &str,
        now: Timestamp,
    ) -> Result<Vec<(Node, Option<u64>)>> {
        let ids: HashSet<ObjectId> = self.existing_ids().collect();
        let mut built: Vec<(Node, Option<u64>)> = Vec::with_capacity(self.items.len());
        for item in self.items {
            let old = match (item.parent, item.id) {
                (None, _) => Some(stored_root),
                (Some(_), Some(id)) if id == stored_root.id => return Err(twice(id)),
                (Some(_), Some(id)) => Some(stored.get(&id).ok_or_else(|| not_found(id))?),
                (Some(_), None) => None,
            };
            let id = old.map_or_else(ObjectId::new, |old| old.id);
            let mut node = Node::of(item.fields, id, now, old)?;
            if let Some((up, _)) = item.parent.and_then(|(up, _)| built.get(up)) {
                node.parent = Some(up.id);
                if node.path.is_empty() {
                    node.path.clone_from(&up.path);
                    node.path.push(node.name.clone());
                }
            }
            match old {
                Some(old) => {
                    let named = |error: Error| error.with("id", id.to_hex());
                    state::check_move(old.state, node.state).map_err(named)?;
                    node.owner.clone_from(&old.owner);
                    node.user_groups.clone_from(&old.user_groups);
                    node.created = old.created;
                    node.written(old.revision, now);
                }
                None => {
                    node.owner = Some(caller.to_owned());
                    node.revision = 1;
                }
            }
            node.submitter.clone_from(&stored_root.submitter);
            node.treeid.clone_from(&stored_root.treeid);
            built.push((node, old.map(|old| old.revision)));
        }
        if let Some((root, _)) = built.first().filter(|(root, _)| root.parent != stored_root.parent) {
            check_ancestry(root, &ids)?;
        }
        Ok(built)
    }
}

/// 400 if the root's parent is the root or one of the nodes below it.
fn check_ancestry(root: &Node, below: &HashSet<ObjectId>) -> Result<()> {
    write::check_parent(root)?;
    match root.parent.filter(|parent| below.contains(parent)) {
        Some(id) => Err(Error::bad_request(format!("Parent cannot be below the object: {id}"))),
        None => Ok(()),
    }
}

fn twice(id: ObjectId) -> Error {
    Error::bad_request(format!("Object occurs twice in the hierarchy: {id}"))
}

fn not_found(id: ObjectId) -> Error {
    Error::bad_request(format!("No object found with id: {id}"))
}

#[cfg(test)]
mod tests;
