//! The outermost layer: every request gets an id, which its answer carries and which everything that is logged on the
//! way carries too, and is counted.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::http::{HeaderName, HeaderValue, Request};
use axum::response::Response;
use futures::FutureExt;
use futures::future::BoxFuture;
use tower::{Layer, Service};
use tracing::Instrument;

use crate::metrics;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer id that a client sends is replaced.
const LONGEST_ID: usize = 128;

/// Wraps everything else.
#[derive(Clone, Copy, Debug)]
pub(super) struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;
    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner, answered: metrics::HTTP_REQUESTS.counter(&[]) }
    }
}

/// See [`TraceLayer`].
#[derive(Clone)]
pub struct Traced<S> {
    inner: S,
    answered: ::metrics::Counter,
}

impl<S, B> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let began = Instant::now();
        let id = request.headers().get(&REQUEST_ID).filter(|id| is_sane(id)).cloned().unwrap_or_else(new_id);
        let shown = id.to_str().unwrap_or_default();
        // An error's line must have the id whatever is filtered out.
        let span = tracing::error_span!("request", id = shown, method = %request.method(), path = request.uri().path());
        let answered = self.answered.clone();
        let answer = self.inner.call(request);
        let answer = async move {
            let mut response = answer.await?;
            answered.increment(1);
            response.headers_mut().insert(REQUEST_ID.clone(), id);
            let (status, ms) = (response.status().as_u16(), began.elapsed().as_secs_f64() * 1000.0);
            tracing::debug!(status, ms, "answered");
            Ok(response)
        };
        answer.instrument(span).boxed()
    }
}

/// Ids are copied into logs and answers: no spaces, nothing that needs escaping.
fn is_sane(id: &HeaderValue) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    !id.is_empty() && id.len() <= LONGEST_ID && id.as_bytes().iter().all(good)
}

fn new_id() -> HeaderValue {
    let id = uuid::Uuid::new_v4().simple().to_string();
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_ids_are_taken_over() {
        let sane = |id: &str| is_sane(&HeaderValue::try_from(id).unwrap());
        assert!(sane("4f1c-22/a.b_c:1+=@"));
        assert!(!sane("") && !sane("a b") && !sane("a\"b") && !sane("a\tb") && !sane("ä"));
        assert!(sane(&"x".repeat(128)) && !sane(&"x".repeat(129)));
        assert!(is_sane(&new_id()));
    }
}
