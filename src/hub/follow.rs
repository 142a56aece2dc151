//! One filtered reader as a stream, for the feeds (CloudEvents over WebSocket, SSE).

use std::sync::Arc;

use futures::Stream;

use super::{Hub, SharedFilter};
use crate::error::Result;
use crate::filter::Filter;
use crate::model::event::Entry;
use crate::quota::Holder;
use crate::sync::Bell;

const BATCH: usize = 256;
/// Bytes of events that are looked at before others get their turn.
const LOOK: usize = 1 << 20;

/// What a reader gets.
#[derive(Debug)]
pub enum Item {
    /// An event that matches, and the epoch that it counts in.
    Event(Arc<str>, Arc<Entry>),
    /// These sequence numbers are no longer retained.
    Gap(u64, u64),
}

/// For `holder`, the events of a channel after `seq` that match, then the new ones as they come. Ends with the first error.
pub async fn follow(
    hub: &Arc<Hub>,
    channel: &str,
    holder: Holder,
    seq: u64,
    filter: Filter,
) -> Result<impl Stream<Item = Result<Item>> + Send + use<>> {
    let wake = Arc::new(Bell::default());
    let follower = hub.follow(channel, holder, wake.clone()).await?;
    struct State {
        follower: super::Follower,
        wake: Arc<Bell>,
        filter: Arc<SharedFilter>,
        seq: u64,
        ready: std::vec::IntoIter<Item>,
    }
    follower.saw(seq);
    let filter = SharedFilter::new(filter);
    let state = State { follower, wake, filter, seq, ready: Vec::new().into_iter() };
    Ok(futures::stream::try_unfold(state, |mut state| async move {
        loop {
            if let Some(item) = state.ready.next() {
                return Ok(Some((item, state)));
            }
            let read = state.follower.channel.read(state.seq, BATCH).await?;
            if read.gap.is_none() && read.entries.is_empty() {
                state.wake.rung().await;
                continue;
            }
            let mut items = Vec::new();
            if let Some((from, to)) = read.gap {
                items.push(Item::Gap(from, to));
                state.seq = state.seq.max(to);
            }
            let mut looked = 0;
            for entry in read.entries {
                if looked > LOOK {
                    break;
                }
                looked += state.filter.work(entry.json.len());
                state.seq = entry.seq;
                if state.filter.matches(&entry) {
                    items.push(Item::Event(read.epoch.clone(), entry));
                }
            }
            state.follower.saw(state.seq);
            state.ready = items.into_iter();
            if looked > LOOK {
                tokio::task::yield_now().await;
            }
        }
    }))
}
