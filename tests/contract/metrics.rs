//! `/metrics` (contract 7.3) as Prometheus reads it.

use std::collections::{BTreeMap, BTreeSet};

use macro_rules_attribute::apply;
use serde_json::json;

use crate::support::{Backend, Http, Server, both_backends, node, until};

/// A scrape: value by `name{labels}`, labels sorted; type by name.
struct Scrape {
    values: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Scrape {
    /// As it is now. Gauges are computed twice a second at most: they may still tell what was before.
    async fn of(server: &Server) -> Scrape {
        let answer = Http::new(server).get("/metrics").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        Scrape::parse(&answer.text)
    }

    /// Reads the text format strictly: HELP and TYPE before the lines of a metric, no line twice.
    fn parse(text: &str) -> Scrape {
        let mut scrape = Scrape { values: BTreeMap::new(), types: BTreeMap::new() };
        let (mut helped, mut current) = (BTreeSet::new(), String::new());
        assert!(text.ends_with('\n'));
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a sentence");
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(helped.contains(name), "no HELP: {line}");
                assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
                current = name.to_owned();
            } else {
                let (key, value) = line.rsplit_once(' ').expect("a value");
                let name = key.split('{').next().expect("a name");
                assert!(name.starts_with(&current), "{line} stands under {current}");
                let labels = key[name.len()..].trim_matches(['{', '}']);
                let mut labels: Vec<&str> =
                    labels.split("\",").map(|label| label.trim_end_matches('"')).collect();
                labels.sort_unstable();
                let key = format!("{name}{{{}}}", labels.join(","));
                assert!(scrape.values.insert(key, value.parse().expect("a number")).is_none(), "{line}");
            }
        }
        scrape
    }

    /// The value with these labels (`a="x` form, sorted, without the closing quotes); 0 if there is none.
    fn get(&self, name: &str, labels: &str) -> f64 {
        self.values.get(&format!("{name}{{{labels}}}")).copied().unwrap_or(0.0)
    }
}

#[apply(both_backends!)]
async fn requests_are_counted_by_operation_transport_and_status(server: Server) {
    let (http, mut ws) = (Http::new(&server), server.admin().await);
    let before = Scrape::of(&server).await;
    let count = |scrape: &Scrape, operation: &str, transport: &str, status: u16| {
        let labels =
            format!("instance=\"api,operation=\"{operation},status=\"{status},transport=\"{transport}");
        scrape.get("kernelci_requests_total", &labels)
    };
    for _ in 0..3 {
        http.get("/count?kind=job").await.ok();
    }
    assert_eq!(http.get("/node/xyz").await.status, 400);
    assert_eq!(http.post("/node", &node("checkout", "x")).await.status, 401);
    ws.call("node.create", json!({"node": node("checkout", "a")})).await;
    ws.fail("node.get", json!({"id": "0".repeat(24)})).await;
    ws.fail("no.such", json!({})).await;
    ws.fail("no.such.either", json!({})).await;
    let rpc = json!({"jsonrpc": "2.0", "id": 1, "method": "node.count", "params": {}});
    http.post("/rpc", &rpc).await.ok();
    let after = Scrape::of(&server).await;
    for (operation, transport, status, more) in [
        ("node.count", "rest", 200, 3.0),
        ("node.count", "rpc", 200, 1.0),
        ("node.get", "rest", 400, 1.0),
        ("node.create", "rest", 401, 1.0),
        ("node.create", "ws", 200, 1.0),
        ("node.get", "ws", 404, 1.0),
        ("unknown", "ws", 404, 2.0),
    ] {
        let moved =
            count(&after, operation, transport, status) - count(&before, operation, transport, status);
        assert_eq!(moved, more, "{operation} {transport} {status}");
    }
    let total = |scrape: &Scrape| scrape.get("http_requests_total", "instance=\"api");
    // Six requests, and the scrape before.
    assert_eq!(total(&after) - total(&before), 7.0);
    let labels = "instance=\"api,operation=\"node.count,transport=\"rest";
    assert_eq!(after.get("kernelci_request_duration_seconds_count", labels), 3.0);
    let labels = "instance=\"api,le=\"+Inf,operation=\"node.count,transport=\"rest";
    assert_eq!(after.get("kernelci_request_duration_seconds_bucket", labels), 3.0);
    assert_eq!(after.types["kernelci_request_duration_seconds"], "histogram");
    let (store, redis) = match server.backend() {
        Backend::Embedded => ("write", 0.0),
        Backend::Production => ("mongodb", 1.0),
    };
    let labels = format!("call=\"{store},instance=\"api");
    assert!(after.get("kernelci_store_duration_seconds_count", &labels) > 0.0);
    assert!(after.get("kernelci_redis_duration_seconds_count", "instance=\"api") >= redis);
}

#[apply(both_backends!)]
async fn gauges_say_what_is_going_on(server: Server) {
    let mut ws = server.admin().await;
    ws.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
    ws.call("node.create", json!({"node": node("checkout", "a")})).await;
    ws.event(1).await;
    let instance = "instance=\"api";
    let channel = "channel=\"node,instance=\"api";
    let gauges = [
        ("kernelci_sessions", instance, 1.0),
        ("kernelci_subscriptions", channel, 1.0),
        ("kernelci_log_head", channel, 1.0),
        ("kernelci_log_length", channel, 1.0),
        ("kernelci_reader_lag_events", channel, 0.0),
        ("kernelci_reader_lag_seconds", channel, 0.0),
    ];
    let scrape = until("the gauges say so", async || {
        let scrape = Scrape::of(&server).await;
        let wrong = gauges.iter().find(|(name, labels, value)| scrape.get(name, labels) != *value);
        wrong.map_or(Ok(scrape), Err)
    })
    .await;
    for (name, ..) in gauges {
        assert_eq!(scrape.types[name], "gauge");
    }
    assert_eq!(scrape.get("kernelci_events_sent_total", instance), 1.0);
    assert_eq!(scrape.get("kernelci_up", "instance=\"api,part=\"store"), 1.0);
    assert_eq!(scrape.get("kernelci_up", "instance=\"api,part=\"log"), 1.0);
    assert!(scrape.values.contains_key("kernelci_outbox_events{instance=\"api}"));
    assert!(scrape.get("process_resident_memory_bytes", instance) > 1e6);
    assert!(scrape.get("process_open_fds", instance) > 3.0);
    assert!(scrape.get("process_start_time_seconds", instance) > 1.7e9);
    let kind = if server.backend() == Backend::Embedded { "sqlite" } else { "mongodb" };
    let labels = format!("instance=\"api,store=\"{kind},version=\"{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(scrape.get("kernelci_build_info", &labels), 1.0);
    drop(ws);
}

#[apply(both_backends!)]
async fn consumers_and_queues_have_lines_of_their_own(server: Server) {
    let http = Http::admin(&server).await;
    http.post("/subscribe/lab?subscriber_id=daemon", &json!(null)).await.ok();
    for n in 1..=3 {
        http.post("/publish/lab", &json!({"data": n})).await.ok();
        http.post("/push/jobs", &json!({"data": n})).await.ok();
    }
    http.post("/push/others", &json!({"data": 1})).await.ok();
    http.get("/pop/jobs").await.ok();
    let (lag, jobs) = ("channel=\"lab,consumer=\"daemon,instance=\"api", "instance=\"api,queue=\"jobs");
    // What was popped goes after its answer, and events follow their write on MongoDB.
    let scrape = until("the gauges say so", async || {
        let scrape = Scrape::of(&server).await;
        let seen =
            (scrape.get("kernelci_consumer_lag_events", lag), scrape.get("kernelci_queue_length", jobs));
        if seen == (3.0, 2.0) { Ok(scrape) } else { Err(seen) }
    })
    .await;
    assert_eq!(scrape.get("kernelci_queue_length", "instance=\"api,queue=\"others"), 1.0);
    assert!(scrape.get("kernelci_consumer_lag_seconds", lag) > 0.0);
    for name in ["kernelci_consumer_lag_events", "kernelci_consumer_lag_seconds", "kernelci_queue_length"] {
        assert_eq!(scrape.types[name], "gauge", "{name}");
    }
}

#[apply(both_backends!)]
async fn the_names_of_the_present_server_stay(backend: Backend) {
    let server = Server::start_with(backend, &[("INSTANCE", "api-2")]).await;
    let scrape = Scrape::of(&server).await;
    for name in ["http_requests_total", "subscriptions_cleaned", "nodes_purged"] {
        assert!(scrape.values.contains_key(&format!("{name}{{instance=\"api-2}}")), "{name}");
        assert_eq!(scrape.types[name], "counter", "{name}");
    }
}
