//! Whether the process lives, and whether it can serve.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::answer::{self, failed};
use crate::app::App;
use crate::health::Look;

/// 200 as long as the process answers.
pub(super) async fn live() -> Response {
    alive()
}

/// What `/health` answers.
pub(super) fn alive() -> Response {
    answer::json(StatusCode::OK, json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}).to_string())
}

/// 200 if the store and the log can be reached and take writes and the server is not shutting down, else 503; what is
/// what, as it was looked at a moment ago.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let facts = app.store.facts();
    let looks = match app.health.last().await {
        Ok(looks) => looks,
        Err(error) => return failed("ready", &error),
    };
    let (mut store, mut log) = (part(&looks.store), part(&looks.log));
    store["kind"] = facts.kind.into();
    store["atomic_hierarchies"] = facts.atomic_hierarchies.into();
    if !facts.atomic_hierarchies {
        store["weaker"] =
            "standalone MongoDB: writes of several nodes are not atomic; a replica set makes them so".into();
    }
    let takes_writes = looks.writes.is_ok();
    if looks.store.is_ok() && !takes_writes {
        store["ok"] = false.into();
        store["writes"] =
            "nothing can be written: the disk may be full, or the database locked; reads go on".into();
    }
    if !looks.log.is_ok() {
        log["why"] = "it cannot be reached, or takes no writes; the server's log has more".into();
    }
    let draining = app.draining.is_cancelled();
    let ready = looks.store.is_ok() && takes_writes && looks.log.is_ok() && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(
        status,
        json!({"ready": ready, "draining": draining, "store": store, "log": log}).to_string(),
    )
}

fn part(look: &Look) -> Value {
    json!({"ok": look.is_ok(), "ms": look.took.as_micros() as f64 / 1000.0})
}
