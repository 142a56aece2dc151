//! Connections: who is let in, how long they may take, and how they end.
//!
//! Whoever connects is a stranger at first, and counted for their address. When strangers have what they may have, those
//! who come are let in on probation: they have a moment to show that they are users, in the head of their first request
//! or in the hello of a session, and go if they are none.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tower::Layer;

use super::answer::{failed, last};
use super::{peer, service};
use crate::app::App;
use crate::auth::Caller;
use crate::connection::{Connection, Link, Work};
use crate::error::{Error, Kind};
use crate::ops::Peer;
use crate::quota::{Holder, Place};
use crate::session::{WEBSOCKET_VERSION, asks_for_websocket, credentials};

/// How long somebody on probation has for the head of their first request.
pub(crate) const PROBATION: Duration = Duration::from_secs(1);
/// Bytes of a request's head, of headers at most so many.
const HEAD: usize = 32 << 10;
const HEADERS: usize = 64;
/// How long requests that are worked on when the server ends have to be answered, and how often it is looked whether
/// they are.
const WORK: Duration = Duration::from_secs(10);
/// How long what has been answered may take to leave then: clients read as slowly as they like.
const WRITING: Duration = Duration::from_millis(1500);
const LOOK: Duration = Duration::from_millis(250);
/// How often it is said that connections are not accepted.
const SAY: Duration = Duration::from_secs(60);

/// Answers connections until the server drains, then lets what has come whole be answered.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    let service = service(app.clone());
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).max_headers(HEADERS).max_buf_size(HEAD);
    let tasks = TaskTracker::new();
    let (mut not_accepted, mut closed_at_once) = (None, None);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.draining.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: those that end make room.
                say(&mut not_accepted, || format!("connections are not accepted: {error}"));
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = match admit(&app, address) {
            Ok(place) => place,
            Err(error) => {
                let what =
                    || format!("a connection from {} was closed at once: {}", address.ip(), error.detail());
                say(&mut closed_at_once, what);
                continue;
            }
        };
        let mut builder = builder.clone();
        builder.header_read_timeout(app.config.quotas.incoming().patience);
        let connection = Connection::new(stream, place, app.config.quotas.outgoing());
        let link = connection.link();
        let extensions = (axum::Extension(peer::Connected(address.ip())), axum::Extension(link.clone()));
        let service = TowerToHyperService::new(extensions.layer(service.clone()));
        let served = builder.serve_connection(TokioIo::new(connection), service).with_upgrades();
        let app = app.clone();
        tasks.spawn(async move {
            let mut served = pin!(served);
            let ended = tokio::select! {
                ended = served.as_mut() => ended,
                () = outstays(&link) => Ok(()),
                () = app.draining.cancelled() => {
                    served.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = served.as_mut() => ended,
                        // No request that has come whole and is worked on or written is among what is cut.
                        () = rest(&app, &link) => Ok(()),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::trace!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Says it once a minute.
fn say(said: &mut Option<Instant>, what: impl FnOnce() -> String) {
    if said.is_none_or(|said| said.elapsed() > SAY) {
        *said = Some(Instant::now());
        tracing::warn!("{}; this is said once a minute", what());
    }
}

/// Returns when a connection is on probation for too long.
async fn outstays(link: &Link) {
    if link.is_on_probation() {
        tokio::time::sleep(PROBATION).await;
        if link.is_on_probation() {
            return;
        }
    }
    std::future::pending().await
}

fn admit(app: &App, address: SocketAddr) -> Result<Place, Error> {
    let holder = Holder::stranger(address.ip());
    let connections = &app.quotas.connections;
    connections.take(holder, 1).or_else(|_| connections.take_on_probation(holder))
}

/// Returns when a connection is to end, once the server drains.
async fn rest(app: &App, link: &Link) {
    tokio::time::sleep(Duration::from_millis(app.config.drain_ms)).await;
    _ = tokio::time::timeout(WRITING, link.rests(LOOK)).await;
    // What is still worked on has its time, and its answer as well.
    let worked = tokio::time::timeout(WORK, link.is_done(LOOK));
    if link.works() && worked.await.is_ok() {
        _ = tokio::time::timeout(WRITING, link.rests(LOOK)).await;
    }
}

/// Sends strangers away who are only let in on probation; says when a request has come whole; ends what has not become a
/// WebSocket.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let upgrades = asks_for_websocket(request.headers());
    let mut response = guarded(app, request, next).await;
    if !upgrades || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    let version = HeaderValue::from_static(WEBSOCKET_VERSION);
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
    // Whatever stands behind the request was meant for a WebSocket, and is no request.
    last(response)
}

async fn guarded(app: Arc<App>, mut request: Request, next: Next) -> Response {
    let Some(link) = request.extensions().get::<Link>().cloned() else { return next.run(request).await };
    if link.is_on_probation()
        && !tells_later(&request)
        && let Err(error) = identify(&app, &link, &peer::of(request.extensions()), request.headers()).await
    {
        return last(failed("http", &error));
    }
    let whole = Whole::default();
    if request.body().is_end_stream() {
        whole.came(&link);
    }
    request.extensions_mut().insert(whole.clone());
    let response = next.run(request).await;
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    // An answer in pieces is under way until its last one.
    let answering = link.answer();
    response.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |_| {
            let _ = &answering;
        }))
    })
}

/// Whether the request may come from anybody: it asks how the server is, or becomes a session or a feed, or logs in, and
/// tells then who they are.
fn tells_later(request: &Request) -> bool {
    let path = request.uri().path();
    let path = path.strip_prefix("/latest").unwrap_or(path);
    matches!(path, "/ws" | "/events/feed" | "/user/login" | "/health" | "/ready" | "/metrics")
}

/// Says whose the connection turns out to be; 429 if there is no place for them.
async fn identify(app: &App, link: &Link, peer: &Peer, headers: &HeaderMap) -> Result<(), Error> {
    let caller = credentials(app, peer, headers).await?;
    let user = caller.and_then(|caller| caller.user).ok_or_else(|| {
        let detail = "this instance has no room for more strangers: sign in, or come back later";
        Error::new(Kind::TooMany, detail).retry_after(1000)
    })?;
    link.belongs_to(Holder::User(user.id))
}

/// Counts the connection that a request came on for the user who has sent it.
pub(super) fn belongs_to(extensions: &Extensions, caller: &Caller) {
    if let (Some(link), Some(user)) = (extensions.get::<Link>(), &caller.user) {
        // If they have what they may have it stays the address's, which it was let in for.
        _ = link.belongs_to(Holder::User(user.id));
    }
}

/// Notes that a request has come whole; it is worked on until the last copy is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole(Arc<OnceLock<Work>>);

impl Whole {
    pub(super) fn came(&self, link: &Link) {
        self.0.get_or_init(|| link.work());
    }
}
