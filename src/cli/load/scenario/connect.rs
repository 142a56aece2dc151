//! `connect`: how many sessions can be opened in a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::events::positive;
use crate::cli::load::board::{Faults, histogram};
use crate::cli::load::target::Target;

/// Options of `connect`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Connect {
    #[command(flatten)]
    target: Target,
    /// How many connect at the same time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Seconds.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    seconds: f64,
}

impl Connect {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let mut run = self.target.begin(2 * usize::from(self.workers)).await?;
        let adapter = run.adapter().await?;
        // The first one looks the user up, and so on.
        adapter.connect().await?.close().await?;
        run.processes.begin();
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(self.seconds);
        let clock = run.clock;
        let worker = |_| {
            let adapter = Arc::clone(&adapter);
            tokio::spawn(async move {
                let mut times = histogram()?;
                let mut faults = Faults::default();
                while Instant::now() < end {
                    let began = clock.now();
                    match adapter.connect().await {
                        Ok(link) => {
                            times.saturating_record(clock.now().saturating_sub(began));
                            link.close().await?;
                        }
                        Err(error) => {
                            faults.refused += 1;
                            faults.say(|| format!("{error:#}"));
                        }
                    }
                }
                anyhow::Ok((times, faults))
            })
        };
        let workers: Vec<_> = (0..self.workers).map(worker).collect();
        let mut report = run.report("connect").with("workers", self.workers);
        let mut times = histogram()?;
        for worker in workers {
            let (more, faults) = worker.await??;
            times.add(more)?;
            report.faults(faults);
        }
        let seconds = begin.elapsed().as_secs_f64();
        report.measured(seconds, run.processes.used());
        report.figure("connections", times.len() as f64);
        report.figure("connections_per_second", times.len() as f64 / seconds);
        let per_cpu = report.server_cpu().map(|cpu| times.len() as f64 / cpu);
        report.figure("connections_per_server_cpu_second", per_cpu);
        report.latency("connect", &times);
        run.finish(report)
    }
}
