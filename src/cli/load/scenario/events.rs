//! `fan-out`, `burst` and `coalesced`: events to many subscribers, at three paces.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::cli::load::progress::Progress;
use crate::cli::load::publisher::{Pace, Publishing};
use crate::cli::load::receivers::Receivers;
use crate::cli::load::report::Report;
use crate::cli::load::target::Target;

/// Events of which no time is kept: caches fill, compilers compile, the channel's readers start.
const WARM_UP: u64 = 20;

/// Options of `fan-out`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct FanOut {
    #[command(flatten)]
    target: Target,
    /// Subscribers.
    #[arg(long, default_value_t = 1050)]
    subscribers: usize,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Events.
    #[arg(long, default_value_t = 200)]
    events: u64,
    /// Events a second; without it the next one is sent when everybody has the last one.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Different filters; each subscriber has one, and gets this part of the events.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    filters: u64,
}

/// Options of `burst`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Burst {
    #[command(flatten)]
    target: Target,
    /// Subscribers.
    #[arg(long, default_value_t = 1050)]
    subscribers: usize,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Events a second.
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    rate: f64,
    /// Seconds.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    seconds: f64,
}

/// Options of `coalesced`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Coalesced {
    #[command(flatten)]
    target: Target,
    /// Subscribers.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Bytes of an event's payload.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Seconds.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    seconds: f64,
    /// Events that may be on their way to somebody.
    #[arg(long, default_value_t = 512)]
    window: u64,
    /// Connections that publish, where the server brings events into an order.
    #[arg(long, default_value_t = 4)]
    publishers: usize,
}

/// Reads a number above zero.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

impl FanOut {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let pace = match self.rate {
            None => Pace::OneByOne { events: self.events },
            Some(per_second) => Pace::Rate { per_second, events: self.events },
        };
        let parameters = json!({"rate": self.rate, "filters": self.filters});
        let work =
            Work { subscribers: self.subscribers, size: self.size, lanes: self.filters, publishers: 1 };
        work.run("fan-out", &self.target, pace, parameters).await
    }
}

impl Burst {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let events = (self.rate * self.seconds).ceil() as u64;
        let pace = Pace::Rate { per_second: self.rate, events };
        let work = Work { subscribers: self.subscribers, size: self.size, lanes: 1, publishers: 1 };
        work.run("burst", &self.target, pace, json!({"rate": self.rate})).await
    }
}

impl Coalesced {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let lasting = Duration::from_secs_f64(self.seconds);
        let pace = Pace::FlatOut { lasting, window: self.window.max(1) };
        let (subscribers, publishers) = (self.subscribers, self.publishers);
        let work = Work { subscribers, size: self.size, lanes: 1, publishers };
        work.run("coalesced", &self.target, pace, json!({"window": self.window})).await
    }
}

struct Work {
    subscribers: usize,
    size: usize,
    lanes: u64,
    publishers: usize,
}

impl Work {
    async fn run(
        &self,
        scenario: &'static str,
        target: &Target,
        pace: Pace,
        parameters: Value,
    ) -> Result<()> {
        let mut run = target.begin(self.subscribers + self.publishers).await?;
        let adapter = run.adapter().await?;
        if self.lanes > 1 && (!adapter.numbers_events() || self.lanes > self.subscribers as u64) {
            bail!("--filters needs --adapter kernelci and a subscriber for each filter");
        }
        let warm_up = WARM_UP.max(self.lanes.min(100));
        let receivers = Receivers::start(adapter.clone(), run.clock, self.lanes, warm_up)?;
        run.subscribe(&adapter, &receivers, self.subscribers, self.lanes).await?;
        let shared = receivers.shared().clone();
        let publishing = Publishing { lanes: self.lanes, ..run.publishing(&adapter, &shared, self.size) };
        let first = publishing.run(Pace::OneByOne { events: warm_up }, 1).await?;

        let warm = shared.deliveries();
        let progress = Progress::of_deliveries(&shared, self.deliveries(pace));
        run.processes.begin();
        let begin = Instant::now();
        // If even those to warm up did not all arrive it is over.
        let warmed_up = *shared.complete().borrow() >= first;
        let end = match warmed_up {
            true => Publishing { first, ..publishing }.run(pace, self.publishers).await?,
            false => first,
        };
        shared.all_have(end, run.patience).await;
        let (seconds, used) = (begin.elapsed().as_secs_f64(), run.processes.used());
        drop(progress);
        let received = receivers.finish(end).await?;

        let mut report = run.report(scenario).with("subscribers", self.subscribers).with("size", self.size);
        for (name, value) in parameters.as_object().into_iter().flatten() {
            report = report.with(name, value.clone());
        }
        let events = end - first;
        let deliveries = (received.deliveries - warm) as f64;
        report.measured(seconds, used);
        report.figure("events", events as f64);
        report.figure("deliveries", deliveries);
        report.figure("message_bytes", received.bytes as f64 / received.deliveries as f64);
        report.figure("events_per_second", events as f64 / seconds);
        report.figure("deliveries_per_second", deliveries / seconds);
        report.figure("deliveries_per_server_cpu_second", self.per_cpu(&report, deliveries));
        report.latency("delivery", &received.delivery);
        report.latency("last_delivery", &received.last);
        report.faults(received.faults);
        run.finish(report)
    }

    fn per_cpu(&self, report: &Report, deliveries: f64) -> Option<f64> {
        report.server_cpu().map(|seconds| deliveries / seconds)
    }

    /// About how many deliveries there will be.
    fn deliveries(&self, pace: Pace) -> u64 {
        match pace {
            Pace::OneByOne { events } | Pace::Rate { events, .. } => {
                events * self.subscribers as u64 / self.lanes
            }
            Pace::FlatOut { .. } => 0,
        }
    }
}
