//! `resume`: clients that come back and catch up with what they missed.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use futures::future::try_join_all;

use crate::cli::load::adapter::{Adapter, Place, Start};
use crate::cli::load::board::Reader;
use crate::cli::load::publisher::Pace;
use crate::cli::load::receivers::Receivers;
use crate::cli::load::target::Target;

/// Options of `resume`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Resume {
    #[command(flatten)]
    target: Target,
    /// Events that were missed.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Clients that come back at the same moment.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// How often; the first time some of it may have to be read from disk.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    times: u16,
}

impl Resume {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let clients = usize::from(self.clients);
        let mut run = self.target.begin(clients + 2).await?;
        let channel = format!("load.{:016x}", rand::random::<u64>());
        let server = Arc::new(run.kernelci(&channel).await?);
        let adapter: Arc<dyn Adapter> = server.clone();
        let mut link = server.connect().await?;
        let place = server.place(&mut link).await?;
        self.publish(&run, &adapter).await?;
        let there = server.place(&mut link).await?;
        if (&there.epoch, there.seq) != (&place.epoch, place.seq + self.events) {
            bail!("{} events were published, and the channel went from {place:?} to {there:?}", self.events);
        }

        let mut report = run
            .report("resume")
            .with("events", self.events)
            .with("clients", self.clients)
            .with("size", self.size)
            .with("times", self.times);
        run.processes.begin();
        let begin = Instant::now();
        let mut caught_up = crate::cli::load::board::histogram()?;
        for _ in 0..self.times {
            let receivers = Receivers::start(adapter.clone(), run.clock, 1, 0)?;
            let links = try_join_all((0..clients).map(|_| adapter.connect())).await?;
            let start =
                Start { behind: Some(Place { epoch: place.epoch.clone(), seq: place.seq }), lane: None };
            let resume = |mut link| {
                let (adapter, start, receivers) = (&adapter, &start, &receivers);
                async move {
                    let since = run.clock.now();
                    let seq = adapter.subscribe(&mut link, start).await?;
                    receivers.expect(link, Reader::behind(seq, 0), since, self.events)
                }
            };
            try_join_all(links.into_iter().map(resume)).await?;
            receivers.until_joined(clients as u64).await?;
            receivers.shared().all_delivered(self.events * u64::from(self.clients), run.patience).await;
            let received = receivers.finish(self.events).await?;
            caught_up.add(&received.caught_up)?;
            report.faults(received.faults);
        }
        let seconds = begin.elapsed().as_secs_f64();
        report.measured(seconds, run.processes.used());
        let deliveries = self.events as f64 * clients as f64 * f64::from(self.times);
        report.figure("deliveries", deliveries);
        let mean = caught_up.mean() / 1e6;
        report.figure("events_per_second_of_a_client", self.events as f64 / mean);
        let per_cpu = report.server_cpu().map(|cpu| deliveries / cpu);
        report.figure("deliveries_per_server_cpu_second", per_cpu);
        report.latency("caught_up", &caught_up);
        run.finish(report)
    }

    /// With nobody there to receive them.
    async fn publish(&self, run: &crate::cli::load::target::Run, adapter: &Arc<dyn Adapter>) -> Result<()> {
        let nobody = Receivers::start(adapter.clone(), run.clock, 1, 0)?;
        let publishing = run.publishing(adapter, nobody.shared(), self.size);
        publishing.run(Pace::Rate { per_second: 1e6, events: self.events }, 1).await?;
        nobody.finish(0).await?;
        Ok(())
    }
}
