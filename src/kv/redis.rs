//! Keys and values in Redis, where KernelCI's own server has them: database 0, key `<namespace>:<key>`, no prefix
//! (contract 7.1, 7.6). Both servers read what the other writes.
//!
//! A colon in a namespace is written as `%3A` and a percent sign as `%25`, so that `a:b` + `c` and `a` + `b:c` are two keys.

use std::borrow::Cow;

use async_trait::async_trait;

use super::Kv;
use crate::error::{Error, Result};
use crate::event_log::redis::connection::{Connection, connect, wait};

/// What errors call it when it is away.
const PART: &str = "store of keys and values";

/// Keys and values in Redis.
pub struct RedisKv {
    manager: Connection,
    /// What no key may begin with, because other things are kept there.
    reserved: Option<String>,
}

/// Uses this database of a Redis; `prefix` is what all else in its database `prefix_db` begins with. Connects when it must.
pub fn open(url: &str, db: u32, prefix: &str) -> Result<RedisKv> {
    let (client, manager) = connect(url, Some(db.into()))?;
    let main = connect(url, None)?.0.get_connection_info().redis_settings().db();
    let same = client.get_connection_info().redis_settings().db() == main;
    Ok(RedisKv { manager, reserved: same.then(|| prefix.to_owned()) })
}

impl RedisKv {
    fn key(&self, namespace: &str, key: &str) -> Result<String> {
        let key = format!("{}:{key}", escape(namespace));
        match &self.reserved {
            Some(prefix) if key.starts_with(&**prefix) => {
                Err(Error::invalid("namespace", "this namespace is reserved for the server"))
            }
            _ => Ok(key),
        }
    }
}

fn escape(namespace: &str) -> Cow<'_, str> {
    match namespace.contains([':', '%']) {
        true => namespace.replace('%', "%25").replace(':', "%3A").into(),
        false => namespace.into(),
    }
}

#[async_trait]
impl Kv for RedisKv {
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<String>> {
        let mut get = redis::cmd("GET");
        get.arg(self.key(namespace, key)?);
        wait(PART, get.query_async(&mut self.manager.clone())).await
    }

    async fn set(&self, namespace: &str, key: &str, value: &str) -> Result<()> {
        let mut set = redis::cmd("SET");
        set.arg(self.key(namespace, key)?).arg(value);
        wait(PART, set.query_async(&mut self.manager.clone())).await
    }

    async fn remove(&self, namespace: &str, key: &str) -> Result<()> {
        let mut remove = redis::cmd("DEL");
        remove.arg(self.key(namespace, key)?);
        wait(PART, remove.query_async(&mut self.manager.clone())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn namespaces_never_meet() {
        let kv = open("redis://127.0.0.1:1/0", 0, "own:").unwrap();
        let key = |namespace, key| kv.key(namespace, key).unwrap();
        assert_eq!(key("trigger", "last"), "trigger:last");
        assert_ne!(key("a:b", "c"), key("a", "b:c"));
        assert_ne!(key("a%3Ab", "c"), key("a:b", "c"));
        assert!(kv.key("own", "{node}:stream").is_err(), "the server's own keys are out of reach");
        assert!(kv.key("own2", "x").is_ok());
        let apart = open("redis://127.0.0.1:1/1", 0, "own:").unwrap();
        assert!(apart.key("own", "x").is_ok(), "nothing else is in that database");
    }
}
