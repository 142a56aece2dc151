//! Feeds, over WebSocket and as server-sent events: floods to those who only tell, readers who come and leave.

use macro_rules_attribute::apply;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::looks::{At, at_rest, is_back};
use super::{Bystander, Flood, Reading, close_code, frame, frame_of, head, rest_of, says, text};
use crate::support::{Server, both_backends, both_backends_in_pairs, soon};

/// What all floods together may cost.
const MEMORY: u64 = 96 << 20;
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: cloudevents.json\r\n";

fn events(token: Option<&str>) -> String {
    head("GET /latest/events/feed?from=earliest", token, "")
}

fn websocket(token: Option<&str>) -> String {
    head("GET /latest/events/feed", token, UPGRADE)
}

/// What can be sent to a feed, which has nothing to be told.
fn cheap() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("an empty ping", frame(9, b"")),
        ("a long ping", frame(9, &[b'p'; 125])),
        ("a pong", frame(10, b"")),
        ("an empty piece of a message", frame_of(0, b"")),
        ("text", text("x")),
        ("a large text", text(&"x".repeat(100_000))),
    ]
}

#[apply(both_backends_in_pairs!)]
async fn nobody_else_notices(server: Server) {
    let mut bystander = Bystander::come(&server).await;
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    for token in [None, Some(server.token().await)] {
        for (what, bytes) in cheap() {
            for reading in [Reading::Always, Reading::Slowly, Reading::Never] {
                let stream = says(&server, websocket(token).as_bytes()).await;
                let first = if what.contains("piece") { frame_of(1, b"") } else { Vec::new() };
                let flood = Flood::begin_with(stream, first, bytes.clone(), reading);
                for _ in 0..2 {
                    bystander.work().await;
                }
                flood.end().await;
                let grown = server.memory().saturating_sub(memory);
                assert!(grown < MEMORY, "{what}, {reading:?}: {} MiB", grown >> 20);
            }
        }
        // Nobody reads what comes behind a request for events.
        for reading in [Reading::Always, Reading::Slowly, Reading::Never] {
            let flood = Flood::begin(says(&server, b"").await, events(token).into_bytes(), reading);
            bystander.work().await;
            flood.end().await;
        }
    }
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
    bystander.was_not_held_up();
}

/// A feed is told nothing.
#[apply(both_backends!)]
async fn whoever_talks_to_a_feed_is_sent_away(server: Server) {
    for (what, bytes) in [("text", text("x")), ("bytes", frame(2, b"x"))] {
        let mut stream = says(&server, websocket(None).as_bytes()).await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.expect("sent");
        let said = rest_of(&mut stream).await.expect("the feed ends");
        assert_eq!(close_code(&said), Some(4400), "{what}");
    }
}

/// Some leave before they are answered, some when they are, and some in the middle of an event.
#[apply(both_backends_in_pairs!)]
async fn readers_who_leave_at_once_leave_nothing(server: Server) {
    let mut bystander = Bystander::come(&server).await;
    let data = "x".repeat(50_000);
    bystander.session.call("event.publish", json!({"channel": "lab", "data": data})).await;
    // What is followed once is followed for a while.
    bystander.session.call("event.subscribe", json!({"sub": 2, "channel": "lab"})).await;
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    let lab = |more| head("GET /latest/events/feed?channel=lab&from=earliest", None, more);
    for round in 0..6 {
        for what in [events(None), websocket(None), lab(""), lab(UPGRADE)] {
            for number in 0..10 {
                let mut stream = says(&server, what.as_bytes()).await;
                match (round + number) % 3 {
                    0 => {}
                    // All are answered, and of the large event there is more.
                    1 if what.contains("lab") => {
                        _ = soon("an event", stream.read_exact(&mut [0; 2000])).await
                    }
                    _ => _ = soon("an answer", stream.read_u8()).await,
                }
            }
        }
        bystander.work().await;
    }
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
    let grown = server.memory().saturating_sub(memory);
    assert!(grown < MEMORY / 4, "{} MiB", grown >> 20);
}
