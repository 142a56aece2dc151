//! Sessions that ask: one request at a time each, as many as go or when they are due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use tokio::sync::{Mutex, mpsc};

use super::adapter::{Adapter, KernelCi};
use super::board::{Faults, histogram};
use super::link::Link;
use super::mark::{Clock, Mark};

/// What is asked: the method and the text of its parameters.
pub(super) type Make = Arc<dyn Fn(Mark) -> (&'static str, String) + Send + Sync>;

/// When to ask.
#[derive(Clone)]
pub(super) enum When {
    /// The next one when the last one is answered, until then.
    Until(Instant),
    /// When it is due, whoever is free.
    Due(Arc<Mutex<mpsc::Receiver<Mark>>>),
}

/// What came of it.
pub(super) struct Asked {
    /// From when it should have been asked to the answer.
    pub(super) times: Histogram<u64>,
    /// Requests, all of them answered.
    pub(super) count: u64,
    pub(super) faults: Faults,
}

/// Sessions.
pub(super) struct Callers {
    links: Vec<Link>,
    clock: Clock,
    patience: Duration,
}

impl Callers {
    /// Connects so many.
    pub(super) async fn connect(
        server: &KernelCi,
        count: usize,
        clock: Clock,
        patience: Duration,
    ) -> Result<Callers> {
        let links = futures::stream::iter((0..count).map(|_| server.connect())).buffer_unordered(64);
        Ok(Callers { links: links.try_collect().await?, clock, patience })
    }

    /// Asks, all of them at the same time. Requests are numbered in the order in which they begin, from `numbers` on.
    pub(super) async fn run(
        self,
        when: When,
        numbers: Arc<std::sync::atomic::AtomicU64>,
        make: Make,
    ) -> Result<Asked> {
        let (clock, patience) = (self.clock, self.patience);
        let one = |link| {
            let caller = Caller { link, clock, patience, id: 0 };
            let (when, numbers, make) = (when.clone(), numbers.clone(), make.clone());
            tokio::spawn(async move { caller.run(when, &numbers, &make).await })
        };
        let running: Vec<_> = self.links.into_iter().map(one).collect();
        let mut all = Asked { times: histogram()?, count: 0, faults: Faults::default() };
        for one in running {
            let asked = one.await??;
            all.times.add(&asked.times)?;
            all.count += asked.count;
            all.faults.add(asked.faults);
        }
        Ok(all)
    }
}

struct Caller {
    link: Link,
    clock: Clock,
    patience: Duration,
    id: u64,
}

impl Caller {
    async fn run(mut self, when: When, numbers: &std::sync::atomic::AtomicU64, make: &Make) -> Result<Asked> {
        let mut asked = Asked { times: histogram()?, count: 0, faults: Faults::default() };
        loop {
            let mark = match &when {
                When::Until(end) if Instant::now() >= *end => break,
                When::Until(_) => {
                    let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Mark { number, at: self.clock.now() }
                }
                When::Due(due) => match due.lock().await.recv().await {
                    Some(mark) => mark,
                    None => break,
                },
            };
            let (method, params) = make(mark);
            let answer = tokio::time::timeout(self.patience, self.ask(method, &params)).await;
            if let Some(refusal) = answer.with_context(|| format!("{method} is not answered"))?? {
                asked.faults.refused += 1;
                asked.faults.say(|| format!("{method} is refused: {refusal}"));
            }
            asked.count += 1;
            asked.times.saturating_record(self.clock.now().saturating_sub(mark.at));
        }
        self.link.close().await?;
        Ok(asked)
    }

    /// Some: it was refused.
    async fn ask(&mut self, method: &str, params: &str) -> Result<Option<String>> {
        self.id += 1;
        let id = self.id;
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}");
        self.link.send(text.as_bytes()).await?;
        let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},");
        loop {
            let answer = self
                .link
                .next(|bytes| {
                    let answer = bytes.strip_prefix(head.as_bytes()).map(|rest| match rest {
                        [b'"', b'r', b'e', b's', ..] => None,
                        other => Some(String::from_utf8_lossy(other).into_owned()),
                    });
                    Ok((bytes.len(), answer))
                })
                .await?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }
}
