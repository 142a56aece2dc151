//! The integration tests: one binary, because linking the server once is most of what building them costs.
//!
//! A module is a subject; `support` starts the real servers. Run them with `scripts/test`, a part of them with
//! `scripts/test contract::nodes` (any filter of `cargo nextest`). What measures time, kills things or needs much of the
//! machine runs behind the others: see `.config/nextest.toml`.

// A test says what is wrong by panicking.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, unreachable_pub)]

mod support;

mod bad_input;
mod client;
mod contract;
mod conversations;
mod faults;
mod filter_agreement;
mod floods;
mod load;
mod production;
mod protocol;
mod restart;
mod snapshots;
mod store;
