//! The history of events (contract 5.1).

use kernelci_live::event_log::{After, HistoryQuery, Logged};
use kernelci_live::filter::{EVENT, Filter, Test};
use kernelci_live::model::{EventTime, ObjectId, Timestamp};
use macro_rules_attribute::apply;
use serde_json::json;

use super::support::{Fixture, event};
use crate::support::both_backends;

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

/// Six events on two channels, a second apart; returns their times and ids.
async fn publish(f: &Fixture) -> Vec<(EventTime, ObjectId)> {
    let begun = Timestamp::now().plus_seconds(-60);
    for n in 0..6 {
        let channel = if n % 2 == 0 { "even" } else { "odd" };
        let data = json!({"n": n, "kind": if n < 3 { "job" } else { "test" }});
        f.publish_at(begun.plus_seconds(n), event(channel, data)).await;
    }
    f.settled("odd", 3).await;
    f.settled("even", 3).await;
    let all = f.log.find(&query(None, None, 10)).await.unwrap();
    let text = |logged: &Logged, key: &str| logged.entry.value()[key].as_str().unwrap().to_owned();
    let place =
        |logged| (EventTime::parse_iso(&text(logged, "time")).unwrap(), text(logged, "id").parse().unwrap());
    all.iter().map(place).collect()
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
    let after = Some(After::Time(events[1].0, events[1].1));
    assert_eq!(found(&f, query(None, after, 2)).await, all[2..4]);
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
    let id = field("id", Test::Eq(json!(events[3].1.to_hex())));
    let one = HistoryQuery { filter: id, ..query(None, None, 10) };
    assert_eq!(found(&f, one).await, pairs(&[("odd", 3)]));
    let third = field("sequence", Test::Eq(json!(format!("{:020}", 3))));
    let last = HistoryQuery { filter: third, ..query(None, None, 10) };
    assert_eq!(found(&f, last).await, pairs(&[("even", 4), ("odd", 5)]));
    for (k, (time, _)) in events.iter().enumerate() {
        let all = [0, 1, 2, 3, 4, 5];
        let text = || json!(time.to_text());
        for (test, wanted) in [
            (Test::Gt(text()), &all[k + 1..]),
            (Test::Gte(text()), &all[k..]),
            (Test::Lt(text()), &all[..k]),
            (Test::Lte(text()), &all[..=k]),
            (Test::Eq(text()), &all[k..=k]),
            (Test::In(vec![text(), json!("1970-01-01T00:00:00.000000+00:00")]), &all[k..=k]),
        ] {
            let shown = format!("{test:?}");
            let by_time = HistoryQuery { filter: field("time", test), ..query(None, None, 10) };
            let numbers: Vec<u64> = found(&f, by_time).await.into_iter().map(|(_, n)| n).collect();
            assert_eq!(numbers, wanted, "{shown}");
        }
        let others = [Test::Ne(text()), Test::Nin(vec![text()])];
        for test in others {
            let by_time = HistoryQuery { filter: field("time", test), ..query(None, None, 10) };
            assert_eq!(found(&f, by_time).await.len(), 5);
        }
    }
    let since = field("time", Test::Gt(json!(events[3].0.to_text())));
    let late = HistoryQuery { filter: since, ..query(None, None, 10) };
    assert_eq!(found(&f, late).await, pairs(&[("even", 4), ("odd", 5)]));
}
