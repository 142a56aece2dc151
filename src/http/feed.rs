//! One-way feeds of bare CloudEvents at `/events/feed`: the WebSocket subprotocol `cloudevents.json` ([`cloudevents`],
//! the CloudEvents WebSockets binding: one event a message) and, for everything else, server-sent events ([`sse`]).
//!
//! Query: `channel` (default `node`), `from` (`now`, `earliest`, `<epoch>:<seq>` or an ISO 8601 time), and conditions
//! on the CloudEvent as `field__op=value`. Either way a reader is told of what it does not get before what follows it,
//! hears with every keep-alive where it stands, and leaves at a time of its own when the server drains: that is
//! [`Reader`]'s, and the two differ in words only.

mod cloudevents;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::answer::failed;
use super::peer;
use crate::app::App;
use crate::auth::Access;
use crate::auth::tokens::Token;
use crate::connection::Link;
use crate::error::{Error, Kind, Result};
use crate::filter::{EVENT, Filter, Sources};
use crate::health::Part;
use crate::hub::{Feed, Gap, Item, Registered};
use crate::model::event::Entry;
use crate::model::{NODE_CHANNEL, Position};
use crate::ops::Peer;
use crate::ops::channels::{is_private, may_read};
use crate::ops::patterns::compile;
use crate::ops::subscriptions::{From, Start, in_step, may_follow, start};
use crate::quota::{Holder, Place};
use crate::session::close::{self, CloseCode};
use crate::session::{asks_for_websocket, check_handshake, credentials};

pub(super) async fn get(
    State(app): State<Arc<App>>,
    peer::From(peer): peer::From,
    link: Option<Extension<Link>>,
    Query(query): Query<Vec<(String, String)>>,
    method: Method,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let from = (&*peer, link.as_deref());
    let answer = match (asks_for_websocket(&headers), upgrade) {
        (false, _) => sse::answer(app, from, query, headers).await,
        (true, upgrade) => match check_handshake(&method, &headers).and(upgrade.map_err(not_upgradable)) {
            Ok(upgrade) => cloudevents::answer(app, from, query, headers, upgrade).await,
            Err(error) => Err(error),
        },
    };
    answer.unwrap_or_else(|error| failed("feed", &error))
}

fn not_upgradable(why: WebSocketUpgradeRejection) -> Error {
    Error::bad_request(format!("this is a WebSocket: {why}"))
}

/// Somebody who follows a channel.
struct Reader {
    app: Arc<App>,
    feed: Feed,
    /// What lay between where they wanted to begin and where they do.
    missed: Option<Gap>,
    /// Returns when they may not read on.
    forbidden: BoxFuture<'static, ()>,
    /// They know that they are connected.
    greeted: bool,
    keep_alive: Interval,
    /// When to leave, once the server drains.
    leave: Option<Instant>,
    /// Counted as long as this lives.
    _counted: (Place, Option<Place>, TaskTrackerToken),
}

/// What a reader is told.
enum Told {
    /// They do not get this; told before anything that lies behind it.
    Gap(Gap),
    /// An event that matches, and the epoch that it counts in.
    Event(Arc<str>, Arc<Entry>),
    /// Nothing has come for a while.
    KeepAlive,
    /// That was all, for this reason.
    End(CloseCode),
}

impl Reader {
    /// Follows what the query asks for.
    async fn open(
        app: &Arc<App>,
        (peer, link): (&Peer, Option<&Link>),
        query: Vec<(String, String)>,
        headers: &HeaderMap,
    ) -> Result<Reader> {
        if app.draining.is_cancelled() {
            return Err(Error::new(Kind::Unavailable, "this instance is shutting down").retry_after(1000));
        }
        let caller = credentials(app, peer, headers).await?.unwrap_or_default();
        let holder = Holder::of(&caller, peer.address);
        let place = app.quotas.sessions.take(holder, 1)?;
        link.map_or(Ok(()), |link| link.belongs_to(holder))?;
        caller.check(Access::Read, app.config.anonymous_read)?;
        let mut channel = NODE_CHANNEL.to_owned();
        let mut from = From::Now;
        let mut conditions = Vec::new();
        for (name, value) in query {
            match &*name {
                // As an address of a form has it that says nothing.
                "channel" | "from" if value.is_empty() => {}
                "channel" => channel = value,
                "from" => from = read_from(&value)?,
                _ => conditions.push((name, value)),
            }
        }
        // Readers who have seen no id send none, or an empty one.
        let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::trim);
        if let Some(last) = last.filter(|last| !last.is_empty()) {
            from = read_from(last)?;
        }
        let pairs = conditions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let patterns = compile(app, holder, Sources::in_query(pairs.clone())?).await?;
        let filter = Filter::from_query(pairs, &EVENT)?;
        drop(patterns);
        let weight = app.quotas.filter(holder, filter.weight())?;
        let begin = async {
            may_follow(app, &caller, &channel).await?;
            let registered = Registered::follow(&app.hub, &channel, holder).await?;
            let start = start(&*app.log, &channel, &from).await?;
            in_step(&*app.log, registered.channel(), &start.position.epoch).await?;
            Ok((registered, start))
        };
        let (registered, start) = app.health.serve(&[Part::Log], begin).await?;
        let every = app.config.ping_interval();
        let mut keep_alive = tokio::time::interval_at(Instant::now() + every, every);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Reader {
            feed: registered.at(&start.position, filter),
            missed: missed(&from, start),
            forbidden: Box::pin(forbidden(app.clone(), caller.token, channel)),
            greeted: false,
            keep_alive,
            leave: None,
            _counted: (place, weight, app.sessions.token()),
            app: app.clone(),
        })
    }

    /// What the reader is to be told next; waits for it. The first keep-alive comes at once, behind what was missed. May be
    /// dropped and called again.
    async fn next(&mut self) -> Told {
        if let Some(missed) = self.missed.take() {
            return Told::Gap(missed);
        }
        if !std::mem::replace(&mut self.greeted, true) {
            return Told::KeepAlive;
        }
        tokio::select! {
            biased;
            () = &mut self.forbidden => Told::End(close::CREDENTIALS),
            () = drained(&self.app, &mut self.leave) => Told::End(close::DRAINING),
            _ = self.keep_alive.tick() => Told::KeepAlive,
            item = self.feed.next() => match item {
                Ok(Item::Event(epoch, entry)) => Told::Event(epoch, entry),
                Ok(Item::Gap(gap)) => Told::Gap(gap),
                // The store or the log is away, or too slow.
                Err(error) if error.kind().row().temporary => Told::End(close::OVERLOADED),
                Err(error) => {
                    error.log("feed");
                    Told::End(close::INTERNAL)
                }
            },
        }
    }

    /// Returns when it is time to leave because the server drains.
    async fn drained(&mut self) {
        drained(&self.app, &mut self.leave).await;
    }

    /// Up to where everything that matches has been told, as `from` and `Last-Event-ID` take it.
    fn position(&self) -> String {
        let (epoch, seq) = self.feed.position();
        place(epoch, seq)
    }
}

/// A position in one word.
fn place(epoch: &str, seq: u64) -> String {
    format!("{epoch}:{seq}")
}

/// What is told of a gap, on either way.
fn described(gap: &Gap) -> Value {
    let mut data = json!({"from": gap.from, "to": gap.to});
    if let Some(epoch) = &gap.epoch {
        data["epoch"] = (**epoch).into();
    }
    data
}

/// What a reader who begins there has missed already.
fn missed(from: &From, start: Start) -> Option<Gap> {
    let Start { position, missed } = start;
    let missed = missed?;
    let is_foreign = matches!(from, From::Position(wanted) if wanted.epoch != position.epoch);
    let epoch = is_foreign.then(|| position.epoch.as_str().into());
    Some(Gap { from: missed.from, to: missed.to, epoch })
}

/// Returns at a time of the reader's own within `DRAIN_MS`, once the server drains: so not all of them move at once.
async fn drained(app: &App, leave: &mut Option<Instant>) {
    let at = match *leave {
        Some(at) => at,
        None => {
            app.draining.cancelled().await;
            let spread = rand::random_range(0..=app.config.drain_ms);
            *leave.insert(Instant::now() + Duration::from_millis(spread))
        }
    };
    tokio::time::sleep_until(at).await;
}

/// Returns when the reader may not read the channel any more.
async fn forbidden(app: Arc<App>, token: Option<Arc<Token>>, channel: String) {
    match token {
        Some(token) if is_private(&channel) => {
            let changes = app.identities.changes(token.user);
            while may_read_on(&app, &token, &channel).await {
                app.identities.news(&token, &changes).await;
            }
        }
        Some(token) if !app.config.anonymous_read => app.identities.lost(&token).await,
        _ => std::future::pending().await,
    }
}

/// That the store is away says nothing.
async fn may_read_on(app: &App, token: &Arc<Token>, channel: &str) -> bool {
    let may = match app.identities.caller(token).await {
        Ok(Some(caller)) => may_read(app, &caller, channel).await.map(drop),
        Ok(None) => return false,
        Err(error) => Err(error),
    };
    !may.is_err_and(|error| matches!(error.kind(), Kind::Forbidden | Kind::Unauthorized))
}

pub(super) fn read_from(text: &str) -> Result<From> {
    if let Some((epoch, seq)) = text.rsplit_once(':')
        && epoch.len() >= 16
        && !epoch.contains([':', 'T', ' '])
        && let Ok(seq) = seq.parse()
    {
        return Ok(From::Position(Position { epoch: epoch.to_owned(), seq }));
    }
    From::parse(text)
}
