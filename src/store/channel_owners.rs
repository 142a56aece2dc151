//! Whose channels are: who has published the first event there, or whose group the first dead letter there is of. What the
//! server or a daemon of KernelCI has begun, and what was there before this was noted, is nobody's.
//!
//! A channel is claimed before its first event is published, so there is none that was not counted. It goes with its claim
//! when it ends ([`crate::event_log`]); a claim that nothing came of goes when it is as old as events get.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::ObjectId;
use crate::quota::{Over, Share};

/// Where that is kept.
#[async_trait]
pub trait ChannelOwners {
    /// A channel that has not begun becomes this user's, unless it is somebody's already.
    async fn claim_channel(&self, channel: &str, share: &Share) -> Result<Result<(), Over>>;
    /// Whose the channel is; `None`: nobody's.
    async fn channel_owner(&self, channel: &str) -> Result<Option<ObjectId>>;
    /// How many channels are this user's.
    async fn count_channels(&self, user: ObjectId) -> Result<u64>;
    /// This user's channels are nobody's from now on.
    async fn release_channels(&self, user: ObjectId) -> Result<()>;
}
