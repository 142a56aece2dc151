//! Whatever a database holds: what GET gives PUT takes, and nothing changes but what was asked. Documents are made up as
//! servers before this one, and people by hand, have left them.

use bson::{Bson, DateTime, Document, doc};
use kernelci_live::model::ObjectId;
use macro_rules_attribute::apply;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use super::nodes::but;
use crate::support::{Backend, Http, Server, both_backends};

/// Documents of one run.
const MANY: usize = 150;

/// Makes up documents.
struct Past {
    random: StdRng,
    /// Whether values may be of types that only MongoDB has.
    foreign: bool,
}

const KEYS: &[&str] = &[
    "a",
    "b",
    "arch",
    "$set",
    "$oid",
    "$ref",
    "$id",
    "$date",
    "$numberLong",
    "a.b",
    ".",
    "",
    " ",
    "é",
    "0",
    "revision",
    "node",
    "items",
    "_id",
    "__proto__",
    "\u{1}",
    "a\nb",
    "'",
    "\"",
    "\\",
];
const TEXTS: &[&str] = &[
    "",
    "x",
    "\u{0}",
    "panic\u{0}at\u{0}",
    "é😀\u{fffd}",
    "\u{1}\u{7f}\u{2028}",
    "null",
    "5f0000000000000000000abc",
    "2026-01-01T00:00:00",
    "http://Example.org:80/A b",
    "$where",
    "\"\\\n",
];

impl Past {
    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices.choose(&mut self.random).expect("choices").clone()
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.random.random_ratio(1, times)
    }

    fn number(&mut self) -> Bson {
        let bits: u64 = self.random.random();
        match self.random.random_range(0..5) {
            0 => Bson::Int32(bits as i32),
            1 => Bson::Int64(bits.cast_signed() >> self.random.random_range(0..64)),
            2 => Bson::Int64(self.one_of(&[i64::MIN, i64::MAX, 1 << 53, (1 << 53) + 1])),
            3 => Bson::Double(self.one_of(&[
                -0.0,
                9.3e18,
                1e300,
                0.942_450_283_777_050_3,
                5e-324,
                1e15,
                1e16,
                2.0,
            ])),
            _ => Bson::Double(Some(f64::from_bits(bits)).filter(|float| float.is_finite()).unwrap_or(0.1)),
        }
    }

    fn foreign(&mut self) -> Bson {
        let decimals = ["1.5", "12345678901234567890.123", "NaN", "1E+6000", "18446744073709551616"];
        let decimal = self.one_of(&decimals).parse::<bson::Decimal128>().expect("a decimal");
        let binary = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0, 255, 7] };
        let regex = bson::Regex {
            pattern: "^a".try_into().expect("a text"),
            options: "i".try_into().expect("a text"),
        };
        self.one_of(&[
            Bson::ObjectId(ObjectId::new()),
            Bson::DateTime(DateTime::from_millis(1_705_063_773_996)),
            Bson::DateTime(DateTime::from_millis(i64::MAX)),
            Bson::DateTime(DateTime::from_millis(-1)),
            Bson::Decimal128(decimal),
            Bson::Binary(binary),
            Bson::RegularExpression(regex),
            Bson::Timestamp(bson::Timestamp { time: 7, increment: 1 }),
            Bson::JavaScriptCode("f()".into()),
            Bson::Symbol("s".into()),
            Bson::MinKey,
            Bson::MaxKey,
            Bson::Double(f64::NAN),
            Bson::Double(f64::INFINITY),
        ])
    }

    fn text(&mut self) -> String {
        match self.one_in(20) {
            true => self.one_of(TEXTS).repeat(3000),
            false => self.one_of(TEXTS).to_owned(),
        }
    }

    fn value(&mut self, depth: usize) -> Bson {
        match self.random.random_range(0..if depth == 0 { 5 } else { 8 }) {
            0 => Bson::Null,
            1 => Bson::Boolean(self.one_in(2)),
            2 => self.number(),
            3 if self.foreign && self.one_in(2) => self.foreign(),
            3 | 4 => Bson::String(self.text()),
            5 => Bson::Array((0..self.random.random_range(0..4)).map(|_| self.value(depth - 1)).collect()),
            _ => Bson::Document(self.object(depth - 1)),
        }
    }

    fn object(&mut self, depth: usize) -> Document {
        (0..self.random.random_range(0..5))
            .map(|_| (self.one_of(KEYS).to_owned(), self.value(depth)))
            .collect()
    }

    /// What a kind's `data` should look like, and does not always.
    fn data(&mut self) -> Document {
        let mut data = self.object(4);
        for name in [
            "error_code",
            "error_msg",
            "arch",
            "runtime",
            "test_source",
            "regression",
            "misc",
            "fragments",
            "job_id",
        ] {
            if self.one_in(4) {
                let good = match name {
                    "test_source" => "https://git.example.org/".into(),
                    "misc" => Bson::Document(self.object(1)),
                    "regression" if self.foreign => Bson::ObjectId(ObjectId::new()),
                    _ => Bson::String("LAVATimeout".into()),
                };
                let value = if self.one_in(3) { self.value(1) } else { good };
                data.insert(name, value);
            }
        }
        if self.one_in(3) {
            let version = match self.random.random_range(0..4) {
                0 => Bson::Null,
                1 => Bson::Document(doc! {"version": "6", "patchlevel": "7"}),
                2 => Bson::Document(doc! {"version": "six", "patchlevel": self.value(0)}),
                _ => Bson::Document(doc! {"version": 6, "patchlevel": 7, "extra": "-rc1"}),
            };
            let revision = doc! {
                "tree": "mainline", "url": self.one_of(&["https://git.example.org/linux", "git@host:x", "nope"]), "branch": "master",
                "commit": "cafe", "version": version,
            };
            let odd = [
                Bson::Null,
                Bson::String("x".into()),
                Bson::Document(doc! {"tree": 5}),
                Bson::Array(Vec::new()),
            ];
            let revision = if self.one_in(4) { self.one_of(&odd) } else { Bson::Document(revision) };
            data.insert("kernel_revision", revision);
        }
        if self.one_in(10) {
            // As deep as anybody has it.
            let levels = self.random.random_range(60..85);
            data.insert(
                "deep",
                (0..levels).fold(Bson::Int32(1), |inner, _| Bson::Document(doc! {"$d": inner})),
            );
        }
        data
    }

    fn date(&mut self) -> DateTime {
        let far =
            [0, -1, -62_135_596_800_000, 253_402_300_799_999, 253_402_300_800_000, 8_000_000_000_000_000];
        DateTime::from_millis(if self.one_in(6) { self.one_of(&far) } else { 1_705_063_773_996 })
    }

    fn node(&mut self) -> Document {
        let id = ObjectId::new();
        let texts = |past: &mut Self, most| -> Vec<String> {
            (0..past.random.random_range(0..most)).map(|_| past.text()).collect()
        };
        let kinds = ["checkout", "kbuild", "job", "test", "process", "regression", "node", "", "lava"];
        let long_path = self.one_in(10);
        let mut node = doc! {
            "_id": id, "id": id, "kind": self.one_of(&kinds), "name": self.text(), "path": texts(self, if long_path { 400 } else { 4 }),
            "group": self.text(), "parent": ObjectId::new(), "state": self.one_of(&["running", "available", "closing", "done"]),
            "result": self.one_of(&["pass", "fail", "skip", "incomplete"]), "artifacts": {}, "data": self.data(), "debug": self.object(4), "jobfilter": texts(self, 3), "platform_filter": texts(self, 3), "created": self.date(), "updated": self.date(),
            "timeout": self.date(), "holdoff": self.date(), "owner": self.text(), "submitter": self.text(), "treeid": self.text(),
            "user_groups": texts(self, 4), "processed_by_kcidb_bridge": self.one_in(2), "retry_counter": self.random.random_range(0..3),
        };
        let urls = [
            Bson::String("https://files.example.org/log.txt".into()),
            Bson::String("ftp://x/".into()),
            Bson::String("no URL".into()),
            Bson::Null,
            Bson::Int32(5),
            Bson::Document(doc! {"$u": 1}),
        ];
        let artifacts: Document =
            (0..self.random.random_range(0..3)).map(|n| (format!("a{n}"), self.one_of(&urls))).collect();
        node.insert("artifacts", artifacts);
        if self.one_in(8) {
            node.insert("parent", id);
        }
        for name in [
            "group",
            "parent",
            "result",
            "data",
            "debug",
            "artifacts",
            "jobfilter",
            "platform_filter",
            "holdoff",
            "owner",
            "treeid",
        ] {
            if self.one_in(8) {
                node.insert(name, Bson::Null);
            }
        }
        if self.foreign {
            let names: Vec<String> = node.keys().filter(|name| *name != "_id").cloned().collect();
            for name in names {
                match self.random.random_range(0..60) {
                    0 => _ = node.remove(&name),
                    1 => _ = node.insert(name, self.value(1)),
                    _ => {}
                }
            }
            node.insert("legacy", self.foreign());
        }
        node
    }

    /// One of about so many bytes.
    fn large(&mut self, bytes: usize) -> Document {
        let mut node = self.node();
        let short = |names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), Bson::String("x".into()))).collect::<Document>()
        };
        node.extend(short(&["name", "group", "owner", "submitter", "treeid"]));
        node.extend(doc! {"kind": "test", "path": ["x"], "jobfilter": [], "platform_filter": [], "user_groups": [], "data": {"error_msg": "A line of a log.\n".repeat(bytes / 17), "$odd": true}, "debug": Bson::Null});
        node
    }
}

/// The JSON of a document without foreign types, in the wire form of nodes.
fn wire(node: &Document) -> Map<String, Value> {
    fn json(value: &Bson) -> Value {
        match value {
            Bson::Document(document) => {
                Value::Object(document.iter().map(|(key, value)| (key.clone(), json(value))).collect())
            }
            Bson::Array(items) => items.iter().map(json).collect(),
            Bson::Int32(number) => (*number).into(),
            Bson::Int64(number) => (*number).into(),
            Bson::Double(number) => (*number).into(),
            Bson::String(text) => text.clone().into(),
            Bson::Boolean(flag) => (*flag).into(),
            Bson::ObjectId(id) => id.to_hex().into(),
            Bson::DateTime(date) => {
                kernelci_live::model::Timestamp::from_millis(date.timestamp_millis()).to_wire().into()
            }
            _ => Value::Null,
        }
    }
    let mut wire: Map<String, Value> =
        node.iter().filter(|(key, _)| *key != "_id").map(|(key, value)| (key.clone(), json(value))).collect();
    wire.insert("revision".into(), 1.into());
    wire
}

/// Puts documents where the server, which does not run, will find them.
async fn put_there(server: &Server, documents: &[Document]) {
    match server.backend() {
        Backend::Production => {
            let nodes = server.mongo().await.collection::<Document>("node");
            for document in documents {
                nodes.insert_one(document).await.expect("written");
            }
        }
        Backend::Embedded => {
            let mut file =
                rusqlite::Connection::open(server.folder().join("kernelci.db")).expect("a database");
            let all = file.transaction().expect("a transaction");
            for document in documents {
                let json = Value::Object(wire(document)).to_string();
                all.execute("INSERT INTO node (revision, doc) VALUES (1, jsonb(?))", [json])
                    .expect("written");
            }
            all.commit().expect("written");
        }
    }
}

/// Whether all that `old` holds is in `new`: hierarchies fill in what is absent.
fn holds(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            old.iter().all(|(key, old)| new.get(key).is_some_and(|new| holds(new, old)))
        }
        _ => new == old,
    }
}

#[apply(both_backends!)]
async fn whatever_get_gives_put_takes_and_nothing_else_changes(backend: Backend) {
    let mut server = Server::start_apart(backend, &[]).await;
    assert!(server.terminate().await.success());
    let seed = std::env::var("FAULT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut past = Past { random: StdRng::seed_from_u64(seed), foreign: backend == Backend::Production };
    let mut documents: Vec<Document> = (0..MANY).map(|_| past.node()).collect();
    // The last is as large as there may be, with what is added to it.
    documents.extend([1 << 20, 5 << 20, (16 << 20) - (16 << 10)].map(|bytes| past.large(bytes)));
    put_there(&server, &documents).await;
    server.restart().await;
    let http = Http::admin(&server).await;
    for document in &documents {
        let id = document.get_object_id("_id").expect("an id");
        let path = format!("/latest/node/{id}");
        let before = http.get(&path).await.ok();
        assert_eq!(before["id"], id.to_hex());
        let short = |text: &str| text.chars().take(2000).collect::<String>();
        let same = |found: &Value, wanted: &Value, how: &str| {
            let (found, wanted) = (found.to_string(), wanted.to_string());
            assert!(
                found == wanted,
                "seed {seed}, {how}\nfound:  {}\nwanted: {}",
                short(&found),
                short(&wanted)
            );
        };

        let state = if before["state"] == "running" { "available" } else { "done" };
        let answer = http.put(&path, &but(&before, json!({"state": state}))).await;
        assert_eq!(
            answer.status,
            200,
            "seed {seed}: PUT {} of {}",
            short(&answer.text),
            short(&before.to_string())
        );
        let put = answer.json;
        // Contract 3.3.
        let wanted = json!({"state": state, "processed_by_kcidb_bridge": false, "updated": put["updated"]});
        same(&put, &but(&before, wanted), "PUT answers");
        same(&http.get(&path).await.ok(), &put, "GET after PUT");

        let answer = http.patch(&path, &json!({"result": "fail", "data": put["data"]})).await;
        assert_eq!(
            answer.status,
            200,
            "seed {seed}: PATCH {} of {}",
            short(&answer.text),
            short(&put.to_string())
        );
        let patched = answer.json;
        same(&patched, &but(&put, json!({"result": "fail", "updated": patched["updated"]})), "PATCH answers");

        let tree = json!({"node": but(&patched, json!({"state": "done"})), "child_nodes": []});
        let answer = http.put(&format!("/latest/nodes/{id}"), &tree).await;
        assert_eq!(
            answer.status,
            200,
            "seed {seed}: PUT /nodes {} of {}",
            short(&answer.text),
            short(&patched.to_string())
        );
        let node = &answer.json[0];
        assert!(
            holds(&node["data"], &patched["data"]),
            "seed {seed}: {} of {}",
            short(&node["data"].to_string()),
            short(&patched["data"].to_string())
        );
        same(
            node,
            &but(&patched, json!({"state": "done", "data": node["data"], "updated": node["updated"]})),
            "PUT /nodes",
        );
    }
}
