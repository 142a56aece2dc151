//! Commits of several nodes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use bson::doc;
use kernelci_live::model::{Node, ObjectId};
use kernelci_live::store::{Commit, Committed, IdempotencyKey, Store};
use macro_rules_attribute::apply;

use super::support::{Servers, commit, node, revisions};
use crate::support::in_pairs;

#[apply(in_pairs!)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hierarchy_of_5000_nodes_is_one_step() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    assert!(kernelci_live::store::Store::facts(&*a.store).atomic_hierarchies);
    let mut root = node("root");
    a.store.commit(commit([&root])).await.unwrap();
    root.revision = 2;
    let filler = serde_json::Value::String("x".repeat(2_000));
    let child = |i: usize| {
        let mut child = Node { parent: Some(root.id), ..node(&format!("child-{i}")) };
        child.data.get_or_insert_default().insert("log".into(), filler.clone());
        child
    };
    let mut nodes = vec![root.clone()];
    nodes.extend((1..5000).map(child));

    let done = AtomicBool::new(false);
    let watch = async {
        let (mut none, mut all) = (0, 0);
        loop {
            let last = done.load(Relaxed);
            match servers.collection("node").count_documents(doc! {}).await.unwrap() {
                1 => none += 1,
                5000 => all += 1,
                partly => panic!("{partly} nodes are visible"),
            }
            if last {
                return (none, all);
            }
        }
    };
    let write = async {
        let begun = Instant::now();
        assert_eq!(a.store.commit(commit(&nodes)).await.unwrap(), Committed::Done);
        done.store(true, Relaxed);
        begun.elapsed()
    };
    let ((none, all), took) = tokio::join!(watch, write);
    println!("5,000 nodes in {took:?}; looked {none} times before and {all} times after");
    assert!(all > 0);
    servers.settled().await;
    let events = a.events_after("node", 0).await;
    assert_eq!(events.len(), 5001);
    assert_eq!(revisions(&events, root.id), [1, 2]);
    // All of them once more, as updates.
    nodes.iter_mut().for_each(|node| node.revision += 1);
    assert_eq!(a.store.commit(commit(&nodes)).await.unwrap(), Committed::Done);
    servers.clean().await;
}

#[tokio::test]
async fn a_conflict_undoes_everything() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    let (mut one, mut two) = (node("one"), node("two"));
    a.store.commit(commit([&one, &two])).await.unwrap();
    servers.settled().await;
    let count = async || servers.collection("node").count_documents(doc! {}).await.unwrap();

    // A stale revision among inserts and good updates.
    (one.revision, two.revision) = (2, 7);
    let fresh = node("fresh");
    let outcome = a.store.commit(commit([&fresh, &one, &two])).await.unwrap();
    assert_eq!(outcome, Committed::Conflict(two.id, Some(1)));
    assert_eq!((count().await, servers.document(one.id).await.get_i64("revision").unwrap()), (2, 1));
    // An absent node.
    let absent = Node { revision: 2, ..node("absent") };
    let outcome = a.store.commit(commit([&fresh, &absent])).await.unwrap();
    assert_eq!(outcome, Committed::Conflict(absent.id, None));
    // A new node that exists.
    let outcome = a.store.commit(commit([&fresh, &Node { revision: 1, ..one.clone() }])).await.unwrap();
    assert_eq!(outcome, Committed::Conflict(one.id, Some(1)));
    assert_eq!(count().await, 2);
    servers.settled().await;
    assert_eq!(a.events_after("node", 0).await.len(), 2, "no event of what was not written");
    servers.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_hierarchy_is_written_once() {
    let servers = Servers::new().await;
    let (a, b) = (servers.open().await, servers.open().await);
    let user = ObjectId::new();
    let submit = || {
        let nodes = [node("root"), node("child")];
        let key = IdempotencyKey { user, method: "node.submit", key: "k".into(), fingerprint: String::new() };
        Commit { idempotency: Some(key), ..commit(&nodes) }
    };
    let outcomes = tokio::join!(a.store.commit(submit()), b.store.commit(submit()), a.store.commit(submit()));
    let outcomes = [outcomes.0.unwrap(), outcomes.1.unwrap(), outcomes.2.unwrap()];
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Committed::Done).count(), 1, "{outcomes:?}");
    let repeated =
        outcomes.iter().filter(|outcome| matches!(outcome, Committed::Repeated(ids) if ids.len() == 2));
    assert_eq!(repeated.count(), 2, "{outcomes:?}");
    assert_eq!(servers.collection("node").count_documents(doc! {}).await.unwrap(), 2);
    servers.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_hierarchies_of_two_instances_do_not_mix() {
    let servers = Servers::new().await;
    let (a, b) = (servers.open().await, servers.open().await);
    let nodes: Vec<Node> = (0..10).map(|i| node(&format!("n{i}"))).collect();
    a.store.commit(commit(&nodes)).await.unwrap();
    let writer = async |instance: &super::support::Instance, name: &str, reverse: bool| {
        let mut won = 0;
        for _ in 0..20 {
            let ids: Vec<ObjectId> = nodes.iter().map(|node| node.id).collect();
            let mut now: Vec<Node> = instance
                .store
                .nodes(&ids)
                .await
                .unwrap()
                .iter()
                .map(|wire| Node::from_wire(wire).unwrap())
                .collect();
            for node in &mut now {
                node.revision += 1;
                node.name = format!("{name}-{}", node.revision);
            }
            if reverse {
                now.reverse();
            }
            won += usize::from(instance.store.commit(commit(&now)).await.unwrap() == Committed::Done);
        }
        won
    };
    let (one, other) = tokio::join!(writer(&a, "a", false), writer(&b, "b", true));
    assert!(one + other > 0);
    let ids: Vec<ObjectId> = nodes.iter().map(|node| node.id).collect();
    let wires = a.store.nodes(&ids).await.unwrap();
    assert!(wires.iter().all(|wire| wire["name"] == wires[0]["name"] && wire["revision"] == 1 + one + other));
    servers.settled().await;
    let events = a.events_after("node", 0).await;
    for id in ids {
        assert_eq!(revisions(&events, id), (1..=1 + (one + other) as u64).collect::<Vec<_>>());
    }
    servers.clean().await;
}

#[apply(in_pairs!)]
#[tokio::test]
async fn a_node_that_is_too_large_is_refused() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    let mut node = node("n");
    a.store.commit(commit([&node])).await.unwrap();
    let with_log = |node: &Node, bytes: usize| {
        let mut node = node.clone();
        node.data.get_or_insert_default().insert("log".into(), "x".repeat(bytes).into());
        node
    };
    node.revision = 2;
    let update = with_log(&node, 17 << 20);
    let insert = Node { id: ObjectId::new(), revision: 1, ..update.clone() };
    for commit in [commit([&update]), commit([&insert]), commit([&insert, &update])] {
        let error = a.store.commit(commit).await.unwrap_err();
        assert_eq!(error.status(), 413, "{}", error.to_string().chars().take(500).collect::<String>());
    }
    assert_eq!(a.store.commit(commit([&node])).await.unwrap(), Committed::Done);
    servers.clean().await;
}
