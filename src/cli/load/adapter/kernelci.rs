//! `kernelci.v1.json`: sessions with a token, one subscription each.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Adapter, Place, Seen, Start};
use crate::cli::connect::ConnectArgs;
use crate::cli::load::endpoint::Endpoint;
use crate::cli::load::frame::TEXT;
use crate::cli::load::link::Link;
use crate::cli::load::mark::{Mark, number_behind};
use crate::session::Limits;

/// Where `"seq"` stands in a notification at the latest.
const HEAD: usize = 128;

/// This server.
#[derive(Clone, Debug)]
pub(in crate::cli::load) struct KernelCi {
    endpoint: Arc<Endpoint>,
    path: String,
    hello: String,
    /// The token of all sessions; `None` is anonymous.
    token: Option<String>,
    channel: String,
}

impl KernelCi {
    /// Logs in once, for all sessions.
    pub(in crate::cli::load) async fn new(
        connect: &ConnectArgs,
        endpoint: Arc<Endpoint>,
        channel: impl Into<String>,
    ) -> Result<KernelCi> {
        let path = match endpoint.path.trim_end_matches('/') {
            path if path.ends_with("/ws") => path.to_owned(),
            path if path.ends_with("/latest") || path.ends_with("/v0") => format!("{path}/ws"),
            path => format!("{path}/latest/ws"),
        };
        let token = connect.access_token("load").await?;
        let hello = request("hello", "session.hello", &json!({"token": token, "client": "load"}));
        Ok(KernelCi { endpoint, path, hello, token, channel: channel.into() })
    }

    /// `PUT` of a body to a REST route below `/latest`, on a connection of its own.
    pub(in crate::cli::load) async fn put(&self, route: &str, body: &str) -> Result<()> {
        let base = self.path.trim_end_matches("/ws");
        let token = self.token.as_deref().unwrap_or_default();
        let head = format!(
            "PUT {base}{route} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.endpoint.authority,
            body.len()
        );
        let mut stream = self.endpoint.connect().await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        if !answer.starts_with(b"HTTP/1.1 200") {
            let text: String = String::from_utf8_lossy(&answer).chars().take(400).collect();
            bail!("PUT {route} is refused: {text}");
        }
        Ok(())
    }

    /// Asks one thing at a time.
    pub(in crate::cli::load) async fn ask(
        link: &mut Link,
        id: &str,
        method: &str,
        params: &Value,
    ) -> Result<Value> {
        link.send(request(id, method, params).as_bytes()).await?;
        loop {
            let text = link.text().await?;
            let mut answer: Value = serde_json::from_str(&text).context("the server sends no JSON")?;
            if answer["id"] == id {
                match answer.get("error") {
                    Some(error) => bail!("{method} is refused: {error}"),
                    None => return Ok(answer["result"].take()),
                }
            }
        }
    }

    /// Where the channel is now.
    pub(in crate::cli::load) async fn place(&self, link: &mut Link) -> Result<Place> {
        let params = json!({"sub": 2, "channel": self.channel});
        let position = KernelCi::ask(link, "place", "event.subscribe", &params).await?["position"].take();
        KernelCi::ask(link, "placed", "event.unsubscribe", &json!({"sub": 2})).await?;
        serde_json::from_value(position).context("event.subscribe tells no position")
    }
}

/// The text of a request.
fn request(id: &str, method: &str, params: &Value) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{id}\",\"method\":\"{method}\",\"params\":{params}}}")
}

#[async_trait]
impl Adapter for KernelCi {
    async fn connect(&self) -> Result<Link> {
        let protocol = "Sec-WebSocket-Protocol: kernelci.v1.json\r\n";
        let mut link = Link::websocket(&self.endpoint, &self.path, protocol, TEXT).await?;
        link.send(self.hello.as_bytes()).await?;
        let answer = link.text().await?;
        if !answer.contains("\"result\":") {
            bail!("session.hello is refused: {answer}");
        }
        Ok(link)
    }

    async fn subscribe(&self, link: &mut Link, start: &Start) -> Result<u64> {
        let mut params = json!({"sub": 1, "channel": self.channel});
        if let Some(place) = &start.behind {
            params["from"] = json!({"epoch": place.epoch, "seq": place.seq});
        }
        if let Some(lane) = start.lane {
            params["filter"] = json!({"data.lane": lane});
        }
        let result = KernelCi::ask(link, "subscribe", "event.subscribe", &params).await?;
        if result["recovered"] == false {
            bail!("events before the subscription are no longer there: {result}");
        }
        result["position"]["seq"].as_u64().with_context(|| format!("no position in {result}"))
    }

    fn publish(&self, number: u64, payload: &str) -> String {
        let channel = &self.channel;
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{number},\"method\":\"event.publish\",\
             \"params\":{{\"channel\":\"{channel}\",\"data\":{payload}}}}}"
        )
    }

    fn read(&self, bytes: &[u8], hint: &mut usize, seen: &mut dyn FnMut(Seen<'_>)) -> Result<usize> {
        let method = bytes.strip_prefix(br#"{"jsonrpc":"2.0","method":""#);
        let is = |name: &[u8]| method.is_some_and(|method| method.starts_with(name));
        seen(if is(b"event\"") {
            match number_behind(bytes, b"\"seq\":", HEAD) {
                Some(seq) => Seen::Event { seq, mark: Mark::find(bytes, hint) },
                None => Seen::Trouble(bytes),
            }
        } else if is(b"gap\"") || is(b"unsubscribed\"") || is(b"session.closing\"") {
            Seen::Trouble(bytes)
        } else if method.is_some() {
            Seen::Other
        } else if bytes.windows(9).take(HEAD).any(|window| window == b"\"result\":") {
            Seen::Taken
        } else {
            Seen::Trouble(bytes)
        });
        Ok(bytes.len())
    }

    fn unanswered(&self) -> Option<usize> {
        Some(Limits::default().requests)
    }

    fn numbers_events(&self) -> bool {
        true
    }
}
