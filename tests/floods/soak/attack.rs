//! What the soak floods a server with. Attackers are cheap: a socket each, written to a hundred times a second, all of them
//! on one thread; so they are not what is measured. However many they are, together they send the same.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::floods::{frame, head, post, text};

/// Bytes a second of all attackers together.
const BYTES: usize = 4 << 20;
/// Connections a second of all attackers together, of those who leave at once.
const CONNECTIONS: u32 = 50;
const TICK: Duration = Duration::from_millis(10);
const AGAIN: Duration = Duration::from_millis(100);

/// What comes behind the first bytes.
#[derive(Clone, Debug)]
enum Then {
    /// These, over and over.
    Again(Vec<u8>),
    /// Nothing: the connection is held, and its answers are not read.
    Hold,
    /// The client leaves, and another one comes.
    Leave,
}

/// One flood.
#[derive(Clone, Debug)]
pub struct Attack {
    pub name: &'static str,
    /// On a session of a stranger.
    session: bool,
    first: Vec<u8>,
    then: Then,
    reads: bool,
}

fn call(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

/// All of them, the cheapest things first.
pub fn all() -> Vec<Attack> {
    let session = |name, more: Vec<u8>, reads| Attack {
        name,
        session: true,
        first: Vec::new(),
        then: Then::Again(more),
        reads,
    };
    let http = |name, more: String, reads| Attack {
        name,
        session: false,
        first: Vec::new(),
        then: Then::Again(more.into_bytes()),
        reads,
    };
    let once = |name, session, first: Vec<u8>, then| Attack { name, session, first, then, reads: false };
    let count = |number: usize| {
        let pattern = format!("(a|b| )*c.*{number}x$");
        text(&call("node.count", json!({"filter": {"data.log__re": pattern}})))
    };
    let names = (0..2000).map(|number| {
        text(&call("event.subscribe", json!({"sub": 1, "channel": format!("nowhere-{number}")})))
    });
    let login = "username=admin&password=wrong";
    let login = head(
        "POST /latest/user/login",
        None,
        "content-type: application/x-www-form-urlencoded\r\ncontent-length: 29\r\n",
    ) + login;
    let half = head("POST /latest/rpc", None, "content-length: 1048576\r\n") + &" ".repeat(1_000_000);
    let events = head("GET /latest/events?channel=node&limit=1000", None, "");
    vec![
        session("letters, answers read", text("x"), true),
        session("letters, answers not read", text("x"), false),
        session("pings of 125 bytes, not read", frame(9, &[b'p'; 125]), false),
        session("hello again and again, not read", text(&call("session.hello", json!({}))), false),
        session("names that are none", names.collect::<Vec<_>>().concat(), true),
        once(
            "28 searches without an index",
            true,
            (0..28).map(count).collect::<Vec<_>>().concat(),
            Then::Hold,
        ),
        http("pipelined /health", head("GET /latest/health", None, ""), true),
        http("pipelined /nodes, not read", head("GET /latest/nodes?limit=100", None, ""), false),
        http("refusals over /rpc", post("/latest/rpc", None, &call("x", json!({}))), true),
        once("half a body of 1 MiB", false, half.into_bytes(), Then::Hold),
        once("large answers, not read", false, events.repeat(4).into_bytes(), Then::Hold),
        once("wrong logins that leave", false, login.into_bytes(), Then::Leave),
        once("connections that say nothing", false, Vec::new(), Then::Hold),
    ]
}

/// Attackers at work, on a thread of their own.
pub struct Attackers {
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Attackers {
    /// So many of each of these, on this port.
    pub fn begin(attacks: &[Attack], count: usize, port: u16) -> Attackers {
        let (stop, stopped) = watch::channel(false);
        let attacks = attacks.to_vec();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                let all = count * attacks.len();
                for attack in attacks {
                    for _ in 0..count {
                        let (attack, mut stopped) = (attack.clone(), stopped.clone());
                        tasks.spawn(async move {
                            tokio::select! {
                                () = attack.go_on(all, port) => {}
                                _ = stopped.wait_for(|stopped| *stopped) => {}
                            }
                        });
                    }
                }
                tasks.join_all().await;
            });
        });
        Attackers { stop, thread: Some(thread) }
    }
}

impl Attackers {
    /// It is enough.
    pub fn stop(&self) {
        // Those who have ended need not be told.
        _ = self.stop.send(true);
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

impl Attack {
    /// Comes again whenever the server has had enough, or has died.
    async fn go_on(&self, count: usize, port: u16) {
        let buffer = match &self.then {
            Then::Again(more) => more.repeat((64 << 10) / more.len() + 1),
            Then::Hold | Then::Leave => Vec::new(),
        };
        loop {
            let come = async {
                let mut stream = connect(port).await?;
                if self.session {
                    become_session(&mut stream).await?;
                }
                stream.write_all(&self.first).await?;
                match self.then {
                    Then::Again(_) => self.flood(&stream, &buffer, count).await,
                    // A connection that has ended tells so, or stays for as long as it likes.
                    Then::Hold => stream.ready(tokio::io::Interest::ERROR).await.map(drop),
                    Then::Leave => {
                        sleep(TICK).await;
                        drop(stream);
                        sleep(Duration::from_secs(1) * count as u32 / CONNECTIONS).await;
                        Ok(())
                    }
                }
            };
            if come.await.is_err() {
                sleep(AGAIN).await;
            }
        }
    }

    async fn flood(&self, stream: &TcpStream, buffer: &[u8], count: usize) -> std::io::Result<()> {
        let (mut tick, mut at, mut read) = (interval(TICK), 0, vec![0; 64 << 10]);
        let turn = (BYTES / 100 / count).max(1);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let some = &buffer[at..(at + turn).min(buffer.len())];
                    match stream.try_write(some) {
                        Ok(count) => at = (at + count) % buffer.len(),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                ready = stream.readable(), if self.reads => {
                    ready?;
                    match stream.try_read(&mut read) {
                        Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
                        _ => {}
                    }
                }
            }
        }
    }
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 << 10)?;
    socket.connect(([127, 0, 0, 1], port).into()).await
}

/// What of WebSocket the attackers need: the upgrade, hello, and its answer.
async fn become_session(stream: &mut TcpStream) -> std::io::Result<()> {
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: kernelci.v1.json\r\n";
    stream.write_all(head("GET /latest/ws", None, upgrade).as_bytes()).await?;
    let mut buffer = [0; 4096];
    let begun = Instant::now();
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    for said in [None, Some(text(&call("session.hello", json!({}))))] {
        if let Some(said) = said {
            stream.write_all(&said).await?;
        }
        let patience = Duration::from_secs(20).saturating_sub(begun.elapsed());
        if timeout(patience, stream.read(&mut buffer)).await.map_err(|_| late())?? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
