//! What no body may hold, whatever the field: nesting without end, NUL, numbers that a store would change, keys that
//! mean something to MongoDB, too much of everything.

use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::model::problem::{At, Problems};

/// Deepest nesting of one node.
pub(super) const MAX_DEPTH: usize = 64;
/// About how much one node may hold, in bytes of its JSON. Its events carry `data` again and all of it must fit into
/// one MongoDB document (16 MiB).
pub(super) const MAX_NODE: usize = 1024 * 1024;
/// Whole numbers from here on (2^63) are not kept exactly.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;
/// What a value weighs besides its text.
const VALUE: usize = 4;

/// Notes where `body` holds something impossible; 413 if it holds too much.
pub(super) fn check(body: &Value, problems: &mut Problems) -> Result<()> {
    let weight = walk(body, &At::ROOT, MAX_DEPTH, problems);
    match weight > MAX_NODE {
        true => Err(Error::new(Kind::TooLarge, format!("a node holds at most {MAX_NODE} bytes"))),
        false => Ok(()),
    }
}

// Recursion: at most MAX_DEPTH deep.
fn walk(value: &Value, at: &At<'_>, depth: usize, problems: &mut Problems) -> usize {
    match value {
        Value::Array(_) | Value::Object(_) if depth == 0 => {
            problems.value_error(at, "nested more than 64 levels deep", &Value::Null);
            0
        }
        Value::Array(list) => list
            .iter()
            .enumerate()
            .fold(VALUE, |sum, (i, element)| sum + walk(element, &at.index(i), depth - 1, problems)),
        Value::Object(map) => map.iter().fold(VALUE, |sum, (key, member)| {
            let at = at.key(key);
            if key.starts_with('$') {
                problems.value_error(&at, "keys must not begin with $", &Value::Null);
            }
            sum + text(key, &at, problems) + walk(member, &at, depth - 1, problems)
        }),
        Value::String(string) => text(string, at, problems),
        Value::Number(number) => {
            // serde_json holds whole numbers beyond 64 bits as floating point.
            let lost = match number.as_i64() {
                Some(_) => false,
                None => number.as_f64().is_none_or(|float| float.abs() >= TOO_LARGE),
            };
            if lost {
                problems.value_error(at, "numbers must be between -2^63 and 2^63-1", value);
            }
            VALUE
        }
        Value::Null | Value::Bool(_) => VALUE,
    }
}

fn text(text: &str, at: &At<'_>, problems: &mut Problems) -> usize {
    if text.contains('\0') {
        problems.value_error(at, "text must not contain NUL", &Value::String(text.to_owned()));
    }
    VALUE + text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: &Value) -> Result<()> {
        let mut problems = Problems::default();
        super::check(body, &mut problems)?;
        problems.into_items()
    }

    fn loc(body: &Value) -> Value {
        check(body).unwrap_err().detail()[0]["loc"].clone()
    }

    #[test]
    fn impossible_values_are_named() {
        assert_eq!(loc(&json!({"data": {"a": ["x", "y\u{0}"]}})), json!(["body", "data", "a", 1]));
        assert_eq!(loc(&json!({"data": {"n\u{0}": 1}})), json!(["body", "data", "n\u{0}"]));
        assert_eq!(loc(&json!({"debug": {"$oid": "x"}})), json!(["body", "debug", "$oid"]));
        assert_eq!(loc(&json!({"n": 9_223_372_036_854_775_808_u64})), json!(["body", "n"]));
        let huge: Value = serde_json::from_str("{\"n\":-99999999999999999999999999}").unwrap();
        assert_eq!(loc(&huge), json!(["body", "n"]));
        assert!(check(&json!({"n": i64::MIN, "m": i64::MAX, "f": 1.5e10, "s": "x"})).is_ok());
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nest = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "d": inner }));
        assert!(check(&nest(MAX_DEPTH)).is_ok());
        assert_eq!(check(&nest(MAX_DEPTH + 1)).unwrap_err().status(), 422);
        assert!(check(&json!({"debug": {"log": "x".repeat(MAX_NODE - 100)}})).is_ok());
        assert_eq!(check(&json!({"debug": {"log": "x".repeat(MAX_NODE)}})).unwrap_err().status(), 413);
        assert_eq!(check(&json!(vec![0; MAX_NODE])).unwrap_err().status(), 413);
    }
}
