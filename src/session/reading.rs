//! Reads that take time, for one subscription of a session after the other.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::subscription::{Batch, Reader};
use crate::app::App;

/// The number of a subscription, and what is being read for it.
pub(super) type Reading = (u32, BoxFuture<'static, Batch>);

/// Reads for a subscription, again and again while the store or the log is away.
pub(super) async fn read_patiently(app: Arc<App>, reader: Reader) -> Batch {
    let mut pause = Duration::from_millis(100);
    loop {
        match reader.read(&*app.store).await {
            Ok(batch) => return batch,
            Err(error) => {
                tracing::debug!(%error, sub = reader.sub, "a subscription cannot be read; trying again")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// The finished read, which is taken out of its place.
pub(super) async fn finished(reading: &mut Option<Reading>) -> (u32, Batch) {
    let result = match reading {
        Some((sub, read)) => (*sub, read.await),
        None => std::future::pending().await,
    };
    *reading = None;
    result
}
