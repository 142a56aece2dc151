//! Acknowledging events.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Context;
use super::subscriptions::Done;
use crate::error::Result;

/// What to acknowledge.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The client's number of a durable subscription.
    sub: u32,
    /// Everything up to here is done and will not be delivered again: the `seq` of an event, a `gap`'s `to`, or any
    /// number up to the last of them.
    seq: u64,
}

/// Acknowledges all events of a subscription up to one of them. The answer comes when that is written down; as a
/// notification it is written down soon, many at once.
pub async fn ack(context: Context, params: Ack) -> Result<Done> {
    let acks = context.session()?.acks(params.sub)?;
    let receipt = acks.ack(params.seq)?;
    if context.is_answered() {
        acks.written(receipt).await?;
    }
    Ok(Done {})
}
