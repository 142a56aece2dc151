//! Services that answer and take no writes: as good as away, and told of in the same way.

use bson::doc;
use serde_json::json;

use super::cluster::Cluster;
use super::services::Keeps;
use crate::support::{Http, PATIENCE, node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_refuses_writes_is_told_of_as_if_it_were_away() {
    let settings = [("DRAIN_MS", "500"), ("PING_INTERVAL_MS", "25000")];
    let mut cluster = Cluster::production_with(1, 1, Keeps::Nothing, &settings).await;
    let mut raw = cluster.servers[0].admin().await;
    let http = Http::new(&cluster.servers[0]);
    raw.call("event.subscribe", json!({"sub": 1})).await;
    let create = json!({"node": node("checkout", "a")});

    // No memory; a replica since a failover; no replica to keep what is written.
    for (breaks, mends) in [
        (&["CONFIG", "SET", "maxmemory", "1"][..], &["CONFIG", "SET", "maxmemory", "0"][..]),
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
        (&["CONFIG", "SET", "min-replicas-to-write", "1"], &["CONFIG", "SET", "min-replicas-to-write", "0"]),
    ] {
        cluster.below().redis.command(breaks).await;
        let told = raw.next_notification("session.degraded", PATIENCE).await;
        assert_eq!(told, json!({"parts": ["log"]}), "{breaks:?}");
        let ready = http.get("/latest/ready").await;
        let is_ok = |part: &str| ready.json[part]["ok"].clone();
        assert_eq!(
            (ready.status, is_ok("store"), is_ok("log")),
            (503, json!(true), json!(false)),
            "{breaks:?}"
        );
        let error = raw.fail("event.subscribe", json!({"sub": 2})).await;
        assert_eq!((&error["data"]["status"], &error["data"]["temporary"]), (&json!(503), &json!(true)));
        // Writes go on, and their events follow.
        let written = raw.call("node.create", create.clone()).await;
        cluster.below().redis.command(mends).await;
        raw.next_notification("session.recovered", PATIENCE).await;
        assert_eq!(raw.event(1).await["event"]["subject"], written["id"], "{breaks:?}");
        assert_eq!(http.get("/latest/ready").await.status, 200);
    }

    cluster.below().mongo.command(doc! {"fsync": 1, "lock": true}).await;
    let told = raw.next_notification("session.degraded", PATIENCE).await;
    assert_eq!(told, json!({"parts": ["writes"]}));
    let ready = http.get("/latest/ready").await;
    assert_eq!(
        (ready.status, &ready.json["store"]["ok"], &ready.json["log"]["ok"]),
        (503, &json!(false), &json!(true))
    );
    assert_eq!(http.get("/latest/health").await.status, 200);
    let error = raw.fail("node.create", create.clone()).await;
    assert_eq!(
        (&error["data"]["status"], &error["data"]["detail"]),
        (&json!(503), &json!("nothing can be written now, try again"))
    );
    cluster.below().mongo.command(doc! {"fsyncUnlock": 1}).await;
    raw.next_notification("session.recovered", PATIENCE).await;
    let written = raw.call("node.create", create).await;
    assert_eq!(raw.event(1).await["event"]["subject"], written["id"]);
    assert_eq!(http.get("/latest/ready").await.status, 200);
}
