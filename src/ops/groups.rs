//! Groups of users (contract 6.7).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::conditions::Conditions;
use super::long_page::{PageOf, Part, Piece, page};
use super::nodes::node_id;
use super::users::MOST_AT_ONCE;
use crate::error::{Error, Kind, Result};
use crate::model::user::Group;
use crate::store::groups::GroupDeleted;
use crate::store::users::Page;

const LONGEST_NAME: usize = 256;

/// Which groups.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// `{"name": …}`; default: all.
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

/// One group.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct One {
    /// 24 hex digits.
    id: String,
}

/// A new group.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Unique name.
    name: String,
}

/// A new group, in the order in which it has always been answered.
#[derive(Serialize, JsonSchema)]
pub struct Created {
    /// Unique name.
    name: String,
    /// 24 hex digits.
    id: Option<String>,
}

/// A page of groups.
pub async fn find(context: Context, params: Find) -> Result<PageOf<Group>> {
    let page = page(params.limit, params.offset)?;
    let name = Conditions::read(params.filter.as_ref(), &["name"])?.text("name")?;
    let store = context.app.store.clone();
    let read = move |part: Part| {
        let (store, name) = (store.clone(), name.clone());
        async move {
            let page = Page { limit: part.limit, offset: part.offset };
            let found = store.find_groups(name.as_deref(), page).await?;
            Ok(Piece { items: found.items, total: found.total, behind: None })
        }
    };
    PageOf::read(&context, page, MOST_AT_ONCE, read).await
}

/// One group.
pub async fn get(context: Context, params: One) -> Result<Group> {
    let found = context.app.store.group_by_id(node_id(&params.id)?).await?;
    found.ok_or_else(|| missing(&params.id))
}

/// Adds a group.
pub async fn create(context: Context, params: Create) -> Result<Created> {
    if params.name.len() > LONGEST_NAME || params.name.chars().any(char::is_control) {
        return Err(Error::invalid("name", format!("expected at most {LONGEST_NAME} printable characters")));
    }
    let taken = || Error::bad_request(format!("User group already exists with name: {}", params.name));
    let Group { id, name } = context.app.store.insert_group(&params.name).await?.ok_or_else(taken)?;
    Ok(Created { name, id })
}

/// Removes a group that nobody is in.
pub async fn delete(context: Context, params: One) -> Result<()> {
    match context.app.store.delete_group(node_id(&params.id)?).await? {
        GroupDeleted::Done => Ok(()),
        GroupDeleted::Missing => Err(missing(&params.id)),
        GroupDeleted::Assigned => Err(Error::new(
            Kind::Conflict,
            "User group is assigned to users and cannot be deleted. Remove it from users first.",
        )),
    }
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("User group not found with id: {id}"))
}
