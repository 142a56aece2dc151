//! The store's clock, between two looks at it.

use tokio::time::Instant;

use crate::model::Timestamp;

/// Leases of a group go by one clock for all instances, that of the store: read with the state, and carried on by this
/// machine's monotonic one. So a jump of this machine's clock does nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    store: i64,
    read: Instant,
}

impl Clock {
    /// The store's clock shows this now.
    pub(super) fn at(store: Timestamp) -> Clock {
        Clock { store: store.millis(), read: Instant::now() }
    }

    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.store.saturating_add(i64::try_from(self.read.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// When it will show this.
    pub(super) fn when(&self, time: i64) -> Instant {
        let ms = u64::try_from(time.saturating_sub(self.store)).unwrap_or(0);
        self.read + std::time::Duration::from_millis(ms.min(24 * 3600 * 1000))
    }
}
