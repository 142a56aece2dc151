//! What fields are compared with: operands of each [`FieldType`], in their JSON wire form.

use serde_json::{Number, Value};

use super::{FieldType, Pattern, Test};
use crate::error::Error;
use crate::model::{EventTime, ObjectId};

/// The names of operators, as they stand behind `__`. Equality has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Lt,
    Lte,
    Gt,
    Gte,
    In,
    Nin,
    Re,
    Int,
    Exists,
}

impl Op {
    const NAMES: [(&'static str, Op); 10] = [
        ("ne", Op::Ne),
        ("lt", Op::Lt),
        ("lte", Op::Lte),
        ("gt", Op::Gt),
        ("gte", Op::Gte),
        ("in", Op::In),
        ("nin", Op::Nin),
        ("re", Op::Re),
        ("int", Op::Int),
        ("exists", Op::Exists),
    ];

    /// Splits a key into field and operator: exactly two parts around `__`, else it is a field as it stands.
    pub(super) fn split(key: &str) -> Result<(&str, Op), Fault> {
        let mut parts = key.split("__");
        let (Some(field), Some(name), None) = (parts.next(), parts.next(), parts.next()) else {
            return Ok((key, Op::Eq));
        };
        match Op::named(name) {
            Some(op) if op != Op::Eq => Ok((field, op)),
            _ => {
                let known = Op::NAMES.map(|(known, _)| known).join(" ");
                Err(Fault::Expected(format!("unknown operator '{name}', expected one of {known}")))
            }
        }
    }
    /// The operator of this name; equality has the empty one.
    pub(super) fn named(name: &str) -> Option<Op> {
        if name.is_empty() {
            return Some(Op::Eq);
        }
        Op::NAMES.iter().find(|(known, _)| *known == name).map(|(_, op)| *op)
    }
    /// The test that compares with one value; only for operators that do.
    pub(super) fn compare(self, value: Value) -> Test {
        match self {
            Op::Ne => Test::Ne(value),
            Op::Lt => Test::Lt(value),
            Op::Lte => Test::Lte(value),
            Op::Gt => Test::Gt(value),
            Op::Gte => Test::Gte(value),
            Op::In => Test::In(vec![value]),
            Op::Nin => Test::Nin(vec![value]),
            Op::Eq | Op::Int | Op::Re | Op::Exists => Test::Eq(value),
        }
    }
}

/// Why an operand is refused.
#[derive(Debug)]
pub(super) enum Fault {
    /// What was expected; the status depends on where the filter came from.
    Expected(String),
    /// An answer whose wording clients know.
    Known(Error),
}

impl From<String> for Fault {
    fn from(expected: String) -> Fault {
        Fault::Expected(expected)
    }
}

impl Fault {
    pub(super) fn expected(what: &str) -> Fault {
        Fault::Expected(format!("expected {what}"))
    }
    /// As the answer to a filter in JSON: 422.
    pub(super) fn in_json(self, key: &str) -> Error {
        match self {
            Fault::Expected(what) => Error::invalid(key, what),
            Fault::Known(error) => error,
        }
    }
    /// As the answer to a query string: 400, as every bad query string has always been answered.
    pub(super) fn in_query(self, key: &str) -> Error {
        match self {
            Fault::Expected(what) => Error::bad_request(format!("{key}: {what}")),
            Fault::Known(error) => error,
        }
    }
}

/// An operand of native type for a field of this type.
pub(super) fn native(kind: FieldType, value: &Value) -> Result<Value, Fault> {
    match (kind, value) {
        (_, Value::Array(_) | Value::Object(_)) => {
            Err(Fault::expected("a string, number, boolean or null (lists go with __in and __nin)"))
        }
        (_, Value::Null) => Ok(Value::Null),
        (FieldType::NodeDate | FieldType::EventDate, Value::String(text)) => date(kind, text),
        (FieldType::NodeDate | FieldType::EventDate, _) => Err(Fault::expected("an ISO 8601 date or null")),
        (FieldType::Id | FieldType::LooseId, Value::String(text)) => id(text),
        (FieldType::Id | FieldType::LooseId, _) => Err(Fault::expected("an id (24 hex digits) or null")),
        (FieldType::Text, Value::String(_)) => Ok(value.clone()),
        (FieldType::Text, _) => Err(Fault::expected("a string or null")),
        (FieldType::Integer, Value::Number(number)) | (FieldType::Json, Value::Number(number)) => {
            if number.is_u64() && !number.is_i64() {
                return Err(Fault::expected("a number within 64 signed bits"));
            }
            Ok(value.clone())
        }
        (FieldType::Integer, _) => Err(Fault::expected("a number or null")),
        (FieldType::Json, Value::String(_) | Value::Bool(_)) => Ok(value.clone()),
    }
}

/// A date in the form that the field has in JSON.
pub(super) fn date(kind: FieldType, text: &str) -> Result<Value, Fault> {
    let time = EventTime::parse_iso(text).map_err(Fault::Known)?;
    Ok(match kind {
        FieldType::EventDate => time.to_text().into(),
        _ => time.to_millis().to_wire().into(),
    })
}

/// An id in lower case.
pub(super) fn id(text: &str) -> Result<Value, Fault> {
    match ObjectId::parse_str(text) {
        Ok(id) => Ok(id.to_hex().into()),
        Err(_) => Err(Fault::Known(Error::bad_request(format!(
            "'{text}' is not a valid ObjectId, it must be a 12-byte input or a 24-character hex string"
        )))),
    }
}

/// What Python's `int()` reads, within 64 signed bits.
pub(super) fn integer(text: &str) -> Result<Value, Fault> {
    let digits = text.trim();
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    let plain =
        !unsigned.is_empty() && unsigned.split('_').all(|group| !group.is_empty() && is_digits(group));
    match digits.replace('_', "").parse::<i64>() {
        Ok(number) if plain => Ok(number.into()),
        _ if plain => Err(Fault::expected("an integer within 64 signed bits")),
        _ => {
            Err(Fault::Known(Error::bad_request(format!("invalid literal for int() with base 10: '{text}'"))))
        }
    }
}

/// Whether the text is decimal digits and nothing else.
pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number that decimal digits spell; beyond 64 bits the nearest float.
pub(super) fn digits(text: &str) -> Option<Value> {
    if !is_digits(text) {
        return None;
    }
    match text.parse::<i64>() {
        Ok(number) => Some(number.into()),
        Err(_) => text.parse().ok().and_then(Number::from_f64).map(Value::Number),
    }
}

/// The boolean that `true` or `false` in any case spells.
pub(super) fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// A regular expression on a field of this type: dates and ids are no strings in MongoDB, so none can match there.
pub(super) fn pattern(kind: FieldType, source: &str) -> Result<Test, Fault> {
    match kind {
        FieldType::Json | FieldType::Text => Ok(Test::Re(Pattern::new(source)?)),
        FieldType::Integer => Err(Fault::expected("no regular expression: the field is a number")),
        FieldType::NodeDate | FieldType::EventDate => {
            Err(Fault::expected("no regular expression: the field is a date"))
        }
        FieldType::Id | FieldType::LooseId => {
            Err(Fault::expected("no regular expression: the field is an id"))
        }
    }
}
