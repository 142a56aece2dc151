//! `POST /rpc`: the bodies of the WebSocket for curl. Answers 200 with the JSON-RPC answer; 204 to a notification.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::answer::{failed, json, unkept};
use super::body::{self, Held, Turn};
use super::connections;
use super::handover::watched;
use super::peer::From;
use crate::app::App;
use crate::auth::{Access, Caller, tokens};
use crate::error::{Error, Kind, Result};
use crate::metrics;
use crate::ops::{Context, Handover, HandoverSlot, Params, Peer, rpc_text};
use crate::quota::Holder;
use crate::rpc;
use crate::session::credentials;
use crate::sync::lock;

pub(super) async fn post(
    State(app): State<Arc<App>>,
    From(peer): From,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match body::whole(body, app.config.quotas.bodies().large).await {
        Ok(body) => body,
        Err(error) => return failed("rpc", &error),
    };
    let sender = if body.len() > app.quotas.session.message {
        credentials(&app, &peer, &headers).await.ok()
    } else {
        None
    };
    let sender = sender.flatten().unwrap_or_default();
    let turn = match body::turn(&app, Holder::of(&sender, peer.address), body.len()).await {
        Ok(turn) => turn,
        Err(error) => return failed("rpc", &error),
    };
    let request = match read(&app, body, turn.clone()).await {
        Ok(request) => request,
        Err(unreadable) => {
            return json(StatusCode::OK, rpc::answer(&unreadable.id, Err(unreadable.error)));
        }
    };
    let name = app.table.known_name(&request.method);
    let is_secret = app.table.get(&request.method).is_ok_and(|operation| operation.secret);
    let slot = HandoverSlot::default();
    let mut holder = Holder::stranger(peer.address);
    let call = call(&app, peer, &mut holder, (&headers, &extensions), (&request, turn), &slot);
    let result = metrics::timed(metrics::Transport::Rpc, name, 200, call).await;
    if let Err(error) = &result {
        error.log(name);
    }
    let (result, counted) = app.quotas.count(holder, result);
    let counted = counted.map(|place| Handover::new(move |_| drop(place)));
    match &request.id {
        Some(id) => {
            let response = json(StatusCode::OK, rpc::answer(id, result));
            let response = if is_secret { unkept(response) } else { response };
            let handover = lock(&slot).take();
            watched(watched(response, handover, &extensions), counted, &extensions)
        }
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Reads a request. Only one that brings many things at once may be larger than a message of a session.
async fn read(app: &App, body: Bytes, turn: Option<Turn>) -> Result<rpc::Request, rpc::Unreadable> {
    let (length, most) = (body.len(), app.quotas.session.message);
    let refuse =
        |id: Option<String>, error| rpc::Unreadable { id: id.unwrap_or_else(|| "null".into()), error };
    let read = move || match std::str::from_utf8(&body) {
        Ok(text) => rpc::read(text),
        Err(_) => Err(refuse(None, Error::new(Kind::Parse, "the body is not UTF-8"))),
    };
    let request = match turn {
        None => read()?,
        Some(turn) => {
            let read = tokio::task::spawn_blocking(move || {
                // It goes with the work: whoever asked for it may be gone before it is done.
                let _turn = turn;
                read()
            });
            read.await.map_err(|error| refuse(None, Error::internal(error)))??
        }
    };
    match app.table.get(&request.method) {
        Ok(operation) if length > most && !operation.takes_much => {
            let detail = format!("a request for {} has at most {most} bytes", operation.name);
            Err(refuse(request.id, Error::new(Kind::TooLarge, detail)))
        }
        _ => Ok(request),
    }
}

async fn call(
    app: &Arc<App>,
    peer: Arc<Peer>,
    holder: &mut Holder,
    (headers, extensions): (&HeaderMap, &Extensions),
    (request, turn): (&rpc::Request, Option<Turn>),
    slot: &HandoverSlot,
) -> Result<String> {
    let open = app.table.get(&request.method).is_ok_and(|operation| operation.access == Access::Open);
    let caller = match credentials(app, &peer, headers).await {
        // Who logs in may still have a token that is no good any more.
        Err(error) if open && error.kind() == Kind::Unauthorized => Caller::default(),
        caller => caller?.unwrap_or_default(),
    };
    connections::belongs_to(extensions, &caller);
    *holder = Holder::of(&caller, peer.address);
    let context = Context::new(app.clone(), caller, peer, None)
        .with_bearer(tokens::bearer(headers))
        .heavy(turn)
        .carrying(extensions.get::<Held>().cloned());
    let handover = context.handover();
    let reply = app.table.get(&request.method)?.call(context, Params::Text(&request.params)).await?;
    let reply = rpc_text(reply).await?;
    *lock(slot) = lock(&handover).take();
    Ok(reply)
}
