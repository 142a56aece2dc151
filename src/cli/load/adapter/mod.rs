//! What differs between the servers that can be loaded: how to connect, subscribe and publish, and how to recognise an
//! event and its number.

mod kernelci;
mod nats;
mod plain;
mod redis;
mod socketio;

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;

pub(super) use kernelci::KernelCi;

use super::endpoint::Endpoint;
use super::link::Link;
use super::mark::Mark;
use crate::cli::connect::ConnectArgs;

/// A server's protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Protocol {
    /// This server.
    #[default]
    Kernelci,
    /// `kernelci-live load serve-plain`: the same bytes to the same sockets and nothing else.
    Plain,
    /// Socket.IO v4 over WebSocket, as tests/load/socketio.mjs serves it.
    Socketio,
    /// NATS over WebSocket.
    Nats,
    /// Redis publish and subscribe, over TCP.
    Redis,
}

impl Protocol {
    /// What `--adapter` takes.
    pub(super) fn name(self) -> &'static str {
        match self {
            Protocol::Kernelci => "kernelci",
            Protocol::Plain => "plain",
            Protocol::Socketio => "socketio",
            Protocol::Nats => "nats",
            Protocol::Redis => "redis",
        }
    }

    /// The adapter, on a channel of its own.
    pub(super) async fn adapter(
        self,
        connect: &ConnectArgs,
        endpoint: Arc<Endpoint>,
    ) -> Result<Arc<dyn Adapter>> {
        Ok(match self {
            Protocol::Kernelci => {
                let channel = format!("load.{:016x}", rand::random::<u64>());
                Arc::new(KernelCi::new(connect, endpoint, channel).await?)
            }
            Protocol::Plain => Arc::new(plain::Plain { endpoint }),
            Protocol::Socketio => Arc::new(socketio::SocketIo { endpoint }),
            Protocol::Nats => Arc::new(nats::Nats { endpoint }),
            Protocol::Redis => Arc::new(redis::Redis { endpoint }),
        })
    }
}

/// Something that was seen in what came in.
#[derive(Debug, PartialEq)]
pub(super) enum Seen<'a> {
    /// An event. `seq` is its place in the order that every subscriber has to see, dense from the place that
    /// [`Adapter::subscribe`] told; where the protocol has none it is the mark's number behind 1.
    Event { seq: u64, mark: Option<Mark> },
    /// Wants this answer.
    Ask(&'static [u8]),
    /// A request or a published event was taken.
    Taken,
    /// A request or a published event was refused, or events are missing and the server says so.
    Trouble(&'a [u8]),
    /// Nothing that matters.
    Other,
}

/// What a subscription asks for: all that comes, unless told otherwise. Only [`KernelCi`] can be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Start {
    /// What stands behind this place.
    pub(super) behind: Option<Place>,
    /// Only events of this lane.
    pub(super) lane: Option<u64>,
}

/// A place in a channel.
#[derive(Clone, Debug, serde::Deserialize)]
pub(super) struct Place {
    pub(super) epoch: String,
    pub(super) seq: u64,
}

/// A server's protocol, spoken to one server.
#[async_trait]
pub(super) trait Adapter: Send + Sync + std::fmt::Debug {
    /// A connection that may subscribe, authenticated if the protocol has that.
    async fn connect(&self) -> Result<Link>;

    /// A connection that may publish.
    async fn publisher(&self) -> Result<Link> {
        self.connect().await
    }

    /// Subscribes; every event that is published after it returns is seen. Returns the place that the first event
    /// comes behind.
    async fn subscribe(&self, link: &mut Link, start: &Start) -> Result<u64>;

    /// The message that publishes `payload`.
    fn publish(&self, number: u64, payload: &str) -> String;

    /// Looks at a whole frame, or at what there is of a stream, and tells how many bytes of it are done with. `hint` is
    /// the caller's, for [`Mark::find`].
    fn read(&self, bytes: &[u8], hint: &mut usize, seen: &mut dyn FnMut(Seen<'_>)) -> Result<usize>;

    /// Published events that may wait for their answers on one connection; `None` if they are not answered.
    fn unanswered(&self) -> Option<usize> {
        None
    }

    /// Whether several may publish at once: the order that subscribers see is then the server's own.
    fn numbers_events(&self) -> bool {
        false
    }
}

/// What is seen of an event whose order is that of the marks.
fn by_mark<'a>(bytes: &[u8], hint: &mut usize) -> Seen<'a> {
    match Mark::find(bytes, hint) {
        Some(mark) => Seen::Event { seq: mark.number + 1, mark: Some(mark) },
        None => Seen::Other,
    }
}
