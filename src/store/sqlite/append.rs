//! Giving events their places, inside the writer's transaction.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::anyhow;
use rusqlite::{Connection, params};

use super::channels::{Channels, Placed};
use super::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::model::{Event, Timestamp};

/// How many bits of `event.n` are the sequence number: at 1,000 events a second they last for 34 years, and leave
/// room for eight million channels.
pub(crate) const SEQ_BITS: u32 = 40;
/// The largest channel number that leaves `event.n` positive.
const MAX_CHANNEL: i64 = (1 << (63 - SEQ_BITS)) - 1;

/// An event, ready to be written.
pub(crate) struct EventRow {
    id: String,
    channel: String,
    time: i64,
    json: Arc<str>,
}

impl EventRow {
    /// Serialises the event (on the caller's thread, not on the writer's).
    pub(crate) fn new(event: &Event) -> EventRow {
        EventRow {
            id: event.id.to_hex(),
            channel: event.channel.clone(),
            time: event.time.millis(),
            json: event.to_text().into(),
        }
    }
}

/// What the writer thread knows of the channels, so that an append needs no query.
pub(super) struct Appender {
    channels: HashMap<String, State>,
    /// What this transaction has appended.
    fresh: Vec<Placed>,
    shared: Arc<Channels>,
    clock: Clock,
    /// A transaction was undone: what is known may be ahead of the file.
    stale: bool,
}

struct State {
    number: i64,
    head: i64,
    floor: i64,
    clock: i64,
    changed: bool,
}

impl Appender {
    /// Reads what the file knows, and shows it to the readers.
    pub(super) fn load(connection: &Connection, shared: Arc<Channels>, clock: Clock) -> Result<Appender> {
        let mut appender =
            Appender { channels: HashMap::new(), fresh: Vec::new(), shared, clock, stale: true };
        appender.refresh(connection)?;
        appender.channels.values_mut().for_each(|state| state.changed = true);
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
        for (name, state) in self.channels.iter_mut().filter(|(_, state)| state.changed) {
            self.shared.publish(name, state.number, state.head as u64, state.floor as u64);
            state.changed = false;
        }
    }
    fn refresh(&mut self, connection: &Connection) -> Result<()> {
        if !self.stale {
            return Ok(());
        }
        self.channels.clear();
        let mut statement =
            connection.prepare_cached("SELECT name, number, head, floor, clock FROM channel")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let state = State {
                number: row.get(1)?,
                head: row.get(2)?,
                floor: row.get(3)?,
                clock: row.get(4)?,
                changed: false,
            };
            self.channels.insert(row.get(0)?, state);
        }
        self.stale = false;
        Ok(())
    }
}

/// One transaction of the writer.
pub(crate) struct Batch<'a> {
    /// For everything that is not an event.
    pub(crate) connection: &'a Connection,
    /// When the transaction began, by the clock that ages are measured by.
    pub(super) now: Timestamp,
    /// The same by the wall clock.
    wall: Timestamp,
    appender: &'a mut Appender,
}

impl<'a> Batch<'a> {
    pub(super) fn new(connection: &'a Connection, appender: &'a mut Appender) -> Result<Self> {
        appender.refresh(connection)?;
        Ok(Batch { connection, now: appender.clock.now(), wall: Timestamp::now(), appender })
    }

    /// Puts the event at the end of its channel and returns its sequence number. An event that stands there already
    /// keeps its place.
    pub(crate) fn append(&mut self, event: &EventRow) -> Result<u64> {
        if !self.appender.channels.contains_key(&event.channel) {
            self.add_channel(&event.channel)?;
        }
        let Some(state) = self.appender.channels.get_mut(&event.channel) else {
            return Err(Error::internal(anyhow!("channel {} was added and is not there", event.channel)));
        };
        let seq = state.head + 1;
        // A client's clock must not push the channel's into the future.
        let clock = state.clock.max(event.time.min(self.wall.millis()));
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO event (n, id, time, clock, doc) VALUES (?, ?, ?, ?, jsonb(?))
                 ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![state.number << SEQ_BITS | seq, event.id, event.time, clock, event.json])?;
        if added == 0 {
            let number = state.number;
            return self.place_of(event, number);
        }
        (state.head, state.clock, state.changed) = (seq, clock, true);
        let (channel, seq) = (state.number, seq as u64);
        self.appender.fresh.push(Placed { channel, seq, json: event.json.clone() });
        Ok(seq)
    }

    /// Removes up to `limit` events whose channel's clock stood before `cutoff`; whether there may be more.
    pub(super) fn prune_events(&mut self, cutoff: Timestamp, limit: i64) -> Result<bool> {
        let mut left = limit;
        for state in self.appender.channels.values_mut() {
            let last = state.head.min(state.floor + left - 1);
            if last < state.floor {
                continue;
            }
            let base = state.number << SEQ_BITS;
            let removed = self
                .connection
                .prepare_cached("DELETE FROM event WHERE n BETWEEN ? AND ? AND clock < ?")?
                .execute(params![base | state.floor, base | last, cutoff.millis()])?;
            if removed > 0 {
                // The clock never decreases, so this was a prefix.
                state.floor += removed as i64;
                state.changed = true;
                left -= removed as i64;
            }
            if left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes down where the channels stand now; the last thing before COMMIT.
    pub(super) fn finish(self) -> Result<()> {
        let mut statement = self
            .connection
            .prepare_cached("UPDATE channel SET head = ?, floor = ?, clock = ? WHERE number = ?")?;
        for state in self.appender.channels.values().filter(|state| state.changed) {
            statement.execute(params![state.head, state.floor, state.clock, state.number])?;
        }
        Ok(())
    }

    fn add_channel(&mut self, name: &str) -> Result<()> {
        let mut statement =
            self.connection.prepare_cached("INSERT INTO channel (name) VALUES (?) RETURNING number")?;
        let number = statement.query_row([name], |row| row.get(0))?;
        if number > MAX_CHANNEL {
            return Err(Error::internal(anyhow!("there are too many channels")));
        }
        let state = State { number, head: 0, floor: 1, clock: 0, changed: false };
        self.appender.channels.insert(name.to_owned(), state);
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
