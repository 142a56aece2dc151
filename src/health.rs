//! Which parts of the server can be reached: looked at twice a second, told to sessions, and asked by every request,
//! so that one that cannot be served fails at once instead of waiting for a part that is away.
//!
//! A look does what the work needs: it writes. A part that answers and takes no writes is as good as away: Redis without
//! memory or behind a failover, MongoDB that is locked or has lost its majority.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::background;
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
    /// Writing: the store can be read, but its disk is full, or it is locked.
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

/// What one look at a part has shown.
#[derive(Clone, Debug)]
pub struct Look {
    /// How long it took.
    pub took: Duration,
    /// What was wrong, for the log.
    pub error: Option<String>,
}

impl Look {
    /// Whether the part did what was asked for, within the time.
    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }
}

/// The last look at each part.
#[derive(Clone, Debug)]
pub struct Looks {
    /// Whether the store can be read.
    pub store: Look,
    /// Whether the log can be written.
    pub log: Look,
    /// Whether the store can be written.
    pub writes: Look,
}

/// What the last looks have shown.
pub struct Health {
    away: watch::Sender<Away>,
    last: watch::Sender<Option<Arc<Looks>>>,
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
        let last = watch::Sender::new(None);
        let looking = look(store, log, away.clone(), last.clone());
        let looking = background::spawn("health", looking).abort_handle();
        Health { away, last, looking }
    }

    /// What the last looks have shown, a few seconds ago at most; waits for the first ones. Costs nothing, however often
    /// it is asked.
    pub async fn last(&self) -> Result<Arc<Looks>> {
        let mut last = self.last.subscribe();
        let last = last.wait_for(Option::is_some).await.map_err(Error::internal)?.clone();
        last.ok_or_else(|| Error::away("server"))
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
            Some(part) = gone => Err(Error::away(part.name())),
            result = work => result,
        }
    }
}

async fn look(
    store: Arc<dyn Store>,
    log: Arc<dyn EventLog>,
    away: watch::Sender<Away>,
    last: watch::Sender<Option<Arc<Looks>>>,
) {
    let (mut store_failures, mut log_failures, mut write_failures) = (0, 0, 0);
    loop {
        let (store_is, log_is, writes_are) =
            tokio::join!(ask(store.ping()), ask(log.ping()), ask(store.takes_writes()));
        let count = |failures, look: &Look| if look.is_ok() { 0 } else { failures + 1 };
        store_failures = count(store_failures, &store_is);
        log_failures = count(log_failures, &log_is);
        // A store that is away has said so.
        write_failures = if store_is.is_ok() { count(write_failures, &writes_are) } else { 0 };
        let now = Away {
            store: store_failures >= FAILURES,
            log: log_failures >= FAILURES,
            writes: write_failures >= FAILURES,
        };
        if away.send_if_modified(|was| std::mem::replace(was, now) != now) {
            let errors = [&store_is, &log_is, &writes_are].map(|look| look.error.as_deref());
            let why = errors.into_iter().flatten().collect::<Vec<_>>().join("; ");
            match now.names() {
                names if names.is_empty() => tracing::info!("all parts can be reached again"),
                names => tracing::warn!(away = ?names, why, "degraded"),
            }
        }
        last.send_replace(Some(Arc::new(Looks { store: store_is, log: log_is, writes: writes_are })));
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(part: impl Future<Output = Result<()>>) -> Look {
    let began = Instant::now();
    let error = match tokio::time::timeout(PATIENCE, part).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Look { took: began.elapsed(), error }
}
