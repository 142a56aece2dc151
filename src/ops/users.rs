//! Users: logging in, and who one is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::operation::NoParams;
use crate::auth::passwords::Verdict;
use crate::error::{Error, Result};
use crate::model::user::UserRead;
use crate::store::UserKey;

/// A name and a password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Exact name.
    username: String,
    /// Password.
    password: String,
    /// `password`, or absent (OAuth2 forms send it).
    #[serde(default)]
    grant_type: Option<String>,
    /// Sent by OAuth2 forms; not used.
    #[serde(default)]
    #[allow(dead_code)]
    scope: Option<String>,
    /// Sent by OAuth2 forms; not used.
    #[serde(default)]
    #[allow(dead_code)]
    client_id: Option<String>,
    /// Sent by OAuth2 forms; not used.
    #[serde(default)]
    #[allow(dead_code)]
    client_secret: Option<String>,
}

/// A token for `Authorization: Bearer` and `session.hello`.
#[derive(Serialize, JsonSchema)]
pub struct Token {
    access_token: String,
    token_type: &'static str,
}

/// Contract 6.1: unknown, wrong and inactive are told the same.
pub async fn login(context: Context, params: Login) -> Result<Token> {
    if !matches!(params.grant_type.as_deref(), None | Some("" | "password")) {
        return Err(Error::invalid("grant_type", "expected \"password\""));
    }
    let app = &context.app;
    let user = app.store.user(UserKey::Name(&params.username)).await?;
    let hash = user.as_ref().map(|user| user.hashed_password.as_str());
    let verdict = app.passwords.verify(&params.password, hash).await?;
    let refused = || Error::bad_request("LOGIN_BAD_CREDENTIALS");
    let user = user.filter(|user| user.is_active && verdict != Verdict::Wrong).ok_or_else(refused)?;
    if !user.is_verified {
        return Err(Error::bad_request("LOGIN_USER_NOT_VERIFIED"));
    }
    if let Verdict::RightUpgrade(new) = verdict {
        app.store.replace_password(user.id, &user.hashed_password, &new).await?;
    }
    Ok(Token { access_token: app.tokens.issue(user.id)?, token_type: "bearer" })
}

/// Contract 6.5.
pub async fn whoami(context: Context, _: NoParams) -> Result<UserRead> {
    Ok(context.caller.user()?.read())
}
