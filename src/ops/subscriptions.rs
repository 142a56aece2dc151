//! Subscriptions: following a channel from a position.

mod durable;
mod group;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Context;
use super::channels::may_read;
use super::events::channel_name;
use super::schema::types;
use crate::app::App;
use crate::auth::{Caller, Effect};
use crate::error::{Error, Result};
use crate::event_log::EventLog;
use crate::hub::Channel;
use crate::model::{EventTime, NODE_CHANNEL, Position};
use crate::session::subscription::{Include, ReadsAs, Subscription};
pub use durable::LARGEST_WINDOW;

/// How long a reader waits for its channel to be followed in its epoch, and how often it looks.
const TAIL_PATIENCE: Duration = Duration::from_secs(3);
const TAIL_LOOK: Duration = Duration::from_millis(10);

/// What to follow, and from where.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// A number that the client chooses and that the subscription's notifications carry. A small one that many
    /// clients choose (1) lets the server share frames.
    sub: u32,
    /// The channel; default `node`.
    #[serde(default = "node_channel")]
    channel: String,
    /// A condition on the CloudEvent, e.g. `{"data.kind":"job"}`.
    #[serde(default)]
    #[schemars(with = "Option<types::Filter>")]
    filter: Option<Value>,
    /// `"now"` (default), `"earliest"`, `{"epoch", "seq"}` (events after it) or `{"time"}` (events since then).
    /// Where a durable subscription begins that is new; one that is known goes on where it stands (`consumer.seek`
    /// moves it).
    #[serde(default)]
    from: From,
    /// `"node"` adds the node as it stands at delivery, `"ancestors"` its parents.
    #[serde(default)]
    include: Vec<IncludeName>,
    /// What to do far behind: `"catch_up"` (default), or `"latest"` to skip to now.
    #[serde(default)]
    on_slow: OnSlow,
    /// A name under which the caller's place in the channel is kept, over connections, restarts and instances:
    /// subscribed to again under this name, it goes on behind the last event that was acknowledged (`event.ack`), and
    /// what was not is delivered again. Whoever subscribes under a name takes it over; the subscription that had it
    /// ends with `unsubscribed`. Each user has names of their own; it is the same as the `subscriber_id` of a long poll, where
    /// asking for the next event acknowledges the one before; here `event.ack` does, and nothing else. A consumer
    /// that nobody uses for long (30 days by default) is dropped.
    #[serde(default)]
    durable: Option<String>,
    /// How many events of a durable subscription may be delivered and not acknowledged, 1 to 1,000; default 256. In a
    /// group: those of this member, 1 to 256; default 16.
    #[serde(default)]
    window: Option<u32>,
    /// With `durable`: several subscriptions, of one or many connections, share the name, and each event goes to one of
    /// them. `event.ack` then acknowledges one event; one that is not acknowledged in time (`ack_wait_ms`), or whose
    /// subscription has ended, goes to another member, and `event.nack` gives one back. What members agree on
    /// (`filter, ordered, ack_wait_ms, max_deliveries`) is set by whoever makes the group; others leave it out or say the
    /// same. The name of a group: 1 to 59 of letters, digits and `_ . : -`.
    #[serde(default)]
    group: bool,
    /// Of a group: events of one tree (CloudEvent `partitionkey`) are worked on one after the other, in order, whoever
    /// does it; events without one do not wait. Default false.
    #[serde(default)]
    ordered: Option<bool>,
    /// Of a group: how many milliseconds a member has for an event, 1,000 to 43,200,000; default 30,000.
    /// `event.extend` gives it as long again.
    #[serde(default)]
    ack_wait_ms: Option<u64>,
    /// Of a group: after so many deliveries without an acknowledgement, 1 to 1,000, an event is put on the channel
    /// `dead.<name of the group>` and is done (`dead.<id of the user>.<name>` where another user had the name first:
    /// `consumer.get` tells; where the user may have no more channels: `dead.<id of the user>.overflow`); default 5. These
    /// channels are read by the owner of the group and superusers.
    #[serde(default)]
    max_deliveries: Option<u32>,
}

impl Subscribe {
    fn skips(&self) -> bool {
        self.on_slow == OnSlow::Latest
    }
}

/// Where a subscription begins.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected \"now\", \"earliest\", {\"epoch\", \"seq\"} or {\"time\"}")]
pub enum From {
    /// `"now"` or `"earliest"`.
    Word(FromWord),
    /// Behind this position.
    Position(Position),
    /// With the first event at or after this ISO 8601 time.
    Time(FromTime),
    /// As `"now"`.
    #[default]
    Now,
}

impl From {
    /// Reads `now`, `earliest` or an ISO 8601 time.
    pub fn parse(text: &str) -> Result<From> {
        match text {
            "now" => Ok(From::Now),
            "earliest" => Ok(From::Word(FromWord::Earliest)),
            time => EventTime::parse_iso(time).map(|_| From::Time(FromTime { time: time.to_owned() })),
        }
    }
}

/// A place with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FromWord {
    /// Behind the newest event.
    Now,
    /// Before the oldest event that is retained.
    Earliest,
}

/// A place in time.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromTime {
    /// ISO 8601.
    time: String,
}

/// What can be included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IncludeName {
    /// The node.
    Node,
    /// The node and its parents.
    Ancestors,
}

/// What a slow reader wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSlow {
    /// Everything, however late.
    #[default]
    CatchUp,
    /// What is new; a `gap` tells what was skipped.
    Latest,
}

/// Where the subscription stands.
#[derive(Serialize, JsonSchema)]
pub struct Subscribed {
    /// The client's number.
    sub: u32,
    /// Events after this position follow.
    position: Position,
    /// True: nothing lies between where the client wanted to begin, or where the durable subscription stood, and what
    /// follows.
    recovered: bool,
    /// What does, when `recovered` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<Missed>,
    /// Of a durable subscription: whether it was known, and goes on where it stood.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<bool>,
}

/// A range of sequence numbers that can no longer be read.
#[derive(Serialize, JsonSchema)]
pub struct Missed {
    /// First.
    pub from: u64,
    /// Last.
    pub to: u64,
}

/// The number of a subscription.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    /// The client's number.
    sub: u32,
}

/// Nothing to say.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Nothing")]
pub struct Done {}

fn node_channel() -> String {
    NODE_CHANNEL.to_owned()
}

/// Follows a channel. Registering comes before looking where the log stands, so nothing falls between.
pub async fn subscribe(context: Context, params: Subscribe) -> Result<Subscribed> {
    let kept = kept(&context, &params)?;
    if kept.is_some() {
        context.caller.check_scope(Effect::Writes)?;
    }
    let mut reserved = context.session()?.reserve(params.sub)?;
    let app = &context.app;
    let reads_as = may_follow(app, &context.caller, &params.channel).await?;
    let filter = params.filter.as_ref().map(|filter| app.hub.filter(filter)).transpose()?;
    let holder = context.holder();
    let weight = filter.as_ref().map_or(0, |filter| filter.weight());
    reserved.weigh(weight)?;
    let mut weighed = app.quotas.filter(holder, weight)?;
    // A member does not look at the log itself: the group does, and each member answers for its filter.
    let is_member = matches!(kept, Some(Kept::Shared(_)));
    let filter = filter.filter(|_| !is_member);
    let follower = match &filter {
        // A kept place moves along with every event.
        Some(filter) if kept.is_none() => {
            app.hub.follow_matching(&params.channel, holder, reserved.wake(), filter).await?
        }
        _ if is_member => app.hub.follow(&params.channel, holder, Arc::default()).await?,
        _ => app.hub.follow(&params.channel, holder, reserved.wake()).await?,
    };
    let mut start = start(&*app.log, &params.channel, &params.from).await?;
    in_step(&*app.log, &follower.channel, &start.position.epoch).await?;
    let mut recovered = start.missed.is_none();
    let (mut resumed, mut acks) = (None, None);
    if let Some(kept) = kept {
        let opened = match kept {
            Kept::Alone(wanted) => durable::open(&context, wanted, &reserved, &params.channel, start).await?,
            Kept::Shared(wanted) => group::join(&context, wanted, &reserved, &params.channel, start).await?,
        };
        if params.filter.is_none() {
            // The group has been made before, and this member did not say with what filter.
            reserved.weigh(opened.weight)?;
            weighed = app.quotas.filter(holder, opened.weight)?;
        }
        (start, recovered) = (opened.start, opened.recovered);
        (resumed, acks) = (Some(opened.resumed), Some(opened.held));
    }
    follower.saw(if is_member { u64::MAX } else { start.position.seq });
    let include = Include {
        node: !params.include.is_empty(),
        ancestors: params.include.contains(&IncludeName::Ancestors),
    };
    context.open(Subscription {
        reserved,
        follower,
        filter,
        weighed,
        reads_as,
        include,
        latest: params.on_slow == OnSlow::Latest,
        seq: start.position.seq,
        told: start.position.seq,
        epoch: start.position.epoch.as_str().into(),
        busy: false,
        acks,
        live: None,
    })?;
    Ok(Subscribed { sub: params.sub, position: start.position, recovered, missed: start.missed, resumed })
}

/// Waits until this instance follows the channel in the epoch that a reader begins in: the tail hears of a new one later
/// than whoever asks the log, and the reader would be sent back to the old one. 503 if that takes long.
pub async fn in_step(log: &dyn EventLog, channel: &Channel, epoch: &str) -> Result<()> {
    let end = Instant::now() + TAIL_PATIENCE;
    // If the log has moved on instead, the subscription finds out by itself.
    while *channel.epoch() != *epoch && log.head(&channel.name).await?.epoch == epoch {
        if Instant::now() > end {
            let cause = anyhow::anyhow!("channel {} is still followed in an earlier epoch", channel.name);
            return Err(Error::unavailable("log", cause));
        }
        sleep(TAIL_LOOK).await;
    }
    Ok(())
}

/// A place that is kept under a name.
enum Kept {
    /// For one subscription at a time.
    Alone(durable::Wanted),
    /// For all members of a group.
    Shared(group::Wanted),
}

fn kept(context: &Context, params: &Subscribe) -> Result<Option<Kept>> {
    match group::wanted(context, params)? {
        Some(wanted) => Ok(Some(Kept::Shared(wanted))),
        None => Ok(durable::wanted(context, params)?.map(Kept::Alone)),
    }
}

/// 422 unless it is a channel's name, 403 unless it is one that the caller may read; 404 where nobody in particular asks for a
/// channel that has not begun: every channel that is followed costs something, and names are endless. As whom the caller
/// reads, where that matters.
pub async fn may_follow(app: &App, caller: &Caller, channel: &str) -> Result<Option<ReadsAs>> {
    channel_name("channel", channel)?;
    let reads_as = may_read(app, caller, channel).await?;
    if channel != NODE_CHANNEL && caller.user.is_none() && !app.log.exists(channel).await? {
        return Err(Error::not_found(format!("channel: there has been no event on {channel}")));
    }
    Ok(reads_as)
}

/// Where a reader begins, and what it has missed already.
pub struct Start {
    /// Events after this follow.
    pub position: Position,
    /// Lies between where the reader wanted to begin and `position`.
    pub missed: Option<Missed>,
}

/// Finds the place in the log that `from` speaks of.
pub async fn start(log: &dyn EventLog, channel: &str, from: &From) -> Result<Start> {
    let mut head = log.head(channel).await?;
    if matches!(from, From::Position(wanted) if wanted.seq > head.seq) {
        head = log.head_again(channel).await?;
    }
    let at = |seq| Start { position: Position { epoch: head.epoch.clone(), seq }, missed: None };
    match from {
        From::Now | From::Word(FromWord::Now) => Ok(at(head.seq)),
        From::Word(FromWord::Earliest) => Ok(at(log.floor(channel).await?.saturating_sub(1))),
        From::Time(FromTime { time }) => Ok(at(log.seq_before(channel, EventTime::parse_iso(time)?).await?)),
        From::Position(wanted) if wanted.epoch != head.epoch => {
            // Numbers of another epoch say nothing here: whatever this epoch has seen may be missing.
            Ok(Start { missed: Some(Missed { from: 1, to: head.seq }), ..at(head.seq) })
        }
        From::Position(wanted) if wanted.seq > head.seq => {
            // The reader has seen more than there is: the log stands before where it was (a restored backup).
            Ok(Start { missed: Some(Missed { from: head.seq + 1, to: wanted.seq }), ..at(head.seq) })
        }
        From::Position(wanted) => {
            let last_gone = log.floor(channel).await?.saturating_sub(1);
            if wanted.seq >= last_gone {
                return Ok(at(wanted.seq));
            }
            let missed = Missed { from: wanted.seq + 1, to: last_gone };
            Ok(Start { missed: Some(missed), ..at(last_gone) })
        }
    }
}

/// Ends a subscription. The place of a durable one is kept, with all that was acknowledged.
pub async fn unsubscribe(context: Context, params: Unsubscribe) -> Result<Done> {
    let session = context.session()?;
    let acks = session.acks(params.sub).ok();
    session.unsubscribe(params.sub)?;
    if let Some(acks) = acks {
        acks.left().await;
    }
    Ok(Done {})
}
