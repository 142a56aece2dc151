//! The meaning of filters: MongoDB's, on JSON documents in wire form (contract 4.2).
//!
//! A path reaches zero or more values of a document, and a test holds if it holds for any of them:
//!
//! * Names lead through objects. Where a name is not there, or a scalar is in the way, a *missing* value is reached,
//!   which equals null and is otherwise like nothing.
//! * An array on the way is entered: the rest of the path is followed in each of its objects (not in arrays inside
//!   it), and a number also picks the element at that index. If this reaches nothing, not even missing is reached.
//! * An array at the end stands for each of its elements and for itself; but an array that an index picked stands
//!   only for itself.
//!
//! So work is bounded by the document times two to the number of indexes in the path, and recursion by its length.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::{Filter, Test, path};

/// Asked about each value that a path reaches (`None`: missing); true ends the walk.
type Visit<'v> = dyn FnMut(Option<&Value>) -> bool + 'v;

/// See [`Filter::matches`].
pub(super) fn matches(filter: &Filter, doc: &Value) -> bool {
    match filter {
        Filter::And(all) => all.iter().all(|part| matches(part, doc)),
        Filter::Or(any) => any.iter().any(|part| matches(part, doc)),
        Filter::Not(part) => !matches(part, doc),
        Filter::Field { path, test, .. } => holds(test, path, doc),
    }
}

/// Visits the strings that a path reaches.
pub(crate) fn strings_at(doc: &Value, path: &str, visit: &mut dyn FnMut(&str)) {
    walk(doc, path, &mut |found| {
        if let Some(Value::String(string)) = found {
            visit(string);
        }
        false
    });
}

fn walk(doc: &Value, path: &str, visit: &mut Visit<'_>) -> bool {
    match doc {
        Value::Object(object) => walk_object(object, path, visit),
        _ => visit(None),
    }
}

fn holds(test: &Test, path: &str, doc: &Value) -> bool {
    let any = |visit: &mut Visit<'_>| walk(doc, path, visit);
    match test {
        Test::Eq(value) => any(&mut |found| equal(found, value)),
        Test::Ne(value) => !any(&mut |found| equal(found, value)),
        Test::Lt(value) => any(&mut |found| order(found, value) == Some(Ordering::Less)),
        Test::Lte(value) => any(&mut |found| order(found, value).is_some_and(Ordering::is_le)),
        Test::Gt(value) => any(&mut |found| order(found, value) == Some(Ordering::Greater)),
        Test::Gte(value) => any(&mut |found| order(found, value).is_some_and(Ordering::is_ge)),
        Test::In(values) => any(&mut |found| values.iter().any(|value| equal(found, value))),
        Test::Nin(values) => !any(&mut |found| values.iter().any(|value| equal(found, value))),
        Test::Re(pattern) => {
            any(&mut |found| found.and_then(Value::as_str).is_some_and(|text| pattern.is_match(text)))
        }
        Test::Exists(wanted) => any(&mut |found| found.is_some()) == *wanted,
    }
}

fn walk_object(object: &Map<String, Value>, path: &str, visit: &mut Visit<'_>) -> bool {
    let (mut object, mut path) = (object, path);
    loop {
        let (name, rest) = path::split(path);
        match (object.get(name), rest) {
            (None, _) => return visit(None),
            (Some(Value::Array(array)), None) => {
                return array.iter().any(|element| visit(Some(element))) || visit(object.get(name));
            }
            (found, None) => return visit(found),
            (Some(Value::Object(inner)), Some(rest)) => (object, path) = (inner, rest),
            (Some(Value::Array(array)), Some(rest)) => return walk_array(array, rest, visit),
            (Some(_), Some(_)) => return visit(None),
        }
    }
}

fn walk_array(array: &[Value], path: &str, visit: &mut Visit<'_>) -> bool {
    let (name, rest) = path::split(path);
    if array.iter().any(|element| element.as_object().is_some_and(|inner| walk_object(inner, path, visit))) {
        return true;
    }
    let picked =
        if path::is_index(name) { name.parse().ok().and_then(|i: usize| array.get(i)) } else { None };
    match (picked, rest) {
        (None, _) => false,
        (picked, None) => visit(picked),
        (Some(Value::Object(inner)), Some(rest)) => walk_object(inner, rest, visit),
        (Some(Value::Array(inner)), Some(rest)) => walk_array(inner, rest, visit),
        (Some(_), Some(_)) => false,
    }
}

fn equal(found: Option<&Value>, operand: &Value) -> bool {
    order(found, operand) == Some(Ordering::Equal)
}

/// How the value stands to the operand, if they are of one type: null and missing; booleans; numbers; strings.
fn order(found: Option<&Value>, operand: &Value) -> Option<Ordering> {
    match (found, operand) {
        (None | Some(Value::Null), Value::Null) => Some(Ordering::Equal),
        (Some(Value::Bool(a)), Value::Bool(b)) => Some(a.cmp(b)),
        (Some(Value::Number(a)), Value::Number(b)) => order_numbers(a, b),
        (Some(Value::String(a)), Value::String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        _ => None,
    }
}

/// Exact over integers and floats. Integers beyond 64 signed bits count as floats: neither store keeps them.
fn order_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => order_mixed(a, b.as_f64()?),
        (None, Some(b)) => order_mixed(b, a.as_f64()?).map(Ordering::reverse),
        (None, None) => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn order_mixed(a: i64, b: f64) -> Option<Ordering> {
    const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;
    if b.is_nan() {
        None
    } else if b >= TOO_LARGE {
        Some(Ordering::Less)
    } else if b < -TOO_LARGE {
        Some(Ordering::Greater)
    } else {
        // Truncation is exact here; what it cut off decides between equal integers.
        let whole = b.trunc();
        Some(a.cmp(&(whole as i64)).then_with(|| whole.partial_cmp(&b).unwrap_or(Ordering::Equal)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{FieldType, Filter, Test};
    use super::*;

    fn holds(path: &str, test: Test, doc: Value) -> bool {
        Filter::Field { path: path.into(), kind: FieldType::Json, test }.matches(&doc)
    }
    fn eq(path: &str, value: Value, doc: Value) -> bool {
        holds(path, Test::Eq(value), doc)
    }

    /// The corners as mongod 6.0 answered them.
    #[test]
    fn arrays() {
        assert!(eq("a", json!(1), json!({"a": [2, 1]})));
        assert!(!eq("a", json!(1), json!({"a": [[1]]})), "elements of elements are not looked at");
        assert!(eq("a.b", json!(1), json!({"a": [{"b": 2}, {"b": [1]}]})));
        assert!(!eq("a.b", json!(1), json!({"a": [[{"b": 1}]]})), "nor are objects in arrays in arrays");
        assert!(eq("a.0", json!(1), json!({"a": [1]})) && !eq("a.1", json!(1), json!({"a": [1]})));
        assert!(!eq("a.0", json!(1), json!({"a": [[1]]})), "what an index picks is not entered");
        assert!(eq("a.0.0", json!(1), json!({"a": [[1]]})));
        assert!(eq("a.0.b", json!(1), json!({"a": [[{"b": 1}]]})));
        assert!(
            eq("a.0", json!(1), json!({"a": {"0": 1}})) && eq("a.0", json!(1), json!({"a": [5, {"0": 1}]}))
        );
        assert!(!eq("a.00", json!(1), json!({"a": [1]})));
    }

    #[test]
    fn null_and_missing() {
        assert!(eq("a", json!(null), json!({})) && eq("a", json!(null), json!({"a": [null]})));
        assert!(!eq("a", json!(null), json!({"a": []})));
        assert!(eq("a.b", json!(null), json!({"a": 5})), "a scalar in the way");
        assert!(!eq("a.b", json!(null), json!({"a": []})) && !eq("a.b", json!(null), json!({"a": [1]})));
        assert!(eq("a.b", json!(null), json!({"a": [1, {}]})));
        assert!(!holds("a.b", Test::Exists(true), json!({"a": [1]})));
        assert!(
            holds("a", Test::Exists(true), json!({"a": null}))
                && holds("a", Test::Exists(true), json!({"a": []}))
        );
        assert!(
            holds("a", Test::Gte(json!(null)), json!({})) && !holds("a", Test::Gt(json!(null)), json!({}))
        );
    }

    #[test]
    fn types_do_not_mix() {
        assert!(!eq("a", json!(1), json!({"a": true})) && !eq("a", json!(1), json!({"a": "1"})));
        assert!(!holds("a", Test::Gt(json!(0)), json!({"a": "x"})));
        assert!(!holds("a", Test::Lt(json!("x")), json!({"a": 1})));
        assert!(holds("a", Test::Gt(json!(false)), json!({"a": true})));
    }

    #[test]
    fn numbers_are_exact() {
        let big = 9_007_199_254_740_993_i64;
        assert!(!eq("a", json!(big), json!({"a": 9_007_199_254_740_992.0})));
        assert!(holds("a", Test::Lt(json!(big)), json!({"a": 9_007_199_254_740_992.0})));
        assert!(holds("a", Test::Gt(json!(i64::MAX)), json!({"a": 9_223_372_036_854_775_808.0})));
        assert!(eq("a", json!(0), json!({"a": -0.0})) && eq("a", json!(1.0), json!({"a": 1})));
        assert!(holds("a", Test::Lt(json!(-0.5)), json!({"a": -1})));
    }
}
