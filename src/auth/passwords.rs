//! Passwords: argon2id for new hashes, bcrypt still verified (contract 6.3).
//!
//! Hashing is slow on purpose and takes 64 MiB, so it runs off the async threads, one hash a processor. Who wants one
//! takes a [`Turn`], which has a place among those who are worked on or wait. Places and processor belong to the work:
//! they are given back when it ends, whatever has become of the request by then. A request that goes away while it waits
//! gives its place up, and nothing is hashed.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{Mutex, Semaphore};

use crate::config;
use crate::error::{Error, Result};
use crate::quota::{Binding, Holder, Limits, Place, Pool};

/// Lines in front of the line for a processor. Who shares one waits a little longer, no more.
const LANES: usize = 1 << 10;
/// Longer passwords (in bytes) are refused, so that nobody makes us hash megabytes.
pub const LONGEST: usize = 1024;

/// Verified when the user is unknown, so that the answer takes as long as for a known one: a hash as [`argon2`] makes
/// them. Computing it at each start took longer than all the rest of it.
const DECOY: &str =
    "$argon2id$v=19$m=65536,t=3,p=4$a2VybmVsY2ktZGVjb3ktLQ$QEeupXh/Ix79w1MLoDkFpvZdN32GFCHfQnoiXeJr/lQ";

/// Hashes and verifies passwords.
pub struct Passwords {
    processors: Arc<Semaphore>,
    /// A place for each turn, by who asks.
    places: Arc<Pool>,
    /// The same by whose password it is.
    accounts: Arc<Pool>,
    /// All but the first in a lane wait here. So each holder has one hash in the line for a processor, and they take turns.
    lanes: Box<[Mutex<()>]>,
    seed: RandomState,
}

/// How a verification ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wrong.
    Wrong,
    /// Right.
    Right,
    /// Right, and the hash should be replaced by this newer form.
    RightUpgrade(String),
}

impl Passwords {
    /// One password for each processor at a time.
    pub fn new(settings: &config::Quotas) -> Passwords {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Passwords::on(processors, settings.passwords(processors))
    }

    /// `limits`: of turns, with a processor or waiting for one. An account has as many as a user, always.
    fn on(processors: usize, limits: Limits) -> Passwords {
        let accounts = Limits { server: u64::MAX, address: limits.user, binding: Binding::Always, ..limits };
        Passwords {
            processors: Arc::new(Semaphore::new(processors)),
            places: Pool::new("passwords checked at a time", limits),
            accounts: Pool::new("logins at a time", accounts),
            lanes: (0..LANES).map(|_| Mutex::default()).collect(),
            seed: RandomState::new(),
        }
    }

    /// A turn for `asker`, about the password of `account`: 429 if one of them has too many already, or all have.
    pub fn turn(&self, asker: Holder, account: Holder) -> Result<Turn<'_>> {
        let places = [self.places.take(asker, 1)?, self.accounts.take(account, 1)?];
        Ok(Turn { lane: self.lane(Some(asker)), places: Arc::from(places), passwords: self })
    }

    /// A turn for work of our own, whose amount is limited elsewhere; all of it takes turns with one holder.
    pub fn own_turn(&self) -> Turn<'_> {
        Turn { lane: self.lane(None), places: Arc::from([]), passwords: self }
    }

    /// Passwords that wait or are worked on.
    pub fn places(&self) -> &Pool {
        &self.places
    }

    fn lane(&self, asker: Option<Holder>) -> &Mutex<()> {
        &self.lanes[self.seed.hash_one(asker) as usize % LANES]
    }
}

/// The right to have passwords hashed, one after the other.
pub struct Turn<'p> {
    passwords: &'p Passwords,
    lane: &'p Mutex<()>,
    /// Shared with the work.
    places: Arc<[Place]>,
}

impl Turn<'_> {
    /// An argon2id hash in PHC form.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let password = password.to_owned();
        self.work(move || hash_now(&password)).await
    }

    /// Verifies against `hash`, or takes as long and says wrong when there is none.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<Verdict> {
        if password.len() > LONGEST {
            return Ok(Verdict::Wrong);
        }
        let known = hash.is_some();
        let (password, hash) = (password.to_owned(), hash.unwrap_or(DECOY).to_owned());
        let verdict = self.work(move || verify_now(&password, &hash)).await?;
        Ok(if known { verdict } else { Verdict::Wrong })
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let processor = {
            let _first = self.lane.lock().await;
            self.passwords.processors.clone().acquire_owned().await.map_err(Error::internal)?
        };
        // The places first: whoever gets the processor finds them free.
        let held = (self.places.clone(), processor);
        let work = move || {
            // Dropped when the work is done, or panics.
            let _held = held;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

/// The parameters that KernelCI's present server hashes with.
fn argon2() -> Result<Argon2<'static>> {
    let params =
        Params::new(65536, 3, 4, None).map_err(|e| Error::internal(anyhow::anyhow!("argon2: {e}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_now(password: &str) -> Result<String> {
    let hash = argon2()?.hash_password(password.as_bytes());
    Ok(hash.map_err(|e| Error::internal(anyhow::anyhow!("argon2: {e}")))?.to_string())
}

fn verify_now(password: &str, hash: &str) -> Result<Verdict> {
    if hash.starts_with("$2") {
        return Ok(match bcrypt::verify(password, hash) {
            Ok(true) => Verdict::RightUpgrade(hash_now(password)?),
            _ => Verdict::Wrong,
        });
    }
    let Ok(parsed) = PasswordHash::new(hash) else {
        tracing::warn!("a user's password hash is in no form that is known; the login was refused");
        return Ok(Verdict::Wrong);
    };
    Ok(match argon2()?.verify_password(password.as_bytes(), &parsed) {
        Ok(()) => Verdict::Right,
        Err(_) => Verdict::Wrong,
    })
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::error::Kind;
    use crate::model::ObjectId;
    use crate::sync::lock;

    const ANN: Holder = Holder::User(ObjectId::from_bytes([1; 12]));
    const BOB: Holder = Holder::User(ObjectId::from_bytes([2; 12]));

    fn passwords(processors: usize) -> Passwords {
        let (server, binding) = (32 + processors as u64, Binding::UnderPressure);
        Passwords::on(processors, Limits { server, user: 2, address: 2, binding, full: Kind::TooMany })
    }

    fn name(number: u64) -> Holder {
        Holder::Name(number)
    }

    fn status<T>(result: Result<T>) -> u16 {
        let error = result.err().expect("refused");
        assert!(error.retry_after_ms().is_some());
        error.status()
    }

    /// Lets the work begin, or take its place in the line.
    fn begin<T>(work: &mut Pin<Box<impl Future<Output = T>>>) {
        assert!(matches!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    }

    /// Takes a processor until the sender is dropped.
    fn block() -> (mpsc::Sender<()>, impl FnOnce() -> Result<()> + Send + 'static) {
        let (end, ended) = mpsc::channel::<()>();
        (end, move || {
            let _ = ended.recv();
            Ok(())
        })
    }

    #[tokio::test]
    async fn both_hash_forms_verify_and_the_old_one_is_upgraded() {
        let passwords = passwords(2);
        let turn = passwords.own_turn();
        let hash = turn.hash("s3cret").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"), "{hash}");
        assert_eq!(turn.verify("s3cret", Some(&hash)).await.unwrap(), Verdict::Right);
        assert_eq!(turn.verify("other", Some(&hash)).await.unwrap(), Verdict::Wrong);
        assert_eq!(turn.verify("decoy", None).await.unwrap(), Verdict::Wrong);
        assert_eq!(turn.verify("decoy", Some(DECOY)).await.unwrap(), Verdict::Right, "it takes as long");
        assert_eq!(turn.verify("x", Some("nonsense")).await.unwrap(), Verdict::Wrong);

        let old = bcrypt::hash("s3cret", 4).unwrap();
        let Verdict::RightUpgrade(new) = turn.verify("s3cret", Some(&old)).await.unwrap() else {
            panic!("bcrypt must verify and ask for an upgrade")
        };
        assert_eq!(turn.verify("s3cret", Some(&new)).await.unwrap(), Verdict::Right);
    }

    #[tokio::test]
    async fn an_account_has_two_turns_and_a_long_line_is_shared() {
        let passwords = passwords(2);
        let site = Holder::Address(1);
        let ann = [passwords.turn(site, ANN).unwrap(), passwords.turn(site, ANN).unwrap()];
        assert_eq!(status(passwords.turn(Holder::Address(2), ANN)), 429);
        assert_eq!(passwords.places.taken(), 2, "a refusal takes nothing");
        let many: Vec<_> = (0..16).map(|number| passwords.turn(site, name(number)).unwrap()).collect();
        assert_eq!(status(passwords.turn(site, name(99))), 429, "more than half of 34 are taken");
        let others: Vec<_> = (2..10)
            .map(|number| passwords.turn(Holder::Address(number), name(90 + number)).unwrap())
            .collect();
        assert_eq!(status(passwords.turn(Holder::Address(99), name(99))), 429, "the rest is for users");
        let _bob = passwords.turn(BOB, BOB).unwrap();
        let _own = passwords.own_turn();
        drop((ann, many, others));
        assert_eq!(passwords.places.taken(), 1);
    }

    #[tokio::test]
    async fn what_a_request_has_belongs_to_its_work() {
        let passwords = passwords(1);
        let (end, block) = block();
        let mut working = Box::pin(async { passwords.turn(ANN, ANN)?.work(block).await });
        begin(&mut working);
        let unwanted = || -> Result<()> { panic!("nobody waits for it any more") };
        let mut waiting = Box::pin(async { passwords.turn(BOB, BOB)?.work(unwanted).await });
        begin(&mut waiting);
        assert_eq!((passwords.processors.available_permits(), passwords.places.taken()), (0, 2));

        drop(waiting);
        assert_eq!(passwords.places.taken(), 1, "who waited has given the place up");
        drop(working);
        assert_eq!((passwords.processors.available_permits(), passwords.places.taken_by(ANN)), (0, 1));
        drop(end);
        passwords.own_turn().work(|| Ok(())).await.unwrap();
        assert_eq!((passwords.places.taken(), passwords.accounts.taken()), (0, 0));
    }

    #[tokio::test]
    async fn a_panic_costs_no_processor_and_no_place() {
        let passwords = passwords(1);
        for _ in 0..3 {
            let turn = passwords.turn(ANN, ANN).unwrap();
            let error = turn.work(|| -> Result<()> { panic!("on purpose") }).await.unwrap_err();
            assert_eq!(error.status(), 500);
        }
        assert_eq!((passwords.places.taken(), passwords.accounts.taken()), (0, 0));
        passwords.turn(ANN, ANN).unwrap().work(|| Ok(())).await.unwrap();
    }

    /// A whole site waits; whoever comes from elsewhere is next but one.
    #[tokio::test]
    async fn holders_take_turns() {
        let passwords = passwords(1);
        let (end, block) = block();
        let turn = passwords.own_turn();
        let mut first = Box::pin(turn.work(block));
        begin(&mut first);
        let done = Arc::new(std::sync::Mutex::new(Vec::new()));
        let wanted = [(Holder::Address(1), 4), (Holder::Address(2), 2), (ANN, 1)];
        let mut all = Vec::new();
        for (holder, count) in wanted {
            for number in 0..count {
                let (passwords, done) = (&passwords, done.clone());
                let note = move || {
                    lock(&done).push(holder);
                    Ok(())
                };
                let account = Holder::name((holder, number));
                all.push(Box::pin(async move { passwords.turn(holder, account)?.work(note).await }));
            }
        }
        all.iter_mut().for_each(begin);
        drop(end);
        first.await.unwrap();
        assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
        let done = lock(&done).clone();
        assert_eq!(done[..3], wanted.map(|(holder, _)| holder), "{done:?}");
        assert_eq!(done[5..], [Holder::Address(1); 2], "{done:?}");
    }
}
