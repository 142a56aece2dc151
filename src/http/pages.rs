//! The pages for people: HTML files of `web/` under the addresses that have been bookmarked (contract 8).

use std::sync::Arc;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::answer;
use super::files::{missing, respond, stored};
use crate::app::App;

/// A page.
struct Page {
    /// Its file in `web/`.
    file: &'static str,
    /// Its link in the navigation, if it has one.
    link: &'static str,
    /// What the answer says about keeping it (contract 1.4).
    keep: Keep,
}

/// How long browsers may keep a page.
enum Keep {
    /// Not at all.
    Never,
    /// Nothing is said.
    Unsaid,
}

const LIVE: Page = Page { file: "index.html", link: "/", keep: Keep::Unsaid };
const DOCS: Page = Page { file: "docs.html", link: "/latest/docs", keep: Keep::Unsaid };
const VIEWER: Page = Page { file: "viewer.html", link: "/viewer", keep: Keep::Never };
const GRIDS: Page = Page { file: "grids.html", link: "/dashboard?builds=1", keep: Keep::Never };
const DASHBOARD: Page = Page { keep: Keep::Never, ..LIVE };
const MANAGE: Page = Page { file: "manage.html", link: "/manage", keep: Keep::Never };
const ANALYTICS: Page = Page { file: "analytics.html", link: "/analytics", keep: Keep::Never };
const STATS: Page = Page { file: "stats.html", link: "/stats", keep: Keep::Never };
const INVITE: Page = Page { file: "invite.html", link: "", keep: Keep::Unsaid };
const ACCEPT_INVITE: Page = Page { file: "accept-invite.html", link: "", keep: Keep::Unsaid };

/// Views of `/dashboard` that show grids of results; without one of them it is the live dashboard.
const GRID_VIEWS: [&str; 5] = ["builds", "testsuites", "tests", "displaycommit", "showknode"];

/// The routes of all pages.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(index))
        .route("/docs", get(async || show(&DOCS)))
        .route("/viewer", get(async || show(&VIEWER)))
        .route("/dashboard", get(dashboard))
        .route("/manage", get(async || show(&MANAGE)))
        .route("/analytics", get(async || show(&ANALYTICS)))
        .route("/stats", get(async || show(&STATS)))
        .route("/user/invite", get(async || show(&INVITE)))
        .route("/user/accept-invite", get(async || show(&ACCEPT_INVITE)))
}

/// The live dashboard for browsers; a JSON greeting for clients that do not ask for HTML (contract 9.2).
pub(super) async fn index(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut response = match accept.contains("text/html") {
        true => show(&LIVE),
        false => answer::json(StatusCode::OK, json!({"message": "KernelCI API"}).to_string()),
    };
    // Who has kept the one must not show it to whoever asks for the other.
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

async fn dashboard(RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let grids = url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| GRID_VIEWS.contains(&&*name));
    show(if grids { &GRIDS } else { &DASHBOARD })
}

/// What pages share: `<!-- nav -->` stands for `nav.html`.
const SHARED: [&str; 4] = ["head", "brand", "badge", "nav"];

/// A page with the parts that pages share.
fn show(page: &Page) -> Response {
    let Some(mut html) = text(page.file) else { return missing() };
    for name in SHARED {
        let Some(part) = text(&format!("{name}.html")) else { return missing() };
        html = html.replace(&format!("<!-- {name} -->"), part.trim_end());
    }
    let here = format!("<a href=\"{}\"", page.link);
    let html = html.replacen(&here, &format!("{here} aria-current=\"page\""), 1);
    let mut response = respond(page.file, html);
    let headers = response.headers_mut();
    match page.keep {
        Keep::Unsaid => {}
        Keep::Never => {
            let never = HeaderValue::from_static("no-cache, no-store, must-revalidate");
            headers.insert(header::CACHE_CONTROL, never);
            headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
            headers.insert(header::EXPIRES, HeaderValue::from_static("0"));
        }
    }
    response
}

fn text(path: &str) -> Option<String> {
    String::from_utf8(stored(path)?).ok()
}
