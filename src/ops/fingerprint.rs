//! What a request with an idempotency key asks for, in a few bytes: the key with anything else is a mistake.

use serde_json::Value;
use uuid::Uuid;

use super::operation::Params;

/// The parameter that is not part of it.
pub(super) const KEY: &str = "idempotency_key";

/// The fingerprint of a request's parameters, whatever order their members have; empty where there is no key.
pub(super) fn of(params: &Params<'_>) -> String {
    let read: Value;
    let params = match params {
        Params::Value(value) => value,
        Params::Text(text) => match text.contains(KEY).then(|| serde_json::from_str(text)) {
            Some(Ok(value)) => {
                read = value;
                &read
            }
            _ => return String::new(),
        },
        Params::Owned(text) => return of(&Params::Text(text)),
    };
    let Some(members) =
        params.as_object().filter(|members| members.get(KEY).is_some_and(|key| !key.is_null()))
    else {
        return String::new();
    };
    let mut text = String::new();
    write_members(members.iter().filter(|(name, _)| *name != KEY), &mut text);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string()
}

/// Writes a value in the one way that it has here.
// Recursion: messages and bodies are at most 64 levels deep.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => write_members(members.iter(), text),
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

fn write_members<'v>(members: impl Iterator<Item = (&'v String, &'v Value)>, text: &mut String) {
    let mut members: Vec<_> = members.collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    text.push('{');
    for (name, value) in members {
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push(':');
        write(value, text);
        text.push(',');
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_request_has_the_same_fingerprint() {
        let of_text = |text: &str| of(&Params::Text(text));
        let one = of_text(r#"{"node":{"a":1,"b":[{"x":1,"y":2}]},"idempotency_key":"k"}"#);
        assert_eq!(one.len(), 32);
        assert_eq!(one, of_text(r#"{ "idempotency_key":"other", "node":{"b":[{"y":2,"x":1}], "a":1} }"#));
        assert_eq!(
            one,
            of(&Params::Value(json!({"idempotency_key": "k", "node": {"b": [{"x": 1, "y": 2}], "a": 1}})))
        );
        for other in [
            r#"{"node":{"a":1,"b":[{"x":2,"y":1}]},"idempotency_key":"k"}"#,
            r#"{"node":{"a":"1","b":[{"x":1,"y":2}]},"idempotency_key":"k"}"#,
            r#"{"node":{"a":1,"b":[{"x":1},{"y":2}]},"idempotency_key":"k"}"#,
            r#"{"node":{"a":1,"b":[{"x":1,"y":2}]},"idempotency_key":"k","noevent":true}"#,
        ] {
            assert_ne!(one, of_text(other), "{other}");
        }
        for without in ["", "[]", r#"{"a":1}"#, r#"{"idempotency_key":null}"#] {
            assert_eq!(of_text(without), "", "{without}");
        }
    }
}
