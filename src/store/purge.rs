//! Removing nodes because of their age (contract 7.4).
//!
//! Checkouts are kept. So is a node as long as another one stands below it: nodes are looked at from the youngest of the
//! old ones on, so that children go before their parents, and no purge makes an orphan (D-13). What remains below a
//! kept checkout is what is young enough.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{ObjectId, Timestamp};

/// The kind that is kept.
pub const KEPT: &str = "checkout";

/// Removes old nodes, a few at a time.
#[async_trait]
pub trait Purge {
    /// Looks at up to `limit` old nodes, from the youngest on, and removes those that may go. No events.
    async fn purge_nodes(&self, old: &Old, limit: usize) -> Result<Purged>;
}

/// Which nodes are old.
#[derive(Clone, Copy, Debug)]
pub struct Old {
    /// Created before this.
    pub before: Timestamp,
    /// Only what comes behind this node (its `created` and id), in descending order.
    pub behind: Option<(Timestamp, ObjectId)>,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// So many are gone.
    pub removed: u64,
    /// So many were looked at and stay, because of nodes below them or events that are not in the log yet.
    pub kept: u64,
    /// Where to go on; `None` when all have been looked at.
    pub behind: Option<(Timestamp, ObjectId)>,
}
