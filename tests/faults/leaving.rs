//! A client that leaves while the store is slow: what it only wanted to know is not looked up any further, what it has
//! asked to be written is written, and the session itself waits for nothing.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::cluster::Cluster;
use super::services::Keeps;
use crate::support::{Http, Mode, PATIENCE, eventually, node, until};

async fn running(http: &Http) -> u64 {
    let metrics = http.get("/latest/metrics").await.text;
    let line = metrics.lines().find(|line| line.starts_with("kernelci_requests_running{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).expect("the gauge") as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_end_with_their_client_and_writes_run_on() {
    let settings = [("PING_INTERVAL_MS", "60000")];
    let mut cluster = Cluster::production_with(1, 1, Keeps::Nothing, &settings).await;
    let token = cluster.servers[0].token().await.to_owned();
    let http = Http::admin(&cluster.servers[0]).await;
    let mut session = cluster.servers[0].admin().await;
    session.call("event.subscribe", json!({"sub": 1})).await;
    let mut rest = TcpStream::connect(("127.0.0.1", cluster.servers[0].port())).await.expect("connects");

    cluster.below().to_mongo.iter().for_each(|way| way.set(Mode::BlackHole));
    // The session's own write, and others' that come by REST.
    session.send_request("node.create", json!({"node": node("checkout", "by session")})).await.expect("sent");
    let body = json!(node("checkout", "by rest")).to_string();
    let head = format!(
        "POST /latest/node HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    rest.write_all((head + &body).as_bytes()).await.expect("sent");
    for _ in 0..31 {
        session.send_request("node.find", json!({"filter": {"kind": "kbuild"}})).await.expect("sent");
    }
    eventually("all of them wait", async || running(&http).await == 33).await;
    drop((session, rest));
    eventually("nobody waits any more", async || running(&http).await == 0).await;

    cluster.below().to_mongo.iter().for_each(|way| way.set(Mode::Pass));
    let names = until("both have been written", async || {
        let found = http.get("/latest/nodes?kind=checkout").await.json;
        let items = found["items"].as_array().cloned().unwrap_or_default();
        let names: Vec<_> = items.iter().map(|node| node["name"].clone()).collect();
        if names.len() == 2 { Ok(names) } else { Err(found) }
    })
    .await;
    assert!(names.contains(&json!("by session")) && names.contains(&json!("by rest")), "{names:?}");
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
