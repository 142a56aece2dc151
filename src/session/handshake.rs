//! The request that becomes a WebSocket (RFC 6455, 4.2), and the socket that is left of it.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::outbox::Outbox;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::quota::Place;

/// The version of the protocol that is spoken.
pub(crate) const VERSION: &str = "13";
/// Bytes of a key, before they are written in base64.
const KEY: usize = 16;

/// Whether the request asks for a WebSocket, if perhaps not well.
pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    has(headers, header::UPGRADE, "websocket")
}

/// 400 if the request does not ask for a WebSocket as it must.
pub(crate) fn check(method: &Method, headers: &HeaderMap) -> Result<()> {
    let wrong = |what: &str| Err(Error::bad_request(format!("this is a WebSocket: {what}")));
    match () {
        () if method != Method::GET => wrong("expected GET"),
        () if !has(headers, header::CONNECTION, "upgrade") => wrong("Connection: expected upgrade"),
        () if !asks_for_websocket(headers) => wrong("Upgrade: expected websocket"),
        () if !has(headers, header::SEC_WEBSOCKET_VERSION, VERSION) => {
            wrong("Sec-WebSocket-Version: expected 13")
        }
        () if !headers.contains_key(header::SEC_WEBSOCKET_KEY) => wrong("Sec-WebSocket-Key is missing"),
        () if key(headers).is_none() => wrong("Sec-WebSocket-Key: expected 16 bytes in base64, once"),
        () => Ok(()),
    }
}

/// The key of a request, if it is one.
fn key(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).into_iter();
    let key = keys.next().filter(|_| keys.next().is_none())?;
    BASE64_STANDARD.decode(key).ok().filter(|bytes| bytes.len() == KEY).map(|_| key)
}

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
        check(&parts.method, &parts.headers)?;
        let key = key(&parts.headers).map(HeaderValue::as_bytes).unwrap_or_default();
        let accept = derive_accept_key(key);
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
