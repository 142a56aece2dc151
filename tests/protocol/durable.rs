//! Durable subscriptions: a place that is kept, acknowledged, taken over, moved.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{
    Backend, Http, PATIENCE, Raw, Server, both_backends, both_backends_in_pairs, services, to_redis, until,
    until_within,
};

/// Publishes these numbers on the channel `lab`.
async fn publish(raw: &mut Raw, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        raw.call("event.publish", json!({"channel": "lab", "data": {"n": number}})).await;
    }
}

/// Subscribes to `lab` under the name `d`.
async fn subscribe(raw: &mut Raw, sub: u64, more: Value) -> Value {
    let mut params = json!({"sub": sub, "channel": "lab", "durable": "d"});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    raw.call("event.subscribe", params).await
}

/// Reads events and expects them to have these numbers, as payload and as sequence number.
async fn expect(raw: &mut Raw, sub: u64, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let event = raw.event(sub).await;
        assert_eq!((&event["seq"], &event["event"]["data"]["n"]), (&json!(number), &json!(number)));
    }
}

async fn ack(raw: &mut Raw, sub: u64, seq: u64) {
    assert_eq!(raw.call("event.ack", json!({"sub": sub, "seq": seq})).await, json!({}));
}

/// Waits until the consumer `d` stands there.
async fn stands_at(raw: &mut Raw, seq: u64) {
    until(&format!("the consumer stands at {seq}"), async || {
        let now = raw.call("consumer.get", json!({"name": "d"})).await;
        if now["position"]["seq"] == seq { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Waits until the store has noted anew that this consumer is used.
pub(super) async fn is_noted_as_used(raw: &mut Raw, name: &str) {
    let used =
        async |raw: &mut Raw| raw.call("consumer.get", json!({"name": name})).await["last_used"].take();
    let before = used(raw).await;
    until("its use is noted", async || match used(raw).await {
        now if now != before => Ok(()),
        now => Err(now),
    })
    .await;
}

/// Waits until all other consumers have been dropped.
pub(super) async fn only_is_left(raw: &mut Raw, name: &str) {
    until_within(2 * PATIENCE, "the others are dropped", async || {
        let listed = raw.call("consumer.list", json!({})).await["items"].take();
        let names: Vec<&str> =
            listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert!(names.contains(&name), "{names:?}");
        if names == [name] { Ok(()) } else { Err(listed) }
    })
    .await;
}

async fn database(server: &Server) -> mongodb::Database {
    let client = mongodb::Client::with_uri_str(&services().mongo).await.expect("MongoDB");
    client.database(server.setting("MONGO_DB").expect("a database"))
}

/// Removes the oldest events of a server that does not run.
pub(super) async fn expire(server: &Server, events: u64) {
    if server.backend() == Backend::Embedded {
        let oldest = "DELETE FROM event WHERE n IN (SELECT n FROM event ORDER BY n LIMIT ?)";
        assert_eq!(server.database().execute(oldest, [events as i64]).expect("deleted"), events as usize);
        return;
    }
    let oldest = bson::doc! {"sequence_id": {"$lte": events as i64}};
    database(server)
        .await
        .collection::<bson::Document>("eventhistory")
        .delete_many(oldest)
        .await
        .expect("deleted");
    forget(server).await;
}

/// Redis loses everything.
async fn forget(server: &Server) {
    let mut redis = to_redis(None).await;
    let keys = format!("{}*", server.setting("REDIS_PREFIX").expect("a prefix"));
    let keys: Vec<String> = redis::cmd("KEYS").arg(keys).query_async(&mut redis).await.expect("keys");
    redis::cmd("UNLINK").arg(keys).exec_async(&mut redis).await.expect("deleted");
}

/// Takes the consumer `d` over without a word to anybody.
async fn take_over_silently(server: &Server) {
    let done = match server.backend() {
        Backend::Embedded => {
            let sql = "UPDATE consumer SET id = id + 1000000 WHERE name = 'd'";
            server.database().execute(sql, []).expect("written") as u64
        }
        Backend::Production => {
            let consumers = database(server).await.collection::<bson::Document>("subscriber_state");
            let update = bson::doc! {"$inc": {"id": 1_000_000_i64}};
            let update = consumers.update_one(bson::doc! {"subscriber_id": "d"}, update).await;
            update.expect("written").modified_count
        }
    };
    assert_eq!(done, 1);
}

/// The reason for which a subscription ends.
async fn ended(raw: &mut Raw, sub: u64) -> String {
    ended_by(raw, sub).await.0
}

/// The same, and the session that took it over.
async fn ended_by(raw: &mut Raw, sub: u64) -> (String, Value) {
    let mut params = raw.next_notification("unsubscribed", PATIENCE).await;
    assert_eq!(params["sub"], sub, "{params}");
    (params["reason"].as_str().unwrap().to_owned(), params["by"].take())
}

/// Acknowledged is done; all else comes again, in order, also after the server was killed.
#[apply(both_backends!)]
async fn what_is_not_acknowledged_comes_again(server: Server) {
    let mut server = server;
    let mut raw = server.admin().await;
    let answer = subscribe(&mut raw, 1, json!({})).await;
    assert_eq!((&answer["resumed"], &answer["recovered"]), (&json!(false), &json!(true)), "{answer}");
    assert_eq!(answer["position"]["seq"], 0);
    publish(&mut raw, 1..=6).await;
    expect(&mut raw, 1, 1..=6).await;
    // Cumulative: whatever comes later counts for all before.
    ack(&mut raw, 1, 2).await;
    ack(&mut raw, 1, 1).await;
    stands_at(&mut raw, 2).await;
    // An orderly end loses nothing of what was acknowledged, with or without an answer.
    raw.send_text(
        json!({"jsonrpc": "2.0", "method": "event.ack", "params": {"sub": 1, "seq": 3}}).to_string(),
    )
    .await;
    raw.call("event.unsubscribe", json!({"sub": 1})).await;
    assert_eq!(raw.call("consumer.get", json!({"name": "d"})).await["subscription"], Value::Null);
    let answer = subscribe(&mut raw, 1, json!({"from": "now"})).await;
    let from = (&answer["resumed"], &answer["recovered"], &answer["position"]["seq"]);
    assert_eq!(from, (&json!(true), &json!(true), &json!(3)), "{answer}");
    expect(&mut raw, 1, 4..=6).await;
    raw.send_text(
        json!({"jsonrpc": "2.0", "method": "event.ack", "params": {"sub": 1, "seq": 4}}).to_string(),
    )
    .await;
    drop(raw);
    let mut raw = server.admin().await;
    stands_at(&mut raw, 4).await;
    subscribe(&mut raw, 7, json!({})).await;
    publish(&mut raw, 7..=7).await;
    expect(&mut raw, 7, 5..=7).await;
    ack(&mut raw, 7, 5).await;
    server.kill9();
    server.restart().await;
    let mut raw = server.admin().await;
    let answer = subscribe(&mut raw, 1, json!({})).await;
    assert_eq!((&answer["resumed"], &answer["position"]["seq"]), (&json!(true), &json!(5)), "{answer}");
    expect(&mut raw, 1, 6..=7).await;
    raw.send_text(
        json!({"jsonrpc": "2.0", "method": "event.ack", "params": {"sub": 1, "seq": 7}}).to_string(),
    )
    .await;
    // The acknowledgement has come in when what was sent behind it is answered.
    raw.call("event.find", json!({"limit": 1})).await;
    assert!(server.terminate().await.success());
    server.restart().await;
    let mut raw = server.admin().await;
    stands_at(&mut raw, 7).await;
    subscribe(&mut raw, 1, json!({})).await;
    publish(&mut raw, 8..=8).await;
    expect(&mut raw, 1, 8..=8).await;
}

#[apply(both_backends!)]
async fn a_window_of_events_waits_to_be_acknowledged(server: Server) {
    let mut raw = server.admin().await;
    publish(&mut raw, 1..=9).await;
    // Another subscription of the session is not held up; what may come to both comes to both.
    raw.call("event.subscribe", json!({"sub": 2, "channel": "lab"})).await;
    subscribe(&mut raw, 1, json!({"from": "earliest", "window": 3})).await;
    let waits = async |raw: &mut Raw, numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            publish(raw, number..=number).await;
            expect(raw, 2, number..=number).await;
        }
        raw.assert_none_came("event", 1);
    };
    expect(&mut raw, 1, 1..=3).await;
    waits(&mut raw, 10..=11).await;
    ack(&mut raw, 1, 1).await;
    expect(&mut raw, 1, 4..=4).await;
    waits(&mut raw, 12..=13).await;
    ack(&mut raw, 1, 4).await;
    expect(&mut raw, 1, 5..=7).await;
    waits(&mut raw, 14..=15).await;
    ack(&mut raw, 1, 7).await;
    expect(&mut raw, 1, 8..=10).await;
    stands_at(&mut raw, 7).await;
    // The narrowest window, acknowledged one by one without waiting.
    raw.call("event.unsubscribe", json!({"sub": 1})).await;
    raw.call("consumer.seek", json!({"name": "d", "to": "earliest"})).await;
    subscribe(&mut raw, 1, json!({"window": 1})).await;
    for number in 1..=10 {
        expect(&mut raw, 1, number..=number).await;
        raw.send_text(
            json!({"jsonrpc": "2.0", "method": "event.ack", "params": {"sub": 1, "seq": number}}).to_string(),
        )
        .await;
    }
    stands_at(&mut raw, 10).await;
}

/// Many acknowledgements at once, far more than requests may be in flight, and none is lost.
#[apply(both_backends!)]
async fn acknowledgements_may_come_in_any_number(server: Server) {
    let mut raw = server.admin().await;
    publish(&mut raw, 1..=100).await;
    subscribe(&mut raw, 1, json!({"from": "earliest", "window": 1000})).await;
    expect(&mut raw, 1, 1..=100).await;
    let mut sent = Vec::new();
    for seq in 1..=100 {
        raw.send_text(
            json!({"jsonrpc": "2.0", "method": "event.ack", "params": {"sub": 1, "seq": seq}}).to_string(),
        )
        .await;
        sent.push(raw.send_request("event.ack", json!({"sub": 1, "seq": seq})).await.unwrap());
    }
    for id in sent {
        assert_eq!(raw.answer(id).await["result"], json!({}));
    }
    assert_eq!(raw.call("consumer.get", json!({"name": "d"})).await["position"]["seq"], 100);
}

#[apply(both_backends!)]
async fn a_second_subscription_takes_over(server: Server) {
    let (mut one, mut two) = (server.admin().await, server.admin().await);
    subscribe(&mut one, 1, json!({})).await;
    publish(&mut one, 1..=3).await;
    expect(&mut one, 1, 1..=3).await;
    ack(&mut one, 1, 1).await;
    // Another session.
    let answer = subscribe(&mut two, 4, json!({})).await;
    assert_eq!((&answer["resumed"], &answer["position"]["seq"]), (&json!(true), &json!(1)), "{answer}");
    expect(&mut two, 4, 2..=3).await;
    let session =
        two.call("session.refresh", json!({"token": server.token().await})).await["session"].clone();
    assert_eq!(ended_by(&mut one, 1).await, ("taken over".to_owned(), session));
    let error = one.fail("event.ack", json!({"sub": 1, "seq": 3})).await;
    assert_eq!(
        (&error["data"]["status"], &error["data"]["detail"]),
        (&json!(409), &json!("sub: taken over"))
    );
    stands_at(&mut two, 1).await;
    // The same session.
    subscribe(&mut two, 5, json!({})).await;
    assert_eq!(ended(&mut two, 4).await, "taken over");
    expect(&mut two, 5, 2..=3).await;
    assert_eq!(two.fail("event.ack", json!({"sub": 4, "seq": 3})).await["data"]["status"], 409);
    // A number that is free is taken again.
    subscribe(&mut two, 4, json!({})).await;
    assert_eq!(ended(&mut two, 5).await, "taken over");
    ack(&mut two, 4, 1).await;
    // A long poll, and back.
    let http = Http::admin(&server).await;
    let id = http.post("/latest/subscribe/lab?subscriber_id=d", &Value::Null).await.ok()["id"].clone();
    assert_eq!(ended(&mut two, 4).await, "taken over");
    let message = http.get(&format!("/latest/listen/{id}")).await.ok();
    let event: Value = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
    assert_eq!(event["data"]["n"], 2);
    subscribe(&mut one, 1, json!({})).await;
    expect(&mut one, 1, 2..=3).await;
    assert_eq!(http.get(&format!("/latest/listen/{id}")).await.status, 404);
    ack(&mut one, 1, 3).await;
}

/// A connection is cut while it subscribes, and its client comes back at once on another one.
#[apply(both_backends!)]
async fn a_request_of_a_dead_connection_takes_nothing_over(server: Server) {
    let mut number = 0;
    for round in 0..40 {
        let (mut dead, mut live) = (server.admin().await, server.admin().await);
        let params = json!({"sub": 1, "channel": "lab", "durable": "d"});
        dead.send_request("event.subscribe", params).await.unwrap();
        drop(dead.into_stream());
        // Sometimes before the other one has begun, sometimes in the midst of it.
        for _ in 0..round % 8 {
            live.call("node.count", json!({"filter": {"kind": "none"}})).await;
        }
        subscribe(&mut live, 1, json!({})).await;
        for _ in 0..3 {
            number += 1;
            publish(&mut live, number..=number).await;
            expect(&mut live, 1, number..=number).await;
            ack(&mut live, 1, number).await;
        }
        live.assert_none_came("unsubscribed", 1);
    }
}

/// A connection that has lost all that it followed ends, unless it goes on with something else.
#[apply(both_backends!)]
async fn a_connection_that_has_nothing_left_is_closed_as_taken_over(server: Server) {
    let (mut idle, mut works, mut follows) =
        (server.admin().await, server.admin().await, server.admin().await);
    let mut newest = server.admin().await;
    follows.call("event.subscribe", json!({"sub": 2, "channel": "lab"})).await;
    for raw in [&mut works, &mut follows, &mut idle, &mut newest] {
        subscribe(raw, 1, json!({})).await;
    }
    assert_eq!(ended(&mut works, 1).await, "taken over");
    assert_eq!(ended(&mut follows, 1).await, "taken over");
    works.call("session.hello", json!({})).await;
    assert_eq!(idle.expect_close().await, 4409);
    assert_eq!(ended(&mut idle, 1).await, "taken over");
    publish(&mut newest, 1..=1).await;
    follows.event(2).await;
    works.call("node.count", json!({})).await;
}

#[apply(both_backends!)]
async fn moving_or_removing_it_ends_the_subscription(server: Server) {
    let (mut raw, mut operator) = (server.admin().await, server.admin().await);
    subscribe(&mut raw, 1, json!({})).await;
    publish(&mut raw, 1..=4).await;
    expect(&mut raw, 1, 1..=4).await;
    ack(&mut raw, 1, 4).await;
    operator.call("consumer.seek", json!({"name": "d", "to": "earliest"})).await;
    assert_eq!(ended(&mut raw, 1).await, "moved: subscribe again");
    let error = raw.fail("event.ack", json!({"sub": 1, "seq": 4})).await;
    assert_eq!(error["data"]["status"], 409, "{error}");
    subscribe(&mut raw, 1, json!({})).await;
    expect(&mut raw, 1, 1..=4).await;
    ack(&mut raw, 1, 2).await;
    operator.call("consumer.delete", json!({"name": "d"})).await;
    assert_eq!(ended(&mut raw, 1).await, "deleted");
    assert_eq!(raw.fail("event.ack", json!({"sub": 1, "seq": 3})).await["data"]["detail"], "sub: deleted");
    let answer = subscribe(&mut raw, 1, json!({})).await;
    assert_eq!((&answer["resumed"], &answer["position"]["seq"]), (&json!(false), &json!(4)), "{answer}");
}

/// What a filter leaves out needs no acknowledgement; the place moves past it.
#[apply(both_backends_in_pairs!)]
async fn the_place_moves_past_what_is_not_wanted(backend: Backend) {
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "2000")]).await;
    let mut raw = server.admin().await;
    subscribe(&mut raw, 1, json!({"filter": {"data.n": 3}})).await;
    publish(&mut raw, 1..=2).await;
    stands_at(&mut raw, 2).await;
    publish(&mut raw, 3..=5).await;
    expect(&mut raw, 1, 3..=3).await;
    // Not past what waits to be acknowledged.
    while raw.next_notification("progress", PATIENCE).await["seq"] != 5 {}
    // Progress is told with a ping: with the next ones there is nothing to tell.
    raw.answer_pings(2).await;
    raw.assert_none_came("progress", 1);
    stands_at(&mut raw, 2).await;
    ack(&mut raw, 1, 3).await;
    stands_at(&mut raw, 5).await;
}

#[apply(both_backends_in_pairs!)]
async fn it_does_not_expire_while_it_is_used(backend: Backend) {
    // It is looked for what is too old every 10 s then; what is used is noted every 2 s.
    let settings = [("PING_INTERVAL_MS", "2000"), ("CONSUMER_IDLE_SECONDS", "20")];
    let server = Server::start_with(backend, &settings).await;
    let mut raw = server.admin().await;
    subscribe(&mut raw, 1, json!({})).await;
    is_noted_as_used(&mut raw, "d").await;
    // The other one, which nobody uses, goes.
    let unused = raw.call("consumer.open", json!({"channel": "lab", "subscriber_id": "unused"})).await;
    server.age_subscription(unused["id"].as_u64().unwrap()).await;
    only_is_left(&mut raw, "d").await;
    is_noted_as_used(&mut raw, "d").await;
    publish(&mut raw, 1..=1).await;
    expect(&mut raw, 1, 1..=1).await;
    ack(&mut raw, 1, 1).await;
}

/// Signals may get lost: the next acknowledgement notices, or the next ping.
#[apply(both_backends_in_pairs!)]
async fn a_takeover_is_noticed_without_being_told(backend: Backend) {
    let mut server = Server::start(backend).await;
    let mut raw = server.admin().await;
    subscribe(&mut raw, 1, json!({})).await;
    publish(&mut raw, 1..=2).await;
    expect(&mut raw, 1, 1..=2).await;
    ack(&mut raw, 1, 1).await;
    take_over_silently(&server).await;
    let error = raw.fail("event.ack", json!({"sub": 1, "seq": 2})).await;
    assert_eq!(
        (&error["data"]["status"], &error["data"]["detail"]),
        (&json!(409), &json!("sub: taken over"))
    );
    assert_eq!(ended(&mut raw, 1).await, "taken over");
    stands_at(&mut raw, 1).await;
    server.kill9();
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "2000")]).await;
    let mut raw = server.admin().await;
    subscribe(&mut raw, 1, json!({})).await;
    take_over_silently(&server).await;
    assert_eq!(ended(&mut raw, 1).await, "taken over");
}

#[apply(both_backends!)]
async fn what_has_aged_out_is_told_exactly(server: Server) {
    let mut server = server;
    let mut raw = server.admin().await;
    subscribe(&mut raw, 1, json!({})).await;
    publish(&mut raw, 1..=6).await;
    expect(&mut raw, 1, 1..=6).await;
    ack(&mut raw, 1, 1).await;
    server.terminate().await;
    expire(&server, 3).await;
    server.restart().await;
    let mut raw = server.admin().await;
    // Until it is acknowledged it is told again.
    for sub in 1..=2 {
        let answer = subscribe(&mut raw, sub, json!({})).await;
        let told = (&answer["recovered"], &answer["missed"], &answer["position"]["seq"]);
        assert_eq!(told, (&json!(false), &json!({"from": 2, "to": 3}), &json!(3)), "{answer}");
        expect(&mut raw, sub, 4..=6).await;
    }
    ack(&mut raw, 2, 3).await;
    let answer = subscribe(&mut raw, 3, json!({})).await;
    assert_eq!((&answer["recovered"], &answer["position"]["seq"]), (&json!(true), &json!(3)), "{answer}");
    expect(&mut raw, 3, 4..=6).await;
}

#[apply(both_backends!)]
async fn it_belongs_to_its_user(server: Server) {
    let mut raw = server.admin().await;
    subscribe(&mut raw, 1, json!({})).await;
    let params = json!({"sub": 1, "channel": "lab", "durable": "d"});
    let mut bob = server.connect().await;
    let token = server.user("bob").await;
    bob.call("session.hello", json!({"token": token})).await;
    // One of the same name is another one.
    assert_eq!(bob.fail("consumer.get", json!({"name": "d"})).await["data"]["status"], 404);
    let apart = json!({"sub": 2, "channel": "lab", "durable": "d"});
    assert_eq!(bob.call("event.subscribe", apart).await["resumed"], false);
    let apart = bob.call("consumer.get", json!({"name": "d"})).await;
    assert_eq!((&apart["name"], &apart["user"]), (&json!("d"), &json!("bob")));
    bob.call("event.unsubscribe", json!({"sub": 2})).await;
    let elsewhere = json!({"sub": 2, "channel": "node", "durable": "d"});
    let error = raw.fail("event.subscribe", elsewhere).await;
    assert_eq!(error["data"]["status"], 409, "{error}");
    assert!(error["data"]["detail"].as_str().unwrap().contains("channel lab"), "{error}");
    let error = server.anonymous().await.fail("event.subscribe", params.clone()).await;
    assert_eq!(error["data"]["status"], 401, "{error}");
    // None of them has taken it over.
    publish(&mut raw, 1..=1).await;
    expect(&mut raw, 1, 1..=1).await;
    ack(&mut raw, 1, 1).await;
    // It ends when the session is another user's, or nobody's any more; the place is kept.
    raw.call("session.refresh", json!({"token": token})).await;
    assert_eq!(ended(&mut raw, 1).await, "the session has another user now");
    let mut params = params;
    params["durable"] = "bobs".into();
    bob.call("event.subscribe", params).await;
    let admin = Http::admin(&server).await;
    let users = admin.get("/latest/users?username=bob").await.ok();
    admin
        .patch(
            &format!("/latest/user/{}", users["items"][0]["id"].as_str().unwrap()),
            &json!({"is_active": false}),
        )
        .await
        .ok();
    assert_eq!(ended(&mut bob, 1).await, "the session has no user any more");
    let mut raw = server.admin().await;
    stands_at(&mut raw, 1).await;
}

/// MongoDB was restored from a backup, and Redis is empty: what is left is delivered, what is lost is told, and what
/// follows has higher numbers.
#[tokio::test]
async fn it_goes_on_in_a_new_epoch() {
    let server = Server::start(Backend::Production).await;
    let mut raw = server.admin().await;
    let before = subscribe(&mut raw, 1, json!({})).await;
    publish(&mut raw, 1..=5).await;
    expect(&mut raw, 1, 1..=5).await;
    ack(&mut raw, 1, 2).await;
    let database = database(&server).await;
    let late = bson::doc! {"sequence_id": {"$gt": 3}};
    database.collection::<bson::Document>("eventhistory").delete_many(late).await.expect("deleted");
    let back = bson::doc! {"$set": {"head": 3_i64}};
    let channels = database.collection::<bson::Document>("channel");
    channels.update_one(bson::doc! {"_id": "lab"}, back).await.expect("set back");
    forget(&server).await;
    publish(&mut raw, 6..=6).await;
    // Whoever is there goes on behind what it has been shown.
    let gap = raw.next_notification("gap", PATIENCE).await;
    assert_eq!((&gap["sub"], &gap["from"], &gap["to"]), (&json!(1), &json!(6), &json!(5)), "{gap}");
    expect(&mut raw, 1, 6..=6).await;
    // Whoever comes back, behind what was acknowledged.
    let answer = subscribe(&mut raw, 2, json!({})).await;
    assert_ne!(answer["position"]["epoch"], before["position"]["epoch"], "{answer}");
    assert_eq!(answer["position"]["epoch"], gap["epoch"], "{answer}");
    let told = (&answer["recovered"], &answer["position"]["seq"], answer.get("missed"));
    assert_eq!(told, (&json!(false), &json!(2), None), "{answer}");
    expect(&mut raw, 2, 3..=3).await;
    let gap = raw.next_notification("gap", PATIENCE).await;
    assert_eq!(gap, json!({"sub": 2, "from": 4, "to": 5}));
    expect(&mut raw, 2, 6..=6).await;
    ack(&mut raw, 2, 6).await;
    let answer = subscribe(&mut raw, 3, json!({})).await;
    assert_eq!((&answer["recovered"], &answer["position"]["seq"]), (&json!(true), &json!(6)), "{answer}");
}

/// Two instances: the name moves between them, with its place.
#[tokio::test]
async fn it_moves_between_instances() {
    let one = Server::start(Backend::Production).await;
    let mut two = one.another().await;
    let (mut here, mut there) = (one.admin().await, two.admin().await);
    subscribe(&mut here, 1, json!({})).await;
    publish(&mut here, 1..=5).await;
    expect(&mut here, 1, 1..=5).await;
    ack(&mut here, 1, 2).await;
    subscribe(&mut there, 1, json!({})).await;
    assert_eq!(ended(&mut here, 1).await, "taken over");
    let error = here.fail("event.ack", json!({"sub": 1, "seq": 5})).await;
    assert_eq!(error["data"]["status"], 409, "{error}");
    expect(&mut there, 1, 3..=5).await;
    ack(&mut there, 1, 4).await;
    two.kill9();
    let answer = subscribe(&mut here, 1, json!({})).await;
    assert_eq!(answer["position"]["seq"], 4, "{answer}");
    expect(&mut here, 1, 5..=5).await;
}
