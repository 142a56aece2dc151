//! Moments in time and the date formats that KernelCI clients write and read (contract 2.1, 2.2, 4.1).

mod body;
mod iso;

use std::ops::Range;

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Serialize, Serializer};
use serde_json::Value;

pub use self::body::DateError;
use crate::error::{Error, Result};

/// A moment in UTC with millisecond precision, which is what MongoDB keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Bytes of `.996000` and of `+00:00`.
const FRACTION: usize = 7;
const OFFSET: usize = 6;

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
    /// Later by `seconds`.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(1000)))
    }
    /// The wire form of node fields: naive UTC, `2024-01-12T12:49:33.996000`, without a fraction when it is zero.
    /// Lexicographic order of this form is the order in time.
    pub fn to_wire(self) -> String {
        let mut text = self.to_event_time();
        text.truncate(text.len() - if self.0.rem_euclid(1000) == 0 { FRACTION + OFFSET } else { OFFSET });
        text
    }
    /// The wire form of CloudEvent `time`: as [`Timestamp::to_wire`] with six digits always and `+00:00` behind.
    pub fn to_event_time(self) -> String {
        let utc = DateTime::<Utc>::from_timestamp_millis(self.0).unwrap_or_default();
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
        put(20..23, utc.timestamp_subsec_millis());
        text.iter().copied().map(char::from).collect()
    }
    /// Reads what a query string may say: Python 3.11's `datetime.fromisoformat` (contract 4.1); naive means UTC.
    /// Also with a space for the `+` of an offset, which is what an unescaped `+` of a query string arrives as.
    pub fn parse_iso(text: &str) -> Result<Self> {
        iso::parse(text).map(Timestamp).ok_or_else(|| {
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            Error::bad_request(format!("Invalid isoformat string: {quote}{text}{quote}"))
        })
    }
    /// Reads what the body of a request may say (contract 2.1): an ISO date and time, a date, or seconds or
    /// milliseconds since 1970 as a number or as digits. The error is the one that the item of a 422 shows.
    pub fn parse_body(value: &Value) -> Result<Self, DateError> {
        body::parse(value).map(Timestamp)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_chrono(ms: i64, format: &str) -> String {
        DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default().format(format).to_string()
    }

    proptest! {
        #[test]
        fn the_wire_forms_are_what_chrono_writes(ms in prop_oneof![
            any::<i64>(), -99_999_999_999_999..=999_999_999_999_999_i64, (0..9_999_999_999_i64).prop_map(|s| s * 1000),
        ]) {
            let time = Timestamp::from_millis(ms);
            let wire = if ms.rem_euclid(1000) == 0 { "%Y-%m-%dT%H:%M:%S" } else { "%Y-%m-%dT%H:%M:%S%.6f" };
            prop_assert_eq!(time.to_wire(), by_chrono(ms, wire));
            prop_assert_eq!(time.to_event_time(), by_chrono(ms, "%Y-%m-%dT%H:%M:%S%.6f+00:00"));
        }
    }
}
