//! One condition as text: what the SQL translation hands to the function that decides about odd documents.

use serde_json::{Value, json};

use super::operand::Op;
use super::{FieldType, Filter, Pattern, Test};

/// Writes a condition, for [`read`].
pub(crate) fn write(path: &str, test: &Test) -> String {
    let (op, value) = match test {
        Test::Eq(value) => ("", value.clone()),
        Test::Ne(value) => ("ne", value.clone()),
        Test::Lt(value) => ("lt", value.clone()),
        Test::Lte(value) => ("lte", value.clone()),
        Test::Gt(value) => ("gt", value.clone()),
        Test::Gte(value) => ("gte", value.clone()),
        Test::In(values) => ("in", values.clone().into()),
        Test::Nin(values) => ("nin", values.clone().into()),
        Test::Re(pattern) => ("re", pattern.text().into()),
        Test::Exists(wanted) => ("exists", (*wanted).into()),
    };
    json!([path, op, value]).to_string()
}

/// Reads what [`write`] wrote.
pub(crate) fn read(text: &str) -> Option<Filter> {
    let (path, op, value): (String, String, Value) = serde_json::from_str(text).ok()?;
    let op = Op::named(&op)?;
    let test = match (op, value) {
        (Op::In, Value::Array(values)) => Test::In(values),
        (Op::Nin, Value::Array(values)) => Test::Nin(values),
        (Op::Re, Value::String(text)) => Test::Re(Pattern::of_ascii(&text).ok()?),
        (Op::Exists, Value::Bool(wanted)) => Test::Exists(wanted),
        (op, value) => op.compare(value),
    };
    Some(Filter::Field { path, kind: FieldType::Json, test })
}
