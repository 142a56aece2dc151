//! A database and a key prefix for one test, and any number of instances on them.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bson::{Document, doc};
use kernelci_live::event_log::redis::{RedisLog, RelayMode};
use kernelci_live::event_log::{EventLog, Read};
use kernelci_live::model::event::{Entry, NODE_CHANNEL};
use kernelci_live::model::node::State;
use kernelci_live::model::{Event, EventTime, Node, ObjectId, Timestamp};
use kernelci_live::store::mongo::{self, MongoStore, Options};
use kernelci_live::store::{Commit, Expect, Write};
use serde_json::{Map, Value, json};

use crate::support::{PATIENCE, eventually_within, services, to_redis, until_within};

/// A `mongod` of a test's own, which ends with it.
pub struct Mongod {
    pub port: u16,
    process: Child,
    _files: tempfile::TempDir,
}

impl Mongod {
    /// Starts it and waits until it answers.
    pub async fn start(more: &[&str]) -> Mongod {
        let files = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(&services().mongod);
        command.args(["--bind_ip", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--wiredTigerCacheSizeGB", "0.25"]).args(more);
        command.arg("--dbpath").arg(files.path()).stdout(Stdio::null());
        let mongod = Mongod { port, process: command.spawn().expect("mongod starts"), _files: files };
        let up = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        eventually_within(2 * PATIENCE, "mongod answers", up).await;
        mongod
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The servers as one test sees them.
pub struct Servers {
    pub options: Options,
    pub db: mongodb::Database,
    pub redis: redis::aio::MultiplexedConnection,
}

/// One server instance.
pub struct Instance {
    pub store: Arc<MongoStore>,
    pub log: Arc<RedisLog>,
}

impl Servers {
    pub async fn new() -> Servers {
        Servers::on(services().mongo.clone()).await
    }
    /// On this MongoDB server.
    pub async fn on(mongo_url: String) -> Servers {
        let name = format!("test_{}", ObjectId::new());
        let redis_url = services().redis.clone();
        let client = mongodb::Client::with_uri_str(&mongo_url).await.unwrap();
        let redis = to_redis(None).await;
        let key_prefix = format!("{name}:");
        let options =
            Options { mongo_url, redis_url, key_prefix, database: name.clone(), ..Options::default() };
        Servers { options, db: client.database(&name), redis }
    }
    pub async fn open(&self) -> Instance {
        self.open_with(RelayMode::Run).await
    }
    pub async fn open_with(&self, relay: RelayMode) -> Instance {
        let (store, log) = mongo::open(Options { relay, ..self.options.clone() }).await.unwrap();
        Instance { store, log }
    }
    pub fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        self.db.collection(name)
    }
    /// The node's document.
    pub async fn document(&self, id: ObjectId) -> Document {
        self.collection("node").find_one(doc! {"_id": id}).await.unwrap().unwrap()
    }
    /// Makes Redis forget everything of this test, or only what matches.
    pub async fn forget(&self, what: &str) {
        let mut redis = self.redis.clone();
        let pattern = format!("{}{what}", self.options.key_prefix);
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
        if !keys.is_empty() {
            redis::cmd("DEL").arg(keys).query_async::<()>(&mut redis).await.unwrap();
        }
    }
    /// Waits until Redis has given this number, whether readers see it or not.
    pub async fn given(&self, channel: &str, number: u64) {
        let key = format!("{}{{{channel}}}:state", self.options.key_prefix);
        until_within(2 * PATIENCE, "a number", async || {
            let mut redis = self.redis.clone();
            let given: Option<u64> =
                redis::cmd("HGET").arg(&key).arg("given").query_async(&mut redis).await.unwrap();
            if given == Some(number) { Ok(()) } else { Err(given) }
        })
        .await;
    }
    /// Removes what the test has left behind.
    pub async fn clean(self) {
        self.forget("*").await;
        self.db.drop().await.unwrap();
    }
    /// Waits until no event is pending.
    pub async fn settled(&self) {
        until_within(2 * PATIENCE, "empty outboxes", async || {
            let count = async |name, query| self.collection(name).count_documents(query).await.unwrap();
            let nodes = count("node", doc! {"outbox": {"$exists": true}}).await;
            match nodes + count("eventoutbox", doc! {}).await {
                0 => Ok(()),
                pending => Err(pending),
            }
        })
        .await;
    }
}

impl Instance {
    /// All events of a channel that are there, which must be consecutive.
    pub async fn events_after(&self, channel: &str, mut seq: u64) -> Vec<Arc<Entry>> {
        let mut all = Vec::new();
        loop {
            let Read { gap, entries, .. } = self.log.read_after(channel, seq, 500).await.unwrap();
            assert_eq!(gap, None);
            match entries.last() {
                Some(last) => seq = last.seq,
                None => return all,
            }
            all.extend(entries);
        }
    }
}

/// A new node.
pub fn node(name: &str) -> Node {
    let now = Timestamp::now();
    Node {
        id: ObjectId::new(),
        kind: "kbuild".into(),
        name: name.into(),
        path: vec!["checkout".into(), name.into()],
        group: None,
        parent: None,
        state: State::Running,
        result: None,
        artifacts: Some(Map::new()),
        data: Some(Map::from_iter([("arch".to_owned(), json!("arm64"))])),
        debug: Some(Map::new()),
        jobfilter: None,
        platform_filter: Some(Vec::new()),
        created: now,
        updated: now,
        timeout: now.plus_seconds(6 * 3600),
        holdoff: None,
        owner: Some("tester".into()),
        submitter: None,
        treeid: Some("tree".into()),
        user_groups: Vec::new(),
        processed_by_kcidb_bridge: false,
        retry_counter: 0,
        revision: 1,
    }
}

/// A write with one event that tells the revision.
pub fn write(node: &Node) -> Write {
    let expect = match node.revision {
        1 => Expect::Absent,
        revision => Expect::Revision(revision - 1),
    };
    let data = json!({"id": node.id.to_hex(), "revision": node.revision, "data": node.data});
    let event = Event { subject: Some(node.id.to_hex()), ..event(NODE_CHANNEL, data) };
    Write { node: node.clone().into(), expect, events: vec![event] }
}

/// A commit of these nodes, each with an event.
pub fn commit<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Commit {
    Commit { writes: nodes.into_iter().map(write).collect(), idempotency: None }
}

/// An event that happens now.
pub fn event(channel: &str, data: Value) -> Event {
    Event {
        id: ObjectId::new(),
        channel: channel.into(),
        source: "https://example.org/".into(),
        kind: "api.kernelci.org".into(),
        subject: None,
        time: EventTime::now(),
        owner: Some("tester".into()),
        partitionkey: None,
        extensions: Map::new(),
        data,
    }
}

/// The revisions that these events tell of, of one node.
pub fn revisions(events: &[Arc<Entry>], id: ObjectId) -> Vec<u64> {
    let of_node = events.iter().filter(|event| event.subject() == Some(id));
    of_node.map(|event| event.value()["data"]["revision"].as_u64().unwrap()).collect()
}
