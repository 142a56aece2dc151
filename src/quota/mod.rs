//! What one client may cost, so that everybody else has the rest.
//!
//! * [`Pool`]: what many have at the same time (connections, sessions, searches, bytes of answers). A [`Place`] in it is
//!   given back when it is dropped, so it goes with what it counts: a task, an answer, a socket.
//! * [`Turns`]: work that runs a few at a time, and in which holders take turns.
//! * [`Kept`]: what stays, on all instances, until somebody removes it (queues, consumers, keys).
//! * [`Pace`]: how fast bytes have to move, in and out.
//! * [`json`]: how much may be parsed.
//! * [`rate`]: how often something may be tried (guessing passwords, asking for mail).
//!
//! Everything is counted for a [`Holder`]: a user, wherever they come from, or the address of somebody who has not said
//! who they are.

pub mod descriptors;
pub mod json;
mod kept;
mod pace;
mod pool;
pub mod rate;
mod turns;

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

pub use kept::{Kept, Lanes, Over, Share, Thing};
pub use pace::{Pace, Progress};
pub use pool::{Binding, Limits, Place, Pool};
pub use turns::{Turn, Turns, Width};

use crate::auth::Caller;
use crate::config;
use crate::error::{Kind, Result};
use crate::model::ObjectId;
use crate::session;

/// Smaller answers are not counted one by one: there are only so many requests at a time.
const LARGE_ANSWER: usize = 64 << 10;
/// Smaller filters neither: a session has only so many subscriptions.
const LARGE_FILTER: usize = 1 << 10;

/// What clients have of this instance.
pub struct Quotas {
    /// What each session may have.
    pub session: Arc<session::Limits>,
    /// Connections.
    pub connections: Arc<Pool>,
    /// Sessions and feeds.
    pub sessions: Arc<Pool>,
    /// Long polls that wait.
    pub polls: Arc<Pool>,
    /// Bytes of the bodies of requests that come in or are worked on.
    pub bodies: Arc<Pool>,
    /// Bytes of large answers that have not left yet.
    pub answers: Arc<Pool>,
    /// Bytes of the regular expressions, compiled, and lists in filters of subscriptions and feeds.
    pub filters: Arc<Pool>,
    /// Writes that run, whether somebody waits for them or not.
    pub writes: Arc<Pool>,
    /// Requests with megabytes.
    pub large: Turns,
    /// Requests whose regular expressions are compiled.
    pub patterns: Turns,
    /// Searches that an index serves.
    pub searches: Turns,
    /// Searches that look through much of what there is.
    pub scans: Turns,
}

impl Quotas {
    /// Nobody has anything yet.
    pub fn new(settings: &config::Quotas) -> Quotas {
        let shares = |server, user, address, full| Limits {
            server,
            user,
            address,
            binding: Binding::UnderPressure,
            full,
        };
        let (connections, sessions) = (settings.max_connections, settings.max_sessions);
        let connections = shares(
            connections,
            settings.connections_per_user,
            settings.connections_per_address,
            Kind::Unavailable,
        );
        let sessions =
            shares(sessions, settings.sessions_per_user, settings.sessions_per_address, Kind::Unavailable);
        // Strangers cannot poll.
        let polls = shares(settings.max_polls, settings.polls_per_user, 1, Kind::TooMany);
        let bytes = |server: u64, user: u64, address: u64| {
            shares(server << 20, user << 20, address << 20, Kind::TooMany)
        };
        let bodies = bytes(settings.bodies_mb, settings.bodies_mb_per_user, settings.bodies_mb_per_address);
        let answers =
            bytes(settings.answers_mb, settings.answers_mb_per_user, settings.answers_mb_per_address);
        let filters =
            bytes(settings.filters_mb, settings.filters_mb_per_user, settings.filters_mb_per_address);
        let writes =
            shares(settings.max_writes, settings.writes_per_user, settings.writes_per_user, Kind::TooMany);
        let (user, address) = (settings.searches_waiting_per_user, settings.searches_waiting_per_address);
        let waiting =
            |what| Pool::new(what, shares(settings.max_searches_waiting, user, address, Kind::TooMany));
        Quotas {
            session: Arc::new(settings.session()),
            connections: Pool::new("connections", connections),
            sessions: Pool::new("sessions and feeds", sessions),
            polls: Pool::new("long polls that wait", polls),
            bodies: Pool::new("bytes of request bodies at a time", bodies),
            answers: Pool::new("bytes of answers on their way", answers),
            filters: Pool::new("bytes of filters in subscriptions", filters),
            writes: Pool::new("writes at a time", writes),
            large: Turns::new(settings.large(), waiting("large requests at a time")),
            patterns: Turns::new(compiling(), waiting("filters with regular expressions at a time")),
            searches: Turns::new(settings.searches(), waiting("searches at a time")),
            scans: Turns::new(settings.scans(), waiting("searches without an index at a time")),
        }
    }
}

impl Quotas {
    /// All that is shared out here, by name.
    pub fn pools(&self) -> [(&'static str, &Pool); 11] {
        [
            ("connections", &*self.connections),
            ("sessions", &*self.sessions),
            ("body_bytes", &*self.bodies),
            ("answer_bytes", &*self.answers),
            ("filter_bytes", &*self.filters),
            ("polls", &*self.polls),
            ("writes", &*self.writes),
            ("large_requests", self.large.places()),
            ("filters_with_patterns", self.patterns.places()),
            ("searches", self.searches.places()),
            ("scans", self.scans.places()),
        ]
    }

    /// A place for the filter of a subscription that holds so many bytes; none for a small one.
    pub fn filter(&self, holder: Holder, weight: usize) -> Result<Option<Place>> {
        (weight >= LARGE_FILTER).then(|| self.filters.take(holder, weight as u64)).transpose()
    }

    /// A place for what becomes an answer of so many bytes; none for one that is not large.
    pub fn large(&self, holder: Holder, bytes: usize) -> Result<Option<Place>> {
        (bytes >= LARGE_ANSWER).then(|| self.answers.take(holder, bytes as u64)).transpose()
    }

    /// An answer to this holder, with its place among the large ones if it is large; the error instead, if there are too
    /// many of those already.
    pub fn count(&self, holder: Holder, answer: Result<String>) -> (Result<String>, Option<Place>) {
        let counted = answer.and_then(|text| Ok((self.large(holder, text.len())?, text)));
        match counted {
            Ok((place, text)) => (Ok(text), place),
            Err(error) => (Err(error), None),
        }
    }
}

/// Half of the processors compile regular expressions, at most; one of them for one holder.
fn compiling() -> Width {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Width { server: (processors / 2).max(1), user: 1, address: 1 }
}

/// For whom something is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A user, from whatever address.
    User(ObjectId),
    /// A stranger, by [`neighbourhood`].
    Address(u64),
    /// A name that somebody says is theirs and has yet to prove, by [`Holder::name`].
    Name(u64),
}

impl Holder {
    /// Who `caller` is, or where a stranger comes from.
    pub fn of(caller: &Caller, address: IpAddr) -> Holder {
        match &caller.user {
            Some(user) => Holder::User(user.id),
            None => Holder::stranger(address),
        }
    }

    /// Somebody from this address who has not said who they are.
    pub fn stranger(address: IpAddr) -> Holder {
        Holder::Address(neighbourhood(address))
    }

    /// Somebody who says that this is their name, or says more than that. Nobody can choose whom they are mistaken for.
    pub fn name(name: impl Hash) -> Holder {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Holder::Name(SEED.hash_one(name))
    }

    /// Whether it is nobody in particular.
    pub fn is_stranger(self) -> bool {
        !matches!(self, Holder::User(_))
    }
}

/// Whose address it is: an IPv6 customer has a whole network.
pub fn neighbourhood(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_neighbourhood() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
