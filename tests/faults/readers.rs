//! Readers of every kind, each with a list of what it was shown. None of them is ever allowed a gap.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kernelci_live::client::{Delivery, Start, Subscribe};
use serde_json::{Value, json};

use super::consumers;
use super::workload::Target;
use crate::support::{Lost, Raw};

/// What a reader was shown.
pub struct Seen {
    /// Who.
    pub name: &'static str,
    /// Of which channel.
    pub channel: &'static str,
    /// Only events of nodes of this kind, if one is given.
    pub kind: Option<&'static str>,
    /// Number and id of every event, in the order of arrival.
    pub events: Vec<(u64, String)>,
    /// When the last one came.
    pub last: Instant,
    /// The longest time between two events.
    pub silence: Duration,
    /// What must not happen: gaps, lost histories, refusals.
    pub faults: Vec<String>,
    /// How often it has connected.
    pub connections: u64,
    /// A long poll cannot say that an answer came: the server may offer it again, or take it for delivered although the
    /// connection swallowed it. So many polls had no answer.
    pub unanswered: Option<usize>,
    /// Several share it, so that nothing comes in order.
    pub shared: bool,
}

/// Shared between a reader and the oracle.
pub type Reader = Arc<Mutex<Seen>>;

fn reader(name: &'static str, channel: &'static str, kind: Option<&'static str>) -> Reader {
    let (last, silence) = (Instant::now(), Duration::ZERO);
    let (events, faults) = (Vec::new(), Vec::new());
    let (connections, unanswered, shared) = (0, None, false);
    let seen = Seen { name, channel, kind, events, last, silence, faults, connections, unanswered, shared };
    Arc::new(Mutex::new(seen))
}

pub fn saw(reader: &Reader, seq: u64, id: &str) {
    let mut seen = reader.lock().unwrap();
    seen.events.push((seq, id.to_owned()));
    seen.silence = seen.silence.max(seen.last.elapsed());
    seen.last = Instant::now();
}

pub fn fault(reader: &Reader, what: impl ToString) {
    reader.lock().unwrap().faults.push(what.to_string());
}

pub fn connected(reader: &Reader) {
    reader.lock().unwrap().connections += 1;
}

/// How long the reader that stops once does so: `FAULT_STOP_SECONDS`, or a few seconds.
pub fn stop() -> Duration {
    Duration::from_secs(super::run::number("FAULT_STOP_SECONDS").unwrap_or(8))
}

/// Starts one reader of every kind, before anything is written; they read until their tasks are aborted.
pub async fn start(target: &Target) -> (Vec<Reader>, Vec<tokio::task::JoinHandle<()>>) {
    let channel = super::workload::CHANNEL;
    let all = [
        reader("client", "node", None),
        reader("client, published", channel, None),
        reader("client, with nodes", "node", Some("kbuild")),
        reader("websocket", "node", None),
        reader("websocket, slow", "node", None),
        reader("websocket, stops", "node", None),
        reader("long poll", "node", None),
        reader("by time", "node", None),
        reader("by event", "node", None),
        reader("durable", "node", None),
        reader("group", "node", None),
        reader("server-sent events", "node", None),
        reader("cloudevents", "node", Some("checkout")),
    ];
    let subscription = consumers::open_subscription(target).await;
    let tasks = all.iter().map(|reader| {
        let (reader, target) = (reader.clone(), target.clone());
        let name = reader.lock().unwrap().name;
        match name {
            "websocket" => tokio::spawn(by_websocket(reader, target, |_| Duration::ZERO)),
            "websocket, slow" => tokio::spawn(by_websocket(reader, target, |seq| match seq % 200 {
                0 => Duration::from_secs(3),
                _ => Duration::ZERO,
            })),
            "websocket, stops" => tokio::spawn(by_websocket(reader, target, |seq| match seq {
                100 => stop(),
                _ => Duration::ZERO,
            })),
            "group" => tokio::spawn(consumers::by_group(reader, target)),
            "durable" => tokio::spawn(consumers::by_durable(reader, target)),
            "long poll" => tokio::spawn(consumers::by_polling(reader, target, subscription)),
            "by time" => tokio::spawn(by_history(reader, target, "from", "timestamp")),
            "by event" => tokio::spawn(by_history(reader, target, "after", "id")),
            "server-sent events" => tokio::spawn(by_sse(reader, target)),
            "cloudevents" => tokio::spawn(by_cloudevents(reader, target)),
            _ => tokio::spawn(by_client(reader, target)),
        }
    });
    let tasks = tasks.collect();
    (all.into(), tasks)
}

/// Our own client, which reconnects by itself.
async fn by_client(reader: Reader, target: Target) {
    let (name, channel, kind) = {
        let seen = reader.lock().unwrap();
        (seen.name, seen.channel, seen.kind)
    };
    loop {
        let client = target.client(name).await;
        let mut subscribe = Subscribe::to(channel).from(Start::Earliest);
        if let Some(kind) = kind {
            subscribe = subscribe.filter(json!({"data.kind": kind})).include("node");
        }
        let Ok(mut events) = client.subscribe(subscribe).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        connected(&reader);
        while let Some(delivery) = events.next().await {
            match delivery {
                Delivery::Event(event) => {
                    let raw: Value = serde_json::from_str(event.raw.get()).expect("JSON");
                    saw(&reader, event.seq, raw["id"].as_str().unwrap_or_default());
                }
                other => fault(&reader, format!("{other:?}")),
            }
        }
        return fault(&reader, format!("ended: {:?}", events.end_reason()));
    }
}

/// A bare WebSocket that remembers where it was. After an event it stops reading for as long as `rest` says.
async fn by_websocket(reader: Reader, target: Target, rest: impl Fn(u64) -> Duration) {
    let url = target.url.replacen("http", "ws", 1) + "/latest/ws";
    let mut position = json!("earliest");
    let mut epoch = Value::Null;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let connect = Raw::connect(&url, Some("kernelci.v1.json"), &[]);
        let Ok(Ok(mut raw)) = tokio::time::timeout(Duration::from_secs(5), connect).await else { continue };
        let hello = json!({"token": target.token});
        if !raw.try_request("session.hello", hello).await.is_ok_and(|answer| answer["error"].is_null()) {
            continue;
        }
        let subscribe = json!({"sub": 1, "channel": "node", "from": position});
        match raw.try_request("event.subscribe", subscribe).await {
            Ok(answer) if answer["error"].is_null() => {
                if answer["result"]["recovered"] != true {
                    fault(&reader, format!("not recovered from {position}: {answer}"));
                }
                let now = answer["result"]["position"]["epoch"].clone();
                if !epoch.is_null() && now != epoch {
                    fault(&reader, format!("another epoch: {answer}"));
                }
                epoch = now;
                if position == "earliest" {
                    position = answer["result"]["position"].clone();
                }
            }
            _ => continue,
        }
        connected(&reader);
        let mut heard = Instant::now();
        loop {
            match raw.receive(Duration::from_millis(500)).await {
                Ok(message) => {
                    heard = Instant::now();
                    let params = &message["params"];
                    match message["method"].as_str() {
                        Some("event") => {
                            let seq = params["seq"].as_u64().unwrap_or_default();
                            saw(&reader, seq, params["event"]["id"].as_str().unwrap_or_default());
                            position = json!({"epoch": epoch, "seq": seq});
                            tokio::time::sleep(rest(seq)).await;
                        }
                        Some("gap" | "unsubscribed") => fault(&reader, &message),
                        _ => {}
                    }
                }
                // Pings do not show here; a session without events is given up after a while, to be on the safe side.
                Err(Lost::TimedOut) if heard.elapsed() < Duration::from_secs(6) => {}
                Err(_) => break,
            }
        }
    }
}

/// What labs do: polls the history of all channels, each time behind the last event that came.
async fn by_history(reader: Reader, target: Target, parameter: &str, field: &str) {
    let client = reqwest::Client::new();
    let mut place = String::new();
    loop {
        let url = format!("{}/latest/events?limit=1000{place}", target.url);
        let request = client.get(&url).bearer_auth(&target.token);
        let poll = async { request.send().await?.error_for_status()?.json::<Vec<Value>>().await };
        let page = match tokio::time::timeout(Duration::from_secs(9), poll).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) if error.status().is_some_and(|status| status.is_client_error()) => {
                return fault(&reader, error);
            }
            _ => Vec::new(),
        };
        for event in page.iter().filter(|event| event["channel"] == "node") {
            let seq = event["sequence_id"].as_u64().unwrap_or_default();
            saw(&reader, seq, event["id"].as_str().unwrap_or_default());
        }
        match page.last() {
            Some(last) => place = format!("&{parameter}={}", last[field].as_str().unwrap_or_default()),
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn by_sse(reader: Reader, target: Target) {
    let client = reqwest::Client::new();
    let mut last_id: Option<String> = None;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut request = client.get(format!("{}/latest/events/feed?from=earliest", target.url));
        if let Some(id) = &last_id {
            request = request.header("last-event-id", id);
        }
        let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(5), request.send()).await else {
            continue;
        };
        if !answer.status().is_success() {
            continue;
        }
        connected(&reader);
        let mut stream = answer.bytes_stream();
        let mut text = String::new();
        while let Ok(Some(Ok(bytes))) = tokio::time::timeout(Duration::from_secs(6), stream.next()).await {
            text.push_str(&String::from_utf8_lossy(&bytes));
            while let Some((message, rest)) = text.split_once("\n\n") {
                let field = |name: &str| {
                    message
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(|value| value.trim().to_owned())
                };
                if let Some(id) = field("id:") {
                    last_id = Some(id);
                }
                match (field("event:"), field("data:")) {
                    (None, Some(data)) => {
                        let event: Value = serde_json::from_str(&data).expect("an event is JSON");
                        saw(&reader, sequence(&event), event["id"].as_str().unwrap_or_default());
                    }
                    (Some(kind), _) => fault(&reader, format!("{kind}: {message}")),
                    _ => {}
                }
                text = rest.to_owned();
            }
        }
    }
}

/// The feed of the CloudEvents WebSocket binding, continued by the sequence of the last event.
async fn by_cloudevents(reader: Reader, target: Target) {
    let base = target.url.replacen("http", "ws", 1) + "/latest/events/feed?data.kind=checkout&from=";
    let client = target.client("epoch").await;
    let mut position = "earliest".to_owned();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Some(epoch) = client.session().and_then(|session| session.epoch.clone()) else { continue };
        let url = format!("{base}{position}");
        let connect = Raw::connect(&url, Some("cloudevents.json"), &[]);
        let Ok(Ok(mut raw)) = tokio::time::timeout(Duration::from_secs(5), connect).await else { continue };
        connected(&reader);
        let mut heard = Instant::now();
        loop {
            match raw.receive(Duration::from_millis(500)).await {
                Ok(event) => {
                    heard = Instant::now();
                    saw(&reader, sequence(&event), event["id"].as_str().unwrap_or_default());
                    position = format!("{epoch}:{}", sequence(&event));
                }
                Err(Lost::TimedOut) if heard.elapsed() < Duration::from_secs(6) => {}
                Err(_) => break,
            }
        }
    }
}

fn sequence(event: &Value) -> u64 {
    event["sequence"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}
