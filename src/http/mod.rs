//! HTTP: the routes of the operations, JSON-RPC over POST, the WebSocket's door, feeds, pages, health.

mod answer;
mod body;
mod documents;
mod feed;
mod files;
mod form;
#[cfg(test)]
mod fuzz;
mod handover;
mod health;
mod metrics;
mod pages;
mod peer;
mod prefix;
mod rest;
mod rpc;
mod trace;
mod validation;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware;
use axum::response::Response;
use axum::routing::{any, get, post};
use tower::Layer;

use crate::app::App;
use crate::connection::Connection;
use crate::error::{Error, Kind};
use crate::session;
use answer::failed;
pub use body::BODY;

/// The service that answers every request. All routes exist under `/latest`; [`prefix`] maps the other ways to
/// write a path onto it, [`trace`] gives every request an id.
pub fn service(app: Arc<App>) -> trace::Traced<prefix::Versioned<Router>> {
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
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(app.clone(), body::guard))
        .with_state(app);
    trace::TraceLayer.layer(prefix::VersionLayer.layer(router))
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

/// Answers connections until the server drains, then lets those in flight finish. Headers have to arrive within ten
/// seconds, so that half-open connections cost little.
pub async fn serve(listener: tokio::net::TcpListener, app: Arc<App>) {
    use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
    use hyper_util::server::conn::auto::Builder;
    use hyper_util::server::graceful::GracefulShutdown;

    let service = service(app.clone());
    let graceful = GracefulShutdown::new();
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_headers(64);
    let builder = Arc::new(builder);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.draining.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: those that end make room.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Events are small and must not wait for more.
        let _ = stream.set_nodelay(true);
        let stream = Connection::new(stream);
        let extensions = (axum::Extension(peer::Connected(address.ip())), axum::Extension(stream.exit()));
        let service = hyper_util::service::TowerToHyperService::new(extensions.layer(service.clone()));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(Duration::from_secs(10), graceful.shutdown()).await;
}
