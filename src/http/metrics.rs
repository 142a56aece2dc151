//! `GET /metrics` for Prometheus. Open, as KernelCI's is (contract 7.3): nothing in it is anybody's secret.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::metrics;

pub(super) async fn get(State(app): State<Arc<App>>) -> Response {
    let text = metrics::scrape(&app).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
