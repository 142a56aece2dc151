//! The WebSocket protocol `kernelci.v1.json` and its relatives (POST /rpc, feeds) over real sockets.

mod channels;
mod command_line;
mod dead_letters;
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
