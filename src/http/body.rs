//! Bodies of requests, before anybody looks at them: how large they may be depends on who sends them, and none may
//! take for ever. What waits here is memory that a stranger can make us hold.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::connections::Whole;
use crate::app::App;
use crate::connection::Link;
use crate::error::{Error, Kind};
use crate::session::credentials;

/// Bytes of a body, with credentials: large hierarchies come over REST.
pub const BODY: usize = 32 << 20;
/// Bytes of a body without: what a session may send in one message.
const OF_STRANGERS: usize = 1 << 20;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a body that cannot be had whole is answered.
pub(super) fn incomplete() -> Error {
    let seconds = PATIENCE.as_secs();
    let detail = format!(
        "a request body has at most {BODY} bytes, {OF_STRANGERS} without credentials, and takes at most {seconds} seconds"
    );
    Error::new(Kind::TooLarge, detail)
}

/// Lets a request through with a body that keeps to the limits, or fails.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length: Option<usize> = length.and_then(|text| text.to_str().ok()?.parse().ok());
    let known = match length {
        Some(length) if length <= OF_STRANGERS => false,
        _ => credentials(&app, request.headers()).await.is_ok_and(|known| known.caller.is_some()),
    };
    let most = if known { BODY } else { OF_STRANGERS };
    let late = Box::pin(tokio::time::sleep(PATIENCE));
    let extensions = request.extensions();
    let whole = extensions.get::<Whole>().cloned().zip(extensions.get::<Link>().cloned());
    next.run(request.map(|body| Body::new(Guarded { body, most, seen: 0, late, whole }))).await
}

/// A body that fails when it is too large or has not arrived in time. What is too much is taken and thrown away, up to
/// a point: a client that is still sending would not see our answer.
struct Guarded {
    body: Body,
    most: usize,
    seen: usize,
    late: Pin<Box<Sleep>>,
    /// What is told when all of it has come.
    whole: Option<(Whole, Link)>,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            let frame = Pin::new(&mut self.body).poll_frame(context);
            let (size, ended) = match &frame {
                Poll::Ready(Some(Ok(frame))) => (frame.data_ref().map_or(0, Bytes::len), false),
                Poll::Pending if self.late.as_mut().poll(context).is_pending() => return Poll::Pending,
                Poll::Pending => {
                    return Poll::Ready(Some(Err(axum::Error::new("the body did not arrive in time"))));
                }
                Poll::Ready(_) => (0, true),
            };
            if (ended || self.body.is_end_stream())
                && let Some((whole, link)) = self.whole.take()
            {
                whole.came(&link);
            }
            self.seen += size;
            match self.seen {
                seen if seen <= self.most => return frame,
                seen if ended || seen > self.most + BODY => {
                    return Poll::Ready(Some(Err(axum::Error::new("the body is too large"))));
                }
                _ => {}
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
