//! Reading the history by time: what every lab does that polls `GET /events?from=<the last timestamp>` (contract 5.1).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, Http, Server, both_backends, node, until};

/// Tests of one hierarchy.
const TESTS: usize = 1_500;

/// An event's place and name.
fn name(event: &Value) -> String {
    format!("{} {}", event["data"]["op"], event["data"]["name"])
}

/// The ways to go on behind the last event of all channels.
const WAYS: [(&str, &str); 2] = [("from", "timestamp"), ("after", "id")];

/// Polls until all `is_there`, and then until nothing comes any more. Every event, in the order in which it came.
async fn poll(http: &Http, (parameter, field): (&str, &str), is_there: &AtomicBool) -> Vec<String> {
    let (mut place, mut seen) = (String::new(), Vec::new());
    loop {
        let last_time = is_there.load(Ordering::SeqCst);
        let page = http.get(&format!("/events?kind=job&limit=1000{place}")).await.ok();
        let page = page.as_array().expect("a list");
        seen.extend(page.iter().map(name));
        match page.last() {
            Some(last) => place = format!("&{parameter}={}", last[field].as_str().expect("text")),
            None if last_time => return seen,
            None => tokio::task::yield_now().await,
        }
    }
}

/// Hierarchies take long to write and small nodes do not: the times of their events are those at which they came into the
/// log, so a poller sees each once.
#[apply(both_backends!)]
async fn who_polls_by_time_sees_every_event_once(server: Server) {
    // In production the events come from two instances, and the pollers ask both.
    let other = match server.backend() {
        Backend::Production => Some(server.another().await),
        Backend::Embedded => None,
    };
    let here = Http::admin(&server).await;
    let there = match &other {
        Some(other) => Http::new(other).with(server.token().await),
        None => here.clone(),
    };
    let roots = futures::future::join_all((0..4).map(|n| {
        let http = here.clone();
        async move { http.post("/node", &node("job", &format!("root-{n}"))).await.ok() }
    }))
    .await;
    let (working, is_there) = (AtomicBool::new(true), AtomicBool::new(false));
    let large = async {
        for (n, root) in roots.iter().enumerate() {
            let http = if n % 2 == 0 { &here } else { &there };
            let tests =
                (0..TESTS).map(|t| json!({"node": node("test", &format!("t{t}")), "child_nodes": []}));
            let body = json!({"node": root, "child_nodes": tests.collect::<Vec<_>>()});
            http.put(&format!("/nodes/{}", root["id"].as_str().expect("an id")), &body).await.ok();
        }
        working.store(false, Ordering::SeqCst);
    };
    let small = async {
        let mut names = Vec::new();
        while working.load(Ordering::SeqCst) {
            let name = format!("small-{}", names.len());
            let http = if names.len() % 2 == 0 { &here } else { &there };
            http.post("/node", &node("job", &name)).await.ok();
            // Events of another channel get their times from the same clock.
            let data = json!({"op": "published", "kind": "job", "name": name});
            http.post("/publish/beside", &json!({"data": data})).await.ok();
            names.push(name);
        }
        names
    };
    let all = async {
        let ((), names) = futures::join!(large, small);
        // What the other instance has acknowledged comes soon.
        let count = 2 * (roots.len() + names.len());
        until("all events", async || {
            let found = here.get("/events?kind=job&limit=0").await.ok().as_array().map_or(0, Vec::len);
            if found == count { Ok(()) } else { Err((found, count)) }
        })
        .await;
        is_there.store(true, Ordering::SeqCst);
        names
    };
    let ways = WAYS.iter().flat_map(|way| [(&here, *way), (&there, *way)]);
    let pollers = ways.map(|(http, way)| {
        let is_there = &is_there;
        async move { (way, poll(http, way, is_there).await) }
    });
    let (names, polled) = futures::join!(all, futures::future::join_all(pollers));
    let mut wanted: BTreeSet<String> = (0..roots.len())
        .flat_map(|n| ["created", "updated"].map(|op| format!("\"{op}\" \"root-{n}\"")))
        .collect();
    wanted.extend(names.iter().flat_map(|n| ["created", "published"].map(|op| format!("\"{op}\" \"{n}\""))));
    for (way, seen) in polled {
        let distinct: BTreeSet<String> = seen.iter().cloned().collect();
        let lost: Vec<&String> = wanted.difference(&distinct).collect();
        assert!(lost.is_empty(), "{way:?}: lost {lost:?} of {}", wanted.len());
        assert_eq!(seen.len(), wanted.len(), "{way:?}: each once");
    }
}

/// On MongoDB events get their places after the answer.
#[apply(both_backends!)]
async fn what_is_acknowledged_is_in_the_history_at_once(server: Server) {
    let http = Http::admin(&server).await;
    let count = async |id: &Value| {
        let found = http.get(&format!("/events?node_id={}", id.as_str().expect("an id"))).await.ok();
        found.as_array().expect("a list").len()
    };
    for n in 0..20 {
        let made = http.post("/node", &node("job", &format!("j{n}"))).await.ok();
        assert_eq!(count(&made["id"]).await, 1, "created, round {n}");
        let path = format!("/node/{}", made["id"].as_str().expect("an id"));
        http.patch(&path, &json!({"state": "available"})).await.ok();
        assert_eq!(count(&made["id"]).await, 2, "updated, round {n}");
        let mut ws = server.anonymous().await;
        let found = ws.call("event.find", json!({"node_id": made["id"]})).await;
        assert_eq!(found["items"].as_array().expect("a list").len(), 2);
    }
}

/// `timestamp` is as fine as `from`: none of a page comes again.
#[apply(both_backends!)]
async fn times_are_told_and_taken_to_the_microsecond(server: Server) {
    let http = Http::admin(&server).await;
    let many = (0..40).map(|n| {
        let http = http.clone();
        async move { http.post("/node", &node("job", &format!("j{n}"))).await.ok() }
    });
    futures::future::join_all(many).await;
    let all = http.get("/events").await.ok();
    let all = all.as_array().expect("a list");
    assert_eq!(all.len(), 40);
    let times: Vec<&str> = all.iter().map(|event| event["timestamp"].as_str().expect("text")).collect();
    assert!(times.is_sorted_by(|one, two| one < two), "{times:?}");
    for (n, time) in times.iter().enumerate() {
        let rest = http.get(&format!("/events?from={time}")).await.ok();
        assert_eq!(rest.as_array().expect("a list"), &all[n + 1..]);
    }
    let mut ws = server.anonymous().await;
    let from = json!({"time": format!("{}+00:00", times[29])});
    let subscribed = ws.call("event.subscribe", json!({"sub": 1, "channel": "node", "from": from})).await;
    assert_eq!(subscribed["position"]["seq"], 29, "at that time or later");
}
