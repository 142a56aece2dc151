//! What becomes of what a user has when the user goes.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::names::{id, session};
use super::polling::{publish, subscribe, user};
use crate::support::{Http, Server, both_backends, eventually};

#[apply(both_backends!)]
async fn a_deleted_users_things_go(server: Server) {
    let (admin, bob) = (Http::admin(&server).await, user(&server, "bob").await);
    let bobs_id = id(&bob).await;
    let mut admins = server.admin().await;
    let things = async |http: &Http, name: &str| {
        publish(http, &format!("{name}-channel"), json!(1)).await;
        subscribe(http, &format!("node?subscriber_id={name}-daemon")).await;
        subscribe(http, "node").await;
        http.post(&format!("/kv/{name}/{}", &bobs_id), &json!("value")).await.ok();
        http.post("/push/shared", &json!({"data": name})).await.ok();
        http.post(&format!("/push/{name}"), &json!({"data": name})).await.ok();
        http.post("/user/tokens", &json!({"name": "t", "scopes": ["read"]})).await.ok();
    };
    things(&admin, "admin").await;
    things(&bob, "bob").await;
    admins.call("consumer.reserve", json!({"name": "later", "user": "bob"})).await;
    let mut bobs = session(&server, &bob).await;
    bobs.call("event.subscribe", json!({"sub": 1, "channel": "node", "durable": "bob-durable"})).await;
    let held = admins.call("queue.pop", json!({"list": "bob", "lease_ms": 60_000})).await;
    let kept = bobs.call("user.limits", json!({})).await["kept"].take();
    for (thing, amount) in kept.as_object().unwrap() {
        assert!(amount["used"].as_u64() > Some(0), "{thing}: {amount}");
    }
    admin.delete(&format!("/latest/user/{bobs_id}")).await.ok();
    assert_eq!(bob.get("/latest/whoami").await.status, 401);
    let left = admins.call("consumer.list", json!({"all": true})).await["items"].take();
    let users: Vec<&Value> = left.as_array().unwrap().iter().map(|one| &one["user"]).collect();
    assert_eq!(users, [&json!("admin")]);
    let subscriptions = admin.get("/latest/stats/subscriptions").await.ok();
    assert!(subscriptions.as_array().unwrap().iter().all(|one| one["user"] == "admin"), "{subscriptions}");
    assert_eq!(admins.call("consumer.reserved", json!({})).await["items"], json!([]));
    assert_eq!(admin.get(&format!("/kv/bob/{bobs_id}")).await.ok(), Value::Null);
    assert_eq!(admin.get(&format!("/kv/admin/{bobs_id}")).await.ok(), "value");
    // In a list that others use as well, theirs stay; what somebody works on is theirs to finish.
    assert_eq!(admin.get("/pop/shared").await.ok()["data"], "admin");
    eventually("nothing of Bob's is there", async || admin.get("/pop/shared?wait_ms=0").await.status == 503)
        .await;
    admins.call("queue.ack", json!({"lease": held["lease"]})).await;
    assert_eq!(admin.get("/pop/bob?wait_ms=0").await.status, 503);
    // Events are the pipeline's.
    let events = admin.get("/latest/events?channel=bob-channel").await;
    assert_eq!(events.status, 200);
    assert_eq!(
        admins.call("event.find", json!({"channel": "bob-channel"})).await["items"][0]["event"]["data"],
        1
    );
    assert_eq!(admin.delete(&format!("/latest/user/{bobs_id}")).await.status, 404);
    // Nothing counts for whoever comes next.
    let next = user(&server, "bob").await;
    let kept = next.get("/latest/user/limits").await.ok()["kept"].take();
    for (thing, amount) in kept.as_object().unwrap() {
        assert_eq!(amount["used"], 0, "{thing}");
    }
}

/// A server that dies in the middle leaves the user, who is not active any more, and whoever asks again ends it.
#[apply(both_backends!)]
async fn deleting_goes_on_where_it_was_left(server: Server) {
    let (admin, bob) = (Http::admin(&server).await, user(&server, "bob").await);
    let bobs_id = id(&bob).await;
    subscribe(&bob, "node?subscriber_id=d").await;
    server.deactivate("bob").await;
    admin.delete(&format!("/latest/user/{bobs_id}")).await.ok();
    let mut admins = server.admin().await;
    assert_eq!(admins.call("consumer.list", json!({"all": true})).await["items"], json!([]));
    assert_eq!(admin.get(&format!("/latest/user/{bobs_id}")).await.status, 404);
}
