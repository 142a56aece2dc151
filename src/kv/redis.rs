//! Keys and values in Redis, where KernelCI's own server has them: database 0, key `<namespace>:<key>`, no prefix
//! (contract 7.1, 7.6). Both servers read what the other writes.
//!
//! Beside them stand, under our own prefix, whose the keys are (`kv:owners`), and what each user has (`kv:of:<id>`); both
//! follow what KernelCI's own server does when a user has as much as they may have (`redis/correct.lua`).
//!
//! A colon in a namespace is written as `%3A` and a percent sign as `%25`, so that `a:b` + `c` and `a` + `b:c` are two keys.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use redis::Script;

use super::{Kv, NewValue};
use crate::error::{Error, Result};
use crate::event_log::redis::connection::{Connection, connect, wait};
use crate::model::ObjectId;
use crate::quota::{Over, Share, Thing};

/// What errors call it when it is away.
const PART: &str = "store of keys and values";
/// What a user has is counted anew at most once in so many seconds.
const COUNT_EVERY: u64 = 10;
/// About how many keys of a user are looked at in one step: Redis, in which events are as well, does nothing else
/// meanwhile.
const PIECE: usize = 200;

/// Keys and values in Redis.
pub struct RedisKv {
    manager: Connection,
    /// What our own keys begin with, and no other may.
    prefix: String,
    set: Arc<Script>,
    remove: Arc<Script>,
    correct: Arc<Script>,
}

/// What has become of a value to set.
type Answer = (u8, u64);

/// Uses this database of a Redis; `prefix` is what our own keys begin with. Connects when it must.
pub fn open(url: &str, db: u32, prefix: &str) -> Result<RedisKv> {
    let (_, manager) = connect(url, Some(db.into()))?;
    let script = |text| Arc::new(Script::new(text));
    Ok(RedisKv {
        manager,
        prefix: prefix.to_owned(),
        set: script(include_str!("redis/set.lua")),
        remove: script(include_str!("redis/remove.lua")),
        correct: script(include_str!("redis/correct.lua")),
    })
}

impl RedisKv {
    fn key(&self, namespace: &str, key: &str) -> Result<String> {
        let key = format!("{}:{key}", escape(namespace));
        match key.starts_with(&self.prefix) {
            true => Err(Error::invalid("namespace", "this namespace is reserved for the server")),
            false => Ok(key),
        }
    }

    /// Whose keys are.
    fn owners(&self) -> String {
        format!("{}kv:owners", self.prefix)
    }

    /// What the hashes of users begin with.
    fn users(&self) -> String {
        format!("{}kv:of:", self.prefix)
    }

    /// What this user has.
    fn of(&self, user: &str) -> String {
        format!("{}{user}", self.users())
    }

    /// Sets the value if that is no more than the user may have.
    async fn set_within(&self, key: &str, value: &str, user: &str, share: &Share) -> Result<Answer> {
        let mut set = self.set.prepare_invoke();
        set.key(key).key(self.owners()).key(self.of(user));
        set.arg(value).arg(user).arg(share.most.keys).arg(share.most.key_bytes).arg(self.users());
        wait(PART, set.invoke_async(&mut self.manager.clone())).await
    }

    /// Looks what the user still has, if that was not done lately: KernelCI's own server changes and removes keys without a
    /// word. Whether it was done now.
    async fn count_again(&self, user: &str) -> Result<bool> {
        let own = self.of(user);
        let mut claim = redis::cmd("SET");
        claim.arg(format!("{own}:counted")).arg(1).arg("NX").arg("EX").arg(COUNT_EVERY);
        let claimed: Option<String> = wait(PART, claim.query_async(&mut self.manager.clone())).await?;
        if claimed.is_none() {
            return Ok(false);
        }
        let mut cursor = 0;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&own).arg(cursor).arg("COUNT").arg(PIECE);
            let (next, found): (u64, Vec<(String, String)>) =
                wait(PART, scan.query_async(&mut self.manager.clone())).await?;
            let keys: Vec<String> =
                found.into_iter().map(|(key, _)| key).filter(|key| !key.is_empty()).collect();
            // A small hash comes as a whole.
            for some in keys.chunks(PIECE) {
                let mut correct = self.correct.prepare_invoke();
                correct.key(self.owners()).key(&own).key(some).arg(user);
                wait(PART, correct.invoke_async::<()>(&mut self.manager.clone())).await?;
            }
            if next == 0 {
                return Ok(true);
            }
            cursor = next;
        }
    }

    /// Removes keys; with a user, those that are still theirs.
    async fn remove_keys(&self, keys: &[String], user: Option<ObjectId>) -> Result<()> {
        let mut remove = self.remove.prepare_invoke();
        remove.key(self.owners()).key(keys).arg(self.users());
        if let Some(user) = user {
            remove.arg(user.to_hex());
        }
        wait(PART, remove.invoke_async::<()>(&mut self.manager.clone())).await
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

    async fn set(&self, what: &NewValue<'_>, share: Option<&Share>) -> Result<Result<(), Over>> {
        let key = self.key(what.namespace, what.key)?;
        let Some(share) = share else {
            // Nobody's from now on, whoever's it was.
            self.remove_keys(std::slice::from_ref(&key), None).await?;
            let mut set = redis::cmd("SET");
            wait(PART, set.arg(key).arg(what.value).query_async::<()>(&mut self.manager.clone())).await?;
            return Ok(Ok(()));
        };
        let user = share.user.to_hex();
        let mut answer = self.set_within(&key, what.value, &user, share).await?;
        if answer.0 != 0 && self.count_again(&user).await? {
            answer = self.set_within(&key, what.value, &user, share).await?;
        }
        let over = |thing, used| Err(Over { thing, used, most: share.most.of(thing) });
        Ok(match answer {
            (1, used) => over(Thing::Keys, used),
            (2, used) => over(Thing::KeyBytes, used),
            _ => Ok(()),
        })
    }

    async fn remove(&self, namespace: &str, key: &str) -> Result<()> {
        self.remove_keys(&[self.key(namespace, key)?], None).await
    }

    async fn count(&self, user: ObjectId) -> Result<(u64, u64)> {
        let own = self.of(&user.to_hex());
        let mut both = redis::pipe();
        both.cmd("HLEN").arg(&own).cmd("HGET").arg(&own).arg("");
        let (fields, bytes): (u64, Option<i64>) =
            wait(PART, both.query_async(&mut self.manager.clone())).await?;
        Ok((fields.saturating_sub(1), bytes.unwrap_or(0).max(0).unsigned_abs()))
    }

    async fn remove_all_of(&self, user: ObjectId) -> Result<()> {
        let own = self.of(&user.to_hex());
        let mut list = redis::cmd("HKEYS");
        let keys: Vec<String> = wait(PART, list.arg(&own).query_async(&mut self.manager.clone())).await?;
        let keys: Vec<String> = keys.into_iter().filter(|key| !key.is_empty()).collect();
        // A piece at a time: Redis does nothing else meanwhile.
        for some in keys.chunks(100) {
            self.remove_keys(some, Some(user)).await?;
        }
        let mut forget = redis::cmd("DEL");
        wait(PART, forget.arg(own).query_async::<()>(&mut self.manager.clone())).await
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
    }
}
