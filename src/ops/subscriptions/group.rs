//! Subscriptions that share a durable name: each event goes to one of them.

use std::sync::Arc;

use super::durable::Opened;
use super::{Start, Subscribe};
use crate::consumer_group::{Wish, dead_letter};
use crate::error::{Error, Result};
use crate::ops::Context;
use crate::ops::consumers::new_name_check;
use crate::ops::polling::owner;
use crate::session::Reserved;
use crate::session::acks::{Acks, Held};
use crate::session::group::Group;
use crate::store::consumers::{Cursor, NewConsumer, Owner};

/// Events that a member may have, if it does not say how many.
const WINDOW: u32 = 16;
const LARGEST_WINDOW: u32 = 256;

/// What a client asks for who wants to share a durable name.
pub(super) struct Wanted {
    name: String,
    owner: Owner,
    window: usize,
    wish: Wish,
}

/// Reads the parameters: 401 without a user, 422 for what does not fit together.
pub(super) fn wanted(context: &Context, params: &Subscribe) -> Result<Option<Wanted>> {
    if !params.group {
        return match alien(params) {
            Some(field) => {
                Err(Error::invalid(field, "only a group has it: expected \"group\": true beside it"))
            }
            None => Ok(None),
        };
    }
    let Some(name) = &params.durable else {
        return Err(Error::invalid("group", "expected `durable` beside it: the name of the group"));
    };
    let owner = owner(&context.caller)?;
    new_name_check("durable", name)?;
    let good = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if name.is_empty() || name.len() > dead_letter::LONGEST_NAME || !name.chars().all(good) {
        let expected = format!(
            "expected 1 to {} of letters, digits and _ . : - in the name of a group",
            dead_letter::LONGEST_NAME
        );
        return Err(Error::invalid("durable", expected));
    }
    // Wherever it is stored, and wherever they go: a group must not feed on itself.
    let own = [name, &owner.apart(name)].map(|name| dead_letter::channel(name));
    let overflow = owner.id.map(dead_letter::overflow);
    if own.iter().chain(&overflow).any(|dead| params.channel == *dead) {
        return Err(Error::invalid("channel", "a group does not read its own dead letters"));
    }
    let window = params.window.unwrap_or(WINDOW);
    if !(1..=LARGEST_WINDOW).contains(&window) {
        return Err(Error::invalid("window", format!("expected 1 to {LARGEST_WINDOW} in a group")));
    }
    if params.skips() {
        return Err(Error::invalid("on_slow", "a group skips nothing: expected \"catch_up\""));
    }
    let wish = Wish {
        filter: params.filter.clone(),
        ordered: params.ordered,
        ack_wait_ms: params.ack_wait_ms,
        max_deliveries: params.max_deliveries,
    };
    wish.check()?;
    Ok(Some(Wanted { name: name.clone(), owner, window: window as usize, wish }))
}

/// The first parameter that only a group has.
fn alien(params: &Subscribe) -> Option<&'static str> {
    let given = [
        ("ordered", params.ordered.is_some()),
        ("ack_wait_ms", params.ack_wait_ms.is_some()),
        ("max_deliveries", params.max_deliveries.is_some()),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(field, _)| field)
}

/// Joins the group; a new one begins at `start`.
pub(super) async fn join(
    context: &Context,
    wanted: Wanted,
    reserved: &Reserved,
    channel: &str,
    mut start: Start,
) -> Result<Opened> {
    let app = &context.app;
    let new = NewConsumer {
        name: Some(wanted.name),
        channel: channel.to_owned(),
        owner: wanted.owner.clone(),
        promiscuous: true,
        cursor: Cursor::at(&start.position.epoch, start.position.seq),
        share: Some(context.share()?),
        session: None,
    };
    let joined = app.groups.join(&new, &wanted.wish, wanted.window, &reserved.wake()).await?;
    let resumed = joined.resumed;
    if resumed {
        start = Start { position: joined.position.clone(), missed: None };
    }
    let weight = joined.settings.filter()?.map_or(0, |filter| filter.weight());
    let acks = Acks::Group(Arc::new(Group::new(app.clone(), joined, wanted.owner)));
    reserved.acknowledged_to(acks.clone());
    Ok(Opened { recovered: start.missed.is_none(), start, resumed, held: Held(acks), weight })
}
