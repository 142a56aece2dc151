//! Dead letters: who reads them.

use futures::StreamExt;
use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, Http, PATIENCE, Raw, Server, both_backends, eventually, soon};

async fn session(server: &Server, token: &str) -> Raw {
    let mut raw = server.connect().await;
    raw.call("session.hello", json!({"token": token})).await;
    raw
}

/// Has the user's group `g` put an event to the dead letters.
async fn bury(raw: &mut Raw, reason: &str) {
    let group = json!({"sub": 1, "channel": "lab", "durable": "g", "group": true, "max_deliveries": 1});
    raw.call("event.subscribe", group).await;
    raw.call("event.publish", json!({"channel": "lab", "data": reason})).await;
    let seq = raw.event(1).await["seq"].take();
    raw.call("event.nack", json!({"sub": 1, "seq": seq, "reason": reason})).await;
}

fn reasons(events: &Value) -> Vec<&str> {
    let events = events.as_array().expect("a list").iter();
    events.filter_map(|event| event["data"]["reason"].as_str()).collect()
}

/// The id of the user whose token this is.
async fn id(http: &Http) -> String {
    http.get("/latest/whoami").await.ok()["id"].as_str().expect("an id").to_owned()
}

#[apply(both_backends!)]
async fn dead_letters_are_for_the_owner_of_the_group(server: Server) {
    let (admin, nobody) = (Http::admin(&server).await, Http::new(&server));
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let (mut anns, mut bobs) = (session(&server, &ann).await, session(&server, &bob).await);
    let (ann, bob) = (nobody.with(&ann), nobody.with(&bob));
    let mut strangers = server.anonymous().await;
    bury(&mut anns, "no such board").await;
    let history = "/latest/events?channel=dead.g";
    let letters = async |http: &Http, path: &str| {
        let events = http.get(path).await.ok();
        reasons(&events).iter().map(|&reason| reason.to_owned()).collect::<Vec<_>>()
    };
    eventually("the letter is written", async || !letters(&ann, history).await.is_empty()).await;
    for reader in [&ann, &admin] {
        for path in [history, "/latest/events", "/latest/events?limit=1&channel=dead.g"] {
            assert_eq!(letters(reader, path).await, ["no such board"], "{path}");
        }
        let feed = reader.request("GET", "/latest/events/feed?channel=dead.g").send().await.expect("answers");
        assert_eq!(feed.status().as_u16(), 200);
        let sub = reader.post("/latest/subscribe/dead.g", &Value::Null).await.ok();
        assert_eq!(sub["channel"], "dead.g");
    }
    let earliest = json!({"sub": 2, "channel": "dead.g", "from": "earliest"});
    anns.call("event.subscribe", earliest.clone()).await;
    assert_eq!(anns.event(2).await["event"]["data"]["reason"], "no such board");

    for stranger in [&bob, &nobody] {
        assert_eq!(letters(stranger, "/latest/events").await, [""; 0]);
        assert_eq!(letters(stranger, "/latest/events?type=api.kernelci.org.dead").await, [""; 0]);
    }
    for (stranger, status) in [(&bob, 403), (&nobody, 401)] {
        for path in [history, "/latest/events/feed?channel=dead.g"] {
            assert_eq!(stranger.get(path).await.status, status, "{path}");
        }
        assert_eq!(stranger.post("/latest/subscribe/dead.g", &Value::Null).await.status, status);
    }
    let group = json!({"sub": 2, "channel": "dead.g", "durable": "theirs", "group": true});
    for (method, params) in [
        ("event.subscribe", earliest.clone()),
        ("event.subscribe", json!({"sub": 2, "channel": "dead.g", "durable": "theirs"})),
        ("event.subscribe", group),
        ("event.find", json!({"channel": "dead.g"})),
        ("consumer.open", json!({"channel": "dead.g"})),
    ] {
        let error = bobs.fail(method, params).await;
        assert_eq!(error["data"]["status"], 403, "{method}: {error}");
        assert!(error["data"]["detail"].as_str().unwrap().starts_with("channel: dead.g"), "{error}");
    }
    for (method, params) in [("event.subscribe", earliest), ("event.find", json!({"channel": "dead.g"}))] {
        assert_eq!(strangers.fail(method, params).await["data"]["status"], 401, "{method}");
    }
}

/// The name of a group that has gone is free, its letters are not.
#[apply(both_backends!)]
async fn letters_stay_with_whoever_had_the_group(server: Server) {
    let nobody = Http::new(&server);
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let (mut anns, mut bobs) = (session(&server, &ann).await, session(&server, &bob).await);
    let (ann, bob) = (nobody.with(&ann), nobody.with(&bob));
    let reasons_on = async |http: &Http, channel: &str| {
        let events = http.get(&format!("/latest/events?channel={channel}")).await.ok();
        reasons(&events).join(", ")
    };
    bury(&mut anns, "Ann's").await;
    eventually("Ann's letter is written", async || reasons_on(&ann, "dead.g").await == "Ann's").await;
    anns.call("consumer.delete", json!({"name": "g"})).await;
    bury(&mut bobs, "Bob's").await;
    let overflow = format!("dead.{}.overflow", id(&bob).await);
    eventually("Bob's letter is written", async || reasons_on(&bob, &overflow).await == "Bob's").await;
    assert_eq!(bob.get("/latest/events?channel=dead.g").await.status, 403);
    assert_eq!(ann.get(&format!("/latest/events?channel={overflow}")).await.status, 403);
    assert_eq!(reasons_on(&ann, "dead.g").await, "Ann's");
}

#[apply(both_backends!)]
async fn who_loses_the_right_to_dead_letters_reads_on_no_more(backend: Backend) {
    // No ping helps: what is heard comes at once.
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "600000")]).await;
    let admin = Http::admin(&server).await;
    let boss = server.user("boss").await;
    let path = format!("/latest/user/{}", id(&admin.with(&boss)).await);
    admin.patch(&path, &json!({"is_superuser": true})).await.ok();
    let mut raw = session(&server, &boss).await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "dead.x"})).await;
    raw.call("event.subscribe", json!({"sub": 2, "channel": "node"})).await;
    let feed = admin.with(&boss).request("GET", "/latest/events/feed?channel=dead.x");
    let mut feed = feed.send().await.expect("answers").bytes_stream();
    soon("it is open", feed.next()).await.expect("a greeting").expect("bytes");
    admin.patch(&path, &json!({"is_superuser": false})).await.ok();
    let told = raw.next_notification("unsubscribed", PATIENCE).await;
    assert_eq!(told["sub"], 1, "{told}");
    soon("the feed ends", async { while let Some(Ok(_)) = feed.next().await {} }).await;
    raw.call("event.unsubscribe", json!({"sub": 2})).await;

    // Another user in the same session.
    let (mut raw, ann) = (server.admin().await, server.user("ann").await);
    raw.call("event.subscribe", json!({"sub": 1, "channel": "dead.x"})).await;
    raw.call("session.refresh", json!({"token": ann})).await;
    assert_eq!(raw.next_notification("unsubscribed", PATIENCE).await["sub"], 1);
}

/// A site that has used a name which is the server's now.
#[apply(both_backends!)]
async fn a_start_tells_of_events_on_channels_of_the_server(backend: Backend) {
    let mut server = Server::start_apart(backend, &[]).await;
    let mut raw = server.admin().await;
    let names = ["tree", "node.quiet", "dead.letters"];
    for n in 0..names.len() {
        raw.call("event.publish", json!({"channel": format!("old-{n}"), "data": n})).await;
    }
    bury(&mut session(&server, &server.user("ann").await).await, "ours").await;
    let letters = json!({"channel": "dead.g"});
    eventually("a letter is written", async || {
        raw.request("event.find", letters.clone()).await["result"]["items"][0].is_object()
    })
    .await;
    drop(raw);
    server.terminate().await;
    for (n, name) in names.into_iter().enumerate() {
        let old = format!("old-{n}");
        match backend {
            Backend::Embedded => {
                let sql = "UPDATE channel SET name = ?2 WHERE name = ?1";
                assert_eq!(server.database().execute(sql, [&*old, name]).expect("it is renamed"), 1);
            }
            Backend::Production => {
                let events = server.mongo().await.collection::<bson::Document>("eventhistory");
                let renamed = bson::doc! {"$set": {"channel": name}};
                events.update_many(bson::doc! {"channel": old}, renamed).await.expect("it is renamed");
            }
        }
    }
    server.restart().await;
    eventually("the log says so", async || {
        let log = server.log();
        names.iter().all(|name| log.lines().any(|line| line.contains("server's own") && line.contains(name)))
    })
    .await;
    assert!(!server.log().contains("channel=\"dead.g\""), "that one is the server's: {}", server.log());
}
