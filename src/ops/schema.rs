//! The catalogue of methods, made from the table of operations: what the documentation page shows.

use serde_json::{Value, json};

use super::Table;
use crate::error::Kind;
use crate::session::close;

/// Methods, errors, close codes and notifications as one JSON document.
pub fn catalogue(table: &Table) -> Value {
    let methods: Vec<Value> = table
        .iter()
        .map(|operation| {
            let routes: Vec<String> =
                operation.routes.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
            json!({
                "name": operation.name,
                "summary": operation.summary,
                "access": operation.access.name(),
                "routes": routes,
                "params": operation.params,
                "result": operation.result,
            })
        })
        .collect();
    let errors: Vec<Value> = Kind::ALL
        .iter()
        .map(|kind| {
            let row = kind.row();
            json!({"status": row.status, "code": row.code, "message": row.message, "temporary": row.temporary})
        })
        .collect();
    json!({"methods": methods, "errors": errors, "close_codes": close::ALL, "notifications": notifications()})
}

fn notifications() -> Value {
    let row =
        |name: &str, params: &str, meaning: &str| json!({"name": name, "params": params, "meaning": meaning});
    json!([
        row("event", "{sub, seq, event, node?, ancestors?}", "An event of a subscription, as a CloudEvent."),
        row("progress", "{sub, seq}", "Nothing that matches lies between the last event and this place."),
        row(
            "gap",
            "{sub, from, to, epoch?}",
            "These sequence numbers cannot be read any more; with `epoch`, history was lost and numbers count in the new epoch."
        ),
        row("unsubscribed", "{sub, reason}", "The server has ended the subscription."),
        row("session.expiring", "{in_ms}", "The token ends soon: `session.refresh` renews it."),
        row(
            "session.closing",
            "{code, after_ms, jitter_ms, resume}",
            "The server will close the session; reconnect after a random part of `jitter_ms` and resume."
        ),
    ])
}
