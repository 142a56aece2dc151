//! `hierarchy`: whole runs of CI, each in one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::cli::load::adapter::{Adapter, KernelCi};
use crate::cli::load::board::histogram;
use crate::cli::load::nodes::{self, LARGE, Shape};
use crate::cli::load::progress::Progress;
use crate::cli::load::receivers::Receivers;
use crate::cli::load::target::Target;
use crate::model::NODE_CHANNEL;

/// Options of `hierarchy`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Hierarchy {
    #[command(flatten)]
    target: Target,
    /// Builds of each hierarchy; a build has 12 jobs of 20 tests each.
    #[arg(long, default_value_t = LARGE.builds)]
    builds: usize,
    /// Hierarchies, all clients together.
    #[arg(long, default_value_t = 10)]
    times: u64,
    /// Clients that submit at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
}

impl Hierarchy {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let mut run = self.target.begin(2 * usize::from(self.clients) + 2).await?;
        let server = run.kernelci(NODE_CHANNEL).await?;
        let receivers = Receivers::start(Arc::new(server.clone()), run.clock, 1, 0)?;
        run.subscribe(&(Arc::new(server.clone()) as _), &receivers, 1, 1).await?;
        let shape = Shape { builds: self.builds, ..LARGE };
        let progress = Arc::new(Progress::of("hierarchies", self.times));
        let left = Arc::new(AtomicU64::new(self.times));
        run.processes.begin();
        let begin = Instant::now();
        let clock = run.clock;
        let client = |_| {
            let (server, left, progress) = (server.clone(), left.clone(), progress.clone());
            tokio::spawn(async move {
                let mut times = histogram()?;
                let mut link = server.connect().await?;
                let create = json!({"node": nodes::checkout("checkout")});
                let more = |left: u64| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
                    let root = KernelCi::ask(&mut link, "root", "node.create", &create).await?;
                    let sent = clock.now();
                    nodes::put(&server, &root, shape).await?;
                    times.saturating_record(clock.now().saturating_sub(sent));
                    progress.step();
                }
                anyhow::Ok(times)
            })
        };
        let clients: Vec<_> = (0..self.clients).map(client).collect();
        let mut times = histogram()?;
        for client in clients {
            times.add(client.await??)?;
        }
        let (seconds, used) = (begin.elapsed().as_secs_f64(), run.processes.used());
        drop(progress);

        let mut report = run
            .report("hierarchy")
            .with("nodes", shape.nodes())
            .with("times", self.times)
            .with("clients", self.clients);
        report.measured(seconds, used);
        report.figure("hierarchies_per_second", self.times as f64 / seconds);
        report.figure("nodes_per_second", shape.nodes() as f64 * self.times as f64 / seconds);
        report.latency("submit", &times);
        // Each has an event for its creation and one for the whole.
        receivers.shared().all_delivered(2 * self.times, run.patience).await;
        let received = receivers.finish(0).await?;
        let mut faults = received.faults;
        if received.deliveries < 2 * self.times {
            faults.lost += 2 * self.times - received.deliveries;
            faults.say(|| format!("{} of {} events came", received.deliveries, 2 * self.times));
        }
        report.faults(faults);
        run.finish(report)
    }
}
