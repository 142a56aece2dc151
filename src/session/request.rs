//! One request of a session, from its parameters to the text of its answer.

use std::sync::{Arc, Mutex};

use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use super::close::{self, CloseCode};
use super::handle::{Handle, Slot};
use super::subscription::Subscription;
use crate::app::App;
use crate::error::{Error, Kind};
use crate::metrics;
use crate::ops::{Context, Handover, HandoverSlot, Params, rpc_text};
use crate::quota::{Holder, Place};
use crate::rpc;
use crate::sync::lock;

/// A finished request.
pub(super) struct Answered {
    /// `None` for a notification.
    pub(super) text: Option<String>,
    /// Begins now that its answer goes out.
    pub(super) opened: Option<Box<Subscription>>,
    /// Wants to know that the answer went out.
    pub(super) handover: Option<Handover>,
    /// Among the large answers on their way.
    pub(super) counted: Option<Place>,
    pub(super) close: Option<CloseCode>,
    /// The subscription that it was about, if others about it wait.
    pub(super) sub: Option<u32>,
    /// It was about the session's credentials, which have been looked at.
    pub(super) greeted: bool,
    /// Held until the answer goes out, if it may be large.
    _place: Option<OwnedSemaphorePermit>,
}

/// Runs one request and puts its answer into words. `sub`: the subscription that it keeps others from; `_counted`: the place
/// of what has come in, if that is much.
pub(super) async fn perform(
    app: Arc<App>,
    handle: Arc<Handle>,
    request: rpc::Request,
    sub: Option<u32>,
    _counted: Option<Box<Place>>,
) -> Answered {
    let slot: Slot = Arc::new(Mutex::new(None));
    let (large, quick) =
        app.table.get(&request.method).map_or((false, false), |operation| (operation.large, operation.quick));
    let place = if large { handle.place_for_large().await } else { None };
    let handover = HandoverSlot::default();
    let call = async {
        // What is quick acts on what the session has been allowed, and loses that as soon as its user does.
        let caller = if quick { handle.caller() } else { handle.fresh_caller(&app).await? };
        let context =
            Context::new(app.clone(), caller, handle.peer().clone(), Some((handle.clone(), slot.clone())));
        let context = context.answered(request.id.is_some());
        let asked = context.handover();
        let reply = app.table.get(&request.method)?.call(context, Params::Text(&request.params)).await?;
        let reply = rpc_text(reply).await?;
        if reply.len() > handle.longest_answer() {
            let detail = format!(
                "the answer has {} bytes, more than the client takes: ask for fewer items or fields",
                reply.len()
            );
            return Err(Error::new(Kind::TooLarge, detail));
        }
        *lock(&handover) = lock(&asked).take();
        Ok(reply)
    };
    let name = app.table.known_name(&request.method);
    // An error's line must say where it happened, whatever is filtered out.
    let span = tracing::error_span!("session", id = handle.id());
    let result = metrics::timed(metrics::Transport::Ws, name, 200, call).instrument(span.clone()).await;
    let close = match (&*request.method, &result) {
        ("session.hello", Err(error)) if error.kind() == Kind::Unauthorized => Some(close::CREDENTIALS),
        ("session.hello", Err(error)) if error.kind() == Kind::Forbidden => Some(close::FORBIDDEN),
        _ => None,
    };
    if let Err(error) = &result {
        span.in_scope(|| error.log(name));
    }
    let greeted = matches!(&*request.method, "session.hello" | "session.refresh");
    let (result, counted) = app.quotas.count(Holder::of(&handle.caller(), handle.peer().address), result);
    let text = request.id.map(|id| rpc::answer(&id, result));
    let opened = lock(&slot).take().map(Box::new);
    let handover = lock(&handover).take();
    Answered { text, opened, handover, counted, close, sub, greeted, _place: place }
}
