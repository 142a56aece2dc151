//! `kernelci-live load`: every scenario in small against a real server; and the judge itself, with servers that do wrong.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod faulty;
mod generator;
mod peers;
mod scenarios;
#[path = "../support/mod.rs"]
mod support;
