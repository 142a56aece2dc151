//! The store: the truth. Nodes, users, groups; what is written here is written.
//!
//! One contract, two implementations ([`sqlite`] embedded, [`mongo`] in production), one conformance suite. A subject
//! that is not nodes has a trait and a file of its own here ([`users`], [`consumers`], [`consumer_groups`], [`queues`], [`channel_owners`],
//! [`telemetry`], [`leases`], [`purge`]) and in each implementation; [`Store`] is all
//! of them together.
//!
//! * A [`Commit`] is all or nothing: every node change, every event and the idempotency record become durable in one
//!   atomic step, or none does and the store says why. (On a standalone `mongod` a commit of *several* nodes is the
//!   one weaker thing; [`Facts::atomic_hierarchies`] says so.)
//! * A write says which revision it replaces. If the node stands elsewhere nothing is written and the answer is
//!   [`Committed::Conflict`]; so two writers can never lose each other's update.
//! * An acknowledged event reaches its channel's log exactly once, and the events of one node stand there in the
//!   order of its revisions.
//! * Reads hand out nodes in wire form (`Node::to_wire`), with `revision`.

pub mod channel_owners;
pub mod consumer_groups;
pub mod consumers;
mod gather;
pub mod groups;
pub mod indexes;
pub mod leases;
pub mod mongo;
pub mod purge;
pub mod queues;
mod raw;
pub(crate) mod size;
pub mod sqlite;
pub mod telemetry;
pub mod tokens;
pub mod users;

pub use channel_owners::ChannelOwners;
pub use consumer_groups::ConsumerGroups;
pub use consumers::Consumers;
pub use groups::Groups;
pub use leases::Leases;
pub use purge::Purge;
pub use queues::Queues;
pub use raw::Raw;
pub use telemetry::Telemetry;
pub use tokens::Tokens;
pub use users::{UserKey, Users};

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::model::{Event, Node, ObjectId};

/// A node in wire form.
pub type Wire = Map<String, Value>;

/// See the module's documentation for what every implementation promises.
#[async_trait]
pub trait Store:
    Users
    + Groups
    + Tokens
    + Consumers
    + ConsumerGroups
    + Queues
    + ChannelOwners
    + Telemetry
    + Leases
    + Purge
    + Send
    + Sync
    + 'static
{
    /// What this store is and what it can do.
    fn facts(&self) -> Facts;
    /// Fails with 503 when the store cannot be reached now.
    async fn ping(&self) -> Result<()>;
    /// Fails with 503 when nothing can be written although the store can be reached: its disk is full, it is locked, its
    /// majority is away. Found out by trying, the embedded store's by writes that fail, and then by trying.
    async fn takes_writes(&self) -> Result<()>;

    /// The nodes with these ids, in no particular order; absent ones are left out.
    async fn raw_nodes(&self, ids: &[ObjectId]) -> Result<Vec<Raw>>;
    /// As [`Store::raw_nodes`], to look into.
    async fn nodes(&self, ids: &[ObjectId]) -> Result<Vec<Wire>> {
        self.raw_nodes(ids).await?.into_iter().map(Raw::into_wire).collect()
    }
    /// The nodes that match, sorted, at most `query.limit` and about `query.bytes`.
    async fn find_nodes(&self, query: &Query) -> Result<Found>;
    /// How many nodes match.
    async fn count_nodes(&self, filter: &Filter) -> Result<u64>;
    /// Writes nodes and their events. See [`Committed`].
    async fn commit(&self, commit: Commit) -> Result<Committed>;
    /// The nodes that a commit with this key wrote, if there was one: asked before the rules of a request are applied
    /// again to nodes that the first time has changed.
    async fn repeated(&self, key: &IdempotencyKey) -> Result<Option<Vec<ObjectId>>>;

    /// What indexes there are, should be, and are left over.
    async fn indexes(&self) -> Result<Vec<IndexStatus>>;
    /// Stops background work after what was acknowledged is safe.
    async fn close(&self);
}

/// What a store is.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `sqlite` or `mongodb`.
    pub kind: &'static str,
    /// Whether a commit of several nodes is atomic (false only on a standalone `mongod`).
    pub atomic_hierarchies: bool,
}

/// Which nodes, in which order, how many.
#[derive(Clone, Debug)]
pub struct Query {
    /// The condition.
    pub filter: Filter,
    /// Sort keys, most significant first: top-level fields of [`SORTABLE`]. `id` is always the last one.
    pub sort: Vec<SortKey>,
    /// At most this many.
    pub limit: u64,
    /// Skip this many first (the REST paging of contract 4.3; WebSocket clients page by cursor).
    pub offset: u64,
    /// Reading ends with the node that makes it more bytes than this (of the stored form): nodes are up to 16 MiB
    /// large, and what is read is held in memory.
    pub bytes: usize,
}

/// Nodes that were found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// In order.
    pub nodes: Vec<Raw>,
    /// Reading ended for their size: there may be more.
    pub cut: bool,
}

/// One key of a sort order. Null sorts before everything, as in MongoDB and SQLite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// One of [`SORTABLE`].
    pub field: &'static str,
    /// Largest first.
    pub descending: bool,
}

/// Fields that can be sorted by: always there, always of one type or null.
pub const SORTABLE: &[&str] = &[
    "id",
    "kind",
    "name",
    "group",
    "parent",
    "state",
    "result",
    "created",
    "updated",
    "timeout",
    "holdoff",
    "owner",
    "submitter",
    "treeid",
    "retry_counter",
];

/// Writes that belong together.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// In this order; at most one per node.
    pub writes: Vec<Write>,
    /// Makes a repetition of the same request return the first result.
    pub idempotency: Option<IdempotencyKey>,
}

/// One node's new content and the events that tell of it.
#[derive(Clone, Debug)]
pub struct Write {
    /// The whole node as it will stand; `node.revision` is what it will be: 1 for a new node, else the replaced
    /// revision + 1.
    pub node: Arc<Node>,
    /// What must be there now.
    pub expect: Expect,
    /// In the order in which they enter the log; usually one, none with `noevent`.
    pub events: Vec<Event>,
}

/// What a write replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: the node is new.
    Absent,
    /// The node at this revision.
    Revision(u64),
}

/// Identifies a request that may be repeated. Kept for a day.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// Who asked: keys of different users never meet.
    pub user: ObjectId,
    /// The operation, e.g. `node.create`.
    pub method: &'static str,
    /// What the client chose, 1 to 128 characters.
    pub key: String,
    /// What the request asks for, in a few bytes; empty: that is not looked at.
    pub fingerprint: String,
}

/// 422 unless a request with the key of an earlier one asks for the same. (What an older version has kept says nothing.)
pub(crate) fn is_same_request(earlier: Option<&str>, fingerprint: &str) -> Result<()> {
    match earlier.filter(|earlier| !earlier.is_empty() && !fingerprint.is_empty()) {
        Some(earlier) if earlier != fingerprint => Err(other_request()),
        _ => Ok(()),
    }
}

/// 422: an idempotency key was used before, and not for this.
pub(crate) fn other_request() -> Error {
    Error::invalid("idempotency_key", "it was used before, for a request with other parameters")
}

/// How a commit ended (when it did not fail).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Durable now.
    Done,
    /// The same idempotency key was committed before; nothing was written now. The nodes of the first time.
    Repeated(Vec<ObjectId>),
    /// This node is not what the write expected; nothing was written. `None`: it does not exist.
    Conflict(ObjectId, Option<u64>),
}

/// One index as `kernelci-live indexes` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexStatus {
    /// Table or collection.
    pub on: String,
    /// Name.
    pub name: String,
    /// Keys in words, e.g. `kind, state`.
    pub keys: String,
    /// What about it.
    pub state: IndexState,
}

/// Whether an index is as the code wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// Wanted and there.
    Present,
    /// Wanted and not there.
    Missing,
    /// There and not wanted: somebody else's; it is left alone.
    LeftOver,
}
