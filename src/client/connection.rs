//! The task that owns the socket: it sends requests, sorts what comes in, and connects again when the connection
//! is lost.

use std::time::Duration;

use futures::stream::{SplitSink, StreamExt};
use futures::{Sink, SinkExt};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::backoff::{Backoff, jitter};
use super::error::Result;
use super::feeds::{Feeds, NewFeed};
use super::handshake::{Session, Socket, access_token, decode, establish};
use super::requests::{Call, Purpose, Requests};
use super::wire::{Closing, DegradedParams, GapParams, Incoming, ProgressParams, UnsubscribedParams};
use super::{Auth, Options, State};

/// A connection that held for so long was a good one: the next failure is counted as the first.
const STABLE: Duration = Duration::from_secs(5);
/// How many frames are written before they are flushed together.
const BATCH: usize = 64;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What users of the client ask the task for.
pub(super) enum Command {
    Call(Call),
    Subscribe(Box<NewFeed>),
    /// New credentials, for the present session and those to come.
    Token(String),
}

pub(super) struct Connection {
    options: Options,
    token: Option<String>,
    commands: mpsc::Receiver<Command>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    state: watch::Sender<State>,
    /// Parts of the server that are away.
    away: watch::Sender<Vec<String>>,
    requests: Requests,
    feeds: Feeds,
    backoff: Backoff,
}

/// Why a session is over.
enum End {
    /// The program wants no more of it.
    Stop,
    /// The server does not want it back.
    Refused(String),
    /// It broke; whether the server said when to come back.
    Lost { reason: String, after: Option<Duration> },
}

impl End {
    fn lost(reason: impl ToString) -> End {
        End::Lost { reason: reason.to_string(), after: None }
    }
}

/// What one session remembers.
struct Serving {
    /// When the server counts as gone if it stays silent.
    deadline: Instant,
    silence: Duration,
    /// The server is about to close; nothing new is sent, answers are still awaited.
    closing: Option<Closing>,
}

impl Connection {
    pub(super) fn new(
        options: Options,
        token: Option<String>,
        commands: mpsc::Receiver<Command>,
        wake: Arc<Notify>,
        stop: CancellationToken,
        state: watch::Sender<State>,
        away: watch::Sender<Vec<String>>,
    ) -> Self {
        Connection {
            options,
            token,
            commands,
            wake,
            stop,
            state,
            away,
            requests: Requests::new(),
            feeds: Feeds::default(),
            backoff: Backoff::default(),
        }
    }

    /// Serves one session after the other until the client is dropped or refused.
    pub(super) async fn run(mut self, socket: Socket, session: Session) {
        let mut next = Ok((socket, session));
        let reason = loop {
            let (socket, session) = match next {
                Ok(opened) => opened,
                Err(reason) => break reason,
            };
            let started = Instant::now();
            let end = self.serve(socket, session).await;
            if started.elapsed() >= STABLE {
                self.backoff.reset();
            }
            next = match end {
                End::Stop => Err("closed by this program".to_owned()),
                End::Refused(reason) => Err(reason),
                End::Lost { reason, after } => {
                    tracing::debug!(reason, "connection lost");
                    self.requests.connection_lost();
                    self.reconnect(reason, after).await
                }
            };
        };
        // Callers who still wait in the channel are answered by its end.
        self.commands.close();
        self.state.send_replace(State::Closed(reason.clone()));
        self.requests.fail_all(&reason);
        self.feeds.end_all(&reason);
    }

    /// Tries until there is a session. Fails if trying makes no sense.
    async fn reconnect(
        &mut self,
        mut reason: String,
        mut after: Option<Duration>,
    ) -> Result<(Socket, Session), String> {
        loop {
            let wait = self.backoff.next(after);
            self.state.send_replace(State::Reconnecting { reason, attempt: self.backoff.failures(), wait });
            let attempt = async {
                tokio::time::sleep(wait).await;
                establish(&self.options, &mut self.token).await
            };
            let attempt = tokio::select! {
                () = self.stop.cancelled() => return Err("closed by this program".to_owned()),
                attempt = attempt => attempt,
            };
            match attempt {
                Ok(opened) => return Ok(opened),
                Err(error) if error.temporary() => {
                    after = error.retry_after();
                    reason = error.to_string();
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn serve(&mut self, socket: Socket, session: Session) -> End {
        self.requests.set_limits(session.limits);
        self.feeds.resume(&session.session, &mut self.requests);
        self.away.send_if_modified(|away| !std::mem::take(away).is_empty());
        let silence = session.silence_limit();
        self.state.send_replace(State::Connected(Arc::new(session)));
        let mut serving = Serving { deadline: Instant::now() + silence, silence, closing: None };
        let (mut sink, mut stream) = socket.split();
        let mut unflushed = false;
        let end = loop {
            if serving.closing.is_none() && !unflushed {
                match self.write(&mut sink).await {
                    Ok(wrote) => unflushed = wrote,
                    Err(error) => break End::lost(error),
                }
            }
            if serving.closing.is_some() && self.requests.all_answered() && !unflushed {
                break End::lost("the server is closing");
            }
            let may_take = serving.closing.is_none() && self.requests.has_room();
            // Reading and writing go on side by side, so that neither end can block the other for ever.
            tokio::select! {
                () = self.stop.cancelled() => break End::Stop,
                flushed = SinkExt::<Message>::flush(&mut sink), if unflushed => match flushed {
                    Ok(()) => unflushed = false,
                    Err(error) => break End::lost(error),
                },
                message = stream.next() => {
                    serving.deadline = Instant::now() + serving.silence;
                    if let Err(end) = self.message(message, &mut serving) {
                        break end;
                    }
                }
                () = tokio::time::sleep_until(serving.deadline) => break End::lost("the server went silent"),
                () = self.wake.notified() => self.feeds.scan(&mut self.requests),
                Some(command) = self.commands.recv(), if may_take => self.command(command),
            }
        };
        if matches!(end, End::Stop) {
            self.feeds.say_goodbye(&mut self.requests);
            let last = async { while matches!(self.write(&mut sink).await, Ok(true)) {} };
            let _ = tokio::time::timeout(FAREWELL, last).await;
        }
        farewell(sink).await;
        match (end, serving.closing) {
            (End::Lost { .. }, Some(closing)) if !closing.resume => {
                End::Refused(format!("the server closed for good (code {})", closing.code))
            }
            (End::Lost { reason, .. }, Some(closing)) => {
                let wait = Duration::from_millis(closing.after_ms);
                let spread = jitter(Duration::from_millis(closing.jitter_ms));
                End::Lost { reason, after: Some(wait + spread) }
            }
            (end, _) => end,
        }
    }

    /// Hands waiting requests to the socket. Tells whether there is something to flush.
    async fn write(&mut self, sink: &mut SplitSink<Socket, Message>) -> Result<bool, WsError> {
        let mut written = 0;
        while written < BATCH
            && let Some(frame) = self.requests.next_frame()
        {
            sink.feed(Message::Text(frame)).await?;
            written += 1;
        }
        Ok(written > 0)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Call(call) => self.requests.call(call),
            Command::Subscribe(new) => self.feeds.add(*new, &mut self.requests),
            Command::Token(token) => {
                self.token = Some(token);
                self.refresh();
            }
        }
    }

    fn refresh(&mut self) {
        self.requests.own("session.refresh", &json!({"token": self.token}), Purpose::Refresh);
    }

    fn message(
        &mut self,
        message: Option<Result<Message, WsError>>,
        serving: &mut Serving,
    ) -> Result<(), End> {
        match message {
            None => Err(End::lost("the server closed the connection")),
            Some(Err(error)) => Err(End::lost(error)),
            Some(Ok(Message::Text(text))) => self.text(&text, serving),
            Some(Ok(Message::Close(None))) => Err(End::lost("the server closed the connection")),
            Some(Ok(Message::Close(Some(frame)))) => {
                let code = u16::from(frame.code);
                let reason = format!("the server closed with {code}: {}", frame.reason);
                // 4403: no right to be here. 4409: somebody else has taken over what this client did.
                Err(if matches!(code, 4403 | 4409) { End::Refused(reason) } else { End::lost(reason) })
            }
            // Pings are answered by the library; all that matters is that something came.
            Some(Ok(_)) => Ok(()),
        }
    }

    fn text(&mut self, text: &Utf8Bytes, serving: &mut Serving) -> Result<(), End> {
        let incoming: Incoming<'_> = serde_json::from_str(text)
            .map_err(|error| End::lost(format!("the server sent no JSON-RPC: {error}")))?;
        match (incoming.id, &incoming.method) {
            (Some(id), None) => match self.requests.answered(id) {
                Some(purpose) => self.answer(purpose, incoming.outcome()),
                None => Ok(()),
            },
            (_, Some(method)) => self.notification(method, incoming.params, serving),
            // An error without an id: the server could not read a request of ours.
            (None, None) => Err(End::lost(match incoming.error {
                Some(error) => error.to_string(),
                None => "the server sent no JSON-RPC".to_owned(),
            })),
        }
    }

    fn answer(&mut self, purpose: Purpose, outcome: Result<Box<RawValue>>) -> Result<(), End> {
        match purpose {
            Purpose::Call { reply, .. } => {
                // The caller may have given up.
                let _ = reply.send(outcome);
            }
            Purpose::Open(sub) => {
                let answer = outcome.and_then(|raw| decode(&raw, "event.subscribe"));
                let opened = self.feeds.opened(sub, answer, &mut self.requests);
                opened
                    .map_err(|error| End::Lost { reason: error.to_string(), after: error.retry_after() })?;
            }
            Purpose::Leave(sub) => self.feeds.left(sub, &mut self.requests),
            Purpose::Ack(sub, seq) => self.feeds.acked(sub, seq, outcome.is_ok(), &mut self.requests),
            Purpose::Login => match outcome.and_then(|raw| access_token(&raw)) {
                Ok(token) => {
                    self.token = Some(token);
                    self.refresh();
                }
                Err(error) => tracing::warn!(%error, "cannot log in again before the session expires"),
            },
            Purpose::Refresh => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "cannot refresh the session");
                }
            }
        }
        Ok(())
    }

    fn notification(
        &mut self,
        method: &str,
        params: Option<&RawValue>,
        serving: &mut Serving,
    ) -> Result<(), End> {
        match method {
            "event" => {
                let event = self.feeds.event(params_of(method, params)?, &mut self.requests);
                event.map_err(End::lost)?;
            }
            "progress" => {
                let ProgressParams { sub, seq } = params_of(method, params)?;
                self.feeds.progress(sub, seq);
            }
            "gap" => {
                self.feeds.gap(params_of::<GapParams>(method, params)?, &mut self.requests);
            }
            "unsubscribed" => {
                let UnsubscribedParams { sub, reason, by } = params_of(method, params)?;
                self.feeds.unsubscribed(sub, &reason, &by, &mut self.requests);
            }
            "session.degraded" => {
                let DegradedParams { parts } = params_of(method, params)?;
                tracing::warn!(?parts, "the server is degraded");
                self.away.send_replace(parts);
            }
            "session.recovered" => drop(self.away.send_replace(Vec::new())),
            "session.closing" => serving.closing = Some(params_of(method, params)?),
            "session.expiring" => match &self.options.auth {
                Auth::Password { user, password } => {
                    let params = json!({"username": user, "password": password});
                    self.requests.own("user.login", &params, Purpose::Login);
                }
                Auth::Token(_) => tracing::warn!("the token expires soon; give the client a new one"),
                Auth::Anonymous => {}
            },
            // A newer server may tell more than this client knows.
            _ => {}
        }
        Ok(())
    }
}

fn params_of<'a, T: Deserialize<'a>>(method: &str, params: Option<&'a RawValue>) -> Result<T, End> {
    let text = params.map_or("null", RawValue::get);
    serde_json::from_str(text).map_err(|error| End::lost(format!("unexpected {method}: {error}")))
}

async fn farewell(mut sink: impl Sink<Message> + Unpin) {
    // The connection may be gone already; nothing depends on this.
    let _ = tokio::time::timeout(FAREWELL, sink.close()).await;
}
