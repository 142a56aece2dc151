//! `load serve-plain`: what the sockets themselves cost. One task frames each message once and writes the same bytes to
//! every subscriber; what comes in together goes out in one write. No queue, no task and no timer for a subscriber.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::endpoint::allow_sockets;
use super::frame;

/// Messages that wait to be passed on.
const QUEUE: usize = 1024;
/// Bytes that are written to a subscriber at once.
const TOGETHER: usize = 16 << 10;
/// A subscriber that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_REQUEST: usize = 8 << 10;
const SOCKETS: usize = 19_000;

/// Options of `serve-plain`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ServePlain {
    /// Address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:8010")]
    listen: SocketAddr,
}

enum Arrival {
    /// With what it is to be answered: once it knows that it is there it must not miss anything.
    Subscriber(TcpStream, String),
    Message(Vec<u8>),
}

impl ServePlain {
    pub(super) async fn run(&self) -> Result<()> {
        // As many as there may be, should it be fewer.
        let _ = allow_sockets(SOCKETS);
        let listener =
            TcpListener::bind(self.listen).await.with_context(|| format!("--listen {}", self.listen))?;
        writeln!(std::io::stdout(), "plain server on http://{}", listener.local_addr()?)?;
        let (arrivals, arriving) = mpsc::channel(QUEUE);
        tokio::spawn(pass_on(arriving));
        loop {
            let (stream, _) = listener.accept().await?;
            let arrivals = arrivals.clone();
            // Whoever does not speak the protocol is gone.
            tokio::spawn(async move { drop(welcome(stream, arrivals).await) });
        }
    }
}

/// Subscribers are handed over, publishers are read.
async fn welcome(mut stream: TcpStream, arrivals: mpsc::Sender<Arrival>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if request.len() > LONGEST_REQUEST || stream.read_buf(&mut request).await? == 0 {
            bail!("no request");
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let key = request.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let accept = derive_accept_key(key.context("no key")?.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    if !request.starts_with("GET /publish ") {
        return arrivals.send(Arrival::Subscriber(stream, answer)).await.context("the server ends");
    }
    stream.write_all(answer.as_bytes()).await?;
    let mut input = Vec::with_capacity(TOGETHER);
    while stream.read_buf(&mut input).await? > 0 {
        let mut used = 0;
        while let Some((opcode, payload, size)) = frame::first_of_client(&input[used..])? {
            used += size;
            match opcode {
                frame::TEXT | frame::BINARY => {
                    let mut message = Vec::with_capacity(payload.len() + 10);
                    frame::put_unmasked(&mut message, frame::TEXT, &payload);
                    arrivals.send(Arrival::Message(message)).await.context("the server ends")?;
                }
                frame::CLOSE => return Ok(()),
                _ => {}
            }
        }
        input.drain(..used);
    }
    Ok(())
}

/// The one loop that writes.
async fn pass_on(mut arriving: mpsc::Receiver<Arrival>) {
    let mut subscribers: Vec<TcpStream> = Vec::new();
    let (mut next, mut together) = (Vec::new(), Vec::new());
    while arriving.recv_many(&mut next, QUEUE).await > 0 {
        for arrival in next.drain(..) {
            match arrival {
                Arrival::Message(message) => {
                    if together.len() + message.len() > TOGETHER {
                        write_to_all(&mut subscribers, &together).await;
                        together.clear();
                    }
                    together.extend(message);
                }
                Arrival::Subscriber(mut stream, answer) => {
                    write_to_all(&mut subscribers, &together).await;
                    together.clear();
                    if stream.write_all(answer.as_bytes()).await.is_ok() {
                        subscribers.push(stream);
                    }
                }
            }
        }
        write_to_all(&mut subscribers, &together).await;
        together.clear();
    }
}

async fn write_to_all(subscribers: &mut Vec<TcpStream>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let mut full = Vec::new();
    subscribers.retain(|stream| match stream.try_write(bytes) {
        Ok(written) => {
            full.push(written);
            true
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            full.push(0);
            true
        }
        Err(_) => false,
    });
    // Only now those whose buffers were full: the others do not wait for them.
    let mut gone = Vec::new();
    for (at, (stream, mut written)) in subscribers.iter().zip(full).enumerate() {
        while written < bytes.len() {
            let room = tokio::time::timeout(PATIENCE, stream.writable()).await;
            match stream.try_write(&bytes[written..]) {
                Ok(more) => written += more,
                Err(error) if room.is_ok() && error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    gone.push(at);
                    break;
                }
            }
        }
    }
    for at in gone.into_iter().rev() {
        subscribers.remove(at);
    }
}
