//! The time of an event, finer than that of nodes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use chrono::{DateTime, Datelike, Timelike, Utc};

use super::{Timestamp, iso};
use crate::error::{Error, Result};

/// A moment in UTC with microsecond precision: when an event came into the log. No two events have the same one, and
/// their order is the order in which readers see them; so whoever has seen all up to a time goes on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(i64);

/// Bytes of `.996000` and of `+00:00`.
const FRACTION: usize = 7;
const OFFSET: usize = 6;

impl EventTime {
    /// Bytes of [`EventTime::to_text`] for the years 0 to 9999.
    pub const TEXT: usize = 32;
    /// Before every other one.
    pub const MIN: EventTime = EventTime(i64::MIN);

    /// Now.
    pub fn now() -> Self {
        EventTime(Utc::now().timestamp_micros())
    }
    /// From microseconds since 1970 (UTC).
    pub fn from_micros(us: i64) -> Self {
        EventTime(us)
    }
    /// From a moment as databases keep it: milliseconds, and the microseconds (0 to 999) beside them.
    pub fn from_parts(millis: Timestamp, us: i64) -> Self {
        EventTime(millis.millis().saturating_mul(1000).saturating_add(us))
    }
    /// Microseconds since 1970 (UTC).
    pub fn micros(self) -> i64 {
        self.0
    }
    /// The millisecond that it lies in.
    pub fn to_millis(self) -> Timestamp {
        Timestamp::from_millis(self.0.div_euclid(1000))
    }
    /// Its microseconds within that, 0 to 999.
    pub fn us(self) -> i64 {
        self.0.rem_euclid(1000)
    }
    /// The wire form of the history: naive UTC, `2024-01-12T12:49:33.996123`, without a fraction when it is zero.
    /// Lexicographic order of this form is the order in time.
    pub fn to_wire(self) -> String {
        let mut text = self.to_text();
        let is_whole = self.0.rem_euclid(1_000_000) == 0;
        text.truncate(text.len() - if is_whole { FRACTION + OFFSET } else { OFFSET });
        text
    }
    /// The wire form of CloudEvent `time`: as [`EventTime::to_wire`] with six digits always and `+00:00` behind.
    pub fn to_text(self) -> String {
        let utc = DateTime::<Utc>::from_timestamp_micros(self.0).unwrap_or_default();
        // Every node has three of them and every event one: chrono takes several times as long.
        let mut text = *b"0000-00-00T00:00:00.000000+00:00";
        let mut put = |digits: Range<usize>, mut number: u32| {
            for digit in text[digits].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        match u32::try_from(utc.year()) {
            Ok(year @ ..=9999) => put(0..4, year),
            _ => return utc.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string(),
        }
        put(5..7, utc.month());
        put(8..10, utc.day());
        put(11..13, utc.hour());
        put(14..16, utc.minute());
        put(17..19, utc.second());
        put(20..26, utc.timestamp_subsec_micros());
        text.iter().copied().map(char::from).collect()
    }
    /// Reads what [`Timestamp::parse_iso`] reads, to the microsecond.
    pub fn parse_iso(text: &str) -> Result<Self> {
        iso::parse(text).map(EventTime).ok_or_else(|| {
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            Error::bad_request(format!("Invalid isoformat string: {quote}{text}{quote}"))
        })
    }
}

impl From<Timestamp> for EventTime {
    fn from(time: Timestamp) -> Self {
        EventTime::from_parts(time, 0)
    }
}

/// The machine's clock, by which events get their times. Tests set it; all clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct WallClock {
    ahead: Arc<AtomicI64>,
}

impl WallClock {
    /// What it says now.
    pub fn now(&self) -> EventTime {
        EventTime(Utc::now().timestamp_micros().saturating_add(self.ahead()))
    }
    /// By how many microseconds it is ahead of the machine's (0 but in tests).
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead.load(Relaxed)
    }
    /// As if it were so late now.
    #[doc(hidden)]
    pub fn set(&self, now: EventTime) {
        self.ahead.store(now.0.saturating_sub(Utc::now().timestamp_micros()), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_chrono(us: i64, format: &str) -> String {
        DateTime::<Utc>::from_timestamp_micros(us).unwrap_or_default().format(format).to_string()
    }

    proptest! {
        #[test]
        fn the_wire_forms_are_what_chrono_writes(us in prop_oneof![
            any::<i64>(), -99_999_999_999_999_999..=999_999_999_999_999_999_i64,
            (0..9_999_999_999_i64).prop_map(|s| s * 1_000_000),
        ]) {
            let time = EventTime::from_micros(us);
            let wire = if us.rem_euclid(1_000_000) == 0 { "%Y-%m-%dT%H:%M:%S" } else { "%Y-%m-%dT%H:%M:%S%.6f" };
            prop_assert_eq!(time.to_wire(), by_chrono(us, wire));
            prop_assert_eq!(time.to_text(), by_chrono(us, "%Y-%m-%dT%H:%M:%S%.6f+00:00"));
        }
    }
}
