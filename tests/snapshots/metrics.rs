//! Names, types, labels and help of the metrics; their values are `contract::metrics`' affair.

use std::collections::{BTreeMap, BTreeSet};

use macro_rules_attribute::apply;
use serde_json::json;

use super::{Pages, compare};
use crate::support::{Backend, Http, Server, both_backends, until};
use kernelci_live::metrics::ALL;
use tokio_tungstenite::tungstenite::Message;

/// What only a server on MongoDB and Redis measures.
const OF_REDIS: &str = "kernelci_redis_duration_seconds";

/// What `/metrics` says of each metric that it has lines of.
fn described(text: &str) -> BTreeMap<String, String> {
    let (mut help, mut kinds, mut labels) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(sentence)) => {
                help.insert(name, sentence);
            }
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                kinds.insert(name, kind);
            }
            (Some(key), Some(_), None, None) if !key.is_empty() => {
                let (series, rest) = key.split_once('{').expect("labels");
                // Of a histogram, several series stand under one name.
                let parts = ["_bucket", "_sum", "_count"];
                let stem = parts.iter().find_map(|part| series.strip_suffix(part));
                let name = stem.filter(|stem| kinds.get(*stem) == Some(&"histogram")).unwrap_or(series);
                let names = rest.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0));
                labels.entry(name).or_insert_with(BTreeSet::new).extend(names.filter(|label| *label != "le"));
            }
            _ => {}
        }
    }
    let row = |(name, labels): (&str, BTreeSet<&str>)| {
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        (name.to_owned(), format!("{name} {{{labels}}} {}: {}\n", kinds[name], help[name]))
    };
    labels.into_iter().map(row).collect()
}

/// What the table says of each.
fn table() -> BTreeMap<String, String> {
    let row = |metric: &kernelci_live::metrics::Metric| {
        let labels: BTreeSet<&str> = metric.labels.iter().copied().chain(["instance"]).collect();
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        let kind = format!("{:?}", metric.kind).to_lowercase();
        (metric.name.to_owned(), format!("{} {{{labels}}} {kind}: {}\n", metric.name, metric.help))
    };
    ALL.iter().map(row).collect()
}

#[apply(both_backends!)]
async fn metrics(backend: Backend) {
    let server = Server::start_with(backend, &[("TOKENS_PER_USER", "1")]).await;
    let mut raw = server.admin().await;
    // Something of everything.
    raw.call("event.subscribe", json!({"sub": 1})).await;
    raw.call("event.subscribe", json!({"sub": 2, "channel": "lab", "durable": "d", "group": true})).await;
    raw.call("queue.push", json!({"list": "jobs", "event": {"data": 1}})).await;
    raw.call("node.count", json!({})).await;
    let (mut bobs, token) = (server.connect().await, server.user("bob").await);
    bobs.call("session.hello", json!({"token": token})).await;
    bobs.call("token.create", json!({"name": "one", "scopes": ["read"]})).await;
    bobs.fail("token.create", json!({"name": "two", "scopes": ["read"]})).await;
    let mut wrong = server.anonymous().await;
    wrong.send(Message::binary(vec![0])).await.expect("sent");
    wrong.expect_close().await;
    let mut expected = table();
    if server.backend() == Backend::Embedded {
        expected.remove(OF_REDIS);
    }
    // Gauges are computed now and then, and what takes too long is left out.
    let shown = until("all metrics", async || {
        let shown = described(&Http::new(&server).get("/metrics").await.text);
        let missing: Vec<_> = expected.keys().filter(|name| !shown.contains_key(*name)).cloned().collect();
        if missing.is_empty() { Ok(shown) } else { Err(missing) }
    })
    .await;
    assert_eq!(shown, expected);
    let page = table().into_values().collect();
    compare("documents", &Pages::from([("metrics".to_owned(), page)]), |name| name == "metrics");
}
