//! Logging in and out.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::auth::origins::Origin;
use crate::auth::passwords::{Turn, Verdict};
use crate::error::{Error, Result};
use crate::model::{ObjectId, User};
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
    /// A token of an earlier login of this user, even one that has ended. Whoever sends it need not wait because of wrong
    /// passwords that strangers have tried.
    #[serde(default)]
    last_token: Option<String>,
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
    let given = Given {
        username: &params.username,
        password: &params.password,
        last_token: params.last_token.as_deref(),
    };
    let (user, _) = authenticate(&context, given).await?;
    if !user.is_verified {
        return Err(Error::bad_request("LOGIN_USER_NOT_VERIFIED"));
    }
    Ok(LoggedIn { access_token: context.app.tokens.issue(&user)?, token_type: "bearer" })
}

/// What somebody gives who wants to be a user.
pub(super) struct Given<'g> {
    pub(super) username: &'g str,
    pub(super) password: &'g str,
    pub(super) last_token: Option<&'g str>,
}

/// The active user of this name and password, or 400; and the turn that they had, for what is left to hash. Who guesses
/// too often is told to come back later.
pub(super) async fn authenticate<'c>(context: &'c Context, given: Given<'_>) -> Result<(User, Turn<'c>)> {
    let (app, began) = (&context.app, Instant::now());
    let user = app.store.user(UserKey::Name(given.username)).await?;
    let origin = user.as_ref().and_then(|user| origin(context, user.id, given.last_token));
    // A turn comes first: who gets none has not guessed.
    let turn = turn(context, given.username, origin.as_ref())?;
    let guess = charge(context, given.username, origin.as_ref())?;
    let hash = user.as_ref().map(|user| user.hashed_password.as_str());
    let verdict = turn.verify(given.password, hash).await?;
    let Some(mut user) = user.filter(|user| user.is_active && verdict != Verdict::Wrong) else {
        drop(turn);
        tokio::time::sleep_until(began + SHORTEST_REFUSAL).await;
        return Err(Error::bad_request("LOGIN_BAD_CREDENTIALS"));
    };
    guess.into_iter().for_each(Taken::refund);
    app.known_addresses.note(user.id, neighbourhood(context.peer.address));
    if let Verdict::RightUpgrade(new) = verdict {
        app.store.replace_password(user.id, &user.hashed_password, &new).await?;
        user.hashed_password = new;
    }
    Ok((user, turn))
}

/// From where of those that the user has been the request comes, if it does.
fn origin(context: &Context, user: ObjectId, last_token: Option<&str>) -> Option<Origin> {
    if let Some(token) = context.earlier_login(user, last_token) {
        return Some(Origin::Device(user, token.key.clone()));
    }
    let address = neighbourhood(context.peer.address);
    context.app.known_addresses.knows(user, address).then_some(Origin::Address(user, address))
}

/// Strangers share what there is for a name, wherever they come from; where the user has been, it is theirs.
fn turn<'c>(context: &'c Context, name: &str, origin: Option<&Origin>) -> Result<Turn<'c>> {
    let (asker, account) = match origin {
        Some(origin @ (Origin::Address(user, _) | Origin::Device(user, _))) => {
            (Holder::User(*user), Holder::name(origin))
        }
        None => (Holder::of(&context.caller, context.peer.address), Holder::name(name)),
    };
    context.app.passwords.turn(asker, account)
}

fn charge<'c>(context: &'c Context, name: &str, origin: Option<&Origin>) -> Result<Vec<Taken<'c>>> {
    let limits = &context.app.limits;
    match origin {
        Some(origin) => Ok(vec![limits.wrong_by_origin.take(origin)?]),
        None => limits.guess_by_stranger(neighbourhood(context.peer.address), name),
    }
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
