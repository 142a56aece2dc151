//! The static files of `web/`, built into the binary (read from disk in debug builds, so that they can be edited).

use std::sync::{Arc, OnceLock};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use rust_embed::RustEmbed;
use serde_json::{Value, json};

use super::answer;
use crate::app::App;
use crate::error::Error;
use crate::ops::Table;

#[derive(RustEmbed)]
#[folder = "web/"]
struct Web;

/// Nothing from elsewhere, nothing inline: foreign text cannot become code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The dashboard for browsers; a JSON greeting for clients that do not ask for HTML (contract 9.2).
pub(super) async fn index(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accept.contains("text/html") {
        return page("index.html");
    }
    answer::json(StatusCode::OK, json!({"message": "KernelCI API"}).to_string())
}

pub(super) async fn dashboard() -> Response {
    page("index.html")
}

pub(super) async fn docs() -> Response {
    page("docs.html")
}

/// A document about the operations, made when it is first asked for: the table never changes.
pub(super) fn document(make: fn(&Table) -> Value) -> MethodRouter<Arc<App>> {
    let made: Arc<OnceLock<Bytes>> = Arc::default();
    get(async move |State(app): State<Arc<App>>| {
        let body = made.get_or_init(|| make(&app.table).to_string().into()).clone();
        ([(header::CONTENT_TYPE, "application/json")], body)
    })
}

/// A script, a style, a picture.
pub(super) async fn file(Path(path): Path<String>) -> Response {
    if path.ends_with(".html") {
        return missing();
    }
    serve(&path)
}

fn page(name: &str) -> Response {
    serve(name)
}

fn serve(path: &str) -> Response {
    let Some(file) = Web::get(path) else { return missing() };
    let kind = match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "application/javascript",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        // Checked again each time: a new server must not meet the scripts of the old one.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (headers, Body::from(file.data.into_owned())).into_response()
}

fn missing() -> Response {
    answer::failed("static", &Error::not_found("File not found"))
}
