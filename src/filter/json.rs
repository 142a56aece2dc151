//! Filters in JSON, the form of the WebSocket: native types, `any`, `all`, `not`.

use serde_json::{Map, Value};

use super::operand::{self, Fault, Op};
use super::{FieldType, Filter, Schema, Test, limits, path};
use crate::error::{Error, Result};

/// See [`Filter::from_json`].
pub(super) fn read(filter: &Value, schema: &Schema) -> Result<Filter> {
    Reader { schema, budget: Budget::default() }.filter("filter", filter, 1)
}

struct Reader<'s> {
    schema: &'s Schema,
    budget: Budget,
}

impl Reader<'_> {
    fn filter(&mut self, key: &str, filter: &Value, level: usize) -> Result<Filter> {
        let Value::Object(members) = filter else {
            return Err(Error::invalid(key, "expected an object of conditions"));
        };
        if level > limits::LEVELS {
            return Err(Error::invalid(key, format!("filters nest at most {} levels", limits::LEVELS)));
        }
        Ok(Filter::And(self.members(members, level)?))
    }

    fn members(&mut self, members: &Map<String, Value>, level: usize) -> Result<Vec<Filter>> {
        let mut parts = Vec::new();
        for (key, value) in members {
            parts.push(match key.as_str() {
                "any" => Filter::Or(self.list(key, value, level)?),
                "all" => Filter::And(self.list(key, value, level)?),
                "not" => Filter::Not(Box::new(self.nested(key, value, level)?)),
                _ => self.field(key, value).map_err(|fault| fault.in_json(key))?,
            });
        }
        Ok(parts)
    }

    fn list(&mut self, key: &str, value: &Value, level: usize) -> Result<Vec<Filter>> {
        let Value::Array(filters) = value else {
            return Err(Error::invalid(key, "expected an array of filters"));
        };
        filters.iter().map(|filter| self.nested(key, filter, level)).collect()
    }

    fn nested(&mut self, key: &str, filter: &Value, level: usize) -> Result<Filter> {
        self.budget.term().map_err(|fault| fault.in_json(key))?;
        self.filter(key, filter, level + 1)
    }

    fn field(&mut self, key: &str, value: &Value) -> Result<Filter, Fault> {
        self.budget.term()?;
        let (field, op) = Op::split(key)?;
        let path = path::check(field)?.to_owned();
        let kind = self.schema.type_of(&path);
        let test = match (op, value) {
            (Op::In | Op::Nin, Value::Array(values)) => {
                self.budget.list(values.len())?;
                let values =
                    values.iter().map(|value| operand::native(kind, value)).collect::<Result<_, _>>()?;
                if op == Op::In { Test::In(values) } else { Test::Nin(values) }
            }
            (Op::In | Op::Nin, _) => return Err(Fault::expected("an array")),
            (Op::Re, Value::String(source)) => {
                self.budget.pattern()?;
                operand::pattern(kind, source)?
            }
            (Op::Re, _) => return Err(Fault::expected("a regular expression as a string")),
            (Op::Exists, Value::Bool(wanted)) => Test::Exists(*wanted),
            (Op::Exists, _) => return Err(Fault::expected("true or false")),
            (Op::Int, Value::Number(number)) if number.is_i64() && is_plain(kind) => Test::Eq(value.clone()),
            (Op::Int, _) => return Err(Fault::expected("an integer, on a field that can be one")),
            (op, value) => op.compare(operand::native(kind, value)?),
        };
        Ok(Filter::Field { path, kind, test })
    }
}

/// Whether a field of this type can be compared with a bare number.
pub(super) fn is_plain(kind: FieldType) -> bool {
    matches!(kind, FieldType::Json | FieldType::Integer | FieldType::Text)
}

/// How much of what [`limits`] allow is used up.
#[derive(Debug, Default)]
pub(super) struct Budget {
    terms: usize,
    listed: usize,
    patterns: usize,
}

impl Budget {
    pub(super) fn term(&mut self) -> Result<(), Fault> {
        self.terms += 1;
        within(self.terms, limits::TERMS, "conditions")
    }
    pub(super) fn list(&mut self, length: usize) -> Result<(), Fault> {
        within(length, limits::LIST, "values in a list")?;
        self.listed += length;
        within(self.listed, limits::LISTS, "values in all lists together")
    }
    pub(super) fn pattern(&mut self) -> Result<(), Fault> {
        self.patterns += 1;
        within(self.patterns, limits::PATTERNS, "regular expressions")
    }
}

fn within(count: usize, limit: usize, what: &str) -> Result<(), Fault> {
    if count > limit {
        return Err(Fault::Expected(format!("a filter has at most {limit} {what}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::NODE;
    use super::*;

    fn status(filter: Value) -> (u16, String) {
        match Filter::from_json(&filter, &NODE) {
            Ok(_) => (200, String::new()),
            Err(error) => (error.status(), error.detail().as_str().unwrap_or_default().to_owned()),
        }
    }

    #[test]
    fn reads_what_the_design_shows() {
        let filter =
            json!({"kind":"job","state":"done","result__in":["fail","incomplete"],"data.arch":"arm64"});
        let filter = Filter::from_json(&filter, &NODE).unwrap();
        let mut doc = json!({"kind":"job","state":"done","result":"fail","data":{"arch":"arm64"}});
        assert!(filter.matches(&doc));
        doc["result"] = "pass".into();
        assert!(!filter.matches(&doc));
    }

    #[test]
    fn nests() {
        let filter = json!({"any": [{"kind": "job"}, {"all": [{"kind": "test"}, {"not": {"name": "x"}}]}]});
        let filter = Filter::from_json(&filter, &NODE).unwrap();
        assert!(filter.matches(&json!({"kind": "job"})));
        assert!(filter.matches(&json!({"kind": "test", "name": "y"})));
        assert!(!filter.matches(&json!({"kind": "test", "name": "x"})));
        assert!(!Filter::from_json(&json!({"any": []}), &NODE).unwrap().matches(&json!({})));
        assert!(Filter::from_json(&json!({}), &NODE).unwrap().matches(&json!({})));
    }

    #[test]
    fn refusals_name_the_key() {
        for (filter, words) in [
            (json!([]), "filter: expected an object"),
            (json!({"$where": "1"}), "$where: names do not begin with '$'"),
            (json!({"data.$gt": 1}), "data.$gt: "),
            (json!({"a..b": 1}), "a..b: a path has no empty names"),
            (json!({"__ne": 1}), "__ne: a path has no empty names"),
            (json!({"a\u{0}": 1}), "a\u{0}: "),
            (json!({"x__like": 1}), "x__like: unknown operator 'like'"),
            (json!({"x": {"$gt": 1}}), "x: expected a string, number"),
            (json!({"x": [1]}), "x: expected a string, number"),
            (json!({"x__in": [[1]]}), "x__in: expected a string, number"),
            (json!({"x__in": 1}), "x__in: expected an array"),
            (json!({"x__re": 1}), "x__re: expected a regular expression"),
            (json!({"x__re": "("}), "x__re: not a regular expression: unclosed group"),
            (json!({"x__exists": 1}), "x__exists: expected true or false"),
            (json!({"x__int": "1"}), "x__int: expected an integer"),
            (json!({"kind": 1}), "kind: expected a string or null"),
            (json!({"created": 1}), "created: expected an ISO 8601 date or null"),
            (json!({"created__re": "x"}), "created__re: expected no regular expression"),
            (json!({"parent": true}), "parent: expected an id"),
            (json!({"retry_counter": "1"}), "retry_counter: expected a number or null"),
            (json!({"x": u64::MAX}), "x: expected a number within 64"),
            (json!({"any": {}}), "any: expected an array of filters"),
            (json!({"not": []}), "not: expected an object of conditions"),
        ] {
            let (code, detail) = status(filter.clone());
            assert_eq!(code, 422, "{filter}");
            assert!(detail.starts_with(words), "{filter}: {detail}");
        }
        assert_eq!(status(json!({"created": "zz"})), (400, "Invalid isoformat string: 'zz'".into()));
        let words = "'xyz' is not a valid ObjectId, it must be a 12-byte input or a 24-character hex string";
        assert_eq!(status(json!({"parent__ne": "xyz"})), (400, words.into()));
    }

    #[test]
    fn limits_hold() {
        let terms = |n: usize| Value::Object((0..n).map(|i| (format!("x{i}"), 1.into())).collect());
        assert_eq!(status(terms(64)).0, 200);
        assert_eq!(status(terms(65)).0, 422);
        let nested = |n: usize| (1..n).fold(json!({"x": 1}), |inner, _| json!({"not": inner}));
        assert_eq!(status(nested(8)).0, 200);
        assert_eq!(status(nested(9)).0, 422);
        assert_eq!(status(json!({"any": vec![json!({}); 65]})).0, 422);
        assert_eq!(status(json!({"x__in": vec![1; 1000]})).0, 200);
        assert_eq!(status(json!({"x__in": vec![1; 1001]})).0, 422);
        assert_eq!(status(json!({"x__re": "a".repeat(257)})).0, 422);
        let many = |n: usize| Value::Object((0..n).map(|i| (format!("x{i}__re"), "a".into())).collect());
        assert_eq!((status(many(8)).0, status(many(9)).0), (200, 422));
    }

    #[test]
    fn dates_and_ids_take_the_form_of_the_wire() {
        let filter =
            json!({"created__gte": "2026-01-01T02:00:00+02:00", "parent": "5F0000000000000000000ABC"});
        let filter = Filter::from_json(&filter, &NODE).unwrap();
        assert!(
            filter.matches(&json!({"created": "2026-01-01T00:00:00", "parent": "5f0000000000000000000abc"}))
        );
        assert!(!filter.matches(
            &json!({"created": "2025-12-31T23:59:59.999000", "parent": "5f0000000000000000000abc"})
        ));
    }
}
