//! Users and the groups that they are in (contract 6.4, 7.5).

use serde::{Deserialize, Serialize};

use super::{ObjectId, Timestamp};

/// A user as the server knows them. `hashed_password` never leaves the server.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// Identifier; the `sub` of tokens.
    pub id: ObjectId,
    /// Unique name.
    pub username: String,
    /// Unique address.
    pub email: String,
    /// argon2id in PHC form, or bcrypt (`$2b$…`) in older databases.
    pub hashed_password: String,
    /// Inactive users are nobody.
    pub is_active: bool,
    /// May do everything.
    pub is_superuser: bool,
    /// Whose e-mail address has been confirmed.
    pub is_verified: bool,
    /// Groups, copied by value as KernelCI does.
    pub groups: Vec<Group>,
    /// Other names that they had before. A node's owner is a name, so names once had stay theirs.
    pub former_names: Vec<String>,
    /// Counts changes of the password: tokens that name an earlier count have ended.
    pub generation: u32,
    /// Tokens that name no count (other KernelCI services make them) must have been issued since then.
    pub tokens_from: Option<Timestamp>,
    /// Named tokens that name an earlier count of [`User::generation`] have ended.
    pub named_from: u32,
    /// Counts the mailed tokens that have confirmed an address of theirs: each is good for the count that it names.
    pub confirmations: u32,
}

/// A group of users, e.g. `node:edit:any` or `runtime:lava-x:node-editor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Group {
    /// Identifier (24 hex digits), if the database has it.
    pub id: Option<String>,
    /// Unique name.
    pub name: String,
}

/// What may be read of a user, in KernelCI's order of fields (contract 6.4).
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct UserRead {
    /// 24 hex digits.
    pub id: String,
    /// Address; null where one is not to see it. So are the flags; groups are empty then.
    pub email: Option<String>,
    /// Whether they may act.
    pub is_active: Option<bool>,
    /// Whether they may do everything.
    pub is_superuser: Option<bool>,
    /// Whether their address has been confirmed.
    pub is_verified: Option<bool>,
    /// Unique name.
    pub username: String,
    /// Groups.
    pub groups: Vec<Group>,
}

impl User {
    /// What they themselves and superusers may read.
    pub fn read(&self) -> UserRead {
        UserRead {
            email: Some(self.email.clone()),
            is_active: Some(self.is_active),
            is_superuser: Some(self.is_superuser),
            is_verified: Some(self.is_verified),
            groups: self.groups.clone(),
            ..self.read_by_others()
        }
    }
    /// What everybody may read who is logged in: whom a name and an id belong to.
    pub fn read_by_others(&self) -> UserRead {
        UserRead {
            id: self.id.to_hex(),
            email: None,
            is_active: None,
            is_superuser: None,
            is_verified: None,
            username: self.username.clone(),
            groups: Vec::new(),
        }
    }
    /// Whether a node whose owner has this name is theirs.
    pub fn is_called(&self, name: &str) -> bool {
        self.username == name || self.former_names.iter().any(|former| former == name)
    }
    /// Whether the user is in the group of this name.
    pub fn in_group(&self, name: &str) -> bool {
        self.groups.iter().any(|group| group.name == name)
    }
}
