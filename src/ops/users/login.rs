//! Logging in and out.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::auth::passwords::{Turn, Verdict};
use crate::error::{Error, Result};
use crate::model::User;
use crate::ops::Context;
use crate::ops::operation::NoParams;
use crate::ops::subscriptions::Done;
use crate::quota::rate::Taken;
use crate::quota::{Holder, neighbourhood};
use crate::store::UserKey;

/// How long the answer to wrong credentials takes at least: hashes of different forms take different times, and
/// nobody shall learn from them whom there is.
const SHORTEST_REFUSAL: Duration = Duration::from_millis(400);

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
pub struct LoggedIn {
    access_token: String,
    token_type: &'static str,
}

/// Contract 6.1: unknown, wrong and inactive are told the same.
pub async fn login(context: Context, params: Login) -> Result<LoggedIn> {
    if !matches!(params.grant_type.as_deref(), None | Some("" | "password")) {
        return Err(Error::invalid("grant_type", "expected \"password\""));
    }
    let (user, _) = authenticate(&context, &params.username, &params.password).await?;
    if !user.is_verified {
        return Err(Error::bad_request("LOGIN_USER_NOT_VERIFIED"));
    }
    Ok(LoggedIn { access_token: context.app.tokens.issue(&user)?, token_type: "bearer" })
}

/// The active user of this name and password, or 400; and the turn that they had, for what is left to hash. Who guesses
/// too often is told to come back later.
pub(super) async fn authenticate<'c>(
    context: &'c Context,
    username: &str,
    password: &str,
) -> Result<(User, Turn<'c>)> {
    let (app, began) = (&context.app, Instant::now());
    let user = app.store.user(UserKey::Name(username)).await?;
    // A turn comes first: who gets none has not guessed.
    let asker = Holder::of(&context.caller, context.peer.address);
    let turn = app.passwords.turn(asker, Holder::name(username))?;
    let guess = app.limits.guess(neighbourhood(context.peer.address), username)?;
    let hash = user.as_ref().map(|user| user.hashed_password.as_str());
    let verdict = turn.verify(password, hash).await?;
    let Some(mut user) = user.filter(|user| user.is_active && verdict != Verdict::Wrong) else {
        drop(turn);
        tokio::time::sleep_until(began + SHORTEST_REFUSAL).await;
        return Err(Error::bad_request("LOGIN_BAD_CREDENTIALS"));
    };
    guess.into_iter().for_each(Taken::refund);
    if let Verdict::RightUpgrade(new) = verdict {
        app.store.replace_password(user.id, &user.hashed_password, &new).await?;
        user.hashed_password = new;
    }
    Ok((user, turn))
}

/// Ends the token that the request came with, and the rights of every session that it opened.
pub async fn logout(context: Context, _: NoParams) -> Result<Done> {
    let token = context.caller.token.as_ref().ok_or_else(Error::unauthorized)?;
    match token.named {
        Some(id) => drop(context.app.store.delete_token(token.user, id).await?),
        None => context.app.store.end_token(&token.key, token.expires).await?,
    }
    context.app.identities.changed(token.user).await;
    Ok(Done {})
}
