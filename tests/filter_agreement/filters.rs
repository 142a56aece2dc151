//! Random filters, in JSON and as query strings, about the fields that the documents have.

use kernelci_live::filter::{FieldType, Filter, Schema};
use kernelci_live::model::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::documents::{STRINGS, id, key, moment, number, scalar, string};

fn path(schema: &'static Schema) -> impl Strategy<Value = String> {
    let declared = select(schema.fields.iter().map(|(path, _)| (*path).to_owned()).collect::<Vec<_>>());
    let known = select(vec![
        "path",
        "path.0",
        "path.1",
        "processed_by_kcidb_bridge",
        "data",
        "data.kernel_revision.commit",
        "data.kernel_revision.tree",
        "data.kernel_revision",
        "data.a",
        "data.a.b",
        "data.0",
        "data.a.0",
        "data.0.a",
        "data.a.0.b",
        "data.0.0",
        "data.b.a.0",
        "data.a b",
        "name.x",
        "id.x",
        "nothing",
        "data.nothing",
        "revision",
        "time.x",
        "data.node_sequence.0",
        "data.kind",
        "data.path",
        "data.data.a",
        "sequence",
        "specversion",
    ]);
    let random = vec(key(), 0..4)
        .prop_map(|keys| keys.into_iter().fold("data".to_owned(), |path, key| format!("{path}.{key}")));
    prop_oneof![3 => declared, 3 => known.prop_map(str::to_owned), 3 => random]
}

const PATTERNS: &[&str] = &[
    "",
    "a",
    "^a",
    "a$",
    "^a$",
    "^$",
    ".",
    "^.$",
    "..",
    "a.*b",
    "^a.*b$",
    "(a|b)+$",
    "^(a|a)*b",
    "(a+)+b",
    "(a*)*$",
    r"\d",
    r"^\d+$",
    r"\w",
    r"\W",
    r"^\s*$",
    r"\bfoo\b",
    r"\Bo",
    "[^a]",
    "[[:alpha:]]",
    "é",
    "^[é日]",
    r"\x{65e5}",
    "(?i)a",
    "(?i)É",
    "job|test",
    "^(job|test)$",
    "a{2,3}",
    "a{29}b",
    "(ab?){3}",
    r"\[",
    r"^\{",
    r"x\x00y",
    "x.y",
    "(?s)o.b",
    "(?m)^baz$",
    "(?m)r$",
    "foo.*baz",
    "(?s)foo.*baz",
    r"\p{Han}",
    r"[^\x00-\x7f]",
    "^baseline",
    "arm64$",
    "base.*-arm",
    "123",
    "null",
    "true",
    "a??b",
    r"\D",
    r"[\d-]",
    r"[\w&&[^a]]",
    "\u{1F600}",
    r"\n",
    r"\\",
    "'",
    "\"",
    "$^",
    "a|",
    "(|a)b",
    "()",
    r"[a-zé-日]",
    r"\Aa\z",
    r"(?x) a b",
];

fn pattern() -> impl Strategy<Value = String> {
    let atom =
        select(vec!["a", "b", "ab", ".", r"\d", r"\w", "[ab]", "[^b]", "^", "$", "é", "1", r"\b", "-"]);
    let random = atom.prop_map(str::to_owned).prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            vec(inner.clone(), 2..3).prop_map(|parts| format!("({})", parts.join("|"))),
            (inner, select(vec!["*", "+", "?", "{2}", "{1,2}", "*?", "{0,}"]))
                .prop_map(|(inner, times)| format!("(?:{inner}){times}")),
        ]
    });
    prop_oneof![3 => select(PATTERNS).prop_map(str::to_owned), 1 => random]
}

/// The ISO text of a moment, in one of its forms.
fn iso() -> impl Strategy<Value = Value> {
    (moment(), any::<bool>()).prop_map(|(ms, wire)| {
        let time = Timestamp::from_millis(ms);
        if wire { time.to_wire().into() } else { time.to_event_time().into() }
    })
}

fn operand(kind: FieldType) -> BoxedStrategy<Value> {
    let typed = match kind {
        FieldType::NodeDate | FieldType::EventDate => iso().boxed(),
        FieldType::Id | FieldType::LooseId => id().boxed(),
        FieldType::Integer => number().boxed(),
        FieldType::Text => string().boxed(),
        FieldType::Json => return scalar().boxed(),
    };
    prop_oneof![9 => typed, 1 => Just(Value::Null)].boxed()
}

/// One condition in JSON.
fn condition(schema: &'static Schema) -> impl Strategy<Value = (String, Value)> {
    path(schema).prop_flat_map(move |path| {
        let kind = schema.type_of(&path);
        let named = move |op: &'static str| {
            let path = path.clone();
            move |value: Value| (if op.is_empty() { path.clone() } else { format!("{path}__{op}") }, value)
        };
        let one = select(vec!["", "", "", "ne", "lt", "lte", "gt", "gte"]);
        let compare = {
            let named = named.clone();
            one.prop_flat_map(move |op| operand(kind).prop_map(named(op)))
        };
        let list = {
            let named = named.clone();
            select(vec!["in", "nin"])
                .prop_flat_map(move |op| vec(operand(kind), 0..5).prop_map(Value::from).prop_map(named(op)))
        };
        let exists = any::<bool>().prop_map(Value::from).prop_map(named("exists"));
        if matches!(kind, FieldType::Json | FieldType::Text) {
            let re = pattern().prop_map(Value::from).prop_map(named("re"));
            let int = select(vec![0, 1, -1, 123, i64::MAX]).prop_map(Value::from).prop_map(named("int"));
            prop_oneof![12 => compare, 4 => list, 2 => exists, 4 => re, 1 => int].boxed()
        } else {
            prop_oneof![6 => compare, 2 => list, 1 => exists].boxed()
        }
    })
}

fn json_filter(schema: &'static Schema) -> impl Strategy<Value = Value> {
    let flat = vec(condition(schema), 0..3);
    let flat = flat.prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()));
    flat.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..4), select(vec!["any", "all"]))
                .prop_map(|(parts, key)| json!({key: parts})),
            inner.prop_map(|part| json!({"not": part})),
        ]
    })
}

/// Parameters of a query string.
fn query_filter(schema: &'static Schema) -> impl Strategy<Value = Vec<(String, String)>> {
    let value = prop_oneof![
        4 => select(STRINGS).prop_map(str::to_owned),
        2 => iso().prop_map(|text| text.as_str().unwrap().to_owned()),
        1 => id().prop_map(|text| text.as_str().unwrap().to_owned()),
        1 => select(vec!["a,b", "1,null", "0", "-1", "True", "null", "TRUE,x", "^a", "5f0000000000000000000001,null"]).prop_map(str::to_owned),
    ];
    let ops = vec![
        "", "", "", "__ne", "__lt", "__lte", "__gt", "__gte", "__in", "__nin", "__re", "__int", "__exists",
    ];
    let pair =
        (path(schema), select(ops), value).prop_map(|(path, op, value)| (format!("{path}{op}"), value));
    vec(pair, 1..3)
}

pub(crate) fn filter(schema: &'static Schema) -> impl Strategy<Value = (String, Option<Filter>)> {
    let read_json = move |json: Value| (json.to_string(), Filter::from_json(&json, schema).ok());
    let read_query = move |pairs: Vec<(String, String)>| {
        let filter =
            Filter::from_query(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())), schema);
        (format!("{pairs:?}"), filter.ok())
    };
    prop_oneof![3 => json_filter(schema).prop_map(read_json), 1 => query_filter(schema).prop_map(read_query)]
}
