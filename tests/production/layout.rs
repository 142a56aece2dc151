//! Databases that KernelCI's own server has written.

use bson::{Bson, DateTime, doc};
use kernelci_live::event_log::{After, EventLog, HistoryQuery};
use kernelci_live::filter::Filter;
use kernelci_live::model::{Node, ObjectId};
use kernelci_live::store::mongo::{Options, open};
use kernelci_live::store::{Committed, Expect, IndexState, Query, Store, UserKey, Users};
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use serde_json::json;

use super::support::{Servers, commit, event, node, write};
use crate::support::published;

#[tokio::test]
async fn old_nodes_are_read_and_updated_in_place() {
    let servers = Servers::new().await;
    let (id, regression) = (ObjectId::new(), ObjectId::new());
    let old = doc! {
        "_id": id, "id": id, "kind": "kbuild", "name": "kbuild-gcc", "path": ["checkout", "kbuild-gcc"],
        "group": Bson::Null, "parent": ObjectId::new(), "state": "done", "result": "pass",
        "artifacts": {"log": "https://example.org"}, "created": DateTime::from_millis(1_705_063_773_996),
        "data": {"regression": regression, "when": DateTime::from_millis(0), "n": 5_i64, "deep": [{"x": regression}]},
        "legacy_field": {"kept": true},
    };
    let odd = doc! {"_id": ObjectId::new(), "processed_by_kcidb_bridge": "maybe", "data": 7, "path": "text"};
    servers.collection("node").insert_many([&old, &odd]).await.unwrap();
    let a = servers.open().await;

    let all = Query { filter: Filter::all(), sort: Vec::new(), limit: 10, offset: 0, bytes: usize::MAX };
    let found = a.store.find_nodes(&all).await.unwrap().nodes;
    let found: Vec<_> = found.into_iter().map(|node| node.into_wire().unwrap()).collect();
    assert_eq!(found.len(), 2, "an odd document does not spoil the page");
    let wire = found.iter().find(|node| node["id"] == id.to_hex()).unwrap();
    assert_eq!(wire["created"], "2024-01-12T12:49:33.996000");
    assert_eq!(wire["artifacts"]["log"], "https://example.org/");
    let hex = regression.to_hex();
    let data = json!({"regression": hex, "when": "1970-01-01T00:00:00", "n": 5, "deep": [{"x": hex}]});
    assert_eq!(wire["data"], data);
    assert_eq!(wire["revision"], 0);
    assert!(!wire.contains_key("legacy_field"));

    let mut changed = Node::from_wire(wire).unwrap();
    changed.revision = 1;
    let mut update = write(&changed);
    update.expect = Expect::Revision(0);
    let done =
        a.store.commit(kernelci_live::store::Commit { writes: vec![update.clone()], idempotency: None });
    assert_eq!(done.await.unwrap(), Committed::Done);
    let again =
        a.store.commit(kernelci_live::store::Commit { writes: vec![update], idempotency: None }).await;
    assert_eq!(again.unwrap(), Committed::Conflict(id, Some(1)));
    servers.settled().await;
    let document = servers.document(id).await;
    assert_eq!(document.get_document("legacy_field").unwrap(), &doc! {"kept": true});
    assert_eq!(document.get_object_id("id").unwrap(), id);
    assert_eq!(document.get_datetime("created").unwrap(), &DateTime::from_millis(1_705_063_773_996));
    assert!(matches!(document.get("parent"), Some(Bson::ObjectId(_))));
    servers.clean().await;
}

#[tokio::test]
async fn new_nodes_have_the_layout_of_the_present_server() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    let child = Node { parent: Some(ObjectId::new()), ..node("n") };
    assert_eq!(a.store.commit(commit([&child])).await.unwrap(), Committed::Done);
    servers.settled().await;
    let document = servers.document(child.id).await;
    let keys: Vec<&str> = document.keys().map(String::as_str).collect();
    let mut wanted = vec!["_id"];
    let wire = child.to_wire();
    wanted.extend(wire.keys().map(String::as_str).filter(|key| *key != "id"));
    assert_eq!(keys, wanted, "nothing of the outbox stays behind");
    assert!(matches!(document.get("parent"), Some(Bson::ObjectId(_))));
    for key in ["created", "updated", "timeout"] {
        assert!(matches!(document.get(key), Some(Bson::DateTime(_))), "{key}");
    }
    for key in ["group", "result", "jobfilter", "holdoff", "submitter"] {
        assert_eq!(document.get(key), Some(&Bson::Null), "{key}");
    }
    assert_eq!(a.store.nodes(&[child.id]).await.unwrap(), [wire]);
    servers.clean().await;
}

#[tokio::test]
async fn the_old_history_stays_and_is_continued() {
    let servers = Servers::new().await;
    let history = servers.collection("eventhistory");
    let now = DateTime::now().timestamp_millis();
    let old = |seq: i32| {
        let data = doc! {"op": "created", "id": ObjectId::new().to_hex()};
        let time = DateTime::from_millis(now - 60_000 + i64::from(seq));
        doc! {"timestamp": time, "sequence_id": seq, "channel": "node", "owner": "bob", "data": data}
    };
    // A global sequence: other channels' events are between.
    history.insert_many([3, 5, 9].map(old)).await.unwrap();
    // The defect of the present server: with this index it deletes the whole history at its start.
    let day = IndexOptions::builder().expire_after(std::time::Duration::from_secs(86_400)).build();
    history
        .create_index(IndexModel::builder().keys(doc! {"timestamp": 1}).options(day).build())
        .await
        .unwrap();

    let a = servers.open().await;
    assert_eq!(history.count_documents(doc! {}).await.unwrap(), 3, "nothing is deleted");
    assert_eq!(a.log.head("node").await.unwrap().seq, 9);
    assert_eq!(a.log.floor("node").await.unwrap(), 10);
    assert_eq!(published(&*a.log, event("node", json!(1))).await, 10);
    let query = |after| HistoryQuery {
        channel: Some("node".into()),
        filter: Filter::all(),
        after,
        skip: 0,
        limit: 10,
    };
    let seqs = |found: Vec<kernelci_live::event_log::Logged>| -> Vec<u64> {
        found.iter().map(|logged| logged.entry.seq).collect()
    };
    assert_eq!(seqs(a.log.find(&query(None)).await.unwrap()), [3, 5, 9, 10]);
    assert_eq!(seqs(a.log.find(&query(Some(After::Seq(5)))).await.unwrap()), [9, 10]);
    let read = a.log.read_after("node", 5, 10).await.unwrap();
    assert_eq!((read.gap, read.entries.len()), (Some((6, 9)), 1), "the old sequence is not this channel's");
    servers.clean().await;
}

#[tokio::test]
async fn indexes_of_others_do_not_matter_and_retention_may_change() {
    let servers = Servers::new().await;
    let named = |keys, name: &str, unique| {
        let options = IndexOptions::builder().name(name.to_owned()).unique(unique).build();
        IndexModel::builder().keys(keys).options(options).build()
    };
    let users = servers.collection("user");
    users.create_index(named(doc! {"username": 1}, "by_name", Some(true))).await.unwrap();
    servers.collection("node").create_index(named(doc! {"data.x": 1}, "admins_own", None)).await.unwrap();
    servers.open().await.store.close().await;
    let shorter = Options { event_retention_seconds: 100, ..servers.options.clone() };
    let (store, _log) = open(shorter).await.unwrap();
    let ttl = async || {
        let mut all = servers.collection("eventhistory").list_indexes().await.unwrap();
        while all.advance().await.unwrap() {
            let index = all.deserialize_current().unwrap();
            if index.keys == doc! {"timestamp": 1} {
                return index.options.unwrap().expire_after.unwrap().as_secs();
            }
        }
        0
    };
    assert_eq!(ttl().await, 100);
    let all = store.indexes().await.unwrap();
    let state = |name: &str| all.iter().find(|index| index.name == name).map(|index| index.state);
    assert_eq!(state("by_name"), Some(IndexState::Present));
    assert_eq!(state("username_1"), None);
    assert_eq!(state("admins_own"), Some(IndexState::LeftOver));
    assert!(all.iter().all(|index| index.state != IndexState::Missing), "{all:?}");
    servers.clean().await;
}

#[tokio::test]
async fn old_users_are_read() {
    let servers = Servers::new().await;
    let (id, group) = (ObjectId::new(), ObjectId::new());
    let user = doc! {
        "_id": id, "id": id, "revision_id": Bson::Null, "email": "Lab@Example.org", "hashed_password": "$2b$12$x",
        "is_active": true, "is_superuser": false, "is_verified": true, "username": "lab",
        "groups": [{"id": group, "name": "a"}, {"_id": group, "name": "b"}],
    };
    servers.collection("user").insert_one(user).await.unwrap();
    let a = servers.open().await;
    let user = a.store.user(UserKey::Name("lab")).await.unwrap().unwrap();
    assert_eq!(user.id, id);
    assert!(user.groups.iter().all(|member| member.id == Some(group.to_hex())) && user.groups.len() == 2);
    let same = kernelci_live::model::User {
        id: ObjectId::new(),
        username: "other".into(),
        email: "lab@example.ORG".into(),
        ..user
    };
    assert_eq!(a.store.insert_user(&same).await.unwrap(), Some(kernelci_live::store::users::Taken::Email));
    servers.clean().await;
}
