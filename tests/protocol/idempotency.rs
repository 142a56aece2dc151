//! A write that is asked for again with its key is done once, whatever has happened in between.

use macro_rules_attribute::apply;

use serde_json::{Value, json};

use crate::support::{Server, both_backends, node, until};

#[apply(both_backends!)]
async fn an_update_is_done_once(server: Server) {
    let mut raw = server.admin().await;
    let made = raw.call("node.create", json!({"node": node("checkout", "a")})).await;
    let id = made["id"].clone();
    let set = json!({"data": {"error_msg": "1"}});
    let ask = json!({"id": id, "set": set, "if_revision": 1, "idempotency_key": "k"});
    let first = raw.call("node.update", ask.clone()).await;
    assert_eq!(first["revision"], 2);
    // The revision that it asks for is gone, because it has been there already.
    assert_eq!(raw.call("node.update", ask).await, first);
    let other = json!({"id": id, "set": set, "if_revision": 1, "idempotency_key": "other"});
    assert_eq!(raw.fail("node.update", other).await["data"]["status"], 409);
    // The history has an event a moment after its write.
    raw.call("node.update", json!({"id": id, "set": {"data": {"error_msg": "last"}}})).await;
    let find = json!({"channel": "node", "filter": {"data.id": id}});
    until("three events", async || {
        let items = raw.call("event.find", find.clone()).await["items"].take();
        let count = items.as_array().expect("items").len();
        assert!(count <= 3, "created, updated once, updated a last time: {items}");
        if count == 3 { Ok(()) } else { Err(count) }
    })
    .await;
}

#[apply(both_backends!)]
async fn the_same_key_at_the_same_time_is_one_write(server: Server) {
    let mut raws = [server.admin().await, server.admin().await, server.admin().await];
    let made = raws[0].call("node.create", json!({"node": node("checkout", "a")})).await;
    for round in 0..5 {
        let set = json!({"data": {"error_msg": format!("{round}")}});
        let ask = json!({"id": made["id"], "set": set, "idempotency_key": format!("k{round}")});
        let asks = raws.iter_mut().map(|raw| raw.call("node.update", ask.clone()));
        let answers: Vec<Value> = futures::future::join_all(asks).await;
        for answer in &answers {
            assert_eq!((&answer["revision"], &answer["data"]), (&json!(round + 2), &set["data"]));
        }
        let mark = json!({
            "ids": [made["id"]], "field": "processed_by_kcidb_bridge", "value": round % 2 == 0,
            "idempotency_key": "one mark for all rounds",
        });
        if round == 4 {
            for raw in &mut raws {
                raw.call("node.mark", mark.clone()).await;
            }
        }
    }
    let node = raws[0].call("node.get", json!({"id": made["id"]})).await;
    assert_eq!(node["revision"], 7, "created, updated five times, marked once");
}

#[apply(both_backends!)]
async fn keys_of_a_create_outlive_the_connection_and_belong_to_a_user(server: Server) {
    let ask = json!({"node": node("checkout", "a"), "idempotency_key": "k"});
    let first = server.admin().await.call("node.create", ask.clone()).await;
    let again = server.admin().await.call("node.create", ask).await;
    assert_eq!(first["id"], again["id"]);
    let publish = json!({"channel": "c", "data": 1, "idempotency_key": "k"});
    let first = server.admin().await.call("event.publish", publish.clone()).await;
    assert_eq!(server.admin().await.call("event.publish", publish).await, first);
}

/// A key stands for one request: with anything else it is a mistake, and nothing is done.
#[apply(both_backends!)]
async fn a_key_with_other_parameters_is_refused(server: Server) {
    let mut raw = server.admin().await;
    let (one, two) = (
        raw.call("node.create", json!({"node": node("checkout", "one")})).await,
        raw.call("node.create", json!({"node": node("checkout", "two")})).await,
    );
    let leaf = |name: &str| json!({"node": node("test", name), "child_nodes": []});
    let tree = |name: &str| json!({"node": one, "child_nodes": [leaf(name)]});
    let field = "processed_by_kcidb_bridge";
    for (method, params, other) in [
        ("node.create", json!({"node": node("job", "a")}), json!({"node": node("job", "b")})),
        (
            "node.update",
            json!({"id": two["id"], "set": {"data": {"error_msg": "x"}}}),
            json!({"id": two["id"], "set": {"data": {"error_msg": "y"}}}),
        ),
        (
            "node.update",
            json!({"id": two["id"], "set": {"data": {"error_msg": "z"}}}),
            json!({"id": one["id"], "set": {"data": {"error_msg": "z"}}}),
        ),
        (
            "node.mark",
            json!({"ids": [two["id"]], "field": field, "value": true}),
            json!({"ids": [one["id"]], "field": field, "value": true}),
        ),
        (
            "node.submit",
            json!({"id": one["id"], "tree": tree("t")}),
            json!({"id": one["id"], "tree": tree("u")}),
        ),
        (
            "event.publish",
            json!({"channel": "lab", "data": {"n": 0.9424502837770503}}),
            json!({"channel": "lab", "data": {"n": 2}}),
        ),
        (
            "event.publish",
            json!({"channel": "lab", "data": 1}),
            json!({"channel": "lab", "data": 1, "type": "t"}),
        ),
        (
            "queue.push",
            json!({"list": "q", "event": {"data": 1}}),
            json!({"list": "q", "event": {"data": 2}}),
        ),
    ] {
        let keyed = |params: &Value| {
            let mut params = params.clone();
            params["idempotency_key"] =
                format!("{method} {}", params).chars().take(100).collect::<String>().into();
            params
        };
        let (ask, mut wrong) = (keyed(&params), other);
        wrong["idempotency_key"] = ask["idempotency_key"].clone();
        let first = raw.call(method, ask.clone()).await;
        let again = raw.call(method, ask).await;
        assert_eq!(again, first, "{method}");
        let error = raw.fail(method, wrong).await;
        let detail = "idempotency_key: it was used before, for a request with other parameters";
        assert_eq!(
            (&error["data"]["status"], &error["data"]["detail"]),
            (&json!(422), &json!(detail)),
            "{method}"
        );
    }
    assert_eq!(raw.call("node.get", json!({"id": one["id"]})).await[field], json!(false), "nothing was done");
    assert_eq!(raw.call("node.count", json!({"filter": {"name__in": ["b", "u"]}})).await["count"], 0);
    // An item that is gone is known as well.
    raw.call("queue.push", json!({"list": "p", "event": {"data": 1}, "idempotency_key": "k"})).await;
    raw.call("queue.pop", json!({"list": "p"})).await;
    let error =
        raw.fail("queue.push", json!({"list": "p", "event": {"data": 2}, "idempotency_key": "k"})).await;
    assert_eq!(error["data"]["status"], 422);
}
