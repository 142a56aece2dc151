//! Passwords: argon2id for new hashes, bcrypt still verified (contract 6.3). Hashing is slow on purpose, so it runs
//! off the async threads, a few at a time, and no more than a few wait for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::error::{Error, Kind, Result};

/// Passwords that wait for a processor; further ones are told to come back.
const MOST_WAITING: usize = 32;
/// Longer passwords (in bytes) are refused, so that nobody makes us hash megabytes.
pub const LONGEST: usize = 1024;

/// Verified when the user is unknown, so that the answer takes as long as for a known one: a hash as [`argon2`] makes
/// them. Computing it at each start took longer than all the rest of it.
const DECOY: &str =
    "$argon2id$v=19$m=65536,t=3,p=4$a2VybmVsY2ktZGVjb3ktLQ$QEeupXh/Ix79w1MLoDkFpvZdN32GFCHfQnoiXeJr/lQ";

/// Hashes and verifies passwords.
pub struct Passwords {
    processors: Semaphore,
    waiting: AtomicUsize,
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

impl Default for Passwords {
    /// One password for each processor at a time.
    fn default() -> Passwords {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Passwords { processors: Semaphore::new(processors), waiting: AtomicUsize::new(0) }
    }
}

impl Passwords {
    /// An argon2id hash in PHC form.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let password = password.to_owned();
        self.off_thread(move || hash_now(&password)).await
    }

    /// Verifies against `hash`, or takes as long and says wrong when there is none.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<Verdict> {
        if password.len() > LONGEST {
            return Ok(Verdict::Wrong);
        }
        let known = hash.is_some();
        let (password, hash) = (password.to_owned(), hash.unwrap_or(DECOY).to_owned());
        let verdict = self.off_thread(move || verify_now(&password, &hash)).await?;
        Ok(if known { verdict } else { Verdict::Wrong })
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= MOST_WAITING {
            return Err(Error::new(Kind::TooMany, "too many logins at once, try again").retry_after(1000));
        }
        let _processor = self.processors.acquire().await.map_err(Error::internal)?;
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
    use super::*;

    #[tokio::test]
    async fn both_hash_forms_verify_and_the_old_one_is_upgraded() {
        let passwords = Passwords::default();
        let hash = passwords.hash("s3cret").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"), "{hash}");
        assert_eq!(passwords.verify("s3cret", Some(&hash)).await.unwrap(), Verdict::Right);
        assert_eq!(passwords.verify("other", Some(&hash)).await.unwrap(), Verdict::Wrong);
        assert_eq!(passwords.verify("decoy", None).await.unwrap(), Verdict::Wrong);
        assert_eq!(passwords.verify("decoy", Some(DECOY)).await.unwrap(), Verdict::Right, "it takes as long");
        assert_eq!(passwords.verify("x", Some("nonsense")).await.unwrap(), Verdict::Wrong);

        let old = bcrypt::hash("s3cret", 4).unwrap();
        let Verdict::RightUpgrade(new) = passwords.verify("s3cret", Some(&old)).await.unwrap() else {
            panic!("bcrypt must verify and ask for an upgrade")
        };
        assert_eq!(passwords.verify("s3cret", Some(&new)).await.unwrap(), Verdict::Right);
    }
}
