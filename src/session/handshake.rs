//! The request that becomes a WebSocket (RFC 6455, 4.2), and the socket that is left of it.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::outbox::Outbox;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::quota::Place;

/// A request that may become a WebSocket.
pub(super) struct Handshake {
    accept: String,
    /// The subprotocols that the client offers.
    offered: Vec<String>,
    socket: OnUpgrade,
}

impl Handshake {
    /// 400 if the request does not ask for a WebSocket.
    pub(super) fn read(parts: &mut Parts) -> Result<Handshake> {
        let wrong = |what: &str| Error::bad_request(format!("this is a WebSocket: {what}"));
        if parts.method != Method::GET {
            return Err(wrong("expected GET"));
        }
        if !has(&parts.headers, header::CONNECTION, "upgrade") {
            return Err(wrong("Connection: expected upgrade"));
        }
        if !has(&parts.headers, header::UPGRADE, "websocket") {
            return Err(wrong("Upgrade: expected websocket"));
        }
        if !has(&parts.headers, header::SEC_WEBSOCKET_VERSION, "13") {
            return Err(wrong("Sec-WebSocket-Version: expected 13"));
        }
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| wrong("Sec-WebSocket-Key is missing"))?;
        let accept = derive_accept_key(key.as_bytes());
        let offered = listed(&parts.headers, header::SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect();
        let socket = parts.extensions.remove::<OnUpgrade>();
        let socket = socket.ok_or_else(|| wrong("the connection cannot be upgraded"))?;
        Ok(Handshake { accept, offered, socket })
    }

    /// Answers the request; `begin` gets the socket, and its place among all connections. 400 if the client offers subprotocols without this one.
    pub(super) fn accept(
        self,
        protocol: &'static str,
        begin: impl FnOnce(Outbox, Option<Place>) + Send + 'static,
    ) -> Result<Response> {
        let chosen = self.offered.iter().any(|offered| offered == protocol);
        if !chosen && !self.offered.is_empty() {
            return Err(Error::bad_request(format!("Sec-WebSocket-Protocol: expected {protocol}")));
        }
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept.parse().map_err(Error::internal)?);
        if chosen {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        let socket = self.socket;
        tokio::spawn(async move {
            // The client may be gone before it has read the answer.
            let Ok(upgraded) = socket.await else { return };
            match upgraded.downcast::<TokioIo<Connection>>() {
                Ok(parts) => {
                    let (stream, place) = parts.io.into_inner().into_parts();
                    begin(Outbox::new(stream, parts.read_buf), place);
                }
                Err(_) => tracing::error!("a WebSocket did not come over TCP"),
            }
        });
        Ok(response)
    }
}

/// The items of a header that is a list, of all its lines.
fn listed(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

fn has(headers: &HeaderMap, name: header::HeaderName, item: &str) -> bool {
    listed(headers, name).any(|listed| listed.eq_ignore_ascii_case(item))
}
