//! From an HTTP request to a session: origin, credentials, subprotocol, the socket's settings.

use std::sync::{Arc, Once};

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::Response;

use super::handle::Handle;
use super::handshake::Handshake;
use super::task::Places;
use super::{close, task};
use crate::app::App;
use crate::auth::Caller;
use crate::auth::tokens::bearer;
use crate::error::{Error, Kind, Result};
use crate::ops::Peer;
use crate::quota::Holder;

/// The subprotocol of sessions.
const PROTOCOL: &str = "kernelci.v1.json";

/// Who asks, by the bearer token: `None` without one, 401 for a bad one, 403 for a good one from a foreign web page.
pub async fn credentials(app: &App, peer: &Peer, headers: &HeaderMap) -> Result<Option<Caller>> {
    let Some(token) = bearer(headers) else { return Ok(None) };
    peer.may_bring_credentials()?;
    app.caller(token).await.map(Some)
}

/// With fewer sessions nothing can be said of where they come from.
const MANY: u64 = 64;

/// Says, once, that most strangers come through a proxy that is not believed: they all have one address's share.
fn warn_of_proxy(app: &App, peer: &Peer, headers: &HeaderMap) {
    static SAID: Once = Once::new();
    let sessions = &app.quotas.sessions;
    let own = sessions.taken_by(Holder::stranger(peer.address));
    let forwards = headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
    let trusted = &app.config.trusted_proxies;
    // A trusted one whose address is the client's writes other headers than we read.
    let is_proxy = trusted.is_empty() || trusted.iter().any(|network| network.contains(peer.address));
    if forwards && is_proxy && own >= MANY && 2 * own > sessions.taken() {
        SAID.call_once(|| {
            tracing::warn!(
                address = %peer.address,
                "most sessions come from one address, which says that it forwards them: it counts as one client \
                 until TRUSTED_PROXIES names it and PROXY_HEADERS which headers it writes"
            );
        });
    }
}

/// Answers the request for a WebSocket and runs the session.
pub async fn upgrade(app: Arc<App>, peer: Arc<Peer>, request: Request) -> Result<Response> {
    let (mut parts, _) = request.into_parts();
    let handshake = Handshake::read(&mut parts)?;
    if app.draining.is_cancelled() {
        return Err(Error::new(Kind::Unavailable, "this instance is shutting down").retry_after(1000));
    }
    let caller = credentials(&app, &peer, &parts.headers).await?;
    warn_of_proxy(&app, &peer, &parts.headers);
    let holder =
        caller.as_ref().map_or_else(|| Holder::stranger(peer.address), |one| Holder::of(one, peer.address));
    let sessions = &app.quotas.sessions;
    let place = sessions.take(holder, 1).or_else(|_| sessions.take_on_probation(holder));
    handshake.accept(PROTOCOL, move |out, connection| {
        let Ok(place) = place else {
            drop(tokio::spawn(task::refuse(out, close::OVERLOADED, connection)));
            return;
        };
        let id = uuid::Uuid::new_v4().simple().to_string();
        let handle = Handle::new(id, peer, app.quotas.session.clone());
        if let Some(caller) = caller {
            handle.set_caller(&app, caller);
            handle.said_hello();
        }
        let sessions = app.sessions.clone();
        // Tracked, so that shutting down waits for it.
        sessions.spawn(task::run(app, Arc::new(handle), out, Places { session: place, connection }));
    })
}
