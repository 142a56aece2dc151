//! `event.*`, `consumer.*`, `stats.*`.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::book::{ABSENT, Book};
use crate::support::{Raw, Server, both_backends_in_pairs, until};

pub(super) const METHODS: &[&str] = &["event.", "consumer.", "stats."];

/// Waits until a named consumer looks like this.
async fn shows(raw: &mut Raw, name: &str, wanted: impl Fn(&Value) -> bool) {
    until(&format!("consumer {name}"), async || {
        let now = raw.call("consumer.get", json!({"name": name})).await;
        if wanted(&now) { Ok(()) } else { Err(now) }
    })
    .await;
}

#[apply(both_backends_in_pairs!)]
async fn methods_of_events(server: Server) {
    let (mut raw, mut nobody, mut book) = (server.admin().await, server.anonymous().await, Book::default());
    let raw = &mut raw;

    let event = json!({"channel": "lab", "data": {"board": 7}, "type": "org.example.board",
        "source": "https://lab.example/", "attributes": {"rack": "r1"}, "idempotency_key": "once"});
    book.ask(raw, "with all that an event may have", "event.publish", event.clone()).await;
    book.ask(raw, "repeated with its key", "event.publish", event.clone()).await;
    book.ask(raw, "with what it must have", "event.publish", json!({"channel": "lab"})).await;
    let of_a_node = json!({"channel": "node", "data": {"op": "updated", "id": ABSENT}});
    book.refused(raw, "of no node", "event.publish", of_a_node).await;
    book.refused(raw, "not a name", "event.publish", json!({"channel": "a/b", "data": 1})).await;
    book.refused(&mut nobody, "without a user", "event.publish", event).await;

    let first = json!({"channel": "lab", "limit": 1});
    let page = book.ask(raw, "the first page", "event.find", first.clone()).await;
    let mut rest = first;
    rest["after"] = page["next"].clone();
    rest["event"] = false.into();
    book.ask(raw, "the last page, in short", "event.find", rest).await;
    book.refused(raw, "not a condition", "event.find", json!({"filter": {"data.x__re": "("}})).await;

    let now = json!({"sub": 1, "channel": "lab"});
    let answer = book.ask(raw, "from now on", "event.subscribe", now.clone()).await;
    book.refused(raw, "the number is in use", "event.subscribe", now).await;
    let from = json!({"sub": 2, "channel": "lab", "from": {"epoch": answer["position"]["epoch"], "seq": 1}});
    book.ask(raw, "from a position", "event.subscribe", from).await;
    let from = json!({"sub": 3, "channel": "lab", "from": {"epoch": "of another server", "seq": 1}});
    book.ask(raw, "from a history that is lost", "event.subscribe", from).await;
    let all = json!({"sub": 4, "channel": "lab", "from": "earliest", "filter": {"data.board": 7},
        "include": ["node", "ancestors"], "on_slow": "latest"});
    book.ask(raw, "with a filter and more", "event.subscribe", all).await;
    let durable = json!({"sub": 5, "channel": "lab", "from": "earliest", "durable": "alone", "window": 10});
    book.ask(raw, "durable", "event.subscribe", durable).await;
    let group = json!({"sub": 6, "channel": "lab", "from": "earliest", "durable": "team", "group": true,
        "ordered": true, "ack_wait_ms": 3_600_000, "max_deliveries": 3});
    book.ask(raw, "a group", "event.subscribe", group).await;
    let other = json!({"sub": 7, "channel": "lab", "durable": "team", "group": true, "max_deliveries": 4});
    book.refused(raw, "a group that is another", "event.subscribe", other).await;
    let elsewhere = json!({"sub": 1, "channel": "nowhere"});
    book.refused(&mut nobody, "an unknown channel", "event.subscribe", elsewhere).await;
    book.ask(raw, "one that there is", "event.unsubscribe", json!({"sub": 4})).await;
    book.refused(raw, "one that is gone", "event.unsubscribe", json!({"sub": 4})).await;

    for sub in [5, 6, 6] {
        raw.event(sub).await;
    }
    book.ask(raw, "a place", "event.ack", json!({"sub": 5, "seq": 1})).await;
    book.ask(raw, "one event of a group", "event.ack", json!({"sub": 6, "seq": 1, "deliveries": 1})).await;
    book.refused(raw, "a second time", "event.ack", json!({"sub": 6, "seq": 1, "deliveries": 1})).await;
    book.refused(raw, "nothing to acknowledge", "event.ack", json!({"sub": 1, "seq": 1})).await;
    book.ask(raw, "more time", "event.extend", json!({"sub": 6, "seq": 2})).await;
    book.refused(raw, "not in hand", "event.extend", json!({"sub": 6, "seq": 1})).await;
    let back = json!({"sub": 6, "seq": 2, "delay_ms": 3_600_000, "reason": "no board"});
    book.ask(raw, "later", "event.nack", back).await;
    book.refused(raw, "not in hand", "event.nack", json!({"sub": 6, "seq": 2})).await;

    shows(raw, "alone", |now| now["position"]["seq"] == 1 && now["lag_events"] == 1).await;
    let team = |now: &Value| now["group"]["members"] == 1 && now["group"]["held"] == 0;
    shows(raw, "team", |now| team(now) && now["position"]["seq"] == 1).await;
    book.ask(raw, "of one subscription", "consumer.get", json!({"name": "alone"})).await;
    book.ask(raw, "of a group", "consumer.get", json!({"name": "team"})).await;
    book.refused(raw, "there is none", "consumer.get", json!({"name": "x"})).await;
    book.ask(raw, "of all users", "consumer.list", json!({"all": true})).await;
    book.ask(raw, "of nobody", "stats.subscriptions", json!({})).await;
    book.refused(&mut nobody, "for superusers", "stats.subscriptions", json!({})).await;
    book.ask(raw, "back", "consumer.seek", json!({"name": "alone", "to": "earliest"})).await;
    book.ask(raw, "one", "consumer.delete", json!({"name": "alone"})).await;
    book.refused(raw, "it is gone", "consumer.delete", json!({"name": "alone"})).await;
    book.ask(raw, "for a user", "consumer.reserve", json!({"name": "later", "user": "admin"})).await;
    book.refused(raw, "for nobody", "consumer.reserve", json!({"name": "later", "user": "nobody"})).await;
    book.ask(raw, "all", "consumer.reserved", json!({})).await;
    book.ask(raw, "for whoever comes first", "consumer.reserve", json!({"name": "later", "user": null}))
        .await;

    let open = json!({"channel": "poll", "promisc": true, "subscriber_id": "poller"});
    let opened = book.ask(raw, "under a name", "consumer.open", open).await;
    raw.call("event.publish", json!({"channel": "poll", "data": [1]})).await;
    let which = json!({"sub_id": opened["id"]});
    book.ask(raw, "the next event", "consumer.next", which.clone()).await;
    book.ask(raw, "its place is kept", "consumer.close", which.clone()).await;
    book.refused(raw, "it is closed", "consumer.next", which.clone()).await;
    book.refused(raw, "it is closed", "consumer.close", which).await;
    book.close(METHODS);
}
