//! Queues: each item to one taker, and back if that one is gone.

use std::time::Duration;

use kernelci_live::store::queues::{Depth, Lease, Leased, MOST_ITEMS, MOST_LISTS, NewItem, Pushed};
use macro_rules_attribute::apply;

use super::support::{Fixture, production};
use crate::support::{both_backends, both_backends_in_pairs};

const LONG: Duration = Duration::from_secs(3600);

fn item(list: &str, json: &str, key: Option<&str>) -> NewItem {
    NewItem {
        list: list.to_owned(),
        json: json.to_owned(),
        key: key.map(str::to_owned),
        fingerprint: String::new(),
        share: None,
    }
}

async fn push(f: &Fixture, list: &str, json: &str) {
    assert_eq!(f.store.push_item(&item(list, json, None)).await.unwrap(), Pushed::Done);
}

async fn take(f: &Fixture, list: &str, lease: Duration) -> Option<Leased> {
    f.store.take_item(list, lease).await.unwrap()
}

#[apply(both_backends!)]
async fn items_are_taken_in_order_and_removed(f: Fixture) {
    for n in 1..=3 {
        push(&f, "a", &n.to_string()).await;
    }
    push(&f, "b", "9").await;
    let depth = |list: &str, items, bytes| Depth { list: list.to_owned(), items, bytes };
    assert_eq!(f.store.queues().await.unwrap(), [depth("a", 3, 3), depth("b", 1, 1)]);
    for n in 1..=3 {
        let taken = take(&f, "a", LONG).await.unwrap();
        assert_eq!((taken.json, taken.deliveries), (n.to_string(), 1));
        assert!(f.store.remove_item(&taken.lease).await.unwrap());
        assert!(!f.store.remove_item(&taken.lease).await.unwrap());
        assert_eq!(f.store.release_item(&taken.lease).await.unwrap(), None);
    }
    assert_eq!(take(&f, "a", LONG).await, None);
    assert_eq!(take(&f, "nobody", LONG).await, None);
    assert_eq!(f.store.queues().await.unwrap(), [depth("b", 1, 1)]);
}

#[apply(both_backends!)]
async fn what_is_released_or_overdue_is_offered_again(f: Fixture) {
    push(&f, "a", "1").await;
    push(&f, "a", "2").await;
    let first = take(&f, "a", LONG).await.unwrap();
    assert_eq!(f.store.release_item(&first.lease).await.unwrap().as_deref(), Some("a"));
    let again = take(&f, "a", LONG / 2).await.unwrap();
    assert_eq!((again.json.as_str(), again.deliveries), ("1", 2), "at its old place");
    assert!(!f.store.remove_item(&first.lease).await.unwrap(), "that lease is over");
    assert_eq!(take(&f, "a", LONG).await.unwrap().json, "2");
    assert_eq!(take(&f, "a", LONG).await, None);
    assert!(f.store.extend_item(&again.lease, LONG).await.unwrap());
    assert!(!f.store.extend_item(&first.lease, LONG).await.unwrap());
    f.time_passes(LONG / 2).await;
    assert_eq!(take(&f, "a", LONG).await, None, "it was extended");
    assert!(f.store.extend_item(&again.lease, LONG / 2).await.unwrap());
    f.time_passes(LONG / 2 + Duration::from_secs(1)).await;
    let overdue = take(&f, "a", LONG).await.unwrap();
    assert_eq!((overdue.json.as_str(), overdue.deliveries), ("1", 3));
    assert!(!f.store.remove_item(&again.lease).await.unwrap());
    assert!(f.store.remove_item(&overdue.lease).await.unwrap());
    let lease: Lease = overdue.lease.to_string().parse().unwrap();
    assert_eq!(lease, overdue.lease);
}

#[apply(both_backends!)]
async fn racing_takers_get_different_items(f: Fixture) {
    for n in 0..20 {
        push(&f, "a", &n.to_string()).await;
    }
    let takers = (0..25).map(|_| {
        let store = f.store.clone();
        tokio::spawn(async move { store.take_item("a", LONG).await.unwrap() })
    });
    let mut taken = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        taken.extend(taker.await.unwrap().map(|leased| leased.json.parse::<u32>().unwrap()));
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..20).collect::<Vec<_>>());
}

#[apply(both_backends!)]
async fn a_key_is_pushed_once(f: Fixture) {
    let keyed = item("a", "1", Some("k"));
    let pushes = (0..6).map(|_| {
        let (store, item) = (f.store.clone(), keyed.clone());
        tokio::spawn(async move { store.push_item(&item).await.unwrap() })
    });
    for push in pushes.collect::<Vec<_>>() {
        assert_eq!(push.await.unwrap(), Pushed::Done);
    }
    let taken = take(&f, "a", LONG).await.unwrap();
    assert_eq!(take(&f, "a", LONG).await, None);
    assert!(f.store.remove_item(&taken.lease).await.unwrap());
    assert_eq!(f.store.push_item(&keyed).await.unwrap(), Pushed::Done);
    assert_eq!(take(&f, "a", LONG).await, None, "remembered after it is gone");
    assert!(f.store.queues().await.unwrap().is_empty());
}

#[apply(both_backends_in_pairs!)]
async fn a_queue_is_bounded(f: Fixture) {
    let large = "x".repeat(1 << 20);
    for _ in 0..64 {
        push(&f, "large", &large).await;
    }
    assert_eq!(f.store.push_item(&item("large", &large, None)).await.unwrap(), Pushed::Full);
    assert!(f.store.queues().await.unwrap()[0].items < MOST_ITEMS);
    push(&f, "other", "1").await;
}

#[apply(both_backends!)]
async fn what_was_there_before_counts(f: Fixture) {
    f.put_items(&vec!["a".to_owned(); MOST_ITEMS as usize]).await;
    let again = async || f.store.push_item(&item("a", "1", None)).await.unwrap();
    assert_eq!(again().await, Pushed::Full);
    let taken = take(&f, "a", LONG).await.unwrap();
    assert_eq!(again().await, Pushed::Full, "somebody has it, but it may come back");
    assert!(f.store.remove_item(&taken.lease).await.unwrap());
    assert_eq!((again().await, again().await), (Pushed::Done, Pushed::Full));
    push(&f, "b", "1").await;
}

#[apply(both_backends!)]
async fn the_number_of_queues_is_bounded(f: Fixture) {
    f.put_items(&(0..MOST_LISTS).map(|n| format!("q{n}")).collect::<Vec<_>>()).await;
    assert_eq!(f.store.push_item(&item("more", "1", None)).await.unwrap(), Pushed::TooManyLists);
    push(&f, "q7", "1").await;
    let taken = take(&f, "q0", LONG).await.unwrap();
    assert!(f.store.remove_item(&taken.lease).await.unwrap());
    push(&f, "more", "1").await;
}

/// Everything that is held on a lease comes back at its place, also when it is much.
#[apply(both_backends!)]
async fn what_is_overdue_comes_first_and_in_order(f: Fixture) {
    for n in 1..=6 {
        push(&f, "a", &n.to_string()).await;
    }
    let mut leases = Vec::new();
    for lease in [LONG / 2, LONG * 2, LONG / 2] {
        leases.push(take(&f, "a", lease).await.unwrap().lease);
    }
    f.time_passes(LONG).await;
    assert_eq!(take(&f, "a", LONG).await.unwrap().json, "1");
    assert!(f.store.remove_item(&leases[2]).await.unwrap(), "nobody else has it yet");
    assert!(!f.store.remove_item(&leases[0]).await.unwrap());
    for next in ["4", "5", "6"] {
        assert_eq!(take(&f, "a", LONG).await.unwrap().json, next);
    }
    assert_eq!(take(&f, "a", LONG).await, None);
}

/// Pushes, pops and acks, as mongod sees them. (On SQLite: `store::sqlite::queues`.)
#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_costs_what_a_short_one_costs() {
    let f = production().await;
    let work = async |list: &str| {
        push(&f, list, "1").await;
        assert_eq!(f.store.push_item(&item(list, "1", Some(list))).await.unwrap(), Pushed::Done);
        let taken = take(&f, list, LONG).await.unwrap();
        assert!(f.store.remove_item(&taken.lease).await.unwrap());
    };
    f.put_items(&vec!["long".to_owned(); 4_000]).await;
    let far = bson::doc! {"$set": {"until": bson::DateTime::from_millis(i64::MAX / 2), "token": "t"}};
    f.collection("queueitem").update_many(bson::doc! {"_id": {"$lt": 2_000}}, far).await.unwrap();
    // A list is counted by its first push.
    work("long").await;
    for list in ["long", "new", "new"] {
        let (examined, done) = f.profiled(async || work(list).await).await;
        assert!(examined < 40, "{list}: {examined} looked at in {done:#?}");
    }
    let (_, done) = f.profiled(async || work("long").await).await;
    let counts = |one: &bson::Document| {
        one.get_document("command").is_ok_and(|command| command.contains_key("aggregate"))
    };
    assert!(!done.is_empty() && !done.iter().any(counts), "{done:#?}");
}

/// An instance that dies between two calls leaves too much counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_counted_wrong_is_counted_again() {
    let f = production().await;
    let depths = f.collection("queuedepth");
    let counted =
        async || depths.find_one(bson::doc! {"_id": "a"}).await.unwrap().unwrap().get_i64("items").unwrap();
    let change = async |update: bson::Document| {
        depths.update_one(bson::doc! {"_id": "a"}, update).await.unwrap();
    };
    push(&f, "a", "1").await;
    push(&f, "a", "1").await;
    assert_eq!(counted().await, 2);
    change(bson::doc! {"$set": {"items": MOST_ITEMS as i64}}).await;
    let again = async || f.store.push_item(&item("a", "1", None)).await.unwrap();
    assert_eq!(again().await, Pushed::Full, "it was counted just now");
    let long_ago = bson::DateTime::from_millis(bson::DateTime::now().timestamp_millis() - 60_000);
    change(bson::doc! {"$set": {"counted": long_ago}}).await;
    let pushes = (0..4).map(|_| {
        let store = f.store.clone();
        tokio::spawn(async move { store.push_item(&item("a", "1", None)).await.unwrap() })
    });
    let mut done = 0;
    for push in pushes.collect::<Vec<_>>() {
        done += i64::from(push.await.unwrap() == Pushed::Done);
    }
    assert!(done > 0, "whoever counts has room");
    let items = f.store.queues().await.unwrap()[0].items as i64;
    assert_eq!(items, 2 + done);
    // As MongoDB does after an hour.
    depths.delete_one(bson::doc! {"_id": "a"}).await.unwrap();
    assert_eq!(again().await, Pushed::Done);
    assert_eq!(counted().await, items + 1);
}

/// However much is in them: it is read with every scrape of the metrics.
#[tokio::test(flavor = "multi_thread")]
async fn how_long_queues_are_is_not_counted_each_time() {
    let f = production().await;
    f.put_items(&vec!["old".to_owned(); 60]).await;
    for n in 0..60 {
        f.store.push_item(&item("q", &n.to_string(), None)).await.unwrap();
    }
    // What has not been counted lately is counted once.
    let depths = f.store.queues().await.unwrap();
    let items: Vec<(&str, u64)> = depths.iter().map(|depth| (&*depth.list, depth.items)).collect();
    assert_eq!(items, [("old", 60), ("q", 60)]);
    let (examined, done) = f.profiled(async || assert_eq!(f.store.queues().await.unwrap(), depths)).await;
    assert!(examined < 20, "{examined}: {done:?}");
}

/// Those that have not been counted lately do not hold up a scrape, however many they are: the others come later.
#[tokio::test(flavor = "multi_thread")]
async fn queues_are_counted_a_few_at_a_time() {
    let f = production().await;
    f.put_items(&(0..150).map(|n| format!("q{n:03}")).collect::<Vec<_>>()).await;
    assert_eq!(f.store.queues().await.unwrap().len(), 100);
    let all = f.store.queues().await.unwrap();
    assert!(all.len() == 150 && all.iter().all(|queue| queue.items == 1), "{}", all.len());
}
