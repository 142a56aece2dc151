//! What is answered while the server starts: that it lives, and why it cannot serve yet.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::{answer, health};
use crate::background;

/// Connections at a time; others wait to be accepted.
const CONNECTIONS: usize = 64;
/// How long one has for its request and the answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers one request on each connection, until it is dropped. `waiting`: what is waited for.
pub async fn serve(listener: &TcpListener, waiting: watch::Receiver<String>) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let waiting = waiting.clone();
        background::spawn("starting", async move {
            let _place = place;
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &waiting.borrow());
                async { Ok::<_, Infallible>(answer) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).keep_alive(false);
            let served = builder.serve_connection(TokioIo::new(stream), service);
            // Whoever does not get an answer asks again.
            _ = tokio::time::timeout(PATIENCE, served).await;
        });
    }
}

fn answer(path: &str, waiting: &str) -> Response<Body> {
    let path = ["/latest", "/v0"].iter().find_map(|version| path.strip_prefix(version)).unwrap_or(path);
    let body = match path {
        "/health" => return health::alive(),
        "/ready" => {
            json!({"ready": false, "starting": true, "draining": false, "store": {"ok": false, "why": waiting}})
        }
        _ => json!({"detail": "the server is starting, try again"}),
    };
    let mut answer = answer::json(StatusCode::SERVICE_UNAVAILABLE, body.to_string());
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
