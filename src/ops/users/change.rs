//! Changing and removing users (contract 6.6).
//!
//! # Names
//!
//! A node's owner is a username, so a name is worth rights (contract D-42). Therefore a name once had stays with its
//! user: nobody else can take it while that user is there, and the user keeps what it owns. Who renames themselves can
//! take neither a name that nodes are owned by nor one like those of [`DAEMONS`]; and whoever was renamed, by whomever, is not
//! among those whom the start puts into `node:edit:any` by their name. What a new name may be, and that nobody else has one
//! that looks like it, is [`username`]'s.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{by_id, password};
use crate::auth::bootstrap::DAEMONS;
use crate::error::{Error, Result};
use crate::filter::{Filter, NODE, Test};
use crate::model::user::{Group, UserRead};
use crate::model::{ObjectId, User, email, username};
use crate::ops::nodes::node_id;
use crate::ops::{Context, consumers};
use crate::quota::Holder;
use crate::store::consumers::Owner;
use crate::store::users::{Changed, Ends, Taken, UserChange};
use crate::store::{Query, UserKey};

/// Names that a user may have had.
const MOST_NAMES: usize = 16;

/// New values of one's own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateMe {
    /// Name: 1 to 64 of letters, digits and `. _ @ + -`. No other user has one that looks like it, in any case.
    #[serde(default)]
    username: Option<String>,
    /// Address; it has to be confirmed again: a token is mailed to it.
    #[serde(default)]
    email: Option<String>,
    /// Password; tokens of logins before it end (unless `TOKENS_SURVIVE_PASSWORD` is set), named ones do not.
    #[serde(default)]
    password: Option<String>,
    /// Absent or empty: groups are an admin's affair.
    #[serde(default)]
    groups: Option<Vec<String>>,
    /// Passed over: an admin's affair.
    #[serde(default)]
    #[allow(dead_code)]
    is_active: Option<bool>,
    /// Passed over: an admin's affair.
    #[serde(default)]
    #[allow(dead_code)]
    is_superuser: Option<bool>,
    /// Passed over: an admin's affair.
    #[serde(default)]
    #[allow(dead_code)]
    is_verified: Option<bool>,
}

/// New values of a user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// 24 hex digits.
    id: String,
    /// Name: 1 to 64 of letters, digits and `. _ @ + -`. No other user has one that looks like it, in any case.
    #[serde(default)]
    username: Option<String>,
    /// Address; it has to be confirmed again unless `is_verified` says otherwise.
    #[serde(default)]
    email: Option<String>,
    /// Password; tokens of logins before it end (unless `TOKENS_SURVIVE_PASSWORD` is set), named ones do not.
    #[serde(default)]
    password: Option<String>,
    /// Names of all groups that the user is in from now on.
    #[serde(default)]
    groups: Option<Vec<String>>,
    /// Inactive users are nobody.
    #[serde(default)]
    is_active: Option<bool>,
    /// Superusers may do everything.
    #[serde(default)]
    is_superuser: Option<bool>,
    /// Whether the address is confirmed.
    #[serde(default)]
    is_verified: Option<bool>,
}

/// One user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// 24 hex digits.
    id: String,
}

/// A user as they used to be added.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Name.
    #[allow(dead_code)]
    username: String,
    /// Address.
    email: String,
    /// Password.
    #[allow(dead_code)]
    password: String,
}

/// Changes the caller.
pub async fn update_me(context: Context, params: UpdateMe) -> Result<UserRead> {
    let me = context.caller.user()?.clone();
    if params.groups.is_some_and(|groups| !groups.is_empty()) {
        return Err(Error::bad_request("User groups can only be updated by an admin user"));
    }
    let mut change = UserChange::default();
    rename(&mut change, &me, params.username)?;
    if let Some(name) = &change.username {
        may_take(&context, &me, name).await?;
    }
    readdress(&mut change, &me, params.email)?;
    let place = change.email.as_deref().map(|address| password::may_mail(&context, address)).transpose()?;
    let change = with_password(&context, change, params.password.as_deref()).await?;
    let user = apply(&context, &me, &change).await?;
    if let Some(place) = place {
        super::verify::send(&context, &user, place);
    }
    Ok(user.read())
}

/// Changes any user.
pub async fn update(context: Context, params: Update) -> Result<UserRead> {
    let id = node_id(&params.id)?;
    let found = context.app.store.user(UserKey::Id(id)).await?;
    let user = found.ok_or_else(|| missing(id))?;
    let mut change = UserChange::default();
    rename(&mut change, &user, params.username)?;
    readdress(&mut change, &user, params.email)?;
    change.is_active = params.is_active;
    change.is_superuser = params.is_superuser;
    change.is_verified = params.is_verified.or(change.is_verified);
    if let Some(names) = &params.groups {
        change.groups = Some(groups(&context, names).await?);
    }
    let change = with_password(&context, change, params.password.as_deref()).await?;
    Ok(apply(&context, &user, &change).await?.read())
}

/// Removes a user and what is theirs: their tokens end, their consumers with the names that are reserved for them, their
/// keys, and what they have pushed to queues and nobody has in hand, go. Their nodes and events stay, and their channels
/// are nobody's until they end: all of that is the pipeline's.
///
/// The user goes last, so whoever dies on the way can be followed by whoever asks again; until then they are not active,
/// so that nothing is added.
pub async fn delete(context: Context, params: Delete) -> Result<()> {
    let (app, user) = (&context.app, by_id(&context, &params.id).await?);
    let change = UserChange { is_active: Some(false), ..UserChange::default() };
    app.store.update_user(user.id, &change).await?;
    app.identities.changed(user.id).await;
    remove_things(&context, &user).await?;
    if !app.store.delete_user(user.id).await? {
        return Err(Error::not_found("Not Found"));
    }
    app.identities.changed(user.id).await;
    // What was under way when they became inactive.
    remove_things(&context, &user).await
}

async fn remove_things(context: &Context, user: &User) -> Result<()> {
    let (app, store) = (&context.app, &context.app.store);
    store.delete_tokens_of(user.id).await?;
    let owner = Owner { id: Some(user.id), name: user.username.clone() };
    let consumers = store.consumers(Some(&owner), usize::MAX).await?;
    store.delete_consumers_of(&owner).await?;
    for consumer in &consumers {
        consumers::tell(context, consumer).await;
    }
    app.kv.remove_all_of(user.id).await?;
    store.delete_items_of(user.id).await?;
    store.release_channels(user.id).await
}

/// Users are invited (contract 6.6).
pub async fn register(_: Context, params: Register) -> Result<UserRead> {
    email::check("email", &params.email)?;
    Err(Error::not_found("User registration is disabled; use /user/invite instead."))
}

/// The groups of these names: 422 if one is there twice, 400 if there is none of a name.
pub(super) async fn groups(context: &Context, names: &[String]) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::with_capacity(names.len().min(64));
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid("groups", "Groups must have unique names."));
    }
    for name in names {
        let unknown = || Error::bad_request(format!("User group does not exist with name: {name}"));
        groups.push(context.app.store.group(name).await?.ok_or_else(unknown)?);
    }
    Ok(groups)
}

/// After groups were given to a user: takes those back that were removed in the meantime.
pub(super) async fn check_groups(context: &Context, user: &User) -> Result<()> {
    for group in &user.groups {
        if context.app.store.group(&group.name).await?.is_none() {
            let left = user.groups.iter().filter(|other| other.name != group.name).cloned().collect();
            let change = UserChange { groups: Some(left), ..UserChange::default() };
            context.app.store.update_user(user.id, &change).await?;
            return Err(Error::bad_request(format!("User group does not exist with name: {}", group.name)));
        }
    }
    Ok(())
}

fn rename(change: &mut UserChange, user: &User, name: Option<String>) -> Result<()> {
    let Some(name) = name.filter(|name| *name != user.username) else { return Ok(()) };
    if !user.is_called(&name) {
        username::check(&name)?;
        if user.former_names.len() + 1 >= MOST_NAMES {
            return Err(Error::bad_request(format!("a user has had at most {MOST_NAMES} names")));
        }
    }
    change.username = Some(name);
    Ok(())
}

fn readdress(change: &mut UserChange, user: &User, address: Option<String>) -> Result<()> {
    let Some(address) = address else { return Ok(()) };
    let address = email::check("email", &address)?;
    if address != user.email {
        (change.email, change.is_verified) = (Some(address), Some(false));
    }
    Ok(())
}

async fn with_password(context: &Context, change: UserChange, password: Option<&str>) -> Result<UserChange> {
    let Some(password) = password else { return Ok(change) };
    password::check("password", password)?;
    let me = Holder::of(&context.caller, context.peer.address);
    let hash = context.app.passwords.turn(me, me)?.hash(password).await?;
    Ok(UserChange { hashed_password: Some(hash), ends: password::ends(context), ..change })
}

/// 400 if the name is worth rights that its taker does not have.
async fn may_take(context: &Context, user: &User, name: &str) -> Result<()> {
    if user.is_superuser || user.is_called(name) {
        return Ok(());
    }
    let owner = Test::Eq(name.into());
    let filter = Filter::Field { path: "owner".to_owned(), kind: NODE.type_of("owner"), test: owner };
    let query = Query { filter, sort: Vec::new(), limit: 1, offset: 0, bytes: 0 };
    let like_a_daemon = DAEMONS.iter().any(|daemon| username::outline(daemon) == username::outline(name));
    if like_a_daemon || !context.app.store.find_nodes(&query).await?.nodes.is_empty() {
        return Err(taken(Taken::Username, name));
    }
    Ok(())
}

/// Changes the user in the store and lets everybody know who has to.
pub(super) async fn apply(context: &Context, user: &User, change: &UserChange) -> Result<User> {
    let app = &context.app;
    let changed = match app.store.update_user(user.id, change).await? {
        Changed::Done(user) => *user,
        Changed::Taken(what) => return Err(taken(what, change.username.as_deref().unwrap_or_default())),
        Changed::Gone => return Err(missing(user.id)),
    };
    if change.ends == Ends::All {
        // They count no more; this takes them off the list.
        app.store.delete_tokens_of(user.id).await?;
    }
    let checked = match change.groups {
        Some(_) => check_groups(context, &changed).await,
        None => Ok(()),
    };
    app.identities.changed(user.id).await;
    checked.map(|()| changed)
}

fn taken(what: Taken, name: &str) -> Error {
    Error::bad_request(match what {
        Taken::Username => format!("Username already exists: {name}"),
        Taken::Email => "UPDATE_USER_EMAIL_ALREADY_EXISTS".to_owned(),
    })
}

fn missing(id: ObjectId) -> Error {
    Error::not_found(format!("User not found with id: {id}"))
}
