//! Nodes that do not fit into a document of MongoDB together with what tells of them.

use bson::doc;
use kernelci_live::event_log::redis::RelayMode;
use kernelci_live::model::{Node, ObjectId};
use kernelci_live::store::{Commit, Committed, IdempotencyKey, Store};
use serde_json::json;

use super::support::{Instance, Servers, commit, node, revisions, write};
use crate::support::eventually;

/// A node with so many megabytes.
fn large(name: &str, megabytes: usize) -> Node {
    Node { data: json!({"log": "x".repeat(megabytes << 20)}).as_object().cloned(), ..node(name) }
}

/// The same node as it stands after the next write.
fn next(node: &Node) -> Node {
    Node { revision: node.revision + 1, ..node.clone() }
}

async fn done(instance: &Instance, nodes: &[&Node]) {
    assert_eq!(instance.store.commit(commit(nodes.iter().copied())).await.unwrap(), Committed::Done);
}

/// Events that stand beside the outboxes.
async fn beside(servers: &Servers) -> u64 {
    servers.collection("eventbody").count_documents(doc! {}).await.unwrap()
}

/// Waits until nothing is pending.
async fn settled(servers: &Servers) {
    servers.settled().await;
    assert_eq!(beside(servers).await, 0, "bodies go before their marks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_event_stands_beside_its_node_and_keeps_its_place() {
    let servers = Servers::new().await;
    let dead = servers.open_with(RelayMode::Off).await;
    let (first, small) = (large("large", 9), node("small"));
    done(&dead, &[&first]).await;
    let second = next(&first);
    done(&dead, &[&second]).await;
    // With a hierarchy, too.
    let third = next(&second);
    done(&dead, &[&third, &small]).await;
    let document = servers.document(first.id).await;
    assert_eq!(document.get_array("outbox").unwrap().len(), 3);
    assert_eq!(beside(&servers).await, 3);
    dead.store.close().await;

    let b = servers.open().await;
    // An instance that writes before the sweep has come takes along what is left.
    let fourth = Node { data: node("small again").data, ..next(&third) };
    done(&b, &[&fourth]).await;
    settled(&servers).await;
    let events = b.events_after("node", 0).await;
    assert_eq!(revisions(&events, first.id), [1, 2, 3, 4]);
    let whole = events
        .iter()
        .filter(|event| event.value()["data"]["data"]["log"] == first.data.as_ref().unwrap()["log"]);
    assert_eq!(whole.count(), 3);
    servers.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_wait_make_room_for_the_next_write() {
    let servers = Servers::new().await;
    let dead = servers.open_with(RelayMode::Off).await;
    let mut growing = large("growing", 4);
    done(&dead, &[&growing]).await;
    // Together with what waits, each of these would be too large, but for those that move.
    for megabytes in [4, 4, 5, 5, 5, 2] {
        growing = Node { data: large("", megabytes).data, ..next(&growing) };
        done(&dead, &[&growing]).await;
    }
    let child = node("child");
    growing = next(&growing);
    done(&dead, &[&growing, &child]).await;
    assert!(beside(&servers).await > 0);
    dead.store.close().await;
    let b = servers.open().await;
    settled(&servers).await;
    assert_eq!(revisions(&b.events_after("node", 0).await, growing.id), [1, 2, 3, 4, 5, 6, 7, 8]);
    servers.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_whose_event_has_been_told_goes() {
    let servers = Servers::new().await;
    let dead = servers.open_with(RelayMode::Off).await;
    let first = large("large", 9);
    done(&dead, &[&first]).await;
    // As if whoever has told of it had died before the mark was removed.
    servers.collection("eventbody").delete_many(doc! {}).await.unwrap();
    dead.store.close().await;
    let b = servers.open().await;
    let second = Node { data: node("").data, ..next(&first) };
    done(&b, &[&second]).await;
    settled(&servers).await;
    assert_eq!(revisions(&b.events_after("node", 0).await, first.id), [2]);
    servers.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_node_is_made_once_for_a_key() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    let key = IdempotencyKey {
        user: ObjectId::new(),
        method: "node.create",
        key: "k".into(),
        fingerprint: String::new(),
    };
    let keyed = |node: &Node| Commit { writes: vec![write(node)], idempotency: Some(key.clone()) };
    let (first, again, small) = (large("first", 9), large("again", 9), node("small"));
    assert_eq!(a.store.commit(keyed(&first)).await.unwrap(), Committed::Done);
    for node in [&again, &small] {
        assert_eq!(
            a.store.commit(keyed(node)).await.unwrap(),
            Committed::Repeated(vec![first.id]),
            "{}",
            node.name
        );
    }
    let one_more = IdempotencyKey { key: "other".into(), ..key.clone() };
    let small = Commit { writes: vec![write(&small)], idempotency: Some(one_more.clone()) };
    assert_eq!(a.store.commit(small).await.unwrap(), Committed::Done);
    let large = Commit { writes: vec![write(&again)], idempotency: Some(one_more) };
    assert!(matches!(a.store.commit(large).await.unwrap(), Committed::Repeated(_)));
    settled(&servers).await;
    assert_eq!(a.events_after("node", 0).await.len(), 2);
    servers.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_node_that_fits_is_written_and_one_that_does_not_is_not() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    let of =
        |bytes: usize| Node { debug: json!({"log": "x".repeat(bytes)}).as_object().cloned(), ..node("n") };
    // A document with its frame.
    let most = (16 << 20) - (2 << 10) - 600;
    let largest = of(most);
    done(&a, &[&largest]).await;
    done(&a, &[&next(&largest)]).await;
    done(&a, &[&next(&next(&largest)), &node("child")]).await;
    for too_large in [of(16 << 20), Node { data: of(16 << 20).debug, ..node("data") }] {
        let refused = a.store.commit(commit([&too_large])).await.unwrap_err();
        assert_eq!(refused.status(), 413, "{refused}");
        assert!(a.store.nodes(&[too_large.id]).await.unwrap().is_empty());
    }
    settled(&servers).await;
    eventually("all events", async || a.events_after("node", 0).await.len() == 4).await;
    servers.clean().await;
}
