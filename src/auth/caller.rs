//! Who is asking.

use std::sync::Arc;

use super::tokens::Token;
use crate::error::{Error, Kind, Result};
use crate::model::{Scope, Timestamp, User};

/// What an operation asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, also before `session.hello`.
    Open,
    /// Anybody, unless anonymous reading is switched off.
    Read,
    /// An active user.
    Active,
    /// An active user with a verified e-mail address.
    Verified,
    /// An active superuser.
    Superuser,
}

impl Access {
    /// For the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Access::Open => "open",
            Access::Read => "read (anonymous by default)",
            Access::Active => "active user",
            Access::Verified => "verified user",
            Access::Superuser => "superuser",
        }
    }
}

/// What an operation does: which tokens may call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Only looks: every token.
    Reads,
    /// Writes nodes, and asks for each whether the token covers it: tokens that may write some.
    WritesNodes,
    /// Anything else: tokens that may do all that their user may.
    Writes,
}

impl Effect {
    /// What an operation of this access rule does, as long as it does not say otherwise.
    pub fn of(access: Access) -> Effect {
        match access {
            Access::Open | Access::Read => Effect::Reads,
            Access::Active | Access::Verified | Access::Superuser => Effect::Writes,
        }
    }
}

/// Who is asking: nobody in particular, or a user with a token.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The user, active at the time of the request.
    pub user: Option<Arc<User>>,
    /// The token that says so.
    pub token: Option<Arc<Token>>,
    /// What of the user's rights the token carries.
    pub scope: Scope,
}

impl Caller {
    /// The user, or 401.
    pub fn user(&self) -> Result<&Arc<User>> {
        self.user.as_ref().ok_or_else(Error::unauthorized)
    }
    /// When the token ends, if it does.
    pub fn expires(&self) -> Option<Timestamp> {
        self.token.as_ref()?.expires
    }
    /// Whether the operation's access rule lets this caller in: 401 without a user, 403 without the right.
    pub fn check(&self, access: Access, anonymous_read: bool) -> Result<()> {
        match access {
            Access::Open => Ok(()),
            Access::Read if anonymous_read => Ok(()),
            Access::Read | Access::Active => self.user().map(drop),
            Access::Verified if self.user()?.is_verified => Ok(()),
            Access::Superuser if self.user()?.is_superuser => Ok(()),
            Access::Verified | Access::Superuser => Err(Error::forbidden()),
        }
    }
    /// Whether the token's scope lets the caller do this: 403 if not.
    pub fn check_scope(&self, effect: Effect) -> Result<()> {
        match (&self.scope, effect) {
            (Scope::Full, _) | (_, Effect::Reads) | (Scope::Runtimes(_), Effect::WritesNodes) => Ok(()),
            (scope, _) => {
                let scopes = scope.names().join(", ");
                Err(Error::new(
                    Kind::Forbidden,
                    format!("this token has the scope {scopes}, which is not enough"),
                ))
            }
        }
    }
}
