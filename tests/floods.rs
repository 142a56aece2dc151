//! What is cheap to send and could be dear to receive, from strangers and from users, with every way of not reading the
//! answers: nobody else notices, memory stays where it is, and whoever goes too far is sent away.

mod answers;
mod bodies;
mod connections;
mod events;
mod feeds;
mod looks;
mod polls;
mod refusals;
mod requests;
mod searches;
mod sessions;
mod slow;
mod soak;

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::{Http, PATIENCE, Raw, Server, node};

/// A final masked frame with this opcode. The mask changes nothing.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_of(0x80 | opcode, payload)
}

/// As [`frame`], from its first byte.
fn frame_of(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    frame(1, text.as_bytes())
}

/// How a client treats what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Always,
    Slowly,
    Never,
}

/// A connection that sends the same bytes over and over.
struct Flood {
    stop: watch::Sender<bool>,
    task: JoinHandle<u64>,
}

impl Flood {
    fn begin(stream: TcpStream, bytes: Vec<u8>, reading: Reading) -> Flood {
        Flood::begin_with(stream, Vec::new(), bytes, reading)
    }

    /// As [`Flood::begin`], after these bytes.
    fn begin_with(stream: TcpStream, first: Vec<u8>, bytes: Vec<u8>, reading: Reading) -> Flood {
        let (stop, stopped) = watch::channel(false);
        let many = bytes.repeat((64 << 10) / bytes.len() + 1);
        let task = tokio::spawn(async move {
            let (mut input, mut output) = stream.into_split();
            let read = async move {
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let some = if reading == Reading::Slowly { 1000 } else { buffer.len() };
                    match reading {
                        Reading::Never => std::future::pending::<()>().await,
                        Reading::Slowly => tokio::time::sleep(Duration::from_millis(20)).await,
                        Reading::Always => {}
                    }
                    if matches!(input.read(&mut buffer[..some]).await, Ok(0) | Err(_)) {
                        return;
                    }
                }
            };
            let mut sent = 0;
            let write = async {
                if output.write_all(&first).await.is_err() {
                    return;
                }
                // Until the server has enough of it.
                while output.write_all(&many).await.is_ok() {
                    sent += many.len() as u64;
                }
            };
            let mut stopped = stopped;
            tokio::select! {
                () = write => {}
                () = read => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            sent
        });
        Flood { stop, task }
    }

    /// Ends it; how many bytes the server has taken.
    async fn end(self) -> u64 {
        // The flood may have ended by itself.
        _ = self.stop.send(true);
        self.task.await.expect("the flood ends")
    }
}

/// A connection on which somebody says this. Little of what they send waits on their side, so that it ends with them.
async fn says(server: &Server, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(64 << 10).expect("a small buffer");
    let mut stream = socket.connect(([127, 0, 0, 1], server.port()).into()).await.expect("connects");
    stream.write_all(bytes).await.expect("sent");
    stream
}

/// As [`says`], from another address of this machine, by somebody who takes next to nothing of what they are sent.
async fn says_from(server: &Server, last: u8, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    socket.bind(([127, 0, 0, last], 0).into()).expect("an address");
    let mut stream = socket.connect(([127, 0, 0, 1], server.port()).into()).await.expect("connects");
    // Who is not wanted is sent away at once.
    _ = stream.write_all(bytes).await;
    stream
}

/// The head of a request: its line, `Authorization` if there is a token, and these further lines.
fn head(line: &str, token: Option<&str>, more: &str) -> String {
    let token = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    format!("{line} HTTP/1.1\r\nhost: x\r\n{token}{more}\r\n")
}

/// A whole request with a body.
fn post(path: &str, token: Option<&str>, body: &str) -> String {
    head(&format!("POST {path}"), token, &format!("content-length: {}\r\n", body.len())) + body
}

/// Somebody who works while others flood.
struct Bystander {
    session: Raw,
    http: Http,
    seen: u64,
    /// How long each turn of work took.
    took: Vec<Duration>,
}

impl Bystander {
    async fn come(server: &Server) -> Bystander {
        let mut session = server.admin().await;
        session.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
        Bystander { session, http: Http::new(server), seen: 0, took: Vec::new() }
    }

    /// Reads, writes, hears of the write, and asks whether the server is well.
    async fn work(&mut self) {
        let begun = Instant::now();
        self.session.call("node.count", json!({"filter": {"kind": "kbuild"}})).await;
        let made = self.session.call("node.create", json!({"node": node("checkout", "as ever")})).await;
        let event = self.session.event(1).await;
        assert_eq!(event["event"]["data"]["id"], made["id"]);
        self.seen += 1;
        assert_eq!(self.http.get("/latest/health").await.status, 200);
        self.took.push(begun.elapsed());
    }

    /// That a turn of work has mostly taken some of a second, on a busy machine: what stands still for a flood takes as long
    /// as that. (How much slower it is than without one is for `scripts/soak floods`.)
    fn was_not_held_up(&mut self) {
        self.took.sort_unstable();
        let middle = self.took[self.took.len() / 2];
        assert!(middle < Duration::from_secs(1), "half of {} turns took {middle:?} or more", self.took.len());
    }
}

/// The figure of a metric, over all its labels that `labels` occurs in; 0 before there is one.
async fn metric(server: &Server, name: &str, labels: &str) -> u64 {
    let text = reqwest::get(format!("{}/latest/metrics", server.url())).await.expect("answers");
    let text = text.text().await.expect("text");
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// What comes on a stream until its end, or the time is up.
async fn rest_of(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = async {
        let mut buffer = vec![0; 16 << 10];
        // A connection that is reset has ended, too.
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            bytes.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.ok()?;
    Some(bytes)
}

/// The code of the close frame that these bytes end with.
fn close_code(bytes: &[u8]) -> Option<u16> {
    let at = bytes.windows(2).rposition(|pair| pair[0] == 0x88 && pair[1] >= 2)?;
    Some(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]))
}

/// `scripts/soak floods`: figures under each flood, and all of them under faults.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as FLOOD_MINUTES says"]
async fn floods_at_length() {
    soak::soak().await;
}
