//! Events that are large, or full of values: whoever reads them reads a piece at a time, and making answers of them holds
//! nobody up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::looks::{At, at_rest, is_back};
use super::{Bystander, head, says};
use crate::support::{Backend, Http, Server, answer, both_backends_in_pairs, eventually};

/// Of a megabyte each.
const LARGE: usize = 48;
/// What readers that take nothing may cost, however much is before them: a piece each, and what the allocator keeps.
const MEMORY: u64 = 96 << 20;

/// Somebody who asks how the server is again and again, on a thread of their own: those who read large answers are busy.
struct Others {
    ended: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Others {
    fn begin(port: u16) -> Others {
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let ask = move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
            let (mut worst, mut answer) = (Duration::ZERO, [0; 4096]);
            while !until.load(Ordering::Relaxed) {
                let begun = Instant::now();
                stream.write_all(head("GET /latest/health", None, "").as_bytes()).expect("asked");
                let length = stream.read(&mut answer).expect("answered");
                assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{:?}", &answer[..length]);
                worst = worst.max(begun.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            worst
        };
        Others { ended, thread: std::thread::spawn(ask) }
    }

    /// The longest that they have waited.
    fn worst(self) -> Duration {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("they were answered")
    }
}

async fn publish(bystander: &mut Bystander, channel: &str, count: usize, data: &Value) {
    for _ in 0..count {
        bystander.session.call("event.publish", json!({"channel": channel, "data": data})).await;
    }
}

/// Strangers who begin at the beginning, and take nothing.
#[apply(both_backends_in_pairs!)]
async fn catching_up_holds_a_piece_at_a_time(backend: Backend) {
    let server = Server::start_with(backend, &[("MIMALLOC_PURGE_DELAY", "0")]).await;
    let mut bystander = Bystander::come(&server).await;
    publish(&mut bystander, "lab", LARGE, &json!("x".repeat(1_000_000))).await;
    // What is followed once is followed for a while.
    let lab = json!({"sub": 2, "channel": "lab", "from": "earliest"});
    bystander.session.call("event.subscribe", lab.clone()).await;
    for _ in 0..LARGE {
        bystander.session.event(2).await;
    }
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    let feed = head("GET /latest/events/feed?channel=lab&from=earliest", None, "");
    let (mut sessions, mut feeds) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let mut session = server.anonymous().await;
        session.call("event.subscribe", lab.clone()).await;
        sessions.push(session.into_stream());
        feeds.push(says(&server, feed.as_bytes()).await);
    }
    let mut most = 0;
    for _ in 0..10 {
        bystander.work().await;
        most = most.max(server.memory().saturating_sub(memory));
    }
    assert!(most < MEMORY, "{} MiB", most >> 20);
    drop((sessions, feeds));
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
}

/// Megabytes of small values, asked for in every way: nobody waits for as long as that takes.
#[apply(both_backends_in_pairs!)]
async fn answers_full_of_values_hold_nobody_up(backend: Backend) {
    let server =
        Server::start_with(backend, &[("ANSWERS_MB", "2048"), ("ANSWERS_MB_PER_USER", "2048")]).await;
    let mut bystander = Bystander::come(&server).await;
    publish(&mut bystander, "dense", 20, &json!(vec![1; 99_000])).await;
    let http = Http::admin(&server).await;
    let find = json!({"jsonrpc": "2.0", "id": 1, "method": "event.find",
        "params": {"channel": "dense", "limit": 1000}});
    eventually("all of them are in the history", async || {
        let last = http.get("/latest/events?channel=dense&offset=19&limit=1").await;
        last.json.as_array().is_some_and(|events| events.len() == 1)
    })
    .await;
    let by_rpc =
        || async { answer(http.request("POST", "/latest/rpc").body(find.to_string())).await.text.len() };
    let by_rest = || async { http.get("/latest/events?channel=dense&limit=1000").await.text.len() };
    let by_session = || async {
        let mut session = server.admin().await;
        let found = session.call("event.find", find["params"].clone()).await;
        found["items"].as_array().map_or(0, Vec::len)
    };
    let others = Others::begin(server.port());
    let begun = Instant::now();
    let found = tokio::join!(by_rpc(), by_rpc(), by_rest(), by_rest(), by_session(), by_session());
    let (took, worst) = (begun.elapsed(), others.worst());
    assert!(found.0 > 7_000_000 && found.2 > 3_000_000 && found.4 == 20, "{found:?}");
    println!("{took:?}, others at most {worst:?}");
    assert!(worst < took / 3, "somebody else waited for {worst:?} of {took:?}");
}
