//! Named tokens, and tokens that have ended before their time.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{NamedToken, ObjectId, Timestamp};

/// Tokens by what the server must know of them; none of it is a secret.
#[async_trait]
pub trait Tokens {
    /// Adds a named token, if its user has fewer than `most` and none of this name.
    async fn insert_token(&self, token: &NamedToken, most: usize) -> Result<TokenSaved>;
    /// A named token that has neither been revoked nor expired.
    async fn token(&self, id: ObjectId) -> Result<Option<NamedToken>>;
    /// A user's named tokens that have not expired, oldest first.
    async fn tokens_of(&self, user: ObjectId) -> Result<Vec<NamedToken>>;
    /// Revokes a named token of this user; false if there is none.
    async fn delete_token(&self, user: ObjectId, id: ObjectId) -> Result<bool>;
    /// Revokes all named tokens of a user.
    async fn delete_tokens_of(&self, user: ObjectId) -> Result<()>;
    /// Notes when named tokens were used; never turns a time back.
    async fn touch_tokens(&self, used: &[(ObjectId, Timestamp)]) -> Result<()>;
    /// Remembers that a token has ended, until it would have expired anyway.
    async fn end_token(&self, key: &str, expires: Option<Timestamp>) -> Result<()>;
    /// Whether [`Tokens::end_token`] was called for it.
    async fn is_ended(&self, key: &str) -> Result<bool>;
}

/// How adding a named token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSaved {
    /// It is there.
    Done,
    /// The user has a token of this name.
    NameTaken,
    /// The user has as many as they may have.
    TooMany,
}
