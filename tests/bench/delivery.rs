//! From `node.create` on one session to its event on another.

use std::time::{Duration, Instant};

use kernelci_live::client::{Client, Delivery, Subscribe, Subscription};
use redis::AsyncConnectionConfig;
use redis::streams::StreamReadReply;

use crate::load::{checkout, sessions};
use crate::report::{Figure, RUNS, Report, ms, percentile};
use crate::support::{Backend, Server, services};
use crate::{mongo, sqlite};

const EVENTS: usize = 1000;

pub(crate) async fn measure(backend: Backend, report: &mut Report) {
    let server = Server::start(backend).await;
    let clients = sessions(&server, 2).await;
    let mut events = clients[1].subscribe(Subscribe::to("node")).await.expect("a subscription");
    ours(&clients[0], &mut events, 100).await;
    let mut peers: Vec<(&str, Runs)> = match backend {
        Backend::Embedded => vec![("SQLite, 1 node and event, durable", Runs::default())],
        Backend::Production => vec![
            ("Redis XADD, XREAD BLOCK", Runs::default()),
            ("driver insert, then Redis round trip", Runs::default()),
        ],
    };
    let mut own = Runs::default();
    for _ in 0..RUNS {
        own.add(&ours(&clients[0], &mut events, EVENTS).await);
        match backend {
            Backend::Embedded => peers[0].1.add(&bare_sqlite().await),
            Backend::Production => {
                let redis = bare_redis(&server).await;
                peers[0].1.add(&redis);
                let inserts = bare_inserts(&server).await;
                let both: Vec<f64> =
                    redis.iter().zip(inserts).map(|(redis, insert)| redis + insert).collect();
                peers[1].1.add(&both);
            }
        }
    }
    for (peer, times) in &peers {
        for (name, ours, peers) in
            [("create to event, p50", &own.p50, &times.p50), ("create to event, p99", &own.p99, &times.p99)]
        {
            let peer = Some((*peer, peers.as_slice()));
            report.add(Figure { name, backend: Some(backend), unit: "ms", ours, peer });
        }
    }
}

#[derive(Default)]
struct Runs {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Runs {
    fn add(&mut self, times: &[f64]) {
        self.p50.push(percentile(times, 50));
        self.p99.push(percentile(times, 99));
    }
}

async fn ours(writer: &Client, events: &mut Subscription, count: usize) -> Vec<f64> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let node = checkout(&format!("d{number}"));
        let sent = Instant::now();
        let received = async {
            match events.next().await {
                Some(Delivery::Event(_)) => sent.elapsed(),
                other => panic!("expected an event, got {other:?}"),
            }
        };
        let (created, took) = tokio::join!(writer.node_create(&node, None), received);
        created.expect("created");
        times.push(ms(took));
    }
    times
}

async fn bare_sqlite() -> Vec<f64> {
    let text = checkout("peer").to_string();
    let mut peer = sqlite::Peer::new(text.clone(), text);
    let run = move || (0..EVENTS).map(|_| timed(|| peer.write(1))).collect();
    tokio::task::spawn_blocking(run).await.expect("the loop ends well")
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let begin = Instant::now();
    work();
    ms(begin.elapsed())
}

async fn bare_inserts(server: &Server) -> Vec<f64> {
    let peer = mongo::Peer::new(server).await;
    let mut times = Vec::with_capacity(EVENTS);
    for _ in 0..EVENTS {
        let document = peer.document();
        let begin = Instant::now();
        peer.nodes.insert_one(document).await.expect("an insert");
        times.push(ms(begin.elapsed()));
    }
    peer.nodes.drop().await.expect("dropped");
    peer.indexed.drop().await.expect("dropped");
    times
}

/// One connection adds, another waits.
async fn bare_redis(server: &Server) -> Vec<f64> {
    let client = redis::Client::open(services().redis.as_str()).expect("a Redis URL");
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let connect = || client.get_multiplexed_async_connection_with_config(&config);
    let (mut writer, mut reader) = (connect().await.expect("Redis"), connect().await.expect("Redis"));
    let key = format!("{}:peer", server.setting("REDIS_PREFIX").expect("a production server"));
    let text = checkout("peer").to_string();
    let mut times = Vec::with_capacity(EVENTS);
    for number in 1..=EVENTS {
        let mut read = redis::cmd("XREAD");
        read.arg("BLOCK").arg(5000).arg("STREAMS").arg(&key).arg(format!("{}-0", number - 1));
        let mut add = redis::cmd("XADD");
        add.arg(&key).arg(format!("{number}-0")).arg("j").arg(&text);
        let waiting = async {
            let reply: StreamReadReply = read.query_async(&mut reader).await.expect("an answer");
            assert_eq!(reply.keys.len(), 1);
            Instant::now()
        };
        let adding = async {
            // The reader waits by then.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let begin = Instant::now();
            add.exec_async(&mut writer).await.expect("added");
            begin
        };
        let (end, begin) = tokio::join!(waiting, adding);
        times.push(ms(end - begin));
    }
    redis::cmd("UNLINK").arg(&key).exec_async(&mut writer).await.expect("removed");
    times
}
