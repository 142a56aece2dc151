//! Between tasks: how somebody who waits for several things is woken, and how we lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, Semaphore};

use crate::error::{Error, Result};

/// Wakes one task, which need not wait at that moment. Most often it is the log that has moved, and there is nothing
/// else to look at: that is told apart.
#[derive(Debug, Default)]
pub struct Bell {
    notify: Notify,
    called: AtomicBool,
}

impl Bell {
    /// The log has moved.
    pub fn ring(&self) {
        self.notify.notify_one();
    }
    /// Something else has happened.
    pub fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.notify.notify_one();
    }
    /// Returns after the next ring or call, or at once if there was one since the last time.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }
    /// Whether there was a call since this was asked last.
    pub fn take_call(&self) -> bool {
        // Most often there was none: that is to cost no more than a look.
        self.called.load(Ordering::Acquire) && self.called.swap(false, Ordering::AcqRel)
    }
}

/// Makes room for others in a computation on an async thread that may be long: what it looks at is counted, and now and
/// then others have their turn.
#[derive(Debug, Default)]
pub struct Pauses {
    bytes: usize,
}

/// Bytes of documents that are looked at before others have their turn: a fraction of a millisecond's work.
const TURN: usize = 128 << 10;

impl Pauses {
    /// So many bytes more have been looked at.
    pub async fn after(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= TURN {
            self.bytes = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Bytes that are worked on where they are: a fraction of a millisecond.
const LITTLE: usize = 64 << 10;

/// Works on about so many bytes: here if they are few, otherwise apart from the async threads, as many at a time as there
/// are processors, and twice that. The place among those goes with the work, whoever still waits for it.
pub async fn apart<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    static WORKING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
        Arc::new(Semaphore::new(2 * std::thread::available_parallelism().map_or(1, usize::from)))
    });
    if bytes <= LITTLE {
        return work();
    }
    let working = WORKING.clone().acquire_owned().await.map_err(Error::internal)?;
    let work = move || {
        let _working = working;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

/// Computes for long on an async thread, whose other tasks others take over meanwhile.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        // There are no others.
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::block_in_place(work),
    }
}

/// Computes here and now, or as [`in_place`] does if it may take long.
pub fn in_place_if<T>(heavy: bool, work: impl FnOnce() -> T) -> T {
    if heavy { in_place(work) } else { work() }
}

/// Bytes of a node that takes milliseconds to look through.
pub const HEAVY: usize = 1 << 20;

/// Locks; the data behind our locks is consistent between any two statements, so a poisoned lock is still good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
