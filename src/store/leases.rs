//! Leases: jobs that only one instance does at a time.
//!
//! They stand next to the data that the jobs work on, and are measured by the store's clock alone: instances need not
//! agree on the time, and nothing is lost with Redis.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;

/// Who may do which job now.
#[async_trait]
pub trait Leases {
    /// Takes the lease `name` for `holder`, or prolongs it: from now on it lasts for `time`. `None` if another holder has
    /// it. The number grows whenever the lease goes to another holder: who writes under a lease can have it checked
    /// that nobody has had it since.
    async fn take_lease(&self, name: &str, holder: &str, time: Duration) -> Result<Option<u64>>;
    /// Gives the lease back, if `holder` has it.
    async fn drop_lease(&self, name: &str, holder: &str) -> Result<()>;
}
