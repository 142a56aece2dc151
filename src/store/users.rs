//! Users (contract 6, 7.5).

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{ObjectId, Timestamp, User, user::Group};

/// Who there is.
///
/// Names and addresses are unique, addresses also when they differ in case only, new names when they look like another one
/// ([`username::outline`](crate::model::username::outline)). A name that a user once had is taken for everybody else as long
/// as that user is there, because nodes name their owner by it. All of this holds between racing writers.
#[async_trait]
pub trait Users {
    /// The user with this key.
    async fn user(&self, key: UserKey<'_>) -> Result<Option<User>>;
    /// The users that match, oldest first.
    async fn find_users(&self, filter: &UserFilter, page: Page) -> Result<Paged<User>>;
    /// Whether any active superuser exists.
    async fn has_superuser(&self) -> Result<bool>;
    /// Adds a user, unless something of theirs is taken: then says what.
    async fn insert_user(&self, user: &User) -> Result<Option<Taken>>;
    /// Changes a user in one step.
    async fn update_user(&self, id: ObjectId, change: &UserChange) -> Result<Changed>;
    /// Replaces the password hash if it still is `old` (a login upgrades bcrypt to argon2id). No token ends.
    async fn replace_password(&self, id: ObjectId, old: &str, new: &str) -> Result<()>;
    /// Removes a user; false if there was none.
    async fn delete_user(&self, id: ObjectId) -> Result<bool>;
}

/// How to look a user up.
#[derive(Clone, Copy, Debug)]
pub enum UserKey<'a> {
    /// By id.
    Id(ObjectId),
    /// By exact name.
    Name(&'a str),
    /// By address in any case.
    Email(&'a str),
}

/// Which users: all that is given must be equal.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// By id.
    pub id: Option<ObjectId>,
    /// By exact name.
    pub username: Option<String>,
    /// By exact address.
    pub email: Option<String>,
    /// By the flag.
    pub is_active: Option<bool>,
    /// By the flag.
    pub is_superuser: Option<bool>,
    /// By the flag.
    pub is_verified: Option<bool>,
    /// Members of the group of this name.
    pub group: Option<String>,
}

/// Which part of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// At most so many.
    pub limit: u64,
    /// Skip so many first.
    pub offset: u64,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    /// The part.
    pub items: Vec<T>,
    /// How long the list is.
    pub total: u64,
}

/// New values of a user; `None` leaves what is there.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// Their name; the old one becomes a former name.
    pub username: Option<String>,
    /// Their address.
    pub email: Option<String>,
    /// The hash of a new password.
    pub hashed_password: Option<String>,
    /// Which tokens end with it.
    pub ends: Ends,
    /// See [`User`].
    pub is_active: Option<bool>,
    /// See [`User`].
    pub is_superuser: Option<bool>,
    /// See [`User`].
    pub is_verified: Option<bool>,
    /// A mailed token confirms their address: it is verified, and no token that was mailed before confirms it again.
    pub confirms: bool,
    /// All groups from now on.
    pub groups: Option<Vec<Group>>,
    /// Nothing is changed unless this still holds.
    pub only_if: Unchanged,
}

/// Which tokens of a user end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    /// None.
    #[default]
    Nothing,
    /// Those that logins have given.
    Logins,
    /// These, and those that the user has made and named.
    All,
}

/// What of a user must be as it was read; `None`: as it likes.
#[derive(Clone, Debug, Default)]
pub struct Unchanged {
    /// The password hash.
    pub password: Option<String>,
    /// The address.
    pub email: Option<String>,
    /// See [`User`].
    pub confirmations: Option<u32>,
}

impl Unchanged {
    /// Whether the user is as it says.
    pub(super) fn holds(&self, user: &User) -> bool {
        self.password.as_ref().is_none_or(|hash| *hash == user.hashed_password)
            && self.email.as_ref().is_none_or(|address| *address == user.email)
            && self.confirmations.is_none_or(|count| count == user.confirmations)
    }
}

/// What of a user is taken by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The name.
    Username,
    /// The address.
    Email,
}

/// How a change of a user ended.
#[derive(Clone, Debug)]
pub enum Changed {
    /// The user as they are now.
    Done(Box<User>),
    /// Nothing was changed: this is taken.
    Taken(Taken),
    /// Nothing was changed: no such user, or not as [`UserChange::only_if`] says.
    Gone,
}

impl UserChange {
    /// The name that the user has not had before, if the change gives them one: nobody else may have one like it.
    pub(super) fn new_name(&self, user: &User) -> Option<&str> {
        self.username.as_deref().filter(|name| !user.is_called(name))
    }

    /// What changing `user` means, the same for every store.
    pub(super) fn apply(&self, user: &mut User, now: Timestamp) {
        if let Some(name) = self.username.as_ref().filter(|name| **name != user.username) {
            let old = std::mem::replace(&mut user.username, name.clone());
            user.former_names.retain(|former| former != name);
            user.former_names.push(old);
        }
        if let Some(hash) = &self.hashed_password {
            user.hashed_password = hash.clone();
        }
        if self.ends != Ends::Nothing {
            user.generation += 1;
            user.tokens_from = Some(now);
        }
        if self.ends == Ends::All {
            user.named_from = user.generation;
        }
        let set = |flag: &mut bool, new: Option<bool>| *flag = new.unwrap_or(*flag);
        set(&mut user.is_active, self.is_active);
        set(&mut user.is_superuser, self.is_superuser);
        set(&mut user.is_verified, self.is_verified);
        if self.confirms {
            user.is_verified = true;
            user.confirmations += 1;
        }
        if let Some(email) = &self.email {
            user.email.clone_from(email);
        }
        if let Some(groups) = &self.groups {
            user.groups.clone_from(groups);
        }
    }
}
