//! The clock that events get their times from: one for all channels and instances.
//!
//! `append.lua` gives an event its time together with its number. Times only grow, by a microsecond at least, and follow
//! the clock of Redis; so the order of time is the order in which events got their numbers. They reach the history a
//! little later, and those of different channels not in this order. So whoever reads by time reads up to the *horizon*:
//! nothing at or before it is still on its way.
//!
//! `<prefix>clock` is the latest time that was given or read up to, `<prefix>inflight` a sorted set of the channels that
//! have events on their way, by the time of the oldest.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use redis::Script;

use super::connection::Connection;
use super::stream::Redis;
use crate::error::Result;
use crate::model::{EventTime, timestamp::WallClock};

/// A history may have times that somebody's clock was wrong about: those that are further ahead do not count.
pub(super) const AHEAD: Duration = Duration::from_secs(60);

/// What this process knows of the clock.
pub(super) struct Clock {
    /// The clock's key, and that of the channels with events on their way.
    pub(super) keys: [String; 2],
    wall: WallClock,
    script: Script,
    /// The latest time that this process has seen, in microseconds. If Redis has lost its clock, or is another machine
    /// now, it goes on behind that.
    latest: AtomicI64,
    /// The last horizon.
    horizon: AtomicI64,
}

impl Clock {
    pub(super) fn new(prefix: &str, wall: WallClock) -> Arc<Clock> {
        Arc::new(Clock {
            keys: [format!("{prefix}clock"), format!("{prefix}inflight")],
            wall,
            script: Script::new(include_str!("horizon.lua")),
            latest: AtomicI64::new(0),
            horizon: AtomicI64::new(0),
        })
    }
    /// The latest time that was seen, and by how much the clock of Redis is to be corrected.
    pub(super) fn args(&self) -> [i64; 2] {
        [self.latest.load(Relaxed), self.wall.ahead()]
    }
    /// Now, by this machine.
    pub(super) fn wall(&self) -> EventTime {
        self.wall.now()
    }
    /// This time has been given.
    pub(super) fn saw(&self, time: EventTime) {
        self.latest.fetch_max(time.micros(), Relaxed);
    }
}

impl Redis {
    /// See the module's documentation. While Redis is away it stands where it was; 503 if this process has not seen it yet.
    pub(crate) async fn horizon(&self) -> Result<EventTime> {
        let clock = &self.clock;
        let last = clock.horizon.load(Relaxed);
        if last > 0 && self.is_failing() {
            // Not by waiting for it.
            return Ok(EventTime::from_micros(last));
        }
        let mut connection: Connection = self.connection();
        let mut script = clock.script.key(&clock.keys[0]);
        script.key(&clock.keys[1]).arg(&clock.args());
        match self.wait(script.invoke_async::<(i64, i64)>(&mut connection)).await {
            Ok((now, horizon)) => {
                clock.saw(EventTime::from_micros(now));
                // Another one may have been further.
                let before = clock.horizon.fetch_max(horizon, Relaxed);
                Ok(EventTime::from_micros(horizon.max(before)))
            }
            Err(_) if last > 0 => Ok(EventTime::from_micros(last)),
            Err(error) => Err(error),
        }
    }
}
