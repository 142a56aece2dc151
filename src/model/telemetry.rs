//! Telemetry: what happened to jobs in labs, one small record each (contract 7.2).

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
/// Bytes of one record as JSON.
pub const LARGEST: usize = 16 << 10;

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
        Some(value) => Timestamp::parse_body(value).unwrap_or_else(|error| {
            let ctx = error.reason.map(|reason| json!({"error": reason}));
            problems.add(&At::ROOT.key("ts"), error.kind, error.message(), value, ctx);
            now
        }),
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
