//! Clients that are slow and alive are never cut; those that stand still are.

use std::time::Duration;

use macro_rules_attribute::apply;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::{frame, metric, text};
use crate::support::{Backend, PATIENCE, Raw, Server, both_backends_in_pairs, eventually};

/// A reader far behind that takes a little all the time, and answers each ping as soon as it sees it. What it is sent would
/// keep it busy for many times longer than two pings may go unanswered.
#[apply(both_backends_in_pairs!)]
async fn a_slow_reader_is_never_cut(backend: Backend) {
    const EVENTS: u64 = 300;
    let settings = [("PING_INTERVAL_MS", "500"), ("STALL_TIMEOUT_MS", "2000")];
    let server = Server::start_with(backend, &settings).await;
    let mut writer = server.admin().await;
    let data = "x".repeat(20_000);
    for _ in 0..EVENTS {
        writer.call("event.publish", json!({"channel": "lab", "data": data})).await;
    }
    drop(writer);
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(32 << 10).expect("a small buffer");
    let stream = socket.connect(([127, 0, 0, 1], server.port()).into()).await.expect("connects");
    let url = server.ws_url();
    let mut slow =
        Raw::over(stream, &url, Some("kernelci.v1.json"), &[]).await.expect("the upgrade succeeds");
    slow.call("session.hello", json!({})).await;
    slow.call("event.subscribe", json!({"sub": 1, "channel": "lab", "from": "earliest"})).await;
    for seq in 1..=EVENTS {
        assert_eq!(slow.event(1).await["seq"], seq);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    assert_eq!(metric(&server, "kernelci_sessions_ended_total", "").await, 0);
}

/// A large message over a slow line, during which no ping can be answered.
#[apply(both_backends_in_pairs!)]
async fn a_slow_writer_is_answered(backend: Backend) {
    let settings = [("PING_INTERVAL_MS", "200"), ("MESSAGE_TIMEOUT_MS", "5000")];
    let server = Server::start_with(backend, &settings).await;
    let large = json!({"jsonrpc": "2.0", "id": 1, "method": "event.publish",
                       "params": {"channel": "lab", "data": "x".repeat(900_000)}});
    let (mut input, mut output) = server.admin().await.into_stream().into_split();
    for piece in text(&large.to_string()).chunks(20_000) {
        output.write_all(piece).await.expect("taken");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let mut answer = String::new();
    let read = async {
        let mut buffer = [0; 4096];
        while !answer.contains(r#""id":1,"result""#) {
            let count = input.read(&mut buffer).await.expect("reads");
            assert!(count > 0, "it was cut: {answer:?}");
            answer += &String::from_utf8_lossy(&buffer[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer");
    output.write_all(&frame(8, b"")).await.expect("goodbye");
}

/// Every way out: who takes nothing of a large answer, or of a feed, is not waited for.
#[apply(both_backends_in_pairs!)]
async fn answers_that_nobody_takes_end_the_connection(backend: Backend) {
    let settings = [("STALL_TIMEOUT_MS", "700"), ("PING_INTERVAL_MS", "600000")];
    let server = Server::start_with(backend, &settings).await;
    let mut writer = server.admin().await;
    let data = "x".repeat(500_000);
    for _ in 0..20 {
        writer.call("event.publish", json!({"channel": "lab", "data": data})).await;
    }
    let token = server.token().await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: cloudevents.json\r\n";
    let find = json!({"jsonrpc": "2.0", "id": 1, "method": "event.find", "params": {"channel": "lab", "limit": 100}});
    let find = find.to_string();
    for (what, request) in [
        (
            "REST",
            format!(
                "GET /latest/events?channel=lab&limit=1000 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
            ),
        ),
        (
            "rpc",
            format!("POST /latest/rpc HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{find}", find.len()),
        ),
        ("SSE", "GET /latest/events/feed?channel=lab&from=earliest HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        (
            "a feed",
            format!("GET /latest/events/feed?channel=lab&from=earliest HTTP/1.1\r\nhost: x\r\n{upgrade}\r\n"),
        ),
    ] {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(32 << 10).expect("a small buffer");
        let mut stream = socket.connect(([127, 0, 0, 1], server.port()).into()).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("sent");
        // The other two are the writer's and that of whoever asks.
        let connections = async || metric(&server, "kernelci_connections{", "").await;
        eventually(what, async || connections().await == 3).await;
        eventually(what, async || connections().await == 2).await;
    }
    drop(writer);
    eventually("the feeds have ended", async || metric(&server, "kernelci_sessions{", "").await == 0).await;
}
