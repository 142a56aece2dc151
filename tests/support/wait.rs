//! Waiting for what must come.

use std::time::Duration;

use super::raw::PATIENCE;

/// Waits until the condition holds; fails when it does not hold in time.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < 2 * PATIENCE, "no {what} after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
