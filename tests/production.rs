//! What only the production back end has: KernelCI's own database, several instances, Redis that forgets, and
//! instances that die between the steps of the relay.
//!
//! Needs MONGO_URL, REDIS_URL and MONGOD_BIN (a standalone `mongod` is started for the one test of it): run
//! `scripts/test --test production`.

// A test is where a panic belongs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "production/atomic.rs"]
mod atomic;
#[path = "production/interleavings.rs"]
mod interleavings;
#[path = "production/layout.rs"]
mod layout;
#[path = "production/loss.rs"]
mod loss;
#[path = "production/relay.rs"]
mod relay;
#[path = "production/standalone.rs"]
mod standalone;
#[path = "production/support.rs"]
mod support;
