//! Groups of users (contract 6.7, 7.5). A user's groups are copies of these.

use async_trait::async_trait;

use super::users::{Page, Paged};
use crate::error::Result;
use crate::model::{ObjectId, user::Group};

/// The groups that there are. Names are unique.
#[async_trait]
pub trait Groups {
    /// The group of this name.
    async fn group(&self, name: &str) -> Result<Option<Group>>;
    /// The group of this id.
    async fn group_by_id(&self, id: ObjectId) -> Result<Option<Group>>;
    /// The groups of this name (one at most), or all, oldest first.
    async fn find_groups(&self, name: Option<&str>, page: Page) -> Result<Paged<Group>>;
    /// Adds a group; `None` if the name is taken.
    async fn insert_group(&self, name: &str) -> Result<Option<Group>>;
    /// Removes a group that nobody is in.
    async fn delete_group(&self, id: ObjectId) -> Result<GroupDeleted>;
    /// Adds the group if it is missing, and the users of these names to it; but not users who were renamed to such a
    /// name: a name that anybody can take gives no rights.
    async fn ensure_group(&self, name: &str, usernames: &[&str]) -> Result<()>;
}

/// How the removal of a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupDeleted {
    /// It is gone.
    Done,
    /// Users are in it; it stays.
    Assigned,
    /// There is none of this id.
    Missing,
}
