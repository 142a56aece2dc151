//! A client that leaves while the store is slow: what it only wanted to know is not looked up any further, what it has
//! asked to be written is written, and the session itself waits for nothing.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::cluster::Cluster;
use super::services::Keeps;
use crate::support::{Http, Mode, PATIENCE, node, until};

/// How many such operations have been answered.
async fn answered(http: &Http, operation: &str) -> u64 {
    let metrics = http.get("/latest/metrics").await.text;
    let label = format!("operation=\"{operation}\"");
    let lines =
        metrics.lines().filter(|line| line.starts_with("kernelci_requests_total{") && line.contains(&label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_end_with_their_client_and_writes_run_on() {
    const READS: u64 = 30;
    let mut cluster = Cluster::production_with(1, 1, Keeps::Nothing, &[]).await;
    let token = cluster.servers[0].token().await.to_owned();
    let http = Http::admin(&cluster.servers[0]).await;
    let mut session = cluster.servers[0].admin().await;
    let mut rest = TcpStream::connect(("127.0.0.1", cluster.servers[0].port())).await.expect("connects");

    // Whose token it is is known: what is asked for begins at once.
    assert_eq!(http.get("/latest/whoami").await.status, 200);
    let slow = Mode::Delay(Duration::from_millis(700));
    cluster.below().to_mongo.iter().for_each(|way| way.set(slow));
    let body = node("checkout", "by rest").to_string();
    let head = format!(
        "POST /latest/node HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    rest.write_all((head + &body).as_bytes()).await.expect("sent");
    session.send_request("node.create", json!({"node": node("checkout", "by session")})).await.expect("sent");
    for _ in 0..READS {
        session.send_request("node.find", json!({"filter": {"kind": "kbuild"}})).await.expect("sent");
    }
    // hyper lets go of a request whose client leaves before its body has been taken; the write takes seven times as long.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop((session, rest));
    let names = until("both have been written", async || {
        let found = http.get("/latest/nodes?kind=checkout").await.json;
        let items = found["items"].as_array().cloned().unwrap_or_default();
        let names: Vec<_> = items.iter().map(|node| node["name"].clone()).collect();
        if names.len() == 2 { Ok(names) } else { Err(found) }
    })
    .await;
    assert!(names.contains(&json!("by session")) && names.contains(&json!("by rest")), "{names:?}");
    // They were asked for before what has just been answered.
    let read = answered(&http, "node.find").await;
    assert!(read < READS, "{read} have been read for nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_waits_for_nothing_itself() {
    let settings = [("PING_INTERVAL_MS", "300")];
    let mut cluster = Cluster::production_with(1, 1, Keeps::Nothing, &settings).await;
    let token = cluster.servers[0].token().await.to_owned();
    let mut session = cluster.servers[0].admin().await;
    session.call("event.subscribe", json!({"sub": 1, "channel": "lab", "durable": "d"})).await;
    session.call("event.publish", json!({"channel": "lab", "data": 1})).await;
    session.event(1).await;
    cluster.below().to_mongo.iter().for_each(|way| way.set(Mode::BlackHole));
    for _ in 0..60 {
        session.send_request("event.ack", json!({"sub": 1, "seq": 1})).await.expect("sent");
    }
    session.send_request("session.hello", json!({"token": token})).await.expect("sent");
    // Twice as long as a session that hears nothing lives.
    session.answer_pings(6).await;
    cluster.below().to_mongo.iter().for_each(|way| way.set(Mode::Pass));
    let last = session.wait_for(PATIENCE, |message| message["id"].as_u64().is_some_and(|id| id > 60)).await;
    last.expect("the session goes on");
}
