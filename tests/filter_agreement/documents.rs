//! Random documents, as odd as they may be, and their form in MongoDB.

use bson::{Bson, DateTime, Document};
use kernelci_live::filter::{FieldType, Schema};
use kernelci_live::model::{ObjectId, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

pub(crate) const STRINGS: &[&str] = &[
    "",
    "a",
    "b",
    "ab",
    "job",
    "test",
    "done",
    "running",
    "pass",
    "fail",
    "baseline-arm64",
    "true",
    "false",
    "null",
    "0",
    "1",
    "123",
    "[",
    "[1]",
    "{",
    "{\"a\":1}",
    "é",
    "日本語",
    "x\u{0}y",
    "x",
    "a.b",
    "it's \"q\"",
    "\\",
    "\n",
    "a\n",
    "A",
    "2026-01-01T00:00:00",
    "5f0000000000000000000001",
    "\u{1F600}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
    "foo bar\nbaz",
];

pub(crate) fn string() -> impl Strategy<Value = Value> {
    select(STRINGS).prop_map(Value::from)
}

pub(crate) fn number() -> impl Strategy<Value = Value> {
    select(vec![
        json!(0),
        json!(1),
        json!(2),
        json!(3),
        json!(-1),
        json!(1.0),
        json!(0.5),
        json!(1.5),
        json!(-0.0),
        json!(2.0),
        json!(9_007_199_254_740_993_i64),
        json!(9_007_199_254_740_992.0),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(9_223_372_036_854_775_808.0),
        json!(1e300),
        json!(-1e300),
        json!(0.1),
        json!(123),
    ])
}

pub(crate) fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![1 => Just(Value::Null), 1 => any::<bool>().prop_map(Value::from), 3 => number(), 5 => string()]
}

const IDS: &[&str] = &[
    "5f0000000000000000000001",
    "5f0000000000000000000002",
    "5f0000000000000000000abc",
    "ffffffffffffffffffffffff",
];

pub(crate) fn id() -> impl Strategy<Value = Value> {
    select(IDS).prop_map(Value::from)
}

/// Milliseconds of a few moments close to each other, and of the first and the last that there are.
pub(crate) fn moment() -> impl Strategy<Value = i64> {
    const FIRST: i64 = -62_135_596_800_000;
    const LAST: i64 = 253_402_300_799_999;
    select(vec![
        FIRST,
        LAST,
        -1,
        -1000,
        0,
        1,
        999,
        1000,
        1_767_225_600_000,
        1_767_225_600_001,
        1_767_225_600_500,
        1_767_312_000_000,
    ])
}

/// Keys that paths also use.
pub(crate) fn key() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "0", "1", "a b", "kernel_revision", "commit"]).prop_map(str::to_owned)
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn data() -> impl Strategy<Value = Value> {
    let revision = || select(vec!["x", "y", "mainline", "[", "123"]).prop_map(Value::from);
    let loose = || prop_oneof![4 => id(), 1 => scalar()];
    let typical = (
        (revision(), revision(), prop_oneof![5 => revision(), 1 => tree()]),
        proptest::option::of(loose()),
        proptest::option::of(vec(loose(), 0..3)),
        vec((key(), tree()), 0..4),
    );
    let typical = typical.prop_map(|((tree, branch, commit), regression, sequence, rest)| {
        let mut data: Map<String, Value> = rest.into_iter().collect();
        data.entry("kernel_revision").or_insert(json!({"tree": tree, "branch": branch, "commit": commit}));
        data.extend(regression.map(|id| ("regression".to_owned(), id)));
        data.extend(sequence.map(|ids| ("node_sequence".to_owned(), ids.into())));
        Value::Object(data)
    });
    prop_oneof![4 => typical, 1 => tree()]
}

/// A node that is as odd as a document can be, but for the scalars of `sqlite::filter::scalars`.
pub(crate) fn node() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![8 => select(STRINGS).prop_map(|s| Some(json!(s))), 1 => scalar().prop_map(Some), 1 => Just(None)];
    let date = || {
        prop_oneof![
            6 => moment().prop_map(|ms| Some(Timestamp::from_millis(ms).to_wire().into())),
            1 => Just(Some(Value::Null)),
            1 => Just(None)
        ]
    };
    let texts = (text(), text(), text(), text(), text(), text(), text());
    let dates = (date(), date(), date());
    let others = (
        prop_oneof![5 => id().prop_map(Some), 1 => Just(Some(Value::Null)), 1 => Just(None)],
        prop_oneof![5 => number().prop_map(Some), 1 => scalar().prop_map(Some), 1 => Just(None)],
        prop_oneof![5 => any::<bool>().prop_map(|flag| Some(flag.into())), 1 => tree().prop_map(Some), 1 => Just(None)],
        prop_oneof![5 => vec(string(), 0..4).prop_map(|path| Some(path.into())), 2 => tree().prop_map(Some), 1 => Just(None)],
        prop_oneof![8 => data().prop_map(Some), 1 => Just(None)],
    );
    (texts, dates, others).prop_map(|(texts, dates, others)| {
        let fields = [
            ("kind", texts.0),
            ("name", texts.1),
            ("group", texts.2),
            ("state", texts.3),
            ("result", texts.4),
            ("owner", texts.5),
            ("treeid", texts.6),
            ("created", dates.0),
            ("updated", dates.1),
            ("holdoff", dates.2),
            ("parent", others.0),
            ("retry_counter", others.1),
            ("processed_by_kcidb_bridge", others.2),
            ("path", others.3),
            ("data", others.4),
        ];
        fields
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect::<Map<_, _>>()
            .into()
    })
}

/// An event: texts, a time, and anything as data.
pub(crate) fn event() -> impl Strategy<Value = Value> {
    let text = || proptest::option::of(select(STRINGS));
    (text(), text(), text(), text(), moment(), prop_oneof![tree(), node(), data()]).prop_map(
        |(source, kind, subject, owner, time, data)| {
            let mut event = json!({"specversion": "1.0", "data": data});
            event["time"] = Timestamp::from_millis(time).to_event_time().into();
            for (key, value) in [("source", source), ("type", kind), ("subject", subject), ("owner", owner)] {
                if let Some(value) = value {
                    event[key] = value.into();
                }
            }
            event
        },
    )
}

/// The document as MongoDB keeps it: dates as dates, ids as ObjectIds (loose ones now and then).
pub(crate) fn stored(doc: &Value, schema: &Schema, odd: bool) -> Document {
    let mut out = Document::new();
    for (key, value) in doc.as_object().unwrap() {
        let name = match (key.as_str(), schema.type_of("time")) {
            ("id", _) => "_id",
            ("time", FieldType::EventDate) => "timestamp",
            (key, _) => key,
        };
        out.insert(name, stored_value(key, value, schema, odd));
    }
    out
}

fn stored_value(path: &str, value: &Value, schema: &Schema, odd: bool) -> Bson {
    let oid = |text: &str| ObjectId::parse_str(text).ok().map(Bson::ObjectId);
    match (schema.type_of(path), value) {
        (FieldType::NodeDate | FieldType::EventDate, Value::String(text)) => {
            DateTime::from_millis(Timestamp::parse_iso(text).unwrap().millis()).into()
        }
        (FieldType::Id, Value::String(text)) => oid(text).unwrap(),
        (FieldType::LooseId, Value::String(text)) if odd => oid(text).unwrap_or_else(|| text.clone().into()),
        (_, Value::Object(members)) => {
            let members = members.iter().map(|(key, value)| {
                (key.clone(), stored_value(&format!("{path}.{key}"), value, schema, odd))
            });
            Bson::Document(members.collect())
        }
        (FieldType::LooseId, Value::Array(items)) => items
            .iter()
            .map(|item| stored_value(path, item, schema, odd && !item.is_array()))
            .collect::<Vec<_>>()
            .into(),
        // Nothing below an array is declared, except for the elements themselves.
        (_, Value::Array(items)) => {
            items.iter().map(|item| stored_value("?", item, schema, odd)).collect::<Vec<_>>().into()
        }
        (_, Value::Number(number)) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap().into(),
        },
        (_, Value::String(text)) => text.clone().into(),
        (_, Value::Bool(flag)) => (*flag).into(),
        (_, Value::Null) => Bson::Null,
    }
}
