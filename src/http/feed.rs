//! One-way feeds of bare CloudEvents at `/events/feed`: the WebSocket subprotocol `cloudevents.json` (the CloudEvents
//! WebSockets binding: one event a message) and, for everything else, server-sent events.
//!
//! Query: `channel` (default `node`), `from` (`now`, `earliest`, `<epoch>:<seq>` or an ISO 8601 time), and conditions
//! on the CloudEvent as `field__op=value`. SSE ids are `<epoch>:<seq>`, so `Last-Event-ID` resumes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, Stream, StreamExt};

use super::answer::failed;
use super::peer;
use crate::app::App;
use crate::auth::Access;
use crate::auth::tokens::Token;
use crate::connection::Link;
use crate::error::{Error, Kind, Result};
use crate::filter::{EVENT, Filter, Sources};
use crate::health::Part;
use crate::hub::{self, Item};
use crate::model::{NODE_CHANNEL, Position};
use crate::ops::Peer;
use crate::ops::channels::{is_private, may_read};
use crate::ops::patterns::compile;
use crate::ops::subscriptions::{From, Start, may_follow, start};
use crate::quota::Holder;
use crate::session::{asks_for_websocket, check_handshake, close, credentials};

/// The subprotocol of the CloudEvents WebSockets binding.
const PROTOCOL: &str = "cloudevents.json";

pub(super) async fn get(
    State(app): State<Arc<App>>,
    peer::From(peer): peer::From,
    link: Option<Extension<Link>>,
    Query(query): Query<Vec<(String, String)>>,
    method: Method,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let from = (&*peer, link.as_deref());
    let answer = match (asks_for_websocket(&headers), upgrade) {
        (false, _) => sse(app, from, query, headers).await,
        (true, upgrade) => match check_handshake(&method, &headers).and(upgrade.map_err(not_upgradable)) {
            Ok(upgrade) => websocket(app, from, query, headers, upgrade).await,
            Err(error) => Err(error),
        },
    };
    answer.unwrap_or_else(|error| failed("feed", &error))
}

fn not_upgradable(why: WebSocketUpgradeRejection) -> Error {
    Error::bad_request(format!("this is a WebSocket: {why}"))
}

/// The events that the query asks for.
async fn open(
    app: &Arc<App>,
    (peer, link): (&Peer, Option<&Link>),
    query: Vec<(String, String)>,
    headers: &HeaderMap,
) -> Result<(Start, impl Stream<Item = Result<Item>> + Send + use<>)> {
    let caller = credentials(app, peer, headers).await?.unwrap_or_default();
    let holder = Holder::of(&caller, peer.address);
    let place = app.quotas.sessions.take(holder, 1)?;
    link.map_or(Ok(()), |link| link.belongs_to(holder))?;
    caller.check(Access::Read, app.config.anonymous_read)?;
    let mut channel = NODE_CHANNEL.to_owned();
    let mut from = From::Now;
    let mut conditions = Vec::new();
    for (name, value) in query {
        match &*name {
            // As an address of a form has it that says nothing.
            "channel" | "from" if value.is_empty() => {}
            "channel" => channel = value,
            "from" => from = read_from(&value)?,
            _ => conditions.push((name, value)),
        }
    }
    // Readers who have seen no id send none, or an empty one.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(last) = last.filter(|last| !last.is_empty()) {
        from = read_from(last)?;
    }
    let pairs = conditions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let patterns = compile(app, holder, Sources::in_query(pairs.clone())?).await?;
    let filter = Filter::from_query(pairs, &EVENT)?;
    drop(patterns);
    let weight = app.quotas.filter(holder, filter.weight())?;
    let begin = async {
        may_follow(app, &caller, &channel).await?;
        let start = start(&*app.log, &channel, &from).await?;
        let events = hub::follow(&app.hub, &channel, holder, start.position.seq, filter).await?;
        let events = events.take_until(forbidden(app.clone(), caller.token.clone(), channel));
        // Counted as long as the stream lives.
        let counted = (place, weight, app.sessions.token());
        let events = events.inspect(move |_| {
            let _ = &counted;
        });
        Ok((start, events))
    };
    app.health.serve(&[Part::Log], begin).await
}

/// Returns when the reader may not read the channel any more.
async fn forbidden(app: Arc<App>, token: Option<Arc<Token>>, channel: String) {
    match token {
        Some(token) if is_private(&channel) => {
            let changes = app.identities.changes(token.user);
            while may_read_on(&app, &token, &channel).await {
                app.identities.news(&token, &changes).await;
            }
        }
        Some(token) if !app.config.anonymous_read => app.identities.lost(&token).await,
        _ => std::future::pending().await,
    }
}

/// That the store is away says nothing.
async fn may_read_on(app: &App, token: &Arc<Token>, channel: &str) -> bool {
    let may = match app.identities.caller(token).await {
        Ok(Some(caller)) => may_read(app, &caller, channel).await.map(drop),
        Ok(None) => return false,
        Err(error) => Err(error),
    };
    !may.is_err_and(|error| matches!(error.kind(), Kind::Forbidden | Kind::Unauthorized))
}

pub(super) fn read_from(text: &str) -> Result<From> {
    if let Some((epoch, seq)) = text.rsplit_once(':')
        && epoch.len() >= 16
        && !epoch.contains([':', 'T', ' '])
        && let Ok(seq) = seq.parse()
    {
        return Ok(From::Position(Position { epoch: epoch.to_owned(), seq }));
    }
    From::parse(text)
}

async fn sse(
    app: Arc<App>,
    from: (&Peer, Option<&Link>),
    query: Vec<(String, String)>,
    headers: HeaderMap,
) -> Result<Response> {
    let (start, events) = open(&app, from, query, &headers).await?;
    let missed = start.missed.as_ref().map(|missed| Ok(Item::Gap(missed.from, missed.to)));
    let draining = app.draining.clone();
    let events = futures::stream::iter(missed)
        .chain(events)
        .map(|item| match item {
            Ok(Item::Event(epoch, entry)) => {
                Ok(SseEvent::default().id(format!("{epoch}:{}", entry.seq)).data(&entry.json))
            }
            Ok(Item::Gap(from, to)) => {
                Ok(SseEvent::default().event("gap").data(format!("{{\"from\":{from},\"to\":{to}}}")))
            }
            Err(error) => Err(error),
        })
        .take_until(async move { draining.cancelled().await });
    // The first bytes tell the reader at once that it is connected, and where it stands.
    let Position { epoch, seq } = start.position;
    let hello =
        futures::stream::iter([Ok(SseEvent::default().id(format!("{epoch}:{seq}")).comment("following"))]);
    let keep_alive = KeepAlive::new().interval(app.config.ping_interval());
    let mut response = Sse::new(hello.chain(events)).keep_alive(keep_alive).into_response();
    response.headers_mut().insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

async fn websocket(
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
    let (_, events) = open(&app, from, query, &headers).await?;
    Ok(upgrade.on_upgrade(move |socket| feed(app, socket, Box::pin(events))))
}

async fn feed(app: Arc<App>, mut socket: WebSocket, mut events: impl Stream<Item = Result<Item>> + Unpin) {
    let mut ping = tokio::time::interval(app.config.ping_interval());
    let code = loop {
        let message = tokio::select! {
            item = events.next() => match item {
                Some(Ok(Item::Event(_, entry))) => Some(Message::Text(entry.json.clone().into())),
                // The binding knows events only; a reader sees the hole in `sequence`.
                Some(Ok(Item::Gap(..))) => continue,
                // The store or the log is away; anything else is logged where it happens.
                Some(Err(error)) if error.kind() == Kind::Unavailable => break close::OVERLOADED,
                Some(Err(_)) => break close::INTERNAL,
                // Only a token that has ended ends the events.
                None => break close::CREDENTIALS,
            },
            inbound = socket.recv() => match inbound {
                Some(Ok(Message::Pong(_))) => continue,
                // Its answer goes out before anything else is read: pings do not pile up.
                Some(Ok(Message::Ping(_))) => None,
                Some(Ok(Message::Text(_) | Message::Binary(_))) => break close::PROTOCOL,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
            _ = ping.tick() => Some(Message::Ping(Default::default())),
            () = app.draining.cancelled() => break close::DRAINING,
        };
        // Whoever takes nothing of it is given up below ([`crate::connection`]), and resumes from its position.
        let send = async {
            match message {
                Some(message) => socket.send(message).await,
                None => socket.flush().await,
            }
        };
        tokio::select! {
            sent = send => if sent.is_err() { return },
            () = app.draining.cancelled() => break close::DRAINING,
        }
    };
    let bye = CloseFrame { code: code.code, reason: code.name.into() };
    let _ = tokio::time::timeout(Duration::from_secs(1), socket.send(Message::Close(Some(bye)))).await;
}
