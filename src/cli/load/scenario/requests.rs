//! `requests`: one operation, asked by many sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;
use tokio::sync::Mutex;

use super::events::positive;
use crate::cli::load::callers::{Callers, Make, When};
use crate::cli::load::mark::Mark;
use crate::cli::load::nodes;
use crate::cli::load::publisher::ticks;
use crate::cli::load::receivers::Receivers;
use crate::cli::load::target::Target;
use crate::model::NODE_CHANNEL;

/// Ids that `get` asks for in turn.
const IDS: usize = 10_000;

/// Options of `requests`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Requests {
    /// What is asked.
    #[arg(value_enum)]
    operation: Operation,
    #[command(flatten)]
    target: Target,
    /// Sessions; each waits for one answer at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    sessions: u16,
    /// Seconds.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    seconds: f64,
    /// Requests a second; without it as many as go.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Nodes that the store has to have; they are written first if it has fewer.
    #[arg(long, default_value_t = 1000)]
    nodes: u64,
}

/// An operation on nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Operation {
    /// `node.get`, of many nodes in turn.
    Get,
    /// `node.create`; a subscriber looks whether each has its event.
    Create,
    /// `node.find`: 50 failed jobs, the newest first.
    Find,
    /// `node.count` of failed jobs.
    Count,
}

impl Operation {
    fn method(self) -> &'static str {
        match self {
            Operation::Get => "node.get",
            Operation::Create => "node.create",
            Operation::Find => "node.find",
            Operation::Count => "node.count",
        }
    }

    /// What is asked; `ids` are for [`Operation::Get`].
    pub(super) fn make(self, ids: Vec<String>) -> Make {
        let fixed = match self {
            Operation::Find => {
                json!({"filter": {"kind": "job", "result": "fail"}, "sort": ["-created"], "limit": 50})
            }
            _ => json!({"filter": {"kind": "job", "result": "fail"}}),
        };
        let fixed = fixed.to_string();
        let node = json!({"node": nodes::checkout(NAME)}).to_string();
        Arc::new(move |mark: Mark| {
            let params = match self {
                // 7919 is prime: neighbours are not asked for one after the other.
                Operation::Get => {
                    format!("{{\"id\":\"{}\"}}", ids[(mark.number as usize * 7919) % ids.len()])
                }
                Operation::Create => node.replace(NAME, &mark.to_string()),
                Operation::Find | Operation::Count => fixed.clone(),
            };
            (self.method(), params)
        })
    }
}

/// Stands for the mark in the text of a node.
const NAME: &str = "%NAME%";

impl Requests {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let mut run = self.target.begin(usize::from(self.sessions) + 2).await?;
        let server = run.kernelci(NODE_CHANNEL).await?;
        nodes::fill(&server, self.nodes).await?;
        let ids = match self.operation {
            Operation::Get => nodes::ids(&server, IDS).await?,
            _ => Vec::new(),
        };
        if self.operation == Operation::Get && ids.is_empty() {
            bail!("there are no nodes to get: --nodes makes some");
        }
        let receivers = Receivers::start(Arc::new(server.clone()), run.clock, 1, 0)?;
        if self.operation == Operation::Create {
            run.subscribe(&(Arc::new(server.clone()) as _), &receivers, 1, 1).await?;
        }
        let callers = Callers::connect(&server, self.sessions.into(), run.clock, run.patience).await?;
        let numbers = Arc::new(AtomicU64::new(0));
        run.processes.begin();
        let begin = Instant::now();
        let mut due = 0;
        let when = match self.rate {
            None => When::Until(begin + Duration::from_secs_f64(self.seconds)),
            Some(rate) => {
                due = (rate * self.seconds).ceil() as u64;
                When::Due(Arc::new(Mutex::new(ticks(run.clock, rate, 0..due))))
            }
        };
        let asked = callers.run(when, numbers.clone(), self.operation.make(ids)).await?;
        let (seconds, used) = (begin.elapsed().as_secs_f64(), run.processes.used());

        let mut report = run
            .report("requests")
            .with("operation", self.operation.method())
            .with("sessions", self.sessions)
            .with("nodes", self.nodes)
            .with("rate", self.rate);
        report.measured(seconds, used);
        report.figure("requests", asked.count as f64);
        report.figure("requests_per_second", asked.count as f64 / seconds);
        let per_cpu = report.server_cpu().map(|cpu| asked.count as f64 / cpu);
        report.figure("requests_per_server_cpu_second", per_cpu);
        report.latency("answer", &asked.times);
        report.faults(asked.faults);
        let events =
            if self.operation == Operation::Create { due.max(numbers.load(Ordering::Acquire)) } else { 0 };
        receivers.shared().all_have(events, run.patience).await;
        let received = receivers.finish(events).await?;
        report.latency("event", &received.delivery);
        report.faults(received.faults);
        run.finish(report)
    }
}
