//! Waiting for what must come. A test waits for an event and not for a time; where nothing tells it of the event, it
//! looks again and again, and this is the one place that rests in between.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

/// How long a test waits for what must come. Generous: machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Rests between two looks: short at first, so that little time is lost, then longer, so that looking costs little.
const FIRST_REST: Duration = Duration::from_millis(2);
const LONGEST_REST: Duration = Duration::from_millis(100);

/// Looks until there is what is looked for, and returns it. An `Err` is what was seen instead; a failure shows the last.
pub async fn until<T, S: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, S>) -> T {
    until_within(PATIENCE, what, look).await
}

/// As [`until`], for what takes longer.
pub async fn until_within<T, S: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let mut looks = Looks::new(patience, what);
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => looks.rest(&seen).await,
        }
    }
}

/// The rests between looks, for a loop that [`until`] cannot make: a task that is spawned is not known to be `Send` with a
/// closure that borrows.
pub struct Looks<'a> {
    what: &'a str,
    patience: Duration,
    end: Instant,
    next: Duration,
}

impl Looks<'_> {
    /// Begins to look for this.
    pub fn new(patience: Duration, what: &str) -> Looks<'_> {
        Looks { what, patience, end: Instant::now() + patience, next: FIRST_REST }
    }
    /// Rests after a look at which this was seen instead; fails if it is over with patience.
    pub async fn rest(&mut self, seen: &impl Debug) {
        let Looks { what, patience, .. } = *self;
        assert!(Instant::now() < self.end, "{what}: not within {patience:?}, but {seen:?}");
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 3 / 2).min(LONGEST_REST);
    }
}

/// Waits until something is so.
pub async fn eventually(what: &str, is_so: impl AsyncFnMut() -> bool) {
    eventually_within(PATIENCE, what, is_so).await;
}

/// As [`eventually`], for what takes longer.
pub async fn eventually_within(patience: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    until_within(patience, what, async || if is_so().await { Ok(()) } else { Err("that is not so") }).await;
}

/// Waits for what says by itself when it is done.
pub async fn soon<T>(what: &str, done: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, done).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Waits until the wall clock shows another millisecond: what happens now and what happens then differ in time.
pub async fn another_moment() {
    let now = chrono::Utc::now().timestamp_millis();
    eventually("time goes on", async || chrono::Utc::now().timestamp_millis() > now).await;
}
