//! A database that KernelCI wrote, in both of its shapes (contract 7.5), put there by hand: it opens, is read, is
//! updated, and stays what the present server accepts.

use bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use serde_json::{Value, json};

use crate::support::{Backend, Http, Server, until};

fn oid(last: u8) -> ObjectId {
    ObjectId::from_bytes([0x65, 0xa1, 0x2b, 0x3c, 0, 0, 0, 0, 0, 0, 0, last])
}

fn date(millis: i64) -> DateTime {
    DateTime::from_millis(millis)
}

const CREATED: i64 = 1_705_063_773_996;

/// As POST and PUT wrote it: `data` as it came, with ids and URLs as text. It was updated once, so it has `id` too.
fn generic() -> Document {
    doc! {
        "_id": oid(1), "id": oid(1), "kind": "checkout", "name": "checkout", "path": ["checkout"], "group": Bson::Null,
        "parent": Bson::Null, "state": "available", "result": Bson::Null,
        "artifacts": {"tarball": "https://files.example.org/linux.tar.gz"},
        "data": {
            "kernel_revision": {
                "tree": "mainline", "url": "https://git.example.org/linux", "branch": "master", "commit": "0dd3ee31125508cd67f7e7172247f05b7fd1753a",
                "describe": "v6.7", "version": {"version": "6", "patchlevel": "7"},
            },
            "tree_priority": "high",
        },
        "debug": {}, "jobfilter": Bson::Null, "platform_filter": [],
        "created": date(CREATED), "updated": date(CREATED + 1000), "timeout": date(CREATED + 21_600_000),
        "holdoff": date(CREATED + 600_000), "owner": "production", "submitter": "service:pipeline", "treeid": "cafe",
        "user_groups": [], "processed_by_kcidb_bridge": false, "retry_counter": 0,
    }
}

/// As hierarchies wrote it: `data` filled with nulls, ids in it as ObjectIds.
fn specialised() -> Document {
    doc! {
        "_id": oid(2), "kind": "test", "name": "baseline", "path": ["checkout", "baseline"], "group": "baseline-x86",
        "parent": oid(1), "state": "done", "result": "fail", "artifacts": Bson::Null,
        "data": {
            "error_code": Bson::Null, "error_msg": Bson::Null, "test_source": Bson::Null, "test_revision": Bson::Null,
            "platform": "qemu", "device": Bson::Null, "runtime": "lava-old", "job_id": "123", "job_context": Bson::Null,
            "regression": oid(3), "kernel_revision": Bson::Null, "arch": "x86_64", "defconfig": Bson::Null,
            "config_full": Bson::Null, "compiler": Bson::Null, "kernel_type": Bson::Null, "misc": {},
        },
        "debug": Bson::Null, "jobfilter": ["a"], "platform_filter": Bson::Null,
        "created": date(CREATED + 60_000), "updated": date(CREATED + 61_000), "timeout": date(CREATED + 21_660_000),
        "holdoff": Bson::Null, "owner": "production", "submitter": Bson::Null, "treeid": "cafe",
        "user_groups": ["old-team"], "processed_by_kcidb_bridge": true, "retry_counter": 1,
    }
}

/// A regression, as a migration left it.
fn regression() -> Document {
    doc! {
        "_id": oid(3), "id": oid(3), "kind": "regression", "name": "baseline", "path": ["checkout", "baseline"], "state": "done",
        "data": {"fail_node": oid(2), "pass_node": oid(4), "node_sequence": [oid(2), oid(4)]},
        "created": date(CREATED), "updated": date(CREATED), "timeout": date(CREATED),
    }
}

/// From the first days: no kind in particular, newer fields missing; and a flag that a batch has spoiled (D-9).
fn oldest() -> Document {
    doc! {
        "_id": oid(4), "kind": "node", "name": "ancient", "path": ["ancient"], "owner": "production", "legacy": {"kept": true},
        "processed_by_kcidb_bridge": "maybe", "artifacts": {"log": "HTTP://Files.example.org:80/a b"},
    }
}

async fn nodes(server: &Server) -> mongodb::Collection<Document> {
    server.mongo().await.collection("node")
}

/// A server on a database that was there before.
async fn server() -> Server {
    let mut server = Server::start_apart(Backend::Production, &[]).await;
    assert!(server.terminate().await.success());
    nodes(&server)
        .await
        .insert_many([generic(), specialised(), regression(), oldest()])
        .await
        .expect("written");
    let group = ObjectId::new();
    let database = server.mongo().await;
    database
        .collection("usergroup")
        .insert_one(doc! {"_id": group, "name": "old-team"})
        .await
        .expect("written");
    // Both spellings of the id of a group occur.
    for (last, name, member) in [(8, "one", "id"), (9, "two", "_id")] {
        let user = doc! {
            "_id": oid(last), "id": oid(last), "revision_id": Bson::Null, "email": format!("{name}@example.org"),
            "hashed_password": "$2b$12$abcdefghijklmnopqrstuuQ0t0t0t0t0t0t0t0t0t0t0t0t0t0t0t", "is_active": true,
            "is_superuser": false, "is_verified": true, "username": name, "groups": [{member: group, "name": "old-team"}],
        };
        database.collection("user").insert_one(user).await.expect("written");
    }
    server.restart().await;
    server
}

/// The document, when its events have gone into the log.
async fn settled(server: &Server, id: ObjectId) -> Document {
    let nodes = nodes(server).await;
    until("its events go into the log", async || {
        let found = nodes.find_one(doc! {"_id": id}).await.expect("reads").expect("a document");
        if found.get_array("outbox").is_ok_and(|events| !events.is_empty()) { Err(found) } else { Ok(found) }
    })
    .await
}

/// Whether the model of contract 2.1 reads the document, and can write it out again (D-31).
fn accepted(node: &Document) -> Result<(), String> {
    let is_text = |value: &Bson| matches!(value, Bson::String(_));
    let is_texts = |value: &Bson| value.as_array().is_some_and(|list| list.iter().all(is_text));
    let is_null = |value: &Bson| *value == Bson::Null;
    let is_date = |value: &Bson| matches!(value, Bson::DateTime(_));
    let id = node.get_object_id("_id").map_err(|error| error.to_string())?;
    for (key, value) in node {
        let good = match key.as_str() {
            "_id" | "id" => *value == Bson::ObjectId(id),
            "kind" | "name" => is_text(value),
            "path" | "user_groups" => is_texts(value),
            "group" | "owner" | "submitter" | "treeid" => is_text(value) || is_null(value),
            "parent" => matches!(value, Bson::ObjectId(_)) || is_null(value),
            "state" => matches!(value.as_str(), Some("running" | "available" | "closing" | "done")),
            "result" => {
                matches!(value.as_str(), Some("pass" | "fail" | "skip" | "incomplete")) || is_null(value)
            }
            "artifacts" => {
                is_null(value)
                    || value.as_document().is_some_and(|all| {
                        all.values().all(|url| url.as_str().is_some_and(|url| url.starts_with("http")))
                    })
            }
            "data" | "debug" => is_null(value) || (value.as_document().is_some() && is_plain(value)),
            "jobfilter" | "platform_filter" => is_null(value) || is_texts(value),
            "created" | "updated" | "timeout" => is_date(value),
            "holdoff" => is_null(value) || is_date(value),
            "processed_by_kcidb_bridge" => matches!(value, Bson::Boolean(_)),
            "retry_counter" => matches!(value, Bson::Int32(_) | Bson::Int64(_)),
            // Fields that it does not know are no matter to it.
            _ => true,
        };
        if !good {
            return Err(format!("{key}: {value}"));
        }
    }
    Ok(())
}

/// Nothing in it but what JSON has.
fn is_plain(value: &Bson) -> bool {
    match value {
        Bson::Document(document) => document.values().all(is_plain),
        Bson::Array(items) => items.iter().all(is_plain),
        Bson::ObjectId(_) | Bson::DateTime(_) => false,
        _ => true,
    }
}

#[tokio::test]
async fn both_shapes_are_read() {
    let server = server().await;
    let http = Http::new(&server);
    let page = http.get("/latest/nodes").await.ok();
    assert_eq!(page["total"], 4);
    let kinds: Vec<&Value> =
        page["items"].as_array().expect("items").iter().map(|node| &node["kind"]).collect();
    assert_eq!(kinds, ["checkout", "test", "regression", "node"], "none of them spoils the page");
    assert!(
        page["items"]
            .as_array()
            .expect("items")
            .iter()
            .all(|node| node.as_object().is_some_and(|node| node.len() == 23))
    );
    let get = async |last: u8| http.get(&format!("/latest/node/{}", oid(last))).await.ok();
    assert_eq!(
        get(1).await,
        json!({
            "id": oid(1).to_hex(), "kind": "checkout", "name": "checkout", "path": ["checkout"], "group": null, "parent": null,
            "state": "available", "result": null, "artifacts": {"tarball": "https://files.example.org/linux.tar.gz"},
            "data": {
                "kernel_revision": {
                    "tree": "mainline", "url": "https://git.example.org/linux", "branch": "master",
                    "commit": "0dd3ee31125508cd67f7e7172247f05b7fd1753a", "describe": "v6.7", "version": {"version": "6", "patchlevel": "7"},
                },
                "tree_priority": "high",
            },
            "debug": {}, "jobfilter": null, "platform_filter": [], "created": "2024-01-12T12:49:33.996000",
            "updated": "2024-01-12T12:49:34.996000", "timeout": "2024-01-12T18:49:33.996000", "holdoff": "2024-01-12T12:59:33.996000",
            "owner": "production", "submitter": "service:pipeline", "treeid": "cafe", "user_groups": [],
            "processed_by_kcidb_bridge": false, "retry_counter": 0,
        })
    );
    let test = get(2).await;
    assert_eq!(
        (&test["parent"], &test["data"]["regression"]),
        (&json!(oid(1).to_hex()), &json!(oid(3).to_hex()))
    );
    assert_eq!(
        (&test["artifacts"], &test["debug"], &test["platform_filter"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let regression = get(3).await;
    assert_eq!(regression["data"]["node_sequence"], json!([oid(2).to_hex(), oid(4).to_hex()]));
    let oldest = get(4).await;
    assert_eq!(oldest["artifacts"], json!({"log": "http://files.example.org/a%20b"}));
    assert_eq!(
        (&oldest["processed_by_kcidb_bridge"], &oldest["retry_counter"], &oldest["data"]),
        (&json!(false), &json!(0), &json!({}))
    );
    assert_eq!(oldest["created"], "2024-01-12T12:06:20", "when its id was made");
    for (query, count) in [
        (format!("parent={}", oid(1)), 1),
        ("parent=null".into(), 3),
        (format!("data.regression={}", oid(3)), 1),
        (format!("data.fail_node={}", oid(2)), 1),
        (format!("data.node_sequence={}", oid(4)), 1),
        ("created__lt=2024-01-12T12:50:00".into(), 2),
        ("holdoff__lt=2025-01-01T00:00:00%2B00:00".into(), 1),
        ("data.runtime=lava-old&processed_by_kcidb_bridge=True".into(), 1),
        ("kind=node".into(), 1),
    ] {
        assert_eq!(http.get(&format!("/latest/count?{query}")).await.ok(), count, "{query}");
    }
}

#[tokio::test]
async fn both_shapes_are_updated_and_stay_acceptable() {
    let server = server().await;
    let http = Http::admin(&server).await;
    let path = |last: u8| format!("/latest/node/{}", oid(last));
    // What GET returns is accepted by PUT; the rest by the other ways to write.
    for last in 1..=4 {
        let mut node = http.get(&path(last)).await.ok();
        node["debug"] = json!({"seen": true});
        let replaced = http.put(&path(last), &node).await;
        assert_eq!(
            (replaced.status, &replaced.headers["etag"]),
            (200, &"\"1\"".parse().expect("a value")),
            "{}",
            replaced.text
        );
        assert_eq!(http.patch(&path(last), &json!({"result": "pass"})).await.ok()["result"], "pass");
    }
    let mut oldest = http.get(&path(4)).await.ok();
    oldest["kind"] = "process".into();
    http.put(&path(4), &oldest).await.ok();
    let test = http.get(&path(2)).await.ok();
    let root = http.get(&path(1)).await.ok();
    let fresh = json!({"kind": "test", "name": "new", "path": ["checkout", "new"], "data": {"regression": oid(3).to_hex()}});
    let tree = json!({"node": root, "child_nodes": [{"node": test, "child_nodes": []}, {"node": fresh, "child_nodes": []}]});
    let written = http.put(&format!("/latest/nodes/{}", oid(1)), &tree).await.ok();
    assert_eq!((&written[1]["id"], &written[1]["owner"]), (&json!(oid(2).to_hex()), &json!("production")));
    let marked = json!({"nodes": [oid(2).to_hex(), oid(4).to_hex()], "field": "processed_by_kcidb_bridge", "value": "True"});
    assert_eq!(http.put("/latest/batch/nodeset", &marked).await.ok(), 2);

    for last in 1..=4 {
        let document = settled(&server, oid(last)).await;
        assert_eq!(accepted(&document), Ok(()), "{document}");
        assert!(!document.contains_key("outbox") || document.get_array("outbox").is_ok_and(Vec::is_empty));
    }
    let updated = settled(&server, oid(1)).await;
    assert_eq!(updated.get_object_id("id").ok(), Some(oid(1)), "the duplicate stays");
    assert_eq!(updated.get_datetime("created").ok(), Some(&date(CREATED)));
    let ancient = settled(&server, oid(4)).await;
    assert_eq!(ancient.get_document("legacy").ok(), Some(&doc! {"kept": true}), "what is not ours stays");
    let made: ObjectId = written[2]["id"].as_str().expect("an id").parse().expect("an id");
    let made = settled(&server, made).await;
    assert_eq!(accepted(&made), Ok(()), "{made}");
    assert_eq!(made.get_object_id("parent").ok(), Some(oid(1)));
    // Both shapes are found by the same query (contract D-7).
    assert_eq!(http.get(&format!("/latest/count?data.regression={}", oid(3))).await.ok(), 2);
}

#[tokio::test]
async fn old_users_keep_their_rights() {
    let server = server().await;
    for (last, name) in [(8, "one"), (9, "two")] {
        let token = server.sign(json!({"sub": oid(last).to_hex()})).await;
        let http = Http::new(&server).with(&token);
        assert_eq!(http.get("/latest/whoami").await.ok()["username"], name);
        assert_eq!(
            http.patch(&format!("/latest/node/{}", oid(2)), &json!({"debug": {"by": name}})).await.status,
            200
        );
        assert_eq!(http.patch(&format!("/latest/node/{}", oid(1)), &json!({"debug": {}})).await.status, 401);
    }
}
