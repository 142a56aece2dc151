//! `kernelci-live load`: loads a server and tells what it did, in how much time and memory.
//!
//! A [`scenario`] sets up [`receivers`] (thousands of subscribers in one thread), a [`publisher`] or [`callers`], and
//! prints a [`report`]. The [`board`] judges: a run in which an event was lost, doubled or out of order has no figures.
//! All of it goes over raw sockets through a small [`adapter`], so that peers are measured in the same way. Times count
//! from when something should have been sent, not from when the generator came to it.

mod adapter;
mod board;
mod callers;
mod endpoint;
mod frame;
#[cfg(test)]
mod fuzz;
mod link;
mod mark;
pub mod nodes;
mod plain;
mod processes;
mod progress;
mod publisher;
mod receivers;
mod report;
mod scenario;
mod target;

use anyhow::Result;
use clap::Subcommand;

use scenario::{bare, connect, driver, events, hierarchy, idle, mixed, requests, resume};

/// Options of `load`.
#[derive(clap::Args, Clone, Debug)]
pub struct LoadArgs {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand, Clone, Debug)]
enum Scenario {
    /// Sessions that do nothing: memory and CPU time, and what a burst leaves behind.
    Idle(idle::Idle),
    /// One event after the other, or some a second, to many subscribers.
    FanOut(events::FanOut),
    /// Many events a second for a few seconds.
    Burst(events::Burst),
    /// As many events as go.
    Coalesced(events::Coalesced),
    /// One operation, asked by many sessions.
    Requests(requests::Requests),
    /// Whole runs of CI, each in one request.
    Hierarchy(hierarchy::Hierarchy),
    /// Clients that come back and catch up.
    Resume(resume::Resume),
    /// Connecting and authenticating.
    Connect(connect::Connect),
    /// Dashboards, writers and searches at the same time.
    Mixed(mixed::Mixed),
    /// What the bare MongoDB driver does in place of `requests`, to compare with.
    Driver(driver::Driver),
    /// What bare SQLite does in place of `requests create`, to compare with.
    BareSqlite(bare::Bare),
    /// A server that passes messages on and does nothing else, to compare with (--adapter plain).
    ServePlain(plain::ServePlain),
}

/// Runs a scenario. Fails if anything was lost, doubled, out of order or refused.
pub async fn run(args: LoadArgs) -> Result<()> {
    match args.scenario {
        Scenario::Idle(scenario) => scenario.run().await,
        Scenario::FanOut(scenario) => scenario.run().await,
        Scenario::Burst(scenario) => scenario.run().await,
        Scenario::Coalesced(scenario) => scenario.run().await,
        Scenario::Requests(scenario) => scenario.run().await,
        Scenario::Hierarchy(scenario) => scenario.run().await,
        Scenario::Resume(scenario) => scenario.run().await,
        Scenario::Connect(scenario) => scenario.run().await,
        Scenario::Mixed(scenario) => scenario.run().await,
        Scenario::Driver(scenario) => scenario.run().await,
        Scenario::BareSqlite(scenario) => scenario.run().await,
        Scenario::ServePlain(server) => server.run().await,
    }
}
