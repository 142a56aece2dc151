//! Acknowledging events, and what else there is to say about those of a group.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Context;
use super::subscriptions::Done;
use crate::consumer_group::Verdict;
use crate::consumer_group::state::LONGEST_DELAY;
use crate::error::{Error, Result};
use crate::session::acks::{Acks, Receipt};

const LONGEST_REASON: usize = 256;

/// What to acknowledge.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The client's number of a durable subscription.
    sub: u32,
    /// Everything up to here is done and will not be delivered again: the `seq` of an event, a `gap`'s `to`, or any
    /// number up to the last of them.
    seq: u64,
    /// In a group: the `deliveries` that came with the event. Then it is refused if the event has been given out again
    /// since, even if to this same subscription.
    #[serde(default)]
    deliveries: Option<u32>,
}

/// What to give back.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nack {
    /// The client's number of a subscription with `"group": true`.
    sub: u32,
    /// The `seq` of the event.
    seq: u64,
    /// How many milliseconds it is held back before somebody gets it, at most 43,200,000; default 0. Others than this
    /// member are asked first.
    #[serde(default)]
    delay_ms: Option<u64>,
    /// Why, in at most 256 characters. The last reason stands in the event's dead letter if it comes to that.
    #[serde(default)]
    reason: Option<String>,
    /// As in `event.ack`.
    #[serde(default)]
    deliveries: Option<u32>,
}

/// What needs more time.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// The client's number of a subscription with `"group": true`.
    sub: u32,
    /// The `seq` of the event.
    seq: u64,
    /// As in `event.ack`.
    #[serde(default)]
    deliveries: Option<u32>,
}

/// Acknowledges all events of a durable subscription up to one of them, in a group that one alone. The answer comes when
/// that is written down; as a notification it is written down soon, many at once.
pub async fn ack(context: Context, params: Ack) -> Result<Done> {
    let acks = context.session()?.acks(params.sub)?;
    let receipt = acks.ack(params.seq, params.deliveries)?;
    finish(&context, &acks, receipt).await
}

/// Gives an event of a group back: somebody else gets it, or the same member a little later.
pub async fn nack(context: Context, params: Nack) -> Result<Done> {
    let delay = i64::try_from(params.delay_ms.unwrap_or(0)).unwrap_or(i64::MAX);
    if delay > LONGEST_DELAY {
        return Err(Error::invalid("delay_ms", format!("expected at most {LONGEST_DELAY}")));
    }
    if params.reason.as_ref().is_some_and(|reason| reason.chars().count() > LONGEST_REASON) {
        return Err(Error::invalid("reason", format!("expected at most {LONGEST_REASON} characters")));
    }
    let acks = context.session()?.acks(params.sub)?;
    let receipt = acks.say(params.seq, params.deliveries, Verdict::Retry(delay, params.reason))?;
    finish(&context, &acks, receipt).await
}

/// Lets the lease of an event of a group begin anew.
pub async fn extend(context: Context, params: Extend) -> Result<Done> {
    let acks = context.session()?.acks(params.sub)?;
    let receipt = acks.say(params.seq, params.deliveries, Verdict::Extend)?;
    finish(&context, &acks, receipt).await
}

/// Waits until it is written down, if somebody wants to know.
async fn finish(context: &Context, acks: &Acks, receipt: Receipt) -> Result<Done> {
    if context.is_answered() {
        acks.written(receipt).await?;
    }
    Ok(Done {})
}
