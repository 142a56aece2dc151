//! `idle`: what sessions cost that do nothing, and what is left of a burst of events a while later.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::load::processes::{Use, needed};
use crate::cli::load::progress::Progress;
use crate::cli::load::publisher::Pace;
use crate::cli::load::receivers::Receivers;
use crate::cli::load::target::{Run, Target};

/// How long the server has to come to rest after everybody has connected.
const SETTLE: Duration = Duration::from_secs(2);
/// How long it is waited for at most that the server comes to rest before.
const REST: Duration = Duration::from_secs(60);

/// Options of `idle`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Idle {
    #[command(flatten)]
    target: Target,
    /// Sessions, each with one subscription.
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Seconds in which the server's memory has to become no less, before anybody connects.
    #[arg(long, default_value_t = 15)]
    settle: u64,
    /// Seconds to look at their CPU time; longer than a ping's interval.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Events that all of them get at once afterwards; 0 for none.
    #[arg(long, default_value_t = 100)]
    burst: u64,
    /// Bytes of such an event's payload.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Seconds to rest after that, before the memory is looked at again.
    #[arg(long, default_value_t = 60)]
    rest: u64,
}

/// What the server uses once it has given back what its start and the login took: hashing a password takes 64 MiB.
async fn at_rest(run: &Run, quiet: Duration) -> Result<Use> {
    let mut least = needed(run.processes.server())?;
    let mut since = Instant::now();
    let end = since + REST;
    while since.elapsed() < quiet && Instant::now() < end {
        tokio::time::sleep(SETTLE).await;
        let now = needed(run.processes.server())?;
        if now.resident_kb < least.resident_kb {
            (least, since) = (now, Instant::now());
        }
    }
    Ok(least)
}

impl Idle {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let mut run = self.target.begin(self.sessions + 2).await?;
        let adapter = run.adapter().await?;
        let receivers = Receivers::start(adapter.clone(), run.clock, 1, 0)?;
        // What the first session costs belongs to the server.
        run.subscribe(&adapter, &receivers, 1, 1).await?;
        let before = at_rest(&run, Duration::from_secs(self.settle)).await?;
        run.subscribe(&adapter, &receivers, self.sessions, 1).await?;
        tokio::time::sleep(SETTLE).await;
        let connected = needed(run.processes.server())?;

        run.processes.begin();
        Progress::wait("idle", Duration::from_secs(self.seconds)).await;
        let used = run.processes.used();
        let idle = needed(run.processes.server())?;
        let mut report = run.report("idle").with("sessions", self.sessions).with("burst", self.burst);
        report.measured(self.seconds as f64, used);
        let each = |now: Use, kb: fn(Use) -> u64| (kb(now) as f64 - kb(before) as f64) / self.sessions as f64;
        let mut memory = |name: &str, now: Use| {
            report.figure(&format!("{name}_rss_kb_per_session"), each(now, |used| used.resident_kb));
            report.figure(&format!("{name}_anonymous_kb_per_session"), each(now, |used| used.anonymous_kb));
        };
        memory("connected", connected);
        memory("idle", idle);

        if self.burst > 0 {
            let publishing = run.publishing(&adapter, receivers.shared(), self.size);
            publishing.run(Pace::Rate { per_second: 1e6, events: self.burst }, 1).await?;
            receivers.shared().all_have(self.burst, run.patience).await;
            memory("after_burst", needed(run.processes.server())?);
            Progress::wait("rest", Duration::from_secs(self.rest)).await;
            memory("rested", needed(run.processes.server())?);
        }
        let cpu = (idle.cpu.saturating_sub(connected.cpu)).as_secs_f64() / self.seconds.max(1) as f64;
        report.figure("idle_cpu_percent", cpu * 100.0);
        report.figure("idle_cpu_us_per_session_second", cpu * 1e6 / self.sessions as f64);
        report.faults(receivers.finish(self.burst).await?.faults);
        run.finish(report)
    }
}
