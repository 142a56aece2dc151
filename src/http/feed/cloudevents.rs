//! A feed as the WebSocket subprotocol `cloudevents.json`: one CloudEvent a message, and nothing else. What the server
//! itself has to say is a CloudEvent of a type of its own; pings carry where the reader stands.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use futures::{FutureExt, SinkExt};
use serde_json::json;

use super::{Reader, Told, described};
use crate::app::App;
use crate::connection::Link;
use crate::error::{Error, Result};
use crate::hub::Gap;
use crate::model::Timestamp;
use crate::ops::Peer;
use crate::session::Unanswered;
use crate::session::close::{self, CloseCode};

/// The subprotocol of the CloudEvents WebSockets binding.
const PROTOCOL: &str = "cloudevents.json";
/// The type of what is no event of the channel: the reader does not get these. It has no `sequence`.
const GAP: &str = "org.kernelci.gap";

pub(super) async fn answer(
    app: Arc<App>,
    from: (&Peer, Option<&Link>),
    query: Vec<(String, String)>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response> {
    // Small buffers: the defaults cost 128 KiB for every connection.
    let upgrade = upgrade.read_buffer_size(1 << 10).write_buffer_size(4 << 10).max_message_size(4096);
    let upgrade = upgrade.protocols([PROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(Error::bad_request(format!("Sec-WebSocket-Protocol: expected {PROTOCOL}")));
    }
    let reader = Reader::open(&app, from, query, &headers).await?;
    Ok(upgrade.on_upgrade(move |socket| run(reader, socket)))
}

async fn run(mut reader: Reader, mut socket: WebSocket) {
    let Some(code) = serve(&mut reader, &mut socket).await else { return };
    let bye = CloseFrame { code: code.code, reason: code.name.into() };
    let _ = tokio::time::timeout(Duration::from_secs(1), socket.send(Message::Close(Some(bye)))).await;
}

/// Until the feed ends; `None` if the peer is gone.
async fn serve(reader: &mut Reader, socket: &mut WebSocket) -> Option<CloseCode> {
    let mut pings = Unanswered::default();
    // Something had to wait for the socket since the last ping: its answer is behind that.
    let mut was_full = false;
    loop {
        let message = tokio::select! {
            told = reader.next() => match told {
                Told::Event(_, entry) => Some(Message::Text(entry.json.clone().into())),
                Told::Gap(gap) => Some(Message::Text(control(reader, &gap).into())),
                Told::KeepAlive => {
                    if !pings.ping(std::mem::take(&mut was_full)) {
                        return Some(close::TIMEOUT);
                    }
                    Some(Message::Ping(reader.position().into()))
                }
                Told::End(code) => return Some(code),
            },
            inbound = socket.recv() => match inbound {
                Some(Ok(Message::Pong(_))) => {
                    pings.heard();
                    continue;
                }
                // Its answer goes out before anything else is read: pings do not pile up.
                Some(Ok(Message::Ping(_))) => {
                    pings.heard();
                    None
                }
                Some(Ok(Message::Text(_) | Message::Binary(_))) => return Some(close::PROTOCOL),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            },
        };
        // Whoever takes nothing of it is given up below ([`crate::connection`]), and resumes from its position.
        let mut send = std::pin::pin!(async {
            match message {
                Some(message) => socket.send(message).await,
                None => socket.flush().await,
            }
        });
        let sent = match send.as_mut().now_or_never() {
            Some(sent) => sent,
            None => {
                was_full = true;
                tokio::select! {
                    sent = send => sent,
                    () = reader.drained() => return Some(close::DRAINING),
                }
            }
        };
        sent.ok()?;
    }
}

/// A gap as a CloudEvent.
fn control(reader: &Reader, gap: &Gap) -> String {
    let event = json!({
        "specversion": "1.0",
        "id": uuid::Uuid::new_v4().simple().to_string(),
        "source": reader.app.config.cloud_events_source,
        "type": GAP,
        "time": Timestamp::now().to_event_time(),
        "datacontenttype": "application/json",
        "data": described(gap),
    });
    event.to_string()
}
