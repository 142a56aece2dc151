//! The figures that a release reports: `cargo bench --bench figures [-- [SECTION …] [--json]]`, with the sections
//! `throughput`, `rest`, `delivery` and `start`. Every figure stands next to a peer or a bound that was measured in
//! the same run, on the same machine: the bare driver, a bare SQLite loop, a bare Redis round trip.
//!
//! The server is the release binary as a process, on loopback; the load comes from our own client in this process.
//! Production figures need MongoDB and Redis: `scripts/services start`. What many sessions cost `scripts/load`
//! measures.

// A benchmark says what is wrong by panicking.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod delivery;
mod load;
mod mongo;
mod report;
mod rest;
mod sqlite;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod throughput;

use report::Report;
use support::Backend;

const SECTIONS: [&str; 4] = ["throughput", "rest", "delivery", "start"];

#[tokio::main]
async fn main() {
    // redis asks for rustls without choosing who does its mathematics.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen: Vec<&str> =
        SECTIONS.into_iter().filter(|section| arguments.iter().any(|argument| argument == section)).collect();
    let chosen = if chosen.is_empty() { SECTIONS.to_vec() } else { chosen };
    let mut report = Report::new(arguments.iter().any(|argument| argument == "--json"));
    for section in chosen {
        if section == "start" {
            start::measure(&mut report).await;
            continue;
        }
        for backend in [Backend::Embedded, Backend::Production] {
            match section {
                "throughput" => throughput::measure(backend, &mut report).await,
                "rest" => rest::measure(backend, &mut report).await,
                _ => delivery::measure(backend, &mut report).await,
            }
        }
    }
}
