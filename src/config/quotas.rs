//! Settings of what one client may cost.

use std::time::Duration;

use clap::Args;

use crate::quota::Pace;

/// What clients may have at a time. A share of a user or of an address is looked at when more than half of what the
/// server has is taken; strangers together leave a quarter to users.
#[derive(Args, Clone, Debug)]
pub struct Quotas {
    /// Most connections at a time, those of sessions included; as many as there are file descriptors for, if that is less.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 60_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub max_connections: u64,
    /// Connections that one address may have when there is not enough for all.
    #[arg(long, env = "CONNECTIONS_PER_ADDRESS", default_value_t = 6_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub connections_per_address: u64,
    /// Most sessions and feeds at a time.
    #[arg(long, env = "MAX_SESSIONS", default_value_t = 50_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub max_sessions: u64,
    /// Sessions and feeds that one user may have when there is not enough for all.
    #[arg(long, env = "SESSIONS_PER_USER", default_value_t = 5_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub sessions_per_user: u64,
    /// Sessions and feeds of strangers that one address may have when there is not enough for all.
    #[arg(long, env = "SESSIONS_PER_ADDRESS", default_value_t = 5_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub sessions_per_address: u64,

    /// Milliseconds that what waits for a client may stand still before its connection ends.
    #[arg(long, env = "STALL_TIMEOUT_MS", default_value_t = 60_000,
          value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub stall_timeout_ms: u64,
    /// Milliseconds that a message or a request which has begun to come in may stand still, and within which a new
    /// connection has to say something.
    #[arg(long, env = "MESSAGE_TIMEOUT_MS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub message_timeout_ms: u64,
    /// Bytes a second below which a client counts as standing still.
    #[arg(long, env = "MIN_BYTES_PER_SECOND", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub min_bytes_per_second: u64,
}

impl Quotas {
    /// How fast what waits for a client has to leave.
    pub fn outgoing(&self) -> Pace {
        self.pace(self.stall_timeout_ms)
    }

    /// How fast what has begun has to come in.
    pub fn incoming(&self) -> Pace {
        self.pace(self.message_timeout_ms)
    }

    fn pace(&self, patience_ms: u64) -> Pace {
        Pace { patience: Duration::from_millis(patience_ms), bytes_per_second: self.min_bytes_per_second }
    }
}
