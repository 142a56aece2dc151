//! Values that clients write loosely, read as pydantic and Python read them (contract 2.1).

use serde_json::Value;

/// Why a value is not what it is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The right type of value with the wrong content, e.g. `"maybe"` for a boolean.
    Content,
    /// The wrong type of value.
    Type,
}

/// A boolean: also 0, 1, `"yes"`, `"off"` and the like.
pub(crate) fn flag(value: &Value) -> Result<bool, Bad> {
    const YES: [&str; 6] = ["1", "true", "t", "yes", "y", "on"];
    const NO: [&str; 6] = ["0", "false", "f", "no", "n", "off"];
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Ok(false),
            Some(1.0) => Ok(true),
            _ if number.is_f64() => Err(Bad::Type),
            _ => Err(Bad::Content),
        },
        Value::String(text) if YES.iter().any(|word| text.eq_ignore_ascii_case(word)) => Ok(true),
        Value::String(text) if NO.iter().any(|word| text.eq_ignore_ascii_case(word)) => Ok(false),
        Value::String(_) => Err(Bad::Content),
        _ => Err(Bad::Type),
    }
}

/// `int(text)`: blanks around, a sign, digits with single underscores between; within 64 signed bits.
pub(crate) fn python_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let groups_are_digits =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|c| c.is_ascii_digit()));
    match groups_are_digits {
        true => text.replace('_', "").parse().ok(),
        false => None,
    }
}
