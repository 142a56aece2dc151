//! Consumers: the collection `subscriber_state` of KernelCI's own server (contract 5.6, 7.5) with some more fields.
//!
//! `{subscriber_id, channel, user, promiscuous, last_event_id, created_at, last_poll}` are as they were; `id, user_id,
//! epoch, offered, handed, turn` are ours, and so are `group, group_state` ([`super::consumer_groups`]). A consumer without a name has its number as `subscriber_id`, which no name
//! can equal and the unique index asks for.
//!
//! `last_event_id` is the position. Numbers of a channel only grow, from epoch to epoch and from the old server's global
//! sequence to our own, with one exception: the old server noted its global number also where the channel's own events
//! ended long before it, and ours go on from those. [`MongoStore::own_number`] puts that right when such a document is
//! opened, which is what the missing `epoch` tells.

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::Collection;
use mongodb::options::{Acknowledgment, ReturnDocument, UpdateModifications, WriteConcern};

use super::document::{date, integer};
use super::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use super::stored::Stored;
use super::{MongoStore, counter};
use crate::error::{Error, Result};
use crate::event_log::redis::history::number;
use crate::model::{ObjectId, Timestamp};
use crate::quota::{Over, Thing};
use crate::store::consumers::{
    self, Consumer, ConsumerKey, Consumers, Cursor, MOST_RESERVED, NewConsumer, Opened, Owner, Reserved,
};

/// How often opening a name is tried anew because somebody else was quicker.
pub(super) const TRIES: usize = 50;

#[async_trait]
impl Consumers for MongoStore {
    async fn open_consumer(&self, new: &NewConsumer) -> Result<Opened> {
        let id = counter::next(self, "subscription").await?;
        let Some(name) = &new.name else {
            let document = document(id, id.into(), new);
            return match self.add_consumer(new, &document).await? {
                Added::Over(over) => Ok(Opened::Over(over)),
                _ => opened(&document, None),
            };
        };
        for _ in 0..TRIES {
            let found = match self.consumer_of(&new.owner, name).await? {
                Named::There(found) => found,
                Named::Free(stored) => {
                    let document = document(id, stored.into(), new);
                    match self.add_consumer(new, &document).await? {
                        Added::Done => return opened(&document, None),
                        Added::Over(over) => return Ok(Opened::Over(over)),
                        Added::Taken => continue,
                    }
                }
            };
            let consumer = read(&found).ok_or_else(broken)?;
            if consumer.channel != new.channel {
                return Ok(Opened::OtherChannel(consumer.channel));
            }
            if consumer.group.is_some() {
                return Ok(Opened::Group);
            }
            let mut set = doc! {
                "id": id,
                "user": &new.owner.name,
                "user_id": new.owner.id,
                "promiscuous": new.promiscuous,
                "offered": Bson::Null,
                "handed": false,
                "session": &new.session,
            };
            if !found.contains_key("epoch") {
                let seq = self.own_number(&consumer.channel, consumer.cursor.seq).await?;
                set.extend(doc! {"last_event_id": number(seq), "epoch": ""});
            }
            // Where it stood when it was read: two that open it at once do so one after the other.
            let query =
                doc! {"_id": found.get("_id"), "turn": found.get("turn").cloned().unwrap_or(Bson::Null)};
            let update = doc! {"$set": set, "$inc": {"turn": 1_i64}, "$currentDate": {"last_poll": true}};
            let update = self.consumers.find_one_and_update(query, update);
            if let Some(document) =
                call_on(&self.consumers, update.return_document(ReturnDocument::After)).await?
            {
                return opened(&document, consumer.id);
            }
        }
        Err(Error::unavailable("store", anyhow::anyhow!("consumer {name} keeps changing")))
    }

    async fn consumer(&self, key: ConsumerKey<'_>) -> Result<Option<Consumer>> {
        let query = match key {
            ConsumerKey::Id(id) => subscription(id),
            ConsumerKey::Name(name) => doc! {"subscriber_id": name},
            ConsumerKey::Own(owner, name) => {
                let both = self.consumers.find(either(owner, name)).projection(no_state());
                let found: Vec<Stored> =
                    call(async { both.max_time(QUERY_TIME).await?.try_collect().await }).await?;
                let found = found.iter().filter_map(|found| read(found)).collect();
                return Ok(consumers::own(found, owner, name));
            }
        };
        let found = call(self.consumers.find_one(query).projection(no_state()).max_time(QUERY_TIME)).await?;
        found.map(|found| read(&found).ok_or_else(broken)).transpose()
    }

    async fn consumers(&self, user: Option<&Owner>, limit: usize) -> Result<Vec<Consumer>> {
        let find = self.consumers.find(user.map_or_else(Document::new, of)).projection(no_state());
        let find = find.sort(doc! {"_id": 1}).max_time(QUERY_TIME);
        call(async {
            let mut found = Vec::new();
            let mut cursor = find.await?;
            // What cannot be read does not count.
            while found.len() < limit
                && let Some(document) = cursor.try_next().await?
            {
                found.extend(read(&document));
            }
            Ok(found)
        })
        .await
    }

    async fn count_consumers(&self, user: ObjectId) -> Result<(u64, u64)> {
        tokio::try_join!(self.count_of(user, true), self.count_of(user, false))
    }

    async fn move_consumer(&self, id: u64, turn: u64, cursor: &Cursor) -> Result<bool> {
        let mut query = subscription(id);
        query.insert("turn", number(turn));
        let update = doc! {
            "$set": place(cursor),
            "$inc": {"turn": 1_i64},
            "$currentDate": {"last_poll": true},
        };
        self.advance(query, update).await
    }

    async fn settle_consumer(&self, id: u64, turn: u64, handed: bool) -> Result<()> {
        let mut query = subscription(id);
        query.insert("turn", number(turn));
        let set = match handed {
            true => {
                query.insert("offered", doc! {"$ne": Bson::Null});
                doc! {"handed": true}
            }
            false => {
                query.insert("handed", false);
                doc! {"offered": Bson::Null}
            }
        };
        self.advance(query, doc! {"$set": set}).await.map(drop)
    }

    async fn ack_consumer(&self, id: u64, epoch: &str, seq: u64) -> Result<bool> {
        let update = doc! {
            "$max": {"last_event_id": number(seq)},
            "$set": {"epoch": epoch},
            "$currentDate": {"last_poll": true},
        };
        self.advance(subscription(id), update).await
    }

    async fn touch_consumer(&self, id: u64) -> Result<bool> {
        let update = doc! {"$currentDate": {"last_poll": true}};
        self.advance(subscription(id), update).await
    }

    async fn close_consumer(&self, id: u64) -> Result<bool> {
        let mut named = subscription(id);
        named.insert("subscriber_id", doc! {"$type": "string"});
        let close = doc! {
            "$unset": {"id": ""},
            "$set": {"offered": Bson::Null, "handed": false},
            "$inc": {"turn": 1_i64},
        };
        match call_on(&self.consumers, self.consumers.update_one(named, close)).await?.matched_count {
            0 => {
                Ok(call_on(&self.consumers, self.consumers.delete_one(subscription(id))).await?.deleted_count
                    > 0)
            }
            _ => Ok(true),
        }
    }

    async fn seek_consumer(&self, name: &str, cursor: &Cursor) -> Result<bool> {
        let update = doc! {"$set": place(cursor), "$unset": {"id": ""}, "$inc": {"turn": 1_i64}};
        Ok(call_on(&self.consumers, self.consumers.update_one(doc! {"subscriber_id": name}, update))
            .await?
            .matched_count
            > 0)
    }

    async fn delete_consumer(&self, name: &str) -> Result<bool> {
        Ok(call_on(&self.consumers, self.consumers.delete_one(doc! {"subscriber_id": name}))
            .await?
            .deleted_count
            > 0)
    }

    async fn delete_consumers_of(&self, user: &Owner) -> Result<()> {
        call_on(&self.consumers, self.consumers.delete_many(of(user))).await?;
        call(self.reservations().delete_many(doc! {"user": user.id})).await.map(drop)
    }

    async fn reserve_consumer(&self, name: &str, user: Option<ObjectId>) -> Result<Reserved> {
        let (reserved, this) = (self.reservations(), doc! {"_id": name});
        let Some(user) = user else {
            return call_on(&reserved, reserved.delete_one(this)).await.map(|_| Reserved::Done);
        };
        if call(reserved.count_documents(doc! {"_id": {"$ne": name}})).await? >= MOST_RESERVED {
            return Ok(Reserved::TooMany);
        }
        let set = doc! {"$set": {"user": user}};
        let before = call_on(&reserved, reserved.find_one_and_update(this.clone(), set).upsert(true)).await?;
        // Afterwards: whoever opens it from now on knows.
        let holder = self.consumer(ConsumerKey::Name(name)).await?.map(|holder| holder.owner);
        let Some(holder) = holder.filter(|holder| holder.id != Some(user)) else { return Ok(Reserved::Done) };
        match before {
            Some(before) => call(reserved.replace_one(this, before)).await.map(|_| ())?,
            None => call_on(&reserved, reserved.delete_one(this)).await.map(|_| ())?,
        }
        Ok(Reserved::Taken(holder))
    }

    async fn reserved_consumers(&self) -> Result<Vec<(String, ObjectId)>> {
        let reserved = self.reservations();
        let find = reserved.find(doc! {}).sort(doc! {"_id": 1}).limit(MOST_RESERVED as i64);
        let all: Vec<Stored> = call(async { find.max_time(QUERY_TIME).await?.try_collect().await }).await?;
        let read =
            |one: &Stored| Some((one.get_str("_id").ok()?.to_owned(), one.get_object_id("user").ok()?));
        Ok(all.iter().filter_map(read).collect())
    }

    async fn expire_consumers(&self, unnamed_after: u64, named_after: u64) -> Result<(u64, u64)> {
        let unused = |kind: Bson, after: u64| {
            let age = i64::try_from(after).unwrap_or(i64::MAX).saturating_mul(1000);
            let used = doc! {"$ifNull": ["$last_poll", "$created_at"]};
            doc! {"subscriber_id": kind, "$expr": {"$lt": [used, {"$subtract": ["$$NOW", age]}]}}
        };
        let name = || Bson::Document(doc! {"$type": "string"});
        let unnamed = unused(doc! {"$not": name()}.into(), unnamed_after);
        let unnamed = call_on(&self.consumers, self.consumers.delete_many(unnamed)).await?.deleted_count;
        let named = call_on(&self.consumers, self.consumers.delete_many(unused(name(), named_after)))
            .await?
            .deleted_count;
        Ok((unnamed, named))
    }
}

/// Where the owner's consumer of a name is, or will be.
pub(super) enum Named {
    /// Its document, with the server's time as `now`.
    There(Document),
    /// There is none: what a new one is stored as.
    Free(String),
}

/// What came of adding a consumer.
pub(super) enum Added {
    Done,
    /// There is one of this name.
    Taken,
    Over(Over),
}

impl MongoStore {
    /// The owner's consumer of this name.
    pub(super) async fn consumer_of(&self, owner: &Owner, name: &str) -> Result<Named> {
        let mut found = self.with_clock(either(owner, name)).await?;
        let is_plain = |found: &Document| found.get_str("subscriber_id").is_ok_and(|stored| stored == name);
        let is_taken = found.iter().any(is_plain);
        found.retain(|found| read(found).is_some_and(|one| one.owner.is(owner)));
        found.sort_by_key(|found| !is_plain(found));
        if let Some(own) = found.into_iter().next() {
            return Ok(Named::There(own));
        }
        let by_another = doc! {"_id": name, "user": {"$ne": owner.id}};
        let is_free = !is_taken && call(self.reservations().find_one(by_another)).await?.is_none();
        Ok(Named::Free(if is_free { name.to_owned() } else { owner.apart(name) }))
    }

    /// Adds a consumer, if its owner may have one more.
    pub(super) async fn add_consumer(&self, new: &NewConsumer, document: &Document) -> Result<Added> {
        let mut lane = None;
        if let Some(share) = &new.share {
            lane = Some(self.lanes.of(share.user).await);
            let thing = if new.name.is_some() { Thing::Consumers } else { Thing::UnnamedConsumers };
            if let Err(over) = share.room(thing, self.count_of(share.user, new.name.is_some()).await?, 1) {
                return Ok(Added::Over(over));
            }
        }
        let added = match errors::raw(self.consumers.insert_one(Stored(document.clone()))).await {
            Ok(_) => Ok(Added::Done),
            Err(error) if is_duplicate(&error) && new.name.is_some() => Ok(Added::Taken),
            Err(error) => Err(errors::translate(error)),
        };
        drop(lane);
        added
    }

    /// How many a user has, with a name or without.
    async fn count_of(&self, user: ObjectId, is_named: bool) -> Result<u64> {
        let name = if is_named {
            doc! {"$type": "string"}
        } else {
            doc! {"$type": "long"}
        };
        let count = self.consumers.count_documents(doc! {"user_id": user, "subscriber_id": name});
        call(count.max_time(QUERY_TIME)).await
    }

    /// `{_id: name, user}`: for whom names are reserved.
    fn reservations(&self) -> Collection<Stored> {
        self.db.collection("reservedconsumer")
    }

    /// Moves a consumer; whether there is such a one. Losing this in a failover costs a redelivery, so it need not be on
    /// the disks of a majority: every event that is delivered makes two of these writes.
    async fn advance(&self, query: Document, update: impl Into<UpdateModifications>) -> Result<bool> {
        let soon = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
        let update = self.consumers.update_one(query, update).write_concern(soon);
        Ok(call_on(&self.consumers, update).await?.matched_count > 0)
    }

    /// A position that KernelCI's own server has noted, in the numbers that this channel's events have: our own go on
    /// from the highest that an event of the old server had, and whatever is ours is new to the reader.
    async fn own_number(&self, channel: &str, noted: u64) -> Result<u64> {
        let mut old = doc! {"channel": channel, "epoch": {"$exists": false}};
        let known = call(self.db.collection::<Stored>("channel").find_one(doc! {"_id": channel})).await?;
        if let Some(Bson::DateTime(since)) = known.as_ref().and_then(|known| known.get("since")) {
            // Not a condition of its own: it lets the search begin where the old server's events end.
            old.insert("timestamp", doc! {"$lte": since});
        }
        // The old server gave numbers and times not quite in the same order.
        let events = self.db.collection::<Stored>("eventhistory");
        let newest = events.find(old).sort(doc! {"timestamp": -1});
        let newest = newest.limit(1000).projection(doc! {"sequence_id": 1}).max_time(QUERY_TIME);
        let newest: Vec<Stored> = call(async { newest.await?.try_collect().await }).await?;
        let highest = newest.iter().filter_map(|event| event.get("sequence_id").and_then(integer)).max();
        let highest = highest.and_then(|highest| u64::try_from(highest).ok()).unwrap_or(0);
        Ok(noted.min(highest))
    }
}

/// What is stored under the name, and apart from it.
fn either(owner: &Owner, name: &str) -> Document {
    doc! {"subscriber_id": {"$in": [name, owner.apart(name)]}}
}

/// A user's consumers. Those of KernelCI's own server know the name only.
fn of(user: &Owner) -> Document {
    match user.id {
        Some(id) => doc! {"$or": [{"user_id": id}, {"user_id": Bson::Null, "user": &user.name}]},
        None => doc! {"user": &user.name},
    }
}

pub(super) fn subscription(id: u64) -> Document {
    doc! {"id": number(id)}
}

pub(super) fn place(cursor: &Cursor) -> Document {
    doc! {
        "last_event_id": number(cursor.seq),
        "epoch": &cursor.epoch,
        "offered": cursor.offered.map_or(Bson::Null, |seq| number(seq).into()),
        "handed": cursor.handed,
    }
}

pub(super) fn document(id: i64, subscriber_id: Bson, new: &NewConsumer) -> Document {
    let mut document = doc! {
        "_id": bson::oid::ObjectId::new(),
        "subscriber_id": subscriber_id,
        "channel": &new.channel,
        "user": &new.owner.name,
        "promiscuous": new.promiscuous,
        "created_at": date(Timestamp::now()),
        "last_poll": Bson::Null,
        "id": id,
        "user_id": new.owner.id,
        "session": &new.session,
        "turn": 0_i64,
    };
    document.extend(place(&new.cursor));
    document
}

/// What a group knows may be long, and is for [`super::consumer_groups`] alone.
fn no_state() -> Document {
    doc! {"group_state": 0}
}

fn opened(document: &Document, taken_over: Option<u64>) -> Result<Opened> {
    let consumer = Box::new(read(document).ok_or_else(broken)?);
    Ok(Opened::Open { consumer, taken_over })
}

pub(super) fn broken() -> Error {
    Error::internal(anyhow::anyhow!("a document of subscriber_state cannot be read"))
}

pub(super) fn read(document: &Document) -> Option<Consumer> {
    let number = |key: &str| document.get(key).and_then(integer).and_then(|n| u64::try_from(n).ok());
    let flag = |key: &str| document.get_bool(key).unwrap_or(false);
    let time = |key: &str| match document.get(key) {
        Some(Bson::DateTime(time)) => Some(Timestamp::from_millis(time.timestamp_millis())),
        _ => None,
    };
    Some(Consumer {
        id: number("id"),
        name: document.get_str("subscriber_id").ok().map(str::to_owned),
        channel: document.get_str("channel").ok()?.to_owned(),
        owner: Owner {
            id: document.get_object_id("user_id").ok(),
            name: document.get_str("user").unwrap_or_default().to_owned(),
        },
        promiscuous: flag("promiscuous"),
        cursor: Cursor {
            epoch: document.get_str("epoch").unwrap_or_default().to_owned(),
            seq: number("last_event_id").unwrap_or(0),
            offered: number("offered"),
            handed: flag("handed"),
        },
        turn: number("turn").unwrap_or(0),
        created: time("created_at").unwrap_or(Timestamp::from_millis(0)),
        last_poll: time("last_poll"),
        group: document.get_str("group").ok().map(str::to_owned),
        session: document.get_str("session").ok().map(str::to_owned),
    })
}
