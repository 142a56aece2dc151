//! Publishes events at a pace.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::mpsc;

use super::adapter::{Adapter, Seen};
use super::link::Link;
use super::mark::{Clock, Mark, payload};
use super::receivers::Shared;

/// Ticks that may wait for a publisher.
const TICKS: usize = 4096;
/// Events that are put together before they are sent.
const TOGETHER: usize = 64;

/// When events are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// The next one when everybody has the last one.
    OneByOne { events: u64 },
    /// So many a second, whatever becomes of them: what comes late counts as late.
    Rate { per_second: f64, events: u64 },
    /// As many as go, while everybody has all but the last `window`.
    FlatOut { lasting: Duration, window: u64 },
}

/// What publishers share.
#[derive(Clone)]
pub(super) struct Publishing {
    pub(super) adapter: Arc<dyn Adapter>,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    /// Bytes of an event's payload.
    pub(super) size: usize,
    pub(super) lanes: u64,
    /// The number of the first event.
    pub(super) first: u64,
    /// How long without any progress before it is given up.
    pub(super) patience: Duration,
}

impl Publishing {
    /// Publishes over so many connections; tells the number behind the last event.
    pub(super) async fn run(&self, pace: Pace, connections: usize) -> Result<u64> {
        // Without a server that numbers events the publisher does, and there can be only one.
        let connections = if self.adapter.numbers_events() { connections.max(1) } else { 1 };
        match pace {
            Pace::OneByOne { events } => {
                let mut publisher = Publisher::connect(self).await?;
                for number in self.first..self.first + events {
                    publisher.put(Mark { number, at: self.clock.now() });
                    publisher.flush().await?;
                    if !publisher.wait(number + 1).await? {
                        return Ok(number + 1);
                    }
                }
                publisher.settle().await?;
                Ok(self.first + events)
            }
            Pace::Rate { per_second, events } => {
                let mut publisher = Publisher::connect(self).await?;
                let mut due = ticks(self.clock, per_second, self.first..self.first + events);
                while let Some(mark) = publisher.next_due(&mut due).await? {
                    publisher.put(mark);
                    while publisher.unsent < TOGETHER && publisher.has_room() {
                        let Ok(mark) = due.try_recv() else { break };
                        publisher.put(mark);
                    }
                    publisher.flush().await?;
                }
                publisher.settle().await?;
                Ok(self.first + events)
            }
            Pace::FlatOut { lasting, window } => {
                let next = Arc::new(AtomicU64::new(self.first));
                let mut publishers = Vec::new();
                for _ in 0..connections {
                    publishers.push(Publisher::connect(self).await?);
                }
                let end = Instant::now() + lasting;
                let run = |publisher: Publisher| {
                    let next = next.clone();
                    tokio::spawn(async move { publisher.flat_out(&next, window, end).await })
                };
                let running: Vec<_> = publishers.into_iter().map(run).collect();
                for one in running {
                    one.await??;
                }
                Ok(next.load(Ordering::Acquire))
            }
        }
    }
}

/// When events are due, from a thread that sleeps more exactly than a timer of the runtime.
pub(super) fn ticks(clock: Clock, per_second: f64, numbers: Range<u64>) -> mpsc::Receiver<Mark> {
    let (due, ticks) = mpsc::channel(TICKS);
    let begin = clock.now();
    tokio::task::spawn_blocking(move || {
        for (count, number) in numbers.enumerate() {
            let at = begin + (count as f64 * 1e6 / per_second) as u64;
            std::thread::sleep(clock.instant(at).saturating_duration_since(Instant::now()));
            if due.blocking_send(Mark { number, at }).is_err() {
                return;
            }
        }
    });
    ticks
}

struct Publisher {
    shared: Publishing,
    link: Link,
    unanswered: usize,
    /// Put since the last flush.
    unsent: usize,
}

impl Publisher {
    async fn connect(shared: &Publishing) -> Result<Publisher> {
        let link = shared.adapter.publisher().await?;
        Ok(Publisher { shared: shared.clone(), link, unanswered: 0, unsent: 0 })
    }

    fn put(&mut self, mark: Mark) {
        let text = payload(mark, self.shared.size, self.shared.lanes);
        self.link.put(self.shared.adapter.publish(mark.number, &text).as_bytes());
        self.unsent += 1;
        if self.shared.adapter.unanswered().is_some() {
            self.unanswered += 1;
        }
    }

    async fn flush(&mut self) -> Result<()> {
        self.unsent = 0;
        self.link.flush().await
    }

    fn has_room(&self) -> bool {
        self.shared.adapter.unanswered().is_none_or(|most| self.unanswered < most)
    }

    /// Waits for an answer, or for a question of the server.
    async fn listen(&mut self) -> Result<()> {
        let Publisher { shared, link, unanswered, .. } = self;
        let question = link.next(|bytes| look(&*shared.adapter, bytes, unanswered)).await?;
        if let Some(question) = question {
            self.link.send(question).await?;
        }
        Ok(())
    }

    /// The next event that is due, when there is room for it.
    async fn next_due(&mut self, due: &mut mpsc::Receiver<Mark>) -> Result<Option<Mark>> {
        while !self.has_room() {
            self.listen().await?;
        }
        loop {
            tokio::select! {
                mark = due.recv() => return Ok(mark),
                heard = self.listen() => heard?,
            }
        }
    }

    /// Waits until everybody has `events`. False if nothing moves any more.
    async fn wait(&mut self, events: u64) -> Result<bool> {
        let shared = self.shared.shared.clone();
        let all = shared.all_have(events, self.shared.patience);
        let mut all = std::pin::pin!(all);
        loop {
            tokio::select! {
                reached = &mut all => return Ok(reached),
                heard = self.listen() => heard?,
            }
        }
    }

    async fn settle(&mut self) -> Result<()> {
        while self.unanswered > 0 {
            match tokio::time::timeout(self.shared.patience, self.listen()).await {
                Ok(heard) => heard?,
                Err(_) => bail!("{} events were not answered", self.unanswered),
            }
        }
        Ok(())
    }

    async fn flat_out(mut self, next: &AtomicU64, window: u64, end: Instant) -> Result<()> {
        let mut complete = self.shared.shared.complete();
        let begin = Instant::now();
        while Instant::now() < end {
            let done = *complete.borrow_and_update();
            while self.has_room() && self.unsent < TOGETHER && next.load(Ordering::Relaxed) < done + window {
                let number = next.fetch_add(1, Ordering::AcqRel);
                self.put(Mark { number, at: self.shared.clock.now() });
            }
            if self.unsent > 0 {
                self.flush().await?;
                continue;
            }
            let limit = begin.elapsed() + self.shared.patience;
            tokio::select! {
                changed = complete.changed() => changed?,
                heard = self.listen() => heard?,
                () = tokio::time::sleep(limit.saturating_sub(begin.elapsed())) => break,
            }
        }
        self.settle().await
    }
}

/// Counts answers in what came in; a question of the server's is to be answered.
fn look(
    adapter: &dyn Adapter,
    bytes: &[u8],
    unanswered: &mut usize,
) -> Result<(usize, Option<&'static [u8]>)> {
    let (mut question, mut trouble) = (None, None);
    let used = adapter.read(bytes, &mut 0, &mut |seen| match seen {
        Seen::Taken => *unanswered = unanswered.saturating_sub(1),
        Seen::Ask(text) => question = Some(text),
        Seen::Trouble(text) => trouble = Some(String::from_utf8_lossy(text).into_owned()),
        Seen::Event { .. } | Seen::Other => {}
    })?;
    match trouble {
        Some(trouble) => bail!("the server refuses an event: {trouble}"),
        None => Ok((used, question)),
    }
}
