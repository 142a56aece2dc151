//! What subscriptions promise under load: no gap, no duplicate, whenever one joins and however slowly one reads.

use std::sync::atomic::{AtomicU64, Ordering};

use macro_rules_attribute::apply;
use serde_json::json;

use crate::support::{
    Backend, PATIENCE, Server, both_backends, both_backends_in_pairs, eventually, node, until_within,
};

const WRITES: u64 = 300;
/// Events of [`flood`]: with their payload more than the sockets' buffers hold.
const FLOOD: u64 = 3000;

/// Publishes many events of 8 KiB on the channel `lab`.
async fn flood(server: &Server) {
    let mut raw = server.admin().await;
    let data = "x".repeat(8 << 10);
    let mut sent = 0;
    while sent < FLOOD {
        let mut batch = Vec::new();
        while batch.len() < 30 && sent < FLOOD {
            sent += 1;
            let publish = json!({"channel": "lab", "data": data});
            batch.push(raw.send_request("event.publish", publish).await.expect("sent"));
        }
        for id in batch {
            let answer = raw.answer(id).await;
            assert!(answer["error"].is_null(), "{answer}");
        }
    }
}

#[apply(both_backends_in_pairs!)]
async fn joining_in_the_middle_misses_nothing(server: Server) {
    const READERS: u64 = 12;
    let written = AtomicU64::new(0);
    let write = async {
        let mut raw = server.admin().await;
        for number in 0..WRITES {
            raw.call("node.create", json!({"node": node("checkout", &format!("n{number}"))})).await;
            written.fetch_add(1, Ordering::Relaxed);
        }
        raw
    };
    let read = |number: u64| {
        let (server, written) = (&server, &written);
        async move {
            let join_at = number * WRITES / READERS;
            eventually("so many are written", async || written.load(Ordering::Relaxed) >= join_at).await;
            let mut raw = server.anonymous().await;
            let filter = if number.is_multiple_of(2) { json!({}) } else { json!({"data.kind": "checkout"}) };
            let subscribe = json!({"sub": 1, "channel": "node", "from": "earliest", "filter": filter});
            raw.call("event.subscribe", subscribe).await;
            for seq in 1..=WRITES {
                let event = raw.event(1).await;
                assert_eq!(event["seq"], seq, "reader {number}");
                assert_eq!(event["event"]["data"]["name"], format!("n{}", seq - 1), "reader {number}");
            }
            raw
        }
    };
    let (mut writer, mut readers) = tokio::join!(write, futures::future::join_all((0..READERS).map(read)));
    writer.call("node.create", json!({"node": node("checkout", "last")})).await;
    for raw in &mut readers {
        assert_eq!(raw.event(1).await["seq"], WRITES + 1, "nothing comes twice, or late");
    }
}

#[apply(both_backends!)]
async fn reconnecting_from_the_last_position_misses_nothing(server: Server) {
    let write = async {
        let mut raw = server.admin().await;
        for number in 0..WRITES {
            raw.call("node.create", json!({"node": node("checkout", &format!("n{number}"))})).await;
        }
    };
    let read = async {
        let mut last = 0;
        let mut from = json!("earliest");
        while last < WRITES {
            let mut raw = server.anonymous().await;
            let subscribe = json!({"sub": 1, "channel": "node", "from": from});
            let answer = raw.call("event.subscribe", subscribe).await;
            assert_eq!(answer["recovered"], true);
            for _ in 0..23.min(WRITES - last) {
                last += 1;
                assert_eq!(raw.event(1).await["seq"], last);
            }
            from = json!({"epoch": answer["position"]["epoch"], "seq": last});
        }
    };
    tokio::join!(write, read);
}

#[apply(both_backends_in_pairs!)]
async fn a_slow_reader_gets_everything_later(backend: Backend) {
    // It answers no ping either.
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "600000")]).await;
    let mut slow = server.admin().await;
    slow.call("event.subscribe", json!({"sub": 1, "channel": "lab"})).await;
    flood(&server).await;
    for seq in 1..=FLOOD {
        assert_eq!(slow.event(1).await["seq"], seq);
    }
    server.admin().await.call("event.publish", json!({"channel": "lab", "data": "live again"})).await;
    assert_eq!(slow.event(1).await["event"]["data"], "live again");
}

#[apply(both_backends_in_pairs!)]
async fn a_slow_reader_may_ask_for_the_latest(backend: Backend) {
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "600000")]).await;
    let mut slow = server.admin().await;
    slow.call("event.subscribe", json!({"sub": 1, "channel": "lab", "on_slow": "latest"})).await;
    flood(&server).await;
    // Whatever is left out is told: events and gaps together are dense.
    let (mut seen, mut gaps) = (0, 0);
    while seen < FLOOD {
        let message = slow.receive(PATIENCE).await.expect("events and gaps");
        let params = &message["params"];
        match message["method"].as_str() {
            Some("event") => {
                assert_eq!(params["seq"], seen + 1);
                seen += 1;
            }
            Some("gap") => {
                assert_eq!((&params["sub"], &params["from"]), (&json!(1), &json!(seen + 1)));
                seen = params["to"].as_u64().expect("the end of the gap");
                gaps += 1;
            }
            Some("progress") => {}
            _ => panic!("unexpected: {message}"),
        }
    }
    assert!(gaps > 0, "nothing was skipped");
}

#[apply(both_backends_in_pairs!)]
async fn a_position_that_has_aged_out_is_told_its_range(backend: Backend) {
    let server = Server::start_with(backend, &[("EVENT_HISTORY_TTL_SECONDS", "1")]).await;
    let mut raw = server.admin().await;
    raw.call("event.subscribe", json!({"sub": 0, "channel": "node"})).await;
    for number in 0..5 {
        raw.call("node.create", json!({"node": node("checkout", &format!("n{number}"))})).await;
        // In production the event follows its write; "now" is only then behind it.
        raw.event(0).await;
    }
    let head = raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await["position"].take();
    assert_eq!(head["seq"], 5);
    let from = json!({"epoch": head["epoch"], "seq": 0});
    // Retention is not immediate.
    let answer = until_within(4 * PATIENCE, "events age out", async || {
        let answer = raw.call("event.subscribe", json!({"sub": 2, "channel": "node", "from": from})).await;
        raw.call("event.unsubscribe", json!({"sub": 2})).await;
        if answer["recovered"] == false { Ok(answer) } else { Err(answer) }
    })
    .await;
    let to = answer["missed"]["to"].as_u64().expect("the end of what is missing");
    assert!((1..=5).contains(&to), "{answer}");
    assert_eq!((&answer["missed"]["from"], &answer["position"]["seq"]), (&json!(1), &json!(to)));
}
