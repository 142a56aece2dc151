//! Where a request comes from.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::{header, request::Parts};

use crate::ops::Peer;

/// The other end of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connected(pub(super) IpAddr);

/// Extracts the [`Peer`] of a request.
pub(super) struct From(pub(super) Arc<Peer>);

impl<S: Sync> FromRequestParts<S> for From {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<From, Infallible> {
        let connected = parts.extensions.get::<Connected>();
        let address = connected.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Connected(address)| *address);
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let base_url = format!("http://{}", host.unwrap_or("localhost"));
        Ok(From(Arc::new(Peer { address, base_url })))
    }
}
