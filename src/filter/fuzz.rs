//! Whatever is written as a filter is refused in words, or it means something: the same in memory, in SQL and in
//! MongoDB, and at a cost that has bounds.

use std::sync::LazyLock;

use bson::Bson;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::pcre::{Pcre, translate};
use super::*;
use crate::error::Error;
use crate::fuzz::{Fuzz, json as texts};
use crate::store::{mongo, sqlite};

const GOOD: &[&str] = &[
    r#"{"kind":"job","state":"done","result__in":["fail","incomplete"],"data.arch":"arm64"}"#,
    r#"{"any":[{"kind":"job"},{"all":[{"kind":"test"},{"not":{"name":"x"}}]}]}"#,
    r#"{"created__gte":"2026-01-01T02:00:00+02:00","parent":"5F0000000000000000000ABC"}"#,
    r#"{"data.kernel_revision.commit__re":"^[0-9a-f]{7,40}$","path.0":"checkout","data.n__int":7}"#,
    r#"{"id":null,"retry_counter__lt":3,"data.flag__exists":false,"data.f":1.5,"time__lte":"1970-01-01"}"#,
    r#"{"data.node_sequence__nin":["5f0000000000000000000abc",null],"owner__ne":"a","path":"checkout"}"#,
];
const PATHS: &[&str] = &[
    "kind",
    "name",
    "id",
    "_id",
    "parent",
    "created",
    "time",
    "retry_counter",
    "data",
    "data.a",
    "data.a.b",
    "data.a.0.b",
    "data.0.1.2.3",
    "data.node_sequence",
    "data.node_sequence.0",
    "path",
    "path.0",
    "owner",
    "result",
    "sequence",
    "data.a b",
    "a__b__c",
    "nothing",
    "id.x",
    "data.kernel_revision.commit",
    "a..b",
    "$where",
    "_x",
];
const OPS: &[&str] = &[
    "", "", "", "__ne", "__lt", "__lte", "__gt", "__gte", "__in", "__nin", "__re", "__int", "__exists", "__x",
];
const VALUES: &[&str] = &[
    "job",
    "fail",
    "checkout",
    "5f0000000000000000000abc",
    "2026-01-01",
    "2026-01-01T02:00:00+02:00",
    "^a.*b$",
    "(a|b)+",
    "\\\\d",
    "a",
    "5",
    "false",
];
const ATOMS: &[&str] = &[
    "a",
    "b",
    "é",
    "日",
    ".",
    "\\d",
    "\\D",
    "\\w",
    "\\W",
    "\\s",
    "\\b",
    "\\B",
    "^",
    "$",
    "\\A",
    "\\z",
    "[a-c]",
    "[^a]",
    "[\\d-]",
    "[\\w&&[^a]]",
    "[[:alpha:]]",
    "[a-zé-日]",
    "\\pL",
    "\\p{Han}",
    "\\x{65e5}",
    "\\x00",
    "\\n",
    "\\.",
    " ",
    "#",
    "-",
    "(?i)",
    "(?x)",
    "(?s)",
    "(?m)",
    "(?-u)",
    "(?R)",
    "\\b{start}",
    "\\<",
    "",
];

/// Documents as the stores hold them: what has a declared type and no dot in its name is no list and no object.
static DOCS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    vec![
        json!({}),
        json!({"id": "5f0000000000000000000abc", "kind": "job", "name": "a", "state": "done", "result": "fail",
            "parent": null, "created": "2026-01-01T00:00:00", "retry_counter": 5, "owner": "job", "path": ["checkout", "a"],
            "data": {"a": {"b": "job"}, "arch": "arm64", "n": 7, "flag": true, "f": 1.5, "0": [[1, [2, "a"]]],
                "node_sequence": ["5f0000000000000000000abc"], "kernel_revision": {"commit": "abcdef1234"}}}),
        json!({"id": "5f0000000000000000000a01", "kind": "checkout", "name": "2026-01-01", "time": "1970-01-01T00:00:00.000000+00:00",
            "created": "2025-12-31T23:59:59.999000", "path": [], "data": {"a": [{"b": "a"}, {"b": null}, 5, [6]]}}),
        json!({"id": null, "kind": null, "name": "5", "data": [[{"a": "日本\n"}], {"a": [1, [2]]}], "owner": "é日",
            "a__b__c": "fail", "path": "checkout", "retry_counter": 0}),
        json!({"name": "", "data": {"a": 9_007_199_254_740_993_i64, "a b": -0.0, "flag": false, "f": 1e308, "n": "7"},
            "path": [null, {"0": "checkout"}, [[]]], "result": "null"}),
    ]
});

thread_local! {
    static TABLES: rusqlite::Connection = {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        sqlite::filter::register(&db).unwrap();
        for (table, schema) in [("node", &NODE), ("event", &EVENT)] {
            let check = sqlite::filter::scalars(schema, "doc");
            db.execute_batch(&format!(
                "CREATE TABLE {table} (n INTEGER PRIMARY KEY, doc BLOB NOT NULL CHECK ({check}))"
            ))
            .unwrap();
            for (n, doc) in DOCS.iter().enumerate() {
                let sql = format!("INSERT INTO {table} VALUES (?, jsonb(?))");
                db.execute(&sql, (n as i64, doc.to_string())).unwrap();
            }
        }
        db
    };
}

/// A filter that was taken keeps all promises.
fn holds(filter: &Filter, schema: &'static Schema) {
    let most = limits::TERMS * 1000 + limits::LISTS;
    assert!(filter.cost() <= most << limits::INDEXES, "{}", filter.cost());
    let table = if std::ptr::eq(schema, &EVENT) { "event" } else { "node" };
    let negated = Filter::Not(Box::new(filter.clone()));
    let demands = filter.demands();
    let expected: Vec<i64> = DOCS
        .iter()
        .enumerate()
        .filter(|(_, doc)| {
            let matched = filter.matches(doc);
            assert_ne!(negated.matches(doc), matched);
            assert!(!matched || demands.iter().all(|demand| demand.is_met(doc)), "{demands:?} {doc}");
            matched
        })
        .map(|(n, _)| n as i64)
        .collect();
    for filter in [filter, &negated] {
        let sql = sqlite::filter::to_sql(filter, "doc");
        TABLES.with(|db| {
            let text = format!("SELECT n FROM {table} WHERE {} ORDER BY n", sql.text);
            let mut statement = db.prepare(&text).unwrap();
            let rows =
                statement.query_map(rusqlite::params_from_iter(&sql.params), |row| row.get(0)).unwrap();
            let mut found: Vec<i64> = rows.map(Result::unwrap).collect();
            if std::ptr::eq(filter, &negated) {
                found = (0..DOCS.len() as i64).filter(|n| !found.contains(n)).collect();
            }
            assert_eq!(found, expected, "{filter:?}");
        });
        let query = match table {
            "event" => mongo::filter::to_mongo_event(filter).query,
            _ => mongo::filter::to_mongo(filter).query,
        };
        assert!(query.to_vec().is_ok_and(|bytes| bytes.len() < 8 << 20));
        only_known_operators(&Bson::Document(query), 0);
    }
}

/// Nothing that a client writes is syntax in MongoDB, which nests at most 100 levels.
fn only_known_operators(query: &Bson, depth: usize) {
    assert!(depth < 90);
    match query {
        Bson::Document(document) => {
            for (key, value) in document {
                match key.as_str() {
                    "$and" | "$or" | "$nor" | "$in" | "$nin" => assert!(value.as_array().is_some()),
                    "$eq" | "$ne" | "$lt" | "$lte" | "$gt" | "$gte" | "$exists" | "$regex" | "$type"
                    | "$alwaysFalse" => assert!(value.as_document().is_none() && value.as_array().is_none()),
                    "$not" => assert!(value.as_document().is_some()),
                    name => assert!(!name.starts_with('$') && !name.contains(".$") && !name.contains('\0')),
                }
                only_known_operators(value, depth + 1);
            }
        }
        Bson::Array(items) => items.iter().for_each(|item| only_known_operators(item, depth + 1)),
        _ => {}
    }
}

/// A refusal says what is wrong with which key; what is known from KernelCI has its own words.
fn is_told(error: &Error, status: u16, keys: &[String]) {
    let detail = error.detail().as_str().unwrap();
    let known =
        ["Invalid isoformat string: ", "invalid literal for int()"].iter().any(|w| detail.starts_with(w))
            || detail.contains("is not a valid ObjectId");
    match error.status() {
        400 if known => {}
        told if told == status => {
            assert!(keys.iter().any(|key| detail.starts_with(&format!("{key}: "))), "{detail}");
        }
        other => panic!("{other} {detail}"),
    }
}

fn keys_of(value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| keys_of(item, keys)),
        Value::Object(members) => members.iter().for_each(|(key, member)| {
            keys.push(key.clone());
            keys_of(member, keys);
        }),
        _ => {}
    }
}

fn in_json(input: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(input) else { return false };
    let mut good = false;
    for schema in [&NODE, &EVENT] {
        match Filter::from_json(&value, schema) {
            Ok(filter) => {
                holds(&filter, schema);
                // The same filter, and the document that it looks like.
                filter.matches(&value);
                let both = Filter::from_json(&json!({"all": [value, {}]}), schema);
                assert!(
                    both.is_ok_and(|both| DOCS.iter().all(|doc| both.matches(doc) == filter.matches(doc)))
                        || nesting(&value) + 1 > limits::LEVELS
                        || terms(&value) + 2 > limits::TERMS
                );
                good = true;
            }
            Err(error) => {
                let mut keys = vec!["filter".to_owned()];
                keys_of(&value, &mut keys);
                is_told(&error, 422, &keys);
            }
        }
    }
    good
}

fn nesting(filter: &Value) -> usize {
    match filter {
        Value::Array(items) => items.iter().map(nesting).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}

/// At least as many as the reader counts.
fn terms(filter: &Value) -> usize {
    match filter {
        Value::Array(items) => items.iter().map(|item| 1 + terms(item)).sum(),
        Value::Object(members) => members.values().map(|member| 1 + terms(member)).sum(),
        _ => 0,
    }
}

fn filters() -> BoxedStrategy<String> {
    let value = prop_oneof![
        5 => texts::scalar(VALUES),
        2 => vec(texts::scalar(VALUES), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
        1 => pattern().prop_map(|pattern| Value::from(pattern).to_string()),
        1 => texts::any_json(PATHS, VALUES),
    ];
    let member =
        (select(PATHS), select(OPS), value).prop_map(|(path, op, value)| (format!("\"{path}{op}\""), value));
    vec(member, 0..4)
        .prop_map(texts::object)
        .prop_recursive(4, 16, 3, |inner| {
            let list = vec(inner.clone(), 0..4).prop_map(|parts| format!("[{}]", parts.join(",")));
            let lists = (select(vec!["\"any\"", "\"all\""]), list);
            let lists = lists.prop_map(|(name, list)| texts::object(vec![(name.to_owned(), list)]));
            prop_oneof![3 => lists, 1 => inner.prop_map(|part| texts::object(vec![("\"not\"".to_owned(), part)]))]
        })
        .boxed()
}

fn pattern() -> impl Strategy<Value = String> {
    let atom = select(ATOMS).prop_map(str::to_owned);
    atom.prop_recursive(4, 24, 4, |inner| {
        let times = vec!["*", "+", "?", "{2}", "{1,3}", "{0,}", "*?", "{1000}", "{,2}", "{3,1}"];
        prop_oneof![
            3 => vec(inner.clone(), 1..5).prop_map(|parts| parts.concat()),
            1 => vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join("|"))),
            2 => (inner, select(times)).prop_map(|(inner, times)| format!("(?:{inner}){times}")),
        ]
    })
}

#[test]
fn any_json_is_a_filter_with_one_meaning_or_a_mistake_that_is_told() {
    Fuzz::new("filters in JSON", 2500)
        .corpus(GOOD)
        .words(PATHS)
        .words(OPS)
        .words(["\"any\":[", "\"not\":{", "\"all\":["])
        .grammar(filters())
        .run(in_json);
}

/// The same in JSON, for what means the same in both: each key once, and text that no query takes for something else.
fn as_json(pairs: &[(String, String)], schema: &Schema) -> Option<Value> {
    let mut members = serde_json::Map::new();
    for (key, text) in pairs {
        let (path, op) = key.split_once("__").unwrap_or((key, ""));
        let kind = schema.type_of(if path == "_id" { "id" } else { path });
        let compared = !matches!(kind, FieldType::Json | FieldType::Integer) && text != "null";
        let value = match op {
            "" | "ne" | "lt" | "lte" | "gt" | "gte" if compared => text.as_str().into(),
            "in" | "nin" if compared && !text.split(',').any(|item| item == "null") => {
                text.split(',').collect()
            }
            "re" => text.as_str().into(),
            "exists" if text == "true" || text == "false" => (text == "true").into(),
            _ => return None,
        };
        let same_path = members.keys().any(|known: &String| known.split("__").next() == Some(path));
        if same_path || path == "_id" || ["any", "all", "not"].contains(&key.as_str()) {
            return None;
        }
        members.insert(key.clone(), value);
    }
    Some(members.into())
}

fn in_a_query(input: &[u8]) -> bool {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(input).into_owned().collect();
    // Written again it says the same.
    let again = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
    assert!(url::form_urlencoded::parse(again.as_bytes()).into_owned().eq(pairs.iter().cloned()));
    let mut good = false;
    for schema in [&NODE, &EVENT] {
        let read =
            Filter::from_query(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())), schema);
        if let Some(json) = as_json(&pairs, schema) {
            let same = Filter::from_json(&json, schema);
            match (&read, &same) {
                (Ok(read), Ok(same)) => assert_eq!(format!("{read:?}"), format!("{same:?}")),
                (read, same) => assert_eq!(read.is_ok(), same.is_ok(), "{json}"),
            }
        }
        match read {
            Ok(filter) => {
                holds(&filter, schema);
                good |= !pairs.is_empty();
            }
            Err(error) => is_told(&error, 400, &pairs.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>()),
        }
    }
    good
}

fn queries() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        6 => select(VALUES).prop_map(str::to_owned),
        2 => vec(select(VALUES), 0..4).prop_map(|items| items.join(",")),
        2 => pattern(),
        2 => select(vec!["null", "True", "FALSE", "true", " +3 ", "1_000", "-5", "99999999999999999999", "1970-W01"])
            .prop_map(str::to_owned),
    ];
    let pair =
        (select(PATHS), select(OPS), value).prop_map(|(path, op, value)| (format!("{path}{op}"), value));
    (vec(pair, 0..5), any::<bool>()).prop_map(|(pairs, encoded)| match encoded {
        true => url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish(),
        false => pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&"),
    })
}

#[test]
fn any_query_is_a_filter_with_one_meaning_or_a_mistake_that_is_told() {
    Fuzz::new("filters in queries", 2500)
        .corpus([
            "kind=job&result__in=fail,incomplete&created__gt=2026-01-01T00:00:00+00:00",
            "parent=null&data.kernel_revision.version.version__gte=6&data.job_id__ne=123",
            "name__re=%5Ebase.*&retry_counter=+3&data.flag=True&path=checkout&group__exists=false",
        ])
        .words(PATHS)
        .words(OPS)
        .grammar(queries())
        .run(in_a_query);
}

/// What MongoDB is told finds what the pattern finds, as far as the `regex` crate can tell for PCRE.
fn in_pcre(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let Ok(pattern) = Pattern::new(&text) else { return false };
    assert!(text.chars().count() <= limits::PATTERN);
    assert!(Pattern::of_ascii(pattern.text()).is_ok(), "SQLite compiles it again");
    let (printed, exact) = match translate(pattern.text()) {
        Pcre::Exact(printed) => (printed, true),
        Pcre::Superset(printed) => (printed, false),
        Pcre::Unknown => return true,
    };
    assert!(printed.len() <= 4000 && printed.is_ascii() && !printed.contains('\0'), "{printed}");
    let readable = printed
        .replace(r"(?:\A|(?<=\x{a}))", "(?m:^)")
        .replace(r"(?:\z|(?=\x{a}))", "(?m:$)")
        .replace("(?!)", r"[^\x{0}-\x{10ffff}]")
        .replace(r"\b", r"(?-u:\b)")
        .replace(r"\B", r"(?-u:\B)");
    let printed = regex::Regex::new(&readable).unwrap();
    let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    let samples = [
        "",
        "a",
        "ab",
        "aab\nb",
        "é日",
        "b a-",
        "a\nb",
        "123",
        "\0",
        "foo.bar",
        " \u{a0}\t",
        &letters,
        &text,
    ];
    for sample in samples {
        let (ours, theirs) = (pattern.is_match(sample), printed.is_match(sample));
        assert!(ours == theirs || (theirs && !exact), "{sample:?}: {ours}, but {readable}: {theirs}");
    }
    true
}

#[test]
fn any_pattern_is_found_by_what_mongodb_is_told() {
    Fuzz::new("patterns", 3000)
        .corpus([
            r"^baseline.*-arm64$",
            r"(?i)foo|bar\d+",
            r"[\w.-]+@\W",
            r"(a+)+b",
            r"(?i)foo[\w&[^a]]",
            r"^(job|test)\b",
            "a{2,3}é",
        ])
        .words(ATOMS)
        .words(["{", "}", "|", "?", "{1000}", "[", "]", "^", "&&", "~~", "--"])
        .grammar(pattern())
        .run(in_pcre);
}
