//! Names of consumers that several users have.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::polling::{listen, publish, subscribe, user};
use crate::support::{Http, Raw, Server, both_backends};

/// A session of the user.
pub(super) async fn session(server: &Server, http: &Http) -> Raw {
    let mut raw = server.connect().await;
    raw.call("session.hello", json!({"token": http.token().expect("a token")})).await;
    raw
}

/// The user's id.
pub(super) async fn id(http: &Http) -> String {
    http.get("/latest/whoami").await.ok()["id"].as_str().expect("an id").to_owned()
}

#[apply(both_backends!)]
async fn two_users_of_one_name_do_not_meet(server: Server) {
    let (admin, ann, bob) =
        (Http::admin(&server).await, user(&server, "ann").await, user(&server, "bob").await);
    let (mut anns, mut bobs, mut admins) =
        (session(&server, &ann).await, session(&server, &bob).await, server.admin().await);
    let bobs_id = id(&bob).await;
    publish(&admin, "lab", json!("first")).await;
    let poll = "lab?subscriber_id=daemon&promisc=true";
    let (first, second) = (subscribe(&ann, poll).await, subscribe(&bob, poll).await);
    for n in 1..=3 {
        publish(&admin, "lab", json!(n)).await;
    }
    for n in 1..=3 {
        assert_eq!(listen(&ann, first).await["data"], n);
    }
    assert_eq!(listen(&bob, second).await["data"], 1);
    // The same name on the WebSocket, with positions and acknowledgements of their own.
    let durable = json!({"sub": 1, "channel": "lab", "durable": "daemon"});
    anns.call("event.subscribe", durable.clone()).await;
    bobs.call("event.subscribe", durable).await;
    assert_eq!(
        (anns.event(1).await["seq"].as_u64(), bobs.event(1).await["seq"].as_u64()),
        (Some(4), Some(2))
    );
    bobs.event(1).await;
    bobs.call("event.ack", json!({"sub": 1, "seq": 3})).await;
    for (raw, name, seq) in [(&mut anns, "ann", 3), (&mut bobs, "bob", 3)] {
        let shown = raw.call("consumer.get", json!({"name": "daemon"})).await;
        assert_eq!((&shown["name"], &shown["user"]), (&json!("daemon"), &json!(name)));
        assert_eq!(shown["position"]["seq"], seq, "{shown}");
        let listed = raw.call("consumer.list", json!({})).await["items"].take();
        assert_eq!((listed.as_array().unwrap().len(), &listed[0]["name"]), (1, &json!("daemon")));
    }
    let moved = bobs.call("consumer.seek", json!({"name": "daemon", "to": "earliest"})).await;
    assert_eq!((&moved["name"], &moved["position"]["seq"]), (&json!("daemon"), &json!(0)));
    assert_eq!(anns.call("consumer.get", json!({"name": "daemon"})).await["position"]["seq"], 3);
    // Superusers tell them apart.
    let apart = format!("{bobs_id}/daemon");
    let all = admins.call("consumer.list", json!({"all": true})).await["items"].take();
    let names: Vec<&str> = all.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["daemon", &*apart]);
    assert_eq!(admins.call("consumer.get", json!({"name": "daemon"})).await["user"], "ann");
    assert_eq!(admins.call("consumer.get", json!({"name": apart})).await["user"], "bob");
    assert_eq!(bobs.fail("consumer.get", json!({"name": "c0"})).await["data"]["status"], 404);
    assert_eq!(anns.fail("consumer.get", json!({"name": apart})).await["data"]["status"], 404);
    admins.call("consumer.delete", json!({"name": "daemon"})).await;
    assert_eq!(anns.fail("consumer.get", json!({"name": "daemon"})).await["data"]["status"], 404);
    bobs.call("consumer.delete", json!({"name": "daemon"})).await;
}

#[apply(both_backends!)]
async fn groups_of_one_name_have_dead_letters_of_their_own(server: Server) {
    let (admin, ann, bob) =
        (Http::admin(&server).await, user(&server, "ann").await, user(&server, "bob").await);
    let (mut anns, mut bobs) = (session(&server, &ann).await, session(&server, &bob).await);
    // The longest name that a group may have.
    let name = "g".repeat(59);
    publish(&admin, "lab", json!("first")).await;
    let group = json!({"sub": 1, "channel": "lab", "durable": name, "group": true, "max_deliveries": 1});
    anns.call("event.subscribe", group.clone()).await;
    bobs.call("event.subscribe", group.clone()).await;
    publish(&admin, "lab", json!("deadly")).await;
    let seq = anns.event(1).await["seq"].take();
    assert_eq!(bobs.event(1).await["seq"], seq, "each group gets it");
    anns.call("event.ack", json!({"sub": 1, "seq": seq})).await;
    let letters = format!("dead.{}.{name}", id(&bob).await);
    let shown = bobs.call("consumer.get", json!({"name": name})).await;
    assert_eq!((&shown["name"], &shown["group"]["dead_letters"]), (&json!(name), &json!(letters)));
    bobs.call("event.subscribe", json!({"sub": 2, "channel": letters})).await;
    anns.call("event.subscribe", json!({"sub": 2, "channel": format!("dead.{name}")})).await;
    bobs.call("event.nack", json!({"sub": 1, "seq": seq})).await;
    let letter = bobs.event(2).await["event"].take();
    assert_eq!((&letter["data"]["consumer"], &letter["owner"]), (&json!(name), &json!("bob")));
    assert_eq!(letter["data"]["event"]["data"], "deadly");
    publish(&admin, "lab", json!("anns")).await;
    let seq = anns.event(1).await["seq"].take();
    anns.call("event.nack", json!({"sub": 1, "seq": seq})).await;
    let letter = anns.event(2).await["event"].take();
    assert_eq!(letter["data"]["event"]["data"], "anns", "and nothing of Bob's before it");
    assert_eq!(letter["owner"], "ann");
}

#[apply(both_backends!)]
async fn names_are_reserved_and_cannot_be_forged(server: Server) {
    let (ann, eve) = (user(&server, "ann").await, user(&server, "eve").await);
    let mut admins = server.admin().await;
    let mut eves = session(&server, &eve).await;
    let anns_id = id(&ann).await;
    // What Ann's would be stored as, or the channel of its dead letters.
    for name in [format!("{anns_id}/daemon"), format!("{anns_id}.daemon"), format!("{}/x", "AB".repeat(12))] {
        for more in [json!({}), json!({"group": true})] {
            let mut params = json!({"sub": 1, "channel": "node", "durable": name});
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(eves.fail("event.subscribe", params).await["data"]["status"], 422, "{name}");
        }
        let path = format!("/latest/subscribe/node?subscriber_id={}", name.replace('/', "%2F"));
        assert_eq!(eve.post(&path, &Value::Null).await.status, 422, "{name}");
        let reserve = json!({"name": name, "user": "eve"});
        assert_eq!(admins.fail("consumer.reserve", reserve).await["data"]["status"], 422);
    }
    // Slashes are no harm otherwise.
    subscribe(&eve, "node?subscriber_id=lab%2Fone").await;

    let reserve = json!({"name": "daemon", "user": "ann"});
    assert_eq!(eves.fail("consumer.reserve", reserve.clone()).await["data"]["status"], 403);
    admins.call("consumer.reserve", reserve).await;
    let nobody = json!({"name": "daemon", "user": "nobody"});
    assert_eq!(admins.fail("consumer.reserve", nobody).await["data"]["status"], 404);
    let reserved = admins.call("consumer.reserved", json!({})).await;
    assert_eq!(reserved["items"], json!([{"name": "daemon", "user": "ann"}]));
    subscribe(&eve, "node?subscriber_id=daemon").await;
    subscribe(&ann, "node?subscriber_id=daemon").await;
    assert_eq!(admins.call("consumer.get", json!({"name": "daemon"})).await["user"], "ann");
    let taken = json!({"name": "lab/one", "user": "ann"});
    let error = admins.fail("consumer.reserve", taken).await;
    assert_eq!(error["data"]["status"], 409);
    assert!(error["data"]["detail"].as_str().unwrap().contains("eve"), "{error}");
    admins.call("consumer.reserve", json!({"name": "daemon", "user": null})).await;
    assert_eq!(admins.call("consumer.reserved", json!({})).await["items"], json!([]));
}
