//! How far a run is: a bar on a terminal, nothing elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::receivers::Shared;

const LOOK: Duration = Duration::from_millis(200);

/// A bar; gone when dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    looking: Option<tokio::task::JoinHandle<()>>,
}

impl Progress {
    /// For so many steps.
    pub(super) fn of(what: &'static str, steps: u64) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        let template = "{msg:<12} {wide_bar:.green} {human_pos}/{human_len} {elapsed_precise} {per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress { bar, looking: None }
    }

    /// For deliveries, as the receivers count them.
    pub(super) fn of_deliveries(shared: &Arc<Shared>, deliveries: u64) -> Progress {
        let mut progress = Progress::of("deliveries", deliveries);
        let (bar, shared) = (progress.bar.clone(), shared.clone());
        if !bar.is_hidden() {
            progress.looking = Some(tokio::spawn(async move {
                loop {
                    bar.set_position(shared.deliveries());
                    tokio::time::sleep(LOOK).await;
                }
            }));
        }
        progress
    }

    /// One step more.
    pub(super) fn step(&self) {
        self.bar.inc(1);
    }

    /// Waits, a step for each second.
    pub(super) async fn wait(what: &'static str, time: Duration) {
        let progress = Progress::of(what, time.as_secs());
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep_until(end.min(tokio::time::Instant::now() + Duration::from_secs(1))).await;
            progress.step();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
        self.bar.finish_and_clear();
    }
}
