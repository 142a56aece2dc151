//! The history of all channels in MongoDB, collection `eventhistory` (contract 5.2): the log of record behind the
//! stream. Documents of KernelCI's own server are read as well; they have no `epoch` and one sequence for all
//! channels.

use std::collections::HashMap;

use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::options::{Acknowledgment, ReadConcern, WriteConcern};
use mongodb::{Collection, Database};
use serde_json::{Map, Value};

use super::stream::Item;
use crate::error::{Error, Result};
use crate::event_log::{MOST_LIKE, READ_BYTES};
use crate::model::event::{Entry, NODE_CHANNEL};
use crate::model::{Event, EventTime, ObjectId, Timestamp};
use crate::store::mongo::bson_json::{from_json, object, to_json};
use crate::store::mongo::channel_owners;
use crate::store::mongo::document::integer;
use crate::store::mongo::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use crate::store::mongo::moment;
use crate::store::mongo::stored::Stored;
use crate::sync::{HEAVY, Pauses, in_place_if};

/// What events of KernelCI's own server do not say of themselves.
const OLD_SOURCE: &str = "https://api.kernelci.org/";
const OLD_TYPE: &str = "api.kernelci.org";
/// What is written to when it must be certain who the primary is. (No name of a channel has a blank.)
const LOOK: &str = "last look";
/// Documents that MongoDB sends at once to whoever may stop soon.
const PER_BATCH: u32 = 64;

/// The history.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) events: Collection<Stored>,
    /// One document per channel: `{_id, epoch, base, generation, seeded, head, since, used}` (`epoch.rs`); and what
    /// `ends.rs` keeps, under names that no channel has.
    pub(crate) channels: Collection<Stored>,
    /// Whose they are ([`channel_owners`]).
    pub(crate) owners: Collection<Stored>,
}

/// Which numbers of which epoch of a channel.
pub(crate) struct Span<'a> {
    pub(crate) channel: &'a str,
    pub(crate) epoch: &'a str,
    /// Only events behind this number …
    pub(crate) after: u64,
    /// … up to this one.
    pub(crate) to: u64,
}

/// What became of an [`History::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// All are in the history now.
    All,
    /// One of these is there under another number, or another event has its number: Redis has forgotten events and
    /// counted again.
    Taken,
}

impl Span<'_> {
    fn query(&self) -> Document {
        doc! {
            "channel": self.channel,
            "epoch": self.epoch,
            "sequence_id": {"$gt": number(self.after), "$lte": number(self.to)},
        }
    }
}

impl History {
    pub(crate) fn new(db: &Database) -> History {
        History {
            events: db.collection("eventhistory"),
            channels: db.collection("channel"),
            owners: db.collection(channel_owners::COLLECTION),
        }
    }

    /// Adds events one after the other, until one has to be refused; those that are there already, under the same
    /// number, stay as they are.
    pub(crate) async fn insert(&self, channel: &str, items: &[Item]) -> Result<Inserted> {
        let bytes: usize = items.iter().map(|item| item.json.len()).sum();
        let mut documents: Vec<Stored> = in_place_if(bytes > HEAVY, || {
            items.iter().map(|item| document(channel, item).map(Stored)).collect::<Result<_>>()
        })?;
        // Each time round what was there is left out.
        while !documents.is_empty() {
            match errors::raw(self.events.insert_many(&documents).ordered(true)).await {
                Ok(_) => return Ok(Inserted::All),
                Err(error) if is_duplicate(&error) => {}
                Err(error) => return Err(errors::translate(error)),
            }
            let ids: Vec<ObjectId> =
                documents.iter().filter_map(|document| document.get_object_id("_id").ok()).collect();
            let present: HashMap<ObjectId, u64> = self.numbers(&ids).await?.into_iter().collect();
            // Until the first that is not there: the others have not been tried.
            let mut taken = false;
            documents.retain(|document| {
                match document.get_object_id("_id").ok().and_then(|id| present.get(&id)) {
                    Some(number) => {
                        taken |= *number != seq(document);
                        false
                    }
                    None => true,
                }
            });
            if taken || documents.len() == ids.len() {
                return Ok(Inserted::Taken);
            }
        }
        Ok(Inserted::All)
    }

    /// See [`EventLog::like`](crate::event_log::EventLog::like).
    pub(crate) async fn like(&self, names: &[&str], beginnings: &[&str]) -> Result<Vec<String>> {
        // Nothing that a name consists of comes behind this.
        let begins = |start: &&str| doc! {"channel": {"$gte": *start, "$lt": format!("{start}~")}};
        let named = doc! {"channel": {"$in": names}};
        let wanted: Vec<Document> = beginnings.iter().map(begins).chain([named]).collect();
        let query = doc! {"$or": wanted};
        let found = call(self.events.distinct("channel", query).max_time(QUERY_TIME)).await?;
        Ok(found.iter().filter_map(Bson::as_str).take(MOST_LIKE).map(str::to_owned).collect())
    }

    /// Remembers the highest number beyond the life of its event.
    pub(crate) async fn remember(&self, channel: &str, head: u64) -> Result<()> {
        let update = doc! {"$max": {"head": number(head)}, "$currentDate": {"used": true}};
        call_on(&self.channels, self.channels.update_one(doc! {"_id": channel}, update)).await.map(drop)
    }

    /// The latest time of an event up to `now`.
    pub(crate) async fn latest(&self, now: EventTime) -> Result<Option<EventTime>> {
        let latest =
            self.events.find_one(moment::until(now)).sort(doc! {"timestamp": -1, "us": -1, "_id": -1});
        let latest = latest.projection(doc! {"timestamp": 1, "us": 1}).max_time(QUERY_TIME);
        Ok(call(latest).await?.as_deref().and_then(moment::read))
    }

    /// The numbers of those of these events that are in the history.
    pub(crate) async fn numbers(&self, ids: &[ObjectId]) -> Result<Vec<(ObjectId, u64)>> {
        let find = self.events.find(doc! {"_id": {"$in": ids}}).projection(doc! {"sequence_id": 1});
        let found: Vec<Stored> = call(async { find.max_time(QUERY_TIME).await?.try_collect().await }).await?;
        Ok(found.iter().filter_map(|doc| Some((doc.get_object_id("_id").ok()?, seq(doc)))).collect())
    }

    /// The highest number that any event of the channel ever had, as far as MongoDB knows.
    pub(crate) async fn highest(&self, channel: &str) -> Result<u64> {
        let newest = self.events.find_one(doc! {"channel": channel}).sort(doc! {"sequence_id": -1});
        let newest = call(newest.projection(doc! {"sequence_id": 1}).max_time(QUERY_TIME)).await?;
        Ok(newest.map_or(0, |newest| seq(&newest)))
    }

    /// As [`History::highest`], and certain: what a majority has, at a primary that a majority has just followed. One that
    /// has been deposed and has not heard of it knows less, and so does a new one for a moment.
    pub(crate) async fn highest_of_majority(&self, channel: &str) -> Result<u64> {
        let majority = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let look = self.channels.update_one(doc! {"_id": LOOK}, doc! {"$currentDate": {"at": true}});
        call_on(&self.channels, look.upsert(true).write_concern(majority)).await?;
        let newest = self.events.find_one(doc! {"channel": channel}).sort(doc! {"sequence_id": -1});
        let newest = newest.projection(doc! {"sequence_id": 1}).max_time(QUERY_TIME);
        let newest = call(newest.read_concern(ReadConcern::majority())).await?;
        Ok(newest.map_or(0, |newest| seq(&newest)))
    }

    /// The numbers within a span that are in the history, ascending, at most `limit`.
    pub(crate) async fn numbers_in(&self, span: Span<'_>, limit: usize) -> Result<Vec<u64>> {
        let find = self.events.find(span.query()).sort(doc! {"sequence_id": 1}).limit(signed(limit));
        // Only keys of the index, so that no document is read.
        let find = find.projection(doc! {"_id": 0, "sequence_id": 1}).max_time(QUERY_TIME);
        let found: Vec<Stored> = call(async { find.await?.try_collect().await }).await?;
        Ok(found.iter().map(|event| seq(event)).collect())
    }

    /// Events within a span, ascending, at most `limit`, fewer if they are large.
    pub(crate) async fn read(&self, span: Span<'_>, limit: usize) -> Result<Vec<Entry>> {
        let (found, bytes) = self.some(span.query(), limit).await?;
        Ok(in_place_if(bytes > HEAVY, || found.iter().map(|event| entry(event)).collect()))
    }

    /// The first `limit` events that match, by their numbers, up to the one that brings them to [`READ_BYTES`]; and their
    /// bytes.
    async fn some(&self, query: Document, limit: usize) -> Result<(Vec<Stored>, usize)> {
        let find = self.events.find(query).sort(doc! {"sequence_id": 1}).limit(signed(limit));
        // A batch of MongoDB may have 16 MiB.
        let find = find.batch_size(PER_BATCH).max_time(QUERY_TIME);
        call(async {
            let (mut found, mut bytes, mut pauses) = (Vec::new(), 0, Pauses::default());
            let mut cursor = find.await?;
            while bytes < READ_BYTES && cursor.advance().await? {
                let size = cursor.current().as_bytes().len();
                pauses.after(size).await;
                bytes += size;
                found.push(in_place_if(size > HEAVY, || cursor.deserialize_current())?);
            }
            Ok((found, bytes))
        })
        .await
    }

    /// Events of whatever epoch, or of none, with numbers behind `after` up to `to`; ascending, at most `limit`. With the
    /// numbers that are missing in front of them: ours are dense, so what is left out was lost or has expired. (Those of
    /// KernelCI's own server counted all channels at once.)
    pub(crate) async fn read_earlier(
        &self,
        channel: &str,
        after: u64,
        to: u64,
        limit: usize,
    ) -> Result<(Option<(u64, u64)>, Vec<Entry>)> {
        let span = doc! {"$gt": number(after), "$lte": number(to)};
        let (found, _) = self.some(doc! {"channel": channel, "sequence_id": span}, limit).await?;
        let is_gap =
            |last: u64, event: &Document| event.contains_key("epoch") && seq(event) > last.saturating_add(1);
        let first = found.first().filter(|event| is_gap(after, event));
        let gap = first.map(|event| (after.saturating_add(1), seq(event) - 1));
        // What lies behind a gap is for the next time, which tells it.
        let whole = found.windows(2).take_while(|pair| !is_gap(seq(&pair[0]), &pair[1])).count();
        Ok((gap, found.iter().take(whole + 1).map(|event| entry(event)).collect()))
    }

    /// The lowest number among the first and the last thousand events, by time, of an epoch that came at `time` or later.
    /// (Numbers of older versions follow times only roughly: those were the times at which events were made.)
    pub(crate) async fn first_since(
        &self,
        channel: &str,
        epoch: &str,
        time: EventTime,
    ) -> Result<Option<u64>> {
        let mut query = doc! {"channel": channel, "epoch": epoch};
        query.extend(moment::since(time));
        let end = async |order: i32| -> Result<Option<u64>> {
            let find = self.events.find(query.clone()).sort(doc! {"timestamp": order}).limit(1000);
            let find = find.projection(doc! {"sequence_id": 1}).max_time(QUERY_TIME);
            let found: Vec<Stored> = call(async { find.await?.try_collect().await }).await?;
            Ok(found.iter().map(|event| seq(event)).min())
        };
        Ok(end(1).await?.into_iter().chain(end(-1).await?).min())
    }
}

/// A number as BSON.
pub(crate) fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn signed(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn seq(doc: &Document) -> u64 {
    doc.get("sequence_id").and_then(integer).and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0)
}

/// An event of the stream as a document of the history.
pub(super) fn document(channel: &str, item: &Item) -> Result<Document> {
    let mut event: Map<String, Value> = serde_json::from_str(&item.json).map_err(Error::internal)?;
    let mut take = |key: &str| match event.shift_remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let broken = || Error::internal(anyhow::anyhow!("event {} of {channel} is no CloudEvent", item.seq));
    let id: ObjectId = take("id").and_then(|id| id.parse().ok()).ok_or_else(broken)?;
    let time = take("time").and_then(|time| EventTime::parse_iso(&time).ok()).ok_or_else(broken)?;
    let (timestamp, us) = moment::parts(time);
    let [source, kind, subject] = ["source", "type", "subject"].map(&mut take);
    let [owner, partitionkey, _] = ["owner", "partitionkey", "specversion"].map(&mut take);
    let data = event.shift_remove("data").unwrap_or_default();
    let text = |text: Option<String>| text.map_or(Bson::Null, Bson::String);
    let mut document = doc! {
        "_id": id,
        "timestamp": timestamp,
        "sequence_id": number(item.seq),
        "channel": channel,
        "owner": text(owner),
        "data": from_json("data", &data)?,
        "us": us,
        "epoch": &item.epoch,
        "source": text(source),
        "type": text(kind),
        "subject": text(subject),
        "partitionkey": text(partitionkey),
    };
    if !event.is_empty() {
        document.insert("extensions", from_json("extensions", &Value::Object(event))?);
    }
    Ok(document)
}

/// A document of the history as an event at its place.
pub(crate) fn entry(doc: &Document) -> Entry {
    Entry::new(seq(doc), &event(doc).to_text())
}

/// The event of a document of the history.
pub(super) fn event(doc: &Document) -> Event {
    let text = |key: &str| doc.get_str(key).ok().map(str::to_owned);
    let id = doc.get_object_id("_id").unwrap_or_else(|_| ObjectId::from_bytes([0; 12]));
    let made = || Timestamp::from_millis(id.timestamp().timestamp_millis()).into();
    let time = moment::read(doc).unwrap_or_else(made);
    let data = doc.get("data").map(to_json).unwrap_or_default();
    let channel = text("channel").unwrap_or_default();
    let subject = match doc.contains_key("epoch") {
        true => text("subject"),
        false if channel == NODE_CHANNEL => data.get("id").and_then(Value::as_str).map(str::to_owned),
        false => None,
    };
    Event {
        id,
        channel,
        source: text("source").unwrap_or_else(|| OLD_SOURCE.to_owned()),
        kind: text("type").unwrap_or_else(|| OLD_TYPE.to_owned()),
        subject,
        time,
        owner: text("owner"),
        partitionkey: text("partitionkey"),
        extensions: doc.get_document("extensions").map(object).unwrap_or_default(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_reads_from_the_history_as_it_stood_in_the_stream() {
        let mut extensions = Map::new();
        extensions.insert("traceparent".into(), "00-1".into());
        let event = Event {
            id: ObjectId::new(),
            channel: "node".into(),
            source: "https://x/".into(),
            kind: "t".into(),
            subject: Some("s".into()),
            time: EventTime::from_micros(1_700_000_000_123_045),
            owner: Some("bob".into()),
            partitionkey: None,
            extensions,
            data: json!({"op": "created", "data": {"n": 1, "x": [1.5, null, 12_345_678_901_i64]}}),
        };
        let json = event.to_text();
        let stored = document("node", &Item { seq: 7, epoch: "e".into(), json: json.clone() }).unwrap();
        assert_eq!(entry(&stored).json, Entry::new(7, &json).json);
    }

    #[test]
    fn an_event_of_the_present_server_is_readable() {
        let (id, node) = (ObjectId::new(), ObjectId::new());
        let stored = doc! {
            "_id": id, "timestamp": bson::DateTime::from_millis(1_000), "sequence_id": 5_i32, "channel": "node",
            "owner": Bson::Null, "data": {"op": "updated", "id": node.to_hex(), "data": {"regression": id}},
        };
        let entry = entry(&stored);
        assert_eq!(entry.seq, 5);
        assert_eq!(entry.subject(), Some(node));
        assert_eq!(entry.value()["data"]["data"]["regression"], id.to_hex());
        assert_eq!(entry.value()["source"], OLD_SOURCE);
        assert!(entry.value().get("owner").is_none());
    }
}
