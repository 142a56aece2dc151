//! HTTP: the routes of the operations, JSON-RPC over POST, the WebSocket's door, feeds, pages, health.

mod answer;
mod body;
mod connections;
mod documents;
mod feed;
mod files;
mod form;
#[cfg(test)]
mod fuzz;
mod handover;
mod headers;
mod health;
mod metrics;
mod pages;
mod peer;
mod prefix;
mod rest;
mod rpc;
pub mod starting;
mod trace;
mod validation;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware;
use axum::response::Response;
use axum::routing::{any, get, post};
use tower::Layer;

use crate::app::App;
use crate::error::{Error, Kind};
use crate::session;
use answer::failed;
pub use body::Limits as BodyLimits;
pub(crate) use connections::PROBATION;
pub use connections::serve;

/// The service that answers every request. All routes exist under `/latest`; [`prefix`] maps the other ways to
/// write a path onto it, [`headers`] says what every answer says, [`trace`] gives every request an id.
pub fn service(app: Arc<App>) -> trace::Traced<headers::Headed<prefix::Versioned<Router>>> {
    let mut routes = Router::new()
        .route("/ws", any(websocket))
        .route("/rpc", post(rpc::post))
        .route("/events/feed", get(feed::get))
        .route("/health", get(health::live))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::get))
        .merge(documents::routes())
        .merge(pages::routes())
        .merge(files::routes());
    for operation in app.table.iter() {
        for route in &operation.routes {
            routes = routes.route(route.path, rest::handler(operation.name, route.clone()));
        }
    }
    let router = Router::new()
        .nest("/latest", routes.method_not_allowed_fallback(not_allowed))
        // `nest` leaves the folder itself to us.
        .route("/latest/", get(pages::index))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(app.config.quotas.bodies().large))
        .layer(middleware::from_fn_with_state(app.clone(), body::guard))
        .layer(middleware::from_fn_with_state(app.clone(), connections::guard))
        .layer(middleware::from_fn_with_state(app.clone(), peer::guard))
        .with_state(app.clone());
    trace::TraceLayer.layer(headers::HeadersLayer(app).layer(prefix::VersionLayer.layer(router)))
}

async fn websocket(State(app): State<Arc<App>>, peer::From(peer): peer::From, request: Request) -> Response {
    session::upgrade(app, peer, request).await.unwrap_or_else(|error| failed("ws", &error))
}

async fn not_found() -> Response {
    failed("http", &Error::not_found("Not Found"))
}

async fn not_allowed() -> Response {
    failed("http", &Error::new(Kind::NotAllowed, "Method Not Allowed"))
}
