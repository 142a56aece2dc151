//! The files that pages are made of: scripts, styles, pictures. They are built into the binary (read from disk in
//! debug builds, so that they can be edited).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rust_embed::RustEmbed;

use super::answer;
use crate::app::App;
use crate::error::Error;

#[derive(RustEmbed)]
#[folder = "web/"]
struct Web;

/// Nothing from elsewhere, nothing inline: foreign text cannot become code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The routes of all files.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/static/{*path}", get(file))
        .route("/static/css/{name}", get(async |name| published("css", "css", name)))
        .route("/static/js/{name}", get(async |name| published("js", "js", name)))
        .route("/icons/{name}", get(icon))
}

/// A file of our own pages.
async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(file) = Web::get(&path).filter(|_| !path.ends_with(".html")) else { return missing() };
    let tag = format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(file.metadata.sha256_hash()));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => respond(&path, file.data.into_owned()),
    };
    // Checked again each time: a new server must not meet the scripts of the old one.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// A file under an address that others may have written down (contract 1.4, 8).
fn published(folder: &str, ending: &str, Path(name): Path<String>) -> Response {
    if !is_plain(&name, ending) {
        return answer::failed("static", &Error::bad_request("Invalid filename"));
    }
    let path = format!("{folder}/{name}");
    let Some(content) = stored(&path) else { return missing() };
    let mut response = respond(&path, content);
    let hour = HeaderValue::from_static("public, max-age=3600");
    response.headers_mut().insert(header::CACHE_CONTROL, hour);
    response
}

/// A picture of a result.
async fn icon(Path(name): Path<String>) -> Response {
    if !is_plain(&name, "png") {
        return answer::failed("icons", &Error::bad_request("Invalid icon name"));
    }
    let path = format!("icons/{name}");
    stored(&path).map_or_else(missing, |content| respond(&path, content))
}

/// Whether this is `^[A-Za-z0-9_.-]+\.ending$`.
pub(super) fn is_plain(name: &str, ending: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let stem = name.strip_suffix(ending).and_then(|rest| rest.strip_suffix('.'));
    stem.is_some_and(|stem| !stem.is_empty() && stem.bytes().all(allowed))
}

/// The content of a file.
pub(super) fn stored(path: &str) -> Option<Vec<u8>> {
    Web::get(path).map(|file| file.data.into_owned())
}

/// The answer with this content; its type is that of the path's ending.
pub(super) fn respond(path: &str, content: impl Into<Body>) -> Response {
    let kind = match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "application/javascript",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Addresses of pages can hold an invitation's token.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (headers, content.into()).into_response()
}

pub(super) fn missing() -> Response {
    answer::failed("static", &Error::not_found("File not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_published_files_are_plain() {
        for (name, plain) in [
            ("ok.png", true),
            ("A-b_c.1.png", true),
            (".png", false),
            ("png", false),
            ("ok.PNG", false),
            ("../ok.png", false),
            ("a b.png", false),
            ("ü.png", false),
            ("ok.png.js", false),
        ] {
            assert_eq!(is_plain(name, "png"), plain, "{name}");
        }
    }
}
