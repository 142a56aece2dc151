//! What many have at the same time: so much in all, three quarters of it for strangers together, a share for each holder.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use super::Holder;
use crate::error::{Error, Kind, Result};
use crate::sync::lock;

/// One address may have so small a part of a pool on probation.
const GUESTS: u64 = 256;
/// When a pool says no, it may have room again after so long.
const RETRY_MS: u64 = 1000;

/// How much of a pool may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// By all together.
    pub server: u64,
    /// By one user.
    pub user: u64,
    /// By the strangers of one address, or for one name.
    pub address: u64,
    /// When the limits of a user and of an address count.
    pub binding: Binding,
    /// How it is called when nothing is left for anybody: a holder who has had their share hears
    /// [`TooMany`](Kind::TooMany).
    pub full: Kind,
}

/// When the share of a holder binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Always.
    Always,
    /// That of a user always, that of an address as in [`Binding::UnderPressure`]: many may sit behind it.
    UsersAlways,
    /// When more than half of the pool is taken: until then nobody is short of anything, and a whole site may sit behind
    /// one address.
    UnderPressure,
}

/// A resource of this instance.
#[derive(Debug)]
pub struct Pool {
    /// What there is so much of, in the plural, as a refusal calls it.
    what: &'static str,
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u64,
    strangers: u64,
    /// Nobody who has nothing is in it.
    by_holder: HashMap<Holder, u64>,
    /// What is on probation.
    guests: HashMap<Holder, u64>,
}

impl Pool {
    /// A pool of which nothing is taken.
    pub fn new(what: &'static str, limits: Limits) -> Arc<Pool> {
        Arc::new(Pool { what, limits, taken: Mutex::default() })
    }

    /// Takes `amount` for `holder`; 429 if that is more than is left, or than the holder's share.
    pub fn take(self: &Arc<Pool>, holder: Holder, amount: u64) -> Result<Place> {
        lock(&self.taken).add(self, holder, amount)?;
        Ok(Place { pool: self.clone(), holder, amount, on_probation: false })
    }

    /// Takes one for somebody who may turn out to be a user, though strangers have what they may have: for a moment, until
    /// [`Place::pass_to`] tells. 429 if nothing at all is left, or if too many of this address wait to be told apart.
    pub fn take_on_probation(self: &Arc<Pool>, holder: Holder) -> Result<Place> {
        let (mut taken, most) = (lock(&self.taken), (self.limits.server / GUESTS).max(1));
        let own = taken.guests.get(&holder).copied().unwrap_or(0);
        if taken.all >= self.limits.server {
            return Err(self.is_full());
        }
        if own >= most {
            let whose = "an address has, of those that have not said who they are,";
            return Err(self.refusal(Kind::TooMany, whose, most));
        }
        taken.all += 1;
        *taken.guests.entry(holder).or_default() += 1;
        Ok(Place { pool: self.clone(), holder, amount: 1, on_probation: true })
    }

    /// How much of it may be taken.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How much of it is taken.
    pub fn taken(&self) -> u64 {
        lock(&self.taken).all
    }

    /// How much of it this holder has.
    pub fn taken_by(&self, holder: Holder) -> u64 {
        lock(&self.taken).by_holder.get(&holder).copied().unwrap_or(0)
    }

    /// How much of it a holder may take.
    pub fn share(&self, holder: Holder) -> u64 {
        if holder.is_stranger() { self.limits.address } else { self.limits.user }
    }

    /// The refusal of somebody who has waited for long enough.
    pub(super) fn is_short(&self) -> Error {
        Error::new(Kind::TooMany, format!("too many {}, try again", self.what)).retry_after(RETRY_MS)
    }

    fn is_full(&self) -> Error {
        self.refusal(self.limits.full, "this instance has", self.limits.server)
    }

    fn refusal(&self, kind: Kind, whose: &str, most: u64) -> Error {
        let detail = format!("{whose} at most {most} {}, try again", self.what);
        Error::new(kind, detail).retry_after(RETRY_MS)
    }
}

impl Taken {
    fn add(&mut self, pool: &Pool, holder: Holder, amount: u64) -> Result<()> {
        let server = pool.limits.server;
        if self.all.saturating_add(amount) > server {
            return Err(pool.is_full());
        }
        let strangers = server - server / 4;
        if holder.is_stranger() && self.strangers.saturating_add(amount) > strangers {
            return Err(pool.refusal(Kind::TooMany, "who is not signed in has, all together,", strangers));
        }
        let binds = match pool.limits.binding {
            Binding::Always => true,
            Binding::UsersAlways => !holder.is_stranger(),
            Binding::UnderPressure => false,
        };
        let binds = binds || self.all > server / 2;
        let own = self.by_holder.get(&holder).copied().unwrap_or(0);
        let share = pool.share(holder);
        if binds && own.saturating_add(amount) > share {
            let whose = match holder {
                Holder::User(_) => "a user has",
                Holder::Address(_) => "an address has",
                Holder::Name(_) => "a name has",
            };
            return Err(pool.refusal(Kind::TooMany, whose, share));
        }
        self.put(holder, amount);
        Ok(())
    }

    fn put(&mut self, holder: Holder, amount: u64) {
        self.all += amount;
        self.strangers += if holder.is_stranger() { amount } else { 0 };
        *self.by_holder.entry(holder).or_default() += amount;
    }

    fn remove(&mut self, place: &Place) {
        let Place { holder, amount, .. } = *place;
        self.all -= amount;
        if place.on_probation {
            return subtract(&mut self.guests, holder, amount);
        }
        self.strangers -= if holder.is_stranger() { amount } else { 0 };
        subtract(&mut self.by_holder, holder, amount);
    }
}

fn subtract(counts: &mut HashMap<Holder, u64>, holder: Holder, amount: u64) {
    if let Entry::Occupied(mut own) = counts.entry(holder) {
        *own.get_mut() -= amount;
        if *own.get() == 0 {
            own.remove();
        }
    }
}

/// What somebody has taken of a pool, until it is dropped.
#[derive(Debug)]
pub struct Place {
    pool: Arc<Pool>,
    holder: Holder,
    amount: u64,
    on_probation: bool,
}

impl Place {
    /// Whose it is.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// How much it is.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Whether it depends on whose it turns out to be.
    pub fn is_on_probation(&self) -> bool {
        self.on_probation
    }

    /// Takes so much more; 429, and it stays as large as it was, if that is more than its holder may have.
    pub fn grow(&mut self, amount: u64) -> Result<()> {
        lock(&self.pool.taken).add(&self.pool, self.holder, amount)?;
        self.amount += amount;
        Ok(())
    }

    /// Becomes somebody else's: a stranger has said who they are. 429, and it stays whose it was, if that is more than
    /// they may have.
    pub fn pass_to(&mut self, holder: Holder) -> Result<()> {
        if holder == self.holder && !self.on_probation {
            return Ok(());
        }
        let mut taken = lock(&self.pool.taken);
        // What it takes already is not missing.
        taken.all -= self.amount;
        let passed = taken.add(&self.pool, holder, self.amount);
        if passed.is_err() {
            taken.all += self.amount;
            return passed;
        }
        taken.all += self.amount;
        taken.remove(self);
        (self.holder, self.on_probation) = (holder, false);
        Ok(())
    }

    /// Becomes somebody else's who uses the same already and goes on with it, whatever else they have.
    pub fn leave_to(&mut self, holder: Holder) {
        let mut taken = lock(&self.pool.taken);
        taken.remove(self);
        taken.put(holder, self.amount);
        (self.holder, self.on_probation) = (holder, false);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.pool.taken).remove(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectId;

    const ANN: Holder = Holder::User(ObjectId::from_bytes([1; 12]));
    const HERE: Holder = Holder::Address(1);
    const THERE: Holder = Holder::Address(2);

    fn pool(binding: Binding) -> Arc<Pool> {
        Pool::new("seats", Limits { server: 100, user: 20, address: 10, binding, full: Kind::TooMany })
    }

    fn refusal(result: Result<Place>) -> String {
        let error = result.expect_err("refused");
        assert_eq!((error.status(), error.retry_after_ms()), (429, Some(RETRY_MS)));
        error.detail().to_string()
    }

    #[test]
    fn a_share_binds_always_or_under_pressure() {
        let always = pool(Binding::Always);
        let own = always.take(HERE, 10).unwrap();
        assert!(refusal(always.take(HERE, 1)).contains("an address has at most 10 seats"));
        let _others = always.take(THERE, 10).unwrap();
        let _anns = always.take(ANN, 20).unwrap();
        assert!(refusal(always.take(ANN, 1)).contains("a user has at most 20 seats"));
        drop(own);
        assert_eq!((always.taken(), always.taken_by(HERE), always.taken_by(ANN)), (30, 0, 20));
        let _again = always.take(HERE, 10).unwrap();

        let users = pool(Binding::UsersAlways);
        let _anns = users.take(ANN, 20).unwrap();
        refusal(users.take(ANN, 1));
        let _site = users.take(HERE, 31).unwrap();
        refusal(users.take(HERE, 1));

        let pressed = pool(Binding::UnderPressure);
        let _site = pressed.take(HERE, 51).unwrap();
        refusal(pressed.take(HERE, 1));
        let _others = pressed.take(THERE, 10).unwrap();
        refusal(pressed.take(THERE, 1));
    }

    #[test]
    fn strangers_leave_a_quarter_to_users() {
        let pool = pool(Binding::UnderPressure);
        let mut held: Vec<Place> =
            (0..75).map(|number| pool.take(Holder::Address(number), 1).unwrap()).collect();
        assert!(refusal(pool.take(Holder::Address(99), 1)).contains("all together"));
        let anns = pool.take(ANN, 20).unwrap();
        let _bobs = pool.take(Holder::User(ObjectId::from_bytes([2; 12])), 5).unwrap();
        assert!(refusal(pool.take(ANN, 1)).contains("this instance has at most 100"));
        assert!(held[0].pass_to(ANN).is_err(), "more than her share");
        assert_eq!((pool.taken(), pool.taken_by(ANN), pool.taken_by(held[0].holder())), (100, 20, 1));
        drop(anns);
        held[0].pass_to(ANN).unwrap();
        assert_eq!((held[0].holder(), pool.taken_by(ANN)), (ANN, 1));
        let _room = pool.take(Holder::Address(99), 1).unwrap();
        held.clear();
        assert_eq!((pool.taken(), lock(&pool.taken).by_holder.len()), (6, 2));
    }

    #[test]
    fn who_may_turn_out_to_be_a_user_is_let_in_for_a_moment() {
        let limits = Limits {
            server: 1000,
            user: 100,
            address: 100,
            binding: Binding::UnderPressure,
            full: Kind::TooMany,
        };
        let pool = Pool::new("seats", limits);
        let _strangers: Vec<Place> =
            (0..75).map(|number| pool.take(Holder::Address(number), 10).unwrap()).collect();
        let mut guests: Vec<Place> = (0..3).map(|_| pool.take_on_probation(THERE).unwrap()).collect();
        assert!(refusal(pool.take_on_probation(THERE)).contains("have not said who they are"));
        assert!(guests[0].pass_to(THERE).is_err(), "strangers have what they may have");
        assert!(guests[0].is_on_probation());
        guests[0].pass_to(ANN).unwrap();
        assert!(!guests[0].is_on_probation());
        assert_eq!((pool.taken(), pool.taken_by(ANN)), (753, 1));
        let _further = pool.take_on_probation(THERE).unwrap();
        guests.clear();
        assert_eq!((pool.taken(), lock(&pool.taken).guests.len()), (751, 1));
    }
}
