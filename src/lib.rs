//! kernelci-live: a WebSocket-first realtime server for kernel CI.
//!
//! # Layout
//!
//! In the order in which data walks through:
//!
//! * [`session`]: one WebSocket: upgrade, limits, heartbeats, the task that reads requests and writes events.
//! * [`http`]: REST routes, `POST /rpc`, feeds, pages, health; the same operations on the other transport.
//! * [`rpc`]: JSON-RPC framing, shared by both.
//! * [`ops`]: the operations. [`ops::table`] is the whole API on one screen; each is one async function.
//! * [`auth`]: who is asking and what they may do.
//! * [`store`]: the truth. One contract, SQLite and MongoDB beside it. A commit writes nodes and their events in one
//!   atomic step, on the condition that the nodes are what the writer has read.
//! * [`event_log`]: the order of events, per channel dense and retained. In SQLite a table of the same file; in
//!   production a Redis stream, filled by a relay from the outboxes in MongoDB's documents, with MongoDB as history.
//! * [`kv`]: keys and values that services share.
//! * [`consumer_group`]: named consumers that several connections share, each event going to one of them on a lease.
//! * [`hub`]: one tail per channel and instance keeps the newest events at hand. Readers hold a position, no queue.
//!
//! What they all speak of, without any I/O: [`model`] (nodes, events, users), [`filter`] (one language, three
//! engines), [`error`] (one type, all its faces in a table).
//!
//! Around it: [`config`] (every setting), [`quota`] (what one client may cost), [`purge`] (what removes old nodes), [`metrics`] (what it tells Prometheus),
//! [`health`] (what is away), `background` (tasks of the server's own), `connection` (whether what is handed out was sent), [`signals`] (what instances tell each
//! other), [`sync`] (what tasks tell each other), [`app`] (what is shared, and how it ends), [`client`] (the Rust client),
//! [`cli`] (the commands).
//!
//! # What holds
//!
//! * A write and its event are one fact: an acknowledged write has its event in the log exactly once, in the order of
//!   the node's revisions; a failed one has none.
//! * A subscription is a cursor: live means caught up. Nothing is queued for a slow reader and nothing is lost to it;
//!   what retention has taken is told as an exact range.
//! * Changes are conditional on a revision and can be repeated with an idempotency key.

pub mod app;
pub mod auth;
mod background;
pub mod cli;
pub mod client;
pub mod config;
mod connection;
pub mod consumer_group;
pub mod error;
pub mod event_log;
pub mod filter;
#[cfg(test)]
mod fuzz;
pub mod health;
pub mod http;
pub mod hub;
pub mod kv;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod purge;
pub mod quota;
pub mod rpc;
pub mod session;
pub mod signals;
pub mod store;
pub mod sync;
