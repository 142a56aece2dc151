//! Keys and values (contract 7.1): small texts that services share, e.g. where a trigger has got to.
//!
//! In production they live in Redis, in the layout of KernelCI's own server ([`redis`]); embedded in the store's file
//! ([`sqlite`]).

pub mod redis;
pub mod sqlite;

use async_trait::async_trait;

use crate::error::Result;

/// A value is there until it is removed or replaced. Keys of different namespaces never meet.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// The value, if there is one.
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<String>>;
    /// Sets the value.
    async fn set(&self, namespace: &str, key: &str, value: &str) -> Result<()>;
    /// Removes the value, if there is one.
    async fn remove(&self, namespace: &str, key: &str) -> Result<()>;
}
