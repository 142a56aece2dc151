//! Subscriptions: where they begin, what they match, what they include, how they end.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{
    Backend, Http, PATIENCE, Raw, Server, another_moment, both_backends, both_backends_in_pairs, node,
};

/// Creates checkouts of these names, which differ in time.
async fn checkouts(raw: &mut Raw, names: &[&str]) -> Vec<Value> {
    let mut made = Vec::new();
    for name in names {
        made.push(raw.call("node.create", json!({"node": node("checkout", name)})).await);
        another_moment().await;
    }
    made
}

/// The name of the node in the next event, and its sequence number.
async fn next(raw: &mut Raw, sub: u64) -> (String, u64) {
    let event = raw.event(sub).await;
    let name = event["event"]["data"]["name"].as_str().expect("the event names its node").to_owned();
    (name, event["seq"].as_u64().expect("a sequence number"))
}

#[apply(both_backends!)]
async fn from_now_comes_what_happens_next(server: Server) {
    let mut raw = server.admin().await;
    checkouts(&mut raw, &["before"]).await;
    // An event follows its write; one that comes later would still be new.
    raw.call("event.subscribe", json!({"sub": 9, "channel": "node", "from": "earliest"})).await;
    raw.event(9).await;
    raw.call("event.unsubscribe", json!({"sub": 9})).await;
    let answer = raw.call("event.subscribe", json!({"sub": 3, "channel": "node"})).await;
    assert_eq!((&answer["sub"], &answer["recovered"]), (&json!(3), &json!(true)), "{answer}");
    let head = answer["position"]["seq"].as_u64().expect("a position");
    let made = checkouts(&mut raw, &["after"]).await.remove(0);
    let params = raw.event(3).await;
    assert_eq!(params["seq"], head + 1);
    let event = &params["event"];
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("api.kernelci.org")));
    assert_eq!((&event["subject"], &event["owner"]), (&made["id"], &json!("admin")));
    assert_eq!(event["sequence"], format!("{:020}", head + 1));
    let time = event["time"].as_str().expect("a time");
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    let data = &event["data"];
    assert_eq!((&data["op"], &data["id"], &data["name"]), (&json!("created"), &made["id"], &json!("after")));
    assert_eq!((&data["state"], &data["is_hierarchy"]), (&json!("running"), &json!(false)));
    raw.call("node.update", json!({"id": made["id"], "set": {"state": "done", "result": "pass"}})).await;
    let updated = raw.event(3).await["event"]["data"].take();
    assert_eq!((&updated["op"], &updated["state"]), (&json!("updated"), &json!("done")));
    assert_eq!((&updated["previous_state"], &updated["previous_result"]), (&json!("running"), &Value::Null));
}

#[apply(both_backends!)]
async fn from_earliest_a_position_or_a_time(server: Server) {
    let mut raw = server.admin().await;
    checkouts(&mut raw, &["a", "b", "c"]).await;
    let answer = raw.call("event.subscribe", json!({"sub": 1, "channel": "node", "from": "earliest"})).await;
    let mut times = Vec::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let event = raw.event(1).await;
        assert_eq!((&event["seq"], &event["event"]["data"]["name"]), (&json!(number + 1), &json!(name)));
        times.push(event["event"]["time"].clone());
    }
    let from = json!({"epoch": answer["position"]["epoch"], "seq": 2});
    let resumed = raw.call("event.subscribe", json!({"sub": 2, "channel": "node", "from": from})).await;
    assert_eq!((&resumed["recovered"], &resumed["position"]), (&json!(true), &from));
    assert_eq!(next(&mut raw, 2).await, ("c".to_owned(), 3));
    raw.call("event.subscribe", json!({"sub": 3, "channel": "node", "from": {"time": times[1]}})).await;
    assert_eq!(next(&mut raw, 3).await, ("b".to_owned(), 2));
    assert_eq!(next(&mut raw, 3).await, ("c".to_owned(), 3));
    // All of them are live now.
    checkouts(&mut raw, &["d"]).await;
    for sub in 1..=3 {
        assert_eq!(next(&mut raw, sub).await, ("d".to_owned(), 4));
    }
}

#[apply(both_backends!)]
async fn another_history_is_not_recovered(server: Server) {
    let mut raw = server.admin().await;
    checkouts(&mut raw, &["a"]).await;
    // On MongoDB a write is answered a little before its event has its place.
    raw.call("event.subscribe", json!({"sub": 9, "channel": "node", "from": "earliest"})).await;
    assert_eq!(next(&mut raw, 9).await, ("a".to_owned(), 1));
    let from = json!({"epoch": "of-another-server", "seq": 1});
    let answer = raw.call("event.subscribe", json!({"sub": 1, "channel": "node", "from": from})).await;
    assert_eq!(answer["recovered"], false);
    assert_ne!(answer["position"]["epoch"], "of-another-server");
    assert_eq!(answer["missed"], json!({"from": 1, "to": 1}), "{answer}");
    // A position that has not been reached in this history was never handed out.
    let from = json!({"epoch": answer["position"]["epoch"], "seq": 1_000_000});
    let ahead = raw.request("event.subscribe", json!({"sub": 2, "channel": "node", "from": from})).await;
    assert!(ahead["result"]["recovered"] == false || ahead["error"]["data"]["status"] == 400, "{ahead}");
}

#[apply(both_backends_in_pairs!)]
async fn a_filter_selects_and_progress_goes_on(backend: Backend) {
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "2000")]).await;
    let mut raw = server.admin().await;
    let filter = json!({"data.kind": "job", "data.state__in": ["running", "done"]});
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node", "filter": filter})).await;
    checkouts(&mut raw, &["a", "b"]).await;
    raw.call("node.create", json!({"node": node("job", "j")})).await;
    checkouts(&mut raw, &["c", "d"]).await;
    assert_eq!(next(&mut raw, 1).await, ("j".to_owned(), 3));
    loop {
        let progress = raw.next_notification("progress", PATIENCE).await;
        assert_eq!(progress["sub"], 1);
        let seq = progress["seq"].as_u64().expect("a sequence number");
        assert!(seq <= 5);
        if seq == 5 {
            break;
        }
    }
    raw.call("node.create", json!({"node": node("job", "k")})).await;
    assert_eq!(next(&mut raw, 1).await, ("k".to_owned(), 6), "none of those in between comes late");
}

#[apply(both_backends!)]
async fn the_node_and_its_ancestors_come_along(server: Server) {
    let mut raw = server.admin().await;
    let include = json!(["node", "ancestors"]);
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node", "include": include})).await;
    raw.call("event.subscribe", json!({"sub": 2, "channel": "node", "include": ["node"]})).await;
    raw.call("event.subscribe", json!({"sub": 3, "channel": "node"})).await;
    let mut parent = Value::Null;
    let mut line = Vec::new();
    for kind in ["checkout", "kbuild", "job"] {
        let mut child = node(kind, kind);
        child["parent"] = parent;
        let made = raw.call("node.create", json!({"node": child})).await;
        parent = made["id"].clone();
        line.push(made["id"].clone());
        let all = raw.event(1).await;
        assert_eq!((&all["node"]["id"], &all["node"]["revision"]), (&made["id"], &json!(1)));
        let above = all["ancestors"].as_array().expect("ancestors").iter().map(|node| &node["id"]);
        assert!(above.eq(line[..line.len() - 1].iter()), "from the root down: {all}");
        let one = raw.event(2).await;
        assert_eq!((&one["node"]["id"], one.get("ancestors")), (&made["id"], None));
        assert_eq!(raw.event(3).await.get("node"), None);
    }
}

#[apply(both_backends!)]
async fn unsubscribing_ends_it(server: Server) {
    let mut raw = server.admin().await;
    for sub in [1, 2] {
        raw.call("event.subscribe", json!({"sub": sub, "channel": "node"})).await;
    }
    let taken = raw.fail("event.subscribe", json!({"sub": 2, "channel": "node"})).await;
    assert!(taken["data"]["status"].as_u64().is_some_and(|status| (400..500).contains(&status)), "{taken}");
    assert_eq!(raw.call("event.unsubscribe", json!({"sub": 1})).await, json!({}));
    // The first one would have come to both before the second one comes to one.
    checkouts(&mut raw, &["a", "b"]).await;
    for name in ["a", "b"] {
        assert_eq!(next(&mut raw, 2).await.0, name);
    }
    raw.assert_none_came("event", 1);
    assert_eq!(raw.fail("event.unsubscribe", json!({"sub": 1})).await["code"], -32004);
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
}

/// In one go, so that the second comes while the first is under way.
#[apply(both_backends!)]
async fn requests_about_one_subscription_are_carried_out_in_their_order(server: Server) {
    let mut raw = server.admin().await;
    for durable in [json!({}), json!({"durable": "d"})] {
        for _ in 0..15 {
            let mut subscribe = json!({"sub": 1, "channel": "node"});
            subscribe.as_object_mut().unwrap().extend(durable.as_object().unwrap().clone());
            let mut ids = Vec::new();
            for (method, params) in [
                ("event.subscribe", &subscribe),
                ("event.unsubscribe", &json!({"sub": 1})),
                ("event.subscribe", &subscribe),
                ("event.subscribe", &subscribe),
                ("event.unsubscribe", &json!({"sub": 1})),
                ("event.unsubscribe", &json!({"sub": 1})),
            ] {
                ids.push(raw.send_request(method, params.clone()).await.unwrap());
            }
            let mut statuses = Vec::new();
            for id in ids {
                let answer = raw.answer(id).await;
                statuses.push(answer["error"]["data"]["status"].as_u64().unwrap_or(200));
            }
            assert_eq!(statuses, [200, 200, 200, 400, 200, 404]);
        }
    }
}

#[apply(both_backends!)]
async fn a_session_has_128_subscriptions_at_most(server: Server) {
    let mut raw = server.anonymous().await;
    for sub in 1..=128 {
        raw.call("event.subscribe", json!({"sub": sub, "channel": "node"})).await;
    }
    let error = raw.fail("event.subscribe", json!({"sub": 129, "channel": "node"})).await;
    assert_eq!((&error["code"], &error["data"]["status"]), (&json!(-32029), &json!(429)));
    raw.call("event.unsubscribe", json!({"sub": 5})).await;
    raw.call("event.subscribe", json!({"sub": 129, "channel": "node"})).await;
    checkouts(&mut server.admin().await, &["a"]).await;
    for sub in [1, 128, 129] {
        raw.event(sub).await;
    }
}

#[apply(both_backends!)]
async fn nobody_in_particular_follows_channels_that_exist(server: Server) {
    let (mut raw, mut nobody) = (server.admin().await, server.anonymous().await);
    let subscribe = json!({"sub": 1, "channel": "board-7"});
    let error = nobody.fail("event.subscribe", subscribe.clone()).await;
    assert_eq!(error["data"]["status"], 404, "{error}");
    raw.call("event.subscribe", subscribe.clone()).await;
    raw.call("event.publish", json!({"channel": "board-7", "data": 1})).await;
    raw.event(1).await;
    nobody.call("event.subscribe", subscribe).await;
}

#[apply(both_backends!)]
async fn own_events_are_published_and_found(server: Server) {
    let mut raw = server.admin().await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "lab"})).await;
    raw.call("event.subscribe", json!({"sub": 2, "channel": "node"})).await;
    let publish = json!({"channel": "lab", "data": {"board": 7}, "type": "org.example.board",
        "source": "https://lab.example/", "attributes": {"rack": "r1"}, "idempotency_key": "p1"});
    let first = raw.call("event.publish", publish.clone()).await;
    assert_eq!(raw.call("event.publish", publish).await, first, "the repetition is the first one");
    let params = raw.event(1).await;
    let event = &params["event"];
    assert_eq!((&params["seq"], &event["data"]), (&first["seq"], &json!({"board": 7})));
    assert_eq!(
        (&event["type"], &event["source"]),
        (&json!("org.example.board"), &json!("https://lab.example/"))
    );
    assert_eq!((&event["owner"], &event["rack"]), (&json!("admin"), &json!("r1")));
    for number in 0..5 {
        raw.call("event.publish", json!({"channel": "lab", "data": number})).await;
        assert_eq!(raw.event(1).await["event"]["data"], number, "the repetition has no event");
    }
    checkouts(&mut raw, &["a"]).await;
    assert_eq!(
        next(&mut raw, 2).await,
        ("a".to_owned(), 1),
        "what is on the other channel does not come here"
    );
    let mut found = Vec::new();
    let mut after = Value::Null;
    loop {
        let mut params = json!({"channel": "lab", "limit": 2});
        if !after.is_null() {
            params["after"] = after;
        }
        let page = raw.call("event.find", params).await;
        found.extend(page["items"].as_array().expect("items").iter().cloned());
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(found.len(), 6, "{found:?}");
    let one = raw.call("event.find", json!({"channel": "lab", "filter": {"data.board": 7}})).await;
    assert_eq!(one["items"].as_array().map(Vec::len), Some(1), "{one}");
    for (params, word) in [
        (json!({"channel": "no/such", "data": 1}), "channel"),
        (json!({"channel": "lab", "data": 1, "attributes": {"-_-": 1}}), "-_-"),
        (json!({"data": 1}), "channel"),
        (json!({"channel": "lab", "data": {"a\u{0}": 1}}), "NUL"),
        (json!({"channel": "lab", "data": [u64::MAX]}), "2^63"),
    ] {
        let error = raw.fail("event.publish", params).await;
        assert!(error["data"]["detail"].to_string().contains(word), "{error}");
    }
    // A body over HTTP may be larger than a message, an event not.
    let large = json!({"jsonrpc": "2.0", "id": 1, "method": "event.publish",
        "params": {"channel": "lab", "data": "x".repeat(1 << 20)}});
    let request = reqwest::Client::new().post(format!("{}/latest/rpc", server.url()));
    let request = request.bearer_auth(server.token().await).body(large.to_string());
    let answer: Value = request.send().await.expect("answers").json().await.expect("JSON");
    assert_eq!(answer["error"]["data"]["status"], 413, "{answer}");
}

/// A client whose library takes no longer messages gets what fits, and all that follows.
#[apply(both_backends!)]
async fn nothing_longer_than_the_client_takes_goes_out(server: Server) {
    const LONGEST: usize = 64 << 10;
    let mut admin = server.admin().await;
    let mut raw = server.connect().await;
    let error = raw.fail("session.hello", json!({"max_message": 100})).await;
    assert_eq!(error["data"]["detail"], "max_message: expected 4,096 to 67,108,864");
    raw.call("session.hello", json!({"token": server.token().await, "max_message": LONGEST})).await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "lab"})).await;
    raw.call("event.subscribe", json!({"sub": 2, "channel": "node", "include": ["node", "ancestors"]})).await;
    raw.call("event.subscribe", json!({"sub": 3, "channel": "lab", "durable": "g", "group": true})).await;
    let long = "x".repeat(100_000);
    admin.call("event.publish", json!({"channel": "lab", "data": {"text": long}})).await;
    let small = admin.call("event.publish", json!({"channel": "lab", "data": {"text": "small"}})).await;
    for sub in [1, 3] {
        let event = raw.event(sub).await;
        assert_eq!((&event["seq"], &event["event"]["data"]), (&json!(1), &Value::Null), "{event}");
        let omitted = &event["omitted"]["event"];
        assert!(omitted["bytes"].as_u64().unwrap() > 100_000, "{omitted}");
        // It can be got where it says.
        let got = Http::new(&server).get(omitted["get"].as_str().unwrap()).await.ok();
        assert_eq!((&got[0]["id"], &got[0]["data"]["text"]), (&event["event"]["id"], &json!(long)));
        let event = raw.event(sub).await;
        assert_eq!((&event["event"]["id"], &event["event"]["data"]["text"]), (&small["id"], &json!("small")));
    }
    // The event fits, and the node with it does not; then neither does.
    for (bytes, whole_event) in [(50_000, true), (90_000, false)] {
        let mut made = node("checkout", "a");
        made["data"]["text"] = "y".repeat(bytes).into();
        let id = admin.call("node.create", json!({"node": made})).await["id"].clone();
        let event = raw.event(2).await;
        assert_eq!((&event["node"], &event["ancestors"]), (&Value::Null, &Value::Null));
        assert_eq!(event["omitted"]["node"]["get"], format!("/latest/node/{}", id.as_str().unwrap()));
        assert_eq!(
            (event["event"]["data"].is_object(), event["omitted"]["event"].is_null()),
            (whole_event, whole_event)
        );
        let answer = raw.request("node.get", json!({"id": id})).await;
        let status = &answer["error"]["data"]["status"];
        assert_eq!(*status, if whole_event { Value::Null } else { json!(413) }, "{status}");
    }
}
