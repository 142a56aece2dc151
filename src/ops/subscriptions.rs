//! Subscriptions: following a channel from a position.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::events::channel_name;
use super::schema::types;
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::event_log::EventLog;
use crate::filter::{EVENT, Filter};
use crate::model::{NODE_CHANNEL, Position, Timestamp};
use crate::session::subscription::{Include, Subscription};

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
    #[serde(default)]
    from: From,
    /// `"node"` adds the node as it stands at delivery, `"ancestors"` its parents.
    #[serde(default)]
    include: Vec<IncludeName>,
    /// What to do far behind: `"catch_up"` (default), or `"latest"` to skip to now.
    #[serde(default)]
    on_slow: OnSlow,
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
            time => Timestamp::parse_iso(time).map(|_| From::Time(FromTime { time: time.to_owned() })),
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
    /// True: nothing lies between where the client wanted to begin and what follows.
    recovered: bool,
    /// What does, when `recovered` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<Missed>,
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
pub struct Done {}

fn node_channel() -> String {
    NODE_CHANNEL.to_owned()
}

/// Follows a channel. Registering comes before looking where the log stands, so nothing falls between.
pub async fn subscribe(context: Context, params: Subscribe) -> Result<Subscribed> {
    let reserved = context.session()?.reserve(params.sub)?;
    let app = &context.app;
    may_follow(&*app.log, &context.caller, &params.channel).await?;
    let filter = params.filter.as_ref().map(|filter| Filter::from_json(filter, &EVENT)).transpose()?;
    let follower = app.hub.follow(&params.channel, reserved.wake()).await?;
    let start = start(&*app.log, &params.channel, &params.from).await?;
    follower.saw(start.position.seq);
    let include = Include {
        node: !params.include.is_empty(),
        ancestors: params.include.contains(&IncludeName::Ancestors),
    };
    context.open(Subscription {
        reserved,
        follower,
        filter: filter.map(Arc::new),
        include,
        latest: params.on_slow == OnSlow::Latest,
        seq: start.position.seq,
        told: start.position.seq,
        epoch: start.position.epoch.as_str().into(),
        busy: false,
    })?;
    let recovered = start.missed.is_none();
    Ok(Subscribed { sub: params.sub, position: start.position, recovered, missed: start.missed })
}

/// 422 unless it is a channel's name; 404 where nobody in particular asks for a channel on which nothing ever was:
/// every channel that is followed costs something, and names are endless.
pub async fn may_follow(log: &dyn EventLog, caller: &Caller, channel: &str) -> Result<()> {
    channel_name("channel", channel)?;
    if channel != NODE_CHANNEL && caller.user.is_none() && log.head(channel).await?.seq == 0 {
        return Err(Error::not_found(format!("channel: there has been no event on {channel}")));
    }
    Ok(())
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
        From::Time(FromTime { time }) => Ok(at(log.seq_before(channel, Timestamp::parse_iso(time)?).await?)),
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

/// Ends a subscription.
pub async fn unsubscribe(context: Context, params: Unsubscribe) -> Result<Done> {
    context.session()?.unsubscribe(params.sub)?;
    Ok(Done {})
}
