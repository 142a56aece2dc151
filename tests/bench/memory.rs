//! What an idle session with one subscription costs in the server.

use std::time::Duration;

use futures::StreamExt;
use kernelci_live::client::Subscribe;

use crate::load::sessions;
use crate::report::{Figure, RUNS, Report};
use crate::support::{Backend, Server};

const SESSIONS: usize = 5000;
/// What it may cost.
const BOUND_KB: f64 = 10.0;

pub(crate) async fn measure(backend: Backend, report: &mut Report) {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(run(backend).await);
    }
    report.add(Figure {
        name: "memory of an idle session of 5,000",
        backend: Some(backend),
        unit: "kB",
        ours: &runs,
        peer: Some(("bound", &[BOUND_KB])),
    });
}

async fn run(backend: Backend) -> f64 {
    let server = Server::start(backend).await;
    // What the first session costs belongs to the server.
    let first = sessions(&server, 1).await;
    let _first = first[0].subscribe(Subscribe::to("node")).await.expect("a subscription");
    let before = resident_kb(server.pid());
    let clients = sessions(&server, SESSIONS).await;
    let subscribe = |client| async move {
        kernelci_live::client::Client::subscribe(client, Subscribe::to("node")).await.expect("a subscription")
    };
    let subscriptions: Vec<_> =
        futures::stream::iter(&clients).map(subscribe).buffer_unordered(64).collect().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = resident_kb(server.pid());
    assert_eq!(subscriptions.len(), SESSIONS);
    (after - before) / SESSIONS as f64
}

fn resident_kb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
