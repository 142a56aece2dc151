//! Documents about the operations, for machines: OpenAPI, AsyncAPI, and what the documentation page shows.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::routing::{MethodRouter, get};
use serde_json::Value;

use crate::app::App;
use crate::ops::{Table, schema};

/// The routes of all documents.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/openapi.json", document(schema::openapi))
        .route("/asyncapi.json", document(schema::asyncapi))
        .route("/methods.json", document(schema::catalogue))
}

/// A document, made when it is first asked for: the table never changes.
fn document(make: fn(&Table) -> Value) -> MethodRouter<Arc<App>> {
    let made: Arc<OnceLock<Bytes>> = Arc::default();
    get(async move |State(app): State<Arc<App>>| {
        let body = made.get_or_init(|| make(&app.table).to_string().into()).clone();
        ([(header::CONTENT_TYPE, "application/json")], body)
    })
}
