//! Dates in the bodies of requests, as pydantic reads them (contract 2.1), and its words where it does not.

use chrono::NaiveDate;
use serde_json::Value;

use super::iso::{UNIX_EPOCH_FROM_CE, in_range};
use chrono::Datelike;

/// Why a value is no date: `type`, `msg` and `ctx.error` of an item of a 422 answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateError {
    /// The item's `type`.
    pub kind: &'static str,
    /// The item's `ctx.error`, if it has a `ctx`.
    pub reason: Option<&'static str>,
}

impl DateError {
    /// The item's `msg`.
    pub fn message(&self) -> String {
        match (self.kind, self.reason) {
            ("datetime_from_date_parsing", Some(reason)) => {
                format!("Input should be a valid datetime or date, {reason}")
            }
            (_, Some(reason)) => format!("Input should be a valid datetime, {reason}"),
            (_, None) => "Input should be a valid datetime".to_owned(),
        }
    }
}

const fn no_date(reason: &'static str) -> DateError {
    DateError { kind: "datetime_from_date_parsing", reason: Some(reason) }
}
const fn no_moment(reason: &'static str) -> DateError {
    DateError { kind: "datetime_parsing", reason: Some(reason) }
}

/// Milliseconds since 1970 in UTC.
pub(super) fn parse(value: &Value) -> Result<i64, DateError> {
    match value {
        Value::String(text) => match unix_text(text) {
            Some(seconds) => unix(seconds),
            None => parse_text(text),
        },
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => unix(Unix::Whole(whole)),
            (None, Some(float)) => unix(Unix::Float(float)),
            (None, None) => Err(DateError { kind: "datetime_type", reason: None }),
        },
        _ => Err(DateError { kind: "datetime_type", reason: None }),
    }
}

/// Seconds since 1970; beyond [`MS_BEYOND`] milliseconds.
enum Unix {
    Whole(i64),
    Float(f64),
}

const MS_BEYOND: u64 = 20_000_000_000;

/// Digits, with a sign and a fraction perhaps.
fn unix_text(text: &str) -> Option<Unix> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    match unsigned.split_once('.') {
        None if !unsigned.is_empty() && digits(unsigned) => text.parse().ok().map(Unix::Whole),
        Some((whole, part)) if digits(whole) && digits(part) => text.parse().ok().map(Unix::Float),
        _ => None,
    }
}

fn unix(time: Unix) -> Result<i64, DateError> {
    let millis = match time {
        Unix::Whole(whole) if whole.unsigned_abs() > MS_BEYOND => whole,
        Unix::Whole(whole) => whole * 1000,
        // The cast saturates, and what is saturated is out of range.
        Unix::Float(float) if float.abs() > MS_BEYOND as f64 => float.floor() as i64,
        // Microseconds first: 0.57 s are 570 ms, though 0.57 * 1000 is a little less.
        Unix::Float(float) => ((float * 1e6).round() as i64).div_euclid(1000),
    };
    in_range(millis).ok_or(match millis {
        0.. => no_moment("dates after 9999 are not supported as unix timestamps"),
        _ => no_moment("dates before 0000 are not supported as unix timestamps"),
    })
}

fn parse_text(text: &str) -> Result<i64, DateError> {
    let bytes = text.as_bytes();
    let date = parse_date(bytes)?;
    let micros = match bytes.get(10..) {
        None | Some([]) => Some(0),
        Some([b'T' | b't' | b' ' | b'_', time @ ..]) => parse_time(time),
        Some(_) => None,
    };
    // The old server tried the text as a mere date last, so any fault behind the date has these words.
    let micros = micros.ok_or(no_date("unexpected extra characters at the end of the input"))?;
    let days = i64::from(date.num_days_from_ce() - UNIX_EPOCH_FROM_CE);
    in_range((days * 86_400_000_000 + micros).div_euclid(1000)).ok_or(no_moment("year is out of range"))
}

/// `YYYY-MM-DD` at the front.
fn parse_date(bytes: &[u8]) -> Result<NaiveDate, DateError> {
    let [y1, y2, y3, y4, s1, m1, m2, s2, d1, d2, ..] = bytes else {
        return Err(no_date("input is too short"));
    };
    let number = |digits: &[&u8], fault| decimal(digits.iter().copied()).ok_or(no_date(fault));
    let separator = |byte: &u8| match byte {
        b'-' => Ok(()),
        _ => Err(no_date("invalid date separator, expected `-`")),
    };
    let year = number(&[y1, y2, y3, y4], "invalid character in year")?;
    separator(s1)?;
    let month = number(&[m1, m2], "invalid character in month")?;
    separator(s2)?;
    let day = number(&[d1, d2], "invalid character in day")?;
    if !(1..=12).contains(&month) {
        return Err(no_date("month value is outside expected range of 1-12"));
    }
    if year == 0 {
        return Err(no_moment("year 0 is out of range"));
    }
    let date = i32::try_from(year)
        .ok()
        .and_then(|year| NaiveDate::from_ymd_opt(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?));
    date.ok_or(no_date("day value is outside expected range"))
}

/// `HH:MM[:SS[(.|,)F…]][Z|z|±HH:MM|±HHMM]` as microseconds of the day in UTC, which may be before or after it.
fn parse_time(time: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2, rest @ ..] = time else {
        return None;
    };
    let (hour, minute) = (decimal([h1, h2])?, decimal([m1, m2])?);
    let (second, rest) = match rest {
        [b':', s1, s2, rest @ ..] => (decimal([s1, s2])?, rest),
        [b':', ..] => return None,
        _ => (0, rest),
    };
    let (micro, rest) = match rest {
        [b'.' | b',', rest @ ..] if time.get(5) == Some(&b':') => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let (fraction, rest) = rest.split_at(digits);
            let six = fraction.iter().chain(std::iter::repeat(&b'0')).take(6);
            (decimal(six)?, rest)
        }
        _ => (0, rest),
    };
    let offset = match rest {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] | [sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            let (hours, minutes) = (decimal([h1, h2])?, decimal([m1, m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let minutes = hours * 60 + minutes;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let valid = hour < 24 && minute < 60 && second < 60;
    valid.then_some(((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + micro)
}

fn decimal<'b>(digits: impl IntoIterator<Item = &'b u8>) -> Option<i64> {
    digits.into_iter().try_fold(0, |number: i64, byte| match byte {
        b'0'..=b'9' => Some(number * 10 + i64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Timestamp;
    use super::*;

    #[test]
    fn reads_what_pydantic_reads() {
        for (value, wire) in [
            (json!("2026-01-01"), "2026-01-01T00:00:00"),
            (json!("2026-01-01T00:00"), "2026-01-01T00:00:00"),
            (json!("2026-01-01 00:10:00.123456+00:00"), "2026-01-01T00:10:00.123000"),
            (json!("2026-01-01_00:00:00,1234567"), "2026-01-01T00:00:00.123000"),
            (json!("2026-01-01t00:00z"), "2026-01-01T00:00:00"),
            (json!("2026-01-01T00:00:00+0100"), "2025-12-31T23:00:00"),
            (json!("2026-01-01T00:00:00-23:59"), "2026-01-01T23:59:00"),
            (json!("1700000000"), "2023-11-14T22:13:20"),
            (json!("1700000000000"), "2023-11-14T22:13:20"),
            (json!("1700000000.57"), "2023-11-14T22:13:20.570000"),
            (json!(".5"), "1970-01-01T00:00:00.500000"),
            (json!("-5"), "1969-12-31T23:59:55"),
            (json!(20_000_000_000_i64), "2603-10-11T11:33:20"),
            (json!(20_000_000_001_i64), "1970-08-20T11:33:20.001000"),
            (json!(5.5), "1970-01-01T00:00:05.500000"),
            (json!("20260101"), "1970-08-23T11:48:21"),
        ] {
            assert_eq!(Timestamp::parse_body(&value).map(Timestamp::to_wire).as_deref(), Ok(wire), "{value}");
        }
    }

    #[test]
    fn says_what_pydantic_says() {
        let date = "Input should be a valid datetime or date, ";
        for (value, kind, message) in [
            (json!("x"), "datetime_from_date_parsing", format!("{date}input is too short")),
            (json!("2026-1-01"), "datetime_from_date_parsing", format!("{date}input is too short")),
            (json!(" 2026-01-01"), "datetime_from_date_parsing", format!("{date}invalid character in year")),
            (json!("2026-0a-01"), "datetime_from_date_parsing", format!("{date}invalid character in month")),
            (json!("2026-01-0a"), "datetime_from_date_parsing", format!("{date}invalid character in day")),
            (
                json!("2026-13-01"),
                "datetime_from_date_parsing",
                format!("{date}month value is outside expected range of 1-12"),
            ),
            (
                json!("2026-02-30"),
                "datetime_from_date_parsing",
                format!("{date}day value is outside expected range"),
            ),
            (
                json!("20260101T000000"),
                "datetime_from_date_parsing",
                format!("{date}invalid date separator, expected `-`"),
            ),
            (json!("é026-01-01"), "datetime_from_date_parsing", format!("{date}invalid character in year")),
            (
                json!(253_402_300_800_000_i64),
                "datetime_parsing",
                "Input should be a valid datetime, dates after 9999 are not supported as unix timestamps"
                    .into(),
            ),
            (
                json!(-1e20),
                "datetime_parsing",
                "Input should be a valid datetime, dates before 0000 are not supported as unix timestamps"
                    .into(),
            ),
            (
                json!("0000-01-01"),
                "datetime_parsing",
                "Input should be a valid datetime, year 0 is out of range".into(),
            ),
            (json!(true), "datetime_type", "Input should be a valid datetime".into()),
            (json!([1]), "datetime_type", "Input should be a valid datetime".into()),
        ] {
            let error = Timestamp::parse_body(&value).unwrap_err();
            assert_eq!((error.kind, error.message()), (kind, message), "{value}");
        }
        for behind in [
            "T24:00",
            "T00:00 +01:00",
            "T",
            "X00:00",
            "T00",
            "T00:00:61",
            "T00:00:00.",
            "T00:00+01",
            "T00:00+24:00",
            "T00:00:00x",
            "T00-00",
            "T00:00+00:60",
            "T00:00.5",
        ] {
            let error = Timestamp::parse_body(&format!("2026-01-01{behind}").into()).unwrap_err();
            assert_eq!(error, no_date("unexpected extra characters at the end of the input"), "{behind}");
        }
    }
}
