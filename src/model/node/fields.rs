//! The fields that every node has, as request bodies may give them (contract 2.1, 3.5).

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::shape::{Field, Type, default, nullable, required};
use super::{Outcome, State, bounds};
use crate::error::Result;
use crate::model::problem::{At, Problems};

/// Most groups of a node: each is looked for.
const MAX_GROUPS: usize = 256;
/// All fields, in the order in which errors are told.
pub(super) static BASE: [Field; 23] = [
    nullable("id", Type::Id),
    default("kind", Type::Text),
    required("name", Type::Text),
    required("path", Type::List(&Type::Text)),
    nullable("group", Type::Text),
    nullable("parent", Type::Id),
    default("state", Type::Choice(&State::NAMES)),
    nullable("result", Type::Choice(&Outcome::NAMES)),
    nullable("artifacts", Type::Dict(&Type::HttpUrl)),
    nullable("data", Type::Object),
    nullable("debug", Type::Object),
    nullable("jobfilter", Type::List(&Type::Text)),
    nullable("platform_filter", Type::List(&Type::Text)),
    default("created", Type::Date),
    default("updated", Type::Date),
    default("timeout", Type::Date),
    nullable("holdoff", Type::Date),
    nullable("owner", Type::Text),
    nullable("submitter", Type::Text),
    nullable("treeid", Type::Text),
    default("user_groups", Type::Groups(MAX_GROUPS)),
    default("processed_by_kcidb_bridge", Type::Flag),
    default("retry_counter", Type::Int),
];

/// The fields that an update may set. Null is refused later, where the whole node is looked at, so that the error is
/// the same as KernelCI's.
pub(super) static UPDATE: [Field; 10] = [
    nullable("state", Type::Choice(&State::NAMES)),
    nullable("result", Type::Choice(&Outcome::NAMES)),
    nullable("artifacts", Type::Dict(&Type::Text)),
    nullable("data", Type::Object),
    nullable("debug", Type::Object),
    nullable("jobfilter", Type::List(&Type::Text)),
    nullable("platform_filter", Type::List(&Type::Text)),
    nullable("timeout", Type::Date),
    nullable("holdoff", Type::Date),
    nullable("processed_by_kcidb_bridge", Type::Flag),
];

/// The known fields of a request's body in normalised form; 422 naming what is wrong, as far as it is not what is stored
/// (`known`).
pub(super) fn read_body(body: &Value, known: Option<&Arc<Value>>) -> Result<Map<String, Value>> {
    let mut problems = Problems::default().besides(known);
    if body.is_null() {
        problems.missing(&At::ROOT, body);
    }
    let read = if problems.is_empty() { read_node(body, &mut problems) } else { Vec::new() };
    problems.into_items()?;
    let given = |key| body.get(key).cloned().unwrap_or_default();
    Ok(read
        .into_iter()
        .map(|(name, key, new)| (name.to_owned(), new.unwrap_or_else(|| given(key))))
        .collect())
}

/// As [`read_body`] for one node among many: takes the fields out of it, so that nothing is there twice. What is wrong
/// goes to `problems`.
pub(super) fn take_node(mut node: Value, problems: &mut Problems) -> Map<String, Value> {
    let read = read_node(&node, problems);
    let mut given = |key| node.get_mut(key).map(Value::take).unwrap_or_default();
    read.into_iter().map(|(name, key, new)| (name.to_owned(), new.unwrap_or_else(|| given(key)))).collect()
}

/// A field: its name, the key that it was given under, and its normalised value if that is another than the given one.
type Read = (&'static str, &'static str, Option<Value>);

/// The known fields of a node; what is wrong goes to `problems`.
fn read_node(node: &Value, problems: &mut Problems) -> Vec<Read> {
    let mut own = problems.of_part();
    bounds::check(node, &mut own);
    let mut fields = Vec::with_capacity(BASE.len());
    match node {
        Value::Object(body) if own.is_empty() => {
            for field in &BASE {
                // `_id` is MongoDB's name of the same thing, and wins.
                let alias = if field.name == "id" { "_id" } else { field.name };
                let given = [alias, field.name].into_iter().find_map(|key| Some((key, body.get(key)?)));
                match given {
                    Some((key, value)) => {
                        let new = match field.read(value, &At::ROOT.key(key), &mut own) {
                            Cow::Owned(new) => Some(new),
                            Cow::Borrowed(_) => None,
                        };
                        fields.push((field.name, key, new));
                    }
                    None if field.need == super::shape::Need::Required => {
                        own.missing(&At::ROOT.key(field.name), node);
                    }
                    None => {}
                }
            }
        }
        Value::Object(_) => {}
        _ => not_an_object(node, &At::ROOT, &mut own),
    }
    problems.absorb(own, &[]);
    fields
}

/// Notes that a value that stands for a whole model is no object.
pub(super) fn not_an_object(value: &Value, at: &At<'_>, problems: &mut Problems) {
    let msg = "Input should be a valid dictionary or object to extract fields from";
    problems.add(at, "model_attributes_type", msg, value, None);
}

/// The fields of an update in normalised form (but artifacts as they are). 422 naming what is wrong, as far as it is not
/// what is stored (`known`); if `strict`, that includes fields that cannot be updated.
pub(super) fn read_update(
    set: &Map<String, Value>,
    strict: bool,
    known: Option<&Arc<Value>>,
) -> Result<Map<String, Value>> {
    let mut problems = Problems::default().besides(known);
    let known = |key: &str| UPDATE.iter().find(|field| field.name == key);
    let mut fields = Map::new();
    for (key, value) in set {
        let at = At::ROOT.key(key);
        match known(key) {
            Some(field) => {
                let read = field.read(value, &at, &mut problems).into_owned();
                fields.insert(key.clone(), read);
            }
            None if strict => {
                let names: Vec<&str> = UPDATE.iter().map(|field| field.name).collect();
                let msg = format!("Extra inputs are not permitted, expected {}", names.join(", "));
                problems.add(&at, "extra_forbidden", msg, value, None);
            }
            None => {}
        }
    }
    if problems.is_empty() {
        let whole = Value::Object(set.clone());
        bounds::check(&whole, &mut problems);
    }
    problems.into_items()?;
    Ok(fields)
}
