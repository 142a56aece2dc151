//! The event log in the embedded store: the same file, so that a node and its event become durable together, and
//! in-process wake-ups.
//!
//! An event's place is given by the writer inside the transaction that makes it durable (`store::sqlite`), so the
//! log needs neither a relay nor a queue of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use tokio::time::Instant;

use super::{After, EventLog, HISTORY_BYTES, HistoryQuery, Logged, MOST_LIKE, READ_BYTES, Read, Tail};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::model::event::Entry;
use crate::model::{Event, EventTime, Position, Timestamp};
use crate::store::sqlite::filter::{Param, Sql, to_sql};
use crate::store::sqlite::{Database, EventRow, SEQ_BITS, prepare};

/// How long [`Tail::next`] waits for the first event.
const PATIENCE: Duration = Duration::from_secs(1);

/// The event log in a SQLite file; made by [`crate::store::sqlite::open`].
pub struct SqliteLog {
    db: Arc<Database>,
}

impl SqliteLog {
    pub(crate) fn new(db: Arc<Database>) -> SqliteLog {
        SqliteLog { db }
    }
}

#[async_trait]
impl EventLog for SqliteLog {
    async fn ping(&self) -> Result<()> {
        self.db.writer.run(1, |_| Ok(())).await
    }

    async fn head(&self, channel: &str) -> Result<Position> {
        let known = self.db.channels.get(channel).map(|channel| channel.head());
        let seq = known.unwrap_or_else(|| self.db.channels.base(channel));
        Ok(Position { epoch: self.db.epoch.to_string(), seq })
    }

    async fn exists(&self, channel: &str) -> Result<bool> {
        Ok(self.db.channels.get(channel).is_some())
    }

    async fn floor(&self, channel: &str) -> Result<u64> {
        let known = self.db.channels.get(channel).map(|channel| channel.floor());
        Ok(known.unwrap_or_else(|| self.db.channels.base(channel) + 1))
    }

    async fn seq_before(&self, channel: &str, time: EventTime) -> Result<u64> {
        let base = self.db.channels.base(channel);
        let Some(channel) = self.db.channels.get(channel) else { return Ok(base) };
        let (number, floor, head) = (channel.number, channel.floor(), channel.head());
        self.db.quick.run(move |connection| bisect(connection, number, floor, head, time)).await
    }

    async fn read_after(&self, channel: &str, seq: u64, limit: usize) -> Result<Read> {
        read_after(&self.db, channel, seq, limit).await
    }

    async fn tail(&self, channel: &str, seq: u64) -> Result<Box<dyn Tail>> {
        Ok(Box::new(SqliteTail { db: self.db.clone(), channel: channel.to_owned(), seq }))
    }

    async fn publish(&self, event: Event) -> Result<Option<u64>> {
        let row = EventRow::new(&event);
        self.db.writer.run(2, move |batch| batch.append(&row)).await.map(Some)
    }

    async fn find(&self, query: &HistoryQuery) -> Result<Vec<Logged>> {
        let query = query.clone();
        self.db.searches.run(move |connection| find(connection, &query)).await
    }

    async fn like(&self, names: &[&str], beginnings: &[&str]) -> Result<Vec<String>> {
        let wanted =
            |name: &str| names.contains(&name) || beginnings.iter().any(|start| name.starts_with(start));
        Ok(self.db.channels.names(wanted, MOST_LIKE))
    }

    /// None ever: an event gets its place with the write.
    async fn pending(&self) -> Result<u64> {
        Ok(0)
    }

    /// Does nothing: what was acknowledged is safe, and the file is closed with the store.
    async fn close(&self) {}
}

/// A reader that is woken by the writer.
struct SqliteTail {
    db: Arc<Database>,
    channel: String,
    /// The last event that was handed out; moved only together with handing out, so `next` may be dropped.
    seq: u64,
}

#[async_trait]
impl Tail for SqliteTail {
    async fn next(&mut self, limit: usize) -> Result<Read> {
        if !self.db.channels.wait(&self.channel, self.seq, Instant::now() + PATIENCE).await {
            return Ok(Read { epoch: self.db.epoch.clone(), gap: None, entries: Vec::new() });
        }
        let read = read_after(&self.db, &self.channel, self.seq, limit).await?;
        if let Some((_, missed)) = read.gap {
            self.seq = missed;
        }
        if let Some(last) = read.entries.last() {
            self.seq = last.seq;
        }
        Ok(read)
    }
}

async fn read_after(db: &Database, channel: &str, seq: u64, limit: usize) -> Result<Read> {
    let epoch = db.epoch.clone();
    // What a reader may see is what the writer has published, not what the file may hold already.
    let known = db.channels.get(channel);
    let head = known.as_ref().map_or_else(|| db.channels.base(channel), |known| known.head());
    if head <= seq || limit == 0 {
        return Ok(Read { epoch, gap: None, entries: Vec::new() });
    }
    let Some(channel) = known else {
        return Ok(Read { epoch, gap: Some((seq + 1, head)), entries: Vec::new() });
    };
    let number = channel.number;
    if seq + 1 >= channel.floor()
        && let Some(newest) = db.channels.newest(number, seq, limit.min((head - seq) as usize))
    {
        let mut bytes = 0;
        let newest = newest.iter().take_while(|(_, json)| {
            let room = bytes < READ_BYTES;
            bytes += json.len();
            room
        });
        let entries = newest.map(|(seq, json)| Arc::new(Entry::new(*seq, json))).collect();
        return Ok(Read { epoch, gap: None, entries });
    }
    let last = head.min(seq.saturating_add(limit as u64));
    let read = db.quick.run(move |connection| entries(connection, number, seq, head, last)).await?;
    Ok(Read { epoch, gap: read.0, entries: read.1 })
}

type Entries = (Option<(u64, u64)>, Vec<Arc<Entry>>);

/// The events behind `seq` up to `last`, or the first `last - seq` that are retained if there is a gap before them.
fn entries(connection: &Connection, number: i64, seq: u64, head: u64, last: u64) -> Result<Entries> {
    let limit = last - seq;
    let mut statement = connection
        .prepare_cached("SELECT n, json(doc) FROM event WHERE n BETWEEN ? AND ? ORDER BY n LIMIT ?")?;
    let mut rows = statement.query(params![place(number, seq + 1), place(number, head), limit as i64])?;
    let (mut gap, mut next, mut entries, mut bytes) = (None, seq + 1, Vec::new(), 0);
    while bytes < READ_BYTES
        && let Some(row) = rows.next()?
    {
        let found = seq_of(row.get(0)?);
        if found != next {
            if !entries.is_empty() {
                // A hole further on: the next read begins with it.
                break;
            }
            gap = Some((next, found - 1));
        }
        let entry = entry(found, row)?;
        bytes += entry.json.len();
        entries.push(entry);
        next = found + 1;
    }
    if entries.is_empty() {
        gap = Some((seq + 1, head));
    }
    Ok((gap, entries))
}

/// The last place before the channel's clock reached `time`. The clock never decreases, so bisection finds it; what
/// is not retained any more counts as before.
fn bisect(connection: &Connection, number: i64, floor: u64, head: u64, time: EventTime) -> Result<u64> {
    let mut statement = connection.prepare_cached("SELECT clock, us FROM event WHERE n = ?")?;
    // Before `low` everything is earlier, from `high` on nothing is.
    let (mut low, mut high) = (floor, head + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let clock = statement
            .query_row([place(number, middle)], |row| {
                Ok(EventTime::from_parts(Timestamp::from_millis(row.get(0)?), row.get(1)?))
            })
            .optional()?;
        if clock.is_some_and(|clock| clock >= time) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low - 1)
}

fn find(connection: &Connection, query: &HistoryQuery) -> Result<Vec<Logged>> {
    let number = match &query.channel {
        None => None,
        Some(name) => match number(connection, name)? {
            None => return Ok(Vec::new()),
            number => number,
        },
    };
    let ids = query.filter.ids();
    let mut values: Vec<Param> = Vec::new();
    let (from_ids, which) = match ids {
        None => (None, ""),
        Some(ids) => {
            values.push(Param::many(ids.into_iter().map(Into::into)));
            (Some("event"), "id IN rarray(?) AND")
        }
    };
    let mut span =
        |number, first| values.extend([place(number, first).into(), place(number, u64::MAX).into()]);
    let (from, at, order) = match (number, query.after) {
        (None, Some(After::Seq(_))) => {
            return Err(Error::invalid("after", "a seq is a place in one channel: name the channel"));
        }
        (Some(number), after @ (None | Some(After::Seq(_)))) => {
            let seq = if let Some(After::Seq(seq)) = after { seq } else { 0 };
            span(number, seq.saturating_add(1));
            ("event", "n BETWEEN ? AND ?", "n")
        }
        (number, after) => {
            number.into_iter().for_each(|number| span(number, 0));
            values.extend(match after {
                Some(After::Time(time, id)) => {
                    [time.to_millis().millis().into(), time.us().into(), id.to_hex().into()]
                }
                _ => [i64::MIN.into(), 0.into(), String::new().into()],
            });
            let at = match number {
                None => "(time, us, id) > (?, ?, ?)",
                Some(_) => "n BETWEEN ? AND ? AND (time, us, id) > (?, ?, ?)",
            };
            // Not left to the planner, which might rather sort the whole history.
            ("event INDEXED BY event_by_time", at, "time, us, id")
        }
    };
    let from = from_ids.unwrap_or(from);
    let condition = match mentions(&query.filter, "sequence") {
        false => to_sql(&query.filter, "doc"),
        // Which the stored document does not have.
        true => Sql { exact: false, ..to_sql(&Filter::all(), "doc") },
    };
    let sql = format!(
        "SELECT n, json(doc), (SELECT name FROM channel WHERE number = n >> {SEQ_BITS}) FROM {from} WHERE {which} {at} AND ({}) ORDER BY {order}",
        condition.text
    );
    values.extend(condition.params);
    let mut statement = prepare(connection, &sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut found, mut bytes, mut skip) = (Vec::new(), 0, query.skip);
    while found.len() < query.limit
        && bytes < HISTORY_BYTES
        && let Some(row) = rows.next()?
    {
        if condition.exact && skip > 0 {
            skip -= 1;
            continue;
        }
        let logged = logged(row)?;
        if !condition.exact {
            if !query.filter.matches(logged.entry.value()) {
                continue;
            }
            if skip > 0 {
                skip -= 1;
                continue;
            }
        }
        bytes += logged.entry.json.len();
        found.push(logged);
    }
    Ok(found)
}

fn mentions(filter: &Filter, field: &str) -> bool {
    match filter {
        Filter::And(parts) | Filter::Or(parts) => parts.iter().any(|part| mentions(part, field)),
        Filter::Not(part) => mentions(part, field),
        Filter::Field { path, .. } => path == field,
    }
}

fn number(connection: &Connection, channel: &str) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT number FROM channel WHERE name = ?")?;
    statement.query_row([channel], |row| row.get(0)).optional()
}

fn logged(row: &Row<'_>) -> rusqlite::Result<Logged> {
    Ok(Logged { channel: row.get(2)?, entry: entry(seq_of(row.get(0)?), row)? })
}

/// The event whose document is the second column.
fn entry(seq: u64, row: &Row<'_>) -> rusqlite::Result<Arc<Entry>> {
    Ok(Arc::new(Entry::new(seq, row.get_ref(1)?.as_str()?)))
}

/// `event.n` of a place in a channel; sequence numbers beyond what there can be count as the last one.
fn place(number: i64, seq: u64) -> i64 {
    let last = (1 << SEQ_BITS) - 1;
    number << SEQ_BITS | i64::try_from(seq).unwrap_or(last).min(last)
}

fn seq_of(n: i64) -> u64 {
    (n & ((1 << SEQ_BITS) - 1)) as u64
}
