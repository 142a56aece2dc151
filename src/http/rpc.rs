//! `POST /rpc`: the bodies of the WebSocket for curl. Answers 200 with the JSON-RPC answer; 204 to a notification.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::answer::{failed, json};
use super::body::incomplete;
use super::connections;
use super::handover::watched;
use super::peer::From;
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::metrics;
use crate::ops::{Context, HandoverSlot, Params, Peer};
use crate::rpc;
use crate::session::credentials;
use crate::sync::lock;

pub(super) async fn post(
    State(app): State<Arc<App>>,
    From(peer): From,
    extensions: Extensions,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let Ok(body) = body else { return failed("rpc", &incomplete()) };
    let request = match std::str::from_utf8(&body) {
        Ok(text) => rpc::read(text),
        Err(_) => Err(rpc::Unreadable {
            id: "null".into(),
            error: Error::new(Kind::Parse, "the body is not UTF-8"),
        }),
    };
    let request = match request {
        Ok(request) => request,
        Err(unreadable) => {
            return json(StatusCode::OK, rpc::answer(&unreadable.id, Err(unreadable.error)));
        }
    };
    let name = app.table.known_name(&request.method);
    let slot = HandoverSlot::default();
    let call = call(&app, peer, (&headers, &extensions), &request, &slot);
    let result = metrics::timed(metrics::Transport::Rpc, name, 200, call).await;
    if let Err(error) = &result {
        error.log(name);
    }
    match &request.id {
        Some(id) => {
            let response = json(StatusCode::OK, rpc::answer(id, result));
            let handover = lock(&slot).take();
            watched(response, handover, &extensions)
        }
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn call(
    app: &Arc<App>,
    peer: Arc<Peer>,
    (headers, extensions): (&HeaderMap, &Extensions),
    request: &rpc::Request,
    slot: &HandoverSlot,
) -> Result<String> {
    let caller = credentials(app, headers).await?.caller.unwrap_or_default();
    connections::belongs_to(extensions, &caller);
    let context = Context::new(app.clone(), caller, peer, None);
    let handover = context.handover();
    let reply = app.table.get(&request.method)?.call(context, Params::Text(&request.params)).await?.rpc()?;
    *lock(slot) = lock(&handover).take();
    Ok(reply)
}
