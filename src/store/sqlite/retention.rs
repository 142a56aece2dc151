//! Removing what is too old: events behind retention, idempotency keys after a day.

use std::sync::Arc;

use rusqlite::params;

use super::Database;
use super::append::Batch;
use super::commit::REMEMBERED;
use crate::error::Result;
use crate::model::Timestamp;

/// How much one transaction removes: small, because writes wait for it.
const STEP: i64 = 500;

/// Starts looking every now and then, until the store is closed or dropped.
pub(super) fn spawn(db: &Arc<Database>) {
    let every = db.options.prune_every;
    let db = Arc::downgrade(db);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let Some(db) = db.upgrade() else { return };
            if db.writer.is_closed() {
                return;
            }
            if let Err(error) = prune(&db).await {
                tracing::warn!(%error, "old events could not be removed; trying again later");
            }
        }
    });
}

async fn prune(db: &Database) -> Result<()> {
    let retention = i64::try_from(db.options.retention.as_millis()).unwrap_or(i64::MAX);
    let cutoff = Timestamp::from_millis(Timestamp::now().millis().saturating_sub(retention));
    let step = move |batch: &mut Batch<'_>| Ok(batch.prune_events(cutoff, STEP)? | prune_keys(batch)?);
    while db.writer.run(STEP as usize, step).await? {}
    Ok(())
}

/// Whether there may be more.
fn prune_keys(batch: &Batch<'_>) -> Result<bool> {
    let oldest = batch.now.plus_seconds(-REMEMBERED).millis();
    let removed = batch
        .connection
        .prepare_cached(
            "DELETE FROM idempotency WHERE at < ? AND n IN (SELECT n FROM idempotency ORDER BY n LIMIT ?)",
        )?
        .execute(params![oldest, STEP])?;
    Ok(removed as i64 == STEP)
}
