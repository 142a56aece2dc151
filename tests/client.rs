//! Our own client against the real server: what it promises must hold when the server goes and comes back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{PATIENCE, Server, both_backends, eventually_within, node, soon, until, until_within};
use futures::StreamExt;
use kernelci_live::cli::demo::catalogue::Catalogue;
use kernelci_live::cli::demo::plan::{Checkout, Scale};
use kernelci_live::cli::demo::player::Player;
use kernelci_live::client::{
    Auth, Client, Delivery, Ended, Group, NodeQuery, Options, Publish, Start, Subscribe, Subscription,
};
use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Kills the server, or restarts it in order, each time when so much more has been done.
async fn interrupt(server: &mut Server, kills: &[bool], each: usize, done: impl Fn() -> usize) {
    for (number, kill) in kills.iter().enumerate() {
        let enough = (number + 1) * each;
        until_within(2 * PATIENCE, "the work goes on", async || match done() {
            now if now >= enough => Ok(()),
            now => Err(now),
        })
        .await;
        if *kill {
            server.kill9();
        } else {
            server.terminate().await;
        }
        server.restart().await;
    }
}

async fn admin(server: &Server) -> Client {
    let auth = Auth::Token(server.token().await.to_owned());
    Client::connect(Options::new(server.url()).auth(auth)).await.expect("a session")
}

/// The number and the payload of the next event; anything else is a failure.
async fn event(subscription: &mut Subscription) -> (u64, Value) {
    match soon("an event comes", subscription.next()).await {
        Some(Delivery::Event(delivery)) => {
            let event: Value = serde_json::from_str(delivery.raw.get()).unwrap();
            (delivery.seq, event["data"].clone())
        }
        other => panic!("expected an event, got {other:?}"),
    }
}

/// A subscription lives through kills and restarts: each event once, in order; publishes that were under way
/// are carried out exactly once.
#[apply(both_backends!)]
async fn a_subscription_and_publishes_survive_restarts(server: Server) {
    const EVENTS: u64 = 400;
    let mut server = server;
    let reader = admin(&server).await;
    let mut subscription = reader.subscribe(Subscribe::to("run")).await.unwrap();
    let first = subscription.position().seq + 1;
    let writer = admin(&server).await;
    let published = Arc::new(AtomicUsize::new(0));
    let publishing = tokio::spawn({
        let published = published.clone();
        async move {
            for n in 0..EVENTS {
                let data = json!({"n": n});
                let publish = Publish { channel: "run".into(), data, ..Publish::default() };
                writer.event_publish(publish).await.expect("published");
                published.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let reading = tokio::spawn(async move {
        for n in 0..EVENTS {
            let (seq, data) = event(&mut subscription).await;
            assert_eq!((seq, &data["n"]), (first + n, &json!(n)));
        }
        subscription
    });
    interrupt(&mut server, &[true, false, true], 80, || published.load(Ordering::Relaxed)).await;
    timeout(4 * PATIENCE, publishing).await.expect("in time").unwrap();
    let subscription = timeout(4 * PATIENCE, reading).await.expect("in time").unwrap();
    // Another process goes on from the stored position.
    let stored = Start::At(subscription.position().clone());
    let mut later = admin(&server).await.subscribe(Subscribe::to("run").from(stored)).await.unwrap();
    let publish = Publish { channel: "run".into(), data: json!("more"), ..Publish::default() };
    let seq = reader.event_publish(publish).await.unwrap();
    let (number, data) = event(&mut later).await;
    assert_eq!(data, "more");
    assert!(seq.is_none_or(|seq| seq == number));
}

/// Members of a group do everything once, whatever becomes of the server meanwhile.
#[apply(both_backends!)]
async fn a_group_survives_restarts(server: Server) {
    const EVENTS: usize = 120;
    let mut server = server;
    let group = Group { ordered: Some(true), ack_wait_ms: Some(2_000), max_deliveries: Some(1_000) };
    let wanted = Subscribe::to("run").durable("workers").window(4).group(group);
    // What is done, and what may be: its answer was lost.
    let done = Arc::new(Mutex::new((BTreeSet::new(), BTreeSet::new())));
    let is_over = |done: &(BTreeSet<u64>, BTreeSet<u64>)| done.0.union(&done.1).count() == EVENTS;
    let mut members = Vec::new();
    for n in 0..3 {
        let client = admin(&server).await;
        let mut subscription = client.subscribe(wanted.clone()).await.unwrap();
        let done = done.clone();
        members.push(tokio::spawn(async move {
            while !is_over(&done.lock().unwrap()) {
                let next = timeout(Duration::from_millis(200), subscription.next()).await;
                let Ok(Some(Delivery::Event(event))) = next else { continue };
                let deliveries = event.deliveries.expect("it is counted");
                let said = match event.seq % 3 {
                    _ if deliveries > 1 => subscription.done(&event).await,
                    0 => subscription.give_back(&event, Duration::from_millis(20), Some("later")).await,
                    1 => match subscription.extend(&event).await {
                        Ok(()) => subscription.done(&event).await,
                        refused => refused,
                    },
                    _ => subscription.done(&event).await,
                };
                let is_done = said.is_ok() && (deliveries > 1 || event.seq % 3 != 0);
                if is_done {
                    let (done, unknown) = &mut *done.lock().unwrap();
                    assert!(
                        done.insert(event.seq) || unknown.contains(&event.seq),
                        "{} is done twice",
                        event.seq
                    );
                } else if let Err(error) = said {
                    // Nobody knows whether it was written down.
                    let unknown =
                        !matches!(&error, kernelci_live::client::Error::Rpc(_)) || error.temporary();
                    if unknown {
                        done.lock().unwrap().1.insert(event.seq);
                    }
                }
            }
            (n, subscription)
        }));
    }
    let writer = admin(&server).await;
    let publishing = tokio::spawn(async move {
        for n in 0..EVENTS {
            let publish = Publish { channel: "run".into(), data: json!({"n": n}), ..Publish::default() };
            writer.event_publish(publish).await.expect("published");
        }
    });
    interrupt(&mut server, &[true, false], 30, || done.lock().unwrap().0.len()).await;
    timeout(2 * PATIENCE, publishing).await.expect("in time").unwrap();
    for member in members {
        timeout(2 * PATIENCE, member).await.expect("in time").unwrap();
    }
}

/// A durable subscription does every event exactly once in a process that acknowledges what it has done, whatever
/// happens to the server; the next process goes on behind that.
#[apply(both_backends!)]
async fn a_durable_subscription_survives_restarts(server: Server) {
    const EVENTS: u64 = 300;
    let mut server = server;
    let reader = admin(&server).await;
    let wanted = || Subscribe::to("run").durable("worker").window(8);
    let mut subscription = reader.subscribe(wanted()).await.unwrap();
    let writer = admin(&server).await;
    let publishing = tokio::spawn(async move {
        for n in 0..EVENTS {
            let publish = Publish { channel: "run".into(), data: json!({"n": n}), ..Publish::default() };
            writer.event_publish(publish).await.expect("published");
        }
    });
    let read = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn({
        let read = read.clone();
        async move {
            for n in 0..EVENTS {
                let (seq, data) = event(&mut subscription).await;
                assert_eq!(data["n"], n);
                // The last ones are left for others.
                if n < EVENTS - 3 {
                    subscription.ack(seq);
                }
                read.fetch_add(1, Ordering::Relaxed);
            }
            subscription
        }
    });
    interrupt(&mut server, &[true, false], 100, || read.load(Ordering::Relaxed)).await;
    timeout(2 * PATIENCE, publishing).await.expect("in time").unwrap();
    let mut subscription = timeout(2 * PATIENCE, reading).await.expect("in time").unwrap();
    let client = admin(&server).await;
    let place = subscription.position().seq - 3;
    until("all of it is acknowledged", async || {
        let now: Value = client.call("consumer.get", json!({"name": "worker"})).await.unwrap();
        // The first one has to be back: else it takes the name over, not the other way round.
        let back = now["position"]["seq"] == place && !now["subscription"].is_null();
        if back { Ok(()) } else { Err(now) }
    })
    .await;
    let mut later = client.subscribe(wanted()).await.unwrap();
    for n in EVENTS - 3..EVENTS {
        assert_eq!(event(&mut later).await.1["n"], n);
    }
    assert!(soon("the first one ends", subscription.next()).await.is_none());
    assert_eq!(subscription.ended(), Some(Ended::TakenOver));
    // Closing sends what was acknowledged last.
    later.ack(place + 2);
    client.close().await;
    let client = admin(&server).await;
    until("the last one, too", async || {
        let now: Value = client.call("consumer.get", json!({"name": "worker"})).await.unwrap();
        if now["position"]["seq"] == place + 2 { Ok(()) } else { Err(now) }
    })
    .await;
}

/// The typed operations speak the server's language.
#[apply(both_backends!)]
async fn operations(server: Server) {
    let client = admin(&server).await;
    assert_eq!(client.whoami().await.unwrap()["username"], "admin");
    let created = client.node_create(&node("checkout", "one"), Some("key".into())).await.unwrap();
    let again = client.node_create(&node("checkout", "one"), Some("key".into())).await.unwrap();
    assert_eq!(created["id"], again["id"]);
    for number in 0..5 {
        client.node_create(&node("checkout", &format!("n{number}")), None).await.unwrap();
    }
    let filter = json!({"kind": "checkout"});
    assert_eq!(client.node_count(Some(&filter)).await.unwrap(), 6);
    let query = NodeQuery::filter(filter).sort("name").limit(2);
    let names = client.node_find_all(query).map(|node| node.unwrap()["name"].clone());
    assert_eq!(names.collect::<Vec<Value>>().await, ["n0", "n1", "n2", "n3", "n4", "one"]);
    let ids = vec![created["id"].as_str().unwrap().to_owned()];
    assert_eq!(client.node_mark(&ids, "processed_by_kcidb_bridge", &json!(true)).await.unwrap(), 1);
    let node = client.node_get(&ids[0]).await.unwrap();
    assert_eq!(node["processed_by_kcidb_bridge"], true);
    let missing = client.node_get("000000000000000000000000").await.unwrap_err();
    assert_eq!(missing.status(), Some(404));
    client.close().await;
    assert!(client.node_get(&ids[0]).await.is_err());
}

/// A planned checkout plays to its end, though the server is killed in the middle of it; nothing is left open
/// and every test is there once.
#[apply(both_backends!)]
async fn the_demo_plays_through_a_kill(server: Server) {
    let mut server = server;
    let client = admin(&server).await;
    let catalogue = Catalogue::built_in().unwrap();
    let plan = Checkout::plan(&catalogue, 5, 0, Scale { builds: 4, jobs: 6 });
    let player = Player::new(client.clone(), 600.0, CancellationToken::new());
    let playing = {
        let (player, plan) = (player.clone(), plan.clone());
        tokio::spawn(async move { player.checkout(&plan).await })
    };
    eventually_within(2 * PATIENCE, "it plays", async || client.node_count(None).await.unwrap() >= 8).await;
    server.kill9();
    server.restart().await;
    timeout(2 * PATIENCE, playing).await.expect("in time").unwrap().unwrap();
    let open = json!({"state__ne": "done"});
    assert_eq!(client.node_count(Some(&open)).await.unwrap(), 0);
    let tries = plan.builds.iter().flat_map(|build| &build.jobs).chain(&plan.jobs).map(|job| job.tries.len());
    let jobs = client.node_count(Some(&json!({"kind": "job"}))).await.unwrap();
    assert_eq!(jobs as usize, tries.sum::<usize>());
    let tests: Vec<Value> = client
        .node_find_all(NodeQuery::filter(json!({"kind": "test"})).limit(200))
        .map(|node| node.unwrap())
        .collect()
        .await;
    let places: BTreeSet<String> =
        tests.iter().map(|test| format!("{} {}", test["parent"], test["name"])).collect();
    assert_eq!(places.len(), tests.len());
    assert_eq!(tests.len() as u64, player.tally().tests.load(std::sync::atomic::Ordering::Relaxed));
}
