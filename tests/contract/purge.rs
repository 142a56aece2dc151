//! Old nodes are removed (contract 7.4, D-13).

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, Http, Server, both_backends, eventually, in_pairs, node, until};

const SETTINGS: [(&str, &str); 3] =
    [("NODE_PURGE_START_SECONDS", "1"), ("NODE_PURGE_INTERVAL_SECONDS", "1"), ("NODE_PURGE_PAUSE_MS", "1")];

fn days_ago(days: i64) -> String {
    let then = chrono::Utc::now() - chrono::Duration::days(days);
    then.format("%Y-%m-%dT%H:%M:%S%.3f").to_string()
}

/// Adds a node that was created so many days ago.
async fn old(http: &Http, kind: &str, name: &str, parent: Option<&Value>, days: i64) -> Value {
    let mut body = node(kind, name);
    body["created"] = days_ago(days).into();
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
    until("the old ones go", async || {
        let found = names(http).await;
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
}

/// How many purges have come to their end.
fn purges(servers: &[&Server]) -> usize {
    servers.iter().map(|server| server.log().matches("old nodes are purged").count()).sum()
}

/// Waits until one of these servers has purged once more, from its beginning to its end.
async fn another_purge(servers: &[&Server]) {
    let before = purges(servers);
    eventually("another purge", async || purges(servers) >= before + 2).await;
}

#[apply(both_backends!)]
async fn old_nodes_go_and_nobody_loses_a_parent(backend: Backend) {
    let server = Server::start_with(backend, &SETTINGS).await;
    let http = Http::admin(&server).await;
    let checkout = old(&http, "checkout", "checkout-old", None, 400).await;
    let below = |kind: &str, name: &str, days: i64, children: Value| {
        let mut node = node(kind, name);
        node["created"] = days_ago(days).into();
        json!({"node": node, "child_nodes": children})
    };
    // All at once: a purge in between would take those that have no children yet.
    let tree = json!([
        below("kbuild", "build-done", 300, json!([below("job", "job-done", 290, json!([]))])),
        below(
            "kbuild",
            "build-used",
            200,
            json!([below(
                "job",
                "job-used",
                199,
                json!([
                    below("test", "test-young", 10, json!([])),
                    below("test", "test-old", 181, json!([])),
                ])
            ),])
        ),
        below("kbuild", "build-young", 179, json!([])),
    ]);
    let submit = json!({"id": checkout["id"], "tree": {"node": checkout, "child_nodes": tree}});
    server.admin().await.call("node.submit", submit).await;
    let told = async || http.get("/events?channel=node").await.ok().as_array().expect("a list").len();
    let left = ["build-used", "build-young", "checkout-old", "job-used", "test-young"];
    until_these_are_left(&http, &left).await;
    // And they stay, purge after purge.
    another_purge(&[&server]).await;
    assert_eq!(names(&http).await, left);
    assert_eq!(purged(&server).await, 3);
    // One when the root was created, one when it was submitted, and the last one.
    let marker = old(&http, "checkout", "marker", None, 0).await;
    eventually("the history has all", async || {
        let events = http.get("/events?channel=node").await.ok();
        events.as_array().expect("a list").iter().any(|event| event["data"]["id"] == marker["id"])
    })
    .await;
    assert_eq!(told().await, 3, "a purge tells nobody");
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
    // It does not begin, so there is no purge to wait for.
    eventually("it says so", async || server.log().contains("nodes are kept for ever")).await;
    assert_eq!((names(&http).await, purges(&[&server])), (vec!["ancient".to_owned()], 0));
}

#[apply(in_pairs!)]
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
    another_purge(&[&first, &second]).await;
    assert_eq!(purged(&first).await + purged(&second).await, 2100, "none was removed twice");
    assert_eq!(purged(&quiet).await, 0);
}
