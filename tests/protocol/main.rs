//! The WebSocket protocol `kernelci.v1.json` and its relatives (POST /rpc, feeds) over real sockets.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod command_line;
mod delivery;
mod durable;
mod feeds;
mod groups;
mod idempotency;
mod races;
mod requests;
mod rest;
mod session;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;
