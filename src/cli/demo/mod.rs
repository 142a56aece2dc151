//! `kernelci-live demo`: plays a real CI against a server, with the names and the wiring of the real KernelCI.
//!
//! [`plan`] decides what will happen, from a seed; [`player`] makes it happen over the WebSocket. Tests and
//! benchmarks use both.

pub mod catalogue;
pub mod plan;
pub mod player;
mod progress;
mod suites;

use std::sync::Arc;

use anyhow::Context;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::connect::ConnectArgs;
use catalogue::Catalogue;
use plan::{Checkout, Scale};
use player::Player;
use progress::Progress;

/// Options of `demo`.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// How many times faster than a real CI; a checkout takes about an hour there.
    #[arg(long, env = "KCI_SPEED", default_value_t = 60.0, value_parser = speed)]
    speed: f64,
    /// Checkouts to play; 0 goes on until it is interrupted.
    #[arg(long, env = "KCI_CHECKOUTS", default_value_t = 0)]
    checkouts: u64,
    /// Checkouts at the same time.
    #[arg(long, env = "KCI_PARALLEL", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    parallel: u16,
    /// Builds of a checkout at most.
    #[arg(long, env = "KCI_MAX_BUILDS", default_value_t = 8)]
    max_builds: usize,
    /// Jobs of a build at most.
    #[arg(long, env = "KCI_MAX_JOBS", default_value_t = 10)]
    max_jobs: usize,
    /// The same seed plays the same runs; by chance if it is not given.
    #[arg(long, env = "KCI_SEED")]
    seed: Option<u64>,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed >= 0.01 => Ok(speed),
        _ => Err("expected a number of at least 0.01".to_owned()),
    }
}

/// Plays checkouts until there were enough of them or it is interrupted.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let catalogue = Arc::new(Catalogue::built_in()?);
    let client = args.connect.writer("demo").await?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let scale = Scale { builds: args.max_builds, jobs: args.max_jobs };
    let stop = CancellationToken::new();
    let player = Player::new(client.clone(), args.speed, stop.clone());
    let progress = Progress::start(&client, player.clone()).await.context("cannot follow the events")?;
    progress.say(format!("playing on {} with --seed {seed}", args.connect.url));

    let numbers = 0..if args.checkouts == 0 { u64::MAX } else { args.checkouts };
    let runs = futures::stream::iter(numbers).take_until(stop.clone().cancelled_owned()).map(|number| {
        let (player, progress, catalogue) = (player.clone(), progress.clone(), catalogue.clone());
        async move {
            let plan = Checkout::plan(&catalogue, seed, number, scale);
            progress.checkout(&plan);
            player.checkout(&plan).await
        }
    });
    let mut runs = std::pin::pin!(runs.buffer_unordered(args.parallel.into()));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut failure = None;
    loop {
        tokio::select! {
            _ = &mut interrupted, if !stop.is_cancelled() => stop.cancel(),
            done = runs.next() => match done {
                None => break,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    failure.get_or_insert(error);
                    stop.cancel();
                }
            },
        }
    }
    if stop.is_cancelled() {
        let closed = player.cancel_open().await;
        progress.say(format!("stopped; {closed} unfinished nodes are done, incomplete"));
    }
    progress.finish().await;
    client.close().await;
    match failure {
        Some(error) => Err(error).context("the server did not take a step of the demo"),
        None => Ok(()),
    }
}
