//! Back ends to test, and nodes and events to test them with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernelci_live::event_log::{EventLog, Tail};
use kernelci_live::filter::{Filter, NODE, Test};
use kernelci_live::model::event::{Entry, NODE_CHANNEL};
use kernelci_live::model::node::State;
use kernelci_live::model::{Event, Node, ObjectId, Timestamp};
use kernelci_live::store::{Commit, Committed, Expect, Query, SortKey, Store, Write, mongo, sqlite};
use serde_json::{Map, Value, json};

use crate::support::{Backend, PerBackend};

/// A back end of its own for one test. Events older than an hour are removed within seconds.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn EventLog>,
    /// Removes what the test leaves behind.
    _files: Option<tempfile::TempDir>,
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
    let (store, log) = sqlite::open(files.path(), options()).await.unwrap();
    Fixture { store, log, _files: Some(files) }
}

/// A database and a key prefix of its own on the servers that the environment names.
pub async fn production() -> Fixture {
    let server = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} names no server"));
    let name = format!("test_{}", ObjectId::new());
    let options = mongo::Options {
        mongo_url: server("MONGO_URL"),
        redis_url: server("REDIS_URL"),
        key_prefix: format!("{name}:"),
        event_retention_seconds: RETENTION.as_secs(),
        database: name,
        ..mongo::Options::default()
    };
    // MongoDB looks for expired documents once a minute if it is not told otherwise.
    let client = mongodb::Client::with_uri_str(&options.mongo_url).await.unwrap();
    let often = bson::doc! {"setParameter": 1, "ttlMonitorSleepSecs": 1};
    client.database("admin").run_command(often).await.unwrap();
    let (store, log) = mongo::open(options).await.unwrap();
    Fixture { store, log, _files: None }
}

impl Fixture {
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
        eventually("events in the log", async || self.log.head(channel).await.unwrap().seq >= count).await;
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
    /// The ids that a query finds.
    pub async fn found(&self, query: Query) -> Vec<ObjectId> {
        let found = self.store.find_nodes(&query).await.unwrap().nodes;
        ids(&found.into_iter().map(|node| node.into_wire().unwrap()).collect::<Vec<_>>())
    }
}

/// Waits for something that happens soon; fails after a while. (MongoDB looks for expired documents once a minute.)
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_secs(150), "no {what} after 150 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads a tail until it has given `count` events, which must begin behind `seq` without a gap.
pub async fn follow(tail: &mut dyn Tail, seq: u64, count: usize) -> Vec<Arc<Entry>> {
    let begun = Instant::now();
    let mut all: Vec<Arc<Entry>> = Vec::new();
    while all.len() < count {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {count} events after 60 s", all.len());
        let read = match tail.next(7).await {
            // A machine that stands still makes it miss an answer; then it is asked again.
            Err(error) if error.status() == 503 => continue,
            read => read.unwrap(),
        };
        assert_eq!(read.gap, None);
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
        time: Timestamp::now(),
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
