//! Commits: conditional, all or nothing, idempotent.

use std::collections::HashSet;
use std::sync::Arc;

use kernelci_live::model::event::NODE_CHANNEL;
use kernelci_live::model::{Node, ObjectId};
use kernelci_live::store::{Commit, Committed, Expect, IdempotencyKey};
use macro_rules_attribute::apply;
use serde_json::json;

use super::support::{Fixture, commit, ids, next, node, write};
use crate::support::both_backends;

#[apply(both_backends!)]
async fn a_new_node_is_read_back_as_it_was_written(f: Fixture) {
    let mut new = node("kbuild-gcc-14-arm64");
    new.parent = Some(ObjectId::new());
    new.data = json!({"arch": "arm64", "n": 7, "deep": [{"é\n\"": null}], "big": 9007199254740993_i64})
        .as_object()
        .cloned();
    f.write(&new, Expect::Absent).await;
    assert_eq!(f.stored(new.id).await.unwrap(), new.to_wire());
    let found = f.store.nodes(&[ObjectId::new(), new.id]).await.unwrap();
    assert_eq!(ids(&found), [new.id], "absent nodes are left out");
    assert!(f.store.nodes(&[]).await.unwrap().is_empty());
}

#[apply(both_backends!)]
async fn a_new_node_conflicts_with_an_existing_one(f: Fixture) {
    let first = node("first");
    f.write(&first, Expect::Absent).await;
    let second = Node { name: "second".to_owned(), ..first.clone() };
    assert_eq!(f.try_write(&second, Expect::Absent).await, Committed::Conflict(first.id, Some(1)));
    assert_eq!(f.stored(first.id).await.unwrap()["name"], "first");
}

#[apply(both_backends!)]
async fn a_stale_revision_conflicts(f: Fixture) {
    let first = node("n");
    f.write(&first, Expect::Absent).await;
    let (second, expect) = next(&first);
    f.write(&second, expect).await;
    let stale = Node { name: "stale".to_owned(), ..second.clone() };
    assert_eq!(f.try_write(&stale, expect).await, Committed::Conflict(first.id, Some(2)));
    assert_eq!(f.stored(first.id).await.unwrap(), second.to_wire());
    f.settled(NODE_CHANNEL, 2).await;
    assert_eq!(f.events_from(NODE_CHANNEL, 1).await.len(), 2, "a conflict has no event");
}

#[apply(both_backends!)]
async fn an_update_of_an_absent_node_conflicts(f: Fixture) {
    let (ghost, expect) = next(&node("ghost"));
    assert_eq!(f.try_write(&ghost, expect).await, Committed::Conflict(ghost.id, None));
    assert_eq!(f.stored(ghost.id).await, None);
}

#[apply(both_backends!)]
async fn a_commit_is_all_or_nothing(f: Fixture) {
    if !f.store.facts().atomic_hierarchies {
        return;
    }
    let existing = node("existing");
    f.write(&existing, Expect::Absent).await;
    let (updated, expect) = next(&existing);
    let fresh = node("fresh");
    let (ghost, ghost_expect) = next(&node("ghost"));
    let writes = vec![write(&fresh, Expect::Absent), write(&updated, expect), write(&ghost, ghost_expect)];
    let end = f.store.commit(commit(writes)).await.unwrap();
    assert_eq!(end, Committed::Conflict(ghost.id, None));
    assert_eq!(f.stored(fresh.id).await, None);
    assert_eq!(f.stored(existing.id).await.unwrap(), existing.to_wire());
    f.write(&node("later"), Expect::Absent).await;
    f.settled(NODE_CHANNEL, 2).await;
    let names: Vec<_> = f.events_from(NODE_CHANNEL, 1).await;
    let names: Vec<_> = names.iter().map(|entry| entry.value()["data"]["name"].clone()).collect();
    assert_eq!(names, ["existing", "later"]);
}

fn keyed(node: &Node, user: ObjectId, method: &'static str, key: &str) -> Commit {
    let idempotency = Some(IdempotencyKey { user, method, key: key.to_owned(), fingerprint: String::new() });
    Commit { writes: vec![write(node, Expect::Absent)], idempotency }
}

#[apply(both_backends!)]
async fn a_repeated_commit_returns_the_first_result(f: Fixture) {
    let user = ObjectId::new();
    let (first, again) = (node("first"), node("again"));
    let done = f.store.commit(keyed(&first, user, "node.create", "k")).await.unwrap();
    assert_eq!(done, Committed::Done);
    let repeated = f.store.commit(keyed(&again, user, "node.create", "k")).await.unwrap();
    assert_eq!(repeated, Committed::Repeated(vec![first.id]));
    assert_eq!(f.stored(again.id).await, None);
    f.write(&node("later"), Expect::Absent).await;
    f.settled(NODE_CHANNEL, 2).await;
    assert_eq!(f.events_from(NODE_CHANNEL, 1).await.len(), 2, "a repetition has no event");
}

#[apply(both_backends!)]
async fn idempotency_keys_of_others_are_others(f: Fixture) {
    let user = ObjectId::new();
    for (user, method, key) in [
        (user, "node.create", "k"),
        (ObjectId::new(), "node.create", "k"),
        (user, "node.submit", "k"),
        (user, "node.create", "K"),
    ] {
        let done = f.store.commit(keyed(&node("n"), user, method, key)).await.unwrap();
        assert_eq!(done, Committed::Done, "{user} {method} {key}");
    }
}

#[apply(both_backends!)]
async fn a_conflict_is_not_remembered(f: Fixture) {
    let existing = node("existing");
    f.write(&existing, Expect::Absent).await;
    let user = ObjectId::new();
    let end = f.store.commit(keyed(&existing, user, "node.create", "k")).await.unwrap();
    assert_eq!(end, Committed::Conflict(existing.id, Some(1)));
    let end = f.store.commit(keyed(&node("other"), user, "node.create", "k")).await.unwrap();
    assert_eq!(end, Committed::Done);
}

#[apply(both_backends!)]
async fn racing_repetitions_write_once(f: Fixture) {
    let f = Arc::new(f);
    let user = ObjectId::new();
    let tasks = (0..16).map(|_| {
        let f = f.clone();
        tokio::spawn(async move {
            let node = node("racer");
            (node.id, f.store.commit(keyed(&node, user, "node.create", "k")).await.unwrap())
        })
    });
    let mut winners = Vec::new();
    let mut told = HashSet::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            (id, Committed::Done) => winners.push(id),
            (_, Committed::Repeated(first)) => {
                told.extend(first);
            }
            (_, Committed::Conflict(..)) => panic!("a repetition is no conflict"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(told, HashSet::from([winners[0]]));
    f.settled(NODE_CHANNEL, 1).await;
    assert_eq!(f.events_from(NODE_CHANNEL, 1).await.len(), 1);
}

#[apply(both_backends!)]
async fn racing_writers_lose_no_update(f: Fixture) {
    const WRITERS: usize = 8;
    const UPDATES: usize = 10;
    let f = Arc::new(f);
    let first = node("counter");
    f.write(&first, Expect::Absent).await;
    let id = first.id;
    let tasks = (0..WRITERS).map(|_| {
        let (f, mut seen) = (f.clone(), first.clone());
        tokio::spawn(async move {
            let mut done = 0;
            while done < UPDATES {
                let (mut node, expect) = next(&seen);
                node.retry_counter += 1;
                match f.try_write(&node, expect).await {
                    Committed::Done => {
                        seen = node;
                        done += 1;
                    }
                    Committed::Conflict(_, Some(revision)) => {
                        assert!(revision > seen.revision, "a conflict names a newer revision");
                        let stored = f.stored(id).await.unwrap();
                        seen.revision = stored["revision"].as_u64().unwrap();
                        seen.retry_counter = stored["retry_counter"].as_i64().unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let stored = f.stored(id).await.unwrap();
    assert_eq!(stored["retry_counter"], WRITERS * UPDATES);
    assert_eq!(stored["revision"], WRITERS * UPDATES + 1);
}

#[apply(both_backends!)]
async fn a_large_hierarchy_is_one_commit(f: Fixture) {
    let nodes: Vec<Node> = (0..1_000).map(|i| node(&format!("test-{i}"))).collect();
    let writes = nodes.iter().map(|node| write(node, Expect::Absent)).collect();
    assert_eq!(f.store.commit(commit(writes)).await.unwrap(), Committed::Done);
    f.settled(NODE_CHANNEL, 1_000).await;
    let events = f.events_from(NODE_CHANNEL, 1).await;
    let told: Vec<ObjectId> = events.iter().map(|entry| entry.subject().unwrap()).collect();
    let written: Vec<ObjectId> = nodes.iter().map(|node| node.id).collect();
    assert_eq!(told, written, "in the order of the writes");
    assert_eq!(f.store.nodes(&written).await.unwrap().len(), 1_000);
}
