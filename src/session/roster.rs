//! All sessions of this instance: each is called when its time has come, and when there is news for everybody.
//!
//! One task looks at all deadlines, so that a session needs no timer of its own; and none waits in a queue of those
//! that want to hear of news, which would be joined and left at every event.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::app::App;
use crate::sync::{Bell, lock};

/// Time between two looks at the deadlines: so much later than asked for a session may be woken.
const TICK: Duration = Duration::from_millis(100);
/// No deadline.
const NEVER: u64 = u64::MAX;

/// The sessions of an instance.
pub struct Roster {
    seats: Mutex<Seats>,
    /// What deadlines count from.
    began: Instant,
}

/// Deadlines lie together: they are looked at ten times a second.
#[derive(Default)]
struct Seats {
    /// In milliseconds.
    due: Vec<u64>,
    wakes: Vec<Option<Arc<Bell>>>,
    free: Vec<usize>,
}

impl Default for Roster {
    fn default() -> Roster {
        Roster { seats: Mutex::default(), began: Instant::now() }
    }
}

impl Roster {
    /// Takes in a session, until the seat is dropped.
    pub(super) fn take_seat(self: &Arc<Self>, wake: Arc<Bell>) -> Seat {
        let mut seats = lock(&self.seats);
        let number = seats.free.pop().unwrap_or(seats.due.len());
        if number == seats.due.len() {
            seats.due.push(NEVER);
            seats.wakes.push(None);
        }
        seats.wakes[number] = Some(wake);
        Seat { roster: self.clone(), number, due: None }
    }

    /// There is news: everybody shall look.
    fn call_all(&self) {
        lock(&self.seats).wakes.iter().flatten().for_each(|wake| wake.call());
    }

    /// Calls those whose time has come, once.
    fn call_due(&self, now: Instant) {
        let now = self.millis(now);
        let mut seats = lock(&self.seats);
        let Seats { due, wakes, .. } = &mut *seats;
        for (due, wake) in due.iter_mut().zip(wakes).filter(|(due, _)| **due <= now) {
            *due = NEVER;
            wake.iter().for_each(|wake| wake.call());
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(NEVER - 1)
    }
}

/// A session's place.
pub(super) struct Seat {
    roster: Arc<Roster>,
    number: usize,
    due: Option<Instant>,
}

impl Seat {
    /// Whether the deadline has passed; then there is none until the next one is set.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
        }
        is_due
    }

    /// The session wants to be called then or earlier.
    pub(super) fn call_by(&mut self, at: Instant) {
        if self.due.is_none_or(|due| due > at) {
            self.call_at(at);
        }
    }

    /// The session wants to be called then, and no more at what it said before.
    pub(super) fn call_at(&mut self, at: Instant) {
        if self.due != Some(at) {
            self.due = Some(at);
            // A millisecond more, as the rest is cut off: who is called must not find its deadline in the future.
            lock(&self.roster.seats).due[self.number] = self.roster.millis(at) + 1;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = lock(&self.roster.seats);
        seats.due[self.number] = NEVER;
        seats.wakes[self.number] = None;
        seats.free.push(self.number);
        if seats.free.len() == seats.due.len() {
            *seats = Seats::default();
        }
    }
}

/// Calls the sessions, as long as there is an app: at their deadlines, when a part of the server goes away or comes back,
/// and when the server begins to shut down.
pub async fn keep(app: Weak<App>) {
    let Some((roster, mut health, draining)) =
        app.upgrade().map(|app| (app.roster.clone(), app.health.watch(), app.draining.clone()))
    else {
        return;
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drains = false;
    while app.strong_count() > 0 {
        tokio::select! {
            now = ticks.tick() => roster.call_due(now.max(Instant::now())),
            Ok(()) = health.changed() => roster.call_all(),
            () = draining.cancelled(), if !drains => {
                drains = true;
                roster.call_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whose_time_has_come_is_called_once() {
        let roster = Arc::new(Roster::default());
        let wakes: Vec<Arc<Bell>> = (0..3).map(|_| Arc::default()).collect();
        let mut seats: Vec<Seat> = wakes.iter().map(|wake| roster.take_seat(wake.clone())).collect();
        let at = |ms| roster.began + Duration::from_millis(ms);
        for (seat, ms) in seats.iter_mut().zip([50, 150, 250]) {
            seat.call_at(at(ms));
        }
        seats[2].call_at(at(60));
        let called = |roster: &Roster, ms| {
            roster.call_due(at(ms));
            wakes.iter().map(|wake| wake.take_call()).collect::<Vec<_>>()
        };
        assert_eq!(called(&roster, 50), [false; 3], "not before it is over");
        assert_eq!(called(&roster, 100), [true, false, true]);
        assert_eq!(called(&roster, 200), [false, true, false]);
        assert_eq!(called(&roster, 500), [false; 3]);
        assert!(!seats[0].is_due(at(49)) && seats[0].is_due(at(50)) && !seats[0].is_due(at(500)));
    }

    #[tokio::test]
    async fn news_reaches_everybody_who_is_there() {
        let roster = Arc::new(Roster::default());
        let wakes: Vec<Arc<Bell>> = (0..3).map(|_| Arc::default()).collect();
        let mut seats: Vec<Seat> = wakes.iter().map(|wake| roster.take_seat(wake.clone())).collect();
        drop(seats.remove(1));
        roster.call_all();
        assert_eq!(wakes.iter().map(|wake| wake.take_call()).collect::<Vec<_>>(), [true, false, true]);
        seats.push(roster.take_seat(wakes[1].clone()));
        assert_eq!(lock(&roster.seats).due.len(), 3, "a seat that is free is taken");
        drop(seats);
        assert_eq!(lock(&roster.seats).due.capacity(), 0);
    }
}
