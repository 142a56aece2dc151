//! `scripts/soak floods`: each flood by itself, by one attacker and by a hundred, and what others notice of it; then all of
//! them at once, while parts are killed and frozen and an oracle counts events; and a slow reader all the time. At default
//! settings, on a release build. With another build in `FLOODS_BEFORE` both are measured, one behind the other.

mod attack;
mod probe;

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};

use self::attack::{Attack, Attackers};
use self::probe::{Figures, MOST_MEMORY, Probe, percentile};
use crate::faults::cluster::Cluster;
use crate::faults::fault::Fault;
use crate::faults::run::{Run, number};
use crate::faults::services::Keeps;
use crate::support::{Backend, Raw, Server};

const ATTACKERS: [usize; 2] = [1, 100];
const BACKENDS: [Backend; 2] = [Backend::Embedded, Backend::Production];
/// Of the whole time, for the table; the rest is for faults.
const OF_TABLE: f64 = 0.7;
/// Measured for so long at least.
const SHORTEST: Duration = Duration::from_secs(2);
/// How long a flood has gone on when measuring begins.
const BEGUN: Duration = Duration::from_millis(500);

/// A row of the table.
struct Row {
    backend: Backend,
    flood: &'static str,
    attackers: usize,
    before: Option<Figures>,
    now: Figures,
}

pub async fn soak() {
    let minutes = number("FLOOD_MINUTES").unwrap_or(10).max(1);
    let whole = Duration::from_secs(60 * minutes);
    let before = std::env::var("FLOODS_BEFORE").ok();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} processors, for the server, its services, the attackers and who measures; now: {}; before: {}",
        crate::support::binary(),
        before.as_deref().unwrap_or("-")
    );
    let floods = async {
        let rows = measure_all(whole.mul_f64(OF_TABLE), before.as_deref()).await;
        print(&rows);
        all_under_faults(whole.mul_f64(1.0 - OF_TABLE)).await;
        rows
    };
    let (rows, slow) = tokio::join!(floods, slow_reader(whole.min(Duration::from_secs(300))));
    println!("{slow}");
    for row in rows {
        assert!(row.now.memory < MOST_MEMORY, "{}: {} MiB", row.flood, row.now.memory >> 20);
    }
}

async fn measure_all(whole: Duration, before: Option<&str>) -> Vec<Row> {
    let mut floods: Vec<Option<Attack>> = vec![None];
    floods.extend(attack::all().into_iter().map(Some));
    let builds = 1 + u32::from(before.is_some());
    let each = (whole / (floods.len() * ATTACKERS.len() * BACKENDS.len()) as u32 / builds).max(SHORTEST);
    let mut rows = Vec::new();
    for backend in BACKENDS {
        for flood in &floods {
            for attackers in ATTACKERS {
                let flood_name = flood.as_ref().map_or("none", |flood| flood.name);
                if flood.is_none() && attackers > 1 {
                    continue;
                }
                // One behind the other, so that both have the machine as it is then.
                let old = match before {
                    Some(binary) => {
                        let server = Server::start_apart(backend, &[("KERNELCI_LIVE", binary)]).await;
                        Some(measure(&server, flood.as_ref(), attackers, each).await)
                    }
                    None => None,
                };
                let server = Server::start(backend).await;
                let now = measure(&server, flood.as_ref(), attackers, each).await;
                println!("{backend:?}, {flood_name}, {attackers}: {} measured", now.health.len());
                rows.push(Row { backend, flood: flood_name, attackers, before: old, now });
            }
        }
    }
    rows
}

async fn measure(server: &Server, flood: Option<&Attack>, attackers: usize, time: Duration) -> Figures {
    let mut probe = Probe::come(server).await;
    let floods: &[Attack] = flood.map_or(&[], std::slice::from_ref);
    let attackers = Attackers::begin(floods, attackers, server.port());
    sleep(BEGUN).await;
    probe.measure(time, &attackers).await
}

fn print(rows: &[Row]) {
    println!(
        "| back end | flood | attackers | build | /health ms: p50 | p99 | max | indexed find: p50 | p99 | max | event: p50 | p99 | max | RSS MiB | descriptors |"
    );
    println!(
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    let cells = |figures: &Figures| {
        let Figures { health, find, event, memory, descriptors } = figures;
        let times = [health, find, event]
            .into_iter()
            .flat_map(|all| [0.5, 0.99, 1.0].map(|part| 1e3 * percentile(all, part)));
        times.chain([(memory >> 20) as f64, *descriptors as f64]).collect::<Vec<f64>>()
    };
    for Row { backend, flood, attackers, before, now } in rows {
        let line = |build: &str, cells: &[f64]| {
            let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:.1}")).collect();
            println!("| {backend:?} | {flood} | {attackers} | {build} | {} |", cells.join(" | "));
        };
        let now = cells(now);
        if let Some(before) = before.as_ref().map(cells) {
            line("before", &before);
            line("now", &now);
            let ratio: Vec<f64> = now.iter().zip(&before).map(|(now, before)| now / before).collect();
            line("now / before", &ratio);
        } else {
            line("now", &now);
        }
    }
}

async fn all_under_faults(whole: Duration) {
    let faults = [Fault::KillInstance, Fault::CutClients, Fault::FreezeInstance];
    under_faults(Cluster::embedded().await, &faults, whole / 2).await;
    let faults = [Fault::KillInstance, Fault::FreezeRedis, Fault::CutClients, Fault::FreezePrimary];
    under_faults(Cluster::production(1, 1, Keeps::Nothing).await, &faults, whole / 2).await;
}

/// All floods at once, writers and readers of every kind, and faults; in the end the oracle looks for what is missing.
async fn under_faults(cluster: Cluster, faults: &[Fault], time: Duration) {
    let port = cluster.servers[0].port();
    let mut run = Run::on(cluster).await;
    let attackers = Attackers::begin(&attack::all(), 2, port);
    let end = Instant::now() + time;
    for fault in faults.iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        run.suffer(*fault).await;
        sleep((end - Instant::now()).min(Duration::from_secs(5))).await;
    }
    drop(attackers);
    run.end().await;
}

/// Takes 60 kB a second, answers each ping as soon as it sees it, and is 16 MB behind if there are five minutes. How it
/// went.
async fn slow_reader(time: Duration) -> String {
    const EVENT: usize = 20_000;
    const EACH: Duration = Duration::from_millis(333);
    let events = (time.as_millis() / EACH.as_millis()).min(800) as u64;
    let server = Server::start(Backend::Embedded).await;
    let mut writer = server.admin().await;
    for _ in 0..events {
        writer.call("event.publish", json!({"channel": "lab", "data": "x".repeat(EVENT)})).await;
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(32 << 10).expect("a small buffer");
    let stream = socket.connect(([127, 0, 0, 1], server.port()).into()).await.expect("connects");
    let mut slow = Raw::over(stream, &server.ws_url(), Some("kernelci.v1.json"), &[])
        .await
        .expect("the upgrade succeeds");
    slow.call("session.hello", json!({})).await;
    slow.call("event.subscribe", json!({"sub": 1, "channel": "lab", "from": "earliest"})).await;
    let begun = Instant::now();
    for seq in 1..=events {
        assert_eq!(slow.event(1).await["seq"], seq, "after {:?}", begun.elapsed());
        tokio::time::sleep_until(begun + EACH * seq as u32).await;
    }
    format!(
        "a reader of 60 kB/s had all of {events} events of {EVENT} bytes after {:.0} s",
        begun.elapsed().as_secs_f64()
    )
}
