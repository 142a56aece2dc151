//! Settings of what one client may cost.

use std::time::Duration;

use clap::Args;

use crate::error::Kind;
use crate::http::BodyLimits;
use crate::hub;
use crate::quota::{Binding, Kept, Limits, Pace, Width};
use crate::session;

/// The embedded store shares the processors with everything else: more searches at a time make each of them slower.
const EMBEDDED_SEARCHES: u32 = 8;

/// What clients may have, at a time or for as long as they like. A share of a user or of an address is looked at when more
/// than half of what the server has is taken; strangers together leave a quarter to users.
#[derive(Args, Clone, Debug)]
pub struct Quotas {
    /// Most connections at a time, those of sessions included; as many as there are file descriptors for, if that is less.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 60_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub max_connections: u64,
    /// Connections on which one user sends requests when there is not enough for all.
    #[arg(long, env = "CONNECTIONS_PER_USER", default_value_t = 6_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub connections_per_user: u64,
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

    /// Most long polls (listen, pop) that wait at a time.
    #[arg(long, env = "MAX_POLLS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_polls: u64,
    /// Long polls of one user when there is not enough for all.
    #[arg(long, env = "POLLS_PER_USER", default_value_t = 2_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub polls_per_user: u64,
    /// Megabytes of request bodies that come in or are worked on at a time.
    #[arg(long, env = "BODIES_MB", default_value_t = 512,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub bodies_mb: u64,
    /// Those of one user when there is not enough for all.
    #[arg(long, env = "BODIES_MB_PER_USER", default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub bodies_mb_per_user: u64,
    /// Those of the strangers of one address when there is not enough for all.
    #[arg(long, env = "BODIES_MB_PER_ADDRESS", default_value_t = 64,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub bodies_mb_per_address: u64,
    /// Megabytes of large answers that have not left yet.
    #[arg(long, env = "ANSWERS_MB", default_value_t = 512,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub answers_mb: u64,
    /// Those to one user when there is not enough for all.
    #[arg(long, env = "ANSWERS_MB_PER_USER", default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub answers_mb_per_user: u64,
    /// Those to the strangers of one address when there is not enough for all.
    #[arg(long, env = "ANSWERS_MB_PER_ADDRESS", default_value_t = 64,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub answers_mb_per_address: u64,

    /// Megabytes of regular expressions, compiled, and lists in the filters of subscriptions and feeds.
    #[arg(long, env = "FILTERS_MB", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub filters_mb: u64,
    /// Those of one user when there is not enough for all.
    #[arg(long, env = "FILTERS_MB_PER_USER", default_value_t = 64,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub filters_mb_per_user: u64,
    /// Those of the strangers of one address when there is not enough for all.
    #[arg(long, env = "FILTERS_MB_PER_ADDRESS", default_value_t = 32,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub filters_mb_per_address: u64,
    /// Channels that this instance follows at a time for those who read them, the nodes' own aside. However many read a
    /// channel, it counts once.
    #[arg(long, env = "MAX_FOLLOWED_CHANNELS", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_followed_channels: u64,
    /// Those of one user which nobody else reads already.
    #[arg(long, env = "FOLLOWED_CHANNELS_PER_USER", default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub followed_channels_per_user: u64,
    /// Those of the strangers of one address when there is not enough for all.
    #[arg(long, env = "FOLLOWED_CHANNELS_PER_ADDRESS", default_value_t = 64,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub followed_channels_per_address: u64,
    /// Megabytes of memory for the newest events of all channels that this instance follows.
    #[arg(long, env = "RING_MB", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub ring_mb: u64,
    /// Writes that run at a time, whether somebody waits for their answers or not.
    #[arg(long, env = "MAX_WRITES", default_value_t = 8_192,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_writes: u64,
    /// Those of one user when there is not enough for all.
    #[arg(long, env = "WRITES_PER_USER", default_value_t = 2_048,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub writes_per_user: u64,
    /// Requests of more than a megabyte that are worked on at a time.
    #[arg(long, env = "MAX_LARGE_REQUESTS", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_large_requests: u32,
    /// Those of one user; further ones wait.
    #[arg(long, env = "LARGE_REQUESTS_PER_USER", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub large_requests_per_user: u32,
    /// Searches that an index serves and that run at a time; on the embedded store 8 if this is more.
    #[arg(long, env = "MAX_SEARCHES", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_searches: u32,
    /// Those of one user; further ones wait.
    #[arg(long, env = "SEARCHES_PER_USER", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub searches_per_user: u32,
    /// Those of the strangers of one address; further ones wait.
    #[arg(long, env = "SEARCHES_PER_ADDRESS", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub searches_per_address: u32,
    /// Searches that no index serves, which look through much of what there is, and that run at a time.
    #[arg(long, env = "MAX_SCANS", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_scans: u32,
    /// Those of one user; further ones wait.
    #[arg(long, env = "SCANS_PER_USER", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub scans_per_user: u32,
    /// Those of the strangers of one address; further ones wait.
    #[arg(long, env = "SCANS_PER_ADDRESS", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub scans_per_address: u32,
    /// Searches of either kind that wait or run at a time; further ones are refused.
    #[arg(long, env = "MAX_SEARCHES_WAITING", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_searches_waiting: u64,
    /// Those of one user when there is not enough room for all.
    #[arg(long, env = "SEARCHES_WAITING_PER_USER", default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub searches_waiting_per_user: u64,
    /// Those of the strangers of one address when there is not enough room for all.
    #[arg(long, env = "SEARCHES_WAITING_PER_ADDRESS", default_value_t = 64,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub searches_waiting_per_address: u64,

    /// Long lists (more than 1,000 nodes, `GET /nodes` and the like) that are read over REST at a time.
    #[arg(long, env = "MAX_LONG_LISTS", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_long_lists: u32,
    /// Those of one user when there is not enough for all.
    #[arg(long, env = "LONG_LISTS_PER_USER", default_value_t = 6,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub long_lists_per_user: u32,
    /// Those of the strangers of one address when there is not enough for all.
    #[arg(long, env = "LONG_LISTS_PER_ADDRESS", default_value_t = 6,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub long_lists_per_address: u32,
    /// Passwords that wait to be checked or hashed, besides one that each processor is at.
    #[arg(long, env = "MAX_PASSWORDS_WAITING", default_value_t = 32,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub max_passwords_waiting: u64,
    /// Passwords at a time of one account, and those that one user sends when there is not enough room for all.
    #[arg(long, env = "PASSWORDS_PER_USER", default_value_t = 2,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub passwords_per_user: u64,
    /// Those that the strangers of one address send when there is not enough room for all.
    #[arg(long, env = "PASSWORDS_PER_ADDRESS", default_value_t = 2,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub passwords_per_address: u64,

    /// Kilobytes of one message of a session, and of a request to `/rpc` that is no `node.submit`.
    #[arg(long, env = "MESSAGE_KB", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(64..=16_384))]
    pub message_kb: u32,
    /// Those of a stranger's session.
    #[arg(long, env = "MESSAGE_KB_OF_STRANGERS", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(8..=16_384))]
    pub message_kb_of_strangers: u32,
    /// Megabytes of the body of a request of a user.
    #[arg(long, env = "BODY_MB", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub body_mb: u32,
    /// Those of one that brings nodes or telemetry.
    #[arg(long, env = "LARGE_BODY_MB", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub large_body_mb: u32,
    /// Those of a stranger.
    #[arg(long, env = "BODY_MB_OF_STRANGERS", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub body_mb_of_strangers: u32,
    /// Subscriptions of one session at a time.
    #[arg(long, env = "SUBSCRIPTIONS_PER_SESSION", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub subscriptions_per_session: u32,
    /// Requests of one session at a time.
    #[arg(long, env = "REQUESTS_PER_SESSION", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub requests_per_session: u32,
    /// Those of them whose answers may be large; further ones wait.
    #[arg(long, env = "LARGE_ANSWERS_PER_SESSION", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub large_answers_per_session: u32,
    /// Megabytes of patterns and lists in the filters of one session.
    #[arg(long, env = "FILTERS_MB_PER_SESSION", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub filters_mb_per_session: u32,
    /// Megabytes that wait for the slow socket of a user's session before nothing more is read from it.
    #[arg(long, env = "ANSWERS_MB_PER_SESSION", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub answers_mb_per_session: u32,
    /// Those of a stranger's session.
    #[arg(long, env = "ANSWERS_MB_PER_SESSION_OF_STRANGERS", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub answers_mb_per_session_of_strangers: u32,

    /// Queues at a time that hold items which one user has pushed. (Superusers may have ten times as much of this and of
    /// what follows.)
    #[arg(long, env = "QUEUES_PER_USER", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub queues_per_user: u64,
    /// Megabytes of such items.
    #[arg(long, env = "QUEUED_MB_PER_USER", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub queued_mb_per_user: u64,
    /// Named consumers of one user.
    #[arg(long, env = "CONSUMERS_PER_USER", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub consumers_per_user: u64,
    /// Long-poll subscriptions without a name of one user.
    #[arg(long, env = "UNNAMED_CONSUMERS_PER_USER", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub unnamed_consumers_per_user: u64,
    /// Channels that began with an event of one user's, or with a dead letter of a group of theirs.
    #[arg(long, env = "CHANNELS_PER_USER", default_value_t = 200,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub channels_per_user: u64,
    /// Keys (`/kv`) whose values one user has set.
    #[arg(long, env = "KEYS_PER_USER", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub keys_per_user: u64,
    /// Megabytes of these keys and values.
    #[arg(long, env = "KV_MB_PER_USER", default_value_t = 32,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub kv_mb_per_user: u64,
    /// Named tokens of one user.
    #[arg(long, env = "TOKENS_PER_USER", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub tokens_per_user: u64,

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
    /// How much is followed and kept for those who read channels.
    pub fn hub(&self) -> hub::Limits {
        let channels = Limits {
            server: self.max_followed_channels,
            user: self.followed_channels_per_user,
            address: self.followed_channels_per_address,
            // What one has who came first is not there for those who come later.
            binding: Binding::UsersAlways,
            full: Kind::TooMany,
        };
        let ring_bytes = usize::try_from(self.ring_mb << 20).unwrap_or(usize::MAX);
        hub::Limits { channels, ring_bytes }
    }

    /// How many requests with megabytes are worked on at a time.
    pub fn large(&self) -> Width {
        width(self.max_large_requests, self.large_requests_per_user, self.large_requests_per_user)
    }

    /// How much one user may have of what stays.
    pub fn kept(&self) -> Kept<u64> {
        Kept {
            queues: self.queues_per_user,
            queued_bytes: self.queued_mb_per_user << 20,
            consumers: self.consumers_per_user,
            unnamed_consumers: self.unnamed_consumers_per_user,
            channels: self.channels_per_user,
            keys: self.keys_per_user,
            key_bytes: self.kv_mb_per_user << 20,
            tokens: self.tokens_per_user,
        }
    }

    /// How many searches that an index serves run at a time.
    pub fn searches(&self) -> Width {
        width(self.max_searches, self.searches_per_user, self.searches_per_address)
    }

    /// What the embedded store searches at a time stands in line here, where users are not behind strangers, and not in
    /// the store.
    pub fn suit_embedded(&mut self) {
        self.max_searches = self.max_searches.min(EMBEDDED_SEARCHES);
    }

    /// How many searches that no index serves run at a time.
    pub fn scans(&self) -> Width {
        width(self.max_scans, self.scans_per_user, self.scans_per_address)
    }

    /// How many long lists are read at a time.
    pub fn long_lists(&self) -> Width {
        width(self.max_long_lists, self.long_lists_per_user, self.long_lists_per_address)
    }

    /// How many passwords are worked on, or wait for it, with so many processors.
    pub fn passwords(&self, processors: usize) -> Limits {
        Limits {
            server: self.max_passwords_waiting + processors as u64,
            user: self.passwords_per_user,
            address: self.passwords_per_address,
            binding: Binding::UnderPressure,
            full: Kind::TooMany,
        }
    }

    /// What one session may have.
    pub fn session(&self) -> session::Limits {
        session::Limits {
            message: kilobytes(self.message_kb),
            message_of_strangers: kilobytes(self.message_kb_of_strangers),
            subscriptions: self.subscriptions_per_session as usize,
            requests: self.requests_per_session as usize,
            large_answers: self.large_answers_per_session as usize,
            filters: megabytes(self.filters_mb_per_session),
            outgoing: megabytes(self.answers_mb_per_session),
            outgoing_of_strangers: megabytes(self.answers_mb_per_session_of_strangers),
        }
    }

    /// How large the body of a request may be.
    pub fn bodies(&self) -> BodyLimits {
        BodyLimits {
            large: megabytes(self.large_body_mb),
            others: megabytes(self.body_mb),
            strangers: megabytes(self.body_mb_of_strangers),
        }
    }

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

fn kilobytes(number: u32) -> usize {
    (number as usize) << 10
}

fn megabytes(number: u32) -> usize {
    (number as usize) << 20
}

fn width(server: u32, user: u32, address: u32) -> Width {
    Width { server: server as usize, user: user as usize, address: address as usize }
}
