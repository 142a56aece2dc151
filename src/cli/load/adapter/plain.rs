//! The server of `kernelci-live load serve-plain`.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;

use super::{Adapter, Seen, Start, by_mark};
use crate::cli::load::endpoint::Endpoint;
use crate::cli::load::frame::TEXT;
use crate::cli::load::link::Link;

/// Whoever connects to `/publish` sends, everybody else gets what it sends.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) endpoint: Arc<Endpoint>,
}

#[async_trait]
impl Adapter for Plain {
    async fn connect(&self) -> Result<Link> {
        Link::websocket(&self.endpoint, "/subscribe", "", TEXT).await
    }

    async fn publisher(&self) -> Result<Link> {
        Link::websocket(&self.endpoint, "/publish", "", TEXT).await
    }

    async fn subscribe(&self, _: &mut Link, _: &Start) -> Result<u64> {
        Ok(0)
    }

    fn publish(&self, _: u64, payload: &str) -> String {
        payload.to_owned()
    }

    fn read(&self, bytes: &[u8], hint: &mut usize, seen: &mut dyn FnMut(Seen<'_>)) -> Result<usize> {
        seen(by_mark(bytes, hint));
        Ok(bytes.len())
    }
}
