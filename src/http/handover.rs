//! Answers whose sender wants to know whether they were sent: hyper drops the answer of a connection that has gone, and
//! takes the body of one that stands, which tells when it has been written.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Extensions;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use crate::connection::Link;
use crate::ops::Handover;

/// Tells `handover` what becomes of this answer to the request with these extensions.
pub(super) fn watched(response: Response, handover: Option<Handover>, request: &Extensions) -> Response {
    let Some(handover) = handover else { return response };
    let link = request.get::<Link>().cloned();
    response.map(|body| Body::new(Watched { body, link, handover: Some(handover) }))
}

struct Watched {
    body: Body,
    /// `None`: the request came on no connection.
    link: Option<Link>,
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
            match &self.link {
                Some(link) => link.leave(handover),
                None => handover.handed(),
            }
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
