//! Readers whose place the server keeps: durable consumers, groups, long polls.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::readers::{Reader, connected, fault, saw};
use super::workload::Target;
use crate::support::{Lost, Raw};

/// A WebSocket that has said hello, if somebody answers now.
async fn session(target: &Target) -> Option<Raw> {
    let url = target.url.replacen("http", "ws", 1) + "/latest/ws";
    let connect = Raw::connect(&url, Some("kernelci.v1.json"), &[]);
    let mut raw = tokio::time::timeout(Duration::from_secs(5), connect).await.ok()?.ok()?;
    let answer = raw.try_request("session.hello", json!({"token": target.token})).await.ok()?;
    answer["error"].is_null().then_some(raw)
}

/// A durable consumer: acknowledges a part of what it gets, loses its connection, takes over from itself. It keeps no
/// place: the server has to.
pub async fn by_durable(reader: Reader, target: Target) {
    let subscribe =
        json!({"sub": 1, "channel": "node", "durable": "faults-durable", "from": "earliest", "window": 40});
    let (mut acknowledged, mut last) = (0, 0);
    let mut before: Option<Raw> = None;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Some(mut raw) = session(&target).await else { continue };
        match raw.try_request("event.subscribe", subscribe.clone()).await {
            Ok(answer) if answer["error"].is_null() => {
                if answer["result"]["recovered"] != true {
                    fault(&reader, format!("not recovered: {answer}"));
                }
            }
            _ => continue,
        }
        connected(&reader);
        // What is acknowledged already may be acknowledged again: that changes nothing.
        if let Some(mut old) = before.take().filter(|_| last > acknowledged)
            && let Ok(answer) = old.try_request("event.ack", json!({"sub": 1, "seq": last})).await
            && answer["error"].is_null()
        {
            fault(&reader, "an acknowledgement was accepted from a connection that was taken over from");
        }
        let mut heard = Instant::now();
        let mut life = rand::random_range(20..400);
        while life > 0 {
            let params = match raw.receive(Duration::from_millis(500)).await {
                Ok(message) if message["method"] == "event" => message["params"].clone(),
                Ok(message) if message["method"] == "gap" => {
                    fault(&reader, message);
                    continue;
                }
                Ok(message) if message["method"] == "unsubscribed" => break,
                Ok(_) => continue,
                Err(Lost::TimedOut) if heard.elapsed() < Duration::from_secs(6) => continue,
                Err(_) => break,
            };
            (heard, life) = (Instant::now(), life - 1);
            let seq = params["seq"].as_u64().unwrap_or_default();
            if seq <= acknowledged {
                fault(&reader, format!("{seq} was delivered again, {acknowledged} was acknowledged"));
            }
            if seq > last {
                saw(&reader, seq, params["event"]["id"].as_str().unwrap_or_default());
                last = seq;
            }
            // The window is full after 40.
            if seq % 10 == 0 || rand::random_ratio(1, 30) {
                let ack = raw.try_request("event.ack", json!({"sub": 1, "seq": seq}));
                match tokio::time::timeout(Duration::from_secs(6), ack).await {
                    Ok(Ok(answer)) if answer["error"].is_null() => acknowledged = acknowledged.max(seq),
                    Ok(Ok(_)) => {}
                    _ => break,
                }
            }
        }
        before = (life == 0).then_some(raw);
    }
}

/// A subscription for long polls, which has a name so that it outlives everything.
pub async fn open_subscription(target: &Target) -> u64 {
    let url = format!("{}/latest/subscribe/node?promisc=true&subscriber_id=faults", target.url);
    let answer = reqwest::Client::new().post(url).bearer_auth(&target.token).send().await;
    let answer: Value = answer.expect("an answer").json().await.expect("JSON");
    answer["id"].as_u64().unwrap_or_else(|| panic!("no subscription: {answer}"))
}

/// Polls one event after the other.
pub async fn by_polling(reader: Reader, target: Target, subscription: u64) {
    reader.lock().unwrap().unanswered = Some(0);
    let client = reqwest::Client::new();
    let url = format!("{}/latest/listen/{subscription}", target.url);
    loop {
        let poll = async {
            client.get(&url).bearer_auth(&target.token).send().await?.error_for_status()?.json().await
        };
        let message: Value = match tokio::time::timeout(Duration::from_secs(9), poll).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) if error.status().is_some_and(|status| status.is_client_error()) => {
                return fault(&reader, error);
            }
            _ => {
                *reader.lock().unwrap().unanswered.as_mut().expect("set above") += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let event = serde_json::from_str(message["data"].as_str().unwrap_or_default()).unwrap_or(Value::Null);
        match event["_sequence_id"].as_u64() {
            Some(seq) => saw(&reader, seq, event["id"].as_str().unwrap_or_default()),
            None if event["data"] == "BEEP" => {}
            None => fault(&reader, message),
        }
    }
}

/// What the members of a group know together.
#[derive(Default)]
struct Work {
    /// Events that somebody was given.
    given: HashSet<u64>,
    /// Events whose acknowledgement was answered, with the delivery that it was of: none may come after it.
    done: HashMap<u64, u64>,
}

/// The members of a group: they acknowledge, give back, are slow, and die with what they hold.
pub async fn by_group(reader: Reader, target: Target) {
    reader.lock().unwrap().shared = true;
    let work = Arc::<Mutex<Work>>::default();
    let members = (0..3).map(|_| member(reader.clone(), target.clone(), work.clone()));
    futures::future::join_all(members).await;
}

async fn member(reader: Reader, target: Target, work: Arc<Mutex<Work>>) {
    let subscribe = json!({"sub": 1, "channel": "node", "durable": "faults-group", "group": true, "from": "earliest",
        "window": 8, "ack_wait_ms": 3000, "max_deliveries": 1000});
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Some(mut raw) = session(&target).await else { continue };
        if !raw
            .try_request("event.subscribe", subscribe.clone())
            .await
            .is_ok_and(|answer| answer["error"].is_null())
        {
            continue;
        }
        connected(&reader);
        let mut heard = Instant::now();
        let mut life = rand::random_range(20..200);
        while life > 0 {
            let params = match raw.receive(Duration::from_millis(500)).await {
                Ok(message) if message["method"] == "event" => message["params"].clone(),
                Ok(message) if message["method"] == "gap" => {
                    fault(&reader, message);
                    continue;
                }
                Ok(message) if message["method"] == "unsubscribed" => break,
                Ok(_) => continue,
                // The others may have all there is.
                Err(Lost::TimedOut) if heard.elapsed() < Duration::from_secs(6) => continue,
                Err(_) => break,
            };
            (heard, life) = (Instant::now(), life - 1);
            let number = |name: &str| params[name].as_u64().unwrap_or_default();
            let (seq, deliveries) = (number("seq"), number("deliveries"));
            {
                let mut work = work.lock().unwrap();
                if work.done.get(&seq).is_some_and(|done| *done < deliveries) {
                    fault(&reader, format!("{seq} was given out again, it was acknowledged: {params}"));
                }
                if work.given.insert(seq) {
                    saw(&reader, seq, params["event"]["id"].as_str().unwrap_or_default());
                }
            }
            if rand::random_ratio(1, 50) {
                // Longer than it may take.
                tokio::time::sleep(Duration::from_millis(3500)).await;
            }
            let nack = rand::random_ratio(1, 20);
            let method = if nack { "event.nack" } else { "event.ack" };
            let say = raw.try_request(method, json!({"sub": 1, "seq": seq, "deliveries": deliveries}));
            match tokio::time::timeout(Duration::from_secs(6), say).await {
                Ok(Ok(answer)) if answer["error"].is_null() && !nack => {
                    if work.lock().unwrap().done.insert(seq, deliveries).is_some() {
                        fault(&reader, format!("{seq} was acknowledged twice"));
                    }
                }
                Ok(Ok(_)) => {}
                _ => break,
            }
        }
    }
}
