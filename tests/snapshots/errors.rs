//! The table of errors: a page a row, with requests that end in it.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::book::{ABSENT, Book};
use super::compare;
use crate::support::{Http, Raw, Server, both_backends, node};
use kernelci_live::error::{Error, Kind};

fn page(kind: Kind) -> String {
    format!("{kind:?}")
}

/// Whether a page is one of the table.
fn is_kind(name: &str) -> bool {
    Kind::ALL.iter().any(|kind| page(*kind) == name)
}

/// A text as it goes to the server, and the answer.
async fn says(book: &mut Book, raw: &mut Raw, kind: Kind, text: &str) {
    raw.send_text(text).await;
    let answer = raw.receive(crate::support::PATIENCE).await.expect("an answer");
    check(kind, &answer);
    book.line(&page(kind), &format!("→ {text}"));
    book.frame(&page(kind), "←", &answer);
}

fn check(kind: Kind, answer: &Value) {
    let error = &answer["error"];
    let is = (error["code"].as_i64(), error["data"]["status"].as_u64());
    assert_eq!(is, (Some(kind.row().code.into()), Some(kind.row().status.into())), "{kind:?}: {answer}");
}

#[apply(both_backends!)]
async fn errors(server: Server) {
    let (mut raw, mut book) = (server.admin().await, Book::default());
    let made = raw.call("node.create", json!({"node": node("checkout", "checkout")})).await;
    raw.call("node.update", json!({"id": made["id"], "set": {"state": "done"}})).await;

    for text in ["{", "", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.count\"} x"] {
        says(&mut book, &mut raw, Kind::Parse, text).await;
    }
    for text in [
        r#"[{"jsonrpc":"2.0","id":1,"method":"node.count"}]"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"node.count"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"node.count"}"#,
    ] {
        says(&mut book, &mut raw, Kind::InvalidRequest, text).await;
    }
    let token = server.user("bob").await;
    let mut bob = server.connect().await;
    bob.call("session.hello", json!({"token": token})).await;
    let mut nobody = server.anonymous().await;
    for sub in 1..=128 {
        nobody.call("event.subscribe", json!({"sub": sub})).await;
    }
    let mut stranger = server.connect().await;
    let count = json!({});
    let kind = Kind::Unauthorized;
    let early = book.ask_on(&page(kind), &mut stranger, "before hello", "node.count", count).await;
    check(kind, &early);
    let old = json!({"id": made["id"], "if_revision": 1, "set": {"state": "done"}});
    let backwards = json!({"id": made["id"], "set": {"state": "running"}});
    let create = json!({"node": node("checkout", "x")});
    let mut sessions = [raw, nobody, bob];
    let [raw, nobody, bob] = [0, 1, 2];
    for (kind, session, about, method, params) in [
        (Kind::UnknownMethod, raw, "no such method", "node.fnord", json!({})),
        (Kind::InvalidParams, raw, "a parameter is missing", "node.get", json!({})),
        (Kind::InvalidParams, raw, "an unknown one", "node.find", json!({"limits": 5})),
        (Kind::InvalidParams, raw, "another type", "node.find", json!({"limit": "many"})),
        (Kind::InvalidParams, raw, "no object", "node.find", json!([5])),
        (Kind::BadRequest, raw, "it cannot be", "node.update", backwards),
        (Kind::Unauthorized, nobody, "without a user", "node.create", create),
        (Kind::Unauthorized, bob, "another's node", "node.update", old.clone()),
        (Kind::Forbidden, bob, "without the right", "group.find", json!({})),
        (Kind::NotFound, raw, "there is none", "node.get", json!({"id": ABSENT})),
        (Kind::Conflict, raw, "somebody was faster", "node.update", old),
        (Kind::TooMany, nobody, "beyond a limit", "event.subscribe", json!({"sub": 129})),
        (Kind::Unavailable, raw, "not now", "queue.pop", json!({"list": "empty", "wait_ms": 0})),
    ] {
        let answer = book.ask_on(&page(kind), &mut sessions[session], about, method, params).await;
        check(kind, &answer);
    }

    let http = Http::admin(&server).await;
    let large = json!({"channel": "lab", "data": "x".repeat(1 << 20)});
    let session = json!({"sub": 1});
    for (kind, method, params) in
        [(Kind::TooLarge, "event.publish", large), (Kind::NotAllowed, "event.subscribe", session)]
    {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = http.post("/latest/rpc", &request).await.ok();
        check(kind, &answer);
        book.about(&page(kind), "over POST /latest/rpc");
        book.frame(&page(kind), "→", &request);
        book.frame(&page(kind), "←", &answer);
    }

    // What no client can bring about; the cause is for the log alone.
    let internal = Error::internal(std::io::Error::other("a secret"));
    let slow = Error::new(Kind::Timeout, "the query took longer than its time limit");
    for (kind, error) in [(Kind::Internal, internal), (Kind::Timeout, slow)] {
        let answer = kernelci_live::rpc::answer("1", Err(error.clone()));
        book.about(&page(kind), "as it is written");
        book.frame(&page(kind), "←", &serde_json::from_str(&answer).expect("JSON"));
        book.about(&page(kind), "over REST");
        book.frame(&page(kind), "←", &error.to_rest());
    }
    let pages = book.pages();
    for kind in Kind::ALL {
        assert!(pages.contains_key(&page(kind)), "{kind:?} has no page");
    }
    assert!(pages.keys().all(|name| is_kind(name)));
    compare("errors", &pages, |_| true);
}
