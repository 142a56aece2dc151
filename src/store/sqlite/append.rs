//! Giving events their places, inside the writer's transaction.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::anyhow;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::channels::{Channels, Placed};
use super::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::event_log::ended::place;
use crate::model::event::stamp;
use crate::model::{Event, EventTime, Timestamp};

/// How many bits of `event.n` are the sequence number: at 1,000 events a second they last for 34 years, and leave
/// room for eight million channels.
pub(crate) const SEQ_BITS: u32 = 40;
/// The largest channel number that leaves `event.n` positive.
const MAX_CHANNEL: i64 = (1 << (63 - SEQ_BITS)) - 1;

/// An event, ready to be written.
pub(crate) struct EventRow {
    id: String,
    channel: String,
    json: String,
}

impl EventRow {
    /// Serialises the event (on the caller's thread, not on the writer's).
    pub(crate) fn new(event: &Event) -> EventRow {
        EventRow { id: event.id.to_hex(), channel: event.channel.clone(), json: event.to_text() }
    }
}

/// What the writer thread knows of the channels, so that an append needs no query.
pub(super) struct Appender {
    channels: HashMap<String, State>,
    /// By place, the highest number of the channels that have ended.
    ended: HashMap<u16, i64>,
    /// The number of the next channel.
    next: i64,
    /// The channels that this transaction has changed, added or removed.
    changed: Vec<String>,
    /// The places at which it has ended some.
    ended_at: Vec<u16>,
    /// What it has appended.
    fresh: Vec<Placed>,
    shared: Arc<Channels>,
    clock: Clock,
    /// The latest time that an event got.
    last: EventTime,
    /// It was undone: what is known of the channels that it has changed may be ahead of the file.
    stale: bool,
}

#[derive(Clone, Debug)]
struct State {
    number: i64,
    head: i64,
    floor: i64,
    clock: i64,
    /// The clock of the oldest event; `None` if it has to be looked for.
    oldest: Option<i64>,
    /// Whether it is among those that the transaction has changed.
    changed: bool,
}

impl State {
    /// Reads `number, head, floor, clock`.
    fn read(row: &Row<'_>) -> rusqlite::Result<State> {
        let (number, head) = (row.get(0)?, row.get(1)?);
        Ok(State { number, head, floor: row.get(2)?, clock: row.get(3)?, oldest: None, changed: false })
    }
}

impl Appender {
    /// Reads what the file knows, and shows it to the readers.
    pub(super) fn load(connection: &Connection, shared: Arc<Channels>, clock: Clock) -> Result<Appender> {
        let mut channels = HashMap::new();
        let mut statement = connection.prepare("SELECT number, head, floor, clock, name FROM channel")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            channels.insert(row.get(4)?, State::read(row)?);
        }
        let last =
            "SELECT max(coalesce(max(number), 0), (SELECT coalesce(max(number), 0) FROM ended)) FROM channel";
        let last: i64 = connection.query_row(last, [], |row| row.get(0))?;
        let last_time =
            "SELECT time, us FROM event INDEXED BY event_by_time ORDER BY time DESC, us DESC LIMIT 1";
        let last_time = connection.query_row(last_time, [], |row| {
            Ok(EventTime::from_parts(Timestamp::from_millis(row.get(0)?), row.get(1)?))
        });
        let last_time = last_time.optional()?.unwrap_or(EventTime::from_micros(0));
        let ended = ended(connection)?;
        let (changed, ended_at) = (channels.keys().cloned().collect(), ended.keys().copied().collect());
        let (next, fresh) = (last + 1, Vec::new());
        let mut appender = Appender {
            channels,
            ended,
            next,
            changed,
            ended_at,
            fresh,
            shared,
            clock,
            last: last_time,
            stale: false,
        };
        appender.publish();
        Ok(appender)
    }

    /// The transaction was undone.
    pub(super) fn forget(&mut self) {
        self.fresh.clear();
        self.stale = true;
    }

    /// The transaction is durable: readers may see it.
    pub(super) fn publish(&mut self) {
        self.shared.keep(self.fresh.drain(..));
        for place in self.ended_at.drain(..) {
            self.shared.ended(place, self.ended.get(&place).map_or(0, |head| *head as u64));
        }
        for name in self.changed.drain(..) {
            match self.channels.get_mut(&name) {
                Some(state) => {
                    self.shared.publish(&name, state.number, state.head as u64, state.floor as u64);
                    state.changed = false;
                }
                None => self.shared.end(&name),
            }
        }
    }

    fn refresh(&mut self, connection: &Connection) -> Result<()> {
        if !self.stale {
            return Ok(());
        }
        if !self.ended_at.is_empty() {
            self.ended = ended(connection)?;
        }
        let sql = "SELECT number, head, floor, clock FROM channel WHERE name = ?";
        let mut statement = connection.prepare_cached(sql)?;
        for name in &self.changed {
            match statement.query_row([name], State::read).optional()? {
                Some(state) => _ = self.channels.insert(name.clone(), state),
                None => _ = self.channels.remove(name),
            }
        }
        self.changed.clear();
        self.ended_at.clear();
        self.stale = false;
        Ok(())
    }
}

/// By place, the highest number of the channels that have ended.
fn ended(connection: &Connection) -> Result<HashMap<u16, i64>> {
    let mut statement = connection.prepare_cached("SELECT place, head FROM ended")?;
    let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(all.collect::<rusqlite::Result<_>>()?)
}

/// One transaction of the writer.
pub(crate) struct Batch<'a> {
    /// For everything that is not an event.
    pub(crate) connection: &'a Connection,
    /// When the transaction began, by the clock that ages are measured by.
    pub(super) now: Timestamp,
    /// The same by the wall clock.
    wall: EventTime,
    appender: &'a mut Appender,
}

impl<'a> Batch<'a> {
    pub(super) fn new(connection: &'a Connection, appender: &'a mut Appender) -> Result<Self> {
        appender.refresh(connection)?;
        Ok(Batch { connection, now: appender.clock.now(), wall: appender.clock.wall.now(), appender })
    }

    /// Puts the event at the end of its channel, with a time that is later than that of all others, and returns its
    /// sequence number. An event that stands there already
    /// keeps its place.
    pub(crate) fn append(&mut self, event: &EventRow) -> Result<u64> {
        if !self.appender.channels.contains_key(&event.channel) {
            self.add_channel(&event.channel)?;
        }
        let Some(state) = self.appender.channels.get_mut(&event.channel) else {
            return Err(Error::internal(anyhow!("channel {} was added and is not there", event.channel)));
        };
        let seq = state.head + 1;
        let time = self.wall.max(EventTime::from_micros(self.appender.last.micros() + 1));
        let millis = time.to_millis().millis();
        let clock = state.clock.max(millis);
        let mut json = event.json.clone();
        stamp(&mut json, time);
        let json: Arc<str> = json.into();
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO event (n, id, time, us, clock, doc) VALUES (?, ?, ?, ?, ?, jsonb(?))
                 ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![state.number << SEQ_BITS | seq, event.id, millis, time.us(), clock, json])?;
        if added == 0 {
            let number = state.number;
            return self.place_of(event, number);
        }
        (state.head, state.clock) = (seq, clock);
        self.appender.last = time;
        if !std::mem::replace(&mut state.changed, true) {
            self.appender.changed.push(event.channel.clone());
        }
        let (channel, seq) = (state.number, seq as u64);
        self.appender.fresh.push(Placed { channel, seq, json });
        Ok(seq)
    }

    /// Removes up to `limit` events whose channel's clock stood before `cutoff`, and the channels that have none left;
    /// whether there may be more.
    pub(super) fn prune_events(&mut self, cutoff: Timestamp, limit: i64) -> Result<bool> {
        let mut left = limit;
        for (name, state) in &mut self.appender.channels {
            let last = state.head.min(state.floor + left - 1);
            if last < state.floor || oldest(self.connection, state)? >= cutoff.millis() {
                continue;
            }
            let base = state.number << SEQ_BITS;
            let removed = self
                .connection
                .prepare_cached("DELETE FROM event WHERE n BETWEEN ? AND ? AND clock < ?")?
                .execute(params![base | state.floor, base | last, cutoff.millis()])?;
            if removed > 0 {
                // The clock never decreases, so this was a prefix.
                (state.floor, state.oldest) = (state.floor + removed as i64, None);
                if !std::mem::replace(&mut state.changed, true) {
                    self.appender.changed.push(name.clone());
                }
                left -= removed as i64;
            }
            if left == 0 {
                return Ok(true);
            }
        }
        let is_empty = |(_, state): &(&String, &State)| state.floor > state.head;
        let empty = self.appender.channels.iter().filter(is_empty).take(limit as usize);
        let empty: Vec<(String, State)> = empty.map(|(name, state)| (name.clone(), state.clone())).collect();
        for (name, state) in &empty {
            self.end_channel(name, state)?;
        }
        Ok(empty.len() as i64 == limit)
    }

    /// Writes down where the channels stand now; the last thing before COMMIT.
    pub(super) fn finish(self) -> Result<()> {
        let mut statement = self
            .connection
            .prepare_cached("UPDATE channel SET head = ?, floor = ?, clock = ? WHERE number = ?")?;
        for state in self.appender.changed.iter().filter_map(|name| self.appender.channels.get(name)) {
            statement.execute(params![state.head, state.floor, state.clock, state.number])?;
        }
        Ok(())
    }

    fn add_channel(&mut self, name: &str) -> Result<()> {
        let appender = &mut *self.appender;
        let (number, head) = (appender.next, appender.ended.get(&place(name)).copied().unwrap_or(0));
        if number > MAX_CHANNEL {
            return Err(Error::internal(anyhow!("there are too many channels")));
        }
        let floor = head + 1;
        let state = State { number, head, floor, clock: 0, oldest: None, changed: true };
        let mut statement = self
            .connection
            .prepare_cached("INSERT INTO channel (number, name, head, floor) VALUES (?, ?, ?, ?)")?;
        // Before the statement: if it fails, the file is asked what there is.
        appender.changed.push(name.to_owned());
        statement.execute(params![number, name, head, floor])?;
        appender.next += 1;
        appender.channels.insert(name.to_owned(), state);
        Ok(())
    }

    /// Removes a channel in which no event is left. What begins at its place goes on behind it.
    fn end_channel(&mut self, name: &str, state: &State) -> Result<()> {
        let (appender, place) = (&mut *self.appender, place(name));
        appender.changed.push(name.to_owned());
        appender.ended_at.push(place);
        self.connection
            .prepare_cached(
                "INSERT INTO ended (place, head, number) VALUES (?, ?, ?) ON CONFLICT (place) DO UPDATE
                 SET head = max(head, excluded.head), number = max(number, excluded.number)",
            )?
            .execute(params![place, state.head, state.number])?;
        self.connection.prepare_cached("DELETE FROM channel WHERE number = ?")?.execute([state.number])?;
        appender.channels.remove(name);
        let head = appender.ended.entry(place).or_default();
        *head = state.head.max(*head);
        Ok(())
    }

    fn place_of(&self, event: &EventRow, channel: i64) -> Result<u64> {
        let mut statement = self.connection.prepare_cached("SELECT n FROM event WHERE id = ?")?;
        let n: i64 = statement.query_row([&event.id], |row| row.get(0))?;
        if n >> SEQ_BITS != channel {
            let detail = format!("an event with the id {} stands in another channel", event.id);
            return Err(Error::new(Kind::Conflict, detail));
        }
        Ok((n & ((1 << SEQ_BITS) - 1)) as u64)
    }
}

/// The clock of the channel's oldest event, which is looked for once.
fn oldest(connection: &Connection, state: &mut State) -> Result<i64> {
    if state.oldest.is_none() {
        let mut statement = connection.prepare_cached("SELECT clock FROM event WHERE n = ?")?;
        let n = state.number << SEQ_BITS | state.floor;
        state.oldest = statement.query_row([n], |row| row.get(0)).optional()?;
    }
    Ok(state.oldest.unwrap_or(i64::MIN))
}
