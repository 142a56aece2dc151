//! What a group is told when it is made, and what everybody who joins later may repeat but not change.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::Rules;
use crate::error::{Error, Kind, Result};
use crate::filter::{EVENT, Filter};

/// How long a member has for an event if nobody says, in milliseconds.
const ACK_WAIT: u64 = 30_000;
const LEAST_ACK_WAIT: u64 = 1_000;
const LONGEST_ACK_WAIT: u64 = 12 * 3600 * 1000;
/// How often an event is given to a member if nobody says.
const DELIVERIES: u32 = 5;
const MOST_DELIVERIES: u32 = 1_000;

/// What a member asks for; what it leaves out is as the group has it.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Condition on the CloudEvent.
    pub filter: Option<Value>,
    /// Events of one tree are worked on one after the other.
    pub ordered: Option<bool>,
    /// How long a member has for an event, in milliseconds.
    pub ack_wait_ms: Option<u64>,
    /// How often an event is given to a member before it is dead.
    pub max_deliveries: Option<u32>,
}

/// The settings of a group, kept as JSON beside its consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Condition on the CloudEvent; null: every event.
    pub filter: Option<Value>,
    /// See [`Wish`].
    pub ordered: bool,
    /// See [`Wish`].
    pub ack_wait_ms: u64,
    /// See [`Wish`].
    pub max_deliveries: u32,
}

impl Wish {
    /// 422 for values that no group can have.
    pub fn check(&self) -> Result<()> {
        let outside = |value: u64, least: u64, most: u64| !(least..=most).contains(&value);
        if self.ack_wait_ms.is_some_and(|ms| outside(ms, LEAST_ACK_WAIT, LONGEST_ACK_WAIT)) {
            let expected = format!("expected {LEAST_ACK_WAIT} to {LONGEST_ACK_WAIT}");
            return Err(Error::invalid("ack_wait_ms", expected));
        }
        if self.max_deliveries.is_some_and(|n| outside(n.into(), 1, MOST_DELIVERIES.into())) {
            return Err(Error::invalid("max_deliveries", format!("expected 1 to {MOST_DELIVERIES}")));
        }
        self.filter.as_ref().map(|filter| Filter::from_json(filter, &EVENT)).transpose()?;
        Ok(())
    }

    /// The settings of a group that is made with this.
    pub fn settings(&self) -> Settings {
        Settings {
            filter: self.filter.clone(),
            ordered: self.ordered.unwrap_or(false),
            ack_wait_ms: self.ack_wait_ms.unwrap_or(ACK_WAIT),
            max_deliveries: self.max_deliveries.unwrap_or(DELIVERIES),
        }
    }
}

impl Settings {
    /// Reads what is kept.
    pub fn from_text(text: &str) -> Result<Settings> {
        serde_json::from_str(text).map_err(Error::internal)
    }

    /// As it is kept.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    /// 409 that names the field if a member wants something else.
    pub fn suit(&self, wish: &Wish) -> Result<()> {
        let other = |field: &str, has: String| {
            let has: String = has.chars().take(300).collect();
            Err(Error::new(Kind::Conflict, format!("{field}: the group was made with {has}")))
        };
        let filter = self.filter.clone().unwrap_or(Value::Null);
        match wish {
            Wish { filter: Some(wanted), .. } if *wanted != filter => other("filter", filter.to_string()),
            Wish { ordered: Some(wanted), .. } if *wanted != self.ordered => {
                other("ordered", self.ordered.to_string())
            }
            Wish { ack_wait_ms: Some(wanted), .. } if *wanted != self.ack_wait_ms => {
                other("ack_wait_ms", self.ack_wait_ms.to_string())
            }
            Wish { max_deliveries: Some(wanted), .. } if *wanted != self.max_deliveries => {
                other("max_deliveries", self.max_deliveries.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Which events are for the group; `None`: all.
    pub fn filter(&self) -> Result<Option<Filter>> {
        self.filter.as_ref().map(|filter| Filter::from_json(filter, &EVENT)).transpose()
    }

    /// The part that the state goes by.
    pub fn rules(&self) -> Rules {
        Rules {
            ordered: self.ordered,
            ack_wait: i64::try_from(self.ack_wait_ms).unwrap_or(i64::MAX),
            max_deliveries: self.max_deliveries,
        }
    }
}
