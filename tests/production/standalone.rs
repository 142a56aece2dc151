//! A `mongod` without a replica set.

use kernelci_live::model::Node;
use kernelci_live::store::{Committed, Store};

use super::support::{Mongod, Servers, commit, node, revisions};

#[tokio::test]
async fn a_standalone_server_works_and_says_what_is_weaker() {
    let mongod = Mongod::start(&[]).await;
    let servers = Servers::on(format!("mongodb://127.0.0.1:{}", mongod.port)).await;
    let a = servers.open().await;
    assert!(!a.store.facts().atomic_hierarchies);
    let mut root = node("root");
    assert_eq!(a.store.commit(commit([&root])).await.unwrap(), Committed::Done);
    root.revision = 2;
    let child = Node { parent: Some(root.id), ..node("child") };
    let grandchild = Node { parent: Some(child.id), ..node("grandchild") };
    assert_eq!(a.store.commit(commit([&root, &child, &grandchild])).await.unwrap(), Committed::Done);
    servers.settled().await;
    let events = a.events_after("node", 0).await;
    let order: Vec<_> = events.iter().filter_map(|event| event.subject()).collect();
    assert_eq!(order, [root.id, grandchild.id, child.id, root.id], "children before their parents");

    // A stale root: nothing of the new children stays.
    let orphan = Node { parent: Some(root.id), ..node("orphan") };
    let stale = Node { revision: 9, ..root.clone() };
    let outcome = a.store.commit(commit([&stale, &orphan])).await.unwrap();
    assert_eq!(outcome, Committed::Conflict(root.id, Some(2)));
    assert!(a.store.nodes(&[orphan.id]).await.unwrap().is_empty());
    root.revision = 3;
    assert_eq!(a.store.commit(commit([&root])).await.unwrap(), Committed::Done);
    servers.settled().await;
    assert_eq!(revisions(&a.events_after("node", 0).await, root.id), [1, 2, 3]);

    // A node and its event must fit into one document: there is no way to write two at once.
    let large = |name: &str, megabytes: usize| Node {
        data: serde_json::json!({"log": "x".repeat(megabytes << 20)}).as_object().cloned(),
        parent: Some(root.id),
        ..node(name)
    };
    let (fits, too_large) = (large("fits", 7), large("too large", 9));
    assert_eq!(a.store.commit(commit([&fits])).await.unwrap(), Committed::Done);
    root.revision = 4;
    for nodes in [vec![&too_large], vec![&root, &orphan, &too_large]] {
        let refused = a.store.commit(commit(nodes)).await.unwrap_err();
        assert!(refused.status() == 413 && refused.to_string().contains("replica set"), "{refused}");
    }
    let nodes = a.store.nodes(&[root.id, orphan.id, too_large.id]).await.unwrap();
    assert_eq!(nodes.len(), 1, "nothing was written");
    assert_eq!(nodes[0]["revision"], 3);
    servers.clean().await;
}
