//! The schemas of a document, each once, under `#/components/schemas`.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::ops::{Operation, Table};

/// Where shared schemas stand in a document.
const PLACE: &str = "#/components/schemas/";
/// Where those of what clients send stand until [`Components::finish`] knows whether they differ from the others.
const SENT: &str = "#/components/sent/";

/// How a type describes itself, kept without the type.
#[derive(Clone, Copy)]
pub struct Described {
    id: fn() -> Cow<'static, str>,
    inline: fn(&mut SchemaGenerator) -> Schema,
    shared: fn(&mut SchemaGenerator) -> Schema,
}

impl Described {
    /// Of this type.
    pub fn of<T: JsonSchema>() -> Described {
        Described { id: T::schema_id, inline: T::json_schema, shared: SchemaGenerator::subschema_for::<T> }
    }
}

/// Collects the schemas that a document refers to.
///
/// What clients send and what the server sends are different contracts for the same type (a field with a default may
/// be left out of the one and is always in the other), so each has a generator.
pub(super) struct Components {
    sent: SchemaGenerator,
    answered: SchemaGenerator,
    /// Results that several operations give stand under the name of their type, others under that of the operation.
    common: HashMap<Cow<'static, str>, usize>,
    named: Map<String, Value>,
}

impl Components {
    pub(super) fn new(table: &Table) -> Components {
        let generator = |settings: SchemaSettings, place: &'static str| {
            let path = place.trim_start_matches('#').trim_end_matches('/');
            settings.with(|settings| settings.definitions_path = path.into()).into_generator()
        };
        let mut common = HashMap::new();
        for operation in table.iter() {
            *common.entry((operation.gives.id)()).or_default() += 1;
        }
        Components {
            sent: generator(SchemaSettings::draft2020_12().for_deserialize(), SENT),
            answered: generator(SchemaSettings::draft2020_12().for_serialize(), PLACE),
            common,
            named: Map::new(),
        }
    }

    /// The parameters of an operation: an object schema.
    pub(super) fn params(&mut self, operation: &Operation) -> Value {
        described((operation.takes.inline)(&mut self.sent))
    }

    /// A reference to the parameters of an operation.
    pub(super) fn params_ref(&mut self, operation: &Operation) -> Value {
        let schema = self.params(operation);
        self.name(format!("{}.params", operation.name), schema)
    }

    /// The result of an operation.
    pub(super) fn result(&mut self, operation: &Operation) -> Value {
        if self.common.get(&(operation.gives.id)()).is_some_and(|count| *count > 1) {
            return described((operation.gives.shared)(&mut self.answered));
        }
        let schema = described((operation.gives.inline)(&mut self.answered));
        match schema.get("properties") {
            Some(_) => self.name(format!("{}.result", operation.name), schema),
            None => schema,
        }
    }

    /// What the server sends, whatever operation it belongs to.
    pub(super) fn of(&mut self, described_type: Described) -> Value {
        described((described_type.shared)(&mut self.answered))
    }

    /// Puts a schema under a name of its own, and refers to it.
    pub(super) fn name(&mut self, name: String, schema: Value) -> Value {
        let reference = json!({"$ref": format!("{PLACE}{name}")});
        self.named.insert(name, schema);
        reference
    }

    /// The schema that a reference of this document leads to, or the schema itself if it is none.
    pub(super) fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        let mut found = schema;
        while let Some(target) = found.get("$ref").and_then(Value::as_str) {
            let next = match target.strip_prefix(PLACE) {
                Some(name) => self.named.get(name).or_else(|| self.answered.definitions().get(name)),
                None => target.strip_prefix(SENT).and_then(|name| self.sent.definitions().get(name)),
            };
            match next {
                Some(next) => found = next,
                None => break,
            }
        }
        found
    }

    /// All schemas, and the document with its references put right: what clients send stands under the name of its
    /// type, or with `.sent` behind it where the server sends that type differently.
    pub(super) fn finish<'d>(mut self, document: impl Iterator<Item = &'d mut Value>) -> Map<String, Value> {
        let mut sent = std::mem::take(self.sent.definitions_mut());
        let mut schemas = std::mem::take(self.answered.definitions_mut());
        let different = different(&sent, &schemas);
        let rename = |schema: &mut Value| {
            each_reference(schema, &mut |target| {
                let name = target.strip_prefix(SENT)?;
                let ending = if different.contains(name) { ".sent" } else { "" };
                Some(format!("{PLACE}{name}{ending}"))
            });
        };
        sent.values_mut().chain(self.named.values_mut()).for_each(&rename);
        document.for_each(rename);
        for (name, schema) in sent {
            let ending = if different.contains(&name) { ".sent" } else { "" };
            schemas.insert(format!("{name}{ending}"), schema);
        }
        schemas.extend(self.named);
        schemas.sort_keys();
        schemas
    }
}

/// Names that stand for something else in what is sent than in what is answered, also by what they refer to.
fn different(sent: &Map<String, Value>, answered: &Map<String, Value>) -> BTreeSet<String> {
    let mut different = BTreeSet::new();
    let mut refers: Vec<(&String, BTreeSet<String>)> = Vec::new();
    for (name, schema) in sent.iter().filter(|(name, _)| answered.contains_key(*name)) {
        let (mut same, mut targets) = (schema.clone(), BTreeSet::new());
        each_reference(&mut same, &mut |target| {
            let inner = target.strip_prefix(SENT)?;
            targets.insert(inner.to_owned());
            Some(format!("{PLACE}{inner}"))
        });
        if answered.get(name) != Some(&same) {
            different.insert(name.clone());
        }
        refers.push((name, targets));
    }
    loop {
        let before = different.len();
        for (name, targets) in &refers {
            if targets.iter().any(|target| different.contains(target)) {
                different.insert((*name).clone());
            }
        }
        if different.len() == before {
            return different;
        }
    }
}

/// Lets `change` replace the target of each `$ref`.
fn each_reference(schema: &mut Value, change: &mut impl FnMut(&str) -> Option<String>) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(new) = change(target) {
                            *target = new;
                        }
                    }
                    other => each_reference(other, change),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_reference(item, change)),
        _ => {}
    }
}

fn described(schema: Schema) -> Value {
    let mut schema = schema.to_value();
    if let Some(members) = schema.as_object_mut() {
        members.shift_remove("$schema");
        members.shift_remove("title");
    }
    schema
}
