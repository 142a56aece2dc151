//! The rules of creating, replacing and updating one node (contract 3.2, 3.3, 3.5, 3.7).
//!
//! Nothing here knows what else is stored: that a parent or a group exists and that the caller may edit the node is for
//! the operation to see to.
//!
//! Rules are for what a request changes. What it leaves as it is stored was taken once, by this server or another one, and
//! is no reason to refuse it: whatever a read gives, a replacement takes.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::shape::Type;
use super::{Node, Outcome, State, fields, kinds, state};
use crate::error::{Error, Result};
use crate::model::problem::{At, Problems, python_repr};
use crate::model::{ObjectId, Timestamp};

/// The only field that can be set on many nodes at once.
const MARKABLE: &str = "processed_by_kcidb_bridge";

impl Node {
    /// A new node from the body of a request: with a new id, at revision 1, nobody's (the operation sets the owner).
    ///
    /// 422 with a list of items for fields that every node has; 400 for the kind, its `data` and a given id.
    pub fn create(body: &Value, now: Timestamp) -> Result<Node> {
        let (mut node, given_id) = Node::read(body, ObjectId::new(), now, None, None)?;
        if let Some(id) = given_id {
            return Err(Error::bad_request(format!("Object cannot be created with id: {id}")));
        }
        node.owner = None;
        node.revision = 1;
        Ok(node)
    }

    /// The node as it stands after being replaced: what `body` leaves out falls back to its default. Id, owner,
    /// submitter and groups are kept.
    ///
    /// Errors as of [`Node::create`]; 400 for a node that is its own parent and for a state that it cannot go to.
    pub fn replace(&self, body: &Value, now: Timestamp) -> Result<Node> {
        // What is stored is only looked at where something is wrong: most often nothing is.
        let (mut node, _) = Node::read(body, self.id, now, Some(self), None)
            .or_else(|_| Node::read(body, self.id, now, Some(self), Some(&self.known())))?;
        if node.parent != self.parent {
            check_parent(&node)?;
        }
        state::check_move(self.state, node.state)?;
        // It says that this state has been sent on, so a new state takes it back; so does sending it twice.
        node.processed_by_kcidb_bridge =
            self.state == node.state && !self.processed_by_kcidb_bridge && node.processed_by_kcidb_bridge;
        node.owner.clone_from(&self.owner);
        node.submitter.clone_from(&self.submitter);
        node.user_groups.clone_from(&self.user_groups);
        node.written(self.revision, now);
        Ok(node)
    }

    /// The node as it stands after setting some fields. Each replaces the whole old value; null is a value, but a null
    /// state changes nothing.
    ///
    /// If `strict`, fields that cannot be updated are refused with 422, else they are ignored. 400 if nothing is left,
    /// for the kind's `data`, for URLs and for a state that the node cannot go to.
    pub fn patch(&self, set: &Map<String, Value>, now: Timestamp, strict: bool) -> Result<Node> {
        self.patch_besides(set, now, strict, None)
            .or_else(|_| self.patch_besides(set, now, strict, Some(&self.known())))
    }

    /// As [`Node::patch`], where nothing is wrong with what is stored (`known`).
    fn patch_besides(
        &self,
        set: &Map<String, Value>,
        now: Timestamp,
        strict: bool,
        known: Option<&Arc<Value>>,
    ) -> Result<Node> {
        let mut set = fields::read_update(set, strict, known)?;
        if set.is_empty() {
            return Err(Error::bad_request("No fields to update"));
        }
        let kind = kinds::of_stored(&self.kind, known.map(|known| &**known))?;
        let mut problems = Problems::default().besides(known);
        let mut node = self.clone();
        if let Some(artifacts) = set.remove("artifacts") {
            node.artifacts = normal_artifacts(&artifacts, &mut problems);
        }
        if let Some(data) = set.remove("data") {
            node.data = object(data);
            if let Some(kind) = kind {
                kind.check(node.data.as_ref(), &mut problems);
            }
        }
        for (field, ty) in [("timeout", Type::Date), (MARKABLE, Type::Flag)] {
            if set.get(field).is_some_and(Value::is_null) {
                drop(ty.read(&Value::Null, &At::ROOT.key(field), &mut problems));
            }
        }
        problems.into_text(kind.map_or("Node", |kind| kind.title))?;
        // The rest has the types of the table of updates.
        let mut rest = super::Fields(set);
        if let Some(state) = rest.text("state").and_then(|name| State::from_name(&name)) {
            state::check_move(self.state, state)?;
            node.state = state;
        }
        if rest.has("result") {
            node.result = rest.text("result").and_then(|name| Outcome::from_name(&name));
        }
        if rest.has("debug") {
            node.debug = rest.object("debug");
        }
        if rest.has("jobfilter") {
            node.jobfilter = rest.texts("jobfilter");
        }
        if rest.has("platform_filter") {
            node.platform_filter = rest.texts("platform_filter");
        }
        if let Some(timeout) = rest.date("timeout") {
            node.timeout = timeout;
        }
        if rest.has("holdoff") {
            node.holdoff = rest.date("holdoff");
        }
        let flag = rest.0.get(MARKABLE).and_then(Value::as_bool).unwrap_or(false);
        node.processed_by_kcidb_bridge = flag && node.state == self.state;
        node.written(self.revision, now);
        Ok(node)
    }

    /// The node as it stands after [`mark`]ing it.
    pub fn marked(&self, flag: bool, now: Timestamp) -> Node {
        let mut node = Node { processed_by_kcidb_bridge: flag, ..self.clone() };
        node.written(self.revision, now);
        node
    }

    /// Reads and checks a whole node that replaces `stored`, if that is given; the second is the id that the body gave.
    /// Nothing is wrong with what stands in `known` at the same place.
    fn read(
        body: &Value,
        id: ObjectId,
        now: Timestamp,
        stored: Option<&Node>,
        known: Option<&Arc<Value>>,
    ) -> Result<(Node, Option<String>)> {
        let fields = fields::read_body(body, known)?;
        let given_id = fields.get("id").and_then(Value::as_str).map(str::to_owned);
        let mut node = Node::of(fields, id, now, stored)?;
        kinds::translate_version(node.data.as_mut(), stored.and_then(|stored| stored.data.as_ref()))?;
        kinds::check(&node.kind, node.data.as_ref(), known)?;
        Ok((node, given_id))
    }

    /// A node of what a request gives, which has been checked. What it says of the past is not in the future: that would
    /// head every list, and never be old.
    pub(super) fn of(
        fields: Map<String, Value>,
        id: ObjectId,
        now: Timestamp,
        stored: Option<&Node>,
    ) -> Result<Node> {
        let mut node = Node::from_fields(fields, id, now)?;
        if stored.is_none_or(|stored| node.created != stored.created) {
            node.created = node.created.not_beyond(now);
        }
        node.updated = node.updated.not_beyond(now);
        Ok(node)
    }

    /// What is stored, to compare a request with.
    pub(super) fn known(&self) -> Arc<Value> {
        Arc::new(Value::Object(self.to_wire()))
    }

    /// Notes that the node replaces the one of this revision.
    pub(super) fn written(&mut self, replaced: u64, now: Timestamp) {
        self.updated = now;
        self.revision = replaced.saturating_add(1);
    }
}

/// What [`MARKABLE`] is to be on many nodes; 400 for another field or a value that is no boolean.
///
/// `"true"`, `"True"`, `"false"`, `"False"` count as booleans, for KernelCI's clients send them.
pub fn mark(field: &str, value: &Value) -> Result<bool> {
    if field != MARKABLE {
        return Err(Error::bad_request("Field not supported"));
    }
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if matches!(text.as_str(), "true" | "True") => Ok(true),
        Value::String(text) if matches!(text.as_str(), "false" | "False") => Ok(false),
        _ => {
            let shown = python_repr(value);
            Err(Error::bad_request(format!("value: expected true or false, not {shown}")))
        }
    }
}

/// 400 if the node is its own parent.
pub(super) fn check_parent(node: &Node) -> Result<()> {
    match node.parent == Some(node.id) {
        true => Err(Error::bad_request("Parent cannot be the same as the object")),
        false => Ok(()),
    }
}

fn object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// An update's artifacts are any text in the request and URLs in the node, as KernelCI has it.
fn normal_artifacts(value: &Value, problems: &mut Problems) -> Option<Map<String, Value>> {
    const URLS: Type = Type::Dict(&Type::HttpUrl);
    match value {
        Value::Null => None,
        _ => object(URLS.read(value, &At::ROOT.key("artifacts"), problems).into_owned()),
    }
}

#[cfg(test)]
mod tests;
