//! The node: one step of a CI run, in the tree checkout → kbuild → job → test (contract 2).
//!
//! The type and its wire form are here; below, what may be written ([`write`], [`hierarchy`], [`state`]), what is
//! told of it ([`payload`]), and its JSON Schemas ([`described`]).

mod bounds;
pub mod described;
mod event;
mod fields;
#[cfg(test)]
mod fuzz;
pub mod hierarchy;
mod kinds;
pub mod payload;
mod shape;
pub mod state;
mod urls;
pub mod write;

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::{ObjectId, Timestamp, footprint, lax};
use crate::error::{Error, Result};

pub use event::check_event;
pub use hierarchy::Tree;
pub use payload::event_data;
pub use state::may_move;
pub use write::mark;

/// How long a node may take if its author says nothing, in seconds.
const DEFAULT_TIMEOUT: i64 = 6 * 3600;

/// A node as it is written. Reads hand out the wire form (a JSON object, see [`Node::to_wire`]) without this type.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Identifier.
    pub id: ObjectId,
    /// `checkout`, `kbuild`, `job`, `test`, `process` or `regression` for every node that is written now.
    pub kind: String,
    /// Name, e.g. `kbuild-gcc-14-arm64`.
    pub name: String,
    /// Names from the root down to this node.
    pub path: Vec<String>,
    /// Name of the group of nodes that it belongs to.
    pub group: Option<String>,
    /// The node above.
    pub parent: Option<ObjectId>,
    /// `running`, `available`, `closing` or `done`.
    pub state: State,
    /// `pass`, `fail`, `skip`, `incomplete`.
    pub result: Option<Outcome>,
    /// Name → URL (http or https, normalised).
    pub artifacts: Option<Map<String, Value>>,
    /// What depends on the kind, and whatever else clients keep there.
    pub data: Option<Map<String, Value>>,
    /// Free-form.
    pub debug: Option<Map<String, Value>>,
    /// Which jobs may run on it.
    pub jobfilter: Option<Vec<String>>,
    /// Which platforms jobs may run on.
    pub platform_filter: Option<Vec<String>>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last written.
    pub updated: Timestamp,
    /// When it counts as lost if it is not done.
    pub timeout: Timestamp,
    /// Until when it stays open for more children.
    pub holdoff: Option<Timestamp>,
    /// Username of the owner.
    pub owner: Option<String>,
    /// Who asked for the run.
    pub submitter: Option<String>,
    /// Identifies the whole tree of one run.
    pub treeid: Option<String>,
    /// Groups whose members may edit it.
    pub user_groups: Vec<String>,
    /// Whether the KCIDB bridge has sent it on.
    pub processed_by_kcidb_bridge: bool,
    /// How many times it was retried.
    pub retry_counter: i64,
    /// Counts the writes of this node, from 1. Documents that an older server wrote have 0.
    pub revision: u64,
}

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Work is going on.
    Running,
    /// Its artifacts are ready; children may start.
    Available,
    /// No more children may start.
    Closing,
    /// Finished for good.
    Done,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Passed.
    Pass,
    /// Failed.
    Fail,
    /// Was not run.
    Skip,
    /// Could not be finished, e.g. an infrastructure error.
    Incomplete,
}

/// The wire form: the 23 keys of contract 2.1 in their order, then `revision`.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut wire = serializer.serialize_map(Some(24))?;
        wire.serialize_entry("id", &self.id.to_hex())?;
        self.put(&mut wire)?;
        wire.end()
    }
}

/// A node whose `id` comes last: so new ones have always been answered (contract 2.1).
#[derive(Debug)]
pub struct IdLast(pub Arc<Node>);

impl Serialize for IdLast {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut wire = serializer.serialize_map(Some(24))?;
        self.0.put(&mut wire)?;
        wire.serialize_entry("id", &self.0.id.to_hex())?;
        wire.end()
    }
}

impl Node {
    /// The runtime that it ran on; anything but text is none (contract D-15).
    pub fn runtime(&self) -> Option<&str> {
        self.data.as_ref()?.get("runtime").and_then(Value::as_str).filter(|name| !name.is_empty())
    }
    /// About how many bytes what clients keep in it has on the heap.
    pub fn heap(&self) -> usize {
        [&self.artifacts, &self.data, &self.debug].into_iter().flatten().map(footprint::of_members).sum()
    }

    /// The wire form as a value: the 23 keys of contract 2.1 in their order, then `revision`.
    pub fn to_wire(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(wire)) => wire,
            // Texts, numbers and JSON values can always be written.
            _ => Map::new(),
        }
    }

    /// All keys of the wire form but `id`.
    fn put<M: SerializeMap>(&self, wire: &mut M) -> Result<(), M::Error> {
        wire.serialize_entry("kind", &self.kind)?;
        wire.serialize_entry("name", &self.name)?;
        wire.serialize_entry("path", &self.path)?;
        wire.serialize_entry("group", &self.group)?;
        wire.serialize_entry("parent", &self.parent.map(ObjectId::to_hex))?;
        wire.serialize_entry("state", &self.state)?;
        wire.serialize_entry("result", &self.result)?;
        wire.serialize_entry("artifacts", &self.artifacts)?;
        wire.serialize_entry("data", &self.data)?;
        wire.serialize_entry("debug", &self.debug)?;
        wire.serialize_entry("jobfilter", &self.jobfilter)?;
        wire.serialize_entry("platform_filter", &self.platform_filter)?;
        wire.serialize_entry("created", &self.created)?;
        wire.serialize_entry("updated", &self.updated)?;
        wire.serialize_entry("timeout", &self.timeout)?;
        wire.serialize_entry("holdoff", &self.holdoff)?;
        wire.serialize_entry("owner", &self.owner)?;
        wire.serialize_entry("submitter", &self.submitter)?;
        wire.serialize_entry("treeid", &self.treeid)?;
        wire.serialize_entry("user_groups", &self.user_groups)?;
        wire.serialize_entry("processed_by_kcidb_bridge", &self.processed_by_kcidb_bridge)?;
        wire.serialize_entry("retry_counter", &self.retry_counter)?;
        wire.serialize_entry("revision", &self.revision)
    }

    /// Reads a stored wire form, leniently: missing and unreadable fields get their defaults (dates: when the id was
    /// made), unknown ones are dropped. 400 only if there is no id, or kind or name are no text.
    pub fn from_wire(wire: &Map<String, Value>) -> Result<Node> {
        let given = wire.get("_id").filter(|id| !id.is_null()).or_else(|| wire.get("id"));
        let id = given.and_then(loose_id).ok_or_else(|| unusable("id", "24 hex digits"))?;
        let made = Timestamp::from_millis(id.timestamp().timestamp_millis());
        let mut node = Node::from_fields(wire.clone(), id, made)?;
        node.artifacts = node.artifacts.map(normal_urls);
        Ok(node)
    }

    /// A node of these fields; dates that are missing follow from `now`.
    fn from_fields(fields: Map<String, Value>, id: ObjectId, now: Timestamp) -> Result<Node> {
        let mut fields = Fields(fields);
        let kind = match fields.0.remove("kind") {
            None => "node".to_owned(),
            Some(Value::String(kind)) => kind,
            Some(_) => return Err(unusable("kind", "text")),
        };
        let name = fields.text("name").ok_or_else(|| unusable("name", "text"))?;
        let created = fields.date("created").unwrap_or(now);
        Ok(Node {
            id,
            kind,
            name,
            path: fields.texts("path").unwrap_or_default(),
            group: fields.text("group"),
            parent: fields.0.get("parent").and_then(loose_id),
            state: fields.text("state").and_then(|s| State::from_name(&s)).unwrap_or(State::Running),
            result: fields.text("result").and_then(|s| Outcome::from_name(&s)),
            artifacts: fields.object("artifacts"),
            data: fields.object("data"),
            debug: fields.object("debug"),
            jobfilter: fields.texts("jobfilter"),
            platform_filter: match fields.has("platform_filter") {
                true => fields.texts("platform_filter"),
                false => Some(Vec::new()),
            },
            created,
            updated: fields.date("updated").unwrap_or(now),
            timeout: fields.date("timeout").unwrap_or(now.plus_seconds(DEFAULT_TIMEOUT)),
            holdoff: fields.date("holdoff"),
            owner: fields.text("owner"),
            submitter: fields.text("submitter"),
            treeid: fields.text("treeid"),
            user_groups: fields.texts("user_groups").unwrap_or_default(),
            processed_by_kcidb_bridge: fields
                .0
                .get("processed_by_kcidb_bridge")
                .and_then(|flag| lax::flag(flag).ok())
                .unwrap_or(false),
            retry_counter: fields.0.get("retry_counter").and_then(Value::as_i64).unwrap_or(0),
            revision: fields.0.get("revision").and_then(Value::as_u64).unwrap_or(0),
        })
    }
}

fn unusable(field: &str, expected: &str) -> Error {
    Error::bad_request(format!("unusable node: {field}: expected {expected}"))
}

/// An id as text or as MongoDB's extended JSON.
fn loose_id(value: &Value) -> Option<ObjectId> {
    shape::id(value.get("$oid").unwrap_or(value))
}

/// Documents that an old PATCH wrote hold URLs as they were given (contract D-11); reads always showed them normal.
fn normal_urls(mut artifacts: Map<String, Value>) -> Map<String, Value> {
    for value in artifacts.values_mut() {
        if let Some(url) = value.as_str().and_then(|text| urls::http(text).ok()) {
            *value = url.into();
        }
    }
    artifacts
}

/// Fields taken out one by one; what does not fit counts as absent.
struct Fields(Map<String, Value>);

impl Fields {
    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
    fn text(&mut self, key: &str) -> Option<String> {
        match self.0.remove(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }
    fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let Some(Value::Array(list)) = self.0.remove(key) else { return None };
        let texts = list.into_iter().filter_map(|value| match value {
            Value::String(text) => Some(text),
            _ => None,
        });
        Some(texts.collect())
    }
    /// Null is kept apart from absent, which is empty.
    fn object(&mut self, key: &str) -> Option<Map<String, Value>> {
        match self.0.remove(key) {
            Some(Value::Object(map)) => Some(map),
            Some(Value::Null) => None,
            _ => Some(Map::new()),
        }
    }
    fn date(&mut self, key: &str) -> Option<Timestamp> {
        let value = self.0.remove(key)?;
        let value = value.get("$date").unwrap_or(&value);
        match value.get("$numberLong") {
            Some(ms) => ms.as_str()?.parse().ok().map(Timestamp::from_millis),
            None => Timestamp::parse_body(value).ok().or_else(|| Timestamp::from_wire(value.as_str()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ID: &str = "68f0aa11bb22cc33dd44ee55";

    fn read(wire: Value) -> Result<Node> {
        Node::from_wire(wire.as_object().unwrap())
    }

    #[test]
    fn the_wire_form_has_its_keys_in_order_and_goes_both_ways() {
        let wire = json!({
            "id": ID, "kind": "kbuild", "name": "n", "path": ["a", "n"], "group": "g", "parent": ID,
            "state": "done", "result": "incomplete", "artifacts": {"b": "http://x/", "a": "https://y/"},
            "data": {"z": 1, "a": {"y": null}}, "debug": null, "jobfilter": ["j"], "platform_filter": null,
            "created": "2024-01-12T12:49:33.996000", "updated": "2027-01-01T00:00:00",
            "timeout": "2027-01-01T06:00:00", "holdoff": "2024-01-12T12:49:33.001000", "owner": "o",
            "submitter": "s", "treeid": "t", "user_groups": ["u"], "processed_by_kcidb_bridge": true,
            "retry_counter": -2, "revision": 7
        });
        let node = read(wire.clone()).unwrap();
        assert_eq!(serde_json::to_string(&node.to_wire()).unwrap(), serde_json::to_string(&wire).unwrap());
        assert_eq!(Node::from_wire(&node.to_wire()).unwrap(), node);
    }

    #[test]
    fn old_documents_are_read_with_defaults() {
        let node =
            read(json!({"_id": {"$oid": ID}, "id": "zz", "name": "", "foo": 1, "path": ["a", 1]})).unwrap();
        let made = "2025-10-16T08:17:21";
        assert_eq!(
            Value::Object(node.to_wire()),
            json!({
                "id": ID, "kind": "node", "name": "", "path": ["a"], "group": null, "parent": null,
                "state": "running", "result": null, "artifacts": {}, "data": {}, "debug": {},
                "jobfilter": null, "platform_filter": [], "created": made, "updated": made,
                "timeout": "2025-10-16T14:17:21", "holdoff": null, "owner": null, "submitter": null,
                "treeid": null, "user_groups": [], "processed_by_kcidb_bridge": false,
                "retry_counter": 0, "revision": 0
            })
        );
    }

    #[test]
    fn odd_old_values_are_read_as_far_as_possible() {
        let node = read(json!({
            "id": ID, "name": "n", "parent": {"$oid": ID}, "state": "odd", "result": 5, "data": "x",
            "artifacts": {"a": "HTTP://X/A b", "odd": 5}, "processed_by_kcidb_bridge": "whatever",
            "retry_counter": "3", "created": {"$date": {"$numberLong": "1700000000000"}},
            "updated": {"$date": "2026-01-01T00:00:00Z"}, "timeout": "odd"
        }))
        .unwrap();
        assert_eq!(node.parent, Some(node.id));
        assert_eq!((node.state, node.result), (State::Running, None));
        assert_eq!(node.data, Some(Map::new()));
        assert_eq!(json!(node.artifacts), json!({"a": "http://x/A%20b", "odd": 5}));
        assert!(!node.processed_by_kcidb_bridge);
        assert_eq!(node.created.to_wire(), "2023-11-14T22:13:20");
        assert_eq!(node.updated.to_wire(), "2026-01-01T00:00:00");
    }

    #[test]
    fn without_id_kind_or_name_it_is_no_node() {
        for (wire, field) in [
            (json!({"name": "n"}), "id"),
            (json!({"id": "zz", "name": "n"}), "id"),
            (json!({"id": ID}), "name"),
            (json!({"id": ID, "name": 5}), "name"),
            (json!({"id": ID, "name": "n", "kind": null}), "kind"),
        ] {
            let error = read(wire).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.detail().as_str().unwrap().contains(field));
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            "[0-9T: .+-]{0,24}".prop_map(Value::from),
            "https?:.{0,12}".prop_map(Value::from),
            prop::sample::select(vec![ID, "checkout", "job", "process", "done", "pass", "true"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key(), inner), 0..6).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }
    fn key() -> impl Strategy<Value = String> {
        let known = "id _id kind name path parent state result artifacts data debug created timeout user_groups \
            retry_counter kernel_revision version url error_code node child_nodes $oid $date";
        let known: Vec<String> = known.split_whitespace().map(str::to_owned).collect();
        prop_oneof![prop::sample::select(known), ".{0,6}"]
    }

    proptest! {
        /// Whatever is sent, the answer is a node or the client's mistake, and the node survives being stored.
        #[test]
        fn any_body_is_answered(more in json_value(), whole in json_value()) {
            let now = Timestamp::from_millis(1_700_000_000_000);
            let mut body = json!({"kind": "process", "name": "n", "path": []});
            if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
                body.extend(more.clone());
                for set in [more, body] {
                    let node = Node::create(&json!({"kind": "job", "name": "n", "path": []}), now).unwrap();
                    let _ = node.patch(set, now, false).map_err(|error| assert!(error.status() < 500));
                    let _ = Node::from_wire(set).map_err(|error| assert_eq!(error.status(), 400));
                }
            }
            for body in [body, whole, more] {
                let _ = Tree::parse(body.clone()).map_err(|error| assert!(error.status() < 500));
                let _ = Tree::parse(json!({"node": body, "child_nodes": [body]})).map_err(|error| assert!(error.status() < 500));
                match Node::create(&body, now) {
                    Ok(node) => {
                        prop_assert_eq!(&Node::from_wire(&node.to_wire()).unwrap(), &node);
                        let again = node.replace(&Value::Object(node.to_wire()), node.updated).unwrap();
                        let flag = node.processed_by_kcidb_bridge;
                        prop_assert_eq!(&again.to_wire()["data"], &node.to_wire()["data"]);
                        prop_assert!(!(flag && again.processed_by_kcidb_bridge));
                    }
                    Err(error) => prop_assert!(error.status() < 500),
                }
            }
        }
    }
}
