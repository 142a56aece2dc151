//! Pools of read connections, with time limits.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use rusqlite::{Connection, InterruptHandle};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::schema;
use crate::error::{Error, Kind, Result};
use crate::metrics;

/// Runs reads on threads of the blocking pool, a bounded number at once, each with a connection of its own.
pub(crate) struct Readers {
    path: PathBuf,
    limit: Duration,
    places: Arc<Semaphore>,
    /// Connections that nobody uses now; opened when first needed, never more than there are places.
    idle: Arc<Mutex<Vec<Connection>>>,
    seconds: ::metrics::Histogram,
}

impl Readers {
    /// `count` at once, each for at most `limit`; `call` is what metrics say.
    pub(super) fn new(call: &str, path: &Path, count: usize, limit: Duration) -> Readers {
        Readers {
            path: path.to_owned(),
            limit,
            places: Arc::new(Semaphore::new(count)),
            idle: Arc::default(),
            seconds: metrics::STORE_SECONDS.histogram(&[call]),
        }
    }

    /// Runs `work`. It ends with 504 at the time limit (waiting for a place included), and is also interrupted when
    /// the caller stops waiting.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let began = Instant::now();
        let result = self.run_in_time(work).await;
        self.seconds.record(began.elapsed());
        result
    }

    async fn run_in_time<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let deadline = Instant::now() + self.limit;
        let place = match tokio::time::timeout_at(deadline, self.places.clone().acquire_owned()).await {
            Ok(place) => place.map_err(|_| Error::unavailable("store", anyhow!("the store is closed")))?,
            Err(_) => return Err(too_slow()),
        };
        let interrupt = Arc::new(Interrupt::default());
        let armed = interrupt.clone();
        let (path, idle) = (self.path.clone(), self.idle.clone());
        let task = tokio::task::spawn_blocking(move || {
            let unused = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match unused {
                Some(connection) => connection,
                None => schema::open_reader(&path)?,
            };
            let result = armed.arm(&connection).and_then(|()| work(&connection));
            armed.disarm();
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(place);
            result
        });
        let _cancel = CancelOnDrop(interrupt);
        match tokio::time::timeout_at(deadline, task).await {
            Ok(result) => result.map_err(Error::internal)?,
            Err(_) => Err(too_slow()),
        }
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.places.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What a read that took too long is answered.
pub(super) fn too_slow() -> Error {
    Error::new(Kind::Timeout, "the query took longer than its time limit")
}

/// Stops one read, and never the next one on the same connection.
#[derive(Default)]
struct Interrupt {
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    Waiting,
    Running(InterruptHandle),
    Cancelled,
    Ended,
}

impl Interrupt {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The read begins, unless it was cancelled while it waited for a thread.
    fn arm(&self, connection: &Connection) -> Result<()> {
        let mut state = self.state();
        if let State::Cancelled = *state {
            return Err(too_slow());
        }
        *state = State::Running(connection.get_interrupt_handle());
        Ok(())
    }
    /// The read has ended; its connection is about to be used by somebody else.
    fn disarm(&self) {
        *self.state() = State::Ended;
    }
}

struct CancelOnDrop(Arc<Interrupt>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let State::Running(handle) = &*state {
            handle.interrupt();
        }
        if !matches!(*state, State::Ended) {
            *state = State::Cancelled;
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::functions::FunctionFlags;

    use super::super::{Database, Options};
    use super::*;

    fn endless(connection: &Connection) -> Result<i64> {
        let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c";
        Ok(connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// One that tells when it has begun: SQLite interrupts only what it is already at.
    fn endless_that_tells()
    -> (impl FnOnce(&Connection) -> Result<i64> + Send + 'static, tokio::sync::oneshot::Receiver<()>) {
        let (tell, begins) = tokio::sync::oneshot::channel();
        let search = move |connection: &Connection| {
            let tell = Mutex::new(Some(tell));
            let begun = move |_: &mut rusqlite::functions::Context<'_>| {
                tell.lock().unwrap().take().map(|tell| tell.send(()));
                Ok(1)
            };
            connection.create_scalar_function("begun", 0, FunctionFlags::SQLITE_UTF8, begun)?;
            let sql =
                "WITH RECURSIVE c(x) AS (SELECT begun() UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c";
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        };
        (search, begins)
    }

    fn one(connection: &Connection) -> Result<i64> {
        Ok(connection.query_row("SELECT 1", [], |row| row.get(0))?)
    }

    fn database(read_limit: Duration) -> (tempfile::TempDir, Database) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { search_limit: read_limit, readers: 1, ..Options::default() };
        let db = Database::open(dir.path(), options).unwrap();
        (dir, db)
    }

    /// It measures time: see `.config/nextest.toml`.
    mod in_pairs {
        use super::*;

        #[tokio::test(flavor = "multi_thread")]
        async fn a_slow_read_ends_and_frees_its_place() {
            let (_dir, db) = database(Duration::from_secs(2));
            let (first, second) = tokio::join!(db.searches.run(endless), db.searches.run(endless));
            assert_eq!(first.unwrap_err().kind(), Kind::Timeout);
            assert_eq!(second.unwrap_err().kind(), Kind::Timeout, "it had no place in time");
            for _ in 0..20 {
                assert_eq!(db.searches.run(one).await.unwrap(), 1);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_that_nobody_waits_for_is_interrupted() {
        let (_dir, db) = database(Duration::from_secs(60));
        let (search, begins) = endless_that_tells();
        tokio::select! {
            slow = db.searches.run(search) => panic!("it is endless: {slow:?}"),
            begun = begins => begun.unwrap(),
        }
        let next = tokio::time::timeout(Duration::from_secs(30), db.searches.run(one)).await;
        assert_eq!(next.unwrap().unwrap(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn slow_searches_do_not_hold_up_quick_reads() {
        let (_dir, db) = database(Duration::from_secs(60));
        let (search, begins) = endless_that_tells();
        let quick = async {
            begins.await.unwrap();
            db.quick.run(one).await
        };
        tokio::select! {
            slow = db.searches.run(search) => panic!("it is endless: {slow:?}"),
            quick = quick => assert_eq!(quick.unwrap(), 1),
        }
    }
}
