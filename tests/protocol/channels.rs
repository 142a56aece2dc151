//! Channels: what begins one, what following them may cost, who may publish on which.

use std::time::Duration;

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, Http, PATIENCE, Raw, Server, both_backends, eventually, until};

fn channel(name: &str) -> Value {
    json!({"sub": 1, "channel": name})
}

async fn begin(raw: &mut Raw, names: &[&str]) {
    for name in names {
        raw.call("event.publish", json!({"channel": name, "data": name})).await;
    }
}

async fn session(server: &Server, token: &str) -> Raw {
    let mut raw = server.connect().await;
    raw.call("session.hello", json!({"token": token})).await;
    raw
}

async fn follow(raw: &mut Raw, sub: u64, name: &str) {
    raw.call("event.subscribe", json!({"sub": sub, "channel": name})).await;
}

/// The refusal of one channel too many.
async fn refused(raw: &mut Raw, sub: u64, name: &str) -> String {
    let error = raw.fail("event.subscribe", json!({"sub": sub, "channel": name})).await;
    assert_eq!(error["data"]["status"], 429, "{error}");
    assert!(error["data"]["retry_after_ms"].as_u64() > Some(0), "{error}");
    error["data"]["detail"].as_str().unwrap().to_owned()
}

#[apply(both_backends!)]
async fn a_refusal_leaves_nothing_behind(server: Server) {
    let mut admin = server.admin().await;
    begin(&mut admin, &["there"]).await;
    let bob = server.user("bob").await;
    let mut bobs = session(&server, &bob).await;
    bobs.call("event.subscribe", json!({"sub": 9, "channel": "there", "durable": "taken"})).await;
    // What the first requests make once.
    let (http, nobody) = (Http::new(&server).with(&bob), Http::new(&server));
    let mut stranger = server.anonymous().await;
    let before = server.traces().await;
    for n in 0..20 {
        let name = format!("nowhere-{n}");
        assert_eq!(stranger.fail("event.subscribe", channel(&name)).await["data"]["status"], 404);
        assert_eq!(nobody.get(&format!("/latest/events/feed?channel={name}")).await.status, 404);
        nobody.get(&format!("/latest/events?channel={name}")).await.ok();
        assert_eq!(nobody.post(&format!("/latest/subscribe/{name}"), &Value::Null).await.status, 401);
        let elsewhere = json!({"sub": 1, "channel": name, "durable": "taken"});
        assert_eq!(bobs.fail("event.subscribe", elsewhere).await["data"]["status"], 409);
        let unclear = json!({"sub": 1, "channel": name, "from": {"time": "yesterday"}});
        assert_eq!(bobs.fail("event.subscribe", unclear).await["data"]["status"], 400);
        let query = format!("/latest/events/feed?channel={name}&from=yesterday");
        assert!([400, 422].contains(&http.get(&query).await.status));
        let elsewhere = format!("/latest/subscribe/{name}?subscriber_id=taken");
        assert_eq!(http.post(&elsewhere, &Value::Null).await.status, 409);
    }
    // Nor does it leave what is followed.
    let followed = async || gauge(&server, "kernelci_followed_channels").await;
    until("nothing else is followed", async || match followed().await {
        1.0 => Ok(()),
        more => Err(more),
    })
    .await;
    assert_eq!(server.traces().await, before);
}

#[apply(both_backends!)]
async fn a_subscription_waits_for_the_first_event(server: Server) {
    let mut raw = server.admin().await;
    let before = server.traces().await;
    let waiting = raw.call("event.subscribe", channel("new")).await;
    assert_eq!(server.traces().await, before, "a channel begins with its first event");
    begin(&mut raw, &["new"]).await;
    assert_eq!(raw.event(1).await["event"]["data"], "new");
    let mut later = server.admin().await;
    let from = &waiting["position"];
    let resumed = later.call("event.subscribe", json!({"sub": 1, "channel": "new", "from": from})).await;
    assert_eq!((&resumed["recovered"], &resumed["position"]), (&json!(true), from));
    assert_eq!(later.event(1).await["event"]["data"], "new");

    // A place that is kept under a name, before there is anything.
    let durable = json!({"sub": 2, "channel": "newer", "durable": "d"});
    let kept = raw.call("event.subscribe", durable.clone()).await;
    raw.call("event.unsubscribe", json!({"sub": 2})).await;
    begin(&mut raw, &["newer"]).await;
    let resumed = raw.call("event.subscribe", durable).await;
    assert_eq!((&resumed["recovered"], &resumed["resumed"]), (&json!(true), &json!(true)));
    assert_eq!(resumed["position"], kept["position"]);
    assert_eq!(raw.event(2).await["event"]["data"], "newer");
}

/// The value of a gauge without labels of its own.
async fn gauge(server: &Server, name: &str) -> f64 {
    let text = Http::new(server).get("/metrics").await.text;
    let line = text.lines().find(|line| line.starts_with(name)).expect("the gauge");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

const FEW: [(&str, &str); 3] = [
    ("MAX_FOLLOWED_CHANNELS", "8"),
    ("FOLLOWED_CHANNELS_PER_USER", "3"),
    ("FOLLOWED_CHANNELS_PER_ADDRESS", "2"),
];

#[apply(both_backends!)]
async fn everybody_has_a_share_of_the_channels_that_are_followed(backend: Backend) {
    let server = Server::start_with(backend, &FEW).await;
    let mut admin = server.admin().await;
    begin(&mut admin, &["a", "b", "c", "d", "e", "f", "g", "h", "i"]).await;
    let (mut ann, mut bob) = (
        session(&server, &server.user("ann").await).await,
        session(&server, &server.user("bob").await).await,
    );
    for (sub, name) in [(1, "a"), (2, "b"), (3, "c")] {
        follow(&mut ann, sub, name).await;
        // However often.
        follow(&mut ann, sub + 10, name).await;
    }
    assert!(refused(&mut ann, 4, "d").await.contains("a user has at most 3 followed channels"));
    // Others have theirs; and what is followed already is on nobody else.
    for (sub, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e"), (6, "f"), (7, "node")] {
        follow(&mut bob, sub, name).await;
    }
    refused(&mut bob, 8, "g").await;
    follow(&mut ann, 4, "d").await;
    let mut stranger = server.anonymous().await;
    for (sub, name) in [(1, "a"), (2, "f"), (3, "g"), (4, "node")] {
        follow(&mut stranger, sub, name).await;
    }
    // Of 8 places 6 are for strangers at most, all together, and 2 for those of one address.
    follow(&mut stranger, 5, "h").await;
    assert!(refused(&mut stranger, 6, "i").await.contains("at most"));
    // Whoever stays pays: not she who has left.
    for sub in [1, 2, 3, 11, 12, 13] {
        ann.call("event.unsubscribe", json!({"sub": sub})).await;
    }
    // All eight are in use, and she has her share again.
    let detail = refused(&mut ann, 5, "i").await;
    assert!(detail.contains("this instance has at most 8"), "{detail}");
    stranger.call("event.unsubscribe", json!({"sub": 5})).await;
    follow(&mut ann, 5, "i").await;
    // What was refused, and what was followed, brings events.
    begin(&mut admin, &["i", "a"]).await;
    assert_eq!(ann.event(5).await["event"]["data"], "i");
    assert_eq!(bob.event(1).await["event"]["data"], "a");
}

#[apply(both_backends!)]
async fn every_way_of_following_has_the_same_share(backend: Backend) {
    let server = Server::start_with(backend, &FEW).await;
    begin(&mut server.admin().await, &["a", "b", "c", "d"]).await;
    let token = server.user("bob").await;
    let (mut bob, http) = (session(&server, &token).await, Http::new(&server).with(&token));
    follow(&mut bob, 1, "a").await;
    bob.call("event.subscribe", json!({"sub": 2, "channel": "b", "durable": "g", "group": true})).await;
    let feed = async |name: &str| {
        http.request("GET", &format!("/latest/events/feed?channel={name}")).send().await.expect("answers")
    };
    let open = feed("c").await;
    assert_eq!(open.status(), 200);
    assert_eq!(feed("d").await.status(), 429);
    refused(&mut bob, 3, "d").await;
    let group = json!({"sub": 4, "channel": "d", "durable": "h", "group": true});
    assert_eq!(bob.fail("event.subscribe", group).await["data"]["status"], 429);
    let poll = http.post("/latest/subscribe/d", &Value::Null).await.ok();
    let listen = format!("/latest/listen/{}", poll["id"]);
    assert_eq!(http.get(&listen).await.status, 429);
    let url = format!("ws://127.0.0.1:{}/latest/events/feed?channel=d", server.port());
    let header = format!("Bearer {token}");
    let upgrade = Raw::connect(&url, Some("cloudevents.json"), &[("authorization", &header)]).await;
    assert!(upgrade.is_err(), "429");
    // The nodes' own channel is free for everybody.
    follow(&mut bob, 5, "node").await;
    assert_eq!(feed("node").await.status(), 200);
    drop(open);
    eventually("who has left is not counted", async || feed("d").await.status() == 200).await;
}

#[apply(both_backends!)]
async fn channels_that_nobody_reads_any_more_make_room(backend: Backend) {
    let server = Server::start_with(backend, &FEW).await;
    let names: Vec<String> = (0..12).map(|n| format!("ch-{n}")).collect();
    begin(&mut server.admin().await, &names.iter().map(|name| &**name).collect::<Vec<_>>()).await;
    let mut bob = session(&server, &server.user("bob").await).await;
    // One after the other: those before are still warm, for whoever comes back.
    for name in &names {
        follow(&mut bob, 1, name).await;
        bob.call("event.unsubscribe", json!({"sub": 1})).await;
    }
    assert!(gauge(&server, "kernelci_followed_channels").await <= 9.0);
    follow(&mut bob, 1, &names[0]).await;
    begin(&mut server.admin().await, &[&names[0]]).await;
    assert_eq!(bob.event(1).await["event"]["data"], names[0]);
}

#[apply(both_backends!)]
async fn what_is_kept_in_memory_is_bounded(backend: Backend) {
    const EVENTS: u64 = 400;
    let server = Server::start_with(backend, &[("RING_MB", "4")]).await;
    let mut raw = server.admin().await;
    // Whose filter looks into every event: a value takes much more than its text.
    let mut reader = server.admin().await;
    reader.call("event.subscribe", json!({"sub": 1, "channel": "wide", "filter": {"data.k1__gt": 0}})).await;
    let wide: serde_json::Map<String, Value> = (0..200).map(|n| (format!("k{n}"), json!(n))).collect();
    let mut publishing = Vec::new();
    for _ in 0..EVENTS {
        let publish = json!({"channel": "wide", "data": wide});
        publishing.push(raw.send_request("event.publish", publish).await.expect("sent"));
        if publishing.len() == 20 {
            for id in publishing.drain(..) {
                raw.answer(id).await;
            }
        }
    }
    for _ in 0..EVENTS {
        reader.next_notification("event", PATIENCE).await;
    }
    let kept = async || gauge(&server, "kernelci_ring_bytes").await;
    // All of them with their values would be three times as much.
    let most = f64::from(4 << 20);
    until("a figure", async || match kept().await {
        bytes if bytes > most / 16.0 && bytes <= most => Ok(()),
        bytes => Err(bytes),
    })
    .await;
    // Whoever was away reads what memory has no more from the log.
    let mut late = server.admin().await;
    late.call("event.subscribe", json!({"sub": 1, "channel": "wide", "from": "earliest"})).await;
    for seq in 1..=EVENTS {
        assert_eq!(late.next_notification("event", PATIENCE).await["seq"], seq);
    }
    assert!(tokio::time::timeout(Duration::from_secs(30), kept()).await.expect("in time") <= most);
}

#[apply(both_backends!)]
async fn only_the_server_publishes_on_its_channels(server: Server) {
    let token = server.user("bob").await;
    let (mut bob, http) = (session(&server, &token).await, Http::new(&server).with(&token));
    let before = server.traces().await;
    for name in ["tree", "artifact", "dead.scheduler", "dead.", "node.quiet", "node."] {
        let error = bob.fail("event.publish", json!({"channel": name, "data": 1})).await;
        assert_eq!(error["data"]["status"], 403, "{name}: {error}");
        assert!(error["data"]["detail"].as_str().unwrap().contains(name), "{error}");
        let publish = http.post(&format!("/latest/publish/{name}"), &json!({"data": 1})).await;
        assert_eq!(publish.status, 403, "{name}");
    }
    assert_eq!(server.traces().await, before);
    begin(&mut bob, &["trees", "nodes", "deadline", "artifact-2"]).await;
    let error = server.admin().await.fail("event.publish", json!({"channel": "dead.scheduler"})).await;
    assert_eq!(error["data"]["status"], 403, "superusers neither: {error}");
}
