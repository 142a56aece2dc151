//! Subscriptions that nobody polls any more are dropped.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::background;
use crate::metrics;

/// How often an instance looks; all of them do, and each counts what it has dropped.
const EVERY: Duration = Duration::from_secs(60);

/// Starts looking, until the server drains.
pub fn clean_up(app: &Arc<App>) {
    let app = app.clone();
    let idle = app.config.subscription_idle_seconds.min(app.config.consumer_idle_seconds);
    let idle = Duration::from_secs(idle);
    let every = EVERY.min(idle / 2).max(Duration::from_millis(500));
    background::spawn("cleaning", async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(every.mul_f64(rand::random_range(0.8..1.2))) => {}
                () = app.draining.cancelled() => return,
            }
            let (unnamed, named) = (app.config.subscription_idle_seconds, app.config.consumer_idle_seconds);
            match app.store.expire_consumers(unnamed, named).await {
                Ok((0, 0)) => {}
                Ok((unnamed, named)) => {
                    metrics::SUBSCRIPTIONS_CLEANED.counter(&[]).increment(unnamed + named);
                    tracing::info!(unnamed, named, "subscriptions that nobody polls were dropped");
                }
                Err(error) => tracing::warn!(%error, "old subscriptions could not be dropped"),
            }
        }
    });
}
