//! Moments in time and the date formats that KernelCI clients write and read (contract 2.1, 2.2, 4.1).

mod body;
mod event_time;
mod iso;

use chrono::Utc;
use serde::{Serialize, Serializer};
use serde_json::Value;

pub use self::body::DateError;
pub use self::event_time::{EventTime, WallClock};
use crate::error::Result;

/// A moment in UTC with millisecond precision, which is what MongoDB keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// As [`Timestamp::to_wire`] says.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_wire())
    }
}

impl Timestamp {
    /// Now.
    pub fn now() -> Self {
        Timestamp(Utc::now().timestamp_millis())
    }
    /// From milliseconds since 1970 (UTC).
    pub fn from_millis(ms: i64) -> Self {
        Timestamp(ms)
    }
    /// Milliseconds since 1970 (UTC).
    pub fn millis(self) -> i64 {
        self.0
    }
    /// At most a day after `now`: clocks differ, and clients give times of things that have happened.
    pub fn not_beyond(self, now: Timestamp) -> Self {
        self.min(now.plus_seconds(24 * 3600))
    }
    /// Later by `seconds`.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(1000)))
    }
    /// The wire form of node fields: naive UTC, `2024-01-12T12:49:33.996000`, without a fraction when it is zero.
    /// Lexicographic order of this form is the order in time.
    pub fn to_wire(self) -> String {
        EventTime::from(self).to_wire()
    }
    /// The wire form of CloudEvent `time`, see [`EventTime::to_text`].
    pub fn to_event_time(self) -> String {
        EventTime::from(self).to_text()
    }
    /// Reads the wire form of any moment, also of years that no client may give.
    pub fn from_wire(text: &str) -> Option<Self> {
        let time = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
        Some(Timestamp(time.and_utc().timestamp_millis()))
    }
    /// Reads what a query string may say: Python 3.11's `datetime.fromisoformat` (contract 4.1); naive means UTC.
    /// Also with a space for the `+` of an offset, which is what an unescaped `+` of a query string arrives as.
    pub fn parse_iso(text: &str) -> Result<Self> {
        EventTime::parse_iso(text).map(EventTime::to_millis)
    }
    /// Reads what the body of a request may say (contract 2.1): an ISO date and time, a date, or seconds or
    /// milliseconds since 1970 as a number or as digits. The error is the one that the item of a 422 shows.
    pub fn parse_body(value: &Value) -> Result<Self, DateError> {
        body::parse(value).map(Timestamp)
    }
}
