//! Dates, addresses and scopes: whatever is read is written so that it is read as the same again.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::timestamp::Timestamp;
use super::{Scope, email, lax};
use crate::fuzz::{Fuzz, json as texts};

const DATES: &[&str] = &[
    "2026-01-01",
    "20260101T123015",
    "2026-W01-1T12:30",
    "2026W0111230",
    "2026-01-01T12:30:15,123456789",
    "2026-01-01 12:30:15.5 00:00",
    "2026-01-01T12:30:15+02:00:30.5",
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59.999999",
    "2024-02-29x00:00Z",
    "1700000000",
    "1700000000000.57",
    "-5",
    ".5",
];

fn dates() -> impl Strategy<Value = String> {
    let part = select(vec![
        "2026", "0001", "9999", "0000", "-", "01", "12", "31", "W", "53", "T", " ", ":", "00", "23", "59",
        "60", ".", ",", "123456", "+", "Z", "z", "7", "é",
    ]);
    let date = select(vec!["2026-01-01", "20260101", "2026-W01-1", "2026W01", "9999-12-31", "0001-01-01"]);
    (proptest::option::weighted(0.7, date), vec(part, 0..12))
        .prop_map(|(date, parts)| date.unwrap_or_default().to_owned() + &parts.concat())
}

/// What every moment that was read keeps.
fn is_kept(time: Timestamp) {
    let (wire, event) = (time.to_wire(), time.to_event_time());
    assert!((19..=26).contains(&wire.len()) && event.len() == 32, "{wire} {event}");
    for text in [&wire, &event] {
        assert_eq!(Timestamp::parse_iso(text).unwrap(), time);
        assert_eq!(Timestamp::parse_body(&Value::from(text.as_str())).unwrap(), time);
    }
    let later = Timestamp::from_millis(time.millis() + 1);
    if Timestamp::parse_iso(&later.to_wire()).is_ok() {
        assert!(later.to_wire() > wire && later.to_event_time() > event, "order is the order in time");
    }
}

#[test]
fn any_text_is_a_moment_that_is_kept_or_refused() {
    Fuzz::new("dates", 20_000).corpus(DATES).grammar(dates()).run(|input| {
        let text = String::from_utf8_lossy(input);
        let iso = Timestamp::parse_iso(&text);
        match &iso {
            Ok(time) => is_kept(*time),
            Err(error) => assert!(error.status() == 400 && error.detail().as_str().unwrap().contains(&*text)),
        }
        let body = Timestamp::parse_body(&Value::from(&*text));
        match body {
            Ok(time) => is_kept(time),
            Err(error) => assert!(error.message().starts_with("Input should be a valid datetime")),
        }
        iso.is_ok() || body.is_ok()
    });
}

#[test]
fn any_json_is_a_moment_that_is_kept_or_refused() {
    Fuzz::new("dates in JSON", 20_000)
        .corpus(["1700000000", "1700000000.57", "-5", "\"2026-01-01\"", "253402300799999", "true"])
        .grammar(texts::scalar(DATES))
        .run(|input| {
            let Ok(value) = serde_json::from_slice::<Value>(input) else { return false };
            let flag = lax::flag(&value);
            assert!(!value.is_boolean() || flag == Ok(value == true));
            let read = Timestamp::parse_body(&value);
            read.is_ok_and(|time| {
                is_kept(time);
                true
            })
        });
}

#[test]
fn any_text_is_an_integer_as_in_python_or_none() {
    let part = select(vec!["0", "1", "9", "_", "+", "-", " ", "\u{3000}", "9223372036854775807", "."]);
    let grammar = vec(part, 0..6).prop_map(|parts| parts.concat());
    Fuzz::new("integers", 20_000).corpus(["1_000", " +7 "]).grammar(grammar).run(|input| {
        let text = String::from_utf8_lossy(input);
        let number = lax::python_int(&text);
        if let Some(number) = number {
            assert_eq!(lax::python_int(&number.to_string()), Some(number));
        }
        if let Ok(plain) = text.parse::<i64>() {
            assert_eq!(number, Some(plain));
        }
        number.is_some()
    });
}

#[test]
fn any_text_is_an_address_that_stays_as_it_is_or_refused() {
    let part =
        select(vec!["a", "b.c", "@", ".", "-", "example", ".org", "é", "İ", "ẞ", " ", "+", "'", "X", "日本"]);
    let grammar = vec(part, 1..8).prop_map(|parts| parts.concat());
    Fuzz::new("addresses", 20_000)
        .corpus(["bob@example.org", "Bob.O'Neil+ci@Example.ORG"])
        .corpus(["a@İ.x"])
        .grammar(grammar)
        .run(|input| {
            let text = String::from_utf8_lossy(input);
            match email::check("email", &text) {
                Ok(address) => {
                    assert_eq!(email::check("email", &address).unwrap(), address);
                    assert!(address.len() <= 254 && !address.contains(char::is_whitespace));
                    assert!(!address.contains(char::is_control));
                    true
                }
                Err(error) => {
                    assert_eq!(error.status(), 422);
                    false
                }
            }
        });
}

#[test]
fn any_scopes_are_read_as_they_were_written_or_refused() {
    Fuzz::new("scopes", 20_000)
        .corpus(["read", "write:lava-x,read", "write:a,write:a"])
        .words(["write:", "read"])
        .run(|input| {
            let text = String::from_utf8_lossy(input);
            let scopes: Vec<String> = text.split(',').map(str::to_owned).collect();
            let read = Scope::parse(&scopes);
            if let Ok(scope) = &read {
                assert_eq!(Scope::parse(&scope.names()).unwrap(), *scope);
                assert!(*scope != Scope::Full);
            }
            read.is_ok()
        });
}
