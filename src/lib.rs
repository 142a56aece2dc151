//! kernelci-live: a WebSocket-first realtime server for kernel CI.

pub mod error;
pub mod event_log;
pub mod filter;
pub mod model;
pub mod store;
