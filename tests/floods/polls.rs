//! Long polls whose clients leave.

use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::looks::{At, at_rest, is_back};
use super::{Bystander, head, metric, post, says, text};
use crate::support::{Backend, Http, Raw, Server, both_backends_in_pairs, until};

const POLLS: usize = 12;

/// The status of a poll that does not wait.
async fn status(http: &Http) -> u64 {
    let request =
        json!({"jsonrpc": "2.0", "id": 1, "method": "queue.pop", "params": {"list": "empty", "wait_ms": 0}});
    let answer = http.post("/latest/rpc", &request).await;
    answer.json["error"]["data"]["status"].as_u64().unwrap_or_default()
}

/// A poll that waits, on each way.
async fn polls(server: &Server, http: &Http, token: &str, number: usize) -> TcpStream {
    let pop =
        json!({"jsonrpc": "2.0", "id": 1, "method": "queue.pop", "params": {"list": "empty"}}).to_string();
    match number % 4 {
        0 => says(server, head("GET /latest/pop/empty", Some(token), "").as_bytes()).await,
        1 => says(server, post("/latest/rpc", Some(token), &pop).as_bytes()).await,
        2 => {
            let session: Raw = server.admin().await;
            let mut stream = session.into_stream();
            tokio::io::AsyncWriteExt::write_all(&mut stream, &text(&pop)).await.expect("sent");
            stream
        }
        _ => {
            let path = format!("/latest/subscribe/lab?subscriber_id=poll-{number}");
            let id = http.post(&path, &Value::Null).await.ok()["id"].clone();
            says(server, head(&format!("GET /latest/listen/{id}"), Some(token), "").as_bytes()).await
        }
    }
}

/// Their places come back, in whatever way they had them.
#[apply(both_backends_in_pairs!)]
async fn polls_that_nobody_waits_for_end(backend: Backend) {
    let settings = [("MAX_POLLS", "12"), ("KEEP_ALIVE_PERIOD", "600")];
    let server = Server::start_with(backend, &settings).await;
    let (http, token) = (Http::admin(&server).await, server.token().await);
    let mut bystander = Bystander::come(&server).await;
    bystander.session.call("event.publish", json!({"channel": "lab", "data": 1})).await;
    // Polls that begin behind it have something to wait for.
    let lab = json!({"sub": 2, "channel": "lab", "from": "earliest"});
    bystander.session.call("event.subscribe", lab).await;
    bystander.session.event(2).await;
    bystander.work().await;
    assert_eq!(status(&http).await, 503, "there is nothing");
    let mut before = None;
    for _ in 0..4 {
        let mut held = Vec::new();
        for number in 0..POLLS {
            held.push(polls(&server, &http, token, number).await);
        }
        // Not by asking for a place, which one of them may miss meanwhile.
        let taken = async |wanted: usize| match metric(&server, "kernelci_quota_taken", "\"polls\"").await {
            taken if taken == wanted as u64 => Ok(()),
            other => Err(other),
        };
        until("all places are taken", async || taken(POLLS).await).await;
        assert_eq!(status(&http).await, 429);
        bystander.work().await;
        drop(held);
        until("they are free again", async || taken(0).await).await;
        assert_eq!(status(&http).await, 503, "there is nothing");
        // The first round makes what is made once.
        match &before {
            None => before = Some(at_rest(&server, At::Process).await),
            Some(before) => assert_eq!(is_back(&server, At::Process, before).await, Ok(())),
        }
    }
}
