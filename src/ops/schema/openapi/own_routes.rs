//! The routes that are no operations: the WebSocket, JSON-RPC, feeds, health, documents, pages.

use serde_json::{Value, json};

/// A route of the server itself.
pub(super) struct Own {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// As the document has it.
    pub(super) described: Value,
}

/// The tags of these routes.
pub(super) fn tags() -> impl Iterator<Item = Value> {
    let rows = [
        ("realtime", "The WebSocket and its relatives."),
        ("server", "The server itself."),
        ("pages", "For people."),
    ];
    rows.into_iter().map(|(name, about)| json!({"name": name, "description": about}))
}

const JSON: &str = "application/json";
const HTML: &str = "text/html";

/// All of them.
pub(super) fn all() -> Vec<Own> {
    let mut all = vec![websocket(), rpc(), feed(), ready()];
    for (path, summary) in [
        ("/health", "200 as long as the process answers."),
        ("/openapi.json", "This document."),
        ("/asyncapi.json", "The WebSocket as an AsyncAPI 3 document."),
        ("/methods.json", "What the docs page shows."),
    ] {
        all.push(own("get", path, "server", summary, json!({"200": answer("Done.", JSON)})));
    }
    for (path, summary) in [
        (
            "/dashboard",
            "The dashboard; with `builds`, `testsuites` or `tests` in the query grids of results.",
        ),
        ("/docs", "Methods, notifications, errors and examples."),
        ("/viewer", "A node, a search, trees."),
        ("/manage", "Submits checkouts."),
        ("/analytics", "What telemetry shows."),
        ("/stats", "Results in numbers."),
        ("/user/invite", "Invites somebody."),
        ("/user/accept-invite", "Where an invitation leads."),
    ] {
        all.push(own("get", path, "pages", summary, json!({"200": answer("The page.", HTML)})));
    }
    let greeting = json!({"200": {"description": "HTML for browsers, JSON for others.", "content": {HTML: {}, JSON: {}}}});
    all.push(own("get", "/", "pages", "The dashboard, or a greeting.", greeting));
    let metrics = json!({"200": answer("Metrics in Prometheus' text form.", "text/plain")});
    all.push(own("get", "/metrics", "server", "Figures for Prometheus.", metrics));
    all.extend([
        file("/static/{*path}", "A script, a style, a picture."),
        file("/static/css/{name}", "A style that others link to."),
        file("/static/js/{name}", "A script that others link to."),
        file("/icons/{name}", "A picture of a result."),
    ]);
    all
}

fn own(method: &'static str, path: &'static str, tag: &str, summary: &str, responses: Value) -> Own {
    let id = format!("{method}{}", path.replace(['/', '{', '*', '}', '.'], "_"));
    let described = json!({
        "operationId": id.trim_end_matches('_'),
        "tags": [tag],
        "summary": summary,
        "security": [],
        "responses": responses,
    });
    Own { method, path, described }
}

/// The same, where a token may come along.
fn own_for_users(method: &'static str, path: &'static str, summary: &str, responses: Value) -> Own {
    let mut own = own(method, path, "realtime", summary, responses);
    own.described["security"] = json!([{}, {"bearer": []}]);
    own
}

fn answer(about: &str, kind: &str) -> Value {
    json!({"description": about, "content": {kind: {}}})
}

fn failure(name: &str) -> Value {
    json!({"$ref": format!("#/components/responses/{name}")})
}

fn websocket() -> Own {
    let responses = json!({
        "101": {"description": "The WebSocket is open."},
        "400": failure("BadRequest"),
        "401": failure("Unauthorized"),
        "403": failure("Forbidden"),
        "503": failure("Unavailable"),
    });
    own_for_users("get", "/ws", "The WebSocket, subprotocol `kernelci.v1.json`.", responses)
}

fn rpc() -> Own {
    let id = json!({"type": ["number", "string", "null"]});
    let mut answered = answer("The answer, also if it is an error.", JSON);
    answered["content"][JSON]["schema"] = json!({
        "type": "object",
        "properties": {"jsonrpc": {"const": "2.0"}, "id": id, "result": {}, "error": {"type": "object"}},
        "required": ["jsonrpc", "id"],
    });
    let responses = json!({"200": answered, "204": {"description": "To a request without `id`."}, "413": failure("TooLarge")});
    let summary = "A request of the WebSocket, for curl.";
    let mut own = own_for_users("post", "/rpc", summary, responses);
    let request = json!({
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"}, "id": id, "method": {"type": "string"}, "params": {"type": "object"},
        },
        "required": ["jsonrpc", "method"],
    });
    own.described["requestBody"] = json!({"required": true, "content": {JSON: {"schema": request}}});
    own
}

fn feed() -> Own {
    let mut responses = json!({
        "101": {"description": "A WebSocket with one CloudEvent a message (subprotocol `cloudevents.json`)."},
        "200": answer("Server-sent events, each with a CloudEvent as its data and where the reader stands as its `id`; `event: gap` tells `from` and `to` of what the reader does not get.", "text/event-stream"),
    });
    for (status, name) in [
        ("400", "BadRequest"),
        ("401", "Unauthorized"),
        ("403", "Forbidden"),
        ("404", "NotFound"),
        ("422", "InvalidParams"),
        ("429", "TooMany"),
        ("500", "Internal"),
        ("503", "Unavailable"),
    ] {
        responses[status] = failure(name);
    }
    let text = |name: &str, place: &str, about: &str| json!({"name": name, "in": place, "schema": {"type": "string"}, "description": about});
    let mut own = own_for_users("get", "/events/feed", "Events of a channel, as they come.", responses);
    own.described["parameters"] = json!([
        text("channel", "query", "Default `node`."),
        text("from", "query", "`now` (default), `earliest`, `<epoch>:<seq>` or an ISO 8601 time."),
        text("Last-Event-ID", "header", "Where to go on: the last `id`."),
        super::parameters::conditions("the CloudEvent, e.g. `data.kind=job`"),
    ]);
    own
}

fn ready() -> Own {
    let responses = json!({"200": answer("Yes.", JSON), "503": answer("No, and why.", JSON)});
    own("get", "/ready", "server", "Whether the server can serve.", responses)
}

fn file(path: &'static str, summary: &str) -> Own {
    let responses =
        json!({"200": answer("The file.", "*/*"), "400": failure("BadRequest"), "404": failure("NotFound")});
    let mut own = own("get", path, "pages", summary, responses);
    let name = if path.ends_with("{name}") { "name" } else { "path" };
    own.described["parameters"] =
        json!([{"name": name, "in": "path", "required": true, "schema": {"type": "string"}}]);
    own
}
