//! The ways to write a path (contract 1.1): `/latest/x`, `/v0/x` and `/x` are the same; other versions are refused.
//! Slashes that follow a slash count as one.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::future::{Either, Ready, ready};
use tower::{Layer, Service};

use super::answer::failed;
use crate::error::Error;

/// Wraps the router, which knows `/latest` only.
#[derive(Clone, Copy, Debug)]
pub(super) struct VersionLayer;

impl<S> Layer<S> for VersionLayer {
    type Service = Versioned<S>;
    fn layer(&self, inner: S) -> Versioned<S> {
        Versioned { inner }
    }
}

/// See [`VersionLayer`].
#[derive(Clone, Debug)]
pub struct Versioned<S> {
    inner: S,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To this path of the router.
    Path(String),
    /// To the same path without its trailing slash.
    Redirect(String),
    /// Nowhere: this version does not exist.
    Unsupported(String),
}

pub(super) fn target(path: &str) -> Target {
    let single = path.contains("//").then(|| single_slashes(path));
    let path = single.as_deref().unwrap_or(path);
    let path = match version(path) {
        Some("v0") if matches!(path.as_bytes().get(3), None | Some(b'/')) => format!("/latest{}", &path[3..]),
        Some("v0") => path.to_owned(),
        Some(other) => return Target::Unsupported(other.to_owned()),
        None if path.starts_with("/latest") => path.to_owned(),
        None => format!("/latest{path}"),
    };
    match path.strip_suffix('/') {
        Some("/latest") => Target::Path("/latest/".into()),
        Some(plain) => Target::Redirect(plain.to_owned()),
        None if path == "/latest" => Target::Path("/latest/".into()),
        None => Target::Path(path),
    }
}

fn single_slashes(path: &str) -> String {
    let mut single = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !single.ends_with('/') {
            single.push(c);
        }
    }
    single
}

/// The version token: what `^/(v[\d.]+)` captures.
fn version(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v")?;
    let length = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    (length > 0).then(|| &path[1..2 + length])
}

impl<S> Service<Request<hyper::body::Incoming>> for Versioned<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<hyper::body::Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let now = |response: Response| Either::Right(ready(Ok(response)));
        match target(request.uri().path()) {
            Target::Path(path) => match format!("{path}{query}").parse::<Uri>() {
                Ok(uri) => {
                    *request.uri_mut() = uri;
                    Either::Left(self.inner.call(request))
                }
                Err(_) => now(failed("http", &Error::bad_request("this path is none"))),
            },
            Target::Redirect(path) => {
                let to = format!("{path}{query}");
                now((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response())
            }
            Target::Unsupported(version) => {
                now((StatusCode::BAD_REQUEST, format!("Unsupported API version: {version}")).into_response())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_contract() {
        let path = |text: &str| Target::Path(text.into());
        for (from, to) in [
            ("/v0/nodes", path("/latest/nodes")),
            ("/v0", path("/latest/")),
            ("/v0/", path("/latest/")),
            ("/v0foo", path("/v0foo")),
            ("/v1/nodes", Target::Unsupported("v1".into())),
            ("/v0.1/x", Target::Unsupported("v0.1".into())),
            ("/v./x", Target::Unsupported("v.".into())),
            ("/latest/nodes", path("/latest/nodes")),
            ("/latestfoo", path("/latestfoo")),
            ("/latest", path("/latest/")),
            ("/", path("/latest/")),
            ("/viewer", path("/latest/viewer")),
            ("/v/x", path("/latest/v/x")),
            ("/latest/nodes/", Target::Redirect("/latest/nodes".into())),
            ("/latest//whoami", path("/latest/whoami")),
            ("//v0///node//x", path("/latest/node/x")),
            ("//", path("/latest/")),
            ("//example.org/", Target::Redirect("/latest/example.org".into())),
        ] {
            assert_eq!(target(from), to, "{from}");
        }
    }
}
