//! Following a channel with `XREAD BLOCK` on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;

use super::super::{Read, Tail};
use super::Inner;
use super::stream::Item;
use crate::error::Result;
use crate::model::event::Entry;

/// How long a tail rests before it tells of a failure, so that its caller cannot spin.
const REST: Duration = Duration::from_millis(250);

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
}

impl RedisTail {
    pub(crate) fn new(log: Arc<Inner>, channel: &str, seq: u64) -> RedisTail {
        RedisTail { log, channel: channel.to_owned(), seq, live: false, connection: None }
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
        let known = self.log.channels.known(&self.channel).await?;
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
            let agrees = state.is_some_and(|state| known.agrees(&state, floor));
            return Ok(agrees.then(|| Read { epoch: known.epoch.clone(), gap: None, entries: Vec::new() }));
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
