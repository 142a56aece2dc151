//! The catalogue of methods: what the documentation page shows.

use serde_json::{Value, json};

use super::components::Components;
use super::notifications::notifications;
use crate::error::Kind;
use crate::ops::{Answer, Body, Route, Table};
use crate::session::{Limits, close, limits};

/// Methods, notifications, errors, close codes and limits, with the schemas that they refer to.
pub fn catalogue(table: &Table) -> Value {
    let mut components = Components::new(table);
    let methods: Vec<Value> = table
        .iter()
        .map(|operation| {
            let routes: Vec<Value> = operation.routes.iter().map(route).collect();
            json!({
                "name": operation.name,
                "summary": operation.summary,
                "access": operation.access.name(),
                "routes": routes,
                "params": components.params(operation),
                "result": components.result(operation),
            })
        })
        .collect();
    let notifications: Vec<Value> = notifications()
        .iter()
        .map(|row| json!({"name": row.name, "meaning": row.meaning, "params": components.of(row.params)}))
        .collect();
    let mut catalogue = json!({
        "methods": methods,
        "notifications": notifications,
        "errors": errors(),
        "close_codes": close::ALL,
        "limits": limits(),
    });
    let schemas = components.finish(std::iter::once(&mut catalogue));
    catalogue["components"] = json!({"schemas": schemas});
    catalogue
}

/// A route and, in a few words, how a request becomes parameters and the result an answer.
fn route(route: &Route) -> Value {
    let mut how = Vec::new();
    how.extend(match route.body {
        Body::Under(name) => Some(format!("the body is `{name}`")),
        Body::Text(name) => Some(format!("the body is `{name}`, as JSON or as plain text")),
        Body::Form => Some("the body is a form".into()),
        Body::Params | Body::None => None,
    });
    how.extend(match route.filter_beside {
        Some([]) => Some("the query is the `filter`".into()),
        Some(own) => Some(format!("the query has `{}`, the rest of it is the `filter`", own.join("`, `"))),
        None => None,
    });
    how.extend(route.fixed.iter().map(|(name, value)| format!("`{name}` is `{value}`")));
    how.extend(route.defaults.iter().map(|(name, value)| format!("`{name}` is `{value}` if not given")));
    how.extend(match route.answer {
        Answer::Whole => None,
        Answer::OrNull => Some("answers `null` where there is none".into()),
        Answer::Member(name) => Some(format!("answers `{name}` alone")),
        Answer::Null => Some("answers `null`".into()),
        Answer::Empty => Some("answers nothing".into()),
    });
    how.extend((!matches!(route.status, 200)).then(|| format!("status {}", route.status)));
    json!({"method": route.method.as_str(), "path": route.path, "how": how.join("; ")})
}

/// The table of errors.
pub(super) fn errors() -> Vec<Value> {
    let row = |kind: &Kind| {
        let row = kind.row();
        json!({"status": row.status, "code": row.code, "message": row.message, "temporary": row.temporary})
    };
    Kind::ALL.iter().map(row).collect()
}

/// What a client can run into, where the settings say nothing else.
pub(super) fn limits() -> Value {
    let row = |what: &str, most: usize, unit: &str| json!({"what": what, "most": most, "unit": unit});
    let session = Limits::default();
    json!([
        row("a message on the WebSocket", session.message, "bytes"),
        row("a message of a stranger", session.message_of_strangers, "bytes"),
        row("a message before `session.hello`", limits::MESSAGE_BEFORE_HELLO, "bytes"),
        row("a body over REST", crate::http::BodyLimits::default().large, "bytes"),
        row("nesting of a message", crate::quota::json::DEPTH, "levels"),
        row("subscriptions of a session", session.subscriptions, ""),
        row("`window` of a durable subscription", crate::ops::subscriptions::LARGEST_WINDOW, "events"),
        row("requests of a session at a time", session.requests, ""),
        row("a node, as it is stored", crate::store::size::MOST, "bytes"),
        row("nodes of a hierarchy", crate::model::node::hierarchy::MAX_NODES, ""),
        row("conditions of a filter", crate::filter::limits::TERMS, ""),
        row("levels of a filter", crate::filter::limits::LEVELS, ""),
    ])
}
