//! An embedded server on a full disk: writes fail, the rest goes on, and it says so.

use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::support::{Http, PATIENCE, Raw, node};

/// Creates nodes until one fails; the error, and the names of those that were acknowledged.
async fn until_full(raw: &mut Raw) -> (Value, Vec<String>) {
    let mut acknowledged = Vec::new();
    loop {
        let name = format!("n{}", acknowledged.len());
        let mut new = node("checkout", &name);
        new["data"] = json!({"error_msg": "x".repeat(10_000)});
        let answer = raw.try_request("node.create", json!({"node": new})).await.expect("the session lives");
        match answer["error"].is_null() {
            true => acknowledged.push(name),
            false => return (answer["error"].clone(), acknowledged),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_no_writes_and_harms_nothing() {
    let mut cluster = Cluster::embedded_with("25000").await;
    let Some(disk) = &cluster.disk else { return };
    let http = Http::new(&cluster.servers[0]);
    let mut raw = cluster.servers[0].admin().await;
    let mut watching = cluster.servers[0].admin().await;
    watching.call("event.subscribe", json!({"sub": 1})).await;

    disk.fill();
    let (error, mut written) = until_full(&mut raw).await;
    assert_eq!(
        (&error["data"]["status"], &error["data"]["temporary"]),
        (&json!(503), &json!(true)),
        "{error}"
    );
    let told = raw.next_notification("session.degraded", PATIENCE).await;
    assert_eq!(told, json!({"parts": ["writes"]}));
    let ready = http.get("/latest/ready").await;
    assert_eq!(
        (ready.status, &ready.json["store"]["ok"], &ready.json["log"]["ok"]),
        (503, &json!(false), &json!(true))
    );
    assert!(
        ready.json["store"]["writes"].as_str().is_some_and(|text| text.contains("full")),
        "{}",
        ready.text
    );
    assert_eq!(http.get("/latest/health").await.status, 200);
    // Whoever reads notices nothing, and new ones come.
    assert_eq!(raw.call("node.count", json!({})).await["count"], written.len());
    let mut late = cluster.servers[0].admin().await;
    late.call("event.subscribe", json!({"sub": 1, "from": "earliest"})).await;
    for reader in [&mut watching, &mut late] {
        for name in &written {
            assert_eq!(reader.event(1).await["event"]["data"]["name"], name.as_str());
        }
    }

    disk.clear();
    raw.next_notification("session.recovered", PATIENCE).await;
    assert_eq!(http.get("/latest/ready").await.status, 200);
    raw.call("node.create", json!({"node": node("checkout", "after")})).await;
    written.push("after".to_owned());
    for reader in [&mut watching, &mut late] {
        assert_eq!(
            reader.event(1).await["event"]["data"]["name"],
            "after",
            "no event of a write that failed"
        );
    }
    // What is in the file is what was acknowledged, also after a kill.
    cluster.servers[0].kill9();
    cluster.servers[0].restart().await;
    let mut raw = cluster.servers[0].admin().await;
    let found = raw.call("node.find", json!({"limit": 1000, "sort": ["created"], "fields": ["name"]})).await;
    let names: Vec<&str> =
        found["items"].as_array().expect("items").iter().filter_map(|node| node["name"].as_str()).collect();
    let (mut names, mut written) = (names, written.iter().map(String::as_str).collect::<Vec<_>>());
    names.sort_unstable();
    written.sort_unstable();
    assert_eq!(names, written);
}
