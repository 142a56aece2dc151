//! Pools of read connections, with time limits.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::schema;
use crate::error::{Error, Kind, Result};
use crate::metrics;

/// So many steps of SQLite's machine a read goes on before it looks whether it is still wanted: some tens of
/// microseconds.
const STEPS: i32 = 1_000;

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
        let over = Arc::new(AtomicBool::new(false));
        let unwanted = over.clone();
        let (path, idle) = (self.path.clone(), self.idle.clone());
        let task = tokio::task::spawn_blocking(move || {
            // It may have waited for a thread.
            if unwanted.load(Ordering::Relaxed) {
                return Err(too_slow());
            }
            let unused = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match unused {
                Some(connection) => connection,
                None => schema::open_reader(&path)?,
            };
            // SQLite forgets an interrupt that comes while no statement runs; what is asked again and again cannot be
            // missed.
            connection.progress_handler(STEPS, Some(move || unwanted.load(Ordering::Relaxed)))?;
            let result = work(&connection);
            connection.progress_handler(0, None::<fn() -> bool>)?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(place);
            result
        });
        let _stop = StopOnDrop(over);
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

/// Tells a read that nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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

    /// One that tells when it has begun.
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

    /// Between its arming and its first step, and between two statements, SQLite has nothing to interrupt.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_that_is_given_up_between_its_statements_does_not_go_on() {
        let (_dir, db) = database(Duration::from_secs(60));
        let (tell, begins) = tokio::sync::oneshot::channel();
        let (go_on, gate) = std::sync::mpsc::channel::<()>();
        let search = move |connection: &Connection| {
            let _ = tell.send(());
            gate.recv().unwrap();
            endless(connection)
        };
        tokio::select! {
            slow = db.searches.run(search) => panic!("it has not begun: {slow:?}"),
            begun = begins => begun.unwrap(),
        }
        go_on.send(()).unwrap();
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
