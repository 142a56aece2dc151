//! What no body may add to a node, whatever the field: nesting without end, NUL in keys, numbers that a store would change,
//! keys that mean something to MongoDB. (How large a node may be is known when it is whole: `store::size`.)

use serde_json::Value;

use crate::model::problem::{At, Problems};

/// Deepest nesting of one node.
pub(super) const MAX_DEPTH: usize = 64;

/// Notes where `body` holds something impossible that the stored node does not hold at the same place.
pub(super) fn check(body: &Value, problems: &mut Problems) {
    // Taken out, so that it can be walked along while problems are noted.
    let known = problems.take_known();
    walk(body, known.as_deref(), &At::ROOT, MAX_DEPTH, problems);
    problems.put_known(known);
}

// Recursion: at most MAX_DEPTH deep.
fn walk(value: &Value, known: Option<&Value>, at: &At<'_>, depth: usize, problems: &mut Problems) {
    match value {
        // Short numbers and texts are no longer to compare than to look at.
        Value::Null | Value::Bool(_) | Value::String(_) => {}
        _ if known == Some(value) => {}
        Value::Array(_) | Value::Object(_) if depth == 0 => {
            problems.value_error(at, "nested more than 64 levels deep", &Value::Null);
        }
        Value::Array(list) => {
            for (i, element) in list.iter().enumerate() {
                walk(element, known.and_then(|known| known.get(i)), &at.index(i), depth - 1, problems);
            }
        }
        Value::Object(map) => {
            for (key, member) in map {
                let (at, known) = (at.key(key), known.and_then(|known| known.get(key)));
                if key.starts_with('$') && known.is_none() {
                    problems.value_error(&at, "keys must not begin with $", &Value::Null);
                }
                if key.contains('\0') && known.is_none() {
                    problems.value_error(&at, "keys must not contain NUL", &Value::Null);
                }
                walk(member, known, &at, depth - 1, problems);
            }
        }
        // Whole numbers of more bits do not come this far (`quota::json`).
        Value::Number(number) if number.is_u64() && !number.is_i64() => {
            problems.value_error(at, "whole numbers must be between -2^63 and 2^63-1", value);
        }
        Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::error::Result;

    fn check(body: &Value, known: Option<Value>) -> Result<()> {
        let mut problems = Problems::default().besides(known.map(Arc::new).as_ref());
        super::check(body, &mut problems);
        problems.into_items()
    }

    fn loc(body: &Value) -> Value {
        check(body, None).unwrap_err().detail()[0]["loc"].clone()
    }

    #[test]
    fn impossible_values_are_named() {
        assert_eq!(loc(&json!({"data": {"n\u{0}": 1}})), json!(["body", "data", "n\u{0}"]));
        assert_eq!(loc(&json!({"debug": {"$oid": "x"}})), json!(["body", "debug", "$oid"]));
        assert_eq!(loc(&json!({"n": [0, 9_223_372_036_854_775_808_u64]})), json!(["body", "n", 1]));
    }

    #[test]
    fn every_text_and_every_double_is_taken() {
        let odd =
            json!({"a": ["x", "y\u{0}"], "n": i64::MIN, "m": i64::MAX, "f": [1.5e10, 9.3e18, -1e300, 1e308]});
        assert!(check(&odd, None).is_ok());
    }

    #[test]
    fn depth_is_bounded() {
        let nest = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "d": inner }));
        assert!(check(&nest(MAX_DEPTH), None).is_ok());
        assert_eq!(check(&nest(MAX_DEPTH + 1), None).unwrap_err().status(), 422);
        assert!(check(&nest(MAX_DEPTH + 1), Some(nest(MAX_DEPTH + 1))).is_ok());
    }

    #[test]
    fn what_is_stored_already_is_not_the_requests_doing() {
        let known = || Some(json!({"data": {"$where": 1, "l": [{"$a": {}}, u64::MAX], "x": 1}}));
        assert!(check(&json!({"data": {"x": 2, "$where": 1, "l": [{"$a": {}}, u64::MAX]}}), known()).is_ok());
        assert!(check(&json!({"data": {"$where": 2}}), known()).is_ok(), "the key was there");
        for (body, place) in [
            (json!({"data": {"$other": 1}}), json!(["body", "data", "$other"])),
            (json!({"data": {"l": [{"$b": {}}]}}), json!(["body", "data", "l", 0, "$b"])),
            (json!({"data": {"l": [0, u64::MAX - 1]}}), json!(["body", "data", "l", 1])),
            (json!({"debug": {"$where": 1}}), json!(["body", "debug", "$where"])),
        ] {
            assert_eq!(check(&body, known()).unwrap_err().detail()[0]["loc"], place, "{body}");
        }
    }
}
