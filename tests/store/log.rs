//! The log: dense, ordered, exactly once, and no silent hole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernelci_live::event_log::{HistoryQuery, READ_BYTES};
use kernelci_live::filter::Filter;
use kernelci_live::model::event::{Entry, NODE_CHANNEL};
use kernelci_live::model::{EventTime, ObjectId, Timestamp};
use kernelci_live::store::{Committed, Expect};
use macro_rules_attribute::apply;
use serde_json::json;
use tokio::task::JoinHandle;

use super::support::{Fixture, RETENTION, event, follow, next, node};
use crate::support::{PATIENCE, both_backends, both_backends_in_pairs, published, until_within};

#[apply(both_backends!)]
async fn an_unknown_channel_is_empty(f: Fixture) {
    let head = f.log.head("nobody").await.unwrap();
    assert_eq!(head.seq, 0);
    assert!(!head.epoch.is_empty());
    assert_eq!(f.log.floor("nobody").await.unwrap(), 1);
    assert_eq!(f.log.seq_before("nobody", EventTime::now()).await.unwrap(), 0);
    let read = f.log.read_after("nobody", 0, 10).await.unwrap();
    assert!(read.entries.is_empty() && read.gap.is_none());
    assert_eq!(*read.epoch, head.epoch);
}

const WRITERS: usize = 16;
const UPDATES: usize = 10;
/// Each writer creates a node and updates it.
const EVENTS: usize = WRITERS * (UPDATES + 1);

fn writers(f: &Arc<Fixture>) -> Vec<JoinHandle<()>> {
    let writer = |f: Arc<Fixture>| async move {
        let mut node = node("busy");
        f.write(&node, Expect::Absent).await;
        for _ in 0..UPDATES {
            let (updated, expect) = next(&node);
            assert_eq!(f.try_write(&updated, expect).await, Committed::Done);
            node = updated;
        }
    };
    (0..WRITERS).map(|_| tokio::spawn(writer(f.clone()))).collect()
}

/// Every event once, those of one node in the order of its revisions.
fn complete(events: &[Arc<Entry>]) {
    assert_eq!(events.len(), EVENTS);
    let ids: HashSet<&str> = events.iter().map(|entry| entry.value()["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), EVENTS, "every event once");
    let mut revisions: HashMap<ObjectId, u64> = HashMap::new();
    for entry in events {
        let revision = revisions.entry(entry.subject().unwrap()).or_default();
        *revision += 1;
        assert_eq!(entry.value()["data"]["revision"], *revision, "in the order of revisions");
        assert_eq!(entry.value()["sequence"], format!("{:020}", entry.seq));
    }
    assert_eq!(revisions.len(), WRITERS);
}

#[apply(both_backends!)]
async fn sequences_are_dense_under_concurrent_writers(f: Fixture) {
    let f = Arc::new(f);
    for writer in writers(&f) {
        writer.await.unwrap();
    }
    f.settled(NODE_CHANNEL, EVENTS as u64).await;
    complete(&f.events_from(NODE_CHANNEL, 1).await);
    assert_eq!(f.log.head(NODE_CHANNEL).await.unwrap().seq, EVENTS as u64);
    assert_eq!(f.log.floor(NODE_CHANNEL).await.unwrap(), 1);
}

#[apply(both_backends!)]
async fn events_of_a_node_stand_in_the_order_of_its_revisions(f: Fixture) {
    let mut seen = node("n");
    f.write(&seen, Expect::Absent).await;
    for _ in 0..50 {
        let (updated, expect) = next(&seen);
        f.write(&updated, expect).await;
        seen = updated;
    }
    f.settled(NODE_CHANNEL, 51).await;
    let events = f.events_from(NODE_CHANNEL, 1).await;
    let revisions: Vec<u64> =
        events.iter().map(|entry| entry.value()["data"]["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, (1..=51).collect::<Vec<_>>());
}

#[apply(both_backends!)]
async fn a_tail_sees_everything_exactly_once(f: Fixture) {
    let f = Arc::new(f);
    // Before the channel exists.
    let mut tail = f.log.tail(NODE_CHANNEL, 0).await.unwrap();
    let writers = writers(&f);
    complete(&follow(&mut *tail, 0, EVENTS).await);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(tail.next(10).await.unwrap().entries.is_empty(), "nothing twice");
}

#[apply(both_backends!)]
async fn a_tail_that_is_dropped_while_waiting_loses_nothing(f: Fixture) {
    let f = Arc::new(f);
    let mut tail = f.log.tail(NODE_CHANNEL, 0).await.unwrap();
    let writers = writers(&f);
    let (mut events, mut wait) = (Vec::new(), 0);
    until_within(2 * PATIENCE, "all events", async || {
        wait = (wait + 1) % 50;
        let next = tokio::time::timeout(Duration::from_micros(wait * 100), tail.next(5));
        match next.await {
            Ok(Err(error)) if error.status() == 503 => {}
            Ok(read) => events.extend(read.unwrap().entries),
            Err(_) => {}
        }
        if events.len() < EVENTS { Err(events.len()) } else { Ok(()) }
    })
    .await;
    complete(&events);
    for writer in writers {
        writer.await.unwrap();
    }
}

#[apply(both_backends_in_pairs!)]
async fn a_tail_waits_and_is_woken(f: Fixture) {
    published(&*f.log, event("ch", json!(1))).await;
    f.settled("ch", 1).await;
    let mut tail = f.log.tail("ch", 1).await.unwrap();
    let begun = Instant::now();
    assert!(tail.next(10).await.unwrap().entries.is_empty());
    assert!(begun.elapsed() > Duration::from_millis(300), "it waits");
    // The best of several: nothing but the time tells one that is woken from one that looks now and then.
    let mut best = Duration::MAX;
    for seq in 1..=5 {
        let mut waiting = Box::pin(follow(&mut *tail, seq, 1));
        assert!(futures::poll!(&mut waiting).is_pending());
        let begun = Instant::now();
        let (entries, number) = tokio::join!(waiting, published(&*f.log, event("ch", json!(seq))));
        assert_eq!((number, &entries[0].value()["data"]), (seq + 1, &json!(seq)));
        best = best.min(begun.elapsed());
    }
    assert!(best < Duration::from_millis(300), "woken, not polled: {best:?}");
}

#[apply(both_backends!)]
async fn many_tails_follow_one_channel(f: Fixture) {
    let tails = (0..20).map(|_| {
        let log = f.log.clone();
        tokio::spawn(async move {
            let mut tail = log.tail("ch", 0).await.unwrap();
            follow(&mut *tail, 0, 30).await.len()
        })
    });
    let tails: Vec<_> = tails.collect();
    for i in 0..30 {
        published(&*f.log, event("ch", json!(i))).await;
    }
    for tail in tails {
        assert_eq!(tail.await.unwrap(), 30);
    }
}

#[apply(both_backends!)]
async fn a_repeated_event_keeps_its_place(f: Fixture) {
    let (first, second) = (event("ch", json!(1)), event("ch", json!(2)));
    let place = published(&*f.log, first.clone()).await;
    let other = published(&*f.log, second).await;
    assert_eq!(published(&*f.log, first.clone()).await, place);
    let again = (0..8).map(|_| {
        let (log, event) = (f.log.clone(), first.clone());
        tokio::spawn(async move { published(&*log, event).await })
    });
    for again in again.collect::<Vec<_>>() {
        assert_eq!(again.await.unwrap(), place);
    }
    assert_eq!((place, other), (1, 2));
    assert_eq!(f.events_from("ch", 1).await.len(), 2);
}

#[apply(both_backends!)]
async fn channels_count_apart(f: Fixture) {
    for i in 1..=3 {
        assert_eq!(published(&*f.log, event("a", json!(i))).await, i);
        assert_eq!(published(&*f.log, event("b", json!(i))).await, i);
    }
    let events = f.events_from("b", 1).await;
    assert_eq!(events.len(), 3);
    let (a, b) = (f.log.head("a").await.unwrap(), f.log.head("b").await.unwrap());
    assert_eq!((a.seq, b.seq), (3, 3));
    assert!(!a.epoch.is_empty() && !b.epoch.is_empty());
}

#[apply(both_backends!)]
async fn reads_are_limited_and_consecutive(f: Fixture) {
    for i in 1..=10 {
        published(&*f.log, event("ch", json!(i))).await;
    }
    f.settled("ch", 10).await;
    let seqs = async |seq, limit| {
        let read = f.log.read_after("ch", seq, limit).await.unwrap();
        assert_eq!(read.gap, None);
        read.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 3).await, [1, 2, 3]);
    assert_eq!(seqs(7, 100).await, [8, 9, 10]);
    assert!(seqs(10, 3).await.is_empty());
    assert!(seqs(0, 0).await.is_empty());
}

/// However many are asked for, and wherever they are read from: so a reader holds no more of large ones than of small ones.
#[apply(both_backends!)]
async fn a_read_ends_when_its_events_are_many_bytes(f: Fixture) {
    let large = "x".repeat(2 * READ_BYTES / 5);
    for i in 1..=8 {
        published(&*f.log, event("ch", json!([i, large]))).await;
    }
    f.settled("ch", 8).await;
    let mut tail = f.log.tail("ch", 0).await.unwrap();
    let mut across = 0;
    for first in [1, 4] {
        for read in [
            f.log.read_after("ch", first - 1, 100).await.unwrap(),
            f.log.read_across("ch", across, 100).await.unwrap(),
            tail.next(100).await.unwrap(),
        ] {
            let seqs: Vec<u64> = read.entries.iter().map(|entry| entry.seq).collect();
            assert_eq!((read.gap, seqs), (None, (first..first + 3).collect()));
        }
        across = first + 2;
    }
    let read = f.log.read_after("ch", 6, 100).await.unwrap();
    assert_eq!(read.entries.len(), 2);
}

#[apply(both_backends!)]
async fn a_time_is_a_place(f: Fixture) {
    let begun = Timestamp::now().plus_seconds(-100);
    for second in [0, 10, 10, 20, 40] {
        f.publish_at(begun.plus_seconds(second), event("ch", json!(second))).await;
    }
    f.settled("ch", 5).await;
    for (second, before) in [(-5, 0), (0, 0), (1, 1), (10, 1), (12, 3), (20, 3), (39, 4), (40, 4), (60, 5)] {
        let found = f.log.seq_before("ch", begun.plus_seconds(second).into()).await.unwrap();
        assert_eq!(found, before, "{second} s");
    }
    for entry in f.events_from("ch", 1).await {
        let time = EventTime::parse_iso(entry.value()["time"].as_str().unwrap()).unwrap();
        assert_eq!(f.log.seq_before("ch", time).await.unwrap(), entry.seq - 1, "itself included");
        let later = EventTime::from_micros(time.micros() + 1);
        assert_eq!(f.log.seq_before("ch", later).await.unwrap(), entry.seq, "to the microsecond");
    }
}

#[apply(both_backends!)]
async fn times_follow_the_order_of_places_whatever_the_clock_does(f: Fixture) {
    let now = Timestamp::now();
    for (n, seconds) in [0, -3 * 3600, -1, 0, -3600].into_iter().enumerate() {
        f.publish_at(now.plus_seconds(seconds), event(["a", "b"][n % 2], json!({"n": n}))).await;
    }
    f.settled("a", 3).await;
    let query = HistoryQuery { channel: None, filter: Filter::all(), after: None, skip: 0, limit: 10 };
    let found = f.log.find(&query).await.unwrap();
    let numbers: Vec<_> = found.iter().map(|one| one.entry.value()["data"]["n"].clone()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    let times: Vec<_> = found.iter().map(|one| one.entry.value()["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|one, two| one < two), "{times:?}");
    let last = EventTime::parse_iso(times[4]).unwrap();
    assert!(last.to_millis() <= Timestamp::now(), "none is ahead of the clock");
}

fn long_ago() -> Timestamp {
    Timestamp::now().plus_seconds(-2 * RETENTION.as_secs() as i64)
}

#[apply(both_backends!)]
async fn what_retention_took_is_reported(f: Fixture) {
    for _ in 0..20 {
        f.publish_at(long_ago(), event("ch", json!(0))).await;
    }
    for i in 0..5 {
        published(&*f.log, event("ch", json!(i))).await;
    }
    f.retained_from("ch", 21).await;
    assert_eq!(f.log.head("ch").await.unwrap().seq, 25);
    let read = f.log.read_after("ch", 0, 100).await.unwrap();
    assert_eq!(read.gap, Some((1, 20)));
    assert_eq!(read.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [21, 22, 23, 24, 25]);
    let read = f.log.read_after("ch", 20, 2).await.unwrap();
    assert_eq!((read.gap, read.entries.len()), (None, 2));
    let mut tail = f.log.tail("ch", 3).await.unwrap();
    let read = tail.next(2).await.unwrap();
    assert_eq!((read.gap, read.entries.len()), (Some((4, 20)), 2), "with the limit");
    let read = tail.next(100).await.unwrap();
    assert_eq!((read.gap, read.entries.len()), (None, 3), "told once");
}

#[apply(both_backends!)]
async fn a_channel_that_retention_emptied_goes_on(f: Fixture) {
    for _ in 0..3 {
        f.publish_at(long_ago(), event("ch", json!(0))).await;
    }
    f.retained_from("ch", 4).await;
    assert_eq!(f.log.head("ch").await.unwrap().seq, 3);
    let read = f.log.read_after("ch", 0, 10).await.unwrap();
    assert_eq!(read.gap, Some((1, 3)));
    assert!(read.entries.is_empty());
    let mut tail = f.log.tail("ch", 0).await.unwrap();
    assert_eq!(tail.next(10).await.unwrap().gap, Some((1, 3)));
    assert_eq!(published(&*f.log, event("ch", json!(4))).await, 4);
    assert_eq!(follow(&mut *tail, 3, 1).await.len(), 1);
}

#[apply(both_backends!)]
async fn a_look_at_a_channel_leaves_nothing_behind(f: Fixture) {
    published(&*f.log, event("there", json!(1))).await;
    f.settled("there", 1).await;
    let before = f.traces(None).await;
    for n in 0..20 {
        let name = format!("nobody-{n}");
        assert!(!f.log.exists(&name).await.unwrap());
        let head = f.log.head(&name).await.unwrap();
        assert_eq!(f.log.head_again(&name).await.unwrap(), head);
        assert_eq!(f.log.floor(&name).await.unwrap(), head.seq + 1);
        f.log.seq_before(&name, EventTime::now()).await.unwrap();
        assert!(f.log.read_after(&name, head.seq, 9).await.unwrap().gap.is_none());
        assert!(f.log.read_across(&name, head.seq, 9).await.unwrap().gap.is_none());
    }
    let mut tail = f.log.tail("nobody", 0).await.unwrap();
    for _ in 0..3 {
        assert!(tail.next(9).await.unwrap().entries.is_empty());
    }
    assert_eq!(f.traces(None).await, before);
    assert!(f.log.exists("there").await.unwrap());
}

#[apply(both_backends!)]
async fn a_channel_begins_where_its_readers_stand(f: Fixture) {
    let stood = f.log.head("new").await.unwrap();
    let mut tail = f.log.tail("new", stood.seq).await.unwrap();
    assert!(tail.next(9).await.unwrap().entries.is_empty());
    assert_eq!(published(&*f.log, event("new", json!(1))).await, 1);
    let read = f.log.read_after("new", stood.seq, 9).await.unwrap();
    assert_eq!((&*read.epoch, read.gap, read.entries.len()), (&*stood.epoch, None, 1));
    let first = follow(&mut *tail, 0, 1).await;
    assert_eq!(first[0].value()["data"], 1);
    let head = f.log.head("new").await.unwrap();
    assert_eq!((head.epoch, head.seq), (stood.epoch, 1));
}

#[apply(both_backends!)]
async fn a_channel_ends_and_its_numbers_are_not_given_again(f: Fixture) {
    for _ in 0..5 {
        f.publish_at(long_ago(), event("ch", json!(0))).await;
    }
    published(&*f.log, event("other", json!(1))).await;
    f.settled("other", 1).await;
    let mut tail = f.log.tail("ch", 5).await.unwrap();
    f.ended("ch").await;
    assert!(!f.log.exists("ch").await.unwrap() && f.log.exists("other").await.unwrap());
    let head = f.log.head("ch").await.unwrap();
    assert_eq!((head.seq, f.log.floor("ch").await.unwrap()), (5, 6), "it stands where it stood");
    assert_eq!(f.log.read_after("ch", 3, 9).await.unwrap().gap, Some((4, 5)));
    assert!(tail.next(9).await.unwrap().gap.is_none(), "who has seen all of it notices nothing");

    assert_eq!(published(&*f.log, event("ch", json!("again"))).await, 6);
    assert_eq!(follow(&mut *tail, 5, 1).await.len(), 1);
    let again = f.log.head("ch").await.unwrap();
    assert_eq!((again.epoch, again.seq), (head.epoch, 6));
    for read in [f.log.read_after("ch", 3, 9).await, f.log.read_across("ch", 3, 9).await] {
        let read = read.unwrap();
        assert_eq!((read.gap, read.entries[0].seq), (Some((4, 5)), 6));
    }
    assert_eq!(published(&*f.log, event("other", json!(2))).await, 2, "others count on");
}
