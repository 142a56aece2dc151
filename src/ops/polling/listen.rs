//! One long poll: what it acknowledges, how it waits, and what it offers.
//!
//! ```text
//! read the consumer → what was handed over is acknowledged → look behind that ─┬→ found: offered, in the same write
//!                                                                              └→ nothing: wait for the hub
//! ```
//!
//! Each of these writes names the `turn` that was read and raises it. A poll whose write finds another turn was
//! overtaken by a newer one: the newer one gets the events, and the older waits for its keep-alive.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Message, owner, polled, topic};
use crate::app::App;
use crate::background;
use crate::error::{Error, Kind, Result};
use crate::hub::Follower;
use crate::model::User;
use crate::model::event::Entry;
use crate::ops::channels::may_read;
use crate::ops::{Context, Handover};
use crate::store::consumers::{Consumer, ConsumerKey, Cursor};
use crate::sync::Bell;

/// Events that are looked at in one step.
const SCAN: usize = 256;
/// How long a poll waits to learn what became of the answer to the one before, which may be on another instance. Then
/// that instance is taken for dead, and the event is offered again.
const IN_DOUBT: Duration = Duration::from_secs(5);
/// How often it looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(15);
/// How often a place that moves without a match is written down, and a poll that waits long is noted as use.
const SAVE: Duration = Duration::from_secs(10);
const TOUCH: Duration = Duration::from_secs(60);
/// A poll ends after this time if keep-alives are turned off.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often a poll begins anew because another one is quicker.
const TRIES: usize = 100;

/// One poll that has its turn.
struct Poll<'a> {
    app: &'a Arc<App>,
    user: &'a User,
    id: u64,
    channel: String,
    promiscuous: bool,
    follower: Follower,
    turn: u64,
    /// Everything up to here was looked at or acknowledged, in this epoch.
    seq: u64,
    epoch: Arc<str>,
    /// What the store knows of `seq`.
    saved: (u64, Instant),
    /// A newer poll gets the events.
    overtaken: bool,
}

/// Answers a poll of `user`.
pub(super) async fn listen(context: &Context, user: &User, id: u64) -> Result<Message> {
    let app = &context.app;
    let begun = Instant::now();
    let signal = app.signals.listen(&topic(id));
    let wake = Arc::new(Bell::default());
    let consumer = own(context, user, id).await?;
    let follower = app.hub.follow(&consumer.channel, context.holder(), wake.clone()).await?;
    let (mut poll, found) = Poll::begin(context, user, id, follower).await?;
    if let Some(entry) = found {
        return poll.offered(context, &entry).await;
    }
    // A little earlier or later for each, so that they do not all come back at once.
    let period = Duration::from_secs(app.config.keep_alive_period);
    let deadline = match period {
        Duration::ZERO => begun + LONGEST,
        period => begun + period.mul_f64(rand::random_range(0.9..1.0)),
    };
    let mut touched = begun;
    loop {
        if let Some(entry) = poll.look_on(deadline).await? {
            return poll.offered(context, &entry).await;
        }
        tokio::select! {
            () = wake.rung() => {}
            () = signal.heard() => {
                let consumer = app.store.consumer(ConsumerKey::Id(id)).await?;
                let consumer = consumer.ok_or_else(|| removed(id))?;
                poll.overtaken |= consumer.turn != poll.turn;
            }
            () = sleep_until(touched + TOUCH) => {
                touched = Instant::now();
                if !app.store.touch_consumer(id).await? {
                    return Err(removed(id));
                }
            }
            () = sleep_until(deadline) => {}
            () = app.draining.cancelled() => {}
        }
        if Instant::now() >= deadline || app.draining.is_cancelled() {
            poll.save().await?;
            return Ok(Message::beep(&poll.channel, &app.config));
        }
    }
}

impl<'a> Poll<'a> {
    /// Acknowledges what was handed over and takes the turn; with the next event if it is at hand.
    async fn begin(
        context: &'a Context,
        user: &'a User,
        id: u64,
        follower: Follower,
    ) -> Result<(Poll<'a>, Option<Arc<Entry>>)> {
        let in_doubt = Instant::now() + IN_DOUBT;
        let consumer = own(context, user, id).await?;
        let mut poll = Poll {
            app: &context.app,
            user,
            id,
            channel: consumer.channel,
            promiscuous: consumer.promiscuous,
            follower,
            turn: consumer.turn,
            seq: 0,
            epoch: "".into(),
            saved: (0, Instant::now()),
            overtaken: false,
        };
        let mut tries = 0;
        while tries < TRIES {
            let consumer = own(context, user, id).await?;
            if consumer.cursor.is_pending() && Instant::now() < in_doubt {
                sleep(LOOK_AGAIN).await;
                continue;
            }
            tries += 1;
            (poll.turn, poll.seq) = (consumer.turn, consumer.cursor.acknowledged());
            let (found, _) = poll.look().await?;
            if poll.write(found.as_deref()).await? {
                return Ok((poll, found));
            }
        }
        let cause = anyhow::anyhow!("subscription {id} is polled too often at once");
        Err(Error::new(Kind::TooMany, "too many polls of one subscription at once")
            .because(cause)
            .retry_after(1000))
    }

    /// Looks at the next events, a step. The first one that the subscription is for, and whether there were any.
    async fn look(&mut self) -> Result<(Option<Arc<Entry>>, bool)> {
        let channel = &self.follower.channel;
        let read = channel.read_across(self.seq, SCAN).await?;
        self.epoch = read.epoch;
        if let Some((from, to)) = read.gap {
            tracing::warn!(
                id = self.id,
                channel = channel.name,
                from,
                to,
                "a subscription has missed events"
            );
            self.seq = self.seq.max(to);
        }
        let any = read.gap.is_some() || !read.entries.is_empty();
        for entry in read.entries {
            let owner = entry.value().get("owner").and_then(|owner| owner.as_str());
            if self.promiscuous || owner.is_none_or(|owner| owner == self.user.username) {
                self.seq = entry.seq.saturating_sub(1);
                return Ok((Some(entry), true));
            }
            self.seq = entry.seq;
        }
        self.follower.saw(self.seq);
        Ok((None, any))
    }

    /// Looks on until there is nothing more, or an event was found and is offered here.
    async fn look_on(&mut self, deadline: Instant) -> Result<Option<Arc<Entry>>> {
        while !self.overtaken && Instant::now() < deadline {
            let (found, any) = self.look().await?;
            if found.is_some() {
                if self.write(found.as_deref()).await? {
                    return Ok(found);
                }
                self.overtaken = true;
                // Or it has ended.
                let gone = self.app.store.consumer(ConsumerKey::Id(self.id)).await?.is_none();
                if gone {
                    return Err(removed(self.id));
                }
            }
            if !any {
                break;
            }
            if self.saved.1.elapsed() > SAVE {
                self.save().await?;
            }
        }
        Ok(None)
    }

    /// Writes where it stands, and what is offered. False: another poll was quicker.
    async fn write(&mut self, offered: Option<&Entry>) -> Result<bool> {
        let mut cursor = Cursor::at(&self.epoch, self.seq);
        cursor.offered = offered.map(|entry| entry.seq);
        let written = self.app.store.move_consumer(self.id, self.turn, &cursor).await?;
        if written {
            self.turn += 1;
            self.saved = (self.seq, Instant::now());
        }
        Ok(written)
    }

    /// Writes how far it has looked: what is not for this subscription need not be looked at again.
    async fn save(&mut self) -> Result<()> {
        if !self.overtaken && self.seq > self.saved.0 {
            self.overtaken = !self.write(None).await?;
        }
        Ok(())
    }

    /// The answer with an event, which is watched on its way.
    async fn offered(&self, context: &Context, entry: &Entry) -> Result<Message> {
        let (app, id, turn) = (self.app.clone(), self.id, self.turn);
        context.hand_over(Handover::new(move |handed| {
            background::spawn("offers", settle(app, id, turn, handed));
        }));
        // Users lose their rights also while they wait.
        let token = context.caller.token.as_ref().ok_or_else(Error::unauthorized)?;
        context.app.known(token).await?.ok_or_else(Error::unauthorized)?;
        Ok(Message::event(&self.channel, entry))
    }
}

/// Notes what became of an offered event. If that fails it will be offered again.
async fn settle(app: Arc<App>, id: u64, turn: u64, handed: bool) {
    for pause in [50, 200, 0] {
        match app.store.settle_consumer(id, turn, handed).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, id, "the delivery of an event could not be noted"),
        }
        sleep(Duration::from_millis(pause)).await;
    }
}

/// The consumer of a subscription of this user.
async fn own(context: &Context, user: &User, id: u64) -> Result<Consumer> {
    let consumer = polled(&context.app, id).await?;
    if !consumer.owner.is(&owner(&context.caller)?) {
        let detail =
            format!("Error while listening to sub id {id}: Subscription {id} not owned by {}", user.username);
        return Err(Error::new(Kind::Forbidden, detail));
    }
    may_read(&context.app, &context.caller, &consumer.channel).await?;
    Ok(consumer)
}

fn removed(id: u64) -> Error {
    Error::not_found(format!("Subscription id not found: {id}"))
}
