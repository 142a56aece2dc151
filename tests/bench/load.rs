//! Bounded load: clients of the server under test, and loops that count.

use std::time::{Duration, Instant};

use futures::StreamExt;
pub(crate) use kernelci_live::cli::load::nodes::{LARGE, checkout, hierarchy};
use kernelci_live::client::{Auth, Client, Options};

use crate::report::ms;
use crate::support::Server;

/// How long one measurement of a rate takes.
const RUN: Duration = Duration::from_millis(1200);
/// Operations of one loop in one measurement, at most.
const MOST: usize = 20_000;

/// So many sessions of the admin.
pub(crate) async fn sessions(server: &Server, count: usize) -> Vec<Client> {
    let auth = Auth::Token(server.token().await.to_owned());
    let options = Options::new(server.url()).auth(auth).name("figures");
    let connect = |_| {
        let options = options.clone();
        async move { Client::connect(options).await.expect("a session") }
    };
    futures::stream::iter(0..count).map(connect).buffer_unordered(64).collect().await
}

/// How fast it went.
pub(crate) struct Pace {
    /// Operations per second, all loops together.
    pub(crate) rate: f64,
    /// How long each operation took, in milliseconds.
    pub(crate) times: Vec<f64>,
}

/// Operations per second of one loop for each of `workers`; each loop waits for one operation at a time.
pub(crate) async fn rate<W, F, R>(workers: &[W], operation: F) -> f64
where
    W: Clone + Send + 'static,
    F: Fn(W, usize) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send,
{
    pace(workers, operation).await.rate
}

/// As [`rate`], with the time that each operation took.
pub(crate) async fn pace<W, F, R>(workers: &[W], operation: F) -> Pace
where
    W: Clone + Send + 'static,
    F: Fn(W, usize) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let begin = Instant::now();
    let one_loop = |(number, worker): (usize, &W)| {
        let (worker, operation) = (worker.clone(), operation.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while times.len() < MOST && begin.elapsed() < RUN {
                let sent = Instant::now();
                operation(worker.clone(), number * MOST + times.len()).await;
                times.push(ms(sent.elapsed()));
            }
            times
        })
    };
    let loops: Vec<_> = workers.iter().enumerate().map(one_loop).collect();
    let mut times = Vec::new();
    for one in loops {
        times.extend(one.await.expect("the loop ends well"));
    }
    Pace { rate: times.len() as f64 / begin.elapsed().as_secs_f64(), times }
}

/// As [`rate`] for one loop that blocks; the operation tells how many it was.
pub(crate) async fn blocking_rate(mut operation: impl FnMut() -> usize + Send + 'static) -> f64 {
    let run = move || {
        let (begin, mut done) = (Instant::now(), 0);
        while done < MOST && begin.elapsed() < RUN {
            done += operation();
        }
        done as f64 / begin.elapsed().as_secs_f64()
    };
    tokio::task::spawn_blocking(run).await.expect("the loop ends well")
}
