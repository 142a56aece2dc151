//! JSON Schemas of nodes, made from the tables that bodies are read with.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::shape::{Field, Model, Need, Type};
use super::{Node, Tree, fields, kinds};

/// A node as clients send it.
pub struct Body;

/// New values of some fields of a node.
pub struct Changes;

/// What the fields are for, in the order of contract 2.1.
const ABOUT: [(&str, &str); 23] = [
    ("id", "24 hex digits."),
    ("kind", "What it is: `checkout`, `kbuild`, `job`, `test`, `process`, `regression`."),
    ("name", "What it is called among its siblings, e.g. `kbuild-gcc-12-arm64`."),
    ("path", "Names from the root down to this node."),
    ("group", "Name of what belongs together, e.g. a test suite."),
    ("parent", "`id` of the node above."),
    ("state", "`running` → `available` → `closing` → `done`; steps can be skipped, not undone."),
    ("result", "How it ended."),
    ("artifacts", "URLs of files, by name."),
    ("data", "What is particular to the kind; other keys are kept."),
    ("debug", "Anything."),
    ("jobfilter", "Only these jobs are to run below this node."),
    ("platform_filter", "Only these platforms are to be used below this node."),
    ("created", "UTC."),
    ("updated", "UTC; set at each write."),
    ("timeout", "UTC; when a node that still runs is given up. Default: in six hours."),
    ("holdoff", "UTC; no sooner does `available` become `closing`."),
    ("owner", "Username of who made it."),
    ("submitter", "Who asked for it."),
    ("treeid", "The same in all nodes of a run."),
    ("user_groups", "Members of these groups may edit it."),
    ("processed_by_kcidb_bridge", "The bridge to KCIDB has seen it in this state."),
    ("retry_counter", "How many times it was tried again."),
];

impl JsonSchema for Node {
    fn schema_name() -> Cow<'static, str> {
        "Node".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = Map::new();
        for field in &fields::BASE {
            properties.insert(field.name.to_owned(), field.described(generator, true));
        }
        let revision = json!({"type": "integer", "minimum": 0, "description":
            "Counts the writes. In REST bodies only if asked for (`?revision=true`): there it is the `ETag`."});
        properties.insert("revision".into(), revision);
        json_schema!({
            "type": "object",
            "description": "A node. All fields are always there, unless the request chose some.",
            "properties": properties,
        })
    }
}

impl JsonSchema for Body {
    fn schema_name() -> Cow<'static, str> {
        "NodeBody".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let about = "A node as clients send it. Fields that are not known are passed over.";
        let mut schema = object(generator, &fields::BASE, about);
        let kinds: Vec<Value> = kinds::all()
            .map(|(name, model)| {
                let data =
                    model.map_or(json!({"type": ["object", "null"]}), |model| reference(generator, model));
                json!({"properties": {"kind": {"const": name}, "data": data}})
            })
            .collect();
        schema.insert("anyOf".into(), kinds.into());
        schema.insert("required".into(), json!(["kind", "name", "path"]));
        schema.into()
    }
}

impl JsonSchema for Changes {
    fn schema_name() -> Cow<'static, str> {
        "NodeChanges".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        object(generator, &fields::UPDATE, "New values of some fields; each replaces the old value whole.")
            .into()
    }
}

impl JsonSchema for Tree {
    fn schema_name() -> Cow<'static, str> {
        "Hierarchy".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let node = generator.subschema_for::<Body>();
        let children = generator.subschema_for::<Vec<Tree>>();
        json_schema!({
            "type": "object",
            "description": "A node with what is below it, up to 20,000 nodes. A child with an `id` replaces that node.",
            "properties": {"node": node, "child_nodes": children},
            "required": ["node", "child_nodes"],
        })
    }
}

/// An object with these fields and any others.
fn object(generator: &mut SchemaGenerator, fields: &[Field], about: &str) -> Map<String, Value> {
    let mut schema = Map::from_iter([("type".to_owned(), "object".into())]);
    if !about.is_empty() {
        schema.insert("description".into(), about.into());
    }
    let properties = fields.iter().map(|field| (field.name.to_owned(), field.described(generator, false)));
    schema.insert("properties".into(), properties.collect::<Map<_, _>>().into());
    let required: Vec<&str> =
        fields.iter().filter(|field| field.need == Need::Required).map(|field| field.name).collect();
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    schema
}

impl Field {
    /// `answered`: as the server sends it, which is more regular than what it reads.
    fn described(&self, generator: &mut SchemaGenerator, answered: bool) -> Value {
        let mut schema = match (self.name, &self.ty) {
            ("data", Type::Object) => data(generator),
            (_, ty) => ty.described(generator, answered),
        };
        if self.need == Need::Nullable {
            schema = nullable(schema);
        }
        let about = ABOUT.iter().find(|(name, _)| *name == self.name).map(|(_, about)| *about);
        if let (Some(about), Some(members)) = (about, schema.as_object_mut()) {
            members.insert("description".into(), about.into());
        }
        schema
    }
}

/// `data` of any kind of node.
fn data(generator: &mut SchemaGenerator) -> Value {
    let mut choices: Vec<Value> =
        kinds::all().filter_map(|(_, model)| Some(reference(generator, model?))).collect();
    choices.push(json!({"type": "object"}));
    json!({"anyOf": choices})
}

fn nullable(mut schema: Value) -> Value {
    if let Some(choices) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        choices.push(json!({"type": "null"}));
        return schema;
    }
    match schema.get_mut("type") {
        Some(kind @ Value::String(_)) => *kind = json!([kind.take(), "null"]),
        Some(_) => {}
        None => return json!({"anyOf": [schema, {"type": "null"}]}),
    }
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    schema
}

/// A reference to the schema of this model, which stands under its name.
fn reference(generator: &mut SchemaGenerator, model: &Model) -> Value {
    if !generator.definitions().contains_key(model.name) {
        // Its place is taken before it is filled, for models that refer to themselves.
        generator.definitions_mut().insert(model.name.to_owned(), Value::Bool(true));
        let schema = object(generator, model.fields, "");
        generator.definitions_mut().insert(model.name.to_owned(), schema.into());
    }
    json!({"$ref": format!("#{}/{}", generator.settings().definitions_path, model.name)})
}

impl Type {
    fn described(&self, generator: &mut SchemaGenerator, answered: bool) -> Value {
        match self {
            Type::Text => json!({"type": "string"}),
            Type::Int => json!({"type": "integer"}),
            Type::Flag => json!({"type": "boolean"}),
            Type::Date if answered => {
                json!({"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?(Z|[+-]\d\d:\d\d)?$"})
            }
            Type::Date => {
                json!({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number", "minimum": 0}]})
            }
            Type::Choice(words) => json!({"type": "string", "enum": words}),
            Type::Id => json!({"type": "string", "pattern": "^[0-9a-fA-F]{24}$"}),
            Type::Url | Type::HttpUrl => json!({"type": "string", "format": "uri"}),
            Type::Object => json!({"type": "object"}),
            Type::List(of) => json!({"type": "array", "items": of.described(generator, answered)}),
            Type::Groups(most) => {
                json!({"type": "array", "items": {"type": "string"}, "maxItems": most, "uniqueItems": true})
            }
            Type::Dict(of) => {
                json!({"type": "object", "additionalProperties": of.described(generator, answered)})
            }
            Type::Model(model) => reference(generator, model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_explained() {
        let names: Vec<_> = fields::BASE.iter().map(|field| field.name).collect();
        assert_eq!(ABOUT.map(|(name, _)| name).to_vec(), names);
        let schema = schemars::schema_for!(Node);
        let data = &schema.as_value()["properties"]["data"]["anyOf"];
        assert_eq!(data[0]["$ref"], "#/$defs/CheckoutData");
        assert_eq!(schema.as_value()["$defs"]["Revision"]["required"][0], "tree");
    }
}
