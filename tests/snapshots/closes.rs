//! How the server ends sessions: a page for each close code.

use std::collections::BTreeSet;

use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::book::Book;
use super::compare;
use crate::support::{Backend, Lost, PATIENCE, Raw, Server, both_backends};
use kernelci_live::session::close;

/// Codes that no client brings about at will: 4429 takes megabytes that are not read, 4500 a bug. Their pages are the rows
/// of the table.
const UNSEEN: &[u16] = &[4429, 4500];

/// Notes what comes until the session is closed.
async fn closed(book: &mut Book, raw: &mut Raw, about: &str) {
    let mut frames = Vec::new();
    let (code, reason) = loop {
        match raw.receive(PATIENCE).await {
            Ok(frame) => frames.push(frame),
            Err(Lost::Closed(code, reason)) => break (code, reason),
            Err(lost) => panic!("{about}: {lost:?}"),
        }
    };
    let page = code.to_string();
    book.about(&page, about);
    for frame in frames {
        book.frame(&page, "←", &frame);
    }
    book.line(&page, &format!("← close {code} {reason:?}"));
}

#[apply(both_backends!)]
async fn closes(backend: Backend) {
    let server = Server::start(backend).await;
    let mut book = Book::default();

    let mut raw = server.anonymous().await;
    raw.send(Message::binary(vec![1])).await.expect("sent");
    closed(&mut book, &mut raw, "a binary frame").await;
    let mut raw = server.connect().await;
    raw.send_request("session.hello", json!({"token": "x"})).await.expect("sent");
    closed(&mut book, &mut raw, "a token that is none").await;
    // Logging in takes longer than a session may wait with its hello on a busy machine.
    let hello = json!({"token": server.token().await});
    let origin = [("origin", "https://evil.example")];
    let connect = Raw::connect(&server.ws_url(), Some("kernelci.v1.json"), &origin).await;
    let mut raw = connect.expect("upgrades");
    raw.send_request("session.hello", hello).await.expect("sent");
    closed(&mut book, &mut raw, "a page of somebody else").await;
    let mut raw = server.connect().await;
    raw.send_request("session.hello", json!({"client": "x".repeat(9 << 10)})).await.expect("sent");
    closed(&mut book, &mut raw, "a large message before hello").await;
    let mut raw = server.anonymous().await;
    raw.write_bytes(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).await;
    closed(&mut book, &mut raw, "a text frame that is not UTF-8").await;

    let durable = json!({"sub": 1, "channel": "lab", "durable": "d"});
    let (mut one, mut two) = (server.admin().await, server.admin().await);
    one.call("event.subscribe", durable.clone()).await;
    two.call("event.subscribe", durable).await;
    closed(&mut book, &mut one, "another connection has taken over all that was followed").await;

    let server = Server::start_with(backend, &[("HELLO_TIMEOUT_MS", "500")]).await;
    closed(&mut book, &mut server.connect().await, "no hello").await;

    let server = Server::start_with(backend, &[("MAX_SESSIONS", "1"), ("DRAIN_MS", "0")]).await;
    let mut only = server.anonymous().await;
    closed(&mut book, &mut server.connect().await, "no room").await;
    server.ask_to_stop();
    closed(&mut book, &mut only, "the server shuts down").await;

    for row in close::ALL.iter().filter(|row| UNSEEN.contains(&row.code)) {
        let row: Value = serde_json::to_value(row).expect("JSON");
        book.about(&row["code"].to_string(), "as the documents have it");
        book.line(&row["code"].to_string(), &format!("{row:#}"));
    }
    let pages = book.pages();
    let codes: BTreeSet<String> = close::ALL.iter().map(|row| row.code.to_string()).collect();
    let missing: Vec<&String> = codes.iter().filter(|code| !pages.contains_key(*code)).collect();
    assert!(missing.is_empty(), "close codes without a page: {missing:?}");
    assert!(pages.keys().all(|code| codes.contains(code)), "codes that no document has: {:?}", pages.keys());
    compare("closes", &pages, |_| true);
}
