//! Whether the process lives, and whether it can serve.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::answer;
use crate::app::App;
use crate::error::Result;

const PATIENCE: Duration = Duration::from_secs(5);

/// 200 as long as the process answers.
pub(super) async fn live() -> Response {
    answer::json(StatusCode::OK, json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}).to_string())
}

/// 200 if the store and the log can be reached, writes find room and the server is not shutting down, else 503; what is
/// what.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let facts = app.store.facts();
    let ((store_ok, mut store), (log_ok, log), (takes_writes, _)) =
        tokio::join!(probe(app.store.ping()), probe(app.log.ping()), probe(app.store.takes_writes()));
    store["kind"] = facts.kind.into();
    store["atomic_hierarchies"] = facts.atomic_hierarchies.into();
    if !facts.atomic_hierarchies {
        store["weaker"] =
            "standalone MongoDB: writes of several nodes are not atomic; a replica set makes them so".into();
    }
    if store_ok && !takes_writes {
        store["ok"] = false.into();
        store["writes"] = "nothing can be written, the disk may be full; reads go on".into();
    }
    let draining = app.draining.is_cancelled();
    let ready = store_ok && takes_writes && log_ok && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(
        status,
        json!({"ready": ready, "draining": draining, "store": store, "log": log}).to_string(),
    )
}

async fn probe(ping: impl Future<Output = Result<()>>) -> (bool, Value) {
    let began = Instant::now();
    let ok = matches!(tokio::time::timeout(PATIENCE, ping).await, Ok(Ok(())));
    (ok, json!({"ok": ok, "ms": began.elapsed().as_micros() as f64 / 1000.0}))
}
