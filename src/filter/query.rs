//! Filters in query strings: the language that KernelCI's clients have always written (contract 4.1), where every
//! value is text and its type is guessed. What the old server answered with 500, or with a guess that could only be
//! wrong (contract D-38, D-39), is mended here; each such place says so.

use serde_json::Value;

use super::json::{Budget, is_plain};
use super::operand::{self, Fault, Op};
use super::{FieldType, Filter, Schema, Test, path};
use crate::error::Result;

/// What was said about one field, in order of appearance.
struct Field<'a> {
    path: &'a str,
    kind: FieldType,
    plain: Option<Test>,
    ops: Vec<(Op, Test)>,
}

/// See [`Filter::from_query`].
pub(super) fn read<'a>(
    pairs: &mut dyn Iterator<Item = (&'a str, &'a str)>,
    schema: &Schema,
) -> Result<Filter> {
    let (mut fields, mut budget) = (Vec::<Field<'a>>::new(), Budget::default());
    for (key, value) in pairs {
        condition(&mut fields, &mut budget, schema, key, value).map_err(|fault| fault.in_query(key))?;
    }
    let mut parts = Vec::new();
    for Field { path, kind, plain, ops } in fields {
        for test in plain.into_iter().chain(ops.into_iter().map(|(_, test)| test)) {
            parts.push(Filter::Field { path: path.to_owned(), kind, test });
        }
    }
    Ok(Filter::And(parts))
}

fn condition<'a>(
    fields: &mut Vec<Field<'a>>,
    budget: &mut Budget,
    schema: &Schema,
    key: &'a str,
    value: &str,
) -> Result<(), Fault> {
    budget.term()?;
    let (field, op) = Op::split(key)?;
    let path = path::check(field)?;
    let kind = schema.type_of(path);
    let test = test(budget, kind, op, value)?;
    let index = match fields.iter().position(|known| known.path == path) {
        Some(index) => index,
        None => {
            fields.push(Field { path, kind, plain: None, ops: Vec::new() });
            fields.len() - 1
        }
    };
    if let Some(field) = fields.get_mut(index) {
        match op {
            // The last plain value wins, over operators before it too. (Operators behind it hold as well: was 500.)
            Op::Eq => {
                field.plain = Some(test);
                field.ops.clear();
            }
            _ => {
                field.ops.retain(|(known, _)| *known != op);
                field.ops.push((op, test));
            }
        }
    }
    Ok(())
}

fn test(budget: &mut Budget, kind: FieldType, op: Op, text: &str) -> Result<Test, Fault> {
    Ok(match op {
        Op::Eq => Test::Eq(plain(kind, text)?),
        Op::Ne => different(kind, text)?,
        Op::Lt | Op::Lte | Op::Gt | Op::Gte => op.compare(compared(kind, text)?),
        Op::In | Op::Nin => {
            budget.list(text.split(',').count())?;
            let values = text.split(',').map(|item| listed(kind, item)).collect::<Result<_, _>>()?;
            if op == Op::In { Test::In(values) } else { Test::Nin(values) }
        }
        // Always a pattern, also when it is digits or `null` (digits became an integer: 500).
        Op::Re => {
            budget.pattern()?;
            operand::pattern(kind, text)?
        }
        Op::Int if is_plain(kind) => Test::Eq(operand::integer(text)?),
        Op::Int => return Err(Fault::expected("no integer: the field is a date or an id")),
        // New: query strings had no operator for it.
        Op::Exists => Test::Exists(operand::boolean(text).ok_or_else(|| Fault::expected("true or false"))?),
    })
}

/// The value of a field whose type is known. `null` is null for every type: clients ask for `result=null`,
/// `holdoff=null` (was 500) and `parent=null` (was a random id; documented as nodes without parent).
fn typed(kind: FieldType, text: &str) -> Result<Option<Value>, Fault> {
    Ok(Some(match kind {
        _ if text == "null" => Value::Null,
        FieldType::NodeDate | FieldType::EventDate => operand::date(kind, text)?,
        FieldType::Id | FieldType::LooseId => operand::id(text)?,
        FieldType::Integer => operand::integer(text)?,
        // Text stays text. The old server made `name=true` a boolean and `name__gt=12` a number, which no name is:
        // nobody can rely on an answer that is always empty.
        FieldType::Text => text.into(),
        FieldType::Json => return Ok(None),
    }))
}

/// `field=text`. Digits stay text where the type is not known: clients write `__int` to find numbers, and job ids,
/// device numbers and the like are stored as strings of digits.
fn plain(kind: FieldType, text: &str) -> Result<Value, Fault> {
    if let Some(value) = typed(kind, text)? {
        return Ok(value);
    }
    Ok(operand::boolean(text).map_or_else(|| text.into(), Value::Bool))
}

/// `field__gt=text` and so on: digits are a number, as clients write `data.kernel_revision.version.version__gte=6`.
fn compared(kind: FieldType, text: &str) -> Result<Value, Fault> {
    if let Some(value) = typed(kind, text)? {
        return Ok(value);
    }
    Ok(operand::digits(text).unwrap_or_else(|| text.into()))
}

/// `field__ne=text`. Where the type is not known, digits differ from the number *and* from the text that they spell
/// (only from the number before: `data.job_id__ne=123` did nothing), and so do `true` and `false` (only from the text
/// before: `flag__ne=true` did nothing).
fn different(kind: FieldType, text: &str) -> Result<Test, Fault> {
    if let Some(value) = typed(kind, text)? {
        return Ok(Test::Ne(value));
    }
    let other = operand::digits(text).or_else(|| operand::boolean(text).map(Value::Bool));
    Ok(match other {
        Some(value) => Test::Nin(vec![value, text.into()]),
        None => Test::Ne(text.into()),
    })
}

/// One item of a list: text where the type is not known, as it always was; `null` is null (was 500).
fn listed(kind: FieldType, text: &str) -> Result<Value, Fault> {
    Ok(typed(kind, text)?.unwrap_or_else(|| text.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::NODE;
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<Filter> {
        Filter::from_query(query.iter().copied(), &NODE)
    }
    /// The documents of the list that the query finds, by number.
    fn found(query: &[(&str, &str)], docs: &[Value]) -> Vec<usize> {
        let filter = read(query).unwrap();
        (0..docs.len()).filter(|n| filter.matches(&docs[*n])).collect()
    }
    fn refused(key: &str, value: &str) -> (u16, String) {
        let error = read(&[(key, value)]).unwrap_err();
        (error.status(), error.detail().as_str().unwrap_or_default().to_owned())
    }
    const ID: &str = "5f0000000000000000000abc";

    #[test]
    fn null_is_null_or_missing() {
        let docs = [
            json!({"result": null, "holdoff": null}),
            json!({}),
            json!({"result": "null", "holdoff": "2026-01-01T00:00:00"}),
        ];
        assert_eq!(found(&[("result", "null")], &docs), [0, 1]);
        assert_eq!(found(&[("result__ne", "null")], &docs), [2]);
        assert_eq!(found(&[("holdoff", "null")], &docs), [0, 1]);
        assert_eq!(found(&[("holdoff__ne", "null")], &docs), [2]);
        assert_eq!(found(&[("result__in", "null")], &docs), [0, 1]);
        assert_eq!(found(&[("result", "Null")], &docs), [0; 0]);
        let counters = [json!({"retry_counter": 0}), json!({})];
        assert_eq!(found(&[("retry_counter", "null")], &counters), [1]);
    }

    #[test]
    fn keys_have_exactly_two_parts_or_are_fields() {
        let docs = [json!({"a__b__c": "x"}), json!({"a": "x"})];
        assert_eq!(found(&[("a__b__c", "x")], &docs), [0]);
        assert_eq!(found(&[("a__ne", "x")], &docs), [0]);
        let (status, detail) = refused("a__like", "x");
        assert_eq!(status, 400);
        assert!(detail.starts_with("a__like: unknown operator 'like', expected one of ne lt"), "{detail}");
        assert_eq!(refused("a__", "x").0, 400);
        assert_eq!(refused("__ne", "x").0, 400);
    }

    #[test]
    fn repetitions_and_mixtures() {
        let docs = [json!({"a": "x"}), json!({"a": "y"}), json!({"a": "z"})];
        assert_eq!(found(&[("a", "x"), ("a", "y")], &docs), [1]);
        assert_eq!(found(&[("a__gt", "x"), ("a__lt", "z")], &docs), [1]);
        assert_eq!(found(&[("a__ne", "x"), ("a__ne", "y")], &docs), [0, 2]);
        assert_eq!(found(&[("a__ne", "x"), ("a", "x")], &docs), [0], "the last plain one wins");
        assert_eq!(found(&[("a", "x"), ("a__ne", "x")], &docs), [0; 0], "was 500");
    }

    #[test]
    fn parents_are_ids() {
        let docs = [json!({"parent": ID}), json!({"parent": null}), json!({})];
        assert_eq!(found(&[("parent", ID)], &docs), [0]);
        assert_eq!(found(&[("parent", &ID.to_uppercase())], &docs), [0]);
        assert_eq!(found(&[("parent", "null")], &docs), [1, 2]);
        assert_eq!(found(&[("parent__ne", ID)], &docs), [1, 2]);
        assert_eq!(found(&[("parent__in", &format!("{ID},null"))], &docs), [0, 1, 2]);
        let words = "'xyz' is not a valid ObjectId, it must be a 12-byte input or a 24-character hex string";
        assert_eq!(refused("parent", "xyz"), (400, words.into()));
        assert_eq!(refused("parent__ne", "xyz"), (400, words.into()));
        assert_eq!(refused("parent__re", "5f").0, 400);
        assert_eq!(found(&[("_id", ID)], &[json!({"id": ID}), json!({"id": "x"})]), [0]);
    }

    #[test]
    fn dates_are_dates() {
        let docs = [
            json!({"created": "2026-01-01T00:00:00"}),
            json!({"created": "2026-01-01T00:00:00.001000"}),
            json!({}),
        ];
        assert_eq!(found(&[("created", "2026-01-01")], &docs), [0]);
        assert_eq!(found(&[("created__gt", "2026-01-01 00:00:00+00:00")], &docs), [1]);
        assert_eq!(found(&[("created__gte", "2026-01-01T01:00:00 01:00")], &docs), [0, 1]);
        assert_eq!(found(&[("created__lt", "20260102")], &docs), [0, 1]);
        assert_eq!(found(&[("created__ne", "2026-01-01")], &docs), [1, 2]);
        assert_eq!(found(&[("created__in", "2026-01-01,null")], &docs), [0, 2]);
        for field in ["created", "updated", "timeout", "holdoff", "created__lt"] {
            assert_eq!(refused(field, "zz"), (400, "Invalid isoformat string: 'zz'".into()));
        }
        assert_eq!(refused("created__re", "2026").0, 400);
        assert_eq!(refused("created__int", "5").0, 400);
    }

    #[test]
    fn the_retry_counter_is_a_number() {
        let docs = [json!({"retry_counter": 0}), json!({"retry_counter": 3})];
        assert_eq!(found(&[("retry_counter", "3")], &docs), [1]);
        assert_eq!(found(&[("retry_counter", " +3 ")], &docs), [1]);
        assert_eq!(found(&[("retry_counter__lt", "3")], &docs), [0]);
        assert_eq!(found(&[("retry_counter__in", "0,1")], &docs), [0]);
        assert_eq!(found(&[("retry_counter__ne", "-1")], &docs), [0, 1]);
        assert_eq!(
            refused("retry_counter", "x"),
            (400, "invalid literal for int() with base 10: 'x'".into())
        );
        assert_eq!(refused("retry_counter", "99999999999999999999").0, 400);
    }

    #[test]
    fn operators_make_numbers_of_digits() {
        let docs = [json!({"v": 5}), json!({"v": 6.5}), json!({"v": "5"}), json!({"v": "-5"})];
        assert_eq!(found(&[("v__gte", "5")], &docs), [0, 1]);
        assert_eq!(found(&[("v__lt", "-4")], &docs), [0; 0], "'-4' stays text, which is less than '-5'");
        assert_eq!(found(&[("v__gt", "99999999999999999999")], &docs), [0; 0]);
        assert_eq!(found(&[("v", "5")], &docs), [2], "plain digits are text");
        assert_eq!(found(&[("v__int", "5")], &docs), [0]);
        assert_eq!(found(&[("v__in", "5,6")], &docs), [2], "so are items of lists");
        assert_eq!(found(&[("v__nin", "5,6")], &docs), [0, 1, 3]);
        assert_eq!(found(&[("v__ne", "5")], &docs), [1, 3], "different from both");
        assert_eq!(found(&[("v__int", "-5")], &[json!({"v": -5})]), [0]);
        assert_eq!(refused("v__int", "5.0"), (400, "invalid literal for int() with base 10: '5.0'".into()));
    }

    #[test]
    fn booleans_in_any_case() {
        let docs = [json!({"flag": true}), json!({"flag": false}), json!({"flag": "true"}), json!({})];
        assert_eq!(found(&[("flag", "True")], &docs), [0]);
        assert_eq!(found(&[("flag", "FALSE")], &docs), [1]);
        assert_eq!(found(&[("flag__ne", "true")], &docs), [1, 3]);
        assert_eq!(found(&[("flag__exists", "false")], &docs), [3]);
        assert_eq!(refused("flag__exists", "x").0, 400);
    }

    #[test]
    fn declared_texts_stay_text() {
        let docs = [json!({"name": "true"}), json!({"name": "123"}), json!({"name": "a"})];
        assert_eq!(found(&[("name", "true")], &docs), [0]);
        assert_eq!(found(&[("name__ne", "123")], &docs), [0, 2]);
        assert_eq!(found(&[("name__gt", "123")], &docs), [0, 2]);
        assert_eq!(found(&[("name__re", "123")], &docs), [1]);
        assert_eq!(found(&[("data.x__re", "null")], &[json!({"data": {"x": "nullable"}})]), [0]);
    }

    #[test]
    fn syntax_is_refused() {
        for key in ["$where", "data.$where", "a..b", "", "a\0b", "a'b", "_x"] {
            let (status, detail) = refused(key, "x");
            assert_eq!(status, 400);
            assert!(detail.starts_with(&format!("{key}: ")), "{detail}");
        }
        assert_eq!(refused("name__re", "(").0, 400);
        let many: Vec<String> = (0..65).map(|n| format!("a{n}")).collect();
        assert!(read(&many.iter().map(|key| (key.as_str(), "x")).collect::<Vec<_>>()).is_err());
    }
}
