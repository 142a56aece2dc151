//! One connection while it is set up, and those that ask or publish: bytes or WebSocket frames.

use anyhow::{Context, Result, bail};
use base64::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::endpoint::Endpoint;
use super::frame;

/// What a server may answer to an upgrade.
const LONGEST_ANSWER: usize = 16 << 10;

/// How messages are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// WebSocket frames with this opcode.
    WebSocket(u8),
    /// The protocol's own, on the bare connection.
    Bare,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    framing: Framing,
    /// What came in: read up to `at`.
    input: Vec<u8>,
    at: usize,
    output: Vec<u8>,
}

impl Link {
    /// A bare connection.
    pub(super) async fn bare(endpoint: &Endpoint) -> Result<Link> {
        let stream = endpoint.connect().await?;
        Ok(Link { stream, framing: Framing::Bare, input: Vec::new(), at: 0, output: Vec::new() })
    }

    /// A WebSocket; `headers` are whole lines for the request.
    pub(super) async fn websocket(
        endpoint: &Endpoint,
        path: &str,
        headers: &str,
        opcode: u8,
    ) -> Result<Link> {
        let mut link = Link::bare(endpoint).await?;
        let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n",
            endpoint.authority
        );
        link.stream.write_all(request.as_bytes()).await?;
        let end = loop {
            if let Some(at) = link.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if link.input.len() > LONGEST_ANSWER {
                bail!("the server's answer to the upgrade does not end");
            }
            link.read().await.context("no answer to the upgrade")?;
        };
        let head = String::from_utf8_lossy(&link.input[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 101") || !head.contains(&derive_accept_key(key.as_bytes())) {
            let line = head.lines().next().unwrap_or_default();
            let body = String::from_utf8_lossy(&link.input[end..]).chars().take(200).collect::<String>();
            bail!("the server does not upgrade {path}: {line} {body}");
        }
        link.at = end;
        link.framing = Framing::WebSocket(opcode);
        Ok(link)
    }

    /// Puts a message to what goes out with the next [`Link::flush`].
    pub(super) fn put(&mut self, message: &[u8]) {
        match self.framing {
            Framing::WebSocket(opcode) => frame::put(&mut self.output, opcode, message),
            Framing::Bare => self.output.extend(message),
        }
    }

    /// Sends what was put. May be given up at any time: what was not sent is sent next time.
    pub(super) async fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            let sent = self.stream.write(&self.output).await?;
            self.output.drain(..sent);
        }
        Ok(())
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<()> {
        self.put(message);
        self.flush().await
    }

    /// Looks at the next frame's payload, or at all that came in on a bare connection; `look` tells how much of that it
    /// has used. May be given up at any time.
    pub(super) async fn next<T>(&mut self, mut look: impl FnMut(&[u8]) -> Result<(usize, T)>) -> Result<T> {
        loop {
            if let Some(done) = self.look(&mut look)? {
                if !self.output.is_empty() {
                    self.flush().await?;
                }
                return Ok(done);
            }
            self.read().await?;
        }
    }

    /// As [`Link::next`] with a whole frame as text.
    pub(super) async fn text(&mut self) -> Result<String> {
        self.next(|bytes| Ok((bytes.len(), String::from_utf8_lossy(bytes).into_owned()))).await
    }

    /// As [`Link::next`] without waiting; `None` if nothing whole is there.
    pub(super) fn look<T>(
        &mut self,
        look: &mut impl FnMut(&[u8]) -> Result<(usize, T)>,
    ) -> Result<Option<T>> {
        loop {
            let bytes = &self.input[self.at..];
            if bytes.is_empty() {
                return Ok(None);
            }
            if self.framing == Framing::Bare {
                let (used, done) = look(bytes)?;
                self.at += used;
                return Ok((used > 0).then_some(done));
            }
            let Some(frame) = frame::first(bytes)? else { return Ok(None) };
            let size = frame.size;
            match frame.opcode {
                frame::TEXT | frame::BINARY => {
                    let (_, done) = look(frame.payload)?;
                    self.at += size;
                    return Ok(Some(done));
                }
                frame::PING => frame::put(&mut self.output, frame::PONG, frame.payload),
                frame::CLOSE => bail!(closed(frame.payload)),
                _ => {}
            }
            self.at += size;
        }
    }

    async fn read(&mut self) -> Result<()> {
        self.make_room();
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("the server has closed the connection");
        }
        Ok(())
    }

    fn make_room(&mut self) {
        self.input.drain(..self.at);
        self.at = 0;
    }

    /// For whoever reads on: the connection, and what has come in already.
    pub(super) fn into_parts(mut self) -> Result<(std::net::TcpStream, Framing, Vec<u8>)> {
        self.make_room();
        self.input.shrink_to_fit();
        Ok((self.stream.into_std()?, self.framing, self.input))
    }

    /// Says goodbye and does not wait for the answer.
    pub(super) async fn close(mut self) -> Result<()> {
        if let Framing::WebSocket(_) = self.framing {
            frame::put(&mut self.output, frame::CLOSE, &1000_u16.to_be_bytes());
            self.flush().await?;
        }
        Ok(())
    }
}

/// What a close frame says.
pub(super) fn closed(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("the server has closed with {code} {}", String::from_utf8_lossy(reason))
        }
        _ => "the server has closed the connection".to_owned(),
    }
}
