//! How the demo shows what it does: a moving line on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::plan::Checkout;
use super::player::Player;
use crate::client::{Client, Delivery, Result, State, Subscribe, Subscription};
use crate::model::event::NODE_CHANNEL;

/// Between two looks on a terminal, and elsewhere.
const LOOK: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(5);

/// Shows the progress of a player. Cheap to clone.
#[derive(Clone)]
pub(super) struct Progress {
    shared: Arc<Shared>,
}

struct Shared {
    player: Player,
    bar: ProgressBar,
    /// Events that came back from the server.
    events: AtomicU64,
    started: Instant,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Progress {
    /// Subscribes to the events that the demo causes, to count them, and begins to show.
    pub(super) async fn start(client: &Client, player: Player) -> Result<Progress> {
        let events = client.subscribe(Subscribe::to(NODE_CHANNEL)).await?;
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner:.green} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        let shared = Shared {
            player,
            bar,
            events: AtomicU64::new(0),
            started: Instant::now(),
            tasks: Mutex::default(),
        };
        let progress = Progress { shared: Arc::new(shared) };
        let mut tasks = progress.shared.tasks.lock().await;
        tasks.push(tokio::spawn(progress.clone().count(events)));
        tasks.push(tokio::spawn(progress.clone().show(client.clone(), terminal)));
        drop(tasks);
        Ok(progress)
    }

    /// One line that stays.
    pub(super) fn say(&self, line: impl AsRef<str>) {
        if self.shared.bar.is_hidden() {
            eprintln!("{}", line.as_ref());
        } else {
            self.shared.bar.println(line);
        }
    }

    /// A checkout begins.
    pub(super) fn checkout(&self, plan: &Checkout) {
        let text = |key: &str| plan.revision[key].as_str().unwrap_or_default();
        let jobs: usize = plan.jobs.len() + plan.builds.iter().map(|build| build.jobs.len()).sum::<usize>();
        self.say(format!(
            "{}/{} {}: {} builds, {jobs} jobs",
            text("tree"),
            text("branch"),
            text("describe"),
            plan.builds.len()
        ));
    }

    /// Stops showing, with a last line.
    pub(super) async fn finish(&self) {
        for task in self.shared.tasks.lock().await.drain(..) {
            task.abort();
        }
        self.shared.bar.finish_and_clear();
        let seconds = self.shared.started.elapsed().as_secs_f64().max(0.001);
        let events = self.shared.events.load(Ordering::Relaxed) as f64;
        eprintln!("{}", self.line(events / seconds));
    }

    fn line(&self, rate: f64) -> String {
        let tally = self.shared.player.tally();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "checkouts {}  builds {}  jobs {}  tests {}  writes {}  {rate:.1} events/s",
            of(&tally.checkouts),
            of(&tally.builds),
            of(&tally.jobs),
            of(&tally.tests),
            of(&tally.writes)
        )
    }

    async fn count(self, mut events: Subscription) {
        while let Some(delivery) = events.next().await {
            if let Delivery::Event(_) = delivery {
                self.shared.events.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn show(self, client: Client, terminal: bool) {
        let mut ticks = tokio::time::interval(if terminal { LOOK } else { LINE });
        let mut state = client.state();
        state.mark_unchanged();
        let mut was_connected = true;
        let (mut before, mut at, mut rate) = (0, Instant::now(), 0.0);
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = state.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = state.borrow_and_update().clone();
                    match now {
                        State::Connected(_) => self.say("-- connected again"),
                        State::Reconnecting { reason, attempt, .. }
                            if was_connected || attempt.is_power_of_two() =>
                        {
                            self.say(format!("-- {reason}; connecting again (try {attempt})"));
                        }
                        _ => {}
                    }
                    was_connected = matches!(*state.borrow(), State::Connected(_));
                    continue;
                }
            }
            // A rate over less than this would jump about.
            if at.elapsed() >= Duration::from_secs(2) {
                let events = self.shared.events.load(Ordering::Relaxed);
                rate = (events - before) as f64 / at.elapsed().as_secs_f64();
                (before, at) = (events, Instant::now());
            }
            let line = self.line(rate);
            if terminal {
                self.shared.bar.set_message(line);
                self.shared.bar.tick();
            } else {
                eprintln!("{line}");
            }
        }
    }
}
