//! Keys and values (contract 7.1): small texts that services share, e.g. where a trigger has got to.
//!
//! In production they live in Redis, in the layout of KernelCI's own server ([`redis`]); embedded in the store's file
//! ([`sqlite`]).

pub mod redis;
pub mod sqlite;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::ObjectId;
use crate::quota::{Over, Share};

/// A value to set.
#[derive(Clone, Copy, Debug)]
pub struct NewValue<'a> {
    /// Where the key is.
    pub namespace: &'a str,
    /// What it is called there.
    pub key: &'a str,
    /// Its value.
    pub value: &'a str,
}

/// A value is there until it is removed or replaced. Keys of different namespaces never meet.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// The value, if there is one.
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<String>>;
    /// Sets the value. It is on whoever has set it last, if that is somebody: names and values count.
    async fn set(&self, what: &NewValue<'_>, share: Option<&Share>) -> Result<Result<(), Over>>;
    /// Removes the value, if there is one.
    async fn remove(&self, namespace: &str, key: &str) -> Result<()>;
    /// How many keys are on this user, and how many bytes.
    async fn count(&self, user: ObjectId) -> Result<(u64, u64)>;
    /// Removes all keys that are on this user.
    async fn remove_all_of(&self, user: ObjectId) -> Result<()>;
}
