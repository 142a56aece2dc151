//! How often something may be tried: guessing passwords, asking for mail.
//!
//! Each limit has a fixed number of buckets; which one a key uses depends on a random seed. So memory does not depend
//! on how many keys are tried, and nobody can choose whom they share a bucket with.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

const BUCKETS: usize = 1 << 14;

/// The limits of one instance.
pub struct Limits {
    /// Wrong credentials, by address.
    pub wrong_by_address: Limit,
    /// Wrong credentials, by username. Refills faster than the one by address, so that nobody alone keeps others from
    /// logging in.
    pub wrong_by_name: Limit,
    /// Mails asked for without credentials, by address.
    pub mail_by_address: Limit,
    /// Mails asked for without credentials, by who would get them.
    pub mail_by_recipient: Limit,
    /// Invitations, by who invites.
    pub invites: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Limits {
            wrong_by_address: Limit::new("too many wrong credentials", 20, seconds(3)),
            wrong_by_name: Limit::new("too many wrong credentials", 30, seconds(2)),
            mail_by_address: Limit::new("too many requests for mail", 20, seconds(30)),
            mail_by_recipient: Limit::new("too many requests for mail", 5, seconds(300)),
            invites: Limit::new("too many invitations", 100, seconds(2)),
        }
    }
}

/// A bucket per key that holds `burst` and refills by one every so often.
pub struct Limit {
    what: &'static str,
    burst: u64,
    every_ms: u64,
    began: Instant,
    seed: RandomState,
    /// When each bucket is full again, in milliseconds since `began`.
    full_at: Box<[AtomicU64]>,
}

impl Limit {
    fn new(what: &'static str, burst: u64, every: Duration) -> Limit {
        Limit {
            what,
            burst,
            every_ms: every.as_millis() as u64,
            began: Instant::now(),
            seed: RandomState::new(),
            full_at: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// 429 if the bucket of this key is empty.
    pub fn check(&self, key: impl Hash) -> Result<()> {
        self.check_at(self.now(), self.bucket(key))
    }

    /// Takes one out of the bucket of this key.
    pub fn charge(&self, key: impl Hash) {
        self.charge_at(self.now(), self.bucket(key));
    }

    /// Both.
    pub fn take(&self, key: impl Hash) -> Result<()> {
        let (now, bucket) = (self.now(), self.bucket(key));
        self.check_at(now, bucket)?;
        self.charge_at(now, bucket);
        Ok(())
    }

    fn check_at(&self, now: u64, bucket: &AtomicU64) -> Result<()> {
        let missing = bucket.load(Ordering::Relaxed).saturating_sub(now);
        let wait = missing.saturating_sub((self.burst - 1) * self.every_ms);
        if wait == 0 {
            return Ok(());
        }
        let detail = format!("{}, try again in {} s", self.what, wait.div_ceil(1000));
        Err(Error::new(Kind::TooMany, detail).retry_after(wait))
    }

    fn charge_at(&self, now: u64, bucket: &AtomicU64) {
        let most = now + self.burst * self.every_ms;
        let next = |full_at: u64| Some((full_at.max(now) + self.every_ms).min(most));
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn bucket(&self, key: impl Hash) -> &AtomicU64 {
        &self.full_at[self.seed.hash_one(key) as usize % BUCKETS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_refills() {
        let limit = Limit::new("too many", 3, Duration::from_secs(2));
        let bucket = AtomicU64::new(0);
        for _ in 0..3 {
            limit.check_at(10, &bucket).unwrap();
            limit.charge_at(10, &bucket);
        }
        let refused = limit.check_at(10, &bucket).unwrap_err();
        assert_eq!((refused.status(), refused.retry_after_ms()), (429, Some(2000)));
        assert_eq!(refused.detail(), "too many, try again in 2 s");
        limit.check_at(2010, &bucket).unwrap();
        limit.charge_at(2010, &bucket);
        assert!(limit.check_at(2010, &bucket).is_err());
        (0..100).for_each(|_| limit.charge_at(2010, &bucket));
        limit.check_at(4010, &bucket).unwrap();
        limit.check_at(1_000_000, &bucket).unwrap();
    }

    #[test]
    fn keys_have_buckets_of_their_own() {
        let limit = Limit::new("too many", 1, Duration::from_secs(60));
        limit.take("ann").unwrap();
        assert!(limit.take("ann").is_err());
        let others = (0..100).filter(|n| limit.take(format!("u{n}")).is_ok()).count();
        assert!(others >= 97, "{others}");
    }
}
