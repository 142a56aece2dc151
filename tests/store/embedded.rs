//! What only the embedded back end promises: a directory that is its own, and survives.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kernelci_live::error::{Kind, Result};
use kernelci_live::event_log::EventLog;
use kernelci_live::event_log::sqlite::SqliteLog;
use kernelci_live::kv::{Kv, NewValue};
use kernelci_live::model::event::NODE_CHANNEL;
use kernelci_live::model::{ObjectId, Timestamp};
use kernelci_live::quota::{Kept, Share};
use kernelci_live::store::consumer_groups::{ConsumerGroups, OpenedGroup};
use kernelci_live::store::consumers::{Cursor, NewConsumer, Owner};
use kernelci_live::store::queues::{NewItem, Pushed, Queues};
use kernelci_live::store::sqlite::{self, SqliteStore};
use kernelci_live::store::{Commit, Committed, Expect, IdempotencyKey, IndexState, Store};
use serde_json::json;

use super::support::{commit, event, ids, next, node, options, write};
use crate::support::{eventually, until};

async fn open(dir: &Path) -> Result<(Arc<SqliteStore>, Arc<SqliteLog>)> {
    sqlite::open(dir, options()).await
}

/// Opens a directory whose last user is just letting it go.
async fn reopen(dir: &Path) -> (Arc<SqliteStore>, Arc<SqliteLog>) {
    until("the directory is free", async || open(dir).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_without_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = open(dir.path()).await.unwrap();
    let key = IdempotencyKey {
        user: ObjectId::new(),
        method: "node.create",
        key: "k".to_owned(),
        fingerprint: String::new(),
    };
    let first = node("first");
    let keyed = Commit { writes: vec![write(&first, Expect::Absent)], idempotency: Some(key) };
    store.commit(keyed.clone()).await.unwrap();
    let published = event("ch", json!("x"));
    log.publish(published.clone()).await.unwrap();
    let head = log.head(NODE_CHANNEL).await.unwrap();
    drop((store, log));

    let (store, log) = reopen(dir.path()).await;
    assert_eq!(log.head(NODE_CHANNEL).await.unwrap(), head, "the same epoch too");
    assert_eq!(store.nodes(&[first.id]).await.unwrap(), [first.to_wire()]);
    assert_eq!(store.commit(keyed).await.unwrap(), Committed::Repeated(vec![first.id]));
    assert_eq!(log.publish(published).await.unwrap(), Some(1));
    let (second, expect) = next(&first);
    store.commit(commit(vec![write(&second, expect)])).await.unwrap();
    assert_eq!(log.head(NODE_CHANNEL).await.unwrap().seq, 2, "numbers go on");
}

/// While no process ran somebody has set the clock back: what waits is not late by that.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_goes_on_where_it_was_when_the_clock_was_set_back() {
    for (hours, goes_on) in [(3, true), (72, false)] {
        let dir = tempfile::tempdir().unwrap();
        let ahead = options();
        let later = Timestamp::now().plus_seconds(hours * 3600);
        ahead.wall.set(later.into());
        let (store, log) = sqlite::open(dir.path(), ahead).await.unwrap();
        let new = NewConsumer {
            name: Some("g".to_owned()),
            channel: "ch".to_owned(),
            owner: Owner { id: Some(ObjectId::new()), name: "ann".to_owned() },
            promiscuous: true,
            cursor: Cursor::at("e", 0),
            share: None,
            session: None,
        };
        let OpenedGroup::Open(group) = store.open_consumer_group(&new, "{}").await.unwrap() else { panic!() };
        let id = group.consumer.id.unwrap();
        assert!(store.move_consumer_group(id, 0, &Cursor::at("e", 0), "{}").await.unwrap());
        store.close().await;
        drop((store, log));
        let (store, _log) = reopen(dir.path()).await;
        let now = store.consumer_group(id).await.unwrap().unwrap().now;
        assert_eq!(now >= later, goes_on, "{hours} hours");
        assert_eq!(
            now <= Timestamp::now().plus_seconds(60),
            !goes_on,
            "a clock that was wrong does not count"
        );
    }
}

/// What files of an older program have has no owner, and counts for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_owners_opens_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = open(dir.path()).await.unwrap();
    let item = |share| NewItem {
        list: "q".to_owned(),
        json: "1".to_owned(),
        key: Some("k".to_owned()),
        fingerprint: String::new(),
        share,
    };
    store.push_item(&item(None)).await.unwrap();
    let value = NewValue { namespace: "n", key: "k", value: "v" };
    store.kv().set(&value, None).await.unwrap().unwrap();
    drop((store, log));
    let (store, log) = reopen(dir.path()).await;
    drop((store, log));
    let file = until("the file is free", async || {
        let file = rusqlite::Connection::open(dir.path().join("kernelci.db")).map_err(|e| e.to_string())?;
        let old = "DROP TABLE queue_share; DROP TABLE kv_share; DROP TRIGGER queue_share_grows; DROP TRIGGER queue_share_goes;
             DROP TRIGGER queue_share_shrinks; DROP TRIGGER kv_share_grows; DROP TRIGGER kv_share_shrinks;
             DROP TRIGGER kv_share_changes; DROP INDEX queue_item_by_owner; DROP INDEX kv_by_owner;
             ALTER TABLE queue_item DROP COLUMN owner; ALTER TABLE kv DROP COLUMN owner;";
        file.execute_batch(&format!("BEGIN; {old} COMMIT;")).map(|()| file).map_err(|e| e.to_string())
    })
    .await;
    drop(file);
    let (store, _log) = reopen(dir.path()).await;
    let user = ObjectId::new();
    let most = Kept { queues: 1, queued_bytes: 9, keys: 1, key_bytes: 9, ..Kept::default() };
    let share = Share { user, most };
    let (kv, queue) = (store.kv(), async || store.count_queues(user).await.unwrap());
    assert_eq!((queue().await, kv.count(user).await.unwrap()), ((0, 0), (0, 0)));
    assert_eq!(kv.get("n", "k").await.unwrap().as_deref(), Some("v"));
    // The key of the push is still known.
    assert_eq!(store.push_item(&item(Some(share))).await.unwrap(), Pushed::Done);
    assert_eq!(queue().await, (0, 0));
    let another = NewItem { key: None, ..item(Some(share)) };
    assert_eq!(store.push_item(&another).await.unwrap(), Pushed::Done);
    kv.set(&value, Some(&share)).await.unwrap().unwrap();
    assert_eq!((queue().await, kv.count(user).await.unwrap()), ((1, 1), (1, 3)));
    kv.set(&NewValue { key: "other", ..value }, Some(&share)).await.unwrap().unwrap_err();
    kv.remove("n", "k").await.unwrap();
    assert_eq!(kv.count(user).await.unwrap(), (0, 0));
}

/// A copy of the files while they are open is what a killed process leaves.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_leaves_is_complete() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _log) = open(dir.path()).await.unwrap();
    let nodes: Vec<_> = (0..100).map(|i| node(&format!("n{i}"))).collect();
    for node in &nodes {
        store.commit(commit(vec![write(node, Expect::Absent)])).await.unwrap();
    }
    for file in ["kernelci.db", "kernelci.db-wal"] {
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let (store, log) = open(copy.path()).await.unwrap();
    let all: Vec<ObjectId> = nodes.iter().map(|node| node.id).collect();
    assert_eq!(ids(&store.nodes(&all).await.unwrap()), all);
    assert_eq!(log.read_after(NODE_CHANNEL, 0, 200).await.unwrap().entries.len(), 100);
}

/// What a power failure leaves when commits are not synced: an earlier state of the files, and another boot.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_failure_numbers_that_may_have_been_seen_count_in_another_epoch() {
    use kernelci_live::ops::subscriptions::{From, start};
    for (synchronous, machine_stops, keeps_epoch) in [
        (sqlite::Synchronous::Normal, true, false),
        (sqlite::Synchronous::Normal, false, true),
        (sqlite::Synchronous::Full, true, true),
    ] {
        let case = format!("{synchronous:?}, machine stops: {machine_stops}");
        let options = sqlite::Options { synchronous, ..options() };
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_store, log) = sqlite::open(dir.path(), options.clone()).await.unwrap();
        for n in 0..5 {
            log.publish(event("ch", json!(n))).await.unwrap();
        }
        for file in ["kernelci.db", "kernelci.db-wal"] {
            std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
        }
        for n in 5..9 {
            log.publish(event("ch", json!(n))).await.unwrap();
        }
        let seen = log.head("ch").await.unwrap();
        if machine_stops {
            let file = rusqlite::Connection::open(copy.path().join("kernelci.db")).unwrap();
            let another = "UPDATE meta SET value = substr(value, 1, instr(value, ' ')) || 'another boot' WHERE key = 'in_use'";
            assert_eq!(file.execute(another, []).unwrap(), 1, "{case}");
        }

        let (store, log) = sqlite::open(copy.path(), options.clone()).await.unwrap();
        assert_eq!(log.publish(event("ch", json!("other"))).await.unwrap(), Some(6), "{case}");
        let head = log.head("ch").await.unwrap();
        assert_eq!(head.epoch == seen.epoch, keeps_epoch, "{case}");
        let resumed = start(&*log, "ch", &From::Position(seen)).await.unwrap();
        assert!(resumed.missed.is_some(), "{case}: the reader is told that it saw what is not there");
        store.close().await;
        drop((store, log));
        // After an orderly end there is nothing to fear.
        let (_store, log) = sqlite::open(copy.path(), options).await.unwrap();
        assert_eq!(log.head("ch").await.unwrap(), head, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn close_finishes_what_was_accepted_and_frees_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = open(dir.path()).await.unwrap();
    let nodes: Vec<_> = (0..200).map(|i| node(&format!("n{i}"))).collect();
    let writers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (store, commit) = (store.clone(), commit(vec![write(node, Expect::Absent)]));
            tokio::spawn(async move { store.commit(commit).await.is_ok() })
        })
        .collect();
    eventually("something is written", async || writers.iter().any(|writer| writer.is_finished())).await;
    log.close().await;
    store.close().await;
    let mut acknowledged = Vec::new();
    for (writer, node) in writers.into_iter().zip(&nodes) {
        if writer.await.unwrap() {
            acknowledged.push(node.id);
        }
    }
    let error = store.nodes(&acknowledged).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(log.publish(event("ch", json!(1))).await.unwrap_err().kind(), Kind::Unavailable);
    store.close().await;

    let (store, log) = open(dir.path()).await.unwrap();
    assert_eq!(ids(&store.nodes(&acknowledged).await.unwrap()), acknowledged);
    assert_eq!(log.head(NODE_CHANNEL).await.unwrap().seq, acknowledged.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opener_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _log) = open(dir.path()).await.unwrap();
    let error = open(dir.path()).await.err().unwrap();
    assert!(error.detail().as_str().unwrap().contains("in use by another"), "{error}");
    store.ping().await.unwrap();
}

/// Password hashes are in there, and somebody else may have made the directory.
#[tokio::test(flavor = "multi_thread")]
async fn its_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (store, _log) = open(dir.path()).await.unwrap();
    store.commit(commit(vec![write(&node("first"), Expect::Absent)])).await.unwrap();
    let mut seen = 0;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_string_lossy().starts_with("kernelci.db") {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
            seen += 1;
        }
    }
    assert!(seen >= 2, "the database and its write-ahead log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.unwrap().0.close().await;
    let file = rusqlite::Connection::open(dir.path().join("kernelci.db")).unwrap();
    file.pragma_update(None, "user_version", 1_000).unwrap();
    let error = open(dir.path()).await.err().unwrap();
    assert!(error.detail().as_str().unwrap().contains("version 1000"), "{error}");
    let version: i64 = file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_repaired_and_strangers_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.unwrap().0.close().await;
    let file = rusqlite::Connection::open(dir.path().join("kernelci.db")).unwrap();
    file.execute_batch("DROP INDEX node_by_parent; DROP INDEX node_by_treeid;").unwrap();
    file.execute_batch(
        "CREATE INDEX node_by_treeid ON node (revision); CREATE INDEX mine ON node (revision)",
    )
    .unwrap();
    drop(file);
    let (store, _log) = open(dir.path()).await.unwrap();
    let all = store.indexes().await.unwrap();
    let state = |name: &str| all.iter().find(|index| index.name == name).map(|index| index.state);
    assert_eq!(state("node_by_parent"), Some(IndexState::Present));
    assert_eq!(state("mine"), Some(IndexState::LeftOver));
    let file = rusqlite::Connection::open(dir.path().join("kernelci.db")).unwrap();
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'node_by_treeid'";
    let definition: String = file.query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(definition.contains("treeid\""), "made anew: {definition}");
    file.execute_batch("DROP INDEX node_by_parent").unwrap();
    let all = store.indexes().await.unwrap();
    let missing = all.iter().find(|index| index.state == IndexState::Missing).unwrap();
    assert_eq!((missing.on.as_str(), missing.keys.as_str()), ("node", "parent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys_are_forgotten_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    // Too seldom to prune here: an old key does not count even while it is there.
    let seldom = sqlite::Options { prune_every: Duration::from_secs(3600), ..options() };
    let (store, _log) = sqlite::open(dir.path(), seldom).await.unwrap();
    let file = rusqlite::Connection::open(dir.path().join("kernelci.db")).unwrap();
    let age = |hours: i64| {
        file.execute("UPDATE idempotency SET at = at - ?", [hours * 3_600_000]).unwrap();
    };
    let user = ObjectId::new();
    let create = |key: &str| {
        let key =
            IdempotencyKey { user, method: "node.create", key: key.to_owned(), fingerprint: String::new() };
        store.commit(Commit { writes: vec![write(&node("n"), Expect::Absent)], idempotency: Some(key) })
    };
    assert_eq!(create("k").await.unwrap(), Committed::Done);
    age(23);
    assert!(matches!(create("k").await.unwrap(), Committed::Repeated(_)));
    age(2);
    assert_eq!(create("k").await.unwrap(), Committed::Done);
    age(25);
    store.close().await;
    let (store, _log) = open(dir.path()).await.unwrap();
    let left = || file.query_row("SELECT count(*) FROM idempotency", [], |row| row.get::<_, i64>(0)).unwrap();
    eventually("the old keys are pruned", async || left() == 0).await;
    store.ping().await.unwrap();
}
