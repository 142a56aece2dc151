//! Old nodes are removed (contract 7.4, D-13).

use macro_rules_attribute::apply;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Backend, Http, Server, both_backends, node};

const SETTINGS: [(&str, &str); 3] =
    [("NODE_PURGE_START_SECONDS", "1"), ("NODE_PURGE_INTERVAL_SECONDS", "1"), ("NODE_PURGE_PAUSE_MS", "1")];

/// Adds a node that was created so many days ago.
async fn old(http: &Http, kind: &str, name: &str, parent: Option<&Value>, days: i64) -> Value {
    let created = chrono::Utc::now() - chrono::Duration::days(days);
    let mut body = node(kind, name);
    body["created"] = created.format("%Y-%m-%dT%H:%M:%S%.3f").to_string().into();
    body["parent"] = parent.map_or(Value::Null, |parent| parent["id"].clone());
    http.post("/node", &body).await.ok()
}

/// Names of the nodes that there are, of the first thousand at least.
async fn names(http: &Http) -> Vec<String> {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "node.find", "params": {"limit": 1000, "fields": ["name"]}});
    let nodes = http.post("/rpc", &call).await.ok();
    let nodes = nodes["result"]["items"].as_array().expect("a list");
    let mut names: Vec<String> =
        nodes.iter().map(|node| node["name"].as_str().expect("a name").to_owned()).collect();
    names.sort_unstable();
    names
}

async fn purged(server: &Server) -> u64 {
    let text = Http::new(server).get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix("nodes_purged{instance=\"api\"} "));
    line.expect("the metric").parse().expect("a number")
}

async fn until_these_are_left(http: &Http, wanted: &[&str]) {
    let mut found = Vec::new();
    for _ in 0..300 {
        found = names(http).await;
        if found == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{found:?} are left, not {wanted:?}");
}

#[apply(both_backends!)]
async fn old_nodes_go_and_nobody_loses_a_parent(backend: Backend) {
    // Not before all of them are there: it would take those that have no children yet.
    let settings = [&SETTINGS[..], &[("NODE_PURGE_START_SECONDS", "15")]].concat();
    let server = Server::start_with(backend, &settings).await;
    let http = Http::admin(&server).await;
    let checkout = old(&http, "checkout", "checkout-old", None, 400).await;
    // Made by hand in an order that the ages contradict.
    let done = old(&http, "kbuild", "build-done", Some(&checkout), 300).await;
    old(&http, "job", "job-done", Some(&done), 290).await;
    let used = old(&http, "kbuild", "build-used", Some(&checkout), 200).await;
    let used = old(&http, "job", "job-used", Some(&used), 199).await;
    old(&http, "test", "test-young", Some(&used), 10).await;
    old(&http, "test", "test-old", Some(&used), 181).await;
    old(&http, "kbuild", "build-young", Some(&checkout), 179).await;
    let left = ["build-used", "build-young", "checkout-old", "job-used", "test-young"];
    until_these_are_left(&http, &left).await;
    // And they stay, purge after purge.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(names(&http).await, left);
    assert_eq!(purged(&server).await, 3);
    let events = http.get("/events?channel=node").await.ok();
    let ops: Vec<&Value> =
        events.as_array().expect("a list").iter().map(|event| &event["data"]["op"]).collect();
    assert_eq!(ops, ["created"; 8], "a purge tells nobody");
    assert!(server.log().contains("old nodes are purged"));
}

#[apply(both_backends!)]
async fn the_age_is_a_setting(backend: Backend) {
    let server =
        Server::start_with(backend, &[&SETTINGS[..], &[("NODE_PURGE_AGE_DAYS", "3")]].concat()).await;
    let http = Http::admin(&server).await;
    old(&http, "job", "older", None, 4).await;
    old(&http, "job", "younger", None, 2).await;
    until_these_are_left(&http, &["younger"]).await;
    let server =
        Server::start_with(backend, &[&SETTINGS[..], &[("NODE_PURGE_AGE_DAYS", "0")]].concat()).await;
    let http = Http::admin(&server).await;
    old(&http, "job", "ancient", None, 4000).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(names(&http).await, ["ancient"]);
}

#[tokio::test]
async fn of_two_instances_one_purges() {
    let quiet = Server::start_with(Backend::Production, &[("NODE_PURGE_START_SECONDS", "86400")]).await;
    let http = Http::admin(&quiet).await;
    let mut ws = quiet.admin().await;
    for part in 0..3 {
        let tree: Vec<Value> = (0..700)
            .map(|n| {
                let mut job = node("job", &format!("j{part}-{n}"));
                job["created"] = "2020-01-01T00:00:00".into();
                json!({"node": job, "child_nodes": []})
            })
            .collect();
        let root = old(&http, "checkout", &format!("c{part}"), None, 1).await;
        let tree = json!({"node": root, "child_nodes": tree});
        ws.call("node.submit", json!({"id": root["id"], "tree": tree})).await;
    }
    let settings = [
        &SETTINGS[..],
        &[
            ("MONGO_DB", quiet.setting("MONGO_DB").expect("a database")),
            ("REDIS_PREFIX", quiet.setting("REDIS_PREFIX").expect("a prefix")),
        ],
    ]
    .concat();
    let first = Server::start_with(Backend::Production, &settings).await;
    let second = Server::start_with(Backend::Production, &settings).await;
    until_these_are_left(&http, &["c0", "c1", "c2"]).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(purged(&first).await + purged(&second).await, 2100, "none was removed twice");
    assert_eq!(purged(&quiet).await, 0);
}
