//! Back ends to test, and nodes and events to test them with.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use kernelci_live::event_log::{EventLog, Tail};
use kernelci_live::filter::{Filter, NODE, Test};
use kernelci_live::model::event::{Entry, NODE_CHANNEL};
use kernelci_live::model::node::State;
use kernelci_live::model::timestamp::WallClock;
use kernelci_live::model::{Event, EventTime, Node, ObjectId, Timestamp};
use kernelci_live::store::{Commit, Committed, Expect, Query, SortKey, Store, Write, mongo, sqlite};
use serde_json::{Map, Value, json};

use crate::support::{
    Backend, Database, For, Looks, PATIENCE, PerBackend, published, services, to_redis, until_within,
};

/// A back end of its own for one test. Events older than an hour are removed within seconds.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn EventLog>,
    /// The clock that events get their times from.
    pub wall: WallClock,
    below: Below,
}

/// Where a back end keeps what it has.
enum Below {
    /// Goes with the fixture.
    Files(tempfile::TempDir),
    /// Goes back to the pool with the fixture.
    Mongo { database: mongodb::Database, _taken: Database },
}

/// How long the fixtures retain events.
pub const RETENTION: Duration = Duration::from_secs(3600);

/// Options of the embedded fixtures.
pub fn options() -> sqlite::Options {
    sqlite::Options {
        retention: RETENTION,
        prune_every: Duration::from_millis(50),
        ..sqlite::Options::default()
    }
}

impl PerBackend for Fixture {
    async fn on(backend: Backend) -> Fixture {
        match backend {
            Backend::Embedded => embedded().await,
            Backend::Production => production().await,
        }
    }
}

/// A SQLite file.
pub async fn embedded() -> Fixture {
    let files = tempfile::tempdir().unwrap();
    let options = options();
    let wall = options.wall.clone();
    let (store, log) = sqlite::open(files.path(), options).await.unwrap();
    Fixture { store, log, wall, below: Below::Files(files) }
}

/// A database and a key prefix of its own on MongoDB and Redis.
pub async fn production() -> Fixture {
    let mut database = Database::take(For::Stores).await;
    let options = mongo::Options {
        mongo_url: services().mongo.clone(),
        redis_url: services().redis.clone(),
        key_prefix: format!("{}:", database.name),
        event_retention_seconds: RETENTION.as_secs(),
        prune_every: Duration::from_millis(50),
        database: database.name.clone(),
        ..mongo::Options::default()
    };
    // MongoDB looks for expired documents once a minute if it is not told otherwise.
    let client = mongodb::Client::with_uri_str(&options.mongo_url).await.unwrap();
    let often = bson::doc! {"setParameter": 1, "ttlMonitorSleepSecs": 1};
    client.database("admin").run_command(often).await.unwrap();
    let below = client.database(&database.name);
    let wall = options.wall.clone();
    let (store, log) = mongo::open(options).await.unwrap();
    database.keep(For::Stores).await;
    Fixture { store, log, wall, below: Below::Mongo { database: below, _taken: database } }
}

impl Fixture {
    /// Publishes an event as if it were so late; its number.
    pub async fn publish_at(&self, time: Timestamp, event: Event) -> u64 {
        self.wall.set(time.into());
        let seq = published(&*self.log, event).await;
        self.wall.set(EventTime::now());
        seq
    }
    /// Commits one write and expects it to succeed.
    pub async fn write(&self, node: &Node, expect: Expect) {
        assert_eq!(self.try_write(node, expect).await, Committed::Done);
    }
    /// Commits one write with one event.
    pub async fn try_write(&self, node: &Node, expect: Expect) -> Committed {
        self.store.commit(commit(vec![write(node, expect)])).await.unwrap()
    }
    /// Adds nodes without events.
    pub async fn add(&self, nodes: &[Node]) {
        let quiet = |node| Write { events: Vec::new(), ..write(node, Expect::Absent) };
        let done = self.store.commit(commit(nodes.iter().map(quiet).collect())).await.unwrap();
        assert_eq!(done, Committed::Done);
    }
    /// The node as it is stored.
    pub async fn stored(&self, id: ObjectId) -> Option<Map<String, Value>> {
        self.store.nodes(&[id]).await.unwrap().pop()
    }
    /// Waits until the channel has at least `count` events: an acknowledged event enters the log soon, not at once.
    pub async fn settled(&self, channel: &str, count: u64) {
        until_within(2 * PATIENCE, &format!("{count} events in the log"), async || {
            let head = self.log.head(channel).await.unwrap().seq;
            if head >= count { Ok(()) } else { Err(head) }
        })
        .await;
    }
    /// Waits until retention has taken what is before this event of the channel.
    pub async fn retained_from(&self, channel: &str, first: u64) {
        // MongoDB of the tests looks every second, but at all the databases that there are.
        until_within(5 * PATIENCE, "retention", async || {
            let floor = self.log.floor(channel).await.unwrap();
            if floor == first { Ok(()) } else { Err(floor) }
        })
        .await;
    }
    /// As if so much time had passed: consumers have been used, and leases of items end, earlier.
    pub async fn time_passes(&self, time: Duration) {
        let ms = i64::try_from(time.as_millis()).unwrap();
        match &self.below {
            Below::Files(files) => {
                let file = rusqlite::Connection::open(files.path().join("kernelci.db")).unwrap();
                for sql in [
                    "UPDATE consumer SET created = created - ?1, last_poll = last_poll - ?1",
                    "UPDATE queue_item SET until = max(until - ?1, 1) WHERE until > 0",
                ] {
                    file.execute(sql, [ms]).unwrap();
                }
            }
            Below::Mongo { database, .. } => {
                let earlier = |field: &str| bson::doc! {"$subtract": [format!("${field}"), ms]};
                let held = bson::doc! {"until": {"$gt": bson::DateTime::from_millis(0)}};
                for (name, which, fields) in [
                    ("subscriber_state", bson::doc! {}, &["created_at", "last_poll"][..]),
                    ("queueitem", held, &["until"]),
                ] {
                    let set: bson::Document =
                        fields.iter().map(|field| ((*field).to_owned(), earlier(field).into())).collect();
                    let all = database.collection::<bson::Document>(name);
                    all.update_many(which, vec![bson::doc! {"$set": set}]).await.unwrap();
                }
            }
        }
    }
    /// Puts an item of one byte into each of the lists, as an earlier version of the server has left it.
    pub async fn put_items(&self, lists: &[String]) {
        match &self.below {
            Below::Files(files) => {
                let mut file = rusqlite::Connection::open(files.path().join("kernelci.db")).unwrap();
                let all = file.transaction().unwrap();
                for list in lists {
                    let sql = "INSERT INTO queue_item (list, doc, bytes, until, deliveries) VALUES (?, '1', 1, 0, 0)";
                    all.execute(sql, [list]).unwrap();
                }
                all.commit().unwrap();
            }
            Below::Mongo { database, .. } => {
                let free = bson::DateTime::from_millis(0);
                let item = |(n, list): (usize, &String)| {
                    bson::doc! {"_id": n as i64, "list": list, "event": "1", "bytes": 1_i64, "until": free, "deliveries": 0_i64}
                };
                let items: Vec<_> = lists.iter().enumerate().map(item).collect();
                database.collection::<bson::Document>("queueitem").insert_many(items).await.unwrap();
            }
        }
    }
    /// A collection of the database of [`production`].
    pub fn collection(&self, name: &str) -> mongodb::Collection<bson::Document> {
        match &self.below {
            Below::Files(_) => panic!("there are no collections in a file"),
            Below::Mongo { database, .. } => database.collection(name),
        }
    }
    /// What mongod has done for the work: how many index keys and documents it looked at, and the commands.
    pub async fn profiled(&self, work: impl AsyncFnOnce()) -> (i64, Vec<bson::Document>) {
        let Below::Mongo { database, .. } = &self.below else { panic!("that is MongoDB's") };
        let set = async |level: i32| {
            database.run_command(bson::doc! {"profile": level}).await.unwrap();
        };
        set(2).await;
        work().await;
        set(0).await;
        let profile = self.collection("system.profile");
        let done: Vec<bson::Document> = profile
            .find(bson::doc! {"ns": {"$ne": profile.namespace().to_string()}})
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        profile.drop().await.unwrap();
        let number = |of: &bson::Document, key: &str| {
            of.get_i32(key).map_or_else(|_| of.get_i64(key).unwrap_or(0), i64::from)
        };
        let examined = done.iter().map(|one| number(one, "keysExamined") + number(one, "docsExamined")).sum();
        (examined, done)
    }
    /// All retained events of the channel, which must be consecutive from `first`.
    pub async fn events_from(&self, channel: &str, first: u64) -> Vec<Arc<Entry>> {
        let mut all: Vec<Arc<Entry>> = Vec::new();
        loop {
            let after = all.last().map_or(first - 1, |entry| entry.seq);
            let read = self.log.read_after(channel, after, 100).await.unwrap();
            assert_eq!(read.gap, None);
            if read.entries.is_empty() {
                return all;
            }
            for entry in read.entries {
                assert_eq!(entry.seq, first + all.len() as u64, "dense");
                all.push(entry);
            }
        }
    }
    /// What there is of channels: rows, or documents and keys. Those of this name, or all.
    pub async fn traces(&self, channel: Option<&str>) -> usize {
        match &self.below {
            Below::Files(files) => {
                let file = rusqlite::Connection::open(files.path().join("kernelci.db")).unwrap();
                let count = "SELECT count(*) FROM channel WHERE ?1 IS NULL OR name = ?1";
                file.query_row(count, [channel], |row| row.get::<_, i64>(0)).unwrap() as usize
            }
            Below::Mongo { database, .. } => {
                let named = channel.map(|name| bson::doc! {"_id": name}).unwrap_or_default();
                let channels = database.collection::<bson::Document>("channel");
                let pattern = format!("{}:{{{}}}:s*", database.name(), channel.unwrap_or("*"));
                let mut redis = to_redis(None).await;
                let keys: Vec<String> =
                    redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
                // What an event is recognised by goes by itself, within the hour.
                let stay = keys.iter().filter(|key| !key.contains(":seen:")).count();
                channels.count_documents(named).await.unwrap() as usize + stay
            }
        }
    }
    /// Waits until the channel has ended, as if nothing had happened in it for long.
    pub async fn ended(&self, channel: &str) {
        until_within(5 * PATIENCE, "the end of a channel", async || {
            if let Below::Mongo { database, .. } = &self.below {
                let long_ago = bson::DateTime::from_millis(0);
                let old = bson::doc! {"$set": {"since": long_ago, "used": long_ago}};
                let channels = database.collection::<bson::Document>("channel");
                channels.update_many(bson::doc! {"_id": channel}, old).await.unwrap();
            }
            match self.traces(Some(channel)).await {
                0 => Ok(()),
                traces => Err(traces),
            }
        })
        .await;
    }
    /// As if all channels had been claimed long ago.
    pub async fn claims_age(&self) {
        match &self.below {
            Below::Files(files) => {
                let file = rusqlite::Connection::open(files.path().join("kernelci.db")).unwrap();
                file.execute("UPDATE channel_owner SET at = 0", []).unwrap();
            }
            Below::Mongo { database, .. } => {
                let claims = database.collection::<bson::Document>("channelowner");
                let long_ago = bson::doc! {"$set": {"at": bson::DateTime::from_millis(0)}};
                claims.update_many(bson::doc! {}, long_ago).await.unwrap();
            }
        }
    }
    /// The ids that a query finds.
    pub async fn found(&self, query: Query) -> Vec<ObjectId> {
        let found = self.store.find_nodes(&query).await.unwrap().nodes;
        ids(&found.into_iter().map(|node| node.into_wire().unwrap()).collect::<Vec<_>>())
    }
}

/// Reads a tail until it has given `count` events, which must begin behind `seq` without a gap.
pub async fn follow(tail: &mut dyn Tail, seq: u64, count: usize) -> Vec<Arc<Entry>> {
    let mut all: Vec<Arc<Entry>> = Vec::new();
    let mut looks = Looks::new(2 * PATIENCE, "events");
    while all.len() < count {
        let read = match tail.next(7).await {
            // A machine that stands still makes it miss an answer; then it is asked again.
            Err(error) if error.status() == 503 => {
                looks.rest(&error).await;
                continue;
            }
            read => read.unwrap(),
        };
        assert_eq!(read.gap, None);
        if read.entries.is_empty() {
            looks.rest(&format!("{} of {count}", all.len())).await;
        }
        for entry in read.entries {
            assert_eq!(entry.seq, seq + all.len() as u64 + 1, "dense");
            all.push(entry);
        }
    }
    all
}

/// The ids of nodes in wire form.
pub fn ids(nodes: &[Map<String, Value>]) -> Vec<ObjectId> {
    nodes.iter().map(|node| node["id"].as_str().unwrap().parse().unwrap()).collect()
}

/// A new node.
pub fn node(name: &str) -> Node {
    let now = Timestamp::now();
    Node {
        id: ObjectId::new(),
        kind: "kbuild".to_owned(),
        name: name.to_owned(),
        path: vec!["checkout".to_owned(), name.to_owned()],
        group: None,
        parent: None,
        state: State::Running,
        result: None,
        artifacts: Some(Map::new()),
        data: Some(Map::new()),
        debug: Some(Map::new()),
        jobfilter: None,
        platform_filter: Some(Vec::new()),
        created: now,
        updated: now,
        timeout: now.plus_seconds(6 * 3600),
        holdoff: None,
        owner: Some("tester".to_owned()),
        submitter: None,
        treeid: Some("tree".to_owned()),
        user_groups: Vec::new(),
        processed_by_kcidb_bridge: false,
        retry_counter: 0,
        revision: 1,
    }
}

/// The next revision of a node.
pub fn next(node: &Node) -> (Node, Expect) {
    let next = Node { revision: node.revision + 1, updated: Timestamp::now(), ..node.clone() };
    (next, Expect::Revision(node.revision))
}

/// A write with one event.
pub fn write(node: &Node, expect: Expect) -> Write {
    let op = if expect == Expect::Absent { "created" } else { "updated" };
    let data = json!({"op": op, "id": node.id.to_hex(), "name": node.name, "revision": node.revision});
    let event = Event { subject: Some(node.id.to_hex()), ..event(NODE_CHANNEL, data) };
    Write { node: node.clone().into(), expect, events: vec![event] }
}

/// A commit without an idempotency key.
pub fn commit(writes: Vec<Write>) -> Commit {
    Commit { writes, idempotency: None }
}

/// An event that happens now.
pub fn event(channel: &str, data: Value) -> Event {
    Event {
        id: ObjectId::new(),
        channel: channel.to_owned(),
        source: "https://example.org/".to_owned(),
        kind: "api.kernelci.org".to_owned(),
        subject: None,
        time: EventTime::now(),
        owner: Some("tester".to_owned()),
        partitionkey: None,
        extensions: Map::new(),
        data,
    }
}

/// A condition on a node's field.
pub fn field(path: &str, test: Test) -> Filter {
    Filter::Field { path: path.to_owned(), kind: NODE.type_of(path), test }
}

/// A query of everything that matches.
pub fn query(filter: Filter, sort: &[(&'static str, bool)]) -> Query {
    let sort = sort.iter().map(|&(field, descending)| SortKey { field, descending }).collect();
    Query { filter, sort, limit: 1_000, offset: 0, bytes: usize::MAX }
}
