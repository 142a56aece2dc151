//! Users and groups (contract 6, 7.5).

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{ObjectId, User, user::Group};

/// Who there is. Names and addresses are unique, addresses also when they differ in case only.
#[async_trait]
pub trait Users {
    /// The user with this key.
    async fn user(&self, key: UserKey<'_>) -> Result<Option<User>>;
    /// Whether any active superuser exists.
    async fn has_superuser(&self) -> Result<bool>;
    /// Adds a user; 400 if the name or the address is taken.
    async fn insert_user(&self, user: &User) -> Result<()>;
    /// Replaces the password hash if it still is `old` (a login upgrades bcrypt to argon2id).
    async fn replace_password(&self, id: ObjectId, old: &str, new: &str) -> Result<()>;
    /// The group of this name.
    async fn group(&self, name: &str) -> Result<Option<Group>>;
    /// Adds the group if it is missing, and the users of these names to it.
    async fn ensure_group(&self, name: &str, usernames: &[&str]) -> Result<()>;
}

/// How to look a user up.
#[derive(Clone, Copy, Debug)]
pub enum UserKey<'a> {
    /// By id.
    Id(ObjectId),
    /// By exact name.
    Name(&'a str),
}
