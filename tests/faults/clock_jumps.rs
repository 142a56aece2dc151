//! A server whose wall clock is set a day forward or back while it works: nothing is lost, nothing changes its order.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::fault::DAY;
use super::services::Keeps;
use crate::support::{Backend, Http, Raw, eventually, node};

async fn create(raw: &mut Raw, name: &str) -> Value {
    raw.call("node.create", json!({"node": node("checkout", name)})).await
}

fn time(event: &Value) -> DateTime<Utc> {
    let text = event["event"]["time"].as_str().expect("a time");
    DateTime::parse_from_rfc3339(text).expect("RFC 3339").to_utc()
}

/// What a member gave back while the clock was a day ahead is not held back for that day.
async fn group(cluster: &Cluster) {
    let (server, clock) = (&cluster.servers[0], &cluster.clocks[0]);
    let subscribe = json!({"sub": 1, "channel": "jobs", "durable": "jump", "group": true, "from": "earliest",
        "ack_wait_ms": 1000});
    let mut raw = server.admin().await;
    raw.call("event.publish", json!({"channel": "jobs", "data": 1})).await;
    let mut first = server.admin().await;
    first.call("event.subscribe", subscribe.clone()).await;
    assert_eq!(first.event(1).await["deliveries"], 1);
    clock.shift(DAY);
    // Its lease ends, by a clock that the group has looked at several times meanwhile.
    assert_eq!(first.event(1).await["deliveries"], 2);
    drop(first);
    eventually("the member has left", async || {
        raw.call("consumer.get", json!({"name": "jump"})).await["group"]["members"] == 0
    })
    .await;
    clock.shift(0);
    let mut second = server.admin().await;
    second.call("event.subscribe", subscribe).await;
    assert_eq!(second.event(1).await["event"]["data"], 1);
}

async fn jump(cluster: Cluster) {
    group(&cluster).await;
    let (server, clock) = (&cluster.servers[0], &cluster.clocks[0]);
    let before = Utc::now() - TimeDelta::seconds(1);
    let (mut raw, mut short) = (server.admin().await, server.connect().await);
    raw.call("event.subscribe", json!({"sub": 1})).await;
    let token = server.token_for(3600).await;
    short.call("session.hello", json!({"token": token})).await;
    let http = Http::new(server).with(&token);

    let first = create(&mut raw, "a").await;
    clock.shift(DAY);
    create(&mut raw, "b").await;
    assert_eq!(http.get("/latest/whoami").await.status, 401, "the token has ended");
    short.fail("node.create", json!({"node": node("checkout", "no")})).await;
    clock.shift(-DAY);
    create(&mut raw, "c").await;
    let set = json!({"data": {"error_msg": "again"}});
    raw.call("node.update", json!({"id": first["id"], "set": set})).await;
    clock.shift(0);
    create(&mut raw, "d").await;
    assert_eq!(http.get("/latest/whoami").await.status, 200, "its time is not over");

    let mut events = Vec::new();
    for seq in 1..=5 {
        let event = raw.event(1).await;
        assert_eq!(event["seq"], seq, "{event}");
        events.push(event);
    }
    let names: Vec<&Value> = events.iter().map(|event| &event["event"]["data"]["name"]).collect();
    assert_eq!(names, ["a", "b", "c", "a", "d"]);
    // The order of time is that of places. In production all instances have one clock, which has not jumped.
    let times: Vec<DateTime<Utc>> = events.iter().map(time).collect();
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    let day = TimeDelta::seconds(DAY - 3600);
    assert_eq!(times[1] > before + day, server.backend() == Backend::Embedded, "{times:?}");
    assert!(times[4] - times[1] < day, "the clock's way back takes none along: {times:?}");
    // A place in time never lies behind an event of that time or later, whatever the clock said in between.
    for from in [json!("earliest"), json!({"time": before.to_rfc3339()})] {
        let mut late = server.anonymous().await;
        let answer = late.call("event.subscribe", json!({"sub": 1, "from": from})).await;
        assert_eq!((&answer["recovered"], &answer["position"]["seq"]), (&json!(true), &json!(0)), "{answer}");
        for event in &events {
            assert_eq!(late.event(1).await["event"], event["event"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_an_embedded_server_jumps() {
    jump(Cluster::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_an_instance_jumps() {
    jump(Cluster::production(1, 1, Keeps::Nothing).await).await;
}
