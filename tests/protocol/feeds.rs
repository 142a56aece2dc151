//! The one-way feeds: bare CloudEvents over a WebSocket, and the same as server-sent events.

use futures::StreamExt;
use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

use crate::support::{Backend, PATIENCE, Raw, Server, both_backends, eventually, node, soon};

fn feed(server: &Server, scheme: &str, query: &str) -> String {
    format!("{scheme}://127.0.0.1:{}/latest/events/feed?{query}", server.port())
}

/// Reads server-sent events: (id, data) of the first `count` that carry data.
async fn sse(server: &Server, query: &str, last_id: Option<&str>, count: usize) -> Vec<(String, Value)> {
    let mut request =
        reqwest::Client::new().get(feed(server, "http", query)).header("accept", "text/event-stream");
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    let answer = request.send().await.expect("answers");
    assert_eq!(answer.status(), 200);
    let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    let mut stream = answer.bytes_stream();
    let mut text = String::new();
    let mut events = Vec::new();
    while events.len() < count {
        let part = soon("more comes", stream.next()).await.expect("more").expect("bytes");
        text.push_str(std::str::from_utf8(&part).expect("UTF-8"));
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                Some(line.trim_start().to_owned())
            };
            if let Some(data) = field("data") {
                events.push((field("id").expect("an id"), serde_json::from_str(&data).expect("JSON")));
            }
            text = rest.to_owned();
        }
    }
    events
}

#[apply(both_backends!)]
async fn bare_cloudevents_over_a_websocket(server: Server) {
    let mut raw = server.admin().await;
    for (kind, name) in [("checkout", "a"), ("job", "b")] {
        raw.call("node.create", json!({"node": node(kind, name)})).await;
    }
    let url = feed(&server, "ws", "channel=node&from=earliest&data.kind=job");
    let mut jobs = Raw::connect(&url, Some("cloudevents.json"), &[]).await.expect("upgrades");
    assert_eq!(jobs.upgrade.headers()["sec-websocket-protocol"], "cloudevents.json");
    let event = jobs.receive(PATIENCE).await.expect("an event");
    assert_eq!((&event["specversion"], &event["data"]["name"]), (&json!("1.0"), &json!("b")));
    assert_eq!(event["sequence"], format!("{:020}", 2));
    raw.call("node.create", json!({"node": node("job", "c")})).await;
    assert_eq!(jobs.receive(PATIENCE).await.expect("an event")["data"]["name"], "c");
}

#[apply(both_backends!)]
async fn server_sent_events_resume_after_the_last_id(server: Server) {
    let mut raw = server.admin().await;
    for name in ["a", "b", "c"] {
        raw.call("node.create", json!({"node": node("checkout", name)})).await;
    }
    let first = sse(&server, "channel=node&from=earliest", None, 3).await;
    let names: Vec<&Value> = first.iter().map(|(_, event)| &event["data"]["name"]).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let rest = sse(&server, "channel=node&from=earliest", Some(&first[0].0), 2).await;
    assert_eq!(rest, first[1..]);
}

#[apply(both_backends!)]
async fn a_full_instance_has_no_room_for_feeds_either(backend: Backend) {
    let server = Server::start_with(backend, &[("MAX_SESSIONS", "2")]).await;
    let session = server.anonymous().await;
    let get = async || reqwest::get(feed(&server, "http", "")).await.expect("answers");
    let followed = get().await;
    assert_eq!(followed.status(), 200);
    assert_eq!(get().await.status(), 503);
    let refused = Raw::connect(&feed(&server, "ws", ""), Some("cloudevents.json"), &[]).await;
    assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 503));
    assert_eq!(server.connect().await.expect_close().await, 1013);
    drop((session, followed));
    eventually("those who left make room", async || get().await.status() == 200).await;
}

#[apply(both_backends!)]
async fn a_wrong_query_is_refused(server: Server) {
    for query in ["channel=node&from=yesterday", "channel=node&data.name__re=(", "channel=no%2Fchannel"] {
        let request =
            reqwest::Client::new().get(feed(&server, "http", query)).header("accept", "text/event-stream");
        let answer = request.send().await.expect("answers");
        assert!(matches!(answer.status().as_u16(), 400 | 422), "{query}: {}", answer.status());
    }
}

/// As readers send it who have seen no id.
#[apply(both_backends!)]
async fn an_empty_last_event_id_is_none(server: Server) {
    let mut raw = server.admin().await;
    raw.call("node.create", json!({"node": node("checkout", "a")})).await;
    for empty in ["", " "] {
        let events = sse(&server, "channel=&from=earliest", Some(empty), 1).await;
        assert_eq!(events[0].1["data"]["name"], "a", "{empty:?}");
    }
    let url = feed(&server, "ws", "from=earliest");
    let mut events =
        Raw::connect(&url, Some("cloudevents.json"), &[("last-event-id", "")]).await.expect("upgrades");
    assert_eq!(events.receive(PATIENCE).await.expect("an event")["data"]["name"], "a");
    // Without a place, too, it begins now.
    let mut events =
        Raw::connect(&feed(&server, "ws", "from="), Some("cloudevents.json"), &[]).await.expect("upgrades");
    raw.call("node.create", json!({"node": node("checkout", "b")})).await;
    assert_eq!(events.receive(PATIENCE).await.expect("an event")["data"]["name"], "b");
}
