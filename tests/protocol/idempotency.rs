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
