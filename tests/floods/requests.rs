//! Floods of requests over HTTP.

use std::time::Duration;

use macro_rules_attribute::apply;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::looks::{At, at_rest, is_back};
use super::{Bystander, Flood, Reading, head, post, rest_of, says};
use crate::support::{Backend, Server, both_backends, both_backends_in_pairs};

/// Turns of others' work that a flood lasts.
const TURNS: usize = 2;
/// What all floods together may cost.
const MEMORY: u64 = 96 << 20;

/// Everything that costs next to nothing to send: what comes once, and what comes without an end behind it.
fn cheap(token: Option<&str>) -> Vec<(&'static str, String, String)> {
    let again = |what, bytes| (what, String::new(), bytes);
    let chunked = head("POST /latest/rpc", token, "transfer-encoding: chunked\r\n");
    vec![
        again("a look at the health", head("GET /latest/health", token, "")),
        again("a page of nodes", head("GET /latest/nodes?limit=1", token, "")),
        again("a page that is none", head("GET /nowhere", token, "")),
        again("a node that is none", head("GET /latest/node/zz", token, "")),
        again("a document", head("GET /latest/openapi.json", token, "")),
        again("a body that is no JSON", post("/latest/rpc", token, "{")),
        again(
            "a method that is none",
            post("/latest/rpc", token, r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#),
        ),
        again("a node without a name", post("/latest/node", token, "{}")),
        ("headers", "GET /latest/health HTTP/1.1\r\n".into(), "x-some: thing\r\n".into()),
        ("one long header", "GET /latest/health HTTP/1.1\r\nx: ".into(), "x".into()),
        ("one long line", "GET /".into(), "x".into()),
        ("a body in pieces of one byte", chunked, "1\r\nx\r\n".into()),
    ]
}

fn begin(stream: TcpStream, (_, first, more): &(&str, String, String), reading: Reading) -> Flood {
    Flood::begin_with(stream, first.clone().into_bytes(), more.clone().into_bytes(), reading)
}

#[apply(both_backends_in_pairs!)]
async fn nobody_else_notices(server: Server) {
    let mut bystander = Bystander::come(&server).await;
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    for token in [None, Some(server.token().await)] {
        for cheap in cheap(token) {
            for reading in [Reading::Always, Reading::Slowly, Reading::Never] {
                let what = format!(
                    "{}, {reading:?}, {}",
                    cheap.0,
                    if token.is_some() { "a user" } else { "a stranger" }
                );
                let flood = begin(says(&server, b"").await, &cheap, reading);
                for _ in 0..TURNS {
                    bystander.work().await;
                }
                let sent = flood.end().await;
                assert!(sent > 0 || !cheap.1.is_empty(), "{what}: nothing was sent");
                let grown = server.memory().saturating_sub(memory);
                assert!(grown < MEMORY, "{what}: {} MiB", grown >> 20);
            }
        }
    }
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
    bystander.was_not_held_up();
}

/// Many at once, who leave in the middle of it and come again.
#[apply(both_backends_in_pairs!)]
async fn nobody_else_notices_those_who_leave(server: Server) {
    let mut bystander = Bystander::come(&server).await;
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    for cheap in cheap(None) {
        for _ in 0..2 {
            let mut floods = Vec::new();
            for _ in 0..8 {
                floods.push(begin(says(&server, b"").await, &cheap, Reading::Never));
            }
            bystander.work().await;
            for flood in floods {
                flood.end().await;
            }
        }
        let grown = server.memory().saturating_sub(memory);
        assert!(grown < 2 * MEMORY, "{}: {} MiB", cheap.0, grown >> 20);
    }
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
    bystander.was_not_held_up();
}

/// What has begun has to come to an end, and what has no end is not waited for, however fast it comes.
#[apply(both_backends!)]
async fn what_does_not_end_is_ended(backend: Backend) {
    let server = Server::start_with(backend, &[("MESSAGE_TIMEOUT_MS", "700")]).await;
    let length = head("POST /latest/rpc", None, "content-length: 1000\r\n");
    let chunked = head("POST /latest/rpc", None, "transfer-encoding: chunked\r\n");
    for (what, said, statuses) in [
        ("a body that has not begun", length.clone(), ["413", ""]),
        ("a body that stands still", length + "{", ["413", ""]),
        ("a chunk that has not begun", chunked.clone(), ["413", ""]),
        ("a chunk that stands still", chunked.clone() + "64\r\n{", ["413", ""]),
        ("half the length of a chunk", chunked + "6", ["413", ""]),
        ("half a head", "GET /latest/health HTTP/1.1\r\nhost:".into(), ["408", ""]),
    ] {
        let mut stream = says(&server, said.as_bytes()).await;
        let answer = rest_of(&mut stream).await.unwrap_or_else(|| panic!("{what} stays"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.strip_prefix("HTTP/1.1 ").map_or("", |rest| &rest[..3]);
        assert!(statuses.contains(&status), "{what}: {answer}");
    }
    let pieces = head("POST /latest/rpc", None, "transfer-encoding: chunked\r\n");
    let mut endless = cheap(None);
    endless.retain(|(what, first, _)| !first.is_empty() && !what.contains("one byte"));
    endless.push(("a body in pieces", pieces, format!("40\r\n{}\r\n", "x".repeat(64))));
    for cheap in endless {
        let flood = begin(says(&server, b"").await, &cheap, Reading::Always);
        crate::support::soon(cheap.0, flood.task).await.expect("the flood ends");
    }
}

/// A hundred at once, on connections that are there already, who leave as soon as they have asked: what they wait for in the
/// store keeps nobody else from it.
#[apply(both_backends_in_pairs!)]
async fn who_leaves_at_once_keeps_nobody_waiting(server: Server) {
    const CLIENTS: usize = 100;
    let mut bystander = Bystander::come(&server).await;
    let token = server.token().await;
    let body = "username=admin&password=wrong";
    let login = head(
        "POST /latest/user/login",
        None,
        &format!("content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n", body.len()),
    ) + body;
    for request in
        [head("GET /latest/whoami", Some(token), ""), head("GET /latest/nodes?kind=job", None, ""), login]
    {
        for _ in 0..3 {
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.push(says(&server, b"").await);
            }
            for client in &mut clients {
                client.write_all(request.as_bytes()).await.expect("sent");
            }
            // Somewhere on the way.
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(clients);
            bystander.work().await;
        }
    }
    bystander.was_not_held_up();
}
