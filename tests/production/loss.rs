//! Redis that forgets or is away. (The server is shared: a test removes its own keys only.)

use std::time::{Duration, Instant};

use kernelci_live::event_log::EventLog;
use kernelci_live::event_log::redis::RelayMode;
use kernelci_live::model::Position;
use kernelci_live::store::mongo::{Options, open};
use kernelci_live::store::{Committed, Store};
use macro_rules_attribute::apply;
use serde_json::json;

use super::support::{Instance, Servers, commit, event, node, revisions};
use crate::support::{PATIENCE, eventually, in_pairs, published, soon, until_within};

async fn publish(instance: &Instance, count: usize) {
    for i in 0..count {
        published(&*instance.log, event("ch", json!(i))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbering_goes_on_when_redis_forgets() {
    let servers = Servers::new().await;
    let (a, b) = (servers.open().await, servers.open().await);
    publish(&a, 5).await;
    let before = b.log.head("ch").await.unwrap();
    assert_eq!(before.seq, 5);
    let mut tail = a.log.tail("ch", 5).await.unwrap();
    assert!(tail.next(10).await.unwrap().entries.is_empty());
    servers.forget("*").await;

    // Both notice at the same time and agree.
    let (one, other) = tokio::join!(a.log.head("ch"), b.log.publish(event("ch", json!("after"))));
    let (one, seq) = (one.unwrap(), other.unwrap().unwrap());
    assert_eq!((one.epoch, seq), (before.epoch.clone(), 6));
    let after = b.log.head("ch").await.unwrap();
    assert_eq!(after, a.log.head("ch").await.unwrap());
    assert_eq!((&after.epoch, after.seq), (&before.epoch, 6));

    let next = async {
        loop {
            match tail.next(10).await {
                Err(error) if error.status() == 503 => {}
                read => match read.unwrap() {
                    read if read.entries.is_empty() => {}
                    read => return read,
                },
            }
        }
    };
    let read = soon("what comes next", next).await;
    assert_eq!((&*read.epoch, read.gap), (before.epoch.as_str(), None), "readers notice nothing");
    assert_eq!(read.entries.last().unwrap().seq, seq);
    assert_eq!(a.events_after("ch", 0).await.len(), 6, "older events are read from the history");
    let c = servers.open().await;
    assert_eq!(c.log.head("ch").await.unwrap(), after, "known after a restart, too");
    servers.clean().await;
}

#[tokio::test]
async fn numbering_goes_on_behind_a_lost_stream_or_an_old_snapshot() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    publish(&a, 5).await;
    let epoch = a.log.head("ch").await.unwrap().epoch;
    servers.forget("{ch}:stream").await;
    assert_eq!(published(&*a.log, event("ch", json!(1))).await, 6);

    // Redis comes back with a state of three events ago, and an instance that knows nothing starts.
    let key = format!("{}{{ch}}:", servers.options.key_prefix);
    let mut redis = servers.redis.clone();
    publish(&a, 3).await;
    let set = ["HSET", &format!("{key}state"), "head", "6", "given", "6"];
    redis::cmd(set[0]).arg(&set[1..]).query_async::<()>(&mut redis).await.unwrap();
    for seq in 7..=9 {
        let mut xdel = redis::cmd("XDEL");
        xdel.arg(format!("{key}stream")).arg(format!("{seq}-0"));
        xdel.query_async::<()>(&mut redis).await.unwrap();
    }
    for stream in ["stream", "pending"] {
        let mut xsetid = redis::cmd("XSETID");
        xsetid.arg(format!("{key}{stream}")).arg("6-0").query_async::<()>(&mut redis).await.unwrap();
    }
    let b = servers.open().await;
    assert_eq!(published(&*b.log, event("ch", json!(2))).await, 10, "never a number twice");
    assert_eq!(b.log.head("ch").await.unwrap(), a.log.head("ch").await.unwrap());
    assert_eq!(b.log.head("ch").await.unwrap().epoch, epoch);
    assert_eq!(b.events_after("ch", 0).await.len(), 10);
    servers.clean().await;
}

#[tokio::test]
async fn a_reader_who_has_seen_more_makes_the_log_look_again() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    publish(&a, 5).await;
    let b = servers.open().await;
    b.log.head("ch").await.unwrap();
    publish(&a, 5).await;
    // As after the restore of a dump, for an instance that has not looked since.
    let key = format!("{}{{ch}}:", servers.options.key_prefix);
    let mut redis = servers.redis.clone();
    let set = ["HSET", &format!("{key}state"), "head", "6", "given", "6"];
    redis::cmd(set[0]).arg(&set[1..]).query_async::<()>(&mut redis).await.unwrap();
    let c = servers.open().await;
    assert_eq!(c.log.head_again("ch").await.unwrap().seq, 10);
    servers.clean().await;
}

#[tokio::test]
async fn a_new_epoch_begins_when_mongodb_has_lost_history() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    publish(&a, 5).await;
    let before = a.log.head("ch").await.unwrap();
    // MongoDB is restored from a backup, and Redis forgets as well.
    let late = bson::doc! {"sequence_id": {"$gt": 3}};
    servers.collection("eventhistory").delete_many(late).await.unwrap();
    let back = bson::doc! {"$set": {"head": 3_i64}};
    servers.collection("channel").update_one(bson::doc! {"_id": "ch"}, back).await.unwrap();
    servers.forget("*").await;
    let after = a.log.head("ch").await.unwrap();
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(published(&*a.log, event("ch", json!(1))).await, 6, "above what was ever shown");
    servers.clean().await;
}

#[tokio::test]
async fn what_redis_lost_before_the_history_had_it_follows() {
    let servers = Servers::new().await;
    let dead = servers.open_with(RelayMode::AppendOnly).await;
    let left = node("left");
    dead.store.commit(commit([&left])).await.unwrap();
    servers.given("node", 1).await;
    dead.store.close().await;
    servers.forget("*").await;
    let b = servers.open().await;
    servers.settled().await;
    assert_eq!(revisions(&b.events_after("node", 0).await, left.id), [1]);
    servers.clean().await;
}

#[tokio::test]
async fn old_positions_are_read_from_the_history() {
    let servers = Servers::new().await;
    let a = servers.open().await;
    publish(&a, 30).await;
    let mut redis = servers.redis.clone();
    let stream = format!("{}{{ch}}:stream", servers.options.key_prefix);
    let trim = ["XTRIM", &stream, "MINID", "21-0"];
    redis::cmd(trim[0]).arg(&trim[1..]).query_async::<()>(&mut redis).await.unwrap();
    assert_eq!(a.events_after("ch", 0).await.len(), 30);
    let read = a.log.read_after("ch", 15, 8).await.unwrap();
    assert_eq!(read.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (16..=23).collect::<Vec<_>>());
    let in_history = a.log.read_after("ch", 3, 1).await.unwrap().entries.pop().unwrap();
    assert_eq!(in_history.value()["data"], 3);
    let missing = bson::doc! {"sequence_id": {"$in": [4, 5, 6]}};
    servers.collection("eventhistory").delete_many(missing).await.unwrap();
    let read = a.log.read_after("ch", 2, 100).await.unwrap();
    assert_eq!((read.gap, read.entries.len()), (None, 1), "up to the hole");
    let read = a.log.read_after("ch", 3, 100).await.unwrap();
    assert_eq!((read.gap, read.entries.len()), (Some((4, 6)), 24));
    servers.clean().await;
}

/// As when Redis evicts keys, which it must not.
#[tokio::test]
async fn any_part_of_a_channel_may_be_lost() {
    let servers = Servers::new().await;
    let (a, b) = (servers.open().await, servers.open().await);
    let epoch = a.log.head("ch").await.unwrap().epoch;
    let mut number = 0;
    for part in ["state", "stream", "pending", "seen:*"] {
        publish(&a, 3).await;
        servers.forget(&format!("{{ch}}:{part}")).await;
        number += 4;
        assert_eq!(published(&*b.log, event("ch", json!(1))).await, number, "{part}");
        assert_eq!(a.log.head("ch").await.unwrap(), Position { epoch: epoch.clone(), seq: number }, "{part}");
    }
    assert_eq!(a.events_after("ch", 0).await.len() as u64, number);
    servers.clean().await;
}

#[apply(in_pairs!)]
#[tokio::test]
async fn writes_are_accepted_while_redis_is_away() {
    let servers = Servers::new().await;
    // Nobody listens there: the listener is closed at the end of the statement.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = Options { redis_url: format!("redis://127.0.0.1:{port}"), ..servers.options.clone() };
    let (store, log) = open(away).await.unwrap();
    let written = node("n");
    assert_eq!(store.commit(commit([&written])).await.unwrap(), Committed::Done);
    // The best of several: nothing but the time tells a write that waits for Redis from one that does not.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(store.commit(commit([&node("m")])).await.unwrap(), Committed::Done);
        best = best.min(begun.elapsed());
    }
    assert!(best < Duration::from_secs(2), "it does not wait for Redis: {best:?}");
    let error = log.head("node").await.unwrap_err();
    assert_eq!((error.status(), error.detail().to_string().contains("log")), (503, true));
    assert_eq!(log.ping().await.unwrap_err().status(), 503);
    assert_eq!(log.publish(event("ch", json!(1))).await.unwrap(), None);
    let mut tail = log.tail("node", 0).await.unwrap();
    assert_eq!(tail.next(1).await.err().map(|error| error.status()), Some(503));
    store.close().await;

    let b = servers.open().await;
    servers.settled().await;
    assert_eq!(revisions(&b.events_after("node", 0).await, written.id), [1]);
    assert_eq!(b.log.head("ch").await.unwrap().seq, 1);
    servers.clean().await;
}

/// A Redis of this test's own, which writes down everything.
struct Redis {
    process: std::process::Child,
    port: u16,
}

impl Redis {
    fn start(port: u16, files: &std::path::Path) -> Redis {
        let mut command = std::process::Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--save", ""]).arg("--dir").arg(files);
        let process = command.stdout(std::process::Stdio::null()).spawn().expect("redis-server starts");
        Redis { process, port }
    }
    async fn answers(&self) {
        let up = async || tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok();
        eventually("redis-server", up).await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[apply(in_pairs!)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_redis_that_lost_nothing_is_only_a_delay() {
    let servers = Servers::new().await;
    let files = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let redis = Redis::start(port, files.path());
    redis.answers().await;
    let own = Options { redis_url: format!("redis://127.0.0.1:{port}"), ..servers.options.clone() };
    let (store, log) = open(own).await.unwrap();
    let mut written = node("n");
    store.commit(commit([&written])).await.unwrap();
    servers.settled().await;
    let before = log.head("node").await.unwrap();
    let mut tail = log.tail("node", 0).await.unwrap();
    assert_eq!(tail.next(10).await.unwrap().entries.len(), 1);

    drop(redis);
    for revision in 2..=20 {
        written.revision = revision;
        assert_eq!(store.commit(commit([&written])).await.unwrap(), Committed::Done);
    }
    assert_eq!(tail.next(10).await.err().map(|error| error.status()), Some(503));
    assert_eq!(log.ping().await.unwrap_err().status(), 503);
    let redis = Redis::start(port, files.path());
    redis.answers().await;
    let begun = Instant::now();
    let mut seen = Vec::new();
    until_within(2 * PATIENCE, "the events that were written meanwhile", async || {
        if let Ok(read) = tail.next(100).await {
            assert_eq!((&*read.epoch, read.gap), (before.epoch.as_str(), None));
            seen.extend(read.entries);
        }
        if seen.len() < 19 { Err(seen.len()) } else { Ok(()) }
    })
    .await;
    println!("caught up {:?} after the restart", begun.elapsed());
    assert_eq!(revisions(&seen, written.id), (2..=20).collect::<Vec<_>>());
    servers.settled().await;
    assert_eq!(log.head("node").await.unwrap().seq, 20);
    store.close().await;
    servers.clean().await;
}

#[tokio::test]
async fn whoever_remembers_a_channel_that_has_ended_goes_on_behind_it() {
    let servers = Servers::new().await;
    let often = Options { prune_every: Duration::from_millis(50), ..servers.options.clone() };
    let a = servers.open().await;
    publish(&a, 3).await;
    let before = a.log.head("ch").await.unwrap();
    // Its events expire, and all of it was long ago.
    servers.collection("eventhistory").delete_many(bson::doc! {}).await.unwrap();
    servers.forget("{ch}:stream").await;
    assert_eq!(a.log.head_again("ch").await.unwrap().seq, 3);
    let (_store, b) = open(often).await.unwrap();
    let channels = servers.collection("channel");
    let named = bson::doc! {"_id": "ch"};
    let old = bson::DateTime::from_millis(0);
    until_within(2 * PATIENCE, "its end", async || {
        let age = bson::doc! {"$set": {"since": old, "used": old}};
        channels.update_one(named.clone(), age).await.unwrap();
        match channels.count_documents(named.clone()).await.unwrap() {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    assert_eq!(b.head("ch").await.unwrap(), before);
    // The first one remembers the generation that has ended.
    assert_eq!(published(&*a.log, event("ch", json!("again"))).await, 4);
    assert_eq!(published(&*b, event("ch", json!("too"))).await, 5);
    let head = b.head("ch").await.unwrap();
    assert_eq!((&head.epoch, head.seq), (&before.epoch, 5));
    assert_eq!(a.events_after("ch", 3).await.len(), 2);
    let document = channels.find_one(named).await.unwrap().unwrap();
    assert!(document.get_i64("generation").unwrap() > 2, "a generation is not used again: {document}");
    servers.clean().await;
}
