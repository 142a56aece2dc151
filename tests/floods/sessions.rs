//! Floods on a session.

use macro_rules_attribute::apply;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{Bystander, Flood, Reading, close_code, frame, frame_of, metric, rest_of, text};
use crate::support::{Backend, Server, both_backends, both_backends_in_pairs, eventually};

/// Turns of others' work that a flood lasts.
const TURNS: usize = 4;
/// What all floods together may cost: some buffers of the kernel's and of ours, and what the allocator keeps.
const MEMORY: u64 = 96 << 20;

#[derive(Clone, Copy, Debug)]
enum Who {
    BeforeHello,
    Stranger,
    User,
}

async fn session(server: &Server, who: Who) -> tokio::net::TcpStream {
    let session = match who {
        Who::BeforeHello => server.connect().await,
        Who::Stranger => server.anonymous().await,
        Who::User => server.admin().await,
    };
    session.into_stream()
}

fn request(method: &str, params: serde_json::Value) -> Vec<u8> {
    text(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string())
}

/// Everything that costs next to nothing to send.
fn cheap() -> Vec<(&'static str, Vec<u8>)> {
    let long = "x".repeat(120);
    vec![
        ("a letter", text("x")),
        ("half an object", text("{")),
        ("an empty ping", frame(9, b"")),
        ("a long ping", frame(9, &[b'p'; 125])),
        ("a pong", frame(10, b"")),
        ("an unknown method", text(&json!({"jsonrpc": "2.0", "id": long, "method": long}).to_string())),
        ("a hello", request("session.hello", json!({}))),
        ("a refresh", request("session.refresh", json!({"token": "nonsense"}))),
        ("an acknowledgement of nothing", request("event.ack", json!({"sub": 7, "seq": 1}))),
        ("a subscription that is none", request("event.unsubscribe", json!({"sub": 7}))),
        ("a search", request("node.find", json!({"filter": {"kind": "kbuild"}}))),
        ("a notification", text(r#"{"jsonrpc":"2.0","method":"node.count"}"#)),
        (
            "an empty piece of a message",
            [frame_of(1, b""), frame_of(0, b"").repeat(1000), frame_of(0x80, b"")].concat(),
        ),
    ]
}

#[apply(both_backends_in_pairs!)]
async fn nobody_else_notices(backend: Backend) {
    // Floods are not to end too early.
    let server = Server::start_with(backend, &[("HELLO_TIMEOUT_MS", "60000")]).await;
    let mut bystander = Bystander::come(&server).await;
    bystander.work().await;
    let before = server.memory();
    for (what, bytes) in cheap() {
        for who in [Who::BeforeHello, Who::Stranger, Who::User] {
            for reading in [Reading::Always, Reading::Slowly, Reading::Never] {
                let flood = Flood::begin(session(&server, who).await, bytes.clone(), reading);
                for _ in 0..TURNS {
                    bystander.work().await;
                }
                let sent = flood.end().await;
                assert!(sent > 0, "{what}, {who:?}, {reading:?}: nothing was sent");
                let grown = server.memory().saturating_sub(before);
                assert!(grown < MEMORY, "{what}, {who:?}, {reading:?}: {} MiB", grown >> 20);
            }
        }
    }
    bystander.was_not_held_up();
}

/// Many at once, who leave in the middle of it and come again.
#[apply(both_backends_in_pairs!)]
async fn nobody_else_notices_those_who_leave(server: Server) {
    let mut bystander = Bystander::come(&server).await;
    let before = server.memory();
    for (what, bytes) in cheap() {
        for _ in 0..3 {
            let mut floods = Vec::new();
            for _ in 0..8 {
                let stream = session(&server, Who::Stranger).await;
                floods.push(Flood::begin(stream, bytes.clone(), Reading::Never));
            }
            bystander.work().await;
            for flood in floods {
                flood.end().await;
            }
        }
        let grown = server.memory().saturating_sub(before);
        assert!(grown < 2 * MEMORY, "{what}: {} MiB", grown >> 20);
    }
    eventually("all of them have gone", async || metric(&server, "kernelci_sessions{", "").await == 1).await;
    bystander.was_not_held_up();
}

/// However much comes, a hello that does not come ends the session.
#[apply(both_backends!)]
async fn the_limit_of_hello_fires(backend: Backend) {
    let server = Server::start_with(backend, &[("HELLO_TIMEOUT_MS", "500")]).await;
    for (what, bytes) in cheap() {
        if what == "a hello" {
            continue;
        }
        let ended = metric(&server, "kernelci_sessions_ended_total", "4408").await;
        let flood = Flood::begin(session(&server, Who::BeforeHello).await, bytes, Reading::Always);
        eventually(what, async || metric(&server, "kernelci_sessions_ended_total", "4408").await > ended)
            .await;
        flood.end().await;
    }
}

/// Whoever takes nothing of what waits is sent away, and with the right word.
#[apply(both_backends!)]
async fn whoever_does_not_read_is_sent_away(backend: Backend) {
    let settings = [("STALL_TIMEOUT_MS", "1000"), ("PING_INTERVAL_MS", "600000")];
    let server = Server::start_with(backend, &settings).await;
    for (what, bytes) in cheap() {
        // The others have no answers, or slow ones, with which it takes long to fill all buffers.
        let quick = [
            "a letter",
            "half an object",
            "a long ping",
            "an unknown method",
            "an acknowledgement of nothing",
        ];
        if !quick.contains(&what) {
            continue;
        }
        let ended = metric(&server, "kernelci_sessions_ended_total", "4408").await;
        let flood = Flood::begin(session(&server, Who::Stranger).await, bytes, Reading::Never);
        eventually(what, async || metric(&server, "kernelci_sessions_ended_total", "4408").await > ended)
            .await;
        flood.end().await;
    }
    eventually("all of them have gone", async || metric(&server, "kernelci_sessions{", "").await == 0).await;
}

/// A message may be slow, and it may not stand still. Pings in between are no progress.
#[apply(both_backends!)]
async fn half_a_message_ends_the_session(backend: Backend) {
    let settings = [("MESSAGE_TIMEOUT_MS", "600"), ("PING_INTERVAL_MS", "600000")];
    let server = Server::start_with(backend, &settings).await;
    let half = text(&"x".repeat(1000));
    for (what, begin, more) in [
        ("half a header", half[..1].to_vec(), Vec::new()),
        ("half a frame", half[..500].to_vec(), Vec::new()),
        ("a piece", frame_of(1, b"x"), Vec::new()),
        ("a piece, and pongs", frame_of(1, b"x"), frame(10, b"")),
        ("a piece, and empty ones", frame_of(1, b"x"), frame_of(0, b"")),
    ] {
        let (mut input, mut output) = session(&server, Who::User).await.into_split();
        output.write_all(&begin).await.expect("sent");
        let goes_on = async {
            while more.is_empty() || output.write_all(&more).await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        let mut bytes = Vec::new();
        let read = async {
            use tokio::io::AsyncReadExt;
            let mut buffer = [0; 1000];
            while let Ok(count @ 1..) = input.read(&mut buffer).await {
                bytes.extend_from_slice(&buffer[..count]);
            }
        };
        tokio::select! {
            () = goes_on => {}
            ended = tokio::time::timeout(crate::support::PATIENCE, read) => ended.expect(what),
        }
        assert_eq!(close_code(&bytes), Some(4408), "{what}");
    }
}

#[apply(both_backends!)]
async fn a_message_in_too_many_pieces_ends_the_session(server: Server) {
    let mut stream = session(&server, Who::User).await;
    let pieces = [frame_of(1, b"x"), frame_of(0, b"x").repeat(5000)].concat();
    // It may end before all of it is sent.
    _ = stream.write_all(&pieces).await;
    let bytes = rest_of(&mut stream).await.expect("the session ends");
    assert!(matches!(close_code(&bytes), Some(4413) | None), "{bytes:?}");
    eventually("it was too large", async || {
        metric(&server, "kernelci_sessions_ended_total", "4413").await == 1
    })
    .await;
}

#[apply(both_backends!)]
async fn strangers_send_smaller_messages(server: Server) {
    let long = |length: usize| json!({"jsonrpc": "2.0", "id": 1, "method": "x".repeat(length)}).to_string();
    for (who, token, most) in
        [("a stranger", None, 64 << 10), ("a user", Some(server.token().await), 1 << 20)]
    {
        let mut raw = server.connect().await;
        let facts = raw.call("session.hello", json!({"token": token})).await;
        assert_eq!(facts["limits"]["message"], most, "{who}");
        raw.send_text(long(most - 100)).await;
        assert_eq!(raw.answer(1).await["error"]["code"], -32601, "{who}");
        raw.send_text(long(most)).await;
        assert_eq!(raw.expect_close().await, 4413, "{who}");
    }
}
