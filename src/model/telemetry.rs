//! Telemetry: what happened to jobs in labs, one small record each (contract 7.2).

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::lax;
use super::problem::{At, Problems};
use super::{ObjectId, Timestamp};
use crate::error::{Error, Result};

/// The fields that are text or null, in the order in which they are shown; the first two must be there.
pub const LABELS: [&str; 14] = [
    "kind",
    "runtime",
    "device_type",
    "device_id",
    "job_name",
    "test_name",
    "job_id",
    "node_id",
    "tree",
    "branch",
    "arch",
    "result",
    "error_type",
    "error_msg",
];
/// So many of them must be there.
const REQUIRED: usize = 2;
/// Those that are shown behind `is_infra_error`.
const ERRORS: usize = 12;
/// Bytes of one record as JSON; of a larger one long texts are cut ([`fitted`]).
pub const LARGEST: usize = 16 << 10;
/// Characters that are left of any text.
const SHORTEST: usize = 128;
/// What is no text.
const OTHERS: [&str; 4] = ["ts", "is_infra_error", "retry", "extra"];

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Made here.
    pub id: ObjectId,
    /// When it happened.
    pub ts: Timestamp,
    /// The texts, as in [`LABELS`].
    pub labels: [Option<String>; LABELS.len()],
    /// Whether the lab is to blame.
    pub is_infra_error: bool,
    /// Which attempt it was.
    pub retry: i64,
    /// Anything else.
    pub extra: Map<String, Value>,
}

impl Sample {
    /// Reads what a client sent; keys that are none of ours are dropped. 400 in the words of contract 7.2.
    pub fn read(body: &Map<String, Value>, now: Timestamp) -> Result<Sample> {
        let mut problems = Problems::default();
        let sample = read(body, now, &mut problems);
        match problems.into_text("TelemetryEvent") {
            Ok(()) => Ok(sample),
            Err(error) => {
                let text = error.detail().as_str().unwrap_or_default();
                Err(Error::bad_request(format!("Invalid telemetry event: {text}")))
            }
        }
    }

    /// As REST shows it.
    pub fn to_wire(&self) -> Map<String, Value> {
        let mut wire = Map::new();
        let mut put = |key: &str, value: Value| {
            wire.insert(key.to_owned(), value);
        };
        put("id", self.id.to_hex().into());
        put("ts", self.ts.to_wire().into());
        for (index, (name, label)) in LABELS.iter().zip(&self.labels).enumerate() {
            if index == ERRORS {
                put("is_infra_error", self.is_infra_error.into());
            }
            put(name, label.clone().into());
        }
        put("retry", self.retry.into());
        put("extra", self.extra.clone().into());
        wire
    }
}

/// The record if it is not too large, else one whose long texts are cut, with a mark of how long they were. If `extra` has
/// too much besides texts, only that mark is left of it.
pub fn fitted(body: &Map<String, Value>) -> Cow<'_, Map<String, Value>> {
    let bytes = |members: &Map<String, Value>| serde_json::to_string(members).map_or(0, |text| text.len());
    if bytes(body) <= LARGEST {
        return Cow::Borrowed(body);
    }
    let mut known = body.clone();
    known.retain(|name, _| LABELS.contains(&name.as_str()) || OTHERS.contains(&name.as_str()));
    let mut fitted = known.clone();
    let mut longest = LARGEST / 2;
    while bytes(&fitted) > LARGEST && longest >= SHORTEST {
        fitted.clone_from(&known);
        fitted.values_mut().for_each(|value| cut(value, longest));
        longest /= 2;
    }
    if bytes(&fitted) > LARGEST && fitted.get("extra").is_some_and(Value::is_object) {
        let size = known.get("extra").map_or(0, |extra| extra.to_string().len());
        let mark = Map::from_iter([("cut".to_owned(), mark(size, "bytes").into())]);
        fitted.insert("extra".into(), mark.into());
    }
    Cow::Owned(fitted)
}

fn mark(size: usize, of: &str) -> String {
    format!("… (cut, of {size} {of})")
}

/// Cuts all texts in a value to so many characters.
// Recursion: bodies are about a hundred levels deep at most.
fn cut(value: &mut Value, longest: usize) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(longest) {
                let mark = mark(text.chars().count(), "characters");
                text.truncate(end);
                text.push_str(&mark);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| cut(item, longest)),
        Value::Object(members) => members.values_mut().for_each(|member| cut(member, longest)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn read(body: &Map<String, Value>, now: Timestamp, problems: &mut Problems) -> Sample {
    let given = |name: &str| body.get(name);
    let mut labels = [const { None }; LABELS.len()];
    for (index, (name, label)) in LABELS.iter().zip(&mut labels).enumerate() {
        let at = At::ROOT.key(name);
        match given(name) {
            Some(Value::String(text)) => *label = Some(text.clone()),
            Some(Value::Null) if index >= REQUIRED => {}
            None if index >= REQUIRED => {}
            None => problems.missing(&at, &Value::Object(body.clone())),
            Some(other) => problems.add(&at, "string_type", "Input should be a valid string", other, None),
        }
    }
    let ts = match given("ts") {
        None => now,
        Some(value) => Timestamp::parse_body(value).map_or_else(
            |error| {
                let ctx = error.reason.map(|reason| json!({"error": reason}));
                problems.add(&At::ROOT.key("ts"), error.kind, error.message(), value, ctx);
                now
            },
            |ts| ts.not_beyond(now),
        ),
    };
    let is_infra_error = given("is_infra_error").is_some_and(|value| {
        lax::flag(value).unwrap_or_else(|bad| {
            problems.not_a_flag(&At::ROOT.key("is_infra_error"), bad, value);
            false
        })
    });
    let retry = given("retry").map_or(Some(0), integer).unwrap_or_else(|| {
        let value = given("retry").unwrap_or(&Value::Null);
        problems.add(&At::ROOT.key("retry"), "int_type", "Input should be a valid integer", value, None);
        0
    });
    let extra = match given("extra") {
        None => Map::new(),
        Some(Value::Object(extra)) => extra.clone(),
        Some(other) => {
            let msg = "Input should be a valid dictionary";
            problems.add(&At::ROOT.key("extra"), "dict_type", msg, other, None);
            Map::new()
        }
    };
    Sample { id: ObjectId::new(), ts, labels, is_infra_error, retry, extra }
}

/// An integer, also as text, as a whole float or as a truth value.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(flag) => Some(i64::from(*flag)),
        Value::String(text) => lax::python_int(text),
        Value::Number(number) => {
            let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64);
            number.as_i64().or_else(|| number.as_f64().and_then(whole))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(body: Value) -> Result<Sample> {
        Sample::read(body.as_object().unwrap(), Timestamp::from_millis(0))
    }

    #[test]
    fn a_record_is_shown_in_the_order_of_the_contract() {
        let wire =
            sample(json!({"runtime": "lab-x", "kind": "job_result", "retry": "2", "unknown": 1})).unwrap();
        let wire = wire.to_wire();
        let keys: Vec<&str> = wire.keys().map(String::as_str).collect();
        let order = "id ts kind runtime device_type device_id job_name test_name job_id node_id tree branch arch result \
                     is_infra_error error_type error_msg retry extra";
        assert_eq!(keys, order.split_whitespace().collect::<Vec<_>>());
        assert_eq!((&wire["ts"], &wire["retry"]), (&json!("1970-01-01T00:00:00"), &json!(2)));
    }

    #[test]
    fn what_happened_is_not_in_the_future() {
        let ts =
            |given: &str| sample(json!({"kind": "k", "runtime": "r", "ts": given})).unwrap().ts.to_wire();
        assert_eq!(ts("9999-12-31"), "1970-01-02T00:00:00", "a day from now");
        assert_eq!(ts("1970-01-01T23:59:59"), "1970-01-01T23:59:59");
        assert_eq!(ts("1960-01-01"), "1960-01-01T00:00:00");
    }

    #[test]
    fn long_texts_are_cut_with_a_mark() {
        let given = |body: Value| body.as_object().cloned().unwrap();
        let small = given(json!({"kind": "k", "error_msg": "x".repeat(LARGEST - 100)}));
        assert_eq!(*fitted(&small), small);
        let long = "é".repeat(17_000);
        let large = given(
            json!({"kind": "k", "error_msg": long, "unknown": 1, "extra": {"l": [{"x": "\u{0}".repeat(9000)}, 5]}}),
        );
        let fitted_to = fitted(&large);
        let text = fitted_to["error_msg"].as_str().unwrap();
        assert!(text.starts_with("ééé") && text.ends_with("é… (cut, of 17000 characters)"), "{text}");
        assert!(serde_json::to_string(&*fitted_to).unwrap().len() <= LARGEST);
        assert_eq!((&fitted_to["kind"], &fitted_to["extra"]["l"][1]), (&json!("k"), &json!(5)));
        let wide: Map<String, Value> = (0..5000).map(|n| (n.to_string(), n.into())).collect();
        let wide = given(json!({"kind": "k", "error_msg": "short", "extra": wide}));
        assert_eq!(
            json!(fitted(&wide)),
            json!({"kind": "k", "error_msg": "short", "extra": {"cut": "… (cut, of 57781 bytes)"}})
        );
    }

    #[test]
    fn mistakes_are_told_as_pydantic_tells_them() {
        let error =
            sample(json!({"kind": 5, "is_infra_error": "maybe", "extra": [], "retry": 1.5})).unwrap_err();
        assert_eq!(error.status(), 400);
        let text = error.detail().as_str().unwrap().to_owned();
        assert!(
            text.starts_with("Invalid telemetry event: 5 validation errors for TelemetryEvent\nkind\n"),
            "{text}"
        );
        for part in ["runtime\n  Field required [type=missing", "extra\n  Input should be a valid dictionary"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
