//! What `GET /metrics` answers: the counters as they stand, and the gauges computed now.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::Mutex;

use super::{
    BUILD_INFO, CONNECTIONS, CONSUMER_LAG_EVENTS, CONSUMER_LAG_SECONDS, EXPORTER, FOLLOWED_CHANNELS,
    GROUP_OUTSTANDING, LOG_HEAD, LOG_LENGTH, OUTBOX_EVENTS, QUEUE_LENGTH, QUOTA_LIMIT, QUOTA_TAKEN,
    READER_LAG_EVENTS, READER_LAG_SECONDS, READY, REQUESTS_RUNNING, RING_BYTES, RUNNING, SCRAPE_SECONDS,
    SESSIONS, SUBSCRIPTIONS, TASKS, process,
};
use crate::app::App;
use crate::error::Result;
use crate::hub::Channel;
use crate::model::{NODE_CHANNEL, Timestamp};
use crate::ops::{consumers, stats};

/// Gauges are not computed more often than this, however many ask.
const AT_MOST_EVERY: Duration = Duration::from_millis(500);
/// The longest that computing all of them may take; what is not known by then is left out.
const BUDGET: Duration = Duration::from_secs(3);
/// Channels that have lines of their own: those with the most readers. Names of channels are the clients' choice.
const MOST_CHANNELS: usize = 32;
/// Consumers that are looked at; those with a name, [`MOST_CHANNELS`] at most, have lines of their own.
const MOST_CONSUMERS: usize = 512;
/// Queries about channels at the same time.
const AT_ONCE: usize = 4;

/// When the gauges were computed last; locked while they are.
static LAST: Mutex<Option<Instant>> = Mutex::const_new(None);

/// All metrics in Prometheus' text format.
pub async fn scrape(app: &Arc<App>) -> String {
    let mut last = LAST.lock().await;
    if last.is_none_or(|last| last.elapsed() > AT_MOST_EVERY) {
        let began = Instant::now();
        collect(app).await;
        SCRAPE_SECONDS.set(&[], began.elapsed().as_secs_f64());
        *last = Some(Instant::now());
    }
    drop(last);
    EXPORTER.get().map(|exporter| exporter.render()).unwrap_or_default()
}

async fn collect(app: &Arc<App>) {
    BUILD_INFO.set(&[env!("CARGO_PKG_VERSION"), app.store.facts().kind], 1.0);
    SESSIONS.set(&[], app.sessions.len() as f64);
    TASKS.set(&[], tokio::runtime::Handle::current().metrics().num_alive_tasks() as f64);
    CONNECTIONS.set(&[], app.quotas.connections.taken() as f64);
    for (name, pool) in app.pools() {
        QUOTA_TAKEN.set(&[name], pool.taken() as f64);
        QUOTA_LIMIT.set(&[name], pool.limits().server as f64);
    }
    REQUESTS_RUNNING.set(&[], RUNNING.load(Ordering::Relaxed) as f64);
    FOLLOWED_CHANNELS.set(&[], app.hub.channels().len() as f64);
    RING_BYTES.set(&[], app.hub.ring_bytes() as f64);
    let queries = async {
        let (looks, pending, (), _, _, _) = tokio::join!(
            in_time(app.health.last()),
            in_time(app.log.pending()),
            channels(app),
            in_time(named_consumers(app)),
            in_time(queues(app)),
            tokio::task::spawn_blocking(process::collect),
        );
        if let Some(Ok(looks)) = looks {
            let up = |is_up: bool| f64::from(u8::from(is_up));
            READY.set(&["store"], up(looks.store.is_ok() && looks.writes.is_ok()));
            READY.set(&["log"], up(looks.log.is_ok()));
        }
        if let Some(Ok(pending)) = pending {
            OUTBOX_EVENTS.set(&[], pending as f64);
        }
    };
    queries.await;
}

/// Waits for an answer within the budget.
async fn in_time<T>(answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(BUDGET, answer).await.ok()
}

async fn channels(app: &Arc<App>) {
    let mut all = app.hub.channels();
    all.sort_by_cached_key(|channel| (channel.name != NODE_CHANNEL, std::cmp::Reverse(channel.readers())));
    all.truncate(MOST_CHANNELS);
    let figures = async {
        futures::stream::iter(&all)
            .for_each_concurrent(AT_ONCE, |channel| channel_figures(app, channel))
            .await;
        if all.iter().all(|channel| channel.name != NODE_CHANNEL) {
            length(app, NODE_CHANNEL).await;
        }
    };
    in_time(figures).await;
}

/// How far named consumers are behind, in the order of their making.
async fn named_consumers(app: &App) -> Result<()> {
    let mut named = app.store.consumers(None, MOST_CONSUMERS).await?;
    named.retain(|consumer| consumer.name.is_some());
    named.truncate(MOST_CHANNELS);
    let lags = stats::lags(app, &named).await?;
    for (consumer, lag) in named.iter().zip(lags) {
        let name = consumer.name.as_deref().unwrap_or_default();
        CONSUMER_LAG_EVENTS.set(&[name, &consumer.channel], lag.events as f64);
        CONSUMER_LAG_SECONDS.set(&[name, &consumer.channel], lag.seconds);
        if let Some((_, group)) = consumers::group(app, consumer).await? {
            GROUP_OUTSTANDING.set(&[name], group.items().len() as f64);
        }
    }
    Ok(())
}

/// How long the longest queues are.
async fn queues(app: &App) -> Result<()> {
    let mut all = app.store.queues().await?;
    all.sort_by_key(|queue| std::cmp::Reverse(queue.items));
    for queue in all.iter().take(MOST_CHANNELS) {
        QUEUE_LENGTH.set(&[&queue.list], queue.items as f64);
    }
    Ok(())
}

async fn channel_figures(app: &App, channel: &Channel) {
    let name = &*channel.name;
    SUBSCRIPTIONS.set(&[name], channel.readers() as f64);
    let (head, slowest) = (channel.head(), channel.slowest());
    let lag = slowest.map_or(0, |seq| head.saturating_sub(seq));
    READER_LAG_EVENTS.set(&[name], lag as f64);
    let age = match slowest.filter(|_| lag > 0) {
        None => Some(0.0),
        Some(seq) => age_of_next(channel, seq).await,
    };
    if let Some(seconds) = age {
        READER_LAG_SECONDS.set(&[name], seconds);
    }
    length(app, name).await;
}

async fn length(app: &App, channel: &str) {
    let (Ok(head), Ok(floor)) = tokio::join!(app.log.head(channel), app.log.floor(channel)) else { return };
    LOG_HEAD.set(&[channel], head.seq as f64);
    LOG_LENGTH.set(&[channel], (head.seq + 1).saturating_sub(floor) as f64);
}

/// How long ago the first event behind `seq` happened.
async fn age_of_next(channel: &Channel, seq: u64) -> Option<f64> {
    let read = channel.read(seq, 1).await.ok()?;
    let time = Timestamp::parse_iso(read.entries.first()?.value().get("time")?.as_str()?).ok()?;
    Some((Timestamp::now().millis() - time.millis()).max(0) as f64 / 1000.0)
}
