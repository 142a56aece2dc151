//! Answers whose sender wants to know whether they were sent: hyper drops the answer of a connection that has gone, and
//! takes the body of one that stands.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use crate::ops::Handover;

/// Tells `handover` when the body of this answer is taken by its connection.
pub(super) fn watched(response: Response, handover: Option<Handover>) -> Response {
    match handover {
        Some(handover) => response.map(|body| Body::new(Watched { body, handover: Some(handover) })),
        None => response,
    }
}

struct Watched {
    body: Body,
    handover: Option<Handover>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = &frame
            && let Some(handover) = self.handover.take()
        {
            handover.handed();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
