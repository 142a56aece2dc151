//! `datetime.fromisoformat` as Python 3.11 reads it: extended and basic format, week dates, any one character
//! between date and time, fractions behind a dot or a comma, offsets with minutes, seconds and fractions.

use chrono::{Datelike, NaiveDate, Weekday};

/// Microseconds since 1970 in UTC; `None`: not such a date, or outside of the years 1 to 9999.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (date, time) = split(text)?;
    let date = parse_date(date)?;
    let (micros, offset) = match time {
        Some(time) => parse_time(time)?,
        None => (0, 0),
    };
    let days = i64::from(date.num_days_from_ce() - UNIX_EPOCH_FROM_CE);
    let micros = days * DAY + micros - offset;
    in_range(micros.div_euclid(1000)).map(|_| micros)
}

pub(super) const UNIX_EPOCH_FROM_CE: i32 = 719_163;
/// A day in microseconds.
const DAY: i64 = 86_400_000_000;

/// The moment, if it lies in the years 1 to 9999, where the order of the text forms is the order in time.
pub(super) fn in_range(millis: i64) -> Option<i64> {
    (-62_135_596_800_000..=253_402_300_799_999).contains(&millis).then_some(millis)
}

/// Splits into date and time. The date's form decides where it ends; then one character of any kind follows.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let end = match (bytes.get(4)?, bytes.get(5)?) {
        _ if bytes.len() == 7 => 7,
        // YYYY-Www-D, unless what looks like the day begins a time: YYYY-Www-HH
        (b'-', b'W') if bytes.get(8) == Some(&b'-') && bytes.len() > 9 && !digit(10) => 10,
        (b'-', b'W') if bytes.len() > 8 && (bytes[8] != b'-' || bytes.len() > 9) => 8,
        (b'-', b'W') if bytes.len() == 8 => 8,
        (b'-', b'W') => return None,
        (b'-', _) => 10,
        // YYYYWww[D]: an odd number of digits behind W has the day among them when a time follows them directly
        (b'W', _) => match (5..bytes.len()).find(|i| !digit(*i)).unwrap_or(bytes.len()) {
            end if end < 9 => end,
            end if end % 2 == 0 => 7,
            _ => 8,
        },
        _ => 8,
    };
    let date = text.get(..end)?;
    let mut rest = text.get(end..)?.chars();
    let separator = rest.next();
    Some((date, separator.map(|_| rest.as_str())))
}

fn parse_date(date: &str) -> Option<NaiveDate> {
    let year = number(date.get(..4)?)?;
    if !(1..=9999).contains(&year) {
        return None;
    }
    let year = i32::try_from(year).ok()?;
    let extended = date.as_bytes().get(4) == Some(&b'-');
    let rest = date.get(4 + usize::from(extended)..)?;
    let separated = |rest: &'_ str| -> bool { rest.starts_with('-') == extended };
    if let Some(rest) = rest.strip_prefix('W') {
        let week = number(rest.get(..2)?)?;
        let day = rest.get(2..)?;
        if !day.is_empty() && !separated(day) {
            return None;
        }
        let day = match day.trim_start_matches('-') {
            "" if day.is_empty() => 1,
            day if day.len() == 1 => number(day)?,
            _ => return None,
        };
        let weekday = Weekday::try_from(u8::try_from(day.checked_sub(1)?).ok()?).ok()?;
        let date = NaiveDate::from_isoywd_opt(year, week, weekday)?;
        return (1..=9999).contains(&date.year()).then_some(date);
    }
    let month = number(rest.get(..2)?)?;
    let day = rest.get(2..)?;
    if !separated(day) {
        return None;
    }
    let day = day.get(usize::from(extended)..)?;
    if day.len() != 2 {
        return None;
    }
    NaiveDate::from_ymd_opt(year, month, number(day)?)
}

/// Microseconds of the day and microseconds of the offset.
fn parse_time(time: &str) -> Option<(i64, i64)> {
    let Some(at) = time.find(['+', '-', 'Z', ' ']) else {
        return Some((clock(time)?.of_day()?, 0));
    };
    let (local, zone) = (time.get(..at)?, time.get(at..)?);
    let local = clock(local)?.of_day()?;
    if zone == "Z" {
        return Some((local, 0));
    }
    let offset = zone.get(1..)?;
    let clock = clock(offset)?;
    let offset = ((clock.hour * 60 + clock.minute) * 60 + clock.second) * 1_000_000 + clock.micro;
    match zone.as_bytes().first()? {
        _ if offset >= DAY => None,
        b'-' => Some((local, -offset)),
        b'+' | b' ' => Some((local, offset)),
        _ => None,
    }
}

struct Clock {
    hour: i64,
    minute: i64,
    second: i64,
    micro: i64,
}

impl Clock {
    fn of_day(&self) -> Option<i64> {
        let valid = self.hour < 24 && self.minute < 60 && self.second < 60;
        valid.then(|| ((self.hour * 60 + self.minute) * 60 + self.second) * 1_000_000 + self.micro)
    }
}

/// `HH[[:]MM[[:]SS]][(.|,)F…]`: a fraction of a second, wherever it stands; its digits beyond six are cut off.
fn clock(text: &str) -> Option<Clock> {
    let (whole, fraction) = match text.find(['.', ',']) {
        Some(at) => (text.get(..at)?, Some(text.get(at + 1..)?)),
        None => (text, None),
    };
    let mut parts = [0i64; 3];
    let colons = whole.as_bytes().get(2) == Some(&b':');
    let mut rest = whole;
    for (index, part) in parts.iter_mut().enumerate() {
        if index > 0 {
            if rest.is_empty() {
                break;
            }
            if colons {
                rest = rest.strip_prefix(':')?;
            }
        }
        *part = number(rest.get(..2)?)?.into();
        rest = rest.get(2..)?;
    }
    if !rest.is_empty() {
        return None;
    }
    let micro = match fraction {
        None => 0,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let six = digits.get(..digits.len().min(6))?;
            i64::from(number(six)?) * 10i64.pow(u32::try_from(6 - six.len()).ok()?)
        }
        Some(_) => return None,
    };
    let [hour, minute, second] = parts;
    Some(Clock { hour, minute, second, micro })
}

/// Decimal digits and nothing else.
fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::super::Timestamp;

    /// What Python 3.11.7 says, in UTC and cut to milliseconds.
    const PYTHON: &[(&str, &str)] = &[
        ("2026-01-01", "2026-01-01T00:00:00"),
        ("20260101", "2026-01-01T00:00:00"),
        ("2026-W01-1", "2025-12-29T00:00:00"),
        ("2026W011", "2025-12-29T00:00:00"),
        ("2026-W01", "2025-12-29T00:00:00"),
        ("2026W01", "2025-12-29T00:00:00"),
        ("2020-W53-7", "2021-01-03T00:00:00"),
        ("2026-01-01T12", "2026-01-01T12:00:00"),
        ("2026-01-01 12:30", "2026-01-01T12:30:00"),
        ("2026-01-01x12:30:15", "2026-01-01T12:30:15"),
        ("2026-01-01é12:30:15", "2026-01-01T12:30:15"),
        ("20260101T123015", "2026-01-01T12:30:15"),
        ("2026-01-01T12:30:15.1", "2026-01-01T12:30:15.100000"),
        ("2026-01-01T12:30:15,123456789", "2026-01-01T12:30:15.123000"),
        ("2026-01-01T12:30.5", "2026-01-01T12:30:00.500000"),
        ("2026-01-01T12:30:15Z", "2026-01-01T12:30:15"),
        ("2026-01-01T12:30:15+02:00", "2026-01-01T10:30:15"),
        ("2026-01-01T12:30:15-0230", "2026-01-01T15:00:15"),
        ("2026-01-01T12:30:15+02", "2026-01-01T10:30:15"),
        ("2026-01-01T12:30:15+02:00:30", "2026-01-01T10:29:45"),
        ("2026-W01-1T12:30", "2025-12-29T12:30:00"),
        ("2026-W01T12:30", "2025-12-29T12:30:00"),
        ("2026-W01-12:30", "2025-12-29T12:30:00"),
        ("2026W01112:30", "2025-12-29T12:30:00"),
        ("2026W0111230", "2025-12-29T12:30:00"),
        ("0001-01-01", "0001-01-01T00:00:00"),
        ("9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999000"),
        ("1969-12-31T23:59:59.9995", "1969-12-31T23:59:59.999000"),
        ("2024-02-29", "2024-02-29T00:00:00"),
    ];
    /// What it refuses.
    const REFUSED: &[&str] = &[
        "",
        "2026",
        "2026-01",
        "2026-001",
        "1767225600",
        "2026-01-01T",
        "2026-01-01T1",
        "2026-01-01T24:00",
        "2026-01-01T12:60",
        "2026-01-01T12:30:60",
        "2026-01-01T12:30:15.",
        "2026-01-01T12:30:15z",
        "2026-01-01T12:30:15+24:00",
        "2026-01-01T12:3015",
        "2026-0101",
        "202601-01",
        "2026-02-29",
        "2026-13-01",
        "2026-W54-1",
        "2026-W01-8",
        "2026-W011",
        "0000-01-01",
        "2026-01-01T12:30:15+",
        "2026-01-01T12:30:15.1x",
        " 2026-01-01",
        "２026-01-01",
        "0001-01-01T00:00+01:00",
    ];

    #[test]
    fn reads_what_python_reads() {
        for (text, wire) in PYTHON {
            assert_eq!(
                Timestamp::parse_iso(text).ok().map(Timestamp::to_wire).as_deref(),
                Some(*wire),
                "{text}"
            );
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for ms in [0, 1, -1, 1_767_225_600_123, -62_135_596_800_000, 253_402_300_799_999] {
            let time = Timestamp::from_millis(ms);
            assert_eq!(Timestamp::parse_iso(&time.to_wire()).unwrap(), time);
            assert_eq!(Timestamp::parse_iso(&time.to_event_time()).unwrap(), time);
        }
    }

    #[test]
    fn a_plus_that_became_a_space_is_still_a_plus() {
        let time = Timestamp::parse_iso("2026-01-01T12:30:15 02:00").unwrap();
        assert_eq!(time.to_wire(), "2026-01-01T10:30:15");
        assert_eq!(
            Timestamp::parse_iso("2026-01-01 12:30:15.5 00:00").unwrap().to_wire(),
            "2026-01-01T12:30:15.500000"
        );
    }

    #[test]
    fn refuses_what_python_refuses() {
        for text in REFUSED {
            let error = Timestamp::parse_iso(text).unwrap_err();
            assert_eq!(error.status(), 400);
            assert_eq!(error.detail(), &format!("Invalid isoformat string: '{text}'"));
        }
    }
}
