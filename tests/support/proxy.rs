//! A TCP proxy that can do to connections what networks do: lose them, hold them up, swallow them, deliver twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    #[default]
    Pass,
    /// They pass, each piece so much later.
    Delay(Duration),
    /// Nothing passes, not even the end of a connection, until this changes: as if a cable were out.
    BlackHole,
    /// New connections end at once.
    Refuse,
    /// What the client sends on new connections is sent a second time, on a connection whose answers nobody reads.
    Twice,
}

/// What happens to the connections that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Blow {
    #[default]
    None,
    /// Both ends see the connection end.
    Cut,
    /// The server's end is gone and the client does not learn it.
    HalfOpen,
}

/// A listening port in front of one or more servers.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

struct Shared {
    targets: Mutex<Vec<u16>>,
    next: AtomicUsize,
    mode: watch::Sender<Mode>,
    /// Counts up, so that two blows of a kind are two.
    blow: watch::Sender<(u64, Blow)>,
}

impl Proxy {
    /// In front of these ports of this machine, which take turns; one that does not answer is skipped.
    pub async fn to(targets: &[u16]) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            targets: Mutex::new(targets.to_vec()),
            next: AtomicUsize::new(0),
            mode: watch::Sender::new(Mode::Pass),
            blow: watch::Sender::new((0, Blow::None)),
        });
        let accept = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(shared.clone().serve(client));
                }
            }
        });
        Proxy { port, shared, accept }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what happens to bytes from now on.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.shared.blow.send_modify(|(count, blow)| (*count, *blow) = (*count + 1, Blow::Cut));
    }

    /// Ends the servers' ends of all connections; the clients' stay open and silent.
    pub fn half_open(&self) {
        self.shared.blow.send_modify(|(count, blow)| (*count, *blow) = (*count + 1, Blow::HalfOpen));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, client: TcpStream) {
        let mut blow = self.blow.subscribe();
        let mode = *self.mode.borrow();
        if mode == Mode::Refuse {
            return;
        }
        let _ = client.set_nodelay(true);
        self.open().await;
        let Some(server) = self.connect().await else { return };
        let twin = if mode == Mode::Twice { self.connect().await } else { None };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let (answers, mut twin) = twin.map(TcpStream::into_split).unzip();
        let struck = {
            let both = async {
                tokio::join!(
                    self.pump(&mut from_client, &mut to_server, twin.as_mut()),
                    self.pump(&mut from_server, &mut to_client, None),
                    drain(answers),
                )
            };
            tokio::select! {
                _ = both => Blow::None,
                _ = blow.changed() => blow.borrow_and_update().1,
            }
        };
        if struck == Blow::HalfOpen {
            drop((from_server, to_server));
            let _ = blow.changed().await;
        }
    }

    /// Waits while nothing passes.
    async fn open(&self) {
        // The sender lives as long as `self`.
        let _ = self.mode.subscribe().wait_for(|mode| *mode != Mode::BlackHole).await;
    }

    async fn connect(&self) -> Option<TcpStream> {
        let targets = self.targets.lock().expect("not poisoned").clone();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for turn in 0..targets.len() {
            let port = targets[(first + turn) % targets.len()];
            if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                let _ = server.set_nodelay(true);
                return Some(server);
            }
        }
        None
    }

    /// Passes bytes on until the end, which is passed on, too.
    async fn pump(
        &self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        mut twin: Option<&mut OwnedWriteHalf>,
    ) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = from.read(&mut buffer).await;
            self.open().await;
            let Ok(count @ 1..) = read else { break };
            let mode = *self.mode.borrow();
            if let Mode::Delay(time) = mode {
                tokio::time::sleep(time).await;
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
            if let Some(twin) = &mut twin {
                let _ = twin.write_all(&buffer[..count]).await;
            }
        }
        let _ = to.shutdown().await;
        if let Some(twin) = twin {
            let _ = twin.shutdown().await;
        }
    }
}

async fn drain(answers: Option<OwnedReadHalf>) {
    let Some(mut answers) = answers else { return };
    let mut buffer = vec![0; 16 << 10];
    while answers.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}
