//! Who is asking.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{Timestamp, User};

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

/// Who is asking: nobody in particular, or a user with a token that ends at some time.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The user, active at the time of the request.
    pub user: Option<Arc<User>>,
    /// When the token ends.
    pub expires: Option<Timestamp>,
}

impl Caller {
    /// The user, or 401.
    pub fn user(&self) -> Result<&Arc<User>> {
        self.user.as_ref().ok_or_else(Error::unauthorized)
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
}
