//! Work that takes turns: so much of it at a time, so much of it for one holder, and a line that nobody can fill alone.
//!
//! A holder's work stands in a lane of its own first, and only what has come through the lane waits for a turn among all.
//! So of two holders, one of whom wants much and the other little, the other is served next.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Holder, Place, Pool};
use crate::error::{Error, Result};

/// Lanes of users, and as many of addresses. Who shares one waits a little longer, no more.
const LANES: usize = 1 << 10;

/// How much is worked on at a time.
#[derive(Clone, Copy, Debug)]
pub struct Width {
    /// For all together.
    pub server: usize,
    /// For one user.
    pub user: usize,
    /// For the strangers of one address.
    pub address: usize,
}

impl Width {
    /// For strangers together: each that runs makes those of users slower, and half as many as there may be of both are
    /// enough to be slow.
    fn strangers(self) -> usize {
        (self.server / 2).max(1)
    }
}

/// Work of one kind on this instance.
pub struct Turns {
    running: Arc<Semaphore>,
    /// What strangers together leave to users.
    strangers: Arc<Semaphore>,
    /// A place for each that waits or is worked on.
    places: Arc<Pool>,
    users: Box<[Arc<Semaphore>]>,
    addresses: Box<[Arc<Semaphore>]>,
    seed: RandomState,
}

impl Turns {
    /// Work of which so much runs at a time, and so much as `places` says waits or runs.
    pub fn new(width: Width, places: Arc<Pool>) -> Turns {
        let lanes = |width: usize| (0..LANES).map(|_| Arc::new(Semaphore::new(width))).collect();
        Turns {
            running: Arc::new(Semaphore::new(width.server)),
            strangers: Arc::new(Semaphore::new(width.strangers())),
            places,
            users: lanes(width.user),
            addresses: lanes(width.address.min(width.strangers())),
            seed: RandomState::new(),
        }
    }

    /// Waits for a turn of this holder: 429 at once if the line is full. It ends when it is dropped; until then it goes
    /// with the work, whatever becomes of whoever asked for it.
    pub async fn turn(&self, holder: Holder) -> Result<Turn> {
        let place = self.places.take(holder, 1)?;
        let lane = self.lane(holder).acquire_owned().await.map_err(Error::internal)?;
        let stranger = match holder.is_stranger() {
            true => Some(self.strangers.clone().acquire_owned().await.map_err(Error::internal)?),
            false => None,
        };
        let running = self.running.clone().acquire_owned().await.map_err(Error::internal)?;
        Ok(Turn { _held: (running, stranger, lane, place) })
    }

    /// As [`Turns::turn`]; 429 also if it does not come within `patience`.
    pub async fn turn_within(&self, patience: Duration, holder: Holder) -> Result<Turn> {
        let late = |_| self.places.is_short();
        tokio::time::timeout(patience, self.turn(holder)).await.map_err(late)?
    }

    /// What waits or is worked on.
    pub fn places(&self) -> &Pool {
        &self.places
    }

    fn lane(&self, holder: Holder) -> Arc<Semaphore> {
        let lanes = if holder.is_stranger() { &self.addresses } else { &self.users };
        lanes[self.seed.hash_one(holder) as usize % LANES].clone()
    }
}

/// The right to be worked on, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// In the order in which they are given back: whoever gets the turn finds the place free.
    _held: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>, OwnedSemaphorePermit, Place),
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::error::Kind;
    use crate::quota::{Binding, Limits};

    #[tokio::test]
    async fn whoever_wants_much_does_not_keep_others_waiting() {
        let places =
            Limits { server: 20, user: 10, address: 10, binding: Binding::Always, full: Kind::TooMany };
        let places = Pool::new("works", places);
        let turns = Turns::new(Width { server: 4, user: 2, address: 1 }, places.clone());
        let (much, little) = (Holder::Address(1), Holder::Address(2));
        let mut first = turns.turn(much).now_or_never().unwrap().unwrap();
        let mut more: Vec<_> = (0..9).map(|_| Box::pin(turns.turn(much))).collect();
        assert!(more.iter_mut().all(|turn| turn.now_or_never().is_none()), "its lane is taken");
        assert_eq!(turns.turn(much).await.unwrap_err().kind(), Kind::TooMany);
        for _ in 0..5 {
            let others = turns.turn(little).now_or_never().expect("there is room for others").unwrap();
            drop(others);
        }
        assert_eq!(places.taken_by(much), 10);
        for mut next in more {
            assert!((&mut next).now_or_never().is_none());
            drop(first);
            first = next.await.unwrap();
        }
        drop(first);
        assert_eq!(places.taken(), 0);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_gives_up_the_place() {
        let places =
            Limits { server: 20, user: 10, address: 10, binding: Binding::Always, full: Kind::TooMany };
        let places = Pool::new("works", places);
        let turns = Turns::new(Width { server: 1, user: 1, address: 1 }, places.clone());
        let running = turns.turn(Holder::Address(1)).await.unwrap();
        let mut waits = Box::pin(turns.turn(Holder::Address(2)));
        assert!((&mut waits).now_or_never().is_none());
        drop(waits);
        assert_eq!(places.taken(), 1);
        drop(running);
        turns.turn(Holder::Address(3)).now_or_never().unwrap().unwrap();
    }
}
