//! Free-form values between JSON and BSON.

use bson::{Bson, Document};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};
use crate::model::Timestamp;

/// MongoDB refuses more than 180 levels, and takes no more than 100 by its documentation; an event has one more than its
/// node.
const MAX_DEPTH: usize = 112;

/// A JSON value as BSON. `field` is what an error calls it: keys with a NUL and values nested more than 112 deep
/// cannot be stored.
pub(crate) fn from_json(field: &str, value: &Value) -> Result<Bson> {
    nested(field, value, MAX_DEPTH)
}

/// As [`from_json`], of an object.
pub(crate) fn from_map(field: &str, map: &Map<String, Value>) -> Result<Bson> {
    members(field, map, MAX_DEPTH - 1)
}

fn nested(field: &str, value: &Value, depth: usize) -> Result<Bson> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Error::invalid(field, format!("at most {MAX_DEPTH} levels of nesting are possible")));
    };
    Ok(match value {
        Value::Null => Bson::Null,
        Value::Bool(value) => Bson::Boolean(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => i32::try_from(int).map_or(Bson::Int64(int), Bson::Int32),
            (None, _) if number.is_u64() => {
                return Err(Error::invalid(field, "whole numbers must be between -2^63 and 2^63-1"));
            }
            (None, float) => Bson::Double(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => Bson::String(text.clone()),
        Value::Array(items) => {
            Bson::Array(items.iter().map(|item| nested(field, item, depth)).collect::<Result<_>>()?)
        }
        Value::Object(map) => members(field, map, depth)?,
    })
}

fn members(field: &str, map: &Map<String, Value>, depth: usize) -> Result<Bson> {
    let mut document = Document::new();
    for (key, value) in map {
        if key.contains('\0') {
            return Err(Error::invalid(field, "a key must not contain a NUL character"));
        }
        document.insert(key.clone(), nested(field, value, depth)?);
    }
    Ok(Bson::Document(document))
}

/// BSON as JSON: ids become their digits, dates the wire form of node fields; what JSON has no word for becomes
/// text or null.
pub(crate) fn to_json(value: &Bson) -> Value {
    match value {
        Bson::Null | Bson::Undefined | Bson::MinKey | Bson::MaxKey | Bson::DbPointer(_) => Value::Null,
        Bson::Boolean(value) => (*value).into(),
        Bson::Int32(number) => (*number).into(),
        Bson::Int64(number) => (*number).into(),
        Bson::Double(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        Bson::Decimal128(number) => decimal(number.to_string()),
        Bson::String(text) | Bson::Symbol(text) | Bson::JavaScriptCode(text) => text.clone().into(),
        Bson::JavaScriptCodeWithScope(code) => code.code.clone().into(),
        Bson::RegularExpression(regex) => regex.pattern.to_string().into(),
        Bson::ObjectId(id) => id.to_hex().into(),
        Bson::DateTime(date) => Timestamp::from_millis(date.timestamp_millis()).to_wire().into(),
        Bson::Timestamp(stamp) => Timestamp::from_millis(i64::from(stamp.time) * 1000).to_wire().into(),
        Bson::Binary(binary) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(&binary.bytes).into()
        }
        Bson::Array(items) => items.iter().map(to_json).collect(),
        Bson::Document(document) => Value::Object(object(document)),
    }
}

/// Significant digits that a double always keeps.
const DIGITS: usize = 15;

/// A decimal number as a number if that is as exact, else as its text.
fn decimal(text: String) -> Value {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    let (digits, exponent) = text.split_once(['E', 'e']).unwrap_or((&text, "0"));
    let digits = digits.chars().filter(char::is_ascii_digit).skip_while(|digit| *digit == '0').count();
    let near = exponent.parse::<i32>().is_ok_and(|exponent| exponent.abs() < 280);
    let number = if digits <= DIGITS && near { text.parse().ok() } else { None };
    number.and_then(Number::from_f64).map_or(Value::String(text), Value::Number)
}

/// A document as a JSON object.
pub(crate) fn object(document: &Document) -> Map<String, Value> {
    document.iter().map(|(key, value)| (key.clone(), to_json(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_survives_the_round_trip() {
        let value = json!({"a": [1, -2, 3_000_000_000_i64, 1.5, 2.0, null, true, "x"], "$set": {"b.c": {}}});
        assert_eq!(to_json(&from_json("data", &value).unwrap()).to_string(), value.to_string());
    }

    #[test]
    fn no_number_is_rounded() {
        for (decimal, json) in [
            ("1.5", json!(1.5)),
            ("9223372036854775807", json!(i64::MAX)),
            ("9223372036854775808", json!("9223372036854775808")),
            ("0.1234567890123456789", json!("0.1234567890123456789")),
            ("0.000123456789012345", json!(0.000_123_456_789_012_345)),
            ("1E+300", json!("1E+300")),
            ("NaN", json!("NaN")),
            ("Infinity", json!("Infinity")),
        ] {
            assert_eq!(to_json(&decimal.parse::<bson::Decimal128>().unwrap().into()), json, "{decimal}");
        }
        assert!(from_json("data", &json!({"n": u64::MAX})).is_err());
    }

    #[test]
    fn what_cannot_be_stored_is_named() {
        let deep = (0..150).fold(json!(1), |value, _| json!([value]));
        assert!(from_json("data", &deep).unwrap_err().to_string().contains("data"));
        assert!(from_json("data", &json!({"a\0b": 1})).is_err());
    }

    #[test]
    fn foreign_types_become_text() {
        let id = bson::oid::ObjectId::new();
        let value = Bson::Array(vec![
            id.into(),
            bson::DateTime::from_millis(1_000).into(),
            "1.5".parse::<bson::Decimal128>().unwrap().into(),
            f64::NAN.into(),
        ]);
        assert_eq!(to_json(&value), json!([id.to_hex(), "1970-01-01T00:00:01", 1.5, null]));
    }
}
