//! Socket.IO v4: Engine.IO packets over WebSocket, the default namespace, no acknowledgements.

use std::sync::Arc;

use anyhow::{Result, bail};
use async_trait::async_trait;

use super::{Adapter, Seen, Start, by_mark};
use crate::cli::load::endpoint::Endpoint;
use crate::cli::load::frame::TEXT;
use crate::cli::load::link::Link;

/// A server that passes `publish` of one client on to all others as `event`.
#[derive(Debug)]
pub(super) struct SocketIo {
    pub(super) endpoint: Arc<Endpoint>,
}

#[async_trait]
impl Adapter for SocketIo {
    async fn connect(&self) -> Result<Link> {
        let path = "/socket.io/?EIO=4&transport=websocket";
        let mut link = Link::websocket(&self.endpoint, path, "", TEXT).await?;
        let open = link.text().await?;
        if !open.starts_with('0') {
            bail!("no Engine.IO server: {open}");
        }
        link.send(b"40").await?;
        let connected = link.text().await?;
        if !connected.starts_with("40") {
            bail!("Socket.IO refuses the connection: {connected}");
        }
        Ok(link)
    }

    async fn subscribe(&self, _: &mut Link, _: &Start) -> Result<u64> {
        // A connection is in the namespace's room for all.
        Ok(0)
    }

    fn publish(&self, _: u64, payload: &str) -> String {
        format!("42[\"publish\",{payload}]")
    }

    fn read(&self, bytes: &[u8], hint: &mut usize, seen: &mut dyn FnMut(Seen<'_>)) -> Result<usize> {
        seen(match bytes {
            [b'2'] => Seen::Ask(b"3"),
            [b'4', b'2', ..] => by_mark(bytes, hint),
            [b'1', ..] | [b'4', b'1' | b'4', ..] => Seen::Trouble(bytes),
            _ => Seen::Other,
        });
        Ok(bytes.len())
    }
}
