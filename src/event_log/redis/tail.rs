//! Following a channel with `XREAD BLOCK` on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::super::{Read, Tail};
use super::Inner;
use super::known::Known;
use super::stream::Item;
use crate::error::Result;
use crate::model::event::Entry;

/// How long a tail rests before it tells of a failure, so that its caller cannot spin.
const REST: Duration = Duration::from_millis(250);

/// How long a tail believes that a channel has not begun while Redis does not know of one. (It would be wrong if Redis
/// has just forgotten it.)
const UNBORN: Duration = Duration::from_secs(15);

/// One reader's way along a channel.
pub(crate) struct RedisTail {
    log: Arc<Inner>,
    channel: String,
    /// Everything up to here has been handed out.
    seq: u64,
    /// Whether the stream certainly has what follows.
    live: bool,
    /// Taken out while it waits: a `next` that was dropped must not leave an answer behind for the following one.
    connection: Option<MultiplexedConnection>,
    /// A channel that has not begun, which MongoDB need not be asked again and again about, and since when.
    unborn: Option<(Arc<Known>, Instant)>,
}

impl RedisTail {
    pub(crate) fn new(log: Arc<Inner>, channel: &str, seq: u64) -> RedisTail {
        RedisTail { log, channel: channel.to_owned(), seq, live: false, connection: None, unborn: None }
    }

    async fn read(&mut self, limit: usize) -> Result<Read> {
        if self.live {
            if let Some(read) = self.wait(limit).await? {
                return Ok(read);
            }
            self.live = false;
        }
        let read = self.log.read_after(&self.channel, self.seq, limit).await?;
        if read.entries.is_empty() && read.gap.is_none() {
            self.live = true;
            if let Some(read) = self.wait(limit).await? {
                return Ok(read);
            }
            self.live = false;
        }
        Ok(read)
    }

    /// Waits for what follows. `None`: the stream does not have it, or is not what it was; look closer.
    async fn wait(&mut self, limit: usize) -> Result<Option<Read>> {
        let unborn = self.unborn.take().filter(|(_, since)| since.elapsed() < UNBORN);
        let (known, since) = match unborn {
            Some(unborn) => unborn,
            None => (self.log.channels.known(&self.channel).await?, Instant::now()),
        };
        let redis = &self.log.channels.redis;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => redis.connect().await?,
        };
        let floor = known.high().max(self.seq);
        let items = redis.wait_after(&mut connection, &self.channel, self.seq, limit).await?;
        if items.is_empty() {
            let state = redis.state_on(&mut connection, &self.channel).await?;
            self.connection = Some(connection);
            // An event may just have come; the next call reads it.
            if !self.log.channels.agrees(&known, state.as_ref(), floor) {
                return Ok(None);
            }
            let epoch = known.epoch.clone();
            self.unborn = (!known.has_begun()).then_some((known, since));
            return Ok(Some(Read { epoch, gap: None, entries: Vec::new() }));
        }
        self.connection = Some(connection);
        let follows = |(item, seq): (&Item, u64)| item.seq == seq && item.epoch == *known.epoch;
        if !items.iter().zip(self.seq + 1..).all(follows) {
            return Ok(None);
        }
        let entries: Vec<_> = items.iter().map(|item| Arc::new(Entry::new(item.seq, &item.json))).collect();
        if let Some(last) = entries.last() {
            known.saw(last.seq);
        }
        Ok(Some(Read { epoch: known.epoch.clone(), gap: None, entries }))
    }
}

#[async_trait]
impl Tail for RedisTail {
    async fn next(&mut self, limit: usize) -> Result<Read> {
        match self.read(limit.max(1)).await {
            Ok(read) => {
                // Nothing is awaited between here and the caller: what was read is handed out, or read again.
                if let Some((_, to)) = read.gap {
                    self.seq = self.seq.max(to);
                }
                if let Some(last) = read.entries.last() {
                    self.seq = last.seq;
                }
                Ok(read)
            }
            Err(error) => {
                self.connection = None;
                tokio::time::sleep(REST).await;
                Err(error)
            }
        }
    }
}
