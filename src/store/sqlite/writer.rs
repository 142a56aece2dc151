//! The writer: one thread owns the only connection that writes, and commits in groups.
//!
//! Requests wait in a bounded queue. The thread takes what is there (it never waits for more), runs it in one
//! transaction and answers everybody after its COMMIT, so that under load many writes share one fsync. A request
//! that must not happen (a conflict, say) finds that out before it has written anything and is an ordinary result.
//! When anything fails instead, the whole transaction is undone and each of its requests runs again in one of its
//! own: what one request breaks never hurts another, and nobody pays for savepoints in the usual case.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::append::{Appender, Batch};
use super::channels::Channels;
use super::clock::Clock;
use super::schema;
use crate::background::watched_thread;
use crate::error::{Error, Kind, Result};
use crate::metrics;

/// How many requests may share a transaction.
const GROUP: usize = 64;
/// About how many rows a shared transaction may write before it is closed for more requests.
const GROUP_ROWS: usize = 2_000;
/// How many requests may wait; further callers wait to be let in.
const QUEUE: usize = 1_024;
/// How long a caller waits to be let in before it is told to try again.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a probe looks whether the thread gets on with what stands before it.
const LOOK: Duration = Duration::from_millis(250);
/// A disk has room again when there is as much: not just for the smallest of writes.
const ROOM: u32 = 128 << 10;

/// The way to the writer thread.
pub(crate) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    /// Its sender lives in the thread: closed when the thread has ended.
    running: watch::Receiver<()>,
    /// A write has failed for want of room, or whatever else the file system said.
    stuck: Arc<AtomicBool>,
    /// Groups of requests that the thread is through with, ever.
    done: Arc<AtomicU64>,
    seconds: ::metrics::Histogram,
}

impl Writer {
    /// Starts the thread. `lock` is held until the connection is closed.
    pub(super) fn start(
        connection: Connection,
        channels: Arc<Channels>,
        clock: Clock,
        lock: File,
    ) -> Result<Writer> {
        let appender = Appender::load(&connection, channels, clock)?;
        let (queue, requests) = mpsc::channel(QUEUE);
        let (alive, running) = watch::channel(());
        let stuck = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let of_thread = (stuck.clone(), done.clone());
        let body = move || {
            let _alive = alive;
            watched_thread("writer", || serve(connection, appender, requests, &of_thread.0, &of_thread.1));
            drop(lock);
        };
        std::thread::Builder::new().name("sqlite-writer".to_owned()).spawn(body).map_err(Error::internal)?;
        let seconds = metrics::STORE_SECONDS.histogram(&["write"]);
        Ok(Writer { queue: Mutex::new(Some(queue)), running, stuck, done, seconds })
    }

    /// Runs `work` in a transaction; its result arrives when it is durable. `rows` is about how much it writes.
    ///
    /// `work` may run twice (see the module's documentation). Once let into the queue it happens, even if the
    /// caller stops waiting.
    pub(crate) async fn run<T, F>(&self, rows: usize, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>) -> Result<T> + Send + 'static,
    {
        let began = Instant::now();
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(queue) = queue else { return Err(closed()) };
        let (reply, answer) = oneshot::channel();
        let place = match tokio::time::timeout(PATIENCE, queue.reserve()).await {
            Ok(place) => place.map_err(|_| closed())?,
            Err(_) => return Err(Error::unavailable("store", anyhow!("the write queue is full"))),
        };
        place.send(Box::new(Task { work, rows, outcome: None, reply }));
        // Not held while waiting: the thread ends when nobody can send any more.
        drop(queue);
        let answer = answer.await;
        self.seconds.record(began.elapsed());
        answer.map_err(|_| closed())?
    }

    /// Whether the thread works: on this, or on what stands before it.
    pub(super) async fn works(&self) -> Result<()> {
        let before = self.done.load(Ordering::Relaxed);
        let mut own = std::pin::pin!(self.run(1, |_| Ok(())));
        loop {
            tokio::select! {
                answer = own.as_mut() => return answer,
                () = tokio::time::sleep(LOOK) => if self.done.load(Ordering::Relaxed) != before { return Ok(()) },
            }
        }
    }

    /// Whether writes find room, which is tried if the last ones did not.
    pub(super) async fn takes_writes(&self) -> Result<()> {
        if !self.stuck.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.run(1, |batch| schema::try_room(batch.connection, ROOM)).await?;
        self.run(1, |batch| schema::give_room_back(batch.connection)).await?;
        self.stuck.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether [`Writer::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Lets nobody in any more and waits until everything that was accepted is done and the file is closed.
    pub(super) async fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut running = self.running.clone();
        while running.changed().await.is_ok() {}
    }
}

fn closed() -> Error {
    Error::unavailable("store", anyhow!("the store is closed"))
}

/// A request as the thread sees it.
trait Job: Send {
    fn rows(&self) -> usize;
    /// Does the work inside a transaction and keeps the result.
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<()>;
    /// After the end of the transaction.
    fn answer(self: Box<Self>, end: Result<()>);
}

struct Task<T, F> {
    work: F,
    rows: usize,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Batch<'_>) -> Result<T> + Send,
{
    fn rows(&self) -> usize {
        self.rows
    }
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<()> {
        self.outcome = Some((self.work)(batch)?);
        Ok(())
    }
    fn answer(self: Box<Self>, end: Result<()>) {
        let Task { outcome, reply, .. } = *self;
        // A caller that has gone away misses its answer, nothing else.
        let _ = reply.send(end.and_then(|()| outcome.ok_or_else(closed)));
    }
}

fn serve(
    connection: Connection,
    mut appender: Appender,
    mut requests: mpsc::Receiver<Box<dyn Job>>,
    stuck: &AtomicBool,
    done: &AtomicU64,
) {
    while let Some(first) = requests.blocking_recv() {
        let mut rows = first.rows();
        let mut jobs = vec![first];
        while jobs.len() < GROUP && rows < GROUP_ROWS {
            let Ok(job) = requests.try_recv() else { break };
            rows += job.rows();
            jobs.push(job);
        }
        let end = transact(&connection, &mut appender, &mut jobs);
        done.fetch_add(1, Ordering::Relaxed);
        if end.as_ref().is_err_and(|error| error.kind() == Kind::Unavailable) {
            stuck.store(true, Ordering::Relaxed);
        }
        match end {
            Ok(()) => jobs.into_iter().for_each(|job| job.answer(Ok(()))),
            Err(error) if jobs.len() == 1 => {
                if let Some(job) = jobs.pop() {
                    job.answer(Err(error));
                }
            }
            Err(_) => {
                for job in jobs {
                    let mut alone = [job];
                    let end = transact(&connection, &mut appender, &mut alone);
                    let [job] = alone;
                    job.answer(end);
                }
            }
        }
    }
    if let Err(error) = finish(connection) {
        tracing::warn!(%error, "closing the store: the write-ahead log stays for the next start");
    }
}

/// Runs `jobs` in one transaction: all of it is durable when this returns, or none of it happened.
fn transact(connection: &Connection, appender: &mut Appender, jobs: &mut [Box<dyn Job>]) -> Result<()> {
    let run = |appender: &mut Appender| -> Result<()> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut batch = Batch::new(connection, appender)?;
        for job in jobs {
            job.run(&mut batch)?;
        }
        batch.finish()?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    };
    let end = run(appender);
    match &end {
        Ok(()) => appender.publish(),
        Err(_) => {
            // Some failures have rolled back already.
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "a transaction of the store cannot be rolled back");
            }
            appender.forget();
        }
    }
    end
}

/// Moves the write-ahead log into the file, so that a copy of the file is a backup.
fn finish(connection: Connection) -> rusqlite::Result<()> {
    let noted = schema::end_use(&connection);
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    noted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Database, EventRow, Options};
    use super::*;
    use crate::model::{Event, EventTime, ObjectId};

    fn event() -> EventRow {
        let event = Event {
            id: ObjectId::new(),
            channel: "ch".to_owned(),
            source: "test".to_owned(),
            kind: "test".to_owned(),
            subject: None,
            time: EventTime::now(),
            owner: None,
            partitionkey: None,
            extensions: serde_json::Map::new(),
            data: json!(1),
        };
        EventRow::new(&event)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_that_fails_in_a_group_takes_nobody_along() {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(Database::open(dir.path(), Options::default()).unwrap());
        // The writer stands still until all of them wait, so that they share a transaction.
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let (waiting, stands) = oneshot::channel();
        let mut waiting = Some(waiting);
        let holder = db.clone();
        let held = tokio::spawn(async move {
            let stand_still = move |_: &mut Batch<'_>| {
                waiting.take().map(|waiting| waiting.send(()));
                gate.lock().unwrap().recv().unwrap();
                Ok(())
            };
            holder.writer.run(1, stand_still).await
        });
        stands.await.unwrap();
        let jobs: Vec<_> = (0..20)
            .map(|i| {
                let (db, event) = (db.clone(), event());
                tokio::spawn(async move {
                    let work = move |batch: &mut Batch<'_>| {
                        let seq = batch.append(&event)?;
                        match i % 5 {
                            3 => Err(Error::bad_request("broken")),
                            _ => Ok(seq),
                        }
                    };
                    db.writer.run(1, work).await
                })
            })
            .collect();
        while db.writer.queue.lock().unwrap().as_ref().unwrap().capacity() > QUEUE - 20 {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
        held.await.unwrap().unwrap();
        let mut places = Vec::new();
        for (i, job) in jobs.into_iter().enumerate() {
            match job.await.unwrap() {
                Ok(seq) => places.push(seq),
                Err(error) => assert_eq!((i % 5, error.status()), (3, 400)),
            }
        }
        places.sort_unstable();
        assert_eq!(places, (1..=16).collect::<Vec<_>>(), "dense");
        assert_eq!(db.channels.get("ch").unwrap().head(), 16);
        let stored = "SELECT count(*), max(n) & 0xffff, (SELECT head FROM channel) FROM event";
        let read = |connection: &Connection| {
            Ok(connection.query_row(stored, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
        };
        assert_eq!(db.quick.run(read).await.unwrap(), (16, 16, 16));
    }
}
