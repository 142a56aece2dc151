//! Lines of the log that repeat: what a client can cause again and again must not bury everything else.
//!
//! Of each place in our code that logs, the first lines are written, then one a second, which says how many were left out
//! since the one before. Places do not share, so none is silent because of another; there are as many as the code has.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

use crate::sync::lock;

/// Lines of one place that are written at once.
const BURST: u32 = 20;
/// How often another one is.
const EVERY: Duration = Duration::from_secs(1);
/// The targets of our own lines begin with it.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Says which lines are written.
pub(super) struct Brake {
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
    sites: Mutex<HashMap<Identifier, Site>>,
}

/// One place that logs.
struct Site {
    /// When it may write a whole burst again.
    full_at: Instant,
    written: Instant,
    left_out: u64,
}

/// Lines that were left out before one that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) lines: u64,
    /// Since the last one was written.
    pub(super) seconds: u64,
}

impl Default for Brake {
    fn default() -> Brake {
        Brake::with_clock(Instant::now)
    }
}

impl Brake {
    fn with_clock(clock: impl Fn() -> Instant + Send + Sync + 'static) -> Brake {
        Brake { clock: Box::new(clock), sites: Mutex::default() }
    }

    /// What was left out before this line, or `None` if it is left out itself. Lines below INFO are somebody's wish, and
    /// those of other crates come from few places: all of them are written.
    pub(super) fn pass(&self, line: &Metadata<'_>) -> Option<LeftOut> {
        if *line.level() > Level::INFO || !line.target().starts_with(OURS) {
            return Some(LeftOut::default());
        }
        let now = (self.clock)();
        let mut sites = lock(&self.sites);
        let new = Site { full_at: now, written: now, left_out: 0 };
        let site = sites.entry(line.callsite()).or_insert(new);
        if site.full_at.saturating_duration_since(now) > EVERY * (BURST - 1) {
            site.left_out += 1;
            return None;
        }
        let seconds = now.saturating_duration_since(site.written).as_secs_f64().round().max(1.0) as u64;
        let left_out = LeftOut { lines: site.left_out, seconds };
        *site = Site { full_at: site.full_at.max(now) + EVERY, written: now, left_out: 0 };
        Some(left_out)
    }
}

/// For the end of a line; empty if nothing was left out.
impl fmt::Display for LeftOut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines {
            0 => Ok(()),
            lines => write!(out, " ({lines} more like this in the last {} s)", self.seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format;

    use super::super::log::{Json, Text};
    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Written;
        fn make_writer(&self) -> Written {
            self.clone()
        }
    }

    impl Written {
        /// The lines since the last time.
        fn lines(&self) -> Vec<String> {
            let text = std::mem::take(&mut *lock(&self.0));
            String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
        }
    }

    /// A brake by a clock that somebody moves, in milliseconds.
    fn by_hand() -> (Arc<AtomicU64>, Brake) {
        let (ms, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let clock = ms.clone();
        (ms, Brake::with_clock(move || began + Duration::from_millis(clock.load(Ordering::Relaxed))))
    }

    fn flood(count: usize) {
        for number in 0..count {
            tracing::warn!(number, "a flood");
        }
    }

    #[test]
    fn the_first_lines_are_written_then_one_a_second_with_a_count() {
        let (ms, brake) = by_hand();
        let written = Written::default();
        let text = Text { line: format::format().with_ansi(false), instance: "lab".into(), brake };
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(written.clone()).event_format(text);
        tracing::subscriber::with_default(log.finish(), || {
            flood(100);
            let lines = written.lines();
            assert_eq!(lines.len(), 20, "{lines:?}");
            assert!(
                lines.iter().all(|line| line.ends_with(" instance=lab") && !line.contains("more like this"))
            );

            tracing::warn!("elsewhere");
            tracing::error!("elsewhere, and worse");
            assert_eq!(written.lines().len(), 2, "the first of a place is never left out");

            ms.store(900, Ordering::Relaxed);
            flood(1);
            assert!(written.lines().is_empty());
            ms.store(1000, Ordering::Relaxed);
            flood(10);
            let lines = written.lines();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(
                lines[0].contains("number=0 (81 more like this in the last 1 s) instance=lab"),
                "{lines:?}"
            );
            ms.store(4000, Ordering::Relaxed);
            flood(10);
            let lines = written.lines();
            assert!(
                lines[0].contains("number=0 (9 more like this in the last 3 s) instance=lab"),
                "{lines:?}"
            );
            assert_eq!(lines.iter().filter(|line| line.contains("more like this")).count(), 1);

            ms.store(60_000, Ordering::Relaxed);
            flood(100);
            assert_eq!(written.lines().len(), 20, "after a while it may be noticed again");
        });
    }

    #[test]
    fn json_has_the_count_as_a_member() {
        let (ms, brake) = by_hand();
        let written = Written::default();
        let json = Json { line: format::format().json(), instance: "lab".into(), brake };
        let log = tracing_subscriber::fmt().json().with_writer(written.clone()).event_format(json);
        tracing::subscriber::with_default(log.finish(), || {
            flood(22);
            ms.store(1000, Ordering::Relaxed);
            flood(1);
        });
        let lines = written.lines();
        let parsed: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed.len(), 21);
        assert_eq!(
            (&parsed[0]["instance"], &parsed[0]["left_out"]),
            (&"lab".into(), &serde_json::Value::Null)
        );
        assert_eq!(parsed[20]["left_out"], serde_json::json!({"lines": 2, "seconds": 1}));
    }

    #[test]
    fn what_was_asked_for_and_other_crates_are_not_braked() {
        let (_, brake) = by_hand();
        let written = Written::default();
        let text = Text { line: format::format().with_ansi(false), instance: "lab".into(), brake };
        let log = tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_ansi(false);
        tracing::subscriber::with_default(
            log.with_writer(written.clone()).event_format(text).finish(),
            || {
                for _ in 0..30 {
                    tracing::debug!("asked for");
                    tracing::warn!(target: "mongodb", "not ours");
                }
            },
        );
        assert_eq!(written.lines().len(), 60);
    }
}
