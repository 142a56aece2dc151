//! The lists of KernelCI's own server: what it has pushed and nobody has popped stands in a Redis list of the queue's name
//! (contract 5.9, 7.6). It is taken over, in its order, when somebody asks for an item: at the first time, and now and then
//! after that, since the other server may still run.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use redis::{RedisResult, Script};
use serde_json::{Map, Value, json};

use super::MongoStore;
use crate::error::Result;
use crate::event_log::redis::connection::{Connection, connect, in_time};
use crate::store::leases::Leases;
use crate::store::queues::{NewItem, Pushed};
use crate::sync::lock;

/// How long a look at a list counts.
const LOOK: Duration = Duration::from_secs(2);
/// Lists that are known to have been looked at.
const KNOWN: usize = 1000;
/// The longest that one instance takes over a list without being seen to.
const LEASE: Duration = Duration::from_secs(30);
/// Items that are taken over before others get their turn.
const AT_ONCE: usize = 100;
/// Takes the first item away if it still is the first.
const REMOVE: &str =
    "if redis.call('LINDEX', KEYS[1], 0) == ARGV[1] then return redis.call('LPOP', KEYS[1]) end";

/// The Redis that has the lists, and when each was looked at.
pub(in crate::store::mongo) struct Reference {
    connection: Connection,
    /// No queue of the other server has a name that begins like this: keys of our own do.
    prefix: String,
    looked: Mutex<HashMap<String, Instant>>,
    remove: Script,
}

impl Reference {
    pub(in crate::store::mongo) fn new(url: &str, db: Option<i64>, prefix: &str) -> Result<Reference> {
        let (_, connection) = connect(url, db)?;
        Ok(Reference {
            connection,
            prefix: prefix.to_owned(),
            looked: Mutex::default(),
            remove: Script::new(REMOVE),
        })
    }

    fn is_due(&self, list: &str) -> bool {
        let mut looked = lock(&self.looked);
        if list.starts_with(&self.prefix) || looked.get(list).is_some_and(|at| at.elapsed() < LOOK) {
            return false;
        }
        if looked.len() >= KNOWN {
            looked.retain(|_, at| at.elapsed() < LOOK);
        }
        // Of more than are known each is looked at every time.
        if looked.len() < KNOWN {
            looked.insert(list.to_owned(), Instant::now());
        }
        true
    }

    /// The first item of a list, and how many there are.
    async fn first(&self, list: &str) -> Result<(Option<String>, u64)> {
        let mut pipe = redis::pipe();
        pipe.atomic().lindex(list, 0).llen(list);
        let mut connection = self.connection.clone();
        let first: RedisResult<(Option<String>, u64)> =
            in_time("log", async { Ok(pipe.query_async(&mut connection).await) }).await?;
        // Where something else has this name there is no list.
        Ok(first.unwrap_or_default())
    }

    async fn remove(&self, list: &str, item: &str) -> Result<()> {
        let mut connection = self.connection.clone();
        let mut script = self.remove.key(list);
        in_time("log", script.arg(item).invoke_async::<()>(&mut connection)).await
    }
}

impl MongoStore {
    /// Takes over what the other server has in its list, as far as there is room. While Redis is away there is nothing.
    pub(super) async fn take_over(&self, list: &str) {
        if !self.reference.is_due(list) {
            return;
        }
        if let Err(error) = self.take_over_now(list).await {
            tracing::debug!(%error, list, "the list of KernelCI's own server was not looked at");
        }
    }

    async fn take_over_now(&self, list: &str) -> Result<()> {
        if self.reference.first(list).await?.0.is_none() {
            return Ok(());
        }
        let (lease, holder) = (format!("queue:{list}"), uuid::Uuid::new_v4().to_string());
        if self.take_lease(&lease, &holder, LEASE).await?.is_none() {
            return Ok(());
        }
        let mut count = 0;
        while count < AT_ONCE
            && let (Some(text), left) = self.reference.first(list).await?
        {
            // If this ends between the two, the next one finds the same item at the same place.
            let name = format!("{list}\0{left}\0{text}");
            let key = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes());
            let item = NewItem {
                list: list.to_owned(),
                json: event(&text),
                key: Some(format!("reference:{key}")),
                fingerprint: String::new(),
                share: None,
            };
            if self.push(&item).await? != Pushed::Done {
                break;
            }
            self.reference.remove(list, &text).await?;
            count += 1;
        }
        self.drop_lease(&lease, &holder).await?;
        if count > 0 {
            tracing::info!(list, count, "items of KernelCI's own server were taken over");
        }
        Ok(())
    }
}

/// An item as ours are: a CloudEvent. What is none becomes the data of one.
fn event(text: &str) -> String {
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(_) => text.to_owned(),
        Err(_) => json!({"specversion": "1.0", "data": text}).to_string(),
    }
}
