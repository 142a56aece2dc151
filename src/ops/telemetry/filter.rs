//! Conditions on telemetry: a label, `retry` or a member of `extra` is this text (contract 7.2: no operators).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::telemetry::LABELS;
use crate::store::telemetry::Which;

/// The schema of such a filter.
pub(super) struct Labels;

impl JsonSchema for Labels {
    fn schema_name() -> Cow<'static, str> {
        "Labels".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Values of labels, of `retry`, or of members of `extra` on dotted paths. A string is read as a \
                query string: `kind=job_result&runtime=lab-x`.",
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
                {"type": "string"},
            ],
        })
    }
}

/// Most conditions.
const MOST: usize = 32;
/// Most names in a path below `extra`.
const DEEPEST: usize = 8;

/// Reads a filter in either form; 400 naming the field if there is no such field.
pub(super) fn read(filter: Option<&Value>) -> Result<Which> {
    let mut which = Which::default();
    match filter {
        None => {}
        Some(Value::String(text)) => {
            let pairs: Vec<_> = url::form_urlencoded::parse(text.as_bytes()).collect();
            check(pairs.len())?;
            // Of the same name the last one counts.
            for (index, (name, value)) in pairs.iter().enumerate() {
                if pairs[index + 1..].iter().all(|(later, _)| later != name) {
                    add(&mut which, name, value)?;
                }
            }
        }
        Some(Value::Object(fields)) => {
            check(fields.len())?;
            for (name, value) in fields {
                let value = match value {
                    Value::String(text) => Cow::Borrowed(text.as_str()),
                    Value::Number(number) if name == "retry" => Cow::Owned(number.to_string()),
                    _ => return Err(Error::invalid("filter", format!("{}: expected text", shown(name)))),
                };
                add(&mut which, name, &value)?;
            }
        }
        Some(_) => return Err(Error::invalid("filter", "expected an object, or the text of a query string")),
    }
    Ok(which)
}

fn check(count: usize) -> Result<()> {
    match count > MOST {
        true => Err(Error::bad_request(format!("filter: expected at most {MOST} conditions"))),
        false => Ok(()),
    }
}

fn add(which: &mut Which, name: &str, value: &str) -> Result<()> {
    if let Some(label) = LABELS.iter().find(|label| **label == name) {
        which.labels.push((label, value.to_owned()));
        return Ok(());
    }
    if name == "retry" {
        which.retry = Some(value.parse().map_err(|_| Error::bad_request("retry: expected an integer"))?);
        return Ok(());
    }
    let path = name.strip_prefix("extra.").map(|path| path.split('.').map(str::to_owned).collect::<Vec<_>>());
    let plain = |name: &String| {
        let good = |c: char| c.is_alphanumeric() || "_-+ ".contains(c);
        !name.is_empty() && name.chars().all(good)
    };
    match path.filter(|path| path.len() <= DEEPEST && path.iter().all(plain)) {
        Some(path) => which.extra.push((path, value.to_owned())),
        None => return Err(Error::bad_request(format!("{}: there is no such field", shown(name)))),
    }
    Ok(())
}

fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}
