//! What every answer says besides: that its type is not to be guessed, and to pages of which other origins browsers may
//! show it (CORS).
//!
//! Those are the listed ones (`ALLOWED_ORIGINS`), for all that they ask. They send their token themselves: nothing that a
//! browser keeps for us (a cookie, a proxy's login) is allowed to come along.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tower::{Layer, Service};

use crate::app::App;

/// What pages may ask by, send, and see of an answer besides what all may.
const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
const SENT: &str =
    "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID, X-Request-Id";
const SHOWN: &str = "ETag, Location, Retry-After, X-Request-Id, X-Total-Truncated";
/// Seconds for which a browser need not ask again.
const GOOD_FOR: &str = "600";

/// Adds the headers.
#[derive(Clone)]
pub(super) struct HeadersLayer(pub(super) Arc<App>);

impl<S> Layer<S> for HeadersLayer {
    type Service = Headed<S>;
    fn layer(&self, inner: S) -> Headed<S> {
        Headed { inner, app: self.0.clone() }
    }
}

/// See [`HeadersLayer`].
#[derive(Clone)]
pub struct Headed<S> {
    inner: S,
    app: Arc<App>,
}

impl<S, B> Service<Request<B>> for Headed<S>
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
        let own = &self.app.own_addresses;
        let listed = origin(request.headers()).filter(|origin| own.lists(origin));
        let listed = listed.and_then(|origin| HeaderValue::try_from(origin).ok());
        let varies = own.lists_any();
        let asks_first = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let answer = match (&listed, asks_first) {
            (Some(_), true) => ready(Ok(may_ask())).boxed(),
            _ => self.inner.call(request).boxed(),
        };
        answer.map(move |answer| answer.map(|response| head(response, listed, varies))).boxed()
    }
}

/// The `Origin` of a request, if it has one.
pub(super) fn origin(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::ORIGIN).into_iter();
    // Two, or what is no text, are nobody's.
    all.next().map(|one| if all.next().is_some() { "" } else { one.to_str().unwrap_or_default() })
}

/// The answer to whoever asks whether they may ask.
fn may_ask() -> Response {
    let may = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, SENT),
        (header::ACCESS_CONTROL_MAX_AGE, GOOD_FOR),
    ];
    (StatusCode::NO_CONTENT, may).into_response()
}

fn head(mut response: Response, listed: Option<HeaderValue>, varies: bool) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if varies {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = listed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(SHOWN));
    }
    response
}
