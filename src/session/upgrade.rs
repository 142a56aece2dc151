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

/// Who a request comes from, and whether the web page behind it may send credentials.
#[derive(Debug)]
pub struct Credentials {
    /// `None` when no bearer token came.
    pub caller: Option<Caller>,
    /// False for pages of foreign origins.
    pub origin_allowed: bool,
}

/// Reads `Authorization` and `Origin`: 401 for a bad token, 403 for a good one from a foreign web page.
pub async fn credentials(app: &App, headers: &HeaderMap) -> Result<Credentials> {
    let origin_allowed = origin_allowed(app, headers);
    let Some(token) = bearer(headers) else {
        return Ok(Credentials { caller: None, origin_allowed });
    };
    if !origin_allowed {
        return Err(Error::new(Kind::Forbidden, "credentials are not accepted from this web origin"));
    }
    Ok(Credentials { caller: Some(app.caller(token).await?), origin_allowed })
}

/// Programs send no `Origin`; pages of our own host and of listed origins may send credentials.
fn origin_allowed(app: &App, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if app.config.allowed_origins.iter().any(|allowed| allowed == origin) {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    host.is_some() && authority == host
}

/// With fewer sessions nothing can be said of where they come from.
const MANY: u64 = 64;

/// Says, once, that most strangers come through a proxy that is not trusted: they all have one address's share.
fn warn_of_proxy(app: &App, peer: &Peer, headers: &HeaderMap) {
    static SAID: Once = Once::new();
    let sessions = &app.quotas.sessions;
    let own = sessions.taken_by(Holder::stranger(peer.address));
    let forwards = headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
    if forwards && app.config.trusted_proxies.is_empty() && own >= MANY && 2 * own > sessions.taken() {
        SAID.call_once(|| {
            tracing::warn!(
                address = %peer.address,
                "most sessions come from one address, which says that it forwards them: it counts as one client \
                 until TRUSTED_PROXIES names it"
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
    let credentials = credentials(&app, &parts.headers).await?;
    warn_of_proxy(&app, &peer, &parts.headers);
    let caller = credentials.caller.clone().unwrap_or_default();
    let (sessions, holder) = (&app.quotas.sessions, Holder::of(&caller, peer.address));
    let place = sessions.take(holder, 1).or_else(|_| sessions.take_on_probation(holder));
    handshake.accept(PROTOCOL, move |out, connection| {
        let Ok(place) = place else {
            drop(tokio::spawn(task::refuse(out, close::OVERLOADED, connection)));
            return;
        };
        let id = uuid::Uuid::new_v4().simple().to_string();
        let handle = Handle::new(id, peer, credentials.origin_allowed, app.quotas.session.clone());
        if let Some(caller) = credentials.caller {
            handle.set_caller(&app, caller);
            handle.said_hello();
        }
        let sessions = app.sessions.clone();
        // Tracked, so that shutting down waits for it.
        sessions.spawn(task::run(app, Arc::new(handle), out, Places { session: place, connection }));
    })
}
