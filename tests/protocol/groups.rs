//! Groups: subscriptions that share a durable name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::durable::{expire, is_noted_as_used, only_is_left};
use crate::support::{
    Backend, Lost, PATIENCE, Raw, Server, both_backends, both_backends_in_pairs, in_pairs, node, until,
};

/// Publishes so many events on the channel `lab`.
async fn publish(raw: &mut Raw, count: u64) {
    for n in 0..count {
        raw.call("event.publish", json!({"channel": "lab", "data": {"n": n}})).await;
    }
}

fn params(sub: u64, more: &Value) -> Value {
    let mut params = json!({"sub": sub, "channel": "lab", "durable": "g", "group": true});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

/// Becomes a member of the group `g` on the channel `lab`.
async fn join(raw: &mut Raw, sub: u64, more: Value) -> Value {
    raw.call("event.subscribe", params(sub, &more)).await
}

/// The `seq` and `deliveries` of the next event.
async fn next(raw: &mut Raw, sub: u64) -> (u64, u64) {
    let event = raw.event(sub).await;
    (event["seq"].as_u64().unwrap(), event["deliveries"].as_u64().unwrap())
}

async fn ack(raw: &mut Raw, sub: u64, seq: u64) {
    assert_eq!(raw.call("event.ack", json!({"sub": sub, "seq": seq})).await, json!({}));
}

async fn status(raw: &mut Raw, method: &str, params: Value) -> (u64, String) {
    let error = raw.fail(method, params).await;
    let detail = error["data"]["detail"].as_str().unwrap_or_default().to_owned();
    (error["data"]["status"].as_u64().unwrap(), detail)
}

/// Waits until the group looks like this.
async fn shows(raw: &mut Raw, what: &str, wanted: impl Fn(&Value) -> bool) {
    until(what, async || {
        let now = raw.call("consumer.get", json!({"name": "g"})).await;
        if wanted(&now) { Ok(()) } else { Err(now) }
    })
    .await;
}

async fn ended(raw: &mut Raw, sub: u64) -> String {
    let params = raw.next_notification("unsubscribed", PATIENCE).await;
    assert_eq!(params["sub"], sub, "{params}");
    params["reason"].as_str().unwrap().to_owned()
}

/// Each event goes to one member; what one leaves behind goes to the other, with its count.
#[apply(both_backends!)]
async fn each_event_goes_to_one_member(server: Server) {
    let (mut one, mut two) = (server.admin().await, server.admin().await);
    let long = json!({"ack_wait_ms": 3_600_000, "window": 2});
    let answer = join(&mut one, 1, long).await;
    assert_eq!((&answer["resumed"], &answer["recovered"]), (&json!(false), &json!(true)), "{answer}");
    let answer = join(&mut two, 5, json!({"window": 2})).await;
    assert_eq!((&answer["resumed"], &answer["position"]["seq"]), (&json!(true), &json!(0)), "{answer}");
    publish(&mut one, 6).await;
    let mut first = BTreeSet::from([next(&mut one, 1).await, next(&mut one, 1).await]);
    let second = BTreeSet::from([next(&mut two, 5).await, next(&mut two, 5).await]);
    assert_eq!(&first | &second, BTreeSet::from([(1, 1), (2, 1), (3, 1), (4, 1)]));
    // As many as there is room for are out, and each has its own: nothing else has come.
    shows(&mut one, "both members", |now| now["group"]["members"] == 2 && now["group"]["held"] == 4).await;
    one.assert_none_came("event", 1);
    two.assert_none_came("event", 5);
    let (mine, _) = first.pop_first().unwrap();
    // Not of the other's, not twice, not of what is not there.
    assert_eq!(status(&mut two, "event.ack", json!({"sub": 5, "seq": mine})).await.0, 409);
    ack(&mut one, 1, mine).await;
    for seq in [mine, 99] {
        let (status, detail) = status(&mut one, "event.ack", json!({"sub": 1, "seq": seq})).await;
        assert_eq!(
            (status, detail),
            (409, format!("seq: event {seq} is not in the hands of this member (any more)"))
        );
    }
    assert_eq!(next(&mut one, 1).await, (5, 1), "one at a time, as room comes");
    shows(&mut one, "both members", |now| now["group"]["members"] == 2 && now["group"]["held"] == 4).await;
    // An orderly end, and a connection that breaks.
    for (seq, _) in second {
        ack(&mut two, 5, seq).await;
    }
    assert_eq!(next(&mut two, 5).await, (6, 1));
    one.call("event.unsubscribe", json!({"sub": 1})).await;
    let (rest, _) = first.pop_first().unwrap();
    assert_eq!(next(&mut two, 5).await, (rest, 2));
    drop(two);
    join(&mut one, 1, json!({"window": 9})).await;
    let again = BTreeSet::from([next(&mut one, 1).await, next(&mut one, 1).await, next(&mut one, 1).await]);
    assert_eq!(again, BTreeSet::from([(5, 2), (6, 2), (rest, 3)]));
    for (seq, _) in again {
        // As notifications, many at once.
        let params = json!({"sub": 1, "seq": seq});
        one.send_text(json!({"jsonrpc": "2.0", "method": "event.ack", "params": params}).to_string()).await;
    }
    shows(&mut one, "all done", |now| now["position"]["seq"] == 6 && now["group"]["outstanding"] == 0).await;
}

#[apply(both_backends_in_pairs!)]
async fn a_lease_ends_unless_it_is_extended(server: Server) {
    // Less than the lease by what clocks of different makes may differ.
    const LEASE: Duration = Duration::from_millis(4_900);
    let mut raw = server.admin().await;
    join(&mut raw, 1, json!({"ack_wait_ms": 5_000, "max_deliveries": 1000})).await;
    let begun = Instant::now();
    publish(&mut raw, 2).await;
    assert_eq!((next(&mut raw, 1).await, next(&mut raw, 1).await), ((1, 1), (2, 1)));
    // The first one is extended until the second one comes again. On a slow machine the first one may come again, too,
    // but no sooner after it was extended than a lease lasts.
    let (mut extended, mut extensions, mut delivery) = (begun, 0, 1);
    let again = loop {
        let asked = Instant::now();
        let extend = json!({"sub": 1, "seq": 1, "deliveries": delivery});
        let answer = raw.request("event.extend", extend).await;
        match answer["error"]["data"]["status"].as_u64() {
            None => (extended, extensions) = (asked, extensions + 1),
            status => {
                assert_eq!(status, Some(409), "{answer}");
                assert!(extended.elapsed() >= LEASE, "{:?}: {answer}", extended.elapsed());
            }
        }
        match raw.try_notification("event", Duration::from_millis(200)).await {
            Ok(event) if event["seq"] == 2 => break event,
            Ok(event) => {
                assert_eq!(event["seq"], 1);
                assert!(extended.elapsed() >= LEASE, "{:?}: {event}", extended.elapsed());
                delivery = event["deliveries"].as_u64().unwrap();
            }
            Err(Lost::TimedOut) => {}
            Err(lost) => panic!("{lost:?}"),
        }
    };
    assert!(extensions > 0 && begun.elapsed() >= LEASE, "{extensions}, {:?}", begun.elapsed());
    assert_eq!(again["deliveries"], 2);
    // What was said of the first delivery does not count for the second.
    let stale = json!({"sub": 1, "seq": 2, "deliveries": 1});
    assert_eq!(status(&mut raw, "event.ack", stale).await.0, 409);
    // Whatever comes again meanwhile: what is acknowledged in time is done.
    let mut deliveries = BTreeMap::from([(1, delivery), (2, 2)]);
    while let Some((&seq, &of)) = deliveries.first_key_value() {
        let params = json!({"sub": 1, "seq": seq, "deliveries": of});
        match raw.request("event.ack", params).await["error"]["data"]["status"].as_u64() {
            None => drop(deliveries.remove(&seq)),
            Some(409) => {
                let (seq, now) = next(&mut raw, 1).await;
                deliveries.insert(seq, now);
            }
            Some(other) => panic!("{other}"),
        }
    }
    shows(&mut raw, "both are done", |now| now["position"]["seq"] == 2 && now["group"]["outstanding"] == 0)
        .await;
}

#[apply(both_backends!)]
async fn what_is_given_back_waits_and_ends_as_a_dead_letter(server: Server) {
    let mut raw = server.admin().await;
    raw.call("event.subscribe", json!({"sub": 9, "channel": "dead.g"})).await;
    join(&mut raw, 1, json!({"max_deliveries": 2, "ack_wait_ms": 3_600_000})).await;
    publish(&mut raw, 1).await;
    assert_eq!(next(&mut raw, 1).await, (1, 1));
    let given_back = Instant::now();
    raw.call("event.nack", json!({"sub": 1, "seq": 1, "delay_ms": 700})).await;
    assert_eq!(next(&mut raw, 1).await, (1, 2));
    assert!(given_back.elapsed() >= Duration::from_millis(650), "{:?}", given_back.elapsed());
    raw.call("event.nack", json!({"sub": 1, "seq": 1, "reason": "no such board"})).await;
    let letter = raw.event(9).await["event"].take();
    assert_eq!((&letter["type"], &letter["owner"]), (&json!("api.kernelci.org.dead"), &json!("admin")));
    let mut data = letter["data"].clone();
    assert_eq!(data["event"].take()["data"], json!({"n": 0}));
    let expected = json!({"consumer": "g", "channel": "lab", "seq": 1, "deliveries": 2, "reason": "no such board", "event": null});
    assert_eq!(data, expected);
    shows(&mut raw, "done", |now| now["position"]["seq"] == 1 && now["group"]["outstanding"] == 0).await;
    assert_eq!(status(&mut raw, "event.ack", json!({"sub": 1, "seq": 1})).await.0, 409);
    publish(&mut raw, 1).await;
    assert_eq!(next(&mut raw, 1).await, (2, 1), "the other one does not come again");
}

/// Events of one tree go one after the other, those of others meanwhile.
#[apply(both_backends!)]
async fn an_ordered_group_takes_trees_in_turn(server: Server) {
    let mut raw = server.admin().await;
    let checkout = |name: &str| {
        let mut node = node("checkout", name);
        node["treeid"] = format!("tree of {name}").into();
        json!({"node": node})
    };
    let root = raw.call("node.create", checkout("one")).await;
    raw.call("event.subscribe", json!({"sub": 2, "channel": "node"})).await;
    let group = json!({
        "sub": 1, "durable": "g", "group": true, "ordered": true, "ack_wait_ms": 3_600_000,
        "filter": {"data.op": "updated"}, "include": ["node", "ancestors"],
    });
    raw.call("event.subscribe", group).await;
    for n in 0..3 {
        raw.call("node.update", json!({"id": root["id"], "set": {"data": {"n": n}}})).await;
    }
    let other = raw.call("node.create", checkout("two")).await;
    raw.call("node.update", json!({"id": other["id"], "set": {"data": {"n": 9}}})).await;
    let mut updates = Vec::new();
    while updates.len() < 4 {
        let event = raw.event(2).await;
        if event["event"]["data"]["op"] == "updated" {
            updates.push(event["seq"].as_u64().unwrap());
        }
    }
    let first = raw.event(1).await;
    assert_eq!((&first["node"]["id"], &first["ancestors"]), (&root["id"], &json!([])));
    assert_eq!((&first["seq"], first["deliveries"].as_u64()), (&json!(updates[0]), Some(1)));
    assert_eq!(next(&mut raw, 1).await, (updates[3], 1));
    for n in 1..3 {
        // What is of yet another tree comes, the next one of this tree does not.
        let another = raw.call("node.create", checkout(&format!("another {n}"))).await;
        raw.call("node.update", json!({"id": another["id"], "set": {"data": {"n": n}}})).await;
        let come = raw.event(1).await;
        assert_eq!(come["node"]["id"], another["id"], "{come}");
        ack(&mut raw, 1, updates[n - 1]).await;
        assert_eq!(next(&mut raw, 1).await, (updates[n], 1));
    }
}

/// On a channel of one's own the publisher says what belongs together.
#[apply(both_backends!)]
async fn an_ordered_group_takes_partition_keys_in_turn(server: Server) {
    let mut raw = server.admin().await;
    join(&mut raw, 1, json!({"ordered": true, "ack_wait_ms": 3_600_000})).await;
    let mut seqs = Vec::new();
    for (key, data) in [("a", 1), ("a", 2), ("b", 3)] {
        let event = json!({"channel": "lab", "data": data, "attributes": {"partitionkey": key}});
        seqs.push(raw.call("event.publish", event).await["seq"].as_u64().unwrap());
    }
    let first = raw.event(1).await;
    assert_eq!((first["seq"].as_u64(), &first["event"]["partitionkey"]), (Some(seqs[0]), &json!("a")));
    assert_eq!(next(&mut raw, 1).await, (seqs[2], 1));
    ack(&mut raw, 1, seqs[0]).await;
    assert_eq!(next(&mut raw, 1).await, (seqs[1], 1));
}

#[apply(both_backends!)]
async fn members_agree_on_what_the_group_is(server: Server) {
    let mut raw = server.admin().await;
    let made = json!({"ordered": true, "ack_wait_ms": 5000, "max_deliveries": 7, "filter": {"data.n": 1}});
    join(&mut raw, 1, made.clone()).await;
    join(&mut raw, 2, made).await;
    join(&mut raw, 3, json!({})).await;
    for (field, value) in [
        ("ordered", json!(false)),
        ("ack_wait_ms", json!(6000)),
        ("max_deliveries", json!(5)),
        ("filter", json!({"data.n": 2})),
    ] {
        let (status, detail) = status(&mut raw, "event.subscribe", params(4, &json!({field: value}))).await;
        assert_eq!(status, 409, "{detail}");
        assert!(detail.starts_with(&format!("{field}: the group was made with")), "{detail}");
    }
    let shown = raw.call("consumer.get", json!({"name": "g"})).await;
    let expected = json!({
        "filter": {"data.n": 1}, "ordered": true, "ack_wait_ms": 5000, "max_deliveries": 7, "members": 3,
        "outstanding": 0, "held": 0, "delayed": 0, "dead_letters": "dead.g",
    });
    assert_eq!((&shown["group"], &shown["subscription"]), (&expected, &Value::Null));
    // A name is shared or it is not.
    let alone = json!({"sub": 5, "channel": "lab", "durable": "g"});
    assert_eq!(status(&mut raw, "event.subscribe", alone).await.0, 409);
    raw.call("event.subscribe", json!({"sub": 6, "channel": "lab", "durable": "alone"})).await;
    let shared = json!({"sub": 7, "channel": "lab", "durable": "alone", "group": true});
    assert_eq!(status(&mut raw, "event.subscribe", shared).await.0, 409);
    let poll = json!({"channel": "lab", "subscriber_id": "g"});
    assert_eq!(status(&mut raw, "consumer.open", poll).await.0, 409);
    let elsewhere = json!({"sub": 8, "channel": "node", "durable": "g", "group": true});
    assert_eq!(status(&mut raw, "event.subscribe", elsewhere).await.0, 409);
    // It belongs to one user; one of the same name is another one.
    let mut bob = server.connect().await;
    bob.call("session.hello", json!({"token": server.user("bob").await})).await;
    let bobs = join(&mut bob, 1, json!({"max_deliveries": 2})).await;
    assert_eq!(bobs["resumed"], false);
    let shown = bob.call("consumer.get", json!({"name": "g"})).await;
    assert_eq!((&shown["group"]["members"], &shown["group"]["max_deliveries"]), (&json!(1), &json!(2)));
    assert_eq!(status(&mut server.anonymous().await, "event.subscribe", params(1, &json!({}))).await.0, 401);
}

#[apply(both_backends!)]
async fn bad_parameters_are_named(server: Server) {
    let mut raw = server.admin().await;
    for (more, field) in [
        (json!({"ack_wait_ms": 999}), "ack_wait_ms"),
        (json!({"ack_wait_ms": 43_200_001}), "ack_wait_ms"),
        (json!({"max_deliveries": 0}), "max_deliveries"),
        (json!({"max_deliveries": 1001}), "max_deliveries"),
        (json!({"window": 0}), "window"),
        (json!({"window": 257}), "window"),
        (json!({"on_slow": "latest"}), "on_slow"),
        (json!({"durable": "a name"}), "durable"),
        (json!({"durable": "x".repeat(60)}), "durable"),
        (json!({"durable": ""}), "durable"),
        (json!({"durable": null}), "group"),
        (json!({"channel": "dead.g"}), "channel"),
        (json!({"group": false, "ordered": true}), "ordered"),
        (json!({"group": false, "ack_wait_ms": 5000}), "ack_wait_ms"),
        (json!({"group": false, "max_deliveries": 5}), "max_deliveries"),
        (json!({"filter": {"data.n__re": "("}}), "data.n__re"),
    ] {
        let error = raw.fail("event.subscribe", params(1, &more)).await;
        assert_eq!(error["data"]["status"], 422, "{more}: {error}");
        assert!(error["data"]["detail"].to_string().contains(field), "{more}: {error}");
    }
    for (field, value) in [
        ("ack_wait_ms", json!("5 s")),
        ("ordered", json!(1)),
        ("max_deliveries", json!(-1)),
        ("group", json!("yes")),
    ] {
        let error = raw.fail("event.subscribe", params(1, &json!({field: value}))).await;
        assert!(error.to_string().contains(field), "{error}");
    }
    // Nothing of this has made a group.
    assert_eq!(raw.call("consumer.list", json!({})).await["items"], json!([]));
    join(&mut raw, 1, json!({})).await;
    raw.call("event.subscribe", json!({"sub": 2, "channel": "lab"})).await;
    raw.call("event.subscribe", json!({"sub": 3, "channel": "lab", "durable": "alone"})).await;
    for (method, params, expected) in [
        ("event.nack", json!({"sub": 1, "seq": 1, "delay_ms": 43_200_001}), 422),
        ("event.nack", json!({"sub": 1, "seq": 1, "reason": "x".repeat(257)}), 422),
        ("event.nack", json!({"sub": 1, "seq": 1}), 409),
        ("event.extend", json!({"sub": 1, "seq": 1}), 409),
        ("event.nack", json!({"sub": 2, "seq": 1}), 400),
        ("event.nack", json!({"sub": 3, "seq": 1}), 400),
        ("event.extend", json!({"sub": 3, "seq": 1}), 400),
        ("event.ack", json!({"sub": 3, "seq": 0, "deliveries": 1}), 422),
        ("event.nack", json!({"sub": 4, "seq": 1}), 404),
        ("event.extend", json!({"sub": 4, "seq": 1}), 404),
    ] {
        assert_eq!(status(&mut raw, method, params.clone()).await.0, expected, "{method} {params}");
    }
}

#[apply(both_backends!)]
async fn moving_or_removing_it_ends_its_members(server: Server) {
    let (mut one, mut two) = (server.admin().await, server.admin().await);
    join(&mut one, 1, json!({"ack_wait_ms": 3_600_000, "window": 1})).await;
    join(&mut two, 1, json!({"window": 1})).await;
    publish(&mut one, 3).await;
    let (first, _) = next(&mut one, 1).await;
    ack(&mut one, 1, first).await;
    one.call("consumer.seek", json!({"name": "g", "to": "earliest"})).await;
    for raw in [&mut one, &mut two] {
        assert_eq!(ended(raw, 1).await, "moved: subscribe again");
        assert_eq!(status(raw, "event.ack", json!({"sub": 1, "seq": 1})).await.0, 409);
    }
    // Whoever was a member may have read more than it has done.
    let mut three = server.admin().await;
    let answer = join(&mut three, 1, json!({"window": 9})).await;
    assert_eq!(answer["position"]["seq"], 0);
    for seq in 1..=3 {
        assert_eq!(next(&mut three, 1).await, (seq, 1), "as if nothing had been");
    }
    one.call("consumer.delete", json!({"name": "g"})).await;
    assert_eq!(ended(&mut three, 1).await, "deleted");
    assert_eq!(status(&mut one, "consumer.get", json!({"name": "g"})).await.0, 404);
    let answer = join(&mut one, 1, json!({"ordered": true})).await;
    assert_eq!((&answer["resumed"], &answer["position"]["seq"]), (&json!(false), &json!(3)));
}

#[apply(both_backends_in_pairs!)]
async fn it_does_not_expire_while_it_has_members(backend: Backend) {
    // It is looked for what is too old every 10 s then; that it has members is noted every 7 s.
    let settings = [("CONSUMER_IDLE_SECONDS", "20"), ("PING_INTERVAL_MS", "10000")];
    let server = Server::start_with(backend, &settings).await;
    let mut raw = server.admin().await;
    join(&mut raw, 1, json!({})).await;
    shows(&mut raw, "there", |now| now["group"]["members"] == 1).await;
    is_noted_as_used(&mut raw, "g").await;
    let unused = raw.call("consumer.open", json!({"channel": "lab", "subscriber_id": "unused"})).await;
    server.age_subscription(unused["id"].as_u64().unwrap()).await;
    only_is_left(&mut raw, "g").await;
    publish(&mut raw, 1).await;
    assert_eq!(next(&mut raw, 1).await, (1, 1));
    ack(&mut raw, 1, 1).await;
}

/// Of what expired, some was out and some had not been looked at.
#[apply(both_backends!)]
async fn every_range_that_was_missed_is_told(server: Server) {
    let mut server = server;
    let mut raw = server.admin().await;
    join(&mut raw, 1, json!({"window": 4})).await;
    publish(&mut raw, 6).await;
    for seq in 1..=4 {
        assert_eq!(next(&mut raw, 1).await, (seq, 1));
    }
    ack(&mut raw, 1, 2).await;
    server.terminate().await;
    expire(&server, 5).await;
    server.restart().await;
    let mut raw = server.admin().await;
    join(&mut raw, 1, json!({})).await;
    let mut missed = BTreeSet::new();
    while missed.len() < 4 {
        let gap = raw.next_notification("gap", PATIENCE).await;
        assert_eq!(gap["sub"], 1);
        missed.extend(gap["from"].as_u64().unwrap()..=gap["to"].as_u64().unwrap());
    }
    assert_eq!(missed, BTreeSet::from([1, 3, 4, 5]));
    assert_eq!(next(&mut raw, 1).await, (6, 1));
    ack(&mut raw, 1, 6).await;
    // It is known to have been told.
    server.terminate().await;
    server.restart().await;
    let mut raw = server.admin().await;
    join(&mut raw, 1, json!({})).await;
    publish(&mut raw, 1).await;
    assert_eq!(next(&mut raw, 1).await, (7, 1));
    raw.assert_none_came("gap", 1);
}

/// As many as may be kept.
#[apply(both_backends!)]
async fn a_group_goes_on_while_events_are_held_back_and_says_when_it_cannot(server: Server) {
    const MOST: u64 = 4096;
    let (mut raw, mut other) = (server.admin().await, server.admin().await);
    join(&mut raw, 1, json!({"window": 256})).await;
    let mut writer = server.admin().await;
    let mut ids = std::collections::VecDeque::new();
    for n in 0..=MOST {
        let params = json!({"channel": "lab", "data": {"n": n}});
        ids.push_back(writer.send_request("event.publish", params).await.unwrap());
        if ids.len() >= 16 {
            writer.answer(ids.pop_front().unwrap()).await;
        }
    }
    for id in ids {
        writer.answer(id).await;
    }
    for _ in 0..MOST {
        let (seq, _) = next(&mut raw, 1).await;
        let params = json!({"sub": 1, "seq": seq, "delay_ms": 3_600_000});
        raw.send_text(json!({"jsonrpc": "2.0", "method": "event.nack", "params": params}).to_string()).await;
    }
    let stalled = raw.next_notification("stalled", PATIENCE).await;
    let delayed = stalled["delayed"].as_u64().unwrap();
    assert!(
        stalled["sub"] == 1 && (MOST - 512..=MOST).contains(&delayed),
        "but for those in its hands: {stalled}"
    );
    let in_ms = stalled["in_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&in_ms), "{in_ms}");
    join(&mut other, 2, json!({})).await;
    assert_eq!(other.next_notification("stalled", PATIENCE).await["sub"], 2, "who joins is told as well");
    shows(&mut raw, "they are held back", |now| now["group"]["delayed"] == MOST).await;
}

/// What a server that is killed had given out comes again when its lease has ended; what it has been told does not.
#[apply(both_backends_in_pairs!)]
async fn it_survives_the_server(server: Server) {
    let mut server = server;
    let mut raw = server.admin().await;
    join(&mut raw, 1, json!({"ack_wait_ms": 10_000, "window": 3})).await;
    publish(&mut raw, 5).await;
    assert_eq!(
        (next(&mut raw, 1).await, next(&mut raw, 1).await, next(&mut raw, 1).await),
        ((1, 1), (2, 1), (3, 1))
    );
    ack(&mut raw, 1, 2).await;
    server.kill9();
    server.restart().await;
    let mut raw = server.admin().await;
    join(&mut raw, 1, json!({"window": 9})).await;
    // Two may have been given out in the last moment, unseen, and any may come again on a slow machine.
    let mut seen = BTreeMap::new();
    while seen.len() < 4 {
        let (seq, deliveries) = next(&mut raw, 1).await;
        seen.entry(seq).or_insert(deliveries);
    }
    assert_eq!(seen.keys().copied().collect::<Vec<u64>>(), [1, 3, 4, 5]);
    assert_eq!((seen[&1], seen[&3]), (2, 2), "{seen:?}");
}

/// Two instances share the work; one that is killed is missed until its leases end, one that is stopped at once.
#[apply(in_pairs!)]
#[tokio::test]
async fn two_instances_share_a_group() {
    let one = Server::start(Backend::Production).await;
    let (mut two, mut three) = (one.another().await, one.another().await);
    let mut raws = [one.admin().await, two.admin().await, three.admin().await];
    for raw in &mut raws {
        join(raw, 1, json!({"ack_wait_ms": 4_000, "window": 4, "max_deliveries": 1000})).await;
    }
    let [mut here, mut there, mut yonder] = raws;
    publish(&mut here, 12).await;
    let mut all = BTreeSet::new();
    for raw in [&mut here, &mut there, &mut yonder] {
        for _ in 0..4 {
            let (seq, deliveries) = next(raw, 1).await;
            // Leases may have ended on a slow machine.
            assert!(all.insert(seq) || deliveries > 1, "{seq} is given twice");
        }
    }
    two.kill9();
    assert!(three.terminate().await.success());
    let mut done = BTreeSet::new();
    until("all come to the one that is left", async || {
        for seq in 1..=12 {
            if here.request("event.ack", json!({"sub": 1, "seq": seq})).await.get("result").is_some() {
                assert!(done.insert(seq), "{seq} is acknowledged twice");
            }
        }
        if done.len() == 12 { Ok(()) } else { Err(done.clone()) }
    })
    .await;
    // The member of the one that was stopped has left; the other one's instance could not say so.
    shows(&mut here, "all done", |now| now["position"]["seq"] == 12 && now["group"]["members"] != 3).await;
}

/// Sixteen members on two instances share some hundreds of events a second. Run with `--nocapture` for the rate.
#[apply(in_pairs!)]
#[tokio::test]
async fn sixteen_members_share_a_flood() {
    const EVENTS: usize = 800;
    for backend in [Backend::Embedded, Backend::Production] {
        let one = Server::start(backend).await;
        let two = if backend == Backend::Production { Some(one.another().await) } else { None };
        let mut publishers = Vec::new();
        for _ in 0..8 {
            let mut raw = one.admin().await;
            publishers.push(tokio::spawn(async move { publish(&mut raw, EVENTS as u64 / 8).await }));
        }
        for publisher in publishers {
            publisher.await.unwrap();
        }
        let mut raws = Vec::new();
        for n in 0..16 {
            raws.push(two.as_ref().filter(|_| n % 2 == 1).unwrap_or(&one).admin().await);
        }
        let begun = Instant::now();
        let done = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        let members = raws.into_iter().map(|mut raw| {
            let done = done.clone();
            tokio::spawn(async move {
                join(&mut raw, 1, json!({"ack_wait_ms": 600_000, "from": "earliest"})).await;
                while done.lock().unwrap().len() < EVENTS {
                    // Now and then it looks whether all is done: then nothing comes any more.
                    let next = raw.try_notification("event", Duration::from_millis(300));
                    let Ok(event) = next.await else { continue };
                    assert_eq!(event["deliveries"], 1, "{event}");
                    let params = json!({"sub": 1, "seq": event["seq"]});
                    raw.send_text(
                        json!({"jsonrpc": "2.0", "method": "event.ack", "params": params}).to_string(),
                    )
                    .await;
                    assert!(
                        done.lock().unwrap().insert(event["seq"].as_u64().unwrap()),
                        "{event} comes twice"
                    );
                }
                raw
            })
        });
        let mut raws = Vec::new();
        for member in members.collect::<Vec<_>>() {
            raws.push(member.await.unwrap());
        }
        println!("{backend:?}: {EVENTS} events in {:?}", begun.elapsed());
        let wanted = |now: &Value| now["position"]["seq"] == EVENTS && now["group"]["outstanding"] == 0;
        shows(&mut raws[0], "all done", wanted).await;
    }
}
