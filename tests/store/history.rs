//! The history of events (contract 5.1).

use kernelci_live::event_log::{After, HistoryQuery};
use kernelci_live::filter::{EVENT, Filter, Test};
use kernelci_live::model::{Event, Timestamp};
use macro_rules_attribute::apply;
use serde_json::json;

use super::support::{Fixture, event};
use crate::support::{both_backends, published};

fn query(channel: Option<&str>, after: Option<After>, limit: usize) -> HistoryQuery {
    HistoryQuery { channel: channel.map(str::to_owned), filter: Filter::all(), after, skip: 0, limit }
}

/// What is found, as channel and payload.
async fn found(f: &Fixture, query: HistoryQuery) -> Vec<(String, u64)> {
    let found = f.log.find(&query).await.unwrap();
    found
        .into_iter()
        .map(|logged| (logged.channel, logged.entry.value()["data"]["n"].as_u64().unwrap()))
        .collect()
}

/// Six events on two channels, a second apart; returns the times.
async fn publish(f: &Fixture) -> Vec<Event> {
    let begun = Timestamp::now().plus_seconds(-60);
    let mut events = Vec::new();
    for n in 0..6 {
        let channel = if n % 2 == 0 { "even" } else { "odd" };
        let data = json!({"n": n, "kind": if n < 3 { "job" } else { "test" }});
        let event = Event { time: begun.plus_seconds(n), ..event(channel, data) };
        published(&*f.log, event.clone()).await;
        events.push(event);
    }
    f.settled("odd", 3).await;
    f.settled("even", 3).await;
    events
}

fn pairs(channel_and_n: &[(&str, u64)]) -> Vec<(String, u64)> {
    channel_and_n.iter().map(|&(channel, n)| (channel.to_owned(), n)).collect()
}

#[apply(both_backends!)]
async fn a_channel_is_read_in_order(f: Fixture) {
    publish(&f).await;
    assert_eq!(found(&f, query(Some("odd"), None, 10)).await, pairs(&[("odd", 1), ("odd", 3), ("odd", 5)]));
    assert_eq!(found(&f, query(Some("odd"), None, 2)).await, pairs(&[("odd", 1), ("odd", 3)]));
    let after = Some(After::Seq(1));
    assert_eq!(found(&f, query(Some("even"), after, 10)).await, pairs(&[("even", 2), ("even", 4)]));
    assert!(found(&f, query(Some("nobody"), None, 10)).await.is_empty());
}

#[apply(both_backends!)]
async fn all_channels_are_read_by_time(f: Fixture) {
    let events = publish(&f).await;
    let all = pairs(&[("even", 0), ("odd", 1), ("even", 2), ("odd", 3), ("even", 4), ("odd", 5)]);
    assert_eq!(found(&f, query(None, None, 10)).await, all);
    assert_eq!(found(&f, query(None, None, 2)).await, all[..2]);
    let after = Some(After::Time(events[1].time, events[1].id));
    assert_eq!(found(&f, query(None, after, 2)).await, all[2..4]);
    // Events of one moment are told apart by their ids.
    let time = Timestamp::now();
    let mut twins = [event("even", json!({"n": 6})), event("odd", json!({"n": 7}))];
    for twin in &mut twins {
        twin.time = time;
        published(&*f.log, twin.clone()).await;
    }
    f.settled("odd", 4).await;
    f.settled("even", 4).await;
    let first = twins.iter().min_by_key(|twin| twin.id).unwrap();
    let last = twins.iter().max_by_key(|twin| twin.id).unwrap();
    let after = Some(After::Time(time, first.id));
    assert_eq!(
        found(&f, query(None, after, 10)).await,
        [(last.channel.clone(), last.data["n"].as_u64().unwrap())]
    );
}

#[apply(both_backends!)]
async fn history_is_filtered(f: Fixture) {
    let events = publish(&f).await;
    let field = |path: &str, test| Filter::Field { path: path.to_owned(), kind: EVENT.type_of(path), test };
    let job = field("data.kind", Test::Eq(json!("job")));
    let jobs = HistoryQuery { filter: job.clone(), ..query(None, None, 10) };
    assert_eq!(found(&f, jobs).await, pairs(&[("even", 0), ("odd", 1), ("even", 2)]));
    let even_jobs = HistoryQuery { filter: job, ..query(Some("even"), None, 10) };
    assert_eq!(found(&f, even_jobs).await, pairs(&[("even", 0), ("even", 2)]));
    let id = field("id", Test::Eq(json!(events[3].id.to_hex())));
    let one = HistoryQuery { filter: id, ..query(None, None, 10) };
    assert_eq!(found(&f, one).await, pairs(&[("odd", 3)]));
    let third = field("sequence", Test::Eq(json!(format!("{:020}", 3))));
    let last = HistoryQuery { filter: third, ..query(None, None, 10) };
    assert_eq!(found(&f, last).await, pairs(&[("even", 4), ("odd", 5)]));
    let since = field("time", Test::Gt(json!(events[3].time.to_event_time())));
    let late = HistoryQuery { filter: since, ..query(None, None, 10) };
    assert_eq!(found(&f, late).await, pairs(&[("even", 4), ("odd", 5)]));
}
