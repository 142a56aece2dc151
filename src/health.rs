//! Which parts of the server can be reached: looked at twice a second, told to sessions, and asked by every request,
//! so that one that cannot be served fails at once instead of waiting for a part that is away.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::event_log::EventLog;
use crate::store::Store;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a part may take to answer: a busy one is not away.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many looks in a row have to fail: an election or a restart of a part is waited for.
const FAILURES: u32 = 2;

/// A part that may be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The store: MongoDB in production.
    Store,
    /// The log: Redis in production.
    Log,
    /// Room to write: the store can be read, but its disk is full.
    Writes,
}

impl Part {
    /// As `/ready` and `session.degraded` call it.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Store => "store",
            Part::Log => "log",
            Part::Writes => "writes",
        }
    }
}

/// The parts that are away now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Away {
    store: bool,
    log: bool,
    writes: bool,
}

impl Away {
    fn has(self, part: Part) -> bool {
        match part {
            Part::Store => self.store,
            Part::Log => self.log,
            Part::Writes => self.writes,
        }
    }
    /// Their names; empty when all is well.
    pub fn names(self) -> Vec<&'static str> {
        let all = [Part::Store, Part::Log, Part::Writes];
        all.into_iter().filter(|part| self.has(*part)).map(Part::name).collect()
    }
}

/// What the last looks have shown.
pub struct Health {
    away: watch::Sender<Away>,
    looking: AbortHandle,
}

impl Drop for Health {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Health {
    /// Looks at these from now on. They are there until proved otherwise.
    pub fn of(store: Arc<dyn Store>, log: Arc<dyn EventLog>) -> Health {
        let away = watch::Sender::new(Away::default());
        let looking = tokio::spawn(look(store, log, away.clone())).abort_handle();
        Health { away, looking }
    }

    /// What is away, to look at or to wait for changes.
    pub fn watch(&self) -> watch::Receiver<Away> {
        self.away.subscribe()
    }

    /// Does work that needs these parts: 503 at once while one of them is away, or as soon as one is.
    pub async fn serve<T>(&self, parts: &[Part], work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut away = self.away.subscribe();
        let gone = async {
            let missing = |away: &Away| parts.iter().copied().find(|part| away.has(*part));
            match away.wait_for(|away| missing(away).is_some()).await {
                Ok(away) => missing(&away),
                Err(_) => None,
            }
        };
        tokio::select! {
            biased;
            Some(part) = gone => {
                Err(Error::away(part.name()))
            }
            result = work => result,
        }
    }
}

async fn look(store: Arc<dyn Store>, log: Arc<dyn EventLog>, away: watch::Sender<Away>) {
    let (mut store_failures, mut log_failures) = (0, 0);
    loop {
        let (store_is, log_is, takes_writes) =
            tokio::join!(answers(store.ping()), answers(log.ping()), answers(store.takes_writes()));
        store_failures = if store_is { 0 } else { store_failures + 1 };
        log_failures = if log_is { 0 } else { log_failures + 1 };
        let now = Away {
            store: store_failures >= FAILURES,
            log: log_failures >= FAILURES,
            // A disk does not come and go; and a store that is away has said so.
            writes: store_is && !takes_writes,
        };
        if away.send_if_modified(|was| std::mem::replace(was, now) != now) {
            match now.names() {
                names if names.is_empty() => tracing::info!("all parts can be reached again"),
                names => tracing::warn!(away = ?names, "degraded"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn answers(ping: impl Future<Output = Result<()>>) -> bool {
    matches!(tokio::time::timeout(PATIENCE, ping).await, Ok(Ok(())))
}
