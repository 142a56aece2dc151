//! What can go wrong on a route, with the bodies of contract 1.5.

use axum::http::Method;
use serde_json::{Map, Value, json};

use crate::error::Kind;
use crate::ops::{Answer, Body, Operation, Route};

/// References to the failures of a route, by status.
pub(super) fn of(operation: &Operation, route: &Route) -> Map<String, Value> {
    let takes = operation.takes_any() || route.body != Body::None;
    let writes = route.method != Method::GET;
    let may = |kind: Kind| match kind {
        Kind::BadRequest | Kind::InvalidParams => takes,
        Kind::NotFound => takes && route.answer != Answer::OrNull,
        Kind::Conflict => writes,
        Kind::TooLarge => takes,
        // A bad token is refused also where none is needed, and a good one of a foreign web page, too.
        Kind::Unauthorized | Kind::Forbidden => true,
        Kind::TooMany | Kind::Internal | Kind::Unavailable | Kind::Timeout => true,
        // What never comes of a request that has found its route.
        Kind::Parse | Kind::InvalidRequest | Kind::UnknownMethod | Kind::NotAllowed => false,
    };
    let kinds = Kind::ALL.into_iter().filter(|kind| may(*kind));
    kinds
        .map(|kind| {
            let reference = json!({"$ref": format!("#/components/responses/{}", name(kind))});
            (kind.row().status.to_string(), reference)
        })
        .collect()
}

fn name(kind: Kind) -> String {
    format!("{kind:?}")
}

/// The failures of all routes.
pub(super) fn components() -> Map<String, Value> {
    let own = |kind: &Kind| !matches!(kind, Kind::Parse | Kind::InvalidRequest | Kind::UnknownMethod);
    Kind::ALL.into_iter().filter(own).map(|kind| (name(kind), response(kind))).collect()
}

fn response(kind: Kind) -> Value {
    let row = kind.row();
    let schema = match kind {
        Kind::InvalidParams => "ValidationError",
        Kind::Internal => "InternalError",
        _ => "Error",
    };
    let mut response = json!({
        "description": format!("{}{}", row.message, if row.temporary { "; try again later" } else { "" }),
        "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}},
    });
    if row.temporary {
        response["headers"] = json!({"Retry-After": {
            "schema": {"type": "integer"}, "description": "Seconds, where it is known.",
        }});
    }
    response
}

/// Adds the schemas of the bodies to the document.
pub(super) fn add_schemas(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    schemas["Error"] = json!({
        "type": "object",
        "properties": {"detail": {"type": "string"}},
        "required": ["detail"],
    });
    schemas["InternalError"] = json!({
        "type": "object",
        "properties": {"message": {"type": "string"}},
        "required": ["message"],
    });
    schemas["ValidationError"] = json!({
        "type": "object",
        "properties": {"detail": {"anyOf": [
            {"type": "array", "items": {"$ref": "#/components/schemas/ValidationItem"}},
            {"type": "string"},
        ]}},
        "required": ["detail"],
    });
    schemas["ValidationItem"] = json!({
        "type": "object",
        "properties": {
            "type": {"type": "string", "description": "Name of what is wrong, e.g. `missing`."},
            "loc": {
                "type": "array", "items": {"type": ["string", "integer"]},
                "description": "Where: `body`, `query` or `path`, then the way to it.",
            },
            "msg": {"type": "string"},
            "input": {"description": "What was given."},
            "ctx": {"type": "object"},
        },
        "required": ["type", "loc", "msg"],
    });
}
