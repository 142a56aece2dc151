//! Removing what is too old: events and telemetry behind retention, idempotency keys and those
//! of queues after a day.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;

use super::Database;
use super::append::Batch;
use super::commit::REMEMBERED;
use super::{channel_owners, queues, telemetry};
use crate::background;
use crate::error::Result;
use crate::model::Timestamp;

/// How much one transaction removes: small, because writes wait for it.
const STEP: i64 = 500;

/// Starts looking every now and then, until the store is closed or dropped.
pub(super) fn spawn(db: &Arc<Database>) {
    let every = db.options.prune_every;
    let db = Arc::downgrade(db);
    background::spawn("retention", async move {
        loop {
            tokio::time::sleep(every).await;
            let Some(db) = db.upgrade() else { return };
            if db.writer.is_closed() {
                return;
            }
            if let Err(error) = prune(&db).await {
                tracing::warn!(%error, "old events and telemetry could not be removed; trying again later");
            }
        }
    });
}

async fn prune(db: &Database) -> Result<()> {
    let before = |retention: Duration| {
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(Timestamp::now().millis().saturating_sub(retention))
    };
    let (events, samples) = (before(db.options.retention), before(db.options.telemetry_retention));
    let step = move |batch: &mut Batch<'_>| {
        let events_before = events;
        let events = batch.prune_events(events, STEP)?;
        channel_owners::prune(batch, events_before)?;
        let samples = telemetry::prune(batch, samples, STEP)?;
        Ok(events | samples | prune_keys(batch)? | queues::prune(batch, STEP)?)
    };
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
