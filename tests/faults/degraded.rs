//! While a part is away, everybody is told, what needs it fails at once, and the rest goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::services::Keeps;
use crate::support::{Http, Mode, PATIENCE, Raw, node};

/// What counts as at once on a busy machine; a request that waits for a timeout takes longer.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// The best of several tries is at once: machines stand still now and then.
async fn at_once(what: &str, mut attempt: impl AsyncFnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        attempt().await;
        best = best.min(begun.elapsed());
        if best < AT_ONCE {
            return;
        }
    }
    panic!("{what} takes {best:?}");
}

/// The error of a request that has to fail at once.
async fn fails_at_once(raw: &mut Raw, method: &str, params: Value) {
    let fails = async || {
        let error = raw.fail(method, params.clone()).await;
        assert_eq!(
            (&error["data"]["status"], &error["data"]["temporary"]),
            (&json!(503), &json!(true)),
            "{error}"
        );
    };
    at_once(method, fails).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_away_is_told_of_and_not_waited_for() {
    // Other requests take longer than a session of the usual clusters may be silent.
    let settings = [("DRAIN_MS", "500"), ("PING_INTERVAL_MS", "25000")];
    let mut cluster = Cluster::production_with(1, 1, Keeps::Nothing, &settings).await;
    let mut raw = cluster.servers[0].admin().await;
    let http = Http::new(&cluster.servers[0]);
    raw.call("event.subscribe", json!({"sub": 1})).await;
    let create = json!({"node": node("checkout", "a")});

    for mode in [Mode::BlackHole, Mode::Refuse] {
        cluster.below().to_redis[0].set(mode);
        cluster.below().to_redis[0].cut();
        let told = raw.next_notification("session.degraded", PATIENCE).await;
        assert_eq!(told, json!({"parts": ["log"]}));
        let ready = http.get("/latest/ready").await;
        let is_ok = |part: &str| ready.json[part]["ok"].clone();
        assert_eq!((ready.status, is_ok("store"), is_ok("log")), (503, json!(true), json!(false)));
        fails_at_once(&mut raw, "event.subscribe", json!({"sub": 2})).await;
        // Writes go on, and their events follow.
        let written = raw.call("node.create", create.clone()).await;
        let publishes = async || {
            let published = raw.call("event.publish", json!({"channel": "c", "data": 1})).await;
            assert_eq!(published["seq"], Value::Null);
        };
        at_once("publishing", publishes).await;
        cluster.below().to_redis[0].set(Mode::Pass);
        raw.next_notification("session.recovered", PATIENCE).await;
        assert_eq!(raw.event(1).await["event"]["subject"], written["id"]);
    }

    for mode in [Mode::BlackHole, Mode::Refuse] {
        cluster.below().to_mongo[0].set(mode);
        cluster.below().to_mongo[0].cut();
        let told = raw.next_notification("session.degraded", PATIENCE).await;
        assert_eq!(told, json!({"parts": ["store"]}));
        let ready = http.get("/latest/ready").await;
        let is_ok = |part: &str| ready.json[part]["ok"].clone();
        assert_eq!((ready.status, is_ok("store"), is_ok("log")), (503, json!(false), json!(true)));
        for (method, params) in [("node.create", create.clone()), ("node.find", json!({}))] {
            fails_at_once(&mut raw, method, params).await;
        }
        let mut late = cluster.servers[0].connect().await;
        late.call("session.hello", json!({})).await;
        let told = late.next_notification("session.degraded", PATIENCE).await;
        assert_eq!(told, json!({"parts": ["store"]}), "also those who come later");
        late.call("event.subscribe", json!({"sub": 1})).await;
        cluster.below().to_mongo[0].set(Mode::Pass);
        raw.next_notification("session.recovered", PATIENCE).await;
        let written = raw.call("node.create", create.clone()).await;
        assert_eq!(raw.event(1).await["event"]["subject"], written["id"]);
    }
}
