//! Durable subscriptions: a name under which a user's place in a channel is kept.

use super::{Missed, OnSlow, Start, Subscribe};
use crate::app::App;
use crate::error::{Error, Result};
use crate::model::Position;
use crate::ops::Context;
use crate::ops::consumers::new_name_check;
use crate::ops::opening::open_consumer;
use crate::ops::polling::{owner, topic};
use crate::session::Reserved;
use crate::session::acks::{Acks, Held};
use crate::session::durable::Durable;
use crate::store::consumers::{Consumer, Cursor, NewConsumer, Owner};

/// Events that may wait to be acknowledged, if the client does not say how many.
const WINDOW: usize = 256;
/// The most that a client may ask for.
pub const LARGEST_WINDOW: usize = 1000;

/// What a client asks for who wants its place to be kept.
pub(super) struct Wanted {
    name: String,
    owner: Owner,
    window: usize,
}

/// A place that is kept.
pub(super) struct Opened {
    pub(super) start: Start,
    /// Nothing lies between the place that was kept and `start`.
    pub(super) recovered: bool,
    /// There was such a consumer.
    pub(super) resumed: bool,
    pub(super) held: Held,
    /// Bytes of a group's filter.
    pub(super) weight: usize,
}

/// Reads the parameters: 401 without a user, 422 for what does not fit together.
pub(super) fn wanted(context: &Context, params: &Subscribe) -> Result<Option<Wanted>> {
    let Some(name) = &params.durable else {
        return match params.window {
            Some(_) => Err(Error::invalid("window", "only a durable subscription has one")),
            None => Ok(None),
        };
    };
    let owner = owner(&context.caller)?;
    new_name_check("durable", name)?;
    let window = params.window.map_or(WINDOW, |window| window as usize);
    if !(1..=LARGEST_WINDOW).contains(&window) {
        return Err(Error::invalid("window", format!("expected 1 to {LARGEST_WINDOW}")));
    }
    if params.on_slow == OnSlow::Latest {
        return Err(Error::invalid("on_slow", "a durable subscription skips nothing: expected \"catch_up\""));
    }
    Ok(Some(Wanted { name: name.clone(), owner, window }))
}

/// Opens the consumer, or takes it over; a new one begins at `start`.
pub(super) async fn open(
    context: &Context,
    wanted: Wanted,
    reserved: &Reserved,
    channel: &str,
    start: Start,
) -> Result<Opened> {
    let app = &context.app;
    let new = NewConsumer {
        name: Some(wanted.name),
        channel: channel.to_owned(),
        owner: wanted.owner,
        promiscuous: true,
        cursor: Cursor::at(&start.position.epoch, start.position.seq),
        share: Some(context.share()?),
        session: Some(context.session()?.id().to_owned()),
    };
    let opening = open_consumer(app, "durable", new).await?;
    let mut consumer = opening.consumer().clone();
    // A new one has not been touched yet.
    let resumed = consumer.turn > 0;
    let (start, recovered) = match resumed {
        true => resume(app, &mut consumer).await?,
        false => {
            let recovered = start.missed.is_none();
            (start, recovered)
        }
    };
    let listener = app.signals.listen_with(&topic(consumer.id.unwrap_or_default()), reserved.wake());
    let place = (start.position.epoch.as_str().into(), start.position.seq);
    let durable = Durable::new(app.clone(), &consumer, wanted.window, listener, reserved.wake(), place);
    opening.keep();
    let acks = Acks::Durable(durable);
    reserved.acknowledged_to(acks.clone());
    Ok(Opened { start, recovered, resumed, held: Held(acks), weight: 0 })
}

/// Where a consumer goes on that there was: behind its place, whichever epoch that is of. What cannot be read any more is
/// told exactly, here if it comes first, else in its turn; where history was lost it has not recovered in any case.
async fn resume(app: &App, consumer: &mut Consumer) -> Result<(Start, bool)> {
    let (channel, kept) = (&consumer.channel, consumer.cursor.clone());
    let mut head = app.log.head(channel).await?;
    if kept.seq > head.seq {
        head = app.log.head_again(channel).await?;
    }
    let at = |seq, missed| Start { position: Position { epoch: head.epoch.clone(), seq }, missed };
    if kept.seq > head.seq {
        // The log stands before where the reader was: a restored backup. Acknowledgements count from there.
        let missed = (kept.epoch == head.epoch).then_some(Missed { from: head.seq + 1, to: kept.seq });
        consumer.cursor = Cursor::at(&head.epoch, head.seq);
        app.store.move_consumer(consumer.id.unwrap_or_default(), consumer.turn, &consumer.cursor).await?;
        return Ok((at(head.seq, missed), false));
    }
    // That of KernelCI's own server is no epoch that ended.
    let same = kept.epoch == head.epoch || kept.epoch.is_empty();
    match app.log.read_across(channel, kept.seq, 1).await?.gap {
        Some((from, to)) => Ok((at(to, Some(Missed { from, to })), false)),
        None => Ok((at(kept.seq, None), same)),
    }
}
