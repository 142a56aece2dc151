//! The purge: nodes that are too old are removed (contract 7.4), by one instance at a time and at a pace that others do
//! not feel. What goes and what stays is said in [`crate::store::purge`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::background;
use crate::error::Result;
use crate::metrics;
use crate::model::Timestamp;
use crate::store::purge::{Old, Purged};

/// How many nodes are looked at in one step.
const STEP: usize = 1000;
/// How long after a step that failed the next purge comes.
const AFTER_ERROR: Duration = Duration::from_secs(3600);
/// How long the lease lasts; it is prolonged with every step.
const LEASE: Duration = Duration::from_secs(120);
const LEASE_NAME: &str = "node.purge";
/// How often the log tells how far it is.
const TELL: Duration = Duration::from_secs(10);

/// Purges now and then, until the server shuts down.
pub fn spawn(app: &Arc<App>) {
    if app.config.node_purge_age_days == 0 {
        return tracing::info!("NODE_PURGE_AGE_DAYS is 0: nodes are kept for ever");
    }
    let app = app.clone();
    background::spawn("purge", async move {
        let holder = uuid::Uuid::new_v4().simple().to_string();
        let mut rest = Duration::from_secs(app.config.node_purge_start_seconds);
        loop {
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = app.draining.cancelled() => return,
            }
            let every = Duration::from_secs(app.config.node_purge_interval_seconds);
            rest = every;
            let purged = tokio::select! {
                purged = purge(&app, &holder) => purged,
                () = app.draining.cancelled() => Ok(()),
            };
            if let Err(error) = purged {
                tracing::error!(%error, "purging nodes failed; it is tried again later");
                rest = every.min(AFTER_ERROR);
            }
            if let Err(error) = app.store.drop_lease(LEASE_NAME, &holder).await {
                tracing::debug!(%error, "the lease of the purge could not be given back; it ends by itself");
            }
        }
    });
}

/// Removes all nodes that are too old, unless another instance is at it.
async fn purge(app: &App, holder: &str) -> Result<()> {
    let store = &app.store;
    let Some(token) = store.take_lease(LEASE_NAME, holder, LEASE).await? else {
        tracing::debug!("another instance purges nodes");
        return Ok(());
    };
    let days = i64::try_from(app.config.node_purge_age_days).unwrap_or(i64::MAX);
    let before = Timestamp::now().plus_seconds(days.saturating_mul(-24 * 3600));
    let counter = metrics::NODES_PURGED.counter(&[]);
    let pause = Duration::from_millis(app.config.node_purge_pause_ms);
    let mut old = Old { before, behind: None };
    let (mut removed, mut kept, began, mut told) = (0, 0, Instant::now(), Instant::now());
    loop {
        let step: Purged = store.purge_nodes(&old, STEP).await?;
        counter.increment(step.removed);
        removed += step.removed;
        kept += step.kept;
        if step.behind.is_none() {
            break;
        }
        old.behind = step.behind;
        if told.elapsed() > TELL {
            told = Instant::now();
            let at = step.behind.map(|(created, _)| created.to_wire());
            tracing::info!(removed, kept, at, "purging old nodes");
        }
        tokio::time::sleep(pause).await;
        if store.take_lease(LEASE_NAME, holder, LEASE).await? != Some(token) {
            tracing::warn!(removed, "the purge has lost its lease: another instance goes on with it");
            return Ok(());
        }
    }
    let (before, seconds) = (before.to_wire(), began.elapsed().as_secs_f64());
    tracing::info!(removed, kept, before, seconds, "old nodes are purged");
    Ok(())
}
