//! Long-poll subscriptions with a name (`subscriber_id`), which go on where they were: contract 5.6.

use std::collections::HashSet;

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::polling::{listen, publish, subscribe, user};
use crate::support::{Backend, Http, Server, both_backends, both_backends_in_pairs};

#[apply(both_backends!)]
async fn a_named_consumer_goes_on_where_it_was(server: Server) {
    let http = Http::admin(&server).await;
    let first = subscribe(&http, "lab?subscriber_id=daemon:lab").await;
    for n in 1..=5 {
        publish(&http, "lab", json!(n)).await;
    }
    let mut ids = HashSet::new();
    for n in 1..=3 {
        let event = listen(&http, first).await;
        assert_eq!(event["data"], n);
        ids.insert(event["id"].to_string());
    }
    // The third was never acknowledged: it comes again, as it was.
    let second = subscribe(&http, "lab?subscriber_id=daemon:lab").await;
    assert_ne!(first, second);
    let again = listen(&http, second).await;
    assert_eq!((&again["data"], ids.contains(&again["id"].to_string())), (&json!(3), true));
    assert_eq!(http.get(&format!("/latest/listen/{first}")).await.status, 404, "the old one is fenced off");
    assert_eq!(listen(&http, second).await["data"], 4);
    // Unsubscribing keeps the place; what nobody acknowledged comes again.
    http.post(&format!("/latest/unsubscribe/{second}"), &Value::Null).await.ok();
    publish(&http, "lab", json!(6)).await;
    let third = subscribe(&http, "lab?subscriber_id=daemon:lab").await;
    for n in 4..=6 {
        assert_eq!(listen(&http, third).await["data"], n);
    }
    // An empty name is none.
    let unnamed = subscribe(&http, "lab?subscriber_id=").await;
    publish(&http, "lab", json!(7)).await;
    assert_eq!(listen(&http, unnamed).await["data"], 7);
}

#[apply(both_backends!)]
async fn a_name_belongs_to_its_user_and_channel(server: Server) {
    let (admin, bob) = (Http::admin(&server).await, user(&server, "bob").await);
    let admins = subscribe(&admin, "lab?subscriber_id=mine").await;
    let bobs = subscribe(&bob, "lab?subscriber_id=mine&promisc=true").await;
    publish(&admin, "lab", json!("both")).await;
    for (http, id) in [(&admin, admins), (&bob, bobs)] {
        assert_eq!(listen(http, id).await["data"], "both", "500 in KernelCI for the second of them");
    }
    let other = admin.post("/latest/subscribe/node?subscriber_id=mine", &Value::Null).await;
    assert_eq!(other.status, 409, "{}", other.text);
    assert!(other.text.contains("lab"), "{}", other.text);
    let long = "x".repeat(129);
    let bad = admin.post(&format!("/latest/subscribe/node?subscriber_id={long}"), &Value::Null).await;
    assert_eq!((bad.status, &bad.json["detail"][0]["loc"]), (422, &json!(["query", "subscriber_id"])));
}

#[apply(both_backends_in_pairs!)]
async fn missed_events_are_all_caught_up(backend: Backend) {
    // KernelCI's own server forgets what comes after the first thousand (contract D-17).
    const EVENTS: u64 = 1025;
    // Thousands of small writes: not a test of the disk.
    let server = Server::start_with(backend, &[("SQLITE_SYNCHRONOUS", "normal")]).await;
    let http = Http::admin(&server).await;
    let id = subscribe(&http, "lab?subscriber_id=late").await;
    http.post(&format!("/latest/unsubscribe/{id}"), &Value::Null).await.ok();
    let mut raw = server.admin().await;
    for batch in 0..EVENTS / 25 {
        let mut ids = Vec::new();
        for n in 1..=25 {
            let publish = json!({"channel": "lab", "data": batch * 25 + n});
            ids.push(raw.send_request("event.publish", publish).await.unwrap());
        }
        for id in ids {
            assert!(raw.answer(id).await["error"].is_null());
        }
    }
    let id = subscribe(&http, "lab?subscriber_id=late").await;
    let mut seen = HashSet::new();
    for seq in 1..=EVENTS {
        let event = listen(&http, id).await;
        assert_eq!(event["_sequence_id"], seq);
        assert!(seen.insert(event["data"].as_u64().unwrap()), "twice: {event}");
    }
    assert_eq!(seen.len() as u64, EVENTS);
}
