//! What Redis holds of a channel, and the few commands that touch it.
//!
//! `<prefix>{<channel>}:state` is a hash `epoch, generation, head, given, base, seed` ([`State`]); `…:stream` a stream
//! whose ids are `<seq>-0` and whose entries are `e` (epoch), `j` (CloudEvent as it was made) and `t` (the time that the
//! event got, in microseconds since 1970); `…:pending` another one, with what has a number and is not in the history yet
//! (and `i`, the event's id); `…:seen:<event id>` remembers for an hour which number an event got. The channel is the hash
//! tag, so that a cluster keeps all of it on one shard; only the clock of all channels (`clock.rs`) would be on another.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{AsyncConnectionConfig, RedisResult, Script};
use tokio::sync::watch;

use super::clock::Clock;
use super::connection::{Connection, RESPONSE, connect, in_time, wait};
use super::outbox::Pending;
use crate::error::{Error, Result};
use crate::event_log::READ_BYTES;
use crate::model::event::stamp;
use crate::model::timestamp::WallClock;
use crate::model::{EventTime, NODE_CHANNEL, ObjectId, Timestamp};

/// About how many events stay in the stream; older ones are read from the history.
const STREAM_LENGTH: usize = 100_000;
/// How long an appended event is recognised without asking the history.
const SEEN_SECONDS: usize = 3600;
/// See [`Redis::land`].
const LAND: &str = "if redis.call('XLEN', KEYS[1]) == 0 then redis.call('ZREM', KEYS[2], ARGV[1]) end";
/// Channels with events on their way that are looked at.
const MOST_IN_FLIGHT: usize = 1000;
/// How long it is kept in Redis that somebody has looked whether it takes writes.
const HEALTH_MS: u32 = 10_000;
/// How long `XREAD` waits on the server; less than any answer may take.
const BLOCK: Duration = Duration::from_secs(1);

/// The connection for everything but tails, and the names of the keys.
#[derive(Clone)]
pub(crate) struct Redis {
    client: redis::Client,
    manager: Connection,
    prefix: Arc<str>,
    look: Arc<Script>,
    append: Arc<Script>,
    confirm: Arc<Script>,
    seed: Arc<Script>,
    end: Arc<Script>,
    pub(super) clock: Arc<Clock>,
    /// Whether the last command failed.
    failing: Arc<watch::Sender<bool>>,
}

/// A channel as Redis has it.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) epoch: String,
    pub(crate) generation: u64,
    /// The number of the newest event that readers see.
    pub(crate) head: u64,
    /// The number that was given last: those above `head` are on their way into the history.
    pub(crate) given: u64,
    /// The epoch's events have higher numbers than this.
    pub(crate) base: u64,
    /// The generation's events have higher numbers than this.
    seed: u64,
    /// The number of the newest event that the stream ever had.
    last: Option<u64>,
    /// The number of the newest event that was ever on its way into the history.
    last_pending: Option<u64>,
}

impl State {
    /// Whether both streams end where the state says.
    pub(crate) fn is_whole(&self) -> bool {
        let ends_at =
            |last: Option<u64>, number| last == Some(number) || (last.is_none() && number == self.seed);
        ends_at(self.last, self.head) && ends_at(self.last_pending, self.given)
    }

    /// One in which everything up to `head` is shown.
    #[cfg(test)]
    pub(super) fn at(epoch: &str, generation: u64, head: u64) -> State {
        let (last, last_pending) = (Some(head), Some(head));
        State { epoch: epoch.into(), generation, head, given: head, base: 0, seed: 0, last, last_pending }
    }

    /// The same with numbers that are not shown, up to this one.
    #[cfg(test)]
    pub(super) fn with_pending(self, last: u64) -> State {
        State { given: last, last_pending: Some(last), ..self }
    }
}

/// An event with its number.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) seq: u64,
    pub(crate) epoch: String,
    /// The CloudEvent with the time at which it came into the log, without `sequence`.
    pub(crate) json: String,
}

/// What [`Redis::glance`] tells of a channel: generation, head and the number given last if there is such a channel, and
/// the oldest event in the stream.
pub(crate) type Glance = (Option<(u64, u64, u64)>, Option<Item>);

/// What [`Redis::append`] answers.
#[derive(Debug)]
pub(crate) struct Given {
    /// The number of the newest event that readers see.
    pub(crate) head: u64,
    /// The number and the time of the first new one.
    first: (u64, EventTime),
    /// The number of each event.
    pub(crate) numbers: Vec<u64>,
    /// Those of them that were given before.
    pub(crate) known: Vec<u64>,
}

impl Given {
    /// The time of a new one: each is a microsecond later than the one before.
    pub(crate) fn time_of(&self, number: u64) -> EventTime {
        let (first, time) = self.first;
        EventTime::from_micros(time.micros() + number.saturating_sub(first) as i64)
    }
}

impl Item {
    /// The event's id.
    pub(crate) fn id(&self) -> Option<ObjectId> {
        #[derive(serde::Deserialize)]
        struct Id<'a> {
            #[serde(borrow)]
            id: std::borrow::Cow<'a, str>,
        }
        serde_json::from_str::<Id<'_>>(&self.json).ok()?.id.parse().ok()
    }
    /// When the event came into the log.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        #[derive(serde::Deserialize)]
        struct Time<'a> {
            #[serde(borrow)]
            time: std::borrow::Cow<'a, str>,
        }
        let event: Time<'_> = serde_json::from_str(&self.json).ok()?;
        Timestamp::parse_iso(&event.time).ok()
    }
}

impl Redis {
    /// Connects at the first command, and again whenever it must.
    pub(crate) fn new(url: &str, db: Option<i64>, prefix: &str, wall: WallClock) -> Result<Redis> {
        let (client, manager) = connect(url, db)?;
        Ok(Redis {
            client,
            manager,
            prefix: prefix.into(),
            look: Arc::new(Script::new(include_str!("look.lua"))),
            append: Arc::new(Script::new(include_str!("append.lua"))),
            confirm: Arc::new(Script::new(include_str!("confirm.lua"))),
            seed: Arc::new(Script::new(include_str!("seed.lua"))),
            end: Arc::new(Script::new(include_str!("end.lua"))),
            clock: Clock::new(prefix, wall),
            failing: Arc::default(),
        })
    }

    pub(super) fn connection(&self) -> Connection {
        self.manager.clone()
    }

    /// All keys of a channel are in one slot of a cluster: the channel's name stands in braces, and has none itself.
    fn key(&self, channel: &str, what: &str) -> String {
        let channel = match channel.contains(['{', '}', '%']) {
            true => Cow::Owned(channel.replace('%', "%25").replace('{', "%7B").replace('}', "%7D")),
            false => Cow::Borrowed(channel),
        };
        format!("{}{{{channel}}}:{what}", self.prefix)
    }

    /// Fails if Redis cannot be reached, or refuses writes: it has no memory left, is somebody's replica now, or cannot
    /// write to its disk. Asked of where the nodes' channel is.
    pub(crate) async fn takes_writes(&self) -> Result<()> {
        let mut connection = self.manager.clone();
        let mut set = redis::cmd("SET");
        set.arg(self.key(NODE_CHANNEL, "health")).arg(1).arg("PX").arg(HEALTH_MS);
        self.wait(set.query_async::<()>(&mut connection)).await
    }

    /// The channel's state; `None` if Redis does not know the channel.
    pub(crate) async fn state(&self, channel: &str) -> Result<Option<State>> {
        Ok(self.look_on(&mut self.manager.clone(), channel, 0, 0).await?.0)
    }

    /// The state and, at the same moment, up to `limit` events of the stream after `seq`, fewer if they are large.
    pub(crate) async fn look(
        &self,
        channel: &str,
        seq: u64,
        limit: usize,
    ) -> Result<(Option<State>, Vec<Item>)> {
        self.look_on(&mut self.manager.clone(), channel, seq, limit).await
    }

    async fn look_on<C: ConnectionLike>(
        &self,
        connection: &mut C,
        channel: &str,
        seq: u64,
        limit: usize,
    ) -> Result<(Option<State>, Vec<Item>)> {
        let mut script = self.look.prepare_invoke();
        script.key(self.key(channel, "state")).key(self.key(channel, "stream"));
        script.key(self.key(channel, "pending"));
        script.arg(format!("{}-0", seq.saturating_add(1))).arg(limit).arg(READ_BYTES);
        type Answer = (Vec<Option<String>>, Option<String>, Option<String>, StreamRangeReply);
        let (state, last, last_pending, items): Answer = self.wait(script.invoke_async(connection)).await?;
        let state = read_state(&state, [last, last_pending].map(|id| id.as_deref().and_then(seq_of)));
        Ok((state, items.ids.iter().filter_map(item).collect()))
    }

    /// Events `from` to `to` that the stream still has, at most `limit`.
    pub(crate) async fn range(&self, channel: &str, from: u64, to: u64, limit: usize) -> Result<Vec<Item>> {
        self.range_of(&self.key(channel, "stream"), from, to, limit).await
    }

    /// Events `from` to `to` that have numbers and are not shown yet, at most `limit`.
    pub(crate) async fn pending(&self, channel: &str, from: u64, to: u64, limit: usize) -> Result<Vec<Item>> {
        self.range_of(&self.key(channel, "pending"), from, to, limit).await
    }

    async fn range_of(&self, key: &str, from: u64, to: u64, limit: usize) -> Result<Vec<Item>> {
        let mut connection = self.manager.clone();
        let mut command = redis::cmd("XRANGE");
        command.arg(key).arg(format!("{from}-0")).arg(format!("{to}-0"));
        let reply: StreamRangeReply =
            self.wait(command.arg("COUNT").arg(limit).query_async(&mut connection)).await?;
        Ok(reply.ids.iter().filter_map(item).collect())
    }

    /// The number of the oldest event in the stream.
    pub(crate) async fn first(&self, channel: &str) -> Result<Option<u64>> {
        Ok(self.range(channel, 0, u64::MAX, 1).await?.first().map(|item| item.seq))
    }

    /// Gives events of one channel their numbers, each once. `None`: the channel is not in this generation or its head
    /// is below `floor`, and nothing was written.
    pub(crate) async fn append(
        &self,
        channel: &str,
        generation: u64,
        floor: u64,
        events: &[&Pending],
    ) -> Result<Option<Given>> {
        let mut script = self.append.prepare_invoke();
        script.key(self.key(channel, "state")).key(self.key(channel, "stream"));
        script.key(self.key(channel, "pending")).key(&self.clock.keys);
        script.arg(generation).arg(floor).arg(SEEN_SECONDS).arg(&self.clock.args()).arg(channel);
        for event in events {
            script.key(self.key(channel, &format!("seen:{}", event.id)));
            script.arg(event.id.to_hex()).arg(&event.json);
        }
        let mut connection = self.manager.clone();
        let answer: redis::Value = self.wait(script.invoke_async(&mut connection)).await?;
        let redis::Value::Array(answer) = answer else {
            return Err(Error::internal(anyhow::anyhow!("append.lua answered no list")));
        };
        let mut answer = answer.into_iter();
        match answer.next().map(redis::from_redis_value::<String>) {
            Some(Ok(word)) if word == "ok" => {
                let answered: Vec<i64> =
                    answer.map(redis::from_redis_value).collect::<Result<_, _>>().map_err(Error::internal)?;
                let ([head, time, numbers @ ..], true) =
                    (answered.as_slice(), answered.len() == events.len() + 2)
                else {
                    let count = answered.len();
                    return Err(Error::internal(anyhow::anyhow!("append.lua answered {count} numbers")));
                };
                let known = numbers.iter().filter(|number| **number < 0);
                let first = numbers.iter().filter(|number| **number > 0).min().copied().unwrap_or(0);
                let given = Given {
                    head: head.unsigned_abs(),
                    first: (first.unsigned_abs(), EventTime::from_micros(*time)),
                    numbers: numbers.iter().map(|number| number.unsigned_abs()).collect(),
                    known: known.map(|number| number.unsigned_abs()).collect(),
                };
                let last = numbers.iter().max().copied().unwrap_or(0).unsigned_abs();
                self.clock.saw(given.time_of(last));
                Ok(Some(given))
            }
            _ => Ok(None),
        }
    }

    /// The channels that have events on their way into the history (some, those with the oldest first), and since when.
    pub(crate) async fn in_flight(&self) -> Result<Vec<(String, f64)>> {
        let mut connection = self.manager.clone();
        let mut command = redis::cmd("ZRANGE");
        command.arg(&self.clock.keys[1]).arg(0).arg(MOST_IN_FLIGHT - 1).arg("WITHSCORES");
        self.wait(command.query_async(&mut connection)).await
    }

    /// Notes that nothing of a channel is on its way any more, if that is so: an instance of an older version shows events and
    /// does not.
    pub(crate) async fn land(&self, channel: &str) -> Result<()> {
        let script = Script::new(LAND);
        let mut invocation = script.key(self.key(channel, "pending"));
        invocation.key(&self.clock.keys[1]).arg(channel);
        let mut connection = self.manager.clone();
        self.wait(invocation.invoke_async(&mut connection)).await
    }

    /// Shows events to readers, which are in the history under these numbers: the first one and those behind it. Answers
    /// the head; `None` if that cannot be, see `confirm.lua`.
    pub(crate) async fn confirm(
        &self,
        channel: &str,
        generation: u64,
        first: u64,
        ids: &[ObjectId],
    ) -> Result<Option<u64>> {
        let mut script = self.confirm.prepare_invoke();
        script.key(self.key(channel, "state")).key(self.key(channel, "stream"));
        script.key(self.key(channel, "pending")).key(&self.clock.keys[1]);
        script.arg(generation).arg(STREAM_LENGTH).arg(first).arg(channel);
        for id in ids {
            script.arg(id.to_hex());
        }
        let mut connection = self.manager.clone();
        self.wait(script.invoke_async(&mut connection)).await
    }

    /// Removes events up to and including `seq` from the stream.
    pub(crate) async fn trim(&self, channel: &str, seq: u64) -> Result<()> {
        let mut connection = self.manager.clone();
        let mut command = redis::cmd("XTRIM");
        command.arg(self.key(channel, "stream")).arg("MINID").arg(format!("{}-0", seq.saturating_add(1)));
        self.wait(command.query_async::<()>(&mut connection)).await
    }

    /// Starts a generation behind `head`; has no effect when the channel is in this one already, or in a later one.
    /// False: readers have been shown more of the epoch than `head`, and nothing was written.
    pub(crate) async fn seed(
        &self,
        channel: &str,
        epoch: &str,
        generation: u64,
        head: u64,
        base: u64,
    ) -> Result<bool> {
        let mut script = self.seed.prepare_invoke();
        script.key(self.key(channel, "state")).key(self.key(channel, "stream"));
        script.key(self.key(channel, "pending")).key(&self.clock.keys[1]);
        script.arg(epoch).arg(generation).arg(head).arg(base).arg(channel);
        let mut connection = self.manager.clone();
        self.wait(script.invoke_async(&mut connection)).await
    }

    /// Forgets a channel without events, whose generation and head these are. False: it is another one, and nothing was
    /// written.
    pub(crate) async fn end(&self, channel: &str, generation: u64, head: u64) -> Result<bool> {
        let mut script = self.end.prepare_invoke();
        script.key(self.key(channel, "state")).key(self.key(channel, "stream"));
        script.key(self.key(channel, "pending"));
        let mut connection = self.manager.clone();
        self.wait(script.arg(generation).arg(head).invoke_async(&mut connection)).await
    }

    /// Of each channel generation, head and the number given last, and the oldest event in its stream; all at once.
    pub(crate) async fn glance(&self, channels: &[&str]) -> Result<Vec<Glance>> {
        let mut pipe = redis::pipe();
        for channel in channels {
            pipe.cmd("HMGET").arg(self.key(channel, "state")).arg(&["generation", "head", "given"]);
            pipe.cmd("XRANGE").arg(self.key(channel, "stream")).arg("-").arg("+").arg("COUNT").arg(1);
        }
        let mut connection = self.manager.clone();
        let answer: Vec<redis::Value> = self.wait(pipe.query_async(&mut connection)).await?;
        let glance = |pair: &[redis::Value]| -> RedisResult<Glance> {
            let [numbers, oldest] = pair else { return Ok((None, None)) };
            let numbers: (Option<u64>, Option<u64>, Option<u64>) = redis::from_redis_value(numbers.clone())?;
            let oldest: StreamRangeReply = redis::from_redis_value(oldest.clone())?;
            let numbers = match numbers {
                (Some(generation), Some(head), Some(given)) => Some((generation, head, given)),
                _ => None,
            };
            Ok((numbers, oldest.ids.first().and_then(item)))
        };
        let all: RedisResult<Vec<Glance>> = answer.chunks(2).map(glance).collect();
        all.map_err(Error::internal)
    }

    /// A connection of its own: `XREAD BLOCK` would hold up everybody else's commands.
    pub(crate) async fn connect(&self) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(RESPONSE))
            .set_response_timeout(Some(RESPONSE));
        self.wait(self.client.get_multiplexed_async_connection_with_config(&config)).await
    }

    /// Waits on `connection` for events after `seq`, a second at most.
    pub(crate) async fn wait_after(
        &self,
        connection: &mut MultiplexedConnection,
        channel: &str,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<Item>> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(limit).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        command.arg("STREAMS").arg(self.key(channel, "stream")).arg(format!("{seq}-0"));
        let reply: Option<StreamReadReply> = self.in_time(command.query_async(connection)).await?;
        let keys = reply.map(|reply| reply.keys).unwrap_or_default();
        Ok(keys.iter().flat_map(|key| &key.ids).filter_map(item).collect())
    }

    /// As [`Redis::state`], on a tail's own connection.
    pub(crate) async fn state_on(
        &self,
        connection: &mut MultiplexedConnection,
        channel: &str,
    ) -> Result<Option<State>> {
        Ok(self.look_on(connection, channel, 0, 0).await?.0)
    }

    /// Whether Redis did not answer the last command.
    pub(super) fn is_failing(&self) -> bool {
        *self.failing.borrow()
    }

    /// Waits until Redis does not answer.
    pub(crate) async fn fails(&self) {
        let mut failing = self.failing.subscribe();
        // The sender lives as long as `self`.
        drop(failing.wait_for(|failing| *failing).await);
    }

    /// Waits for Redis, but not for ever: while it is away the connection manager retries without end.
    pub(super) async fn wait<T>(&self, command: impl Future<Output = RedisResult<T>>) -> Result<T> {
        self.note(wait("log", command).await)
    }

    /// As [`Redis::wait`], for commands that wait on purpose.
    async fn in_time<T>(&self, command: impl Future<Output = RedisResult<T>>) -> Result<T> {
        self.note(in_time("log", command).await)
    }

    fn note<T>(&self, answer: Result<T>) -> Result<T> {
        let failing = answer.is_err();
        self.failing.send_if_modified(|was| std::mem::replace(was, failing) != failing);
        answer
    }
}

fn read_state(fields: &[Option<String>], [last, last_pending]: [Option<u64>; 2]) -> Option<State> {
    let [Some(epoch), Some(generation), Some(head), Some(given), Some(base), Some(seed)] = fields else {
        return None;
    };
    Some(State {
        epoch: epoch.clone(),
        generation: generation.parse().ok()?,
        head: head.parse().ok()?,
        given: given.parse().ok()?,
        base: base.parse().ok()?,
        seed: seed.parse().ok()?,
        last,
        last_pending,
    })
}

fn seq_of(id: &str) -> Option<u64> {
    id.split_once('-')?.0.parse().ok()
}

fn item(entry: &StreamId) -> Option<Item> {
    let mut json = entry.get("j")?;
    // An older version gave no times.
    if let Some(time) = entry.get::<String>("t").and_then(|time| time.parse().ok()) {
        stamp(&mut json, EventTime::from_micros(time));
    }
    Some(Item { seq: seq_of(&entry.id)?, epoch: entry.get("e")?, json })
}
