//! Opaque texts that come back to us, and loose values: what we wrote is read again, anything else is refused.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::attributes::{Attributes, restore};
use super::loose::Loose;
use super::{conditions, events, history, nodes, paging, subscriptions};
use crate::error::{Error, Kind};
use crate::event_log::{After, Logged};
use crate::fuzz::{Fuzz, json as texts};
use crate::model::event::Entry;
use crate::model::{EventTime, ObjectId};
use crate::store::{SORTABLE, mongo, sqlite};

const WORDS: &[&str] = &["-created,-id", "id", "created,id", "-group,name,-id", "job", "a", "-name,id"];

fn sorts() -> Vec<Vec<String>> {
    let sorts =
        [&[][..], &["-created"], &["group", "-name"], &["-retry_counter", "id"], &["updated", "kind"]];
    sorts.iter().map(|sort| sort.iter().map(|key| (*key).to_owned()).collect()).collect()
}

fn cursors() -> impl Strategy<Value = String> {
    let sorts: Vec<String> =
        sorts().iter().map(|sort| paging::describe(&paging::sort_keys(sort).unwrap())).collect();
    let sort =
        prop_oneof![8 => select(sorts).prop_map(|sort| format!("\"{sort}\"")), 1 => texts::string(WORDS)];
    let values = proptest::collection::vec(texts::scalar(WORDS), 0..5);
    let page = (sort, values).prop_map(|(sort, values)| format!("[{sort},[{}]]", values.join(",")));
    let place = proptest::collection::vec(texts::scalar(WORDS), 0..3)
        .prop_map(|place| format!("[{}]", place.join(",")));
    let text = prop_oneof![3 => page, 2 => place, 1 => texts::any_json(SORTABLE, WORDS)];
    prop_oneof![9 => text.clone().prop_map(|text| BASE64_URL_SAFE_NO_PAD.encode(text)), 1 => text]
}

fn names_after(error: &Error) {
    assert_eq!(error.status(), 422);
    assert!(error.detail().as_str().unwrap().starts_with("after: "), "{error}");
}

#[test]
fn any_text_is_a_place_in_a_list_or_refused() {
    let keys: Vec<_> = sorts().iter().map(|sort| paging::sort_keys(sort).unwrap()).collect();
    let node =
        json!({"id": "5f0000000000000000000abc", "created": "2026-01-01T00:00:00", "retry_counter": 5});
    let made: Vec<String> = keys.iter().map(|keys| paging::cursor(keys, node.as_object().unwrap())).collect();
    Fuzz::new("cursors", 15_000).corpus(&made).grammar(cursors()).run(|input| {
        let text = String::from_utf8_lossy(input);
        let mut good = false;
        for keys in &keys {
            match paging::behind(keys, &text) {
                Ok(filter) => {
                    filter.matches(&node);
                    assert!(filter.cost() <= 64);
                    assert!(mongo::filter::to_mongo(&filter).query.to_vec().is_ok());
                    assert!(!sqlite::filter::to_sql(&filter, "doc").text.is_empty());
                    good = true;
                }
                Err(error) => names_after(&error),
            }
        }
        good
    });
}

/// What we give out as the end of a page leads behind it, whatever the node holds.
#[test]
fn a_cursor_leads_behind_its_item() {
    let keys: Vec<_> = sorts().iter().map(|sort| paging::sort_keys(sort).unwrap()).collect();
    let member = (select(SORTABLE).prop_map(|name| format!("\"{name}\"")), texts::scalar(WORDS));
    let nodes = proptest::collection::vec(member, 0..8).prop_map(texts::object);
    Fuzz::new("items of pages", 15_000).corpus([r#"{"id":"a","created":"b"}"#]).grammar(nodes).run(|input| {
        let Ok(Value::Object(mut node)) = serde_json::from_slice(input) else { return false };
        // As stores hold them: scalars within 64 bits, and an id.
        node.retain(|_, value| !value.is_object() && !value.is_array() && !value.is_f64());
        node.insert("id".into(), "5f0000000000000000000abc".into());
        for keys in &keys {
            let behind = paging::behind(keys, &paging::cursor(keys, &node)).unwrap();
            assert!(!behind.matches(&node.clone().into()), "it is not behind itself");
            let mut later = node.clone();
            let last = if keys.last().unwrap().descending { "0" } else { "6" };
            if keys.last().unwrap().field == "id" {
                later.insert("id".into(), last.into());
                assert!(behind.matches(&later.into()), "what comes next is");
            }
        }
        true
    });
}

fn place_of(after: &After) -> Value {
    match after {
        After::Seq(seq) => json!([seq]),
        After::Time(time, id) => json!([time.to_text(), id.to_hex()]),
    }
}

#[test]
fn any_text_is_a_place_in_the_history_or_refused() {
    let event =
        json!({"id": "5f0000000000000000000abc", "time": "2026-01-01T00:00:00.001000+00:00"}).to_string();
    let logged = Logged { channel: "node".into(), entry: Entry::new(7, &event).into() };
    let made = [history::cursor(&logged, true), history::cursor(&logged, false)];
    for (cursor, place) in made.iter().zip([
        json!([7]),
        serde_json::from_str::<Value>(&event).map(|e| json!([e["time"], e["id"]])).unwrap(),
    ]) {
        assert_eq!(place_of(&history::read_cursor(cursor).unwrap()), place);
    }
    Fuzz::new("places in the history", 15_000).corpus(&made).grammar(cursors()).run(|input| {
        let text = String::from_utf8_lossy(input);
        match history::read_cursor(&text) {
            Ok(place) => {
                let again = BASE64_URL_SAFE_NO_PAD.encode(place_of(&place).to_string());
                assert_eq!(place_of(&history::read_cursor(&again).unwrap()), place_of(&place));
                true
            }
            Err(error) => {
                names_after(&error);
                false
            }
        }
    });
}

#[test]
fn any_text_says_where_to_begin_or_is_refused() {
    let words = &["now", "earliest", "2026-01-01T00:00:00", "0123456789abcdef0123456789abcdef"];
    let json = texts::any_json(&["epoch", "seq", "time", "from"], words);
    let grammar = prop_oneof![
        json,
        select(words).prop_map(str::to_owned),
        (select(words), any::<u64>()).prop_map(|(epoch, seq)| format!("{epoch}:{seq}")),
    ];
    let corpus = [
        r#"{"epoch":"0123456789abcdef0123456789abcdef","seq":12345}"#,
        r#"{"time":"2026-01-01"}"#,
        "\"now\"",
    ];
    Fuzz::new("where to begin", 15_000).corpus(corpus).corpus(*words).grammar(grammar).run(|input| {
        let text = String::from_utf8_lossy(input);
        let in_json = serde_json::from_str::<subscriptions::From>(&text);
        if let Err(error) = &in_json
            && let Ok(value) = serde_json::from_str::<Value>(&text)
        {
            let said = error.to_string();
            assert!(said.starts_with("expected \"now\""), "{value}: {said}");
        }
        let in_text = subscriptions::From::parse(&text);
        if let Err(error) = &in_text {
            assert_eq!(error.status(), 400);
        }
        in_json.is_ok() || in_text.is_ok()
    });
}

#[test]
fn any_loose_value_is_what_it_says_or_refused() {
    let words =
        &[" 12 ", "-3", "1_000", "+7", "null", "True", "off", "1", "0", "\\u00a05", "9223372036854775808"];
    Fuzz::new("loose values", 20_000)
        .corpus(["\"12\"", "7", "true", "\" 1_0 \"", "\"null\"", "\"off\"", "{}", "1.5"])
        .grammar(texts::scalar(words))
        .run(|input| {
            let Ok(value) = serde_json::from_slice::<Value>(input) else { return false };
            let loose = match serde_json::from_value::<Loose>(value.clone()) {
                Ok(loose) => loose,
                Err(error) => {
                    let plain = matches!(value, Value::String(_) | Value::Bool(_)) || value.is_i64();
                    assert!(!plain);
                    assert!(error.to_string().starts_with("expected "), "{error}");
                    return false;
                }
            };
            let integer = Loose::integer(Some(&loose));
            match &integer {
                Ok(Some(number)) => {
                    let text = Loose::Text(number.to_string());
                    assert_eq!(Loose::integer(Some(&text)).ok(), Some(Some(*number)));
                }
                Ok(None) => {}
                Err(error) => {
                    assert!(error.status() == 400 && error.detail().as_str().is_some_and(|d| d.len() < 400))
                }
            }
            let flag = Loose::flag("field", Some(&loose));
            if let Err(error) = &flag {
                assert_eq!((error.status(), error.detail()), (400, &json!("field: expected true or false")));
            }
            integer.is_ok() || flag.is_ok()
        });
}

/// Names, keys and attributes that others read: in logs, in CloudEvents, in URLs.
#[test]
fn any_event_is_published_whole_or_refused() {
    let words = &["node", "traceparent", "lab.1:x", "é", "owner", "type", "abc"];
    let attributes = proptest::collection::vec((texts::string(words), texts::scalar(words)), 0..6);
    let event = (texts::string(words), texts::any_json(words, words), attributes.prop_map(texts::object));
    let event = event.prop_map(|(channel, data, attributes)| {
        format!("{{\"channel\":{channel},\"data\":{data},\"attributes\":{attributes}}}")
    });
    Fuzz::new("published events", 8000)
        .corpus([
            r#"{"channel":"lab","data":{"a":[1,"}\"",{}]},"attributes":{"traceparent":"00","n":1,"b":true}}"#,
        ])
        .words(words)
        .grammar(event)
        .run(|input| {
            let Ok(Value::Object(given)) = serde_json::from_slice(input) else { return false };
            let text = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or("x");
            if let Ok(Some(key)) = nodes::idempotency_key(Some(text("channel"))) {
                assert!((1..=128).contains(&key.chars().count()) && !key.contains('\0'));
            }
            if events::channel_name("channel", text("channel")).is_err() {
                return false;
            }
            let data = given.get("data").cloned().unwrap_or_default();
            if let Err(error) = events::weigh("data", &data) {
                assert_eq!(error.kind(), Kind::InvalidParams);
                return false;
            }
            let attributes = given.get("attributes").and_then(Value::as_object).cloned().unwrap_or_default();
            let read_attributes = match Attributes::read(attributes.clone()) {
                Ok(attributes) => attributes,
                Err(error) => {
                    assert!(error.detail().as_str().is_some_and(|detail| detail.starts_with("attributes")));
                    return false;
                }
            };
            let event = crate::model::Event {
                id: ObjectId::from_bytes([7; 12]),
                channel: text("channel").to_owned(),
                source: "s".into(),
                kind: "t".into(),
                subject: None,
                time: EventTime::from_micros(0),
                owner: Some(text("channel").to_owned()),
                partitionkey: read_attributes.partitionkey.clone(),
                extensions: read_attributes.extensions.clone(),
                data: data.clone(),
            };
            let entry = Entry::new(u64::MAX, &event.to_text());
            let read = entry.value();
            assert_eq!((&read["data"], &read["sequence"]), (&data, &json!("18446744073709551615")));
            assert_eq!((&read["id"], &read["type"]), (&json!("070707070707070707070707"), &json!("t")));
            for (name, value) in &read_attributes.extensions {
                assert_eq!(read.get(name), Some(value));
                assert!(
                    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
                    "{name}"
                );
            }
            // Whoever wants them gets them back as they were written.
            let mut written = read_attributes.extensions.clone();
            restore(&mut written);
            assert!(written.iter().all(|(name, value)| attributes.get(name) == Some(value)), "{written:?}");
            assert_eq!(crate::ops::polling::python_json(read).parse::<Value>().unwrap(), *read);
            true
        });
}

/// Conditions of users and groups.
#[test]
fn any_condition_on_people_is_read_or_refused() {
    const FIELDS: &[&str] = &["username", "is_superuser", "id"];
    let query = "username=bob&is_superuser=TRUE&id=5f0000000000000000000abc";
    Fuzz::new("conditions", 15_000)
        .corpus([r#"{"username":"bob","is_superuser":true}"#, &Value::from(query).to_string()])
        .words(FIELDS)
        .grammar(texts::any_json(FIELDS, &["true", "username=a&id=b", "5f0000000000000000000abc"]))
        .run(|input| {
            let Ok(value) = serde_json::from_slice::<Value>(input) else { return false };
            let read = || {
                let mut conditions = conditions::Conditions::read(Some(&value), FIELDS)?;
                conditions.text("username")?;
                conditions.flag("is_superuser")?;
                conditions.id("id")
            };
            match read() {
                Ok(_) => true,
                Err(error) => {
                    assert!([400, 422].contains(&error.status()));
                    assert!(error.detail().as_str().is_some_and(|detail| !detail.is_empty()));
                    false
                }
            }
        });
}
