//! Channels of the server's own: who may publish on them, and who may read what is on them.
//!
//! Readers take for true what stands on these channels, so nobody else publishes there, superusers included. Dead letters
//! repeat the events of their group and what its workers said of them: they are for the owner of the group, and superusers.

use super::Context;
use crate::app::App;
use crate::auth::Caller;
use crate::consumer_group::dead_letter;
use crate::error::{Error, Kind, Result};
use crate::event_log::{EventLog, HistoryQuery};
use crate::filter::{EVENT, Filter, Test};
use crate::model::User;
use crate::session::subscription::ReadsAs;
use crate::store::consumers::{ConsumerKey, owner_in_name};

/// The channels that the server writes, besides that of the nodes.
const OURS: [&str; 2] = ["tree", "artifact"];
/// How the names of further ones begin.
const OURS_BEGIN: [&str; 2] = [dead_letter::PREFIX, "node."];

/// 403 if only the server publishes on the channel.
pub(super) fn may_publish(channel: &str) -> Result<()> {
    let is_ours = OURS.contains(&channel) || OURS_BEGIN.iter().any(|begin| channel.starts_with(begin));
    match is_ours {
        true => Err(Error::new(Kind::Forbidden, format!("channel: only the server publishes on {channel}"))),
        false => Ok(()),
    }
}

/// Whether not everybody may read the channel who may read events.
pub fn is_private(channel: &str) -> bool {
    channel.starts_with(dead_letter::PREFIX)
}

/// 401 or 403 unless the caller may read the channel; as whom they do, where that matters.
pub async fn may_read(app: &App, caller: &Caller, channel: &str) -> Result<Option<ReadsAs>> {
    let Some(group) = channel.strip_prefix(dead_letter::PREFIX) else { return Ok(None) };
    let user = caller.user()?;
    if user.is_superuser || has_dead_letters(app, user, channel, group).await? {
        return Ok(Some(ReadsAs { user: user.id, as_superuser: user.is_superuser }));
    }
    let detail = format!("channel: {channel} is for the owner of the group, and superusers");
    Err(Error::new(Kind::Forbidden, detail))
}

/// Whether dead letters of the group that is stored under this name are this user's. They stay theirs when the group has
/// gone, and there may be a group and none yet.
async fn has_dead_letters(app: &App, user: &User, channel: &str, group: &str) -> Result<bool> {
    if let Some(owner) = owner_in_name(group) {
        return Ok(owner == user.id);
    }
    if let Some(owner) = app.store.channel_owner(channel).await? {
        return Ok(owner == user.id);
    }
    let consumer = app.store.consumer(ConsumerKey::Name(group)).await?;
    Ok(consumer.is_some_and(|one| one.group.is_some() && one.owner.id == Some(user.id)))
}

/// What of the history of all channels the caller may see: no dead letters of others. `None`: everything.
pub(super) fn visible(context: &Context) -> Option<Filter> {
    let user = context.caller.user.as_deref();
    if user.is_some_and(|user| user.is_superuser) {
        return None;
    }
    let test = |path: &str, test| Filter::Field { path: path.to_owned(), kind: EVENT.type_of(path), test };
    let mut any = vec![test("type", Test::Ne(dead_letter::TYPE.into()))];
    if let Some(user) = user {
        let names = user.former_names.iter().chain([&user.username]);
        any.push(test("owner", Test::In(names.map(|name| name.as_str().into()).collect())));
    }
    Some(Filter::Or(any))
}

/// Says in the log which channels of the server's own have events of others: of a site that has used such a name.
pub async fn tell_of_strangers(log: &dyn EventLog) {
    let look = async {
        for channel in log.like(&OURS, &OURS_BEGIN).await? {
            let path = "type".to_owned();
            let test = Test::Ne(dead_letter::TYPE.into());
            let query = HistoryQuery {
                channel: Some(channel.clone()),
                filter: Filter::Field { kind: EVENT.type_of(&path), path, test },
                after: None,
                skip: 0,
                limit: 1,
            };
            if !log.find(&query).await?.is_empty() {
                tracing::warn!(
                    channel,
                    "this channel is the server's own and has events of others: nobody can publish there any more, use another name"
                );
            }
        }
        Ok::<(), Error>(())
    };
    if let Err(error) = look.await {
        tracing::warn!(%error, "channels were not looked at");
    }
}
