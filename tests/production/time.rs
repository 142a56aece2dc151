//! Reading by time while instances die and Redis forgets: nothing comes later that is earlier.

use bson::doc;
use kernelci_live::event_log::redis::RelayMode;
use kernelci_live::event_log::{EventLog, HistoryQuery};
use kernelci_live::filter::Filter;
use kernelci_live::model::EventTime;
use kernelci_live::store::Store;
use serde_json::json;

use super::support::{Instance, Servers, commit, event, node};
use crate::support::{published, until};

/// The channels and times of what a reader of all channels is shown.
async fn shown(instance: &Instance) -> Vec<(String, String)> {
    let query = HistoryQuery { channel: None, filter: Filter::all(), after: None, skip: 0, limit: 100 };
    let found = instance.log.find(&query).await.unwrap();
    let time = |logged: &kernelci_live::event_log::Logged| {
        logged.entry.value()["time"].as_str().expect("a time").to_owned()
    };
    found.iter().map(|logged| (logged.channel.clone(), time(logged))).collect()
}

/// Waits until a reader is shown so many events: in the order of time, those of these channels.
async fn shows(instance: &Instance, channels: &[&str]) {
    let all = until("all events", async || {
        let all = shown(instance).await;
        if all.len() == channels.len() { Ok(all) } else { Err(all) }
    })
    .await;
    assert!(all.iter().zip(channels).all(|((channel, _), wanted)| channel == wanted), "{all:?}");
    assert!(all.is_sorted_by(|one, two| one.1 < two.1), "{all:?}");
}

#[tokio::test]
async fn what_is_on_its_way_holds_back_what_came_later() {
    let servers = Servers::new().await;
    let dies = servers.open_with(RelayMode::AppendOnly).await;
    dies.store.commit(commit([&node("n")])).await.unwrap();
    servers.given("node", 1).await;
    dies.store.close().await;
    // Before a sweep can have found it twice.
    let alive = servers.open().await;
    published(&*alive.log, event("ch", json!(1))).await;
    assert_eq!(alive.log.head("ch").await.unwrap().seq, 1, "who follows the channel has it");
    let now = shown(&alive).await;
    assert!(now.is_empty() || now.len() == 2, "never the later one alone: {now:?}");
    shows(&alive, &["node", "ch"]).await;
    let other = servers.open().await;
    shows(&other, &["node", "ch"]).await;
    servers.clean().await;
}

#[tokio::test]
async fn times_go_on_behind_the_history_when_redis_forgets_and_its_clock_is_behind() {
    let servers = Servers::new().await;
    let one = servers.open().await;
    for n in 0..3 {
        published(&*one.log, event(["a", "b"][n % 2], json!(n))).await;
    }
    shows(&one, &["a", "b", "a"]).await;
    servers.forget("*").await;
    // As of an hour before.
    servers.options.wall.set(EventTime::from_micros(EventTime::now().micros() - 3_600_000_000));
    published(&*one.log, event("c", json!(3))).await;
    let other = servers.open().await;
    published(&*other.log, event("a", json!(4))).await;
    shows(&one, &["a", "b", "a", "c", "a"]).await;
    shows(&other, &["a", "b", "a", "c", "a"]).await;
    servers.clean().await;
}

/// What the present server writes, and an older version of this one, has no microseconds.
#[tokio::test]
async fn events_without_microseconds_are_found_once_each() {
    let servers = Servers::new().await;
    let one = servers.open().await;
    // Not so old that it expires.
    let second = bson::DateTime::from_millis(EventTime::now().micros() / 1000 - 60_000);
    let old = (0..5).map(|n| {
        doc! {"timestamp": second, "sequence_id": n, "channel": "node", "owner": null, "data": {"n": n}}
    });
    servers.collection("eventhistory").insert_many(old.collect::<Vec<_>>()).await.unwrap();
    published(&*one.log, event("ch", json!(1))).await;
    let mut query = HistoryQuery { channel: None, filter: Filter::all(), after: None, skip: 0, limit: 2 };
    let mut seen = Vec::new();
    loop {
        let page = one.log.find(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        let text = |key: &str| last.entry.value()[key].as_str().unwrap().to_owned();
        let time = EventTime::parse_iso(&text("time")).unwrap();
        query.after = Some(kernelci_live::event_log::After::Time(time, text("id").parse().unwrap()));
        seen.extend(page.iter().map(|logged| (logged.channel.clone(), logged.entry.seq)));
    }
    let mut wanted: Vec<_> = (0..5).map(|n| ("node".to_owned(), n)).collect();
    wanted.push(("ch".to_owned(), 1));
    assert_eq!(seen, wanted);
    servers.clean().await;
}

/// An instance of an older version shows what another one has begun, and does not say that it has.
#[tokio::test]
async fn what_is_noted_as_on_its_way_and_is_not_holds_nothing_back_for_long() {
    let servers = Servers::new().await;
    let one = servers.open().await;
    published(&*one.log, event("ch", json!(1))).await;
    for channel in ["ch", "nobody"] {
        let key = format!("{}inflight", servers.options.key_prefix);
        let mut redis = servers.redis.clone();
        redis::cmd("ZADD").arg(key).arg(1).arg(channel).exec_async(&mut redis).await.unwrap();
    }
    published(&*one.log, event("other", json!(2))).await;
    shows(&one, &["ch", "other"]).await;
    servers.clean().await;
}
