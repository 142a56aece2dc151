//! `kill -9` under load: whatever was acknowledged has its event in the log exactly once, in order, without a hole.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Looks, Lost, PATIENCE, Raw, Server, both_backends, node, until};
use macro_rules_attribute::apply;
use serde_json::{Value, json};

const WRITERS: usize = 4;
/// Writes of one node, counted in its `data.error_msg` so that its events show which write they tell of.
const STEPS: u64 = 4;

/// How often the server is killed: `KILLS`, or a few times.
fn kills() -> u64 {
    std::env::var("KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// What writers and the reader need of the server; it lives through kills.
#[derive(Clone)]
struct Target {
    url: String,
    token: String,
}

impl Target {
    /// A session, as soon as the server is there to give one.
    async fn session(&self) -> Raw {
        let mut looks = Looks::new(2 * PATIENCE, "the server comes back");
        loop {
            if let Ok(mut raw) = Raw::connect(&self.url, Some("kernelci.v1.json"), &[]).await
                && let Ok(answer) = raw.try_request("session.hello", json!({"token": self.token})).await
                && answer["error"].is_null()
            {
                return raw;
            }
            looks.rest(&"no session").await;
        }
    }
}

/// A write: node id and step.
type Written = (String, u64);
/// Writes that the server has acknowledged.
type Acknowledged = Arc<Mutex<Vec<Written>>>;

/// Creates a node and updates it step by step, node after node, until `stop`. A create is repeated with its
/// idempotency key until it is answered; an update whose answer was lost is left as it is.
async fn write(number: usize, target: Target, stop: Arc<AtomicBool>, acknowledged: Acknowledged) -> usize {
    let mut raw = target.session().await;
    let mut nodes = 0;
    while !stop.load(Ordering::Relaxed) {
        nodes += 1;
        let name = format!("w{number}-{nodes}");
        let mut new = node("checkout", &name);
        new["data"] = json!({"error_msg": "1"});
        let create = json!({"node": new, "idempotency_key": name});
        let made = loop {
            match raw.try_request("node.create", create.clone()).await {
                Ok(answer) if answer["error"].is_null() => break answer,
                Ok(answer) => assert_eq!(answer["error"]["data"]["temporary"], true, "{answer}"),
                Err(_) => raw = target.session().await,
            }
        };
        let id = made["result"]["id"].as_str().expect("an id").to_owned();
        acknowledged.lock().unwrap().push((id.clone(), 1));
        for step in 2..=STEPS {
            let set = json!({"data": {"error_msg": step.to_string()}});
            match raw.try_request("node.update", json!({"id": id, "set": set, "if_revision": step - 1})).await
            {
                Ok(answer) if answer["error"].is_null() => {
                    acknowledged.lock().unwrap().push((id.clone(), step))
                }
                Ok(answer) => {
                    assert_eq!(answer["error"]["data"]["temporary"], true, "{answer}");
                    break;
                }
                Err(_) => {
                    raw = target.session().await;
                    break;
                }
            }
        }
    }
    nodes
}

/// What a subscriber has seen over all its connections.
#[derive(Default)]
struct Seen {
    position: Option<(Value, u64)>,
    event_ids: HashSet<String>,
    /// Node id → last step.
    steps: HashMap<String, u64>,
    writes: HashSet<Written>,
    created: HashSet<String>,
    /// How many connections it has had.
    connections: Arc<AtomicUsize>,
}

impl Seen {
    /// Checks one event against everything before it.
    fn take(&mut self, params: &Value) {
        let seq = params["seq"].as_u64().expect("a sequence number");
        let (_, last) = self.position.as_mut().expect("subscribed");
        assert_eq!(seq, *last + 1, "the sequence has a hole or goes back");
        *last = seq;
        let event = &params["event"];
        assert!(self.event_ids.insert(event["id"].to_string()), "twice: {event}");
        let data = &event["data"];
        let id = data["id"].as_str().expect("a node").to_owned();
        let step: u64 = data["data"]["error_msg"].as_str().expect("a step").parse().expect("a number");
        let before = self.steps.insert(id.clone(), step).unwrap_or(0);
        assert_eq!(step, before + 1, "events of node {id} are out of order: {event}");
        assert!(self.writes.insert((id, step)));
        if data["op"] == "created" {
            assert!(self.created.insert(data["name"].to_string()), "created twice: {event}");
        }
    }

    /// Reads one connection's worth of events, until it is lost or `done`.
    async fn follow(&mut self, target: &Target, done: impl Fn(&Seen) -> bool) {
        let mut raw = target.session().await;
        let from = match &self.position {
            Some((epoch, seq)) => json!({"epoch": epoch, "seq": seq}),
            None => json!("earliest"),
        };
        let subscribe = json!({"sub": 1, "channel": "node", "from": from});
        let answer = match raw.try_request("event.subscribe", subscribe).await {
            Ok(answer) if answer["error"].is_null() => answer,
            Ok(answer) => return assert_eq!(answer["error"]["data"]["temporary"], true, "{answer}"),
            Err(_) => return,
        };
        assert_eq!(answer["result"]["recovered"], true, "{answer}");
        self.connections.fetch_add(1, Ordering::Relaxed);
        let epoch = &answer["result"]["position"]["epoch"];
        match &self.position {
            Some((before, _)) => assert_eq!(before, epoch, "the history is another one"),
            None => self.position = Some((epoch.clone(), 0)),
        }
        while !done(self) {
            match raw.receive(Duration::from_millis(200)).await {
                Ok(message) if message["method"] == "event" => self.take(&message["params"]),
                Ok(message) => assert_ne!(message["method"], "gap", "{message}"),
                Err(Lost::TimedOut) => {}
                Err(_) => return,
            }
        }
    }
}

#[apply(both_backends!)]
async fn nothing_acknowledged_is_lost_or_doubled(mut server: Server) {
    let target = Target { url: server.ws_url(), token: server.token().await.to_owned() };
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Acknowledged::default();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| tokio::spawn(write(number, target.clone(), stop.clone(), acknowledged.clone())))
        .collect();
    // Set when everything has been written: what the reader has to have seen in the end.
    let expected: Arc<Mutex<Option<HashSet<Written>>>> = Arc::default();
    let give_up = Arc::new(AtomicBool::new(false));
    let connections = Arc::new(AtomicUsize::new(0));
    let mut reader = tokio::spawn({
        let (target, expected, give_up) = (target.clone(), expected.clone(), give_up.clone());
        let mut seen = Seen { connections: connections.clone(), ..Seen::default() };
        async move {
            let complete = |seen: &Seen| {
                let all = expected.lock().unwrap();
                give_up.load(Ordering::Relaxed) || all.as_ref().is_some_and(|all| all.is_subset(&seen.writes))
            };
            while !complete(&seen) {
                seen.follow(&target, complete).await;
            }
            seen
        }
    });

    let kills = kills();
    for kill in 0..=kills {
        let before = acknowledged.lock().unwrap().len();
        // Never at the same place, only when there was something to lose, and only when the reader is there.
        let wanted = before + 20 + 13 * (kill as usize % 7);
        until(&format!("writes are acknowledged and read after {kill} kills"), async || {
            let now = (acknowledged.lock().unwrap().len(), connections.load(Ordering::Relaxed));
            if now.0 >= wanted && now.1 > kill as usize { Ok(()) } else { Err((now, wanted)) }
        })
        .await;
        if kill < kills {
            server.kill9();
            server.restart().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut nodes = 0;
    for writer in writers {
        nodes += writer.await.expect("the writer's assertions hold");
    }
    // What the store says was written, acknowledged or not: every revision of every node has its event.
    let mut raw = target.session().await;
    let mut all: HashSet<Written> = HashSet::new();
    let mut page = json!({"limit": 1000, "fields": ["id", "revision", "data"]});
    loop {
        let mut found = raw.call("node.find", page.clone()).await;
        for node in found["items"].as_array().expect("items") {
            let revision = node["revision"].as_u64().expect("a revision");
            assert_eq!(node["data"]["error_msg"], revision.to_string());
            all.extend((1..=revision).map(|step| (node["id"].as_str().expect("an id").to_owned(), step)));
        }
        page["after"] = found["next"].take();
        if page["after"].is_null() {
            break;
        }
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    for write in &acknowledged {
        assert!(all.contains(write), "acknowledged and gone: {write:?}");
    }
    *expected.lock().unwrap() = Some(all.clone());
    let seen = match tokio::time::timeout(2 * PATIENCE, &mut reader).await {
        Ok(seen) => seen,
        Err(_) => {
            // What it has seen says what is missing.
            give_up.store(true, Ordering::Relaxed);
            reader.await
        }
    };
    let seen = seen.expect("the reader's assertions hold");
    let missing: Vec<(&Written, bool)> =
        all.difference(&seen.writes).map(|write| (write, acknowledged.contains(write))).collect();
    let (count, of) = (missing.len(), all.len());
    assert!(missing.is_empty(), "{count} of {of} writes have no event (true: acknowledged): {missing:?}");
    assert!(seen.writes.is_subset(&all), "an event of something that was not written");
    assert!(connections.load(Ordering::Relaxed) > kills as usize, "the reader was cut by the kills");
    assert_eq!(seen.created.len(), nodes, "every node was created once, however often that was asked for");
    // A new reader finds the same history.
    let mut again = Seen::default();
    let (_, last) = seen.position.expect("a position");
    again.follow(&target, |seen| seen.position.as_ref().is_some_and(|(_, seq)| *seq >= last)).await;
    assert!(all.is_subset(&again.writes));
    let (told, events) = (acknowledged.len(), all.len());
    println!(
        "{kills} kills, {told} writes acknowledged, {events} events; none lost, doubled or out of order"
    );
}
