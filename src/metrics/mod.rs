//! What the server tells Prometheus about itself: [`ALL`] names and describes every metric.
//!
//! Counters and histograms are moved where things happen, in places that everything of a kind passes: [`timed`] for
//! operations, the outermost layer of HTTP, the calls of the store and of Redis. Gauges are computed when somebody
//! reads `/metrics` ([`scrape`]), so that they cost nothing in between. Nothing here is touched once per event.
//!
//! The figures are of this process; every line carries the label `instance` (setting `INSTANCE`), and Prometheus adds
//! those of several instances up.

pub(crate) mod process;
mod scrape;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::background;
use crate::error::Result;
pub use scrape::scrape;

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, in buckets.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The names of its labels besides `instance`.
    pub labels: &'static [&'static str],
    /// One sentence for `# HELP`.
    pub help: &'static str,
}

const fn metric(
    kind: Kind,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

macro_rules! table {
    ($($kind:ident $constant:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(#[doc = $help] pub const $constant: Metric = metric(Kind::$kind, $name, &[$($label),*], $help);)+
        /// Every metric.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

table! {
    // Names that KernelCI's own server exports (contract 7.3).
    Counter HTTP_REQUESTS "http_requests_total" [] "HTTP requests answered, whatever the answer.";
    Counter SUBSCRIPTIONS_CLEANED "subscriptions_cleaned" [] "Long-poll subscriptions dropped because nobody polled them.";
    Counter NODES_PURGED "nodes_purged" [] "Nodes removed because of their age.";

    Counter REQUESTS "kernelci_requests_total" ["operation", "transport", "status"]
        "Operations answered; transport is rest, rpc or ws, status as in HTTP.";
    Histogram REQUEST_SECONDS "kernelci_request_duration_seconds" ["operation", "transport"]
        "How long operations take. Those that wait for events take as long as they wait.";
    Histogram STORE_SECONDS "kernelci_store_duration_seconds" ["call"]
        "How long the store takes: mongodb for any call of MongoDB; read, search and write on SQLite, waiting included.";
    Histogram REDIS_SECONDS "kernelci_redis_duration_seconds" []
        "How long Redis takes to answer a command; waiting for new events is not counted.";
    Counter EVENTS_SENT "kernelci_events_sent_total" [] "Event frames handed to WebSocket sessions.";

    Gauge REQUESTS_RUNNING "kernelci_requests_running" [] "Operations that somebody waits for the answer of.";
    Gauge TASKS "kernelci_tasks" [] "Tasks of the runtime that have not ended.";
    Gauge CONNECTIONS "kernelci_connections" [] "Connections that are open, those of sessions included.";
    Counter SESSIONS_ENDED "kernelci_sessions_ended_total" ["code"]
        "WebSocket sessions that this server has ended, by the close code.";

    Gauge QUOTA_TAKEN "kernelci_quota_taken" ["pool"] "How much clients have of this instance, of each thing that is shared out.";
    Gauge QUOTA_LIMIT "kernelci_quota_limit" ["pool"] "How much of it there is.";
    Counter QUOTA_REFUSALS "kernelci_quota_refusals_total" ["quota"]
        "Requests that were refused because a user has as much as they may have of what stays (GET /user/limits).";

    Gauge SESSIONS "kernelci_sessions" [] "WebSocket sessions and feeds that are open.";
    Gauge SUBSCRIPTIONS "kernelci_subscriptions" ["channel"] "Subscriptions and feeds of this instance that follow the channel.";
    Gauge FOLLOWED_CHANNELS "kernelci_followed_channels" [] "Channels that this instance follows.";
    Gauge RING_BYTES "kernelci_ring_bytes" []
        "Memory of the newest events of all channels, with what readers have made of them; RING_MB is the most.";
    Gauge LOG_HEAD "kernelci_log_head" ["channel"] "Sequence number of the channel's newest event.";
    Gauge LOG_LENGTH "kernelci_log_length" ["channel"] "Events of the channel that can still be read.";
    Gauge READER_LAG_EVENTS "kernelci_reader_lag_events" ["channel"]
        "Events that the slowest reader of this instance has yet to look at.";
    Gauge READER_LAG_SECONDS "kernelci_reader_lag_seconds" ["channel"]
        "Age of the oldest event that the slowest reader of this instance has yet to look at; 0 when it has caught up.";
    Gauge CONSUMER_LAG_EVENTS "kernelci_consumer_lag_events" ["consumer", "channel"]
        "Events behind the place of the named consumer, wanted or not; the same on every instance.";
    Gauge CONSUMER_LAG_SECONDS "kernelci_consumer_lag_seconds" ["consumer", "channel"]
        "Age of the first event behind the place of the named consumer; 0 when it has caught up.";
    Gauge GROUP_OUTSTANDING "kernelci_group_outstanding" ["consumer"]
        "Events of the group that are in its members' hands or wait for one; the same on every instance.";
    Counter GROUP_REDELIVERIES "kernelci_group_redeliveries_total" [] "Events that were given to members of groups again.";
    Counter GROUP_DEAD_LETTERS "kernelci_group_dead_letters_total" []
        "Events that members of groups could not work on and that were put on a channel of dead letters.";
    Gauge QUEUE_LENGTH "kernelci_queue_length" ["queue"] "Items of the queue, those in somebody's hands included.";
    Gauge OUTBOX_EVENTS "kernelci_outbox_events" []
        "Committed events that are not in the log yet, over all instances; always 0 on the embedded store.";
    Gauge READY "kernelci_up" ["part"] "1 if this part (store, log) answers, else 0.";
    Gauge SCRAPE_SECONDS "kernelci_scrape_duration_seconds" [] "How long it took to compute the gauges last time.";
    Gauge BUILD_INFO "kernelci_build_info" ["version", "store"] "Always 1; the labels say what runs.";

    Gauge PROCESS_RSS "process_resident_memory_bytes" [] "Resident memory.";
    Gauge PROCESS_VIRTUAL "process_virtual_memory_bytes" [] "Virtual memory.";
    Counter PROCESS_CPU "process_cpu_seconds_total" [] "Processor time, user and system, in whole seconds.";
    Gauge PROCESS_FDS "process_open_fds" [] "Open file descriptors.";
    Gauge PROCESS_MAX_FDS "process_max_fds" [] "Most file descriptors that may be open.";
    Gauge PROCESS_THREADS "process_threads" [] "Threads.";
    Gauge PROCESS_START "process_start_time_seconds" [] "When the process began, in seconds since 1970.";
}

/// Upper bounds of the histograms' buckets, in seconds.
const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// A gauge that the last scrape did not compute (its channel is followed no more) is not shown.
const STALE: Duration = Duration::from_secs(10);
/// How often measured durations are sorted into their buckets, so that they do not pile up while nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

impl Metric {
    fn with(&self, values: &[&str]) -> Vec<::metrics::Label> {
        let pairs = self.labels.iter().zip(values);
        pairs.map(|(name, value)| ::metrics::Label::new(*name, (*value).to_owned())).collect()
    }
    /// The counter with these values of its labels.
    pub fn counter(&self, values: &[&str]) -> ::metrics::Counter {
        ::metrics::counter!(self.name, self.with(values))
    }
    /// Sets the gauge with these values of its labels.
    pub fn set(&self, values: &[&str], value: f64) {
        ::metrics::gauge!(self.name, self.with(values)).set(value);
    }
    /// The histogram with these values of its labels.
    pub fn histogram(&self, values: &[&str]) -> ::metrics::Histogram {
        ::metrics::histogram!(self.name, self.with(values))
    }
}

static EXPORTER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to count, once per process; before that, and in programs that do not serve, nothing is counted. `instance`
/// becomes a label of every line. Must be called inside a tokio runtime.
pub fn install(instance: &str) {
    EXPORTER.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        // Fails for an empty list only.
        let builder = builder.set_buckets(BUCKETS).unwrap_or_default();
        let builder = builder.idle_timeout(MetricKindMask::GAUGE, Some(STALE));
        let recorder = builder.add_global_label("instance", instance).build_recorder();
        let handle = recorder.handle();
        if ::metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder of metrics is installed already");
        }
        describe();
        let upkeep = handle.clone();
        background::spawn("metrics", async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                upkeep.run_upkeep();
            }
        });
        handle
    });
}

fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => ::metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => ::metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => ::metrics::describe_histogram!(metric.name, metric.help),
        }
        // Shown from the start, so that the first increase is seen as one.
        if metric.kind == Kind::Counter && metric.labels.is_empty() {
            metric.counter(&[]).increment(0);
        }
    }
}

/// Which way a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// A REST route.
    Rest,
    /// `POST /rpc`.
    Rpc,
    /// A WebSocket session.
    Ws,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Transport::Rest => "rest",
            Transport::Rpc => "rpc",
            Transport::Ws => "ws",
        }
    }
}

/// Runs a request and counts it under `operation`, which is a name of the table or one for all that are in none.
/// `success` is the status if it succeeds.
pub async fn timed<T>(
    transport: Transport,
    operation: &'static str,
    success: u16,
    request: impl Future<Output = Result<T>>,
) -> Result<T> {
    let began = Instant::now();
    let running = Running::begin();
    let result = request.await;
    drop(running);
    let status = result.as_ref().err().map_or(success, |error| error.status());
    let (requests, seconds) = counted(transport, operation, status);
    requests.increment(1);
    seconds.record(began.elapsed());
    result
}

static RUNNING: AtomicU64 = AtomicU64::new(0);

/// An operation that somebody waits for, until they have gone.
struct Running;

impl Running {
    fn begin() -> Running {
        RUNNING.fetch_add(1, Ordering::Relaxed);
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

type Moved = (::metrics::Counter, ::metrics::Histogram);

/// What a request of this kind moves; made once, since looking it up by its labels costs more than moving it.
fn counted(transport: Transport, operation: &'static str, status: u16) -> Moved {
    static KNOWN: RwLock<BTreeMap<(&str, Transport, u16), Moved>> = RwLock::new(BTreeMap::new());
    let key = (operation, transport, status);
    if let Some(known) = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return known.clone();
    }
    let requests = REQUESTS.counter(&[operation, transport.name(), &status.to_string()]);
    let moved = (requests, REQUEST_SECONDS.histogram(&[operation, transport.name()]));
    KNOWN.write().unwrap_or_else(PoisonError::into_inner).insert(key, moved.clone());
    moved
}
