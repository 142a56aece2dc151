//! One event that a group has looked at and not done with.

use serde::{Deserialize, Serialize};

/// See the module's documentation. Times are milliseconds since 1970 by the store's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
pub struct Item {
    /// Its sequence number.
    pub seq: u64,
    /// Events with the same number (other than 0) are worked on one after the other.
    pub partition: u64,
    /// How often it was given to a member.
    pub deliveries: u32,
    /// How many of these say nothing about the event: the server took it back.
    pub excused: u32,
    /// Where it is.
    pub place: Place,
}

/// Where an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It waits for a member.
    Free {
        /// It is not given before this time.
        from: i64,
        /// Who had it last and gave it back; 0: nobody. Others are asked first.
        last: u64,
    },
    /// A member has it.
    Held {
        /// Which.
        member: u64,
        /// The end of its lease. Until somebody else gets the item its holder may still acknowledge it.
        until: i64,
    },
    /// It was tried too often, and waits to be put on the channel of dead letters.
    Dead {
        /// What ended the last try.
        reason: String,
    },
}

impl Item {
    /// One that nobody has had.
    pub fn new(seq: u64, partition: u64) -> Item {
        let place = Place::Free { from: 0, last: 0 };
        Item { seq, partition, deliveries: 0, excused: 0, place }
    }

    /// Whether it is in somebody's hands.
    pub fn is_held(&self, now: i64) -> bool {
        matches!(self.place, Place::Held { until, .. } if until > now)
    }

    /// Whether this member has it, or had it last and nobody else since; `delivery` names the time, if given.
    pub fn is_of(&self, by: u64, delivery: Option<u32>) -> bool {
        matches!(self.place, Place::Held { member, .. } if member == by)
            && delivery.is_none_or(|delivery| delivery == self.deliveries)
    }

    /// Since when it can be given to a member, who had it before, and whether that is known; `None`: it is dead.
    pub(super) fn free_from(&self) -> Option<(i64, u64)> {
        match self.place {
            Place::Free { from, last } => Some((from, last)),
            Place::Held { member, until } => Some((until, member)),
            Place::Dead { .. } => None,
        }
    }

    /// Whether it was tried as often as it may be.
    pub(super) fn is_exhausted(&self, most: u32) -> bool {
        self.deliveries.saturating_sub(self.excused) >= most
    }
}

/// As it is kept: `[seq, partition, deliveries, excused, place, member, time, reason?]`, since there may be many.
#[derive(Serialize, Deserialize)]
struct Row(
    u64,
    u64,
    u32,
    u32,
    u8,
    u64,
    i64,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<String>,
);

const FREE: u8 = 0;
const HELD: u8 = 1;
const DEAD: u8 = 2;

impl From<Row> for Item {
    fn from(row: Row) -> Item {
        let Row(seq, partition, deliveries, excused, place, member, time, reason) = row;
        let place = match place {
            HELD => Place::Held { member, until: time },
            DEAD => Place::Dead { reason: reason.unwrap_or_default() },
            _ => Place::Free { from: time, last: member },
        };
        Item { seq, partition, deliveries, excused, place }
    }
}

impl From<Item> for Row {
    fn from(item: Item) -> Row {
        let (place, member, time, reason) = match item.place {
            Place::Free { from, last } => (FREE, last, from, None),
            Place::Held { member, until } => (HELD, member, until, None),
            Place::Dead { reason } => (DEAD, 0, 0, Some(reason)),
        };
        Row(item.seq, item.partition, item.deliveries, item.excused, place, member, time, reason)
    }
}
