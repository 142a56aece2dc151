//! The WebSocket as an AsyncAPI 3.0 document, seen from the server: it receives requests and sends the rest.

use serde_json::{Map, Value, json};

use super::TITLE;
use super::catalogue::{errors, limits};
use super::components::Components;
use super::notifications::notifications;
use super::types::CloudEvent;
use crate::ops::schema::Described;
use crate::ops::{Operation, Table};
use crate::session::close;

const ABOUT: &str = "\
JSON-RPC 2.0, one message a text frame, subprotocol `kernelci.v1.json`. `session.hello` comes first, within ten \
seconds; the token goes there or into `Authorization: Bearer` of the upgrade, never into the address. Requests run \
concurrently: answers carry the `id` and come as they finish. A request without `id` gets no answer.\n\n\
A subscription is a position in a channel's log. Numbers are dense and increasing within an epoch; whoever subscribes \
again with the last position misses nothing, or is told what.";

/// The document.
pub fn asyncapi(table: &Table) -> Value {
    let mut components = Components::new(table);
    let mut messages = Map::new();
    let mut operations = Map::new();
    for operation in table.iter() {
        add_method(&mut components, operation, &mut messages, &mut operations);
    }
    for row in notifications() {
        let params = components.of(row.params);
        let payload = rpc(json!({"method": {"const": row.name}, "params": params}), &["method", "params"]);
        messages.insert(row.name.into(), message(row.name, row.meaning, payload));
        operations.insert(
            row.name.into(),
            json!({
                "action": "send", "channel": reference("channels", "session"), "summary": row.meaning,
                "messages": [in_channel("session", row.name)],
            }),
        );
    }
    messages.insert("error".into(), message("error", "The answer to a request that failed.", error()));
    let in_session: Map<String, Value> =
        messages.keys().map(|name| (name.clone(), reference("components/messages", name))).collect();
    let event = components.of(Described::of::<CloudEvent>());
    messages.insert("cloudevent".into(), message("cloudevent", "One event, bare.", event));
    operations.insert(
        "feed".into(),
        json!({
            "action": "send", "channel": reference("channels", "feed"),
            "summary": "Events of a channel that match the query, as they come.",
            "messages": [in_channel("feed", "cloudevent")],
        }),
    );
    let mut document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": TITLE,
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "LGPL-2.1-or-later"},
        },
        "defaultContentType": "application/json",
        "servers": {"this": {
            "host": "{host}", "pathname": "/latest", "protocol": "ws",
            "variables": {"host": {"default": "localhost:8001", "description": "Where this document came from."}},
        }},
        "channels": {
            "session": {
                "address": "/ws",
                "description": "A session: requests and answers, and what the server says unasked.",
                "messages": in_session,
                "bindings": {"ws": {"method": "GET", "headers": upgrade("kernelci.v1.json")}},
            },
            "feed": {
                "address": "/events/feed",
                "description": FEED,
                "messages": {"cloudevent": reference("components/messages", "cloudevent")},
                "bindings": {"ws": {
                    "method": "GET",
                    "headers": upgrade("cloudevents.json"),
                    "query": {"type": "object", "properties": {
                        "channel": {"type": "string", "default": "node"},
                        "from": {"type": "string", "default": "now",
                                 "description": "`now`, `earliest`, `<epoch>:<seq>` or an ISO 8601 time."},
                    }, "additionalProperties": {
                        "type": "string", "description": "Conditions on the CloudEvent, e.g. `data.kind=job`.",
                    }},
                }},
            },
        },
        "operations": operations,
    });
    let schemas = components.finish(messages.values_mut());
    document["components"] = json!({"schemas": schemas, "messages": messages});
    document["x-errors"] = errors().into();
    document["x-close-codes"] = json!(close::ALL);
    document["x-limits"] = limits();
    document
}

const FEED: &str = "One-way: one CloudEvent a message. What the reader does not get, because it has expired or history was \
    lost, is told before what follows it: an event of the type `org.kernelci.gap`, without `sequence`, whose data is \
    `{\"from\", \"to\"}` and, if another epoch begins, `epoch`. Pings carry `<epoch>:<seq>`, up to where everything that matches \
    has been sent, also where nothing does; whoever answers none is closed (4408). Without an upgrade, the same as server-sent \
    events: `event: gap`, and keep-alives with an `id`; at a shutdown `retry:` says when to come back.";

fn add_method(
    components: &mut Components,
    operation: &Operation,
    messages: &mut Map<String, Value>,
    operations: &mut Map<String, Value>,
) {
    let name = operation.name;
    let (request, result) = (format!("{name}.request"), format!("{name}.result"));
    let params = components.params_ref(operation);
    let fields = json!({"id": id(), "method": {"const": name}, "params": params});
    messages.insert(request.clone(), message(name, operation.summary, rpc(fields, &["method"])));
    let fields = json!({"id": id(), "result": components.result(operation)});
    let about = format!("The answer to `{name}`.");
    messages.insert(result.clone(), message(&result, &about, rpc(fields, &["id", "result"])));
    operations.insert(
        name.into(),
        json!({
            "action": "receive",
            "channel": reference("channels", "session"),
            "summary": operation.summary,
            "description": format!("Access: {}.", operation.access.name()),
            "messages": [in_channel("session", &request)],
            "reply": {
                "channel": reference("channels", "session"),
                "messages": [in_channel("session", &result), in_channel("session", "error")],
            },
        }),
    );
}

/// A JSON-RPC message with these further members.
fn rpc(mut members: Value, required: &[&str]) -> Value {
    members["jsonrpc"] = json!({"const": "2.0"});
    let required: Vec<&str> = std::iter::once("jsonrpc").chain(required.iter().copied()).collect();
    json!({"type": "object", "properties": members, "required": required})
}

fn id() -> Value {
    json!({"type": ["integer", "string", "null"], "description": "Chosen by the client; strings have at most 128 bytes."})
}

fn error() -> Value {
    let mut codes: Vec<Value> = errors().iter().map(|row| row["code"].clone()).collect();
    codes.dedup();
    let data = json!({
        "type": "object",
        "properties": {
            "status": {"type": "integer", "description": "As REST would answer."},
            "detail": {"description": "As REST would answer: a sentence, or a list of what is wrong."},
            "temporary": {"type": "boolean", "description": "Whether the same request may succeed later."},
            "retry_after_ms": {"type": "integer"},
            "revision": {"type": "integer", "description": "Where the node stands, after a conflict."},
        },
        "required": ["status", "detail", "temporary"],
    });
    let error = json!({
        "type": "object",
        "properties": {"code": {"type": "integer", "enum": codes}, "message": {"type": "string"}, "data": data},
        "required": ["code", "message", "data"],
    });
    rpc(json!({"id": id(), "error": error}), &["id", "error"])
}

fn message(name: &str, summary: &str, payload: Value) -> Value {
    json!({"name": name, "summary": summary, "payload": payload})
}

fn reference(place: &str, name: &str) -> Value {
    json!({"$ref": format!("#/{place}/{name}")})
}

fn in_channel(channel: &str, message: &str) -> Value {
    json!({"$ref": format!("#/channels/{channel}/messages/{message}")})
}

fn upgrade(protocol: &str) -> Value {
    json!({"type": "object", "properties": {
        "Sec-WebSocket-Protocol": {"const": protocol},
        "Authorization": {"type": "string", "description": "`Bearer` and a token of `user.login`."},
    }})
}
