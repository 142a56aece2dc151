//! Users: who there is. Logging in and the like is in [`login`], changing users in [`change`], invitations in
//! [`invite`], passwords in [`password`], e-mail addresses in [`verify`].

pub mod change;
pub mod invite;
pub mod login;
pub mod password;
pub mod verify;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::conditions::Conditions;
use super::long_page::{PageOf, Part, Piece, page};
use super::operation::NoParams;
use crate::error::{Error, Kind, Result};
use crate::model::User;
use crate::model::user::{Group, UserRead};
use crate::store::UserKey;
use crate::store::users::{Page, UserFilter};

/// Users, or groups of them, that are read at a time.
pub(super) const MOST_AT_ONCE: u64 = 10_000;

/// One user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// 24 hex digits.
    id: String,
}

/// Which users.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// All of these must be equal: `id`, `username`; for superusers also `email`, `is_active`, `is_superuser`,
    /// `is_verified`, `groups.name`.
    #[serde(default)]
    filter: Option<Value>,
    /// 1 or more; default 50. A session's message holds at most 10,000.
    #[serde(default)]
    #[schemars(range(min = 1))]
    limit: Option<u64>,
    /// Skip this many first.
    #[serde(default)]
    offset: Option<u64>,
}

/// A user in a list.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UserListed")]
pub struct Listed {
    /// 24 hex digits.
    id: String,
    /// Always null; KernelCI's server has it.
    revision_id: Option<String>,
    /// Address; null unless it is one's own or one is a superuser. So are the flags; groups are empty then.
    email: Option<String>,
    /// Whether they may act.
    is_active: Option<bool>,
    /// Whether they may do everything.
    is_superuser: Option<bool>,
    /// Whether their address has been confirmed.
    is_verified: Option<bool>,
    /// Name.
    username: String,
    /// Groups.
    groups: Vec<Group>,
}

/// Contract 6.5.
pub async fn whoami(context: Context, _: NoParams) -> Result<UserRead> {
    Ok(context.caller.user()?.read())
}

/// Contract 6.5. Of others only superusers see more than the name (contract D-43).
pub async fn get(context: Context, params: Get) -> Result<UserRead> {
    Ok(seen(&context, &by_id(&context, &params.id).await?))
}

/// Contract 6.5.
pub async fn find(context: Context, params: Find) -> Result<PageOf<Listed>> {
    let page = page(params.limit, params.offset)?;
    let filter = filter(&context, params.filter.as_ref())?;
    let asker = context.clone();
    let read = move |part: Part| {
        let (context, filter) = (asker.clone(), filter.clone());
        async move {
            let _turn = context.search(true).await?;
            let page = Page { limit: part.limit, offset: part.offset };
            let found = context.app.store.find_users(&filter, page).await?;
            let items = found.items.iter().map(|user| listed(&context, user)).collect();
            Ok(Piece { items, total: found.total, behind: None })
        }
    };
    PageOf::read(&context, page, MOST_AT_ONCE, read).await
}

fn listed(context: &Context, user: &User) -> Listed {
    let UserRead { id, email, is_active, is_superuser, is_verified, username, groups } = seen(context, user);
    Listed { id, revision_id: None, email, is_active, is_superuser, is_verified, username, groups }
}

/// What is public of a user, as far as the caller may see it.
fn seen(context: &Context, user: &User) -> UserRead {
    let full = context.caller.user.as_ref().is_some_and(|me| me.is_superuser || me.id == user.id);
    if full { user.read() } else { user.read_by_others() }
}

/// The user with this id: 404 if there is none or it is no id.
async fn by_id(context: &Context, id: &str) -> Result<User> {
    let missing = || Error::not_found("Not Found");
    let id = id.parse().map_err(|_| missing())?;
    context.app.store.user(UserKey::Id(id)).await?.ok_or_else(missing)
}

/// Only public fields are conditions (contract D-32), and only what the caller may see: finding is a way of seeing.
fn filter(context: &Context, filter: Option<&Value>) -> Result<UserFilter> {
    const FIELDS: &[&str] =
        &["id", "username", "email", "is_active", "is_superuser", "is_verified", "groups.name"];
    let is_superuser = context.caller.user()?.is_superuser;
    let mut conditions = Conditions::read(filter, FIELDS)?;
    let found = UserFilter {
        id: conditions.id("id")?,
        username: conditions.text("username")?,
        email: conditions.text("email")?,
        is_active: conditions.flag("is_active")?,
        is_superuser: conditions.flag("is_superuser")?,
        is_verified: conditions.flag("is_verified")?,
        group: conditions.text("groups.name")?,
    };
    let UserFilter { email, is_active, is_superuser: flag, is_verified, group, .. } = &found;
    let has_private = email.is_some()
        || group.is_some()
        || [is_active, flag, is_verified].iter().any(|flag| flag.is_some());
    if has_private && !is_superuser {
        return Err(Error::new(Kind::Forbidden, "Forbidden"));
    }
    Ok(found)
}
