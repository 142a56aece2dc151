//! How often something may be tried: guessing passwords, asking for mail.
//!
//! Each limit has a fixed number of buckets; which one a key uses depends on a random seed. So memory does not depend
//! on how many keys are tried, and nobody can choose whom they share a bucket with.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Holder;
use crate::error::{Error, Kind, Result};

const BUCKETS: usize = 1 << 14;

/// The limits of one instance.
///
/// Wrong credentials are charged when they are tried and given back when they turn out to be right: who goes away before
/// the answer has paid for it.
pub struct Limits {
    /// Wrong credentials, by address.
    pub wrong_by_address: Limit,
    /// Wrong credentials of strangers, by username. Refills faster than the one by address, so that no address alone
    /// keeps others from logging in.
    pub wrong_by_name: Limit,
    /// Wrong credentials from where the user has logged in before, by that place: strangers do not count there.
    pub wrong_by_origin: Limit,
    /// Mails asked for, by who asks: a user, or the strangers of an address.
    pub mail_by_asker: Limit,
    /// Mails asked for, by who would get them; what strangers ask for is counted apart, so that they cannot keep users from
    /// it.
    pub mail_by_recipient: Limit,
    /// Invitations, by who invites.
    pub invites: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Limits {
            wrong_by_address: Limit::new("too many wrong credentials", 20, seconds(3)),
            wrong_by_name: Limit::new(
                "too many wrong credentials for this name from where it has not logged in before",
                30,
                seconds(2),
            )
            .hint("; a token of an earlier login, sent as last_token, need not wait"),
            wrong_by_origin: Limit::new("too many wrong credentials", 20, seconds(3)),
            mail_by_asker: Limit::new("too many requests for mail", 20, seconds(30)),
            mail_by_recipient: Limit::new("too many requests for mail", 5, seconds(300)),
            invites: Limit::new("too many invitations", 100, seconds(2)),
        }
    }
}

impl Limits {
    /// Somebody asks that a mail be sent to somebody: 429, and nothing is charged, if they have asked for too many, or too
    /// many were to go to the recipient.
    pub fn mail(&self, asker: Holder, recipient: &str) -> Result<Vec<Taken<'_>>> {
        self.mail_of(&self.mail_by_asker, asker, recipient)
    }

    /// Somebody invites somebody: as [`Limits::mail`], but who invites may do so more often. Without a recipient nothing is
    /// mailed.
    pub fn invitation(&self, asker: Holder, recipient: Option<&str>) -> Result<Vec<Taken<'_>>> {
        match recipient {
            Some(recipient) => self.mail_of(&self.invites, asker, recipient),
            None => Ok(vec![self.invites.take(asker)?]),
        }
    }

    fn mail_of<'l>(&'l self, by: &'l Limit, asker: Holder, recipient: &str) -> Result<Vec<Taken<'l>>> {
        let by_asker = by.take(asker)?;
        match self.mail_by_recipient.take((asker.is_stranger(), recipient.to_lowercase())) {
            Ok(by_recipient) => Ok(vec![by_asker, by_recipient]),
            Err(error) => {
                by_asker.refund();
                Err(error)
            }
        }
    }

    /// A guess by somebody who has not shown that they have been here before: 429, and nothing is charged, if there were
    /// too many from the address or for the name.
    pub fn guess_by_stranger(&self, address: u64, name: &str) -> Result<Vec<Taken<'_>>> {
        let by_address = self.wrong_by_address.take(address)?;
        match self.wrong_by_name.take(name) {
            Ok(by_name) => Ok(vec![by_address, by_name]),
            Err(error) => {
                by_address.refund();
                Err(error)
            }
        }
    }
}

/// A bucket per key that holds `burst` and refills by one every so often.
pub struct Limit {
    what: &'static str,
    hint: &'static str,
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
            hint: "",
            burst,
            every_ms: every.as_millis() as u64,
            began: Instant::now(),
            seed: RandomState::new(),
            full_at: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The end of what a refusal says.
    fn hint(self, hint: &'static str) -> Limit {
        Limit { hint, ..self }
    }

    /// Takes one out of the bucket of this key: 429 if it is empty.
    pub fn take(&self, key: impl Hash) -> Result<Taken<'_>> {
        self.take_at(self.now(), self.bucket(key))
    }

    fn take_at<'l>(&'l self, now: u64, bucket: &'l AtomicU64) -> Result<Taken<'l>> {
        let most = now + (self.burst - 1) * self.every_ms;
        let next = |full_at: u64| (full_at <= most).then(|| full_at.max(now) + self.every_ms);
        match bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(Taken { bucket, every_ms: self.every_ms }),
            Err(full_at) => {
                let wait = full_at - most;
                let detail = format!("{}, try again in {} s{}", self.what, wait.div_ceil(1000), self.hint);
                Err(Error::new(Kind::TooMany, detail).retry_after(wait))
            }
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn bucket(&self, key: impl Hash) -> &AtomicU64 {
        &self.full_at[self.seed.hash_one(key) as usize % BUCKETS]
    }
}

/// What was taken out of a bucket. It stays taken unless it is given back.
#[derive(Debug)]
pub struct Taken<'l> {
    bucket: &'l AtomicU64,
    every_ms: u64,
}

impl Taken<'_> {
    /// Gives it back: what was tried was right.
    pub fn refund(self) {
        let before = |full_at: u64| Some(full_at.saturating_sub(self.every_ms));
        let _ = self.bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectId;

    #[test]
    fn a_bucket_empties_and_refills() {
        let limit = Limit::new("too many", 3, Duration::from_secs(2)).hint(" or else");
        let bucket = AtomicU64::new(0);
        for _ in 0..3 {
            limit.take_at(10, &bucket).unwrap();
        }
        let refused = limit.take_at(10, &bucket).unwrap_err();
        assert_eq!((refused.status(), refused.retry_after_ms()), (429, Some(2000)));
        assert_eq!(refused.detail(), "too many, try again in 2 s or else");
        limit.take_at(2010, &bucket).unwrap();
        (0..100).for_each(|_| drop(limit.take_at(2010, &bucket).unwrap_err()));
        limit.take_at(4010, &bucket).unwrap();
        limit.take_at(1_000_000, &bucket).unwrap();
    }

    #[test]
    fn what_was_right_is_given_back() {
        let limit = Limit::new("too many", 2, Duration::from_secs(2));
        let bucket = AtomicU64::new(0);
        for now in [10_000, 10_001, 10_002] {
            limit.take_at(now, &bucket).unwrap().refund();
        }
        let right = [limit.take_at(10_003, &bucket).unwrap(), limit.take_at(10_003, &bucket).unwrap()];
        limit.take_at(10_003, &bucket).unwrap_err();
        right.into_iter().for_each(Taken::refund);
        let late = limit.take_at(10_003, &bucket).unwrap();
        // Full again before the answer comes: there is nothing to give back.
        late.refund();
        let _two = [limit.take_at(20_000, &bucket).unwrap(), limit.take_at(20_000, &bucket).unwrap()];
        limit.take_at(20_000, &bucket).unwrap_err();
    }

    #[test]
    fn a_name_is_kept_from_strangers_alone() {
        let limits = Limits::default();
        let guesses = (0..100).filter(|address| limits.guess_by_stranger(*address, "ann").is_ok()).count();
        assert!((30..40).contains(&guesses), "{guesses}");
        let refused = limits.guess_by_stranger(1000, "ann").unwrap_err().detail().to_string();
        assert!(refused.contains("for this name") && refused.contains("last_token"), "{refused}");
        // What the name refuses is not charged to the address.
        (0..100).for_each(|_| drop(limits.guess_by_stranger(1001, "ann")));
        assert!(limits.guess_by_stranger(1001, "bob").is_ok());
        limits.wrong_by_origin.take("ann at home").unwrap();
        let guesses =
            (0..100).filter(|name| limits.guess_by_stranger(2000, &format!("u{name}")).is_ok()).count();
        assert!((20..30).contains(&guesses), "{guesses}");
    }

    #[test]
    fn mail_is_limited_by_who_asks_and_by_who_gets_it() {
        let limits = Limits::default();
        let (ann, bob) = (Holder::User(ObjectId::new()), Holder::User(ObjectId::new()));
        let stranger = Holder::Address(1);
        let sent = |asker, recipient: &str, times: usize| {
            (0..times).filter(|_| limits.mail(asker, recipient).is_ok()).count()
        };
        assert_eq!(sent(stranger, "Victim@example.org", 10), 5);
        assert_eq!(sent(ann, "victim@example.org", 10), 5, "strangers do not keep users from it");
        assert_eq!(sent(bob, "VICTIM@example.org", 10), 0, "whoever asks");
        assert!(limits.invitation(bob, Some("victim@example.org")).is_err());
        limits.invitation(bob, None).unwrap();
        // What the recipient has refused is not charged to who asks.
        let all: usize = (0..100).map(|n| sent(bob, &format!("v{n}@example.org"), 1)).sum();
        assert!((19..30).contains(&all), "{all}");
        let refused = limits.mail(bob, "one.more@example.org").unwrap_err();
        assert!(refused.status() == 429 && refused.retry_after_ms().is_some(), "{refused}");
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
