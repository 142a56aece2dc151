//! From where users have logged in before.
//!
//! Wrong guesses of strangers count for a name, wherever they come from; if that were all, anybody could lock any user
//! out. So a user who comes from where they have been before is counted apart: at an address from which they have logged
//! in, as far as this instance remembers, or with a token that a login has given them (OWASP: device cookies).

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::ObjectId;

const REMEMBERED: usize = 1 << 14;

/// Somewhere a user has logged in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// At an address, by its [`neighbourhood`](crate::quota::neighbourhood).
    Address(ObjectId, u64),
    /// With whatever keeps this token of the user, by its [`key`](super::tokens::Token::key).
    Device(ObjectId, Arc<str>),
}

/// The addresses at which users were last, as many as there is room for: a later one may take the place of an earlier.
pub struct KnownAddresses {
    seed: RandomState,
    /// Each one's hash, where its hash says. Nobody can choose whose place is taken.
    places: Box<[AtomicU64]>,
}

impl Default for KnownAddresses {
    fn default() -> KnownAddresses {
        let places = (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect();
        KnownAddresses { seed: RandomState::new(), places }
    }
}

impl KnownAddresses {
    /// The user is there, and has proved who they are.
    pub fn note(&self, user: ObjectId, neighbourhood: u64) {
        let (hash, place) = self.place(user, neighbourhood);
        // Most often it is known, and many processors may look at it.
        if place.load(Ordering::Relaxed) != hash {
            place.store(hash, Ordering::Relaxed);
        }
    }

    /// Whether the user has been there.
    pub fn knows(&self, user: ObjectId, neighbourhood: u64) -> bool {
        let (hash, place) = self.place(user, neighbourhood);
        place.load(Ordering::Relaxed) == hash
    }

    fn place(&self, user: ObjectId, neighbourhood: u64) -> (u64, &AtomicU64) {
        let hash = self.seed.hash_one((user, neighbourhood)).max(1);
        (hash, &self.places[hash as usize % REMEMBERED])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_remembered_for_their_users() {
        let known = KnownAddresses::default();
        let users = [ObjectId::from_bytes([1; 12]), ObjectId::from_bytes([2; 12])];
        assert!(!known.knows(users[0], 7));
        known.note(users[0], 7);
        assert!(known.knows(users[0], 7));
        assert!(!known.knows(users[0], 8) && !known.knows(users[1], 7));
        // However many there are, they take no more room, and the last is known.
        for address in 0..3 * REMEMBERED as u64 {
            known.note(users[1], address);
            assert!(known.knows(users[1], address));
        }
        let remembered = (0..3 * REMEMBERED as u64).filter(|address| known.knows(users[1], *address)).count();
        assert!((REMEMBERED / 2..=REMEMBERED).contains(&remembered), "{remembered}");
    }
}
