//! The REST routes as an OpenAPI 3.1 document.

mod failures;
mod own_routes;
mod parameters;

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::TITLE;
use super::components::Components;
use crate::auth::Access;
use crate::ops::{Answer, Operation, Route, Table};

const ABOUT: &str = "\
Every route exists under `/latest`, `/v0` and without a prefix; `/v1/…` and the like are answered 400 in plain text. \
A trailing slash is redirected.\n\n\
Each operation is a method of the WebSocket as well (`/latest/asyncapi.json`, `/latest/docs`): `operationId` is its \
name there, with a number behind where several routes lead to it.\n\n\
Routes that read nodes leave `revision` out of the body and carry it as `ETag`; `?revision=true` puts it into the \
body. Nodes that are written may be guarded with `If-Match`. Query parameters that a route does not know are passed \
over.";

/// The document: routes of the operations from their table, then those of the server itself.
pub fn openapi(table: &Table) -> Value {
    let mut components = Components::new(table);
    let mut paths = Map::new();
    let mut tags = BTreeSet::new();
    let mut uses = HashMap::new();
    for operation in table.iter() {
        for route in &operation.routes {
            let number = uses.entry(operation.name).and_modify(|count| *count += 1).or_insert(1);
            let id = match number {
                1 => operation.name.to_owned(),
                n => format!("{}.{n}", operation.name),
            };
            tags.insert(subject(operation));
            put(
                &mut paths,
                route.path,
                route.method.as_str(),
                described(&mut components, operation, route, id),
            );
        }
    }
    for own in own_routes::all() {
        put(&mut paths, own.path, own.method, own.described);
    }
    let tags: Vec<Value> = tags.iter().map(|tag| json!({"name": tag})).chain(own_routes::tags()).collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "LGPL-2.1-or-later", "identifier": "LGPL-2.1-or-later"},
        },
        "servers": [
            {"url": "/latest"},
            {"url": "/v0", "description": "The same."},
            {"url": "/", "description": "The same."},
        ],
        "tags": tags,
        "paths": paths,
    });
    let failures = failures::components();
    let schemas = components.finish(std::iter::once(&mut document));
    document["components"] = json!({
        "schemas": schemas,
        "responses": failures,
        "securitySchemes": {"bearer": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A token of `user.login`.",
        }},
    });
    failures::add_schemas(&mut document);
    document
}

/// What comes before the dot of a method's name.
fn subject(operation: &Operation) -> &'static str {
    operation.name.split('.').next().unwrap_or(operation.name)
}

fn put(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    // `{*path}` is the router's word for a parameter that may have slashes.
    let item = paths.entry(path.replace("{*", "{")).or_insert_with(|| json!({}));
    item[method.to_ascii_lowercase()] = operation;
}

fn described(components: &mut Components, operation: &Operation, route: &Route, id: String) -> Value {
    let params = components.params(operation);
    let result = components.result(operation);
    let mut parameters = parameters::of(operation, route, &params);
    let mut responses = failures::of(operation, route);
    responses.insert(route.status.to_string(), success(components, route, &result, &mut parameters));
    responses.sort_keys();
    let mut described = json!({
        "operationId": id,
        "tags": [subject(operation)],
        "summary": operation.summary,
        "description": format!("Method `{}` of the WebSocket. Access: {}.", operation.name, operation.access.name()),
        "security": security(operation.access),
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = parameters::body(route, &params) {
        described["requestBody"] = body;
    }
    described
}

fn security(access: Access) -> Value {
    match access {
        Access::Open => json!([]),
        Access::Read => json!([{}, {"bearer": []}]),
        Access::Active | Access::Verified | Access::Superuser => json!([{"bearer": []}]),
    }
}

/// The answer of success, as the route shapes it. Adds what can be asked of it to the parameters.
fn success(components: &Components, route: &Route, result: &Value, parameters: &mut Vec<Value>) -> Value {
    let schema = match route.answer {
        Answer::Empty => return json!({"description": "Done."}),
        Answer::Null => json!({"type": "null"}),
        Answer::Whole => result.clone(),
        Answer::OrNull => json!({"anyOf": [result, {"type": "null"}]}),
        Answer::Member(name) => components.resolve(result)["properties"][name].clone(),
    };
    let mut answer = json!({"description": "Done.", "content": {"application/json": {"schema": schema}}});
    let node = has_revision(components, result);
    let shown = match route.answer {
        Answer::Whole | Answer::OrNull => result,
        _ => &answer["content"]["application/json"]["schema"],
    };
    let items = match components.resolve(shown) {
        list if list["type"] == "array" => &list["items"],
        page => &page["properties"]["items"]["items"],
    };
    if node || has_revision(components, items) {
        parameters.push(json!({
            "name": "revision", "in": "query", "schema": {"type": "boolean"},
            "description": "Whether nodes show their `revision`.",
        }));
    }
    if node {
        answer["headers"] =
            json!({"ETag": {"schema": {"type": "string"}, "description": "The node's revision."}});
    }
    answer
}

fn has_revision(components: &Components, schema: &Value) -> bool {
    components.resolve(schema)["properties"].get("revision").is_some()
}
