//! REST's 422 bodies: a list of items in the shape that FastAPI gives them and KernelCI's clients read (contract 1.5).

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind};

/// Where a parameter came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Body,
    Query,
    Path,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Origin::Body => "body",
            Origin::Query => "query",
            Origin::Path => "path",
        }
    }
}

/// The body is not JSON.
pub(super) fn not_json(error: &serde_json::Error) -> Error {
    let item = json!({
        "type": "json_invalid", "loc": ["body", error.column()], "msg": "JSON decode error", "input": {},
        "ctx": {"error": error.to_string()},
    });
    Error::new(Kind::InvalidParams, vec![item])
}

/// An operation's word about its parameters (`field: what was expected`) as a list of one item; other errors, and
/// those that are a list already, stay as they are.
pub(super) fn listed(error: Error, params: &Map<String, Value>, origin: impl Fn(&str) -> Origin) -> Error {
    let (Kind::InvalidParams, Value::String(text)) = (error.kind(), error.detail()) else { return error };
    let (field, expected) = text.split_once(": ").unwrap_or(("params", text));
    let missing = expected.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    let item = match missing {
        Some(name) => {
            // Missing further down: the path to the object that it is missing in comes first.
            let path = if field == "params" { name.to_owned() } else { format!("{field}.{name}") };
            json!({"type": "missing", "loc": loc(&path, &origin), "msg": "Field required", "input": shown(params)})
        }
        None => {
            let input = params.get(field).cloned().unwrap_or(Value::Null);
            let msg = format!("Value error, {expected}");
            json!({"type": "value_error", "loc": loc(field, &origin), "msg": msg, "input": input})
        }
    };
    Error::new(Kind::InvalidParams, vec![item])
}

fn loc(path: &str, origin: &impl Fn(&str) -> Origin) -> Value {
    let first = path.split('.').next().unwrap_or(path);
    let mut parts = vec![Value::from(origin(first).name())];
    if path != "params" && path != "body" {
        parts.extend(path.split('.').map(Value::from));
    }
    parts.into()
}

/// What was given, without what must not come back.
fn shown(params: &Map<String, Value>) -> Value {
    params
        .iter()
        .filter(|(name, _)| !name.contains("password") && *name != "token")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(error: Error, params: Value) -> Value {
        let params = params.as_object().cloned().unwrap();
        listed(error, &params, |name| if name == "limit" { Origin::Query } else { Origin::Body }).detail()[0]
            .clone()
    }

    #[test]
    fn parameters_are_named_as_fastapi_names_them() {
        let item =
            one(Error::invalid("params", "missing field `username`"), json!({"password": "x", "scope": ""}));
        let wanted = json!({"type": "missing", "loc": ["body", "username"], "msg": "Field required", "input": {"scope": ""}});
        assert_eq!(item, wanted);
        let item = one(Error::invalid("limit", "expected 1 to 1000"), json!({"limit": 0}));
        assert_eq!(item["loc"], json!(["query", "limit"]));
        assert_eq!((&item["msg"], &item["input"]), (&json!("Value error, expected 1 to 1000"), &json!(0)));
        let error = listed(Error::forbidden(), &Map::new(), |_| Origin::Body);
        assert_eq!(error.detail(), "Forbidden");
    }
}
