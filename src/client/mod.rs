//! The client of the WebSocket protocol `kernelci.v1.json`, for the command line, the tests and the load generator.
//!
//! A [`Client`] is one authenticated connection that many tasks share: requests are multiplexed on it, and any
//! number of [`Subscription`]s. A background task owns the socket ([`connection`]). When it is lost the task
//! connects again, with growing, random waits, and everything goes on: subscriptions continue behind their last
//! event, requests that may be repeated are repeated, callers of others get [`Error::Disconnected`].
//!
//! ```no_run
//! # async fn example() -> kernelci_live::client::Result<()> {
//! use kernelci_live::client::{Auth, Client, Delivery, Options, Subscribe};
//! let client = Client::connect(Options::new("http://127.0.0.1:8001").auth(Auth::Anonymous)).await?;
//! let mut events = client.subscribe(Subscribe::to("node")).await?;
//! while let Some(delivery) = events.next().await {
//!     if let Delivery::Event(delivery) = delivery {
//!         println!("{} {}", delivery.seq, delivery.raw);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod connection;
mod error;
mod feeds;
mod group;
mod handshake;
mod operations;
mod requests;
mod subscription;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use error::{Error, ErrorData, Result, RpcError};
pub use group::Group;
pub use handshake::{Limits, Session};
pub use operations::{EventQuery, NodeQuery, Page, Publish, Submit, UpdateNode};
pub use subscription::{Delivery, Ended, EventDelivery, OnSlow, Start, Subscribe, Subscription};

use backoff::Backoff;
use connection::{Command, Connection};
use feeds::NewFeed;
use requests::Call;

/// Requests that wait for the connection task; whoever comes later waits in turn.
const COMMANDS: usize = 64;
/// How often a request is tried when the server says that its error is temporary.
const TRIES: u32 = 5;

/// Where to connect and as whom.
#[derive(Clone)]
pub struct Options {
    /// `http(s)://…` or `ws(s)://…`: the server's base, or the full address of its WebSocket.
    pub url: String,
    /// As whom.
    pub auth: Auth,
    /// What the server's log calls this client, e.g. `scheduler/1.4`.
    pub name: String,
}

/// Who connects.
#[derive(Clone)]
pub enum Auth {
    /// Nobody: may read what the server shows to everybody.
    Anonymous,
    /// The bearer of a token.
    Token(String),
    /// A user with a password: the client gets tokens by itself, also when one expires.
    Password {
        /// Name.
        user: String,
        /// Password.
        password: String,
    },
}

impl Options {
    /// An anonymous connection to `url`.
    pub fn new(url: impl Into<String>) -> Self {
        let name = concat!("kernelci-live/", env!("CARGO_PKG_VERSION")).to_owned();
        Options { url: url.into(), auth: Auth::Anonymous, name }
    }
    /// As whom.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }
    /// What the server's log calls this client.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

/// How the connection is.
#[derive(Clone, Debug)]
pub enum State {
    /// Up, with what the server says about the session.
    Connected(Arc<Session>),
    /// Down; requests wait and subscriptions pause.
    Reconnecting {
        /// Why.
        reason: String,
        /// How many tries there have been, with the one to come.
        attempt: u32,
        /// How long until that one.
        wait: Duration,
    },
    /// Over for good, and why.
    Closed(String),
}

/// A connection to a server. Cheap to clone; the connection ends with the last clone and subscription.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// What clones and subscriptions of a client share.
struct Inner {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
    away: watch::Receiver<Vec<String>>,
    wake: Arc<Notify>,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Client {
    /// Connects and authenticates. Fails at once when that does not succeed; only a connection that has been
    /// there is taken up again.
    pub async fn connect(options: Options) -> Result<Client> {
        let mut token = match &options.auth {
            Auth::Token(token) => Some(token.clone()),
            _ => None,
        };
        let (socket, session) = handshake::establish(&options, &mut token).await?;
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (sender, state) = watch::channel(State::Connected(Arc::new(session.clone())));
        let (telling, away) = watch::channel(Vec::new());
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let connection =
            Connection::new(options, token, receiver, wake.clone(), stop.clone(), sender, telling);
        tokio::spawn(connection.run(socket, session));
        Ok(Client { inner: Arc::new(Inner { commands, state, away, wake, stop }) })
    }

    /// Asks for an operation by name. Reads, and writes with an `idempotency_key`, are repeated when the connection
    /// is lost or the server says that an error is temporary; others may end with [`Error::Disconnected`].
    /// While the connection is down the request waits; put a timeout around it to wait less.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: impl Serialize) -> Result<T> {
        let params = serde_json::to_value(params).map_err(|error| Error::Protocol(error.to_string()))?;
        let repeatable = is_read(method) || params.get("idempotency_key").is_some_and(|key| !key.is_null());
        self.request(method, &params, repeatable).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &serde_json::Value,
        repeatable: bool,
    ) -> Result<T> {
        let params =
            serde_json::value::to_raw_value(params).map_err(|error| Error::Protocol(error.to_string()))?;
        let mut backoff = Backoff::default();
        loop {
            match self.request_once(method, params.clone(), repeatable).await {
                Ok(raw) => return handshake::decode(&raw, method),
                Err(error @ Error::Rpc(_))
                    if repeatable && error.temporary() && backoff.failures() + 1 < TRIES =>
                {
                    tokio::time::sleep(backoff.next(error.retry_after())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn request_once(
        &self,
        method: &str,
        params: Box<RawValue>,
        repeatable: bool,
    ) -> Result<Box<RawValue>> {
        let (reply, answer) = oneshot::channel();
        let call = Call { method: method.to_owned(), params, repeatable, reply };
        self.command(Command::Call(call)).await?;
        answer.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// Begins a subscription. It answers when the server has confirmed it: events that happen from then on (or
    /// behind the start that was asked for) are delivered.
    pub async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        let (items, receiver) = mpsc::channel(subscription::QUEUE);
        let shared = Arc::new(subscription::Shared::new(subscribe.durable.is_some()));
        let (opened, answer) = oneshot::channel();
        let feed = NewFeed { subscribe, items, shared: shared.clone(), opened };
        self.command(Command::Subscribe(Box::new(feed))).await?;
        let position = answer.await.unwrap_or_else(|_| Err(self.closed()))?;
        Ok(Subscription::new(receiver, shared, position, self.inner.clone()))
    }

    /// Gives the client a new token, for this session and those to come.
    pub async fn refresh(&self, token: impl Into<String>) -> Result<()> {
        self.command(Command::Token(token.into())).await
    }

    /// How the connection is, to look at or to wait for changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.inner.state.clone()
    }

    /// The parts of the server that are away (`store`, `log`), as it has last told: requests that need them fail with a
    /// temporary error, and events may come late.
    pub fn away(&self) -> watch::Receiver<Vec<String>> {
        self.inner.away.clone()
    }

    /// What the server says about the session, while connected.
    pub fn session(&self) -> Option<Arc<Session>> {
        match &*self.inner.state.borrow() {
            State::Connected(session) => Some(session.clone()),
            _ => None,
        }
    }

    /// Ends the connection for all clones and subscriptions, and waits until it is closed.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        let mut state = self.inner.state.clone();
        // An error means that the task is gone, which is as closed as can be.
        let _ = state.wait_for(|state| matches!(state, State::Closed(_))).await;
    }

    async fn command(&self, command: Command) -> Result<()> {
        self.inner.commands.send(command).await.map_err(|_| self.closed())
    }

    fn closed(&self) -> Error {
        match &*self.inner.state.borrow() {
            State::Closed(reason) => Error::Closed(reason.clone()),
            _ => Error::Closed("the connection has ended".to_owned()),
        }
    }
}

/// Whether a method changes nothing on the server, so that it may be repeated.
fn is_read(method: &str) -> bool {
    let verb = method.rsplit('.').next().unwrap_or(method);
    matches!(verb, "get" | "find" | "count" | "list" | "whoami" | "stats") || method.starts_with("stats.")
}
