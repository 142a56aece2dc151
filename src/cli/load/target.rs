//! What all scenarios are told: which server, in which protocol, whose use of the machine to watch, where to report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt};

use super::adapter::{Adapter, KernelCi, Protocol, Start};
use super::board::Reader;
use super::endpoint::{Endpoint, allow_sockets};
use super::mark::Clock;
use super::processes::{Processes, SERVER, Watched};
use super::progress::Progress;
use super::publisher::Publishing;
use super::receivers::{Receivers, Shared};
use super::report::Report;
use crate::cli::connect::ConnectArgs;

/// Connections that are set up at the same time.
const AT_ONCE: usize = 64;

/// Options of every scenario.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Target {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Protocol of the server at --url.
    #[arg(long, value_enum, default_value_t)]
    adapter: Protocol,
    /// A process whose CPU time and memory to tell, e.g. mongod=:27017; may be repeated. The server's own is found by its
    /// port; server=PID names it if that does not work.
    #[arg(long = "process", value_name = "NAME=PID|NAME=:PORT")]
    processes: Vec<Watched>,
    /// Write the report as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds without any progress after which what is still missing counts as lost.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
}

/// A run that has begun.
pub(super) struct Run {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) clock: Clock,
    pub(super) processes: Processes,
    pub(super) patience: Duration,
    connect: ConnectArgs,
    protocol: Protocol,
    json: Option<PathBuf>,
}

impl Target {
    /// Begins a run with so many connections.
    pub(super) async fn begin(&self, connections: usize) -> Result<Run> {
        allow_sockets(connections)?;
        let endpoint = Arc::new(Endpoint::new(&self.connect.url).await?);
        let mut watched = self.processes.clone();
        if watched.iter().all(|watched| watched.name() != SERVER) {
            watched.insert(0, Watched::listener(SERVER, endpoint.port()));
        }
        Ok(Run {
            processes: Processes::find(&watched)?,
            endpoint,
            clock: Clock::start(),
            patience: Duration::from_secs(self.patience),
            connect: self.connect.clone(),
            protocol: self.adapter,
            json: self.json.clone(),
        })
    }
}

impl Run {
    /// The protocol, on a channel of the run's own.
    pub(super) async fn adapter(&self) -> Result<Arc<dyn Adapter>> {
        self.protocol.adapter(&self.connect, self.endpoint.clone()).await
    }

    /// This server's protocol, on this channel; fails if another was asked for.
    pub(super) async fn kernelci(&self, channel: &str) -> Result<KernelCi> {
        if self.protocol != Protocol::Kernelci {
            bail!("this scenario works with --adapter kernelci only");
        }
        KernelCi::new(&self.connect, self.endpoint.clone(), channel).await
    }

    /// An empty report.
    pub(super) fn report(&self, scenario: &'static str) -> Report {
        Report::new(scenario, self.protocol.name())
    }

    /// Prints and writes the report; fails if the run is not valid.
    pub(super) fn finish(&self, report: Report) -> Result<()> {
        report.finish(self.json.as_ref())
    }

    /// So many subscribers more; with several lanes everyone filters for one of them.
    pub(super) async fn subscribe(
        &self,
        adapter: &Arc<dyn Adapter>,
        receivers: &Receivers,
        count: usize,
        lanes: u64,
    ) -> Result<()> {
        let progress = Progress::of("subscribers", count as u64);
        let before = receivers.joined();
        let one = |number: u64| {
            let progress = &progress;
            async move {
                let lane = number % lanes;
                let start = Start { behind: None, lane: (lanes > 1).then_some(lane) };
                let mut link = adapter.connect().await?;
                let seq = adapter.subscribe(&mut link, &start).await?;
                receivers.add(link, Reader::behind(seq, lane))?;
                progress.step();
                anyhow::Ok(())
            }
        };
        futures::stream::iter((0..count as u64).map(one))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        receivers.until_joined(before + count as u64).await
    }

    /// What publishers are told.
    pub(super) fn publishing(
        &self,
        adapter: &Arc<dyn Adapter>,
        shared: &Arc<Shared>,
        size: usize,
    ) -> Publishing {
        Publishing {
            adapter: adapter.clone(),
            clock: self.clock,
            shared: shared.clone(),
            size,
            lanes: 1,
            first: 0,
            patience: self.patience,
        }
    }
}
