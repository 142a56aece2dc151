//! The other forms of an event: server-sent, bare over a WebSocket, answered to a long poll.

use futures::StreamExt;
use macro_rules_attribute::apply;
use serde_json::Value;

use super::book::Book;
use super::compare;
use crate::support::{Backend, Http, PATIENCE, Raw, Server, both_backends, node};

/// The first bytes of server-sent events, until they have this.
async fn sse(server: &Server, until: &str) -> (String, String) {
    let http = Http::new(server);
    let request = http.request("GET", "/latest/events/feed?from=earliest");
    let answer = request.header("accept", "text/event-stream").send().await.expect("answers");
    let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
    let (mut stream, mut text) = (answer.bytes_stream(), String::new());
    while !(text.contains(until) && text.ends_with("\n\n")) {
        let part = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("more");
        text += std::str::from_utf8(&part.expect("bytes")).expect("UTF-8");
    }
    (kind, text)
}

#[apply(both_backends!)]
async fn feeds(backend: Backend) {
    let server = Server::start_with(backend, &[("KEEP_ALIVE_PERIOD", "1")]).await;
    let (http, mut book) = (Http::admin(&server).await, Book::default());
    let opened = http.post("/latest/subscribe/node", &Value::Null).await.ok();
    let url = server.ws_url().replace("/ws", "/events/feed?from=earliest&data.kind=checkout");
    let mut feed = Raw::connect(&url, Some("cloudevents.json"), &[]).await.expect("upgrades");
    http.post("/latest/node", &node("checkout", "checkout")).await.ok();
    let event = feed.receive(PATIENCE).await.expect("an event");

    book.about("cloudevents", "a message of the subprotocol cloudevents.json");
    book.frame("cloudevents", "←", &event);
    let (kind, text) = sse(&server, "data:").await;
    book.about("server-sent", &kind);
    // The epoch is a part of the id here.
    let epoch = text.split_once("id:").and_then(|(_, rest)| rest.split_once(':')).expect("an id").0.trim();
    book.line("server-sent", &text.replace(epoch, "[epoch]"));

    let listen = format!("/latest/listen/{}", opened["id"]);
    let answer = http.get(&listen).await;
    book.about("long-poll", "an event");
    book.line("long-poll", &answer.text);
    book.about("long-poll", "none came");
    book.line("long-poll", &http.get(&listen).await.text);
    let pages = book.pages();
    assert_eq!(pages.keys().collect::<Vec<_>>(), ["cloudevents", "long-poll", "server-sent"]);
    compare("feeds", &pages, |_| true);
}
