//! A rolling restart: clients are told at times of their own and resume elsewhere, without a stampede or a loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kernelci_live::client::{Auth, Client, Delivery, Options, Publish, State, Subscribe};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::run::number;
use super::services::Keeps;
use crate::support::{eventually, until};

/// One client that follows a channel; it notes when it comes back and what it is shown.
async fn follow(
    client: Client,
    begun: Instant,
    returns: Arc<std::sync::Mutex<Vec<Duration>>>,
    seen: Arc<AtomicUsize>,
    subscribed: Arc<AtomicUsize>,
) {
    let mut events = client.subscribe(Subscribe::to("drain")).await.expect("subscribes");
    subscribed.fetch_add(1, Ordering::Relaxed);
    let mut state = client.state();
    loop {
        tokio::select! {
            delivery = events.next() => match delivery {
                Some(Delivery::Event(_)) => { seen.fetch_add(1, Ordering::Relaxed); }
                other => panic!("{other:?}"),
            },
            Ok(()) = state.changed() => {
                if matches!(*state.borrow_and_update(), State::Connected(_)) {
                    returns.lock().unwrap().push(begun.elapsed());
                }
            }
        }
    }
}

/// Restarts both instances under `FAULT_CLIENTS` clients over `FAULT_DRAIN_SECONDS` each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_moves_clients_evenly() {
    let clients = number("FAULT_CLIENTS").unwrap_or(200) as usize;
    let seconds = number("FAULT_DRAIN_SECONDS").unwrap_or(4);
    let drain = (seconds * 1000).to_string();
    let mut cluster = Cluster::production_with(2, 1, Keeps::Nothing, &[("DRAIN_MS", &drain)]).await;
    let token = cluster.servers[0].token().await.to_owned();
    let url = cluster.url();
    let connect = async || {
        let options = || Options::new(&url).auth(Auth::Token(token.clone()));
        until("a client connects", async || {
            Client::connect(options()).await.map_err(|error| error.to_string())
        })
        .await
    };
    let publisher = connect().await;
    // What an instance gives up on a busy machine is tried again, by the same key: it comes once.
    let publish = async |data: Value| {
        let key = Some(format!("drain-{data}"));
        let event = Publish { channel: "drain".into(), data, idempotency_key: key, ..Publish::default() };
        until("an event is published", async || publisher.event_publish(event.clone()).await).await
    };
    publish(json!("first")).await;
    let (begun, returns, seen) = (Instant::now(), Arc::default(), Arc::<AtomicUsize>::default());
    let (mut followers, subscribed) = (Vec::new(), Arc::<AtomicUsize>::default());
    for _ in 0..clients {
        let client = connect().await;
        followers.push(tokio::spawn(follow(
            client,
            begun,
            Arc::clone(&returns),
            seen.clone(),
            subscribed.clone(),
        )));
    }
    eventually("all of them subscribe", async || subscribed.load(Ordering::Relaxed) == clients).await;
    returns.lock().unwrap().clear();

    let mut published = 0;
    for instance in 0..2 {
        let from = begun.elapsed();
        cluster.servers[instance].ask_to_stop();
        let mut ended = Box::pin(cluster.servers[instance].exited());
        loop {
            tokio::select! {
                _ = &mut ended => break,
                // The proxies and all clients share one process with this: it must not be what is measured.
                () = tokio::time::sleep(Duration::from_millis(clients as u64)) => {
                    publish(json!(published)).await;
                    published += 1;
                }
            }
        }
        drop(ended);
        cluster.servers[instance].restart().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let moved = std::mem::take(&mut *returns.lock().unwrap());
        let mut a_second = vec![0_usize; seconds as usize + 5];
        for at in &moved {
            let second = at.saturating_sub(from).as_secs() as usize;
            a_second[second.min(seconds as usize + 4)] += 1;
        }
        let mean = moved.len() as f64 / seconds as f64;
        let most = a_second.iter().copied().max().unwrap_or(0);
        println!(
            "instance {instance}: {} clients came back, a second: {a_second:?}; most {most}, mean {mean:.1}",
            moved.len()
        );
        // With few clients chance alone makes such a second, and a busy machine makes it of many: only by hand.
        if number("FAULT_CLIENTS").is_some() {
            assert!((most as f64) <= 2.0 * mean);
        }
    }
    // The last one comes to everybody behind what may come twice.
    publish(json!("last")).await;
    published += 1;
    let wanted = published * clients;
    let came = until("the events come", async || match seen.load(Ordering::Relaxed) {
        now if now < wanted => Err((now, wanted)),
        now => Ok(now),
    })
    .await;
    assert_eq!(came, wanted, "each event once");
    followers.iter().for_each(|follower| follower.abort());
}
