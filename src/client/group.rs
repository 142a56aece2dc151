//! Members of a group: what they say about single events.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Client, EventDelivery, Result, Subscription};

/// Shares the durable name of a subscription with others: each event goes to one of them. What is left out is as the group
/// has it, or a default if this one makes it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Group {
    /// Events of one tree are worked on one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered: Option<bool>,
    /// How many milliseconds a member has for an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_wait_ms: Option<u64>,
    /// How often an event is given to a member before it becomes a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deliveries: Option<u32>,
}

/// Status 409 of each: the event is not in this member's hands any more, because its lease has ended or the connection
/// was lost meanwhile. Somebody gets it again.
impl Subscription {
    /// In a group: this event is done. Returns when that is safe.
    pub async fn done(&self, event: &EventDelivery) -> Result<()> {
        self.say("event.ack", event, json!({})).await
    }

    /// In a group: somebody else is to get this event, after a while.
    pub async fn give_back(
        &self,
        event: &EventDelivery,
        delay: Duration,
        reason: Option<&str>,
    ) -> Result<()> {
        self.say("event.nack", event, json!({"delay_ms": delay.as_millis() as u64, "reason": reason})).await
    }

    /// In a group: this event takes longer; its lease begins anew.
    pub async fn extend(&self, event: &EventDelivery) -> Result<()> {
        self.say("event.extend", event, json!({})).await
    }

    async fn say(&self, method: &str, event: &EventDelivery, mut params: Value) -> Result<()> {
        params["sub"] = self.shared.sub.load(Ordering::SeqCst).into();
        params["seq"] = event.seq.into();
        params["deliveries"] = event.deliveries.into();
        let client = Client { inner: self.client.clone() };
        client.call::<Value>(method, params).await.map(drop)
    }
}
