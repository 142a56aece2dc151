//! What is asked: parameters for any operation, made from the schema that it has in the documents, most of them wrong.

use kernelci_live::ops::{Body, Operation, Route};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

/// Stands for another id, name or address each time that it is sent.
pub const NEW_ID: &str = "<id>";
const NEW_NAME: &str = "<name>";
/// Requests of one operation that say what its parameters may be, and those of each parameter that do not.
const LIKELY: usize = 6;
const WRONG: usize = 1;

/// What is there for an operation to stumble over.
pub struct There {
    pub node: String,
    pub user: String,
    pub group: String,
    /// The id of a token that is somebody else's.
    pub token: String,
    /// A token that speaks for nobody.
    pub spent: String,
    /// The name of a user, a group, a consumer and a subscription that are taken.
    pub name: String,
    /// Where `name` reads.
    pub channel: String,
}

impl There {
    /// What a parameter of this name may say; nothing if any value of its type does.
    fn values(&self, operation: &str, name: &str) -> Vec<Value> {
        let some_node = |more: Value| {
            let mut node = json!({"kind": "checkout", "name": NEW_NAME, "path": [NEW_NAME]});
            node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            node
        };
        match name {
            "id" | "node_id" => json!([NEW_ID, NEW_ID, self.node, self.user, self.group, self.token]),
            "ids" if operation == "node.mark" => json!([[NEW_ID], [self.node, NEW_ID], ["nothing"]]),
            "channel" | "list" => json!([NEW_NAME, self.channel, "no name", "node"]),
            "name" | "subscriber_id" | "durable" => json!([self.name, self.name, NEW_NAME, "a\nb"]),
            // Each name has guesses of its own, and each guess is hashed.
            "username" => json!([self.name, NEW_NAME, NEW_NAME, NEW_NAME]),
            "email" => json!(["admin@kernelci.org", "<name>@example.org", "no address"]),
            "token" | "last_token" => json!([self.spent, "nonsense", NEW_NAME]),
            "lease" => json!([format!("{NEW_ID}.1"), NEW_NAME, "nonsense"]),
            "filter" => json!([
                {"kind": "kbuild"}, {NEW_NAME: 1}, {"name__re": "("}, {"name__re": "<name>.*\\pL{3}"},
                {"kind__fnord": 1}, {"name__in": [NEW_NAME, NEW_ID]}
            ]),
            "node" => json!([
                some_node(json!({"kind": "fnord"})),
                some_node(json!({"parent": NEW_ID})),
                some_node(json!({"path": 7})),
                some_node(json!({"data": {"a": {"b": [NEW_NAME]}}}))
            ]),
            "tree" | "nodes" => json!([
                {"node": some_node(json!({"kind": "fnord"})), "child_nodes": []},
                {"node": some_node(json!({})), "child_nodes": [{"node": {}, "child_nodes": []}]}
            ]),
            "set" => json!([{"state": "done"}, {"state": NEW_NAME}, {NEW_NAME: 1}, {"parent": NEW_ID}]),
            "if_revision" => json!([999_999]),
            "idempotency_key" => json!([NEW_NAME, self.name, "x".repeat(200)]),
            "wait_ms" => json!([0]),
            "scopes" => json!([[NEW_NAME], [], ["read"]]),
            "groups" => json!([[NEW_NAME]]),
            "from" => json!(["yesterday", {"epoch": NEW_NAME, "seq": 3}, "earliest", "2026-01-01"]),
            "sub" => json!([1, 1, 2, 70_000]),
            "window" => json!([0, 5]),
            "sort" => json!([["-created"], [NEW_NAME]]),
            "include" => json!([["node"], [NEW_NAME]]),
            _ => json!([]),
        }
        .as_array()
        .expect("a list")
        .clone()
    }

    /// What a parameter says in the request of this number.
    fn value(
        &self,
        operation: &Operation,
        (name, schema): (&String, &Value),
        number: usize,
        rng: &mut StdRng,
    ) -> Value {
        let values = self.values(operation.name, name);
        let next = values.iter().cycle().nth(number).cloned();
        next.unwrap_or_else(|| of_type(operation.schema(), schema, rng))
    }
}

/// Some value of the type that a schema says.
fn of_type(root: &Value, schema: &Value, rng: &mut StdRng) -> Value {
    if let Some(target) = schema["$ref"].as_str().and_then(|target| root.pointer(target.strip_prefix('#')?)) {
        return of_type(root, target, rng);
    }
    if let Some(one) = schema["enum"].as_array().and_then(|all| all.choose(rng)) {
        return one.clone();
    }
    let several = ["anyOf", "oneOf"].iter().find_map(|key| schema[*key].as_array());
    if let Some(one) = several.and_then(|all| all.choose(rng)) {
        return of_type(root, one, rng);
    }
    let kind = schema["type"].as_array().map_or(&schema["type"], |kinds| &kinds[0]);
    match kind.as_str() {
        Some("integer" | "number") => schema["minimum"].as_i64().unwrap_or(1).max(1).into(),
        Some("boolean") => rng.random::<bool>().into(),
        Some("array") => json!([of_type(root, &schema["items"], rng)]),
        Some("object") => json!({NEW_NAME: 1}),
        Some("null") => Value::Null,
        _ => NEW_NAME.into(),
    }
}

/// Parameters that an operation is asked with.
pub fn requests(operation: &Operation, there: &There, rng: &mut StdRng) -> Vec<Map<String, Value>> {
    let schema = operation.schema();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let is_required =
        |name: &str| schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
    // The first has what it must have, later ones more and more.
    let mut likely = |number: usize| -> Map<String, Value> {
        let more = number as f64 / 8.0;
        let wanted = properties.iter().filter(|(name, _)| is_required(name) || rng.random_bool(more));
        let wanted: Vec<_> = wanted.collect();
        let value =
            |(name, schema)| (String::clone(name), there.value(operation, (name, schema), number, rng));
        wanted.into_iter().map(value).collect()
    };
    let mut all: Vec<Map<String, Value>> = (0..LIKELY).map(&mut likely).collect();
    all.dedup();
    let base = likely(0);
    let mut wrong = [
        json!({"<name>": [NEW_NAME]}),
        json!([[[NEW_NAME]]]),
        json!("<name>".repeat(100)),
        json!(-1),
        json!(1e99),
        json!(true),
        Value::Null,
        json!(""),
    ]
    .into_iter()
    .cycle();
    for name in properties.keys() {
        let mut changed = base.clone();
        if changed.shift_remove(name).is_some() {
            all.push(changed);
        }
        for _ in 0..WRONG {
            let mut changed = base.clone();
            changed.insert(name.clone(), wrong.next().expect("without an end"));
            all.push(changed);
        }
    }
    let mut unknown = base;
    unknown.insert(NEW_NAME.into(), json!(1));
    all.push(unknown);
    all
}

/// Counts the names that have been given out, so that none is there twice.
#[derive(Default)]
pub struct Names(std::cell::Cell<u64>);

impl Names {
    /// These parameters with new names and ids in them.
    pub fn fill(&self, params: &Map<String, Value>) -> Map<String, Value> {
        self.0.set(self.0.get() + 1);
        let number = self.0.get();
        let text = Value::Object(params.clone()).to_string();
        let text = text.replace(NEW_ID, &format!("{number:024x}"));
        serde_json::from_str(&text.replace(NEW_NAME, &format!("nowhere-{number}"))).expect("JSON as before")
    }
}

/// A request by REST: its path with the query, its headers and its body.
pub struct Rest {
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<(&'static str, String)>,
}

/// What a route makes of parameters.
pub fn by_route(route: &Route, mut params: Map<String, Value>) -> Rest {
    let text = |params: &mut Map<String, Value>, name: &str| match params.shift_remove(name) {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(Value::String(text)) if !text.is_empty() => text,
        Some(other) => other.to_string(),
    };
    let escape = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let steps = route.path.split('/').map(|step| {
        let name = step.strip_prefix('{').and_then(|step| step.strip_suffix('}'));
        name.map_or(step.to_owned(), |name| escape(&text(&mut params, name.trim_start_matches('*'))))
    });
    let path = steps.collect::<Vec<_>>().join("/");
    let mut headers = Vec::new();
    for (header, name) in [("if-match", "if_revision"), ("idempotency-key", "idempotency_key")] {
        if let Some(Value::Number(_) | Value::String(_)) = params.get(name) {
            headers.push((header, text(&mut params, name)));
        }
    }
    let json = |value: Value| Some(("application/json", value.to_string()));
    let body = match route.body {
        Body::None => None,
        Body::Params => json(Value::Object(std::mem::take(&mut params))),
        Body::Under(name) => json(params.shift_remove(name).unwrap_or_default()),
        Body::Text(name) => {
            let body = params.shift_remove(route.param(name)).or_else(|| params.shift_remove(name));
            json(body.unwrap_or_default())
        }
        Body::Form => Some(("application/x-www-form-urlencoded", query(route, std::mem::take(&mut params)))),
    };
    let query = query(route, params);
    let path = if query.is_empty() { path } else { format!("{path}?{query}") };
    Rest { path: format!("/latest{path}"), headers, body }
}

fn query(route: &Route, params: Map<String, Value>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in params {
        match value {
            Value::Object(members) if route.filter_beside.is_some() => {
                members.iter().for_each(|(name, value)| {
                    query.append_pair(name, value.as_str().unwrap_or(&value.to_string()));
                });
            }
            Value::String(text) => _ = query.append_pair(route.alias(&name), &text),
            other => _ = query.append_pair(route.alias(&name), &other.to_string()),
        }
    }
    query.finish()
}
