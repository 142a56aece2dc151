//! What one client may cost, so that everybody else has the rest.
//!
//! * [`Pool`]: what many have at the same time (connections, sessions, searches, bytes of answers). A [`Place`] in it is
//!   given back when it is dropped, so it goes with what it counts: a task, an answer, a socket.
//! * [`Pace`]: how fast bytes have to move, in and out.
//! * [`rate`]: how often something may be tried (guessing passwords, asking for mail).
//!
//! Everything is counted for a [`Holder`]: a user, wherever they come from, or the address of somebody who has not said
//! who they are.

pub mod descriptors;
mod pace;
mod pool;
pub mod rate;

use std::net::IpAddr;
use std::sync::Arc;

pub use pace::{Pace, Progress};
pub use pool::{Binding, Limits, Place, Pool};

use crate::auth::Caller;
use crate::config;
use crate::error::Kind;
use crate::model::ObjectId;

/// What clients have of this instance.
pub struct Quotas {
    /// Connections.
    pub connections: Arc<Pool>,
    /// Sessions and feeds.
    pub sessions: Arc<Pool>,
}

impl Quotas {
    /// Nobody has anything yet.
    pub fn new(settings: &config::Quotas) -> Quotas {
        let (binding, full) = (Binding::UnderPressure, Kind::Unavailable);
        let connections = Limits {
            server: settings.max_connections,
            user: settings.max_connections,
            address: settings.connections_per_address,
            binding,
            full,
        };
        let sessions = Limits {
            server: settings.max_sessions,
            user: settings.sessions_per_user,
            address: settings.sessions_per_address,
            binding,
            full,
        };
        Quotas {
            connections: Pool::new("connections", connections),
            sessions: Pool::new("sessions and feeds", sessions),
        }
    }
}

/// For whom something is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A user, from whatever address.
    User(ObjectId),
    /// A stranger, by [`neighbourhood`].
    Address(u64),
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

    /// Whether it is nobody in particular.
    pub fn is_stranger(self) -> bool {
        matches!(self, Holder::Address(_))
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
