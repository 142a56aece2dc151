//! The store on MongoDB, in the layout of KernelCI's own database (contract 7.5).
//!
//! A write and its events are one fact: the events stand in the `outbox` of the very document that changes, until the
//! relay has brought them into the log ([`crate::event_log::redis`]). One node is one conditional write; several are
//! one transaction, and so are a node and events that do not fit into one document with it: those stand in `eventbody`,
//! and only a mark of each in the outbox.
//!
//! On a standalone `mongod`, which has no transactions, a commit of several nodes is a sequence of such writes,
//! children before their parents, and [`Facts::atomic_hierarchies`] says so: a crash in the middle leaves children
//! without their parent's change, an idempotency key may answer [`Committed::Repeated`] for a commit that a
//! crash cut short, and a conflict found late is undone as far as possible.

pub(crate) mod bson_json;
pub(crate) mod channel_owners;
mod commit;
mod consumer_groups;
mod consumers;
mod counter;
pub(crate) mod document;
pub(crate) mod errors;
mod failure;
pub mod filter;
mod groups;
mod health;
mod indexes;
mod leases;
pub(crate) mod moment;
mod purge;
mod queues;
mod single;
pub(crate) mod stored;
mod telemetry;
mod tokens;
mod transaction;
mod users;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::options::{
    Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection, Database};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::errors::{CONNECTIONS, QUERY_TIME, call};
use self::failure::Failure;
pub use self::health::wait;
use self::queues::reference::Reference;
use self::stored::Stored;
use super::gather::Gets;
use super::{Commit, Committed, Facts, Found, IdempotencyKey, IndexStatus, Query, Raw, Store};
use crate::background;
use crate::error::{Error, Result};
use crate::event_log::redis::ends;
use crate::event_log::redis::epoch::{Ages, Channels};
use crate::event_log::redis::history::History;
use crate::event_log::redis::outbox::Outboxes;
use crate::event_log::redis::relay::{self, Relay};
use crate::event_log::redis::stream::Redis;
use crate::event_log::redis::{RedisLog, RelayMode};
use crate::filter::Filter;
use crate::model::ObjectId;
use crate::model::timestamp::WallClock;
use crate::quota::Lanes;
use crate::sync::{HEAVY, Pauses, in_place_if};

/// How long the start waits for indexes; building goes on behind it.
const INDEX_PATIENCE: Duration = Duration::from_secs(10);

/// The collection of events that are too large for the outbox of their node.
const BODIES: &str = "eventbody";

/// Where the services are and what to call things in them.
#[derive(Clone, Debug)]
pub struct Options {
    /// `mongodb://…`.
    pub mongo_url: String,
    /// Name of the database.
    pub database: String,
    /// `redis://…`.
    pub redis_url: String,
    /// Number of the Redis database, if not the one in the URL.
    pub redis_db: Option<i64>,
    /// What all keys in Redis begin with.
    pub key_prefix: String,
    /// How long the history of events is kept.
    pub event_retention_seconds: u64,
    /// How long records of telemetry are kept.
    pub telemetry_retention_seconds: u64,
    /// How often it is looked for what is older in the streams, and for channels that have ended.
    pub prune_every: Duration,
    /// The longest that a search of nodes, or counting them, may take.
    pub query_time: Duration,
    /// For tests of crashes.
    #[doc(hidden)]
    pub relay: RelayMode,
    /// The clock of events.
    #[doc(hidden)]
    pub wall: WallClock,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            mongo_url: "mongodb://127.0.0.1:27017".into(),
            database: "kernelci".into(),
            redis_url: "redis://127.0.0.1:6379".into(),
            redis_db: None,
            key_prefix: "kernelci-live:".into(),
            event_retention_seconds: 604_800,
            telemetry_retention_seconds: 1_209_600,
            prune_every: Duration::from_secs(60),
            query_time: QUERY_TIME,
            relay: RelayMode::Run,
            wall: WallClock::default(),
        }
    }
}

/// The store of a production server.
pub struct MongoStore {
    client: Client,
    db: Database,
    nodes: Collection<Stored>,
    /// Events that are too large for the outbox of their node.
    bodies: Collection<Stored>,
    /// Single nodes to read.
    gets: Gets,
    /// Single nodes to add.
    inserts: single::Inserts,
    users: Collection<Stored>,
    groups: Collection<Stored>,
    telemetry: Collection<Stored>,
    consumers: Collection<Stored>,
    items: Collection<Stored>,
    depths: Collection<Stored>,
    /// The queues of KernelCI's own server.
    reference: Reference,
    /// How many queues there are.
    lists: Mutex<queues::Lists>,
    /// Counting what users have, and adding to it.
    lanes: Arc<Lanes>,
    facts: Facts,
    query_time: Duration,
    relay: Relay,
    stop: CancellationToken,
}

/// Connects to MongoDB (503 if it is away), prepares the database, and starts the relay. Redis may be away.
pub async fn open(options: Options) -> Result<(Arc<MongoStore>, Arc<RedisLog>)> {
    let client = connect(&options.mongo_url).await?;
    let db = client.database(&options.database);
    let hello = call(db.run_command(doc! {"hello": 1})).await?;
    let atomic = hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    if !atomic {
        tracing::warn!(
            "this mongod is standalone: hierarchies are not written atomically; use a replica set"
        );
    }

    let (indexed, is_indexed) = watch::channel(false);
    let stop = CancellationToken::new();
    let building = {
        let kept = indexes::Kept {
            events: options.event_retention_seconds,
            telemetry: options.telemetry_retention_seconds,
        };
        let db = db.clone();
        background::spawn("indexes", async move { indexes::ensure(&db, kept, &indexed).await })
    };
    if tokio::time::timeout(INDEX_PATIENCE, building).await.is_err() {
        tracing::info!("indexes are being built in the background; until then some queries are slow");
    }

    let outboxes = Outboxes {
        nodes: db.collection("node"),
        events: db.collection("eventoutbox"),
        bodies: db.collection(BODIES),
        indexed: is_indexed,
    };
    let reference = Reference::new(&options.redis_url, options.redis_db, &options.key_prefix)?;
    let redis = Redis::new(&options.redis_url, options.redis_db, &options.key_prefix, options.wall)?;
    let history = History::new(&db);
    let first_epoch = ends::first_epoch(&history).await?;
    let ages = Ages { retention_seconds: options.event_retention_seconds, prune_every: options.prune_every };
    let channels = Arc::new(Channels::new(redis, history, &first_epoch, ages));
    channels.set_clock().await?;
    let relay = relay::start(channels.clone(), outboxes.clone(), options.relay);
    single::forget_old_keys(db.collection("node"), stop.clone());

    let store = MongoStore {
        nodes: db.collection("node"),
        bodies: db.collection(BODIES),
        gets: single::gets(db.collection("node")),
        inserts: single::inserts(db.collection("node")),
        users: db.collection("user"),
        groups: db.collection("usergroup"),
        telemetry: db.collection("telemetry"),
        consumers: db.collection("subscriber_state"),
        items: db.collection("queueitem"),
        depths: db.collection(queues::depth::COLLECTION),
        reference,
        lists: Mutex::default(),
        lanes: Arc::default(),
        facts: Facts { kind: "mongodb", atomic_hierarchies: atomic },
        query_time: options.query_time,
        relay: relay.clone(),
        client,
        db,
        stop,
    };
    Ok((Arc::new(store), Arc::new(RedisLog::new(channels, relay, outboxes.events))))
}

/// What indexes a database has, lacks, and has without need. Changes nothing.
pub async fn index_status(mongo_url: &str, database: &str) -> Result<Vec<IndexStatus>> {
    let client = connect(mongo_url).await?;
    let status = indexes::status(&client.database(database)).await;
    // What the driver still does in the background, and would do into the end of the process.
    client.shutdown().immediate(true).await;
    status
}

async fn connect(url: &str) -> Result<Client> {
    let setting = |error: mongodb::error::Error| {
        Error::invalid("mongo_url", "expected mongodb://host:port/").because(Failure::of(&error, None))
    };
    let mut options = ClientOptions::parse(url).await.map_err(|error| match error.kind.as_ref() {
        // Of a `mongodb+srv://` URL.
        ErrorKind::DnsResolve { .. } => errors::translate(error),
        _ => setting(error),
    })?;
    options.app_name.get_or_insert_with(|| "kernelci-live".into());
    options.server_selection_timeout.get_or_insert(Duration::from_secs(3));
    options.connect_timeout.get_or_insert(Duration::from_secs(3));
    // Together with the one above the time after which silent connections are given up.
    options.heartbeat_freq.get_or_insert(Duration::from_secs(2));
    // Whatever the URL says: nobody is to wait in the driver for a connection ([`errors::turn`]).
    options.max_pool_size = Some(options.max_pool_size.unwrap_or(0).max(CONNECTIONS));
    options.max_connecting = Some(CONNECTIONS);
    // Whatever the URL says: acknowledged means on the disks of a majority.
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
    // Whatever the URL says: what is read decides what is written, and what a secondary has not heard of yet is not lost.
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.read_concern = Some(ReadConcern::local());
    Client::with_options(options).map_err(setting)
}

#[async_trait]
impl Store for MongoStore {
    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    async fn ping(&self) -> Result<()> {
        // Not behind our own calls.
        let ping = self.db.run_command(doc! {"ping": 1}).into_future();
        match tokio::time::timeout(Duration::from_secs(5), ping).await {
            Ok(answer) => answer.map(drop).map_err(errors::translate),
            Err(late) => Err(Error::unavailable("store", late)),
        }
    }

    async fn takes_writes(&self) -> Result<()> {
        health::takes_writes(&self.db).await
    }

    async fn raw_nodes(&self, ids: &[ObjectId]) -> Result<Vec<Raw>> {
        if let [id] = ids {
            return Ok(self.gets.ask(*id).await??.into_iter().collect());
        }
        let found = nodes_by_id(&self.nodes, ids).await?;
        Ok(found.into_iter().map(|(_, node)| node).collect())
    }

    async fn find_nodes(&self, query: &Query) -> Result<Found> {
        if query.limit == 0 {
            return Ok(Found::default());
        }
        let translated = filter::to_mongo(&query.filter);
        let (limit, mut skip) = (query.limit, query.offset);
        let mut find = self.nodes.find(translated.query).sort(sort(query)).projection(no_bookkeeping());
        find = find.max_time(self.query_time).allow_disk_use(true);
        if translated.exact {
            find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX)).skip(skip.min(i64::MAX as u64));
        }
        call(async {
            let (mut found, mut bytes, mut pauses) = (Vec::new(), 0, Pauses::default());
            let mut cursor = find.await?;
            while cursor.advance().await? {
                pauses.after(cursor.current().as_bytes().len()).await;
                if bytes > query.bytes {
                    return Ok(Found { nodes: found, cut: true });
                }
                let document = cursor.deserialize_current()?;
                let node = serde_json::Value::Object(document::wire(&document));
                if !translated.exact {
                    if !query.filter.matches(&node) {
                        continue;
                    }
                    if skip > 0 {
                        skip -= 1;
                        continue;
                    }
                }
                if let serde_json::Value::Object(node) = node {
                    bytes += cursor.current().as_bytes().len();
                    found.push(Raw::Fields(Arc::new(node)));
                }
                if found.len() as u64 >= limit {
                    break;
                }
            }
            Ok(Found { nodes: found, cut: false })
        })
        .await
    }

    async fn count_nodes(&self, filter: &Filter) -> Result<u64> {
        let translated = filter::to_mongo(filter);
        if translated.exact && translated.query.is_empty() {
            return call(self.nodes.estimated_document_count().max_time(QUERY_TIME)).await;
        }
        if translated.exact {
            return call(self.nodes.count_documents(translated.query).max_time(self.query_time)).await;
        }
        let find = self.nodes.find(translated.query).projection(no_bookkeeping()).max_time(self.query_time);
        call(async {
            let (mut count, mut pauses) = (0, Pauses::default());
            let mut cursor = find.await?;
            while cursor.advance().await? {
                pauses.after(cursor.current().as_bytes().len()).await;
                let document = cursor.deserialize_current()?;
                count += u64::from(filter.matches(&serde_json::Value::Object(document::wire(&document))));
            }
            Ok(count)
        })
        .await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        commit::commit(self, commit).await
    }

    async fn repeated(&self, key: &IdempotencyKey) -> Result<Option<Vec<ObjectId>>> {
        commit::repeated(self, key).await
    }

    async fn indexes(&self) -> Result<Vec<IndexStatus>> {
        indexes::status(&self.db).await
    }

    async fn close(&self) {
        self.stop.cancel();
        self.relay.close().await;
    }
}

impl Drop for MongoStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Those of these nodes that there are.
async fn nodes_by_id(nodes: &Collection<Stored>, ids: &[ObjectId]) -> Result<Vec<(ObjectId, Raw)>> {
    let find = nodes.find(doc! {"_id": {"$in": ids}}).projection(no_bookkeeping()).max_time(QUERY_TIME);
    let raw =
        |node: &Stored| Some((node.get_object_id("_id").ok()?, Raw::Fields(Arc::new(document::wire(node)))));
    call(async {
        let (mut found, mut pauses) = (Vec::new(), Pauses::default());
        let mut cursor = find.await?;
        while cursor.advance().await? {
            let size = cursor.current().as_bytes().len();
            pauses.after(size).await;
            let read = || cursor.deserialize_current().map(|node| raw(&node));
            found.extend(in_place_if(size > HEAVY, read)?);
        }
        Ok(found)
    })
    .await
}

/// Readers do not need the pending events.
fn no_bookkeeping() -> Document {
    doc! {"outbox": 0, "idempotency": 0, "idempotency_of": 0}
}

/// The sort keys. `id` is the last one; if it is not asked for it goes the way of the first, so that an index can be
/// read from either end.
fn sort(query: &Query) -> Document {
    let direction = |descending| if descending { -1 } else { 1 };
    let mut keys = Document::new();
    for key in query.sort.iter().take_while(|key| key.field != "id") {
        if !keys.contains_key(key.field) {
            keys.insert(key.field, direction(key.descending));
        }
    }
    let id = query.sort.iter().find(|key| key.field == "id").or(query.sort.first());
    keys.insert("_id", direction(id.is_some_and(|key| key.descending)));
    keys
}
