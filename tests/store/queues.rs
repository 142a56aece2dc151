//! Queues: each item to one taker, and back if that one is gone.

use std::time::Duration;

use kernelci_live::store::queues::{Depth, Lease, Leased, MOST_ITEMS, NewItem, Pushed};
use macro_rules_attribute::apply;

use super::support::Fixture;
use crate::support::{both_backends, both_backends_in_pairs};

const LONG: Duration = Duration::from_secs(3600);

fn item(list: &str, json: &str, key: Option<&str>) -> NewItem {
    NewItem { list: list.to_owned(), json: json.to_owned(), key: key.map(str::to_owned) }
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
