//! kernelci-live: a WebSocket-first realtime server for kernel CI.

pub mod error;
pub mod model;
