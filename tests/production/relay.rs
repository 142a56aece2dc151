//! Several instances, and instances that die: every event enters the log once, in the order of its node's revisions.

use std::collections::HashSet;

use bson::doc;
use kernelci_live::event_log::EventLog;
use kernelci_live::event_log::redis::RelayMode;
use kernelci_live::model::{Node, ObjectId};
use kernelci_live::store::{Committed, Store};
use serde_json::json;

use super::support::{Instance, Servers, commit, event, node, revisions};
use crate::support::{eventually, published};

/// Writes the node `count` times, whatever others write in between.
async fn write_repeatedly(instance: &Instance, id: ObjectId, count: usize) {
    for _ in 0..count {
        loop {
            let wire = instance.store.nodes(&[id]).await.unwrap().pop().unwrap();
            let mut node = Node::from_wire(&wire).unwrap();
            node.revision += 1;
            match instance.store.commit(commit([&node])).await.unwrap() {
                Committed::Done => break,
                Committed::Conflict(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_write_one_node() {
    let servers = Servers::new().await;
    let (a, b) = (servers.open().await, servers.open().await);
    let first = node("n");
    a.store.commit(commit([&first])).await.unwrap();
    tokio::join!(write_repeatedly(&a, first.id, 100), write_repeatedly(&b, first.id, 100));
    servers.settled().await;
    let events = b.events_after("node", 0).await;
    assert_eq!(revisions(&events, first.id), (1..=201).collect::<Vec<_>>());
    assert_eq!(events.len(), 201);
    let history = servers.collection("eventhistory").count_documents(doc! {}).await.unwrap();
    assert_eq!(history, 201);
    assert_eq!(a.log.head("node").await.unwrap(), b.log.head("node").await.unwrap());
    servers.clean().await;
}

#[tokio::test]
async fn what_a_dead_instance_left_is_delivered_once() {
    let servers = Servers::new().await;
    // Dies after the commit; dies after the append.
    for dies in [RelayMode::Off, RelayMode::AppendOnly] {
        let dead = servers.open_with(dies).await;
        let mut left = node("left");
        for revision in 1..=3 {
            left.revision = revision;
            assert_eq!(dead.store.commit(commit([&left])).await.unwrap(), Committed::Done);
        }
        if dies == RelayMode::AppendOnly {
            servers.given("node", 6).await;
        }
        dead.store.close().await;
        assert_eq!(servers.document(left.id).await.get_array("outbox").unwrap().len(), 3);

        // Two sweepers at the same time.
        let (b, c) = (servers.open().await, servers.open().await);
        servers.settled().await;
        assert_eq!(revisions(&b.events_after("node", 0).await, left.id), [1, 2, 3], "{dies:?}");
        b.store.close().await;
        c.store.close().await;
    }
    let history = servers.collection("eventhistory").count_documents(doc! {}).await.unwrap();
    assert_eq!(history, 6);
    servers.clean().await;
}

#[tokio::test]
async fn an_appended_event_is_recognised_after_redis_stopped_remembering_it() {
    let servers = Servers::new().await;
    let dead = servers.open_with(RelayMode::AppendOnly).await;
    let left = node("left");
    dead.store.commit(commit([&left])).await.unwrap();
    servers.given("node", 1).await;
    dead.store.close().await;
    // As if more than an hour had passed.
    servers.forget("{node}:seen:*").await;
    let b = servers.open().await;
    servers.settled().await;
    let epoch = b.log.head("node").await.unwrap();
    assert_eq!(epoch.seq, 1, "not appended again");
    assert_eq!(revisions(&b.events_after("node", 0).await, left.id), [1]);
    servers.clean().await;
}

#[tokio::test]
async fn a_later_write_does_not_overtake_what_another_instance_left() {
    let servers = Servers::new().await;
    let dead = servers.open_with(RelayMode::Off).await;
    let (mut one, mut two) = (node("one"), node("two"));
    dead.store.commit(commit([&one, &two])).await.unwrap();
    dead.store.close().await;
    let b = servers.open().await;
    (one.revision, two.revision) = (2, 2);
    // One by itself, and both in a transaction.
    assert_eq!(b.store.commit(commit([&one])).await.unwrap(), Committed::Done);
    one.revision = 3;
    assert_eq!(b.store.commit(commit([&one, &two])).await.unwrap(), Committed::Done);
    servers.settled().await;
    let events = b.events_after("node", 0).await;
    assert_eq!(revisions(&events, one.id), [1, 2, 3]);
    assert_eq!(revisions(&events, two.id), [1, 2]);
    servers.clean().await;
}

#[tokio::test]
async fn a_repeated_publish_has_one_place() {
    let servers = Servers::new().await;
    let (a, b) = (servers.open().await, servers.open().await);
    let mut events = Vec::new();
    for i in 0..5 {
        let event = event("ch", json!({"i": i}));
        let (one, other) = tokio::join!(published(&*a.log, event.clone()), published(&*b.log, event.clone()));
        assert_eq!(one, other);
        events.push(event);
    }
    servers.settled().await;
    servers.forget("{ch}:seen:*").await;
    let mut seqs = HashSet::new();
    for event in &events {
        seqs.insert(published(&*b.log, event.clone()).await);
    }
    assert_eq!(seqs, HashSet::from([1, 2, 3, 4, 5]));
    assert_eq!(a.events_after("ch", 0).await.len(), 5);
    assert_eq!(servers.collection("eventoutbox").count_documents(doc! {}).await.unwrap(), 0);
    servers.clean().await;
}

#[tokio::test]
async fn what_has_a_number_and_no_publisher_any_more_is_shown() {
    let servers = Servers::new().await;
    let dead = servers.open_with(RelayMode::AppendOnly).await;
    let event = event("ch", json!(1));
    assert_eq!(dead.log.publish_new(event.clone()).await.unwrap(), None);
    servers.given("ch", 1).await;
    dead.store.close().await;
    // As if the publisher had died before it could keep the event.
    servers.collection("eventoutbox").delete_many(doc! {}).await.unwrap();
    let b = servers.open().await;
    assert_eq!(b.log.head("ch").await.unwrap().seq, 0);
    // Nobody else publishes, and still it comes.
    eventually("event", async || b.log.head("ch").await.unwrap().seq == 1).await;
    assert_eq!(published(&*b.log, event).await, 1, "a second try finds it");
    assert_eq!(b.events_after("ch", 0).await.len(), 1);
    servers.clean().await;
}

#[tokio::test]
async fn a_published_event_of_a_dead_instance_follows() {
    let servers = Servers::new().await;
    let dead = servers.open_with(RelayMode::Off).await;
    let event = event("ch", json!(1));
    assert_eq!(dead.log.publish(event.clone()).await.unwrap(), None, "durable, without a place");
    let b = servers.open().await;
    servers.settled().await;
    assert_eq!(published(&*b.log, event).await, 1);
    assert_eq!(b.log.head("ch").await.unwrap().seq, 1);
    servers.clean().await;
}
