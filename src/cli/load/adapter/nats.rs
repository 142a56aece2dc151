//! NATS's text protocol, in binary WebSocket frames whose borders mean nothing.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;

use super::{Adapter, Seen, Start, by_mark};
use crate::cli::load::endpoint::Endpoint;
use crate::cli::load::frame::BINARY;
use crate::cli::load::link::Link;

const SUBJECT: &str = "load";

/// `nats-server` with a WebSocket listener.
#[derive(Debug)]
pub(super) struct Nats {
    pub(super) endpoint: Arc<Endpoint>,
}

#[async_trait]
impl Adapter for Nats {
    async fn connect(&self) -> Result<Link> {
        let mut link = Link::websocket(&self.endpoint, "/", "", BINARY).await?;
        let info = link.text().await?;
        if !info.starts_with("INFO ") {
            bail!("no NATS server: {info}");
        }
        link.send(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false,\"protocol\":1}\r\n")
            .await?;
        confirm(&mut link).await?;
        Ok(link)
    }

    async fn subscribe(&self, link: &mut Link, _: &Start) -> Result<u64> {
        link.send(format!("SUB {SUBJECT} 1\r\n").as_bytes()).await?;
        confirm(link).await?;
        Ok(0)
    }

    fn publish(&self, _: u64, payload: &str) -> String {
        format!("PUB {SUBJECT} {}\r\n{payload}\r\n", payload.len())
    }

    fn read(&self, bytes: &[u8], hint: &mut usize, seen: &mut dyn FnMut(Seen<'_>)) -> Result<usize> {
        let mut used = 0;
        while let Some(end) = bytes[used..].windows(2).position(|window| window == b"\r\n") {
            let line = &bytes[used..used + end];
            let mut next = used + end + 2;
            if line.starts_with(b"MSG ") {
                let length = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                let length: usize = str::from_utf8(length)?.parse().context("MSG without a length")?;
                let Some(payload) = bytes.get(next..next + length + 2) else { break };
                seen(by_mark(payload, hint));
                next += length + 2;
            } else if line == b"PING" {
                seen(Seen::Ask(b"PONG\r\n"));
            } else if line.starts_with(b"-ERR") {
                seen(Seen::Trouble(line));
            }
            used = next;
        }
        Ok(used)
    }
}

/// What went before has been done when this is answered.
async fn confirm(link: &mut Link) -> Result<()> {
    link.send(b"PING\r\n").await?;
    loop {
        let text = link.text().await?;
        if text.contains("-ERR") {
            bail!("NATS refuses: {text}");
        }
        if text.contains("PONG") {
            return Ok(());
        }
    }
}
