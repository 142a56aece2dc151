//! Leases.

use std::time::Duration;

use super::support::Fixture;
use crate::support::{both_backends, until};
use macro_rules_attribute::apply;

const LONG: Duration = Duration::from_secs(60);

#[apply(both_backends!)]
async fn a_lease_has_one_holder(f: Fixture) {
    let first = f.store.take_lease("job", "a", LONG).await.unwrap().expect("it is free");
    assert_eq!(f.store.take_lease("job", "b", LONG).await.unwrap(), None);
    assert_eq!(f.store.take_lease("job", "a", LONG).await.unwrap(), Some(first), "prolonged");
    assert!(f.store.take_lease("other job", "b", LONG).await.unwrap().is_some());
    f.store.drop_lease("job", "b").await.unwrap();
    assert_eq!(f.store.take_lease("job", "b", LONG).await.unwrap(), None, "it was not b's to give back");
    f.store.drop_lease("job", "a").await.unwrap();
    let second = f.store.take_lease("job", "b", LONG).await.unwrap().expect("it is free again");
    assert!(second > first, "{second} > {first}");
    assert_eq!(f.store.take_lease("job", "a", LONG).await.unwrap(), None);
}

#[apply(both_backends!)]
async fn a_lease_ends_by_itself(f: Fixture) {
    let first =
        f.store.take_lease("job", "a", Duration::from_millis(300)).await.unwrap().expect("it is free");
    let second = until("the lease ends", async || {
        f.store.take_lease("job", "b", LONG).await.unwrap().ok_or("it is taken")
    })
    .await;
    assert!(second > first, "{second:?}");
}

#[apply(both_backends!)]
async fn of_many_at_once_one_gets_it(f: Fixture) {
    let holders: Vec<String> = (0..16).map(|n| format!("holder {n}")).collect();
    let takes = holders.iter().map(|holder| f.store.take_lease("job", holder, LONG));
    let taken = futures::future::try_join_all(takes).await.unwrap();
    assert_eq!(taken.iter().flatten().count(), 1);
}
