//! `mixed`: what a busy day looks like: dashboards that follow all nodes, writers at a steady rate, people who search.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::Mutex;

use super::events::positive;
use super::requests::Operation;
use crate::cli::load::callers::{Callers, When};
use crate::cli::load::nodes;
use crate::cli::load::progress::Progress;
use crate::cli::load::publisher::ticks;
use crate::cli::load::receivers::Receivers;
use crate::cli::load::target::Target;
use crate::model::NODE_CHANNEL;

/// Options of `mixed`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Mixed {
    #[command(flatten)]
    target: Target,
    /// Sessions that follow all nodes.
    #[arg(long, default_value_t = 500)]
    dashboards: usize,
    /// Nodes that are created a second.
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// Sessions that create them.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    writers: u16,
    /// Searches a second.
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    searches: f64,
    /// Sessions that search.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    finders: u16,
    /// Seconds.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    seconds: f64,
    /// Nodes that the store has to have; they are written first if it has fewer.
    #[arg(long, default_value_t = 10_000)]
    nodes: u64,
}

impl Mixed {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let (writers, finders) = (usize::from(self.writers), usize::from(self.finders));
        let mut run = self.target.begin(self.dashboards + writers + finders + 2).await?;
        let server = run.kernelci(NODE_CHANNEL).await?;
        nodes::fill(&server, self.nodes).await?;
        let receivers = Receivers::start(Arc::new(server.clone()), run.clock, 1, 0)?;
        run.subscribe(&(Arc::new(server.clone()) as _), &receivers, self.dashboards, 1).await?;
        let writers = Callers::connect(&server, writers, run.clock, run.patience).await?;
        let finders = Callers::connect(&server, finders, run.clock, run.patience).await?;

        run.processes.begin();
        let begin = Instant::now();
        let due = |rate: f64| {
            let events = (rate * self.seconds).ceil() as u64;
            (When::Due(Arc::new(Mutex::new(ticks(run.clock, rate, 0..events)))), events)
        };
        let ((writes, events), (searches, _)) = (due(self.rate), due(self.searches));
        let progress = Progress::of_deliveries(receivers.shared(), events * self.dashboards as u64);
        let unused = || Arc::new(AtomicU64::new(0));
        let (written, found) = tokio::try_join!(
            writers.run(writes, unused(), Operation::Create.make(Vec::new())),
            finders.run(searches, unused(), Operation::Find.make(Vec::new())),
        )?;
        receivers.shared().all_have(events, run.patience).await;
        let (seconds, used) = (begin.elapsed().as_secs_f64(), run.processes.used());
        drop(progress);
        let received = receivers.finish(events).await?;

        let mut report = run
            .report("mixed")
            .with("dashboards", self.dashboards)
            .with("rate", self.rate)
            .with("writers", self.writers)
            .with("searches", self.searches)
            .with("finders", self.finders)
            .with("nodes", self.nodes);
        report.measured(seconds, used);
        report.figure("deliveries", received.deliveries as f64);
        report.figure("deliveries_per_second", received.deliveries as f64 / seconds);
        // How far behind the plan it was at the end.
        report
            .figure("late_seconds", (seconds - Duration::from_secs_f64(self.seconds).as_secs_f64()).max(0.0));
        report.latency("delivery", &received.delivery);
        report.latency("last_delivery", &received.last);
        report.latency("create", &written.times);
        report.latency("find", &found.times);
        report.faults(written.faults);
        report.faults(found.faults);
        report.faults(received.faults);
        run.finish(report)
    }
}
