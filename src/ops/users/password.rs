//! Passwords: changing, forgetting and setting them anew (contract 6.6).
//!
//! A new password ends the tokens of logins before it, unless `TOKENS_SURVIVE_PASSWORD` is set, and leaves named tokens
//! alone: daemons keep those. One that is set with a mailed token ends all of them, for its user may have lost more than the
//! password.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::change::apply;
use super::login::{Given, authenticate};
use crate::auth::letters;
use crate::auth::passwords::{LONGEST, Turn, Verdict};
use crate::error::{Error, Kind, Result};
use crate::model::{ObjectId, Timestamp, User};
use crate::ops::Context;
use crate::quota::{Holder, Place, neighbourhood};
use crate::store::UserKey;
use crate::store::users::{Ends, Unchanged, UserChange};

const AUDIENCE: &str = "fastapi-users:reset";
const LIFETIME_SECONDS: i64 = 3600;

/// Name, password, and the new password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePassword {
    /// Exact name.
    username: String,
    /// The password until now.
    password: String,
    /// The password from now on.
    #[serde(default)]
    new_password: Option<String>,
    /// A token of an earlier login of this user, as for a login.
    #[serde(default)]
    last_token: Option<String>,
    /// `password`, or absent (OAuth2 forms send it).
    #[serde(default)]
    #[allow(dead_code)]
    grant_type: Option<String>,
}

/// Who has forgotten their password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forgot {
    /// Their address.
    email: String,
}

/// A mailed token, and what it is good for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// From the mail.
    token: String,
    /// The password from now on.
    password: String,
}

/// What a mailed token says. It is good for one password, the one whose fingerprint it has, as long as its user has the
/// address that it was mailed to.
#[derive(Clone, Serialize, Deserialize)]
struct Claims {
    sub: String,
    password_fgpt: String,
    /// KernelCI's own server does not say it.
    #[serde(default)]
    email: Option<String>,
    aud: String,
    exp: i64,
}

/// 422 unless it can be a password.
pub(super) fn check(field: &str, password: &str) -> Result<()> {
    match password.len() {
        1..=LONGEST => Ok(()),
        _ => Err(Error::invalid(field, format!("expected 1 to {LONGEST} bytes"))),
    }
}

/// Changes the password of whoever knows it.
pub async fn update_password(context: Context, params: UpdatePassword) -> Result<()> {
    if let Some(new) = &params.new_password {
        check("new_password", new)?;
    }
    let given = Given {
        username: &params.username,
        password: &params.password,
        last_token: params.last_token.as_deref(),
    };
    let (user, turn) = authenticate(&context, given).await?;
    let no_password = || Error::bad_request("\"User\" object has no field \"password\"");
    let new = params.new_password.ok_or_else(no_password)?;
    let change = UserChange { ends: ends(&context), ..UserChange::default() };
    set(&context, &turn, &user, &new, change).await.map(drop)
}

/// Mails a token to an active user; says the same whoever asks for whom (contract D-46).
pub async fn forgot(context: Context, params: Forgot) -> Result<()> {
    let address = crate::model::email::check("email", &params.email)?;
    let Some((user, place)) = mailable(&context, &address).await? else { return Ok(()) };
    let app = context.app.clone();
    context.app.mail.later(place, user.email.clone(), async move {
        let claims = Claims {
            sub: user.id.to_hex(),
            password_fgpt: app.passwords.own_turn().hash(&user.hashed_password).await?,
            email: Some(user.email.clone()),
            aud: AUDIENCE.to_owned(),
            exp: Timestamp::now().plus_seconds(LIFETIME_SECONDS).millis() / 1000,
        };
        Ok(letters::forgotten_password(&user, &app.tokens.sign(&claims)?))
    });
    Ok(())
}

/// A place for a mail to this address that the caller asks for; who asks for too many is told to wait. There is no mail
/// without one, so it is asked for before anything is changed.
pub(super) fn may_mail(context: &Context, address: &str) -> Result<Place> {
    let place = context.app.mail.place(context.holder())?;
    context.app.limits.mail(context.holder(), address)?;
    Ok(place)
}

/// The active user of this address, if mail may be sent to it now: who asks for too much of it is told to wait,
/// whether there is such a user or not.
pub(super) async fn mailable(context: &Context, address: &str) -> Result<Option<(User, Place)>> {
    let place = may_mail(context, address)?;
    let user = context.app.store.user(UserKey::Email(address)).await?.filter(|user| user.is_active);
    Ok(user.map(|user| (user, place)))
}

/// Sets the password that a mailed token is good for.
pub async fn reset(context: Context, params: Reset) -> Result<()> {
    check("password", &params.password)?;
    let (user, turn) = by_token(&context, &params.token).await?;
    let user = set(&context, &turn, &user, &params.password, by_mail(&user)).await?;
    drop(turn);
    // One for each token that was mailed, so it is not limited; but a password that was set stays set.
    match context.app.mail.place(context.holder()) {
        Ok(place) => {
            let address = user.email.clone();
            let letter = async move { Ok(letters::password_was_reset(&user)) };
            context.app.mail.later(place, address, letter);
        }
        Err(error) => tracing::warn!(%error, "a user is not told that their password was reset"),
    }
    Ok(())
}

/// The user that a mailed token speaks of, while their password is the one that it was made for; and the turn that this
/// took.
async fn by_token<'c>(context: &'c Context, token: &str) -> Result<(User, Turn<'c>)> {
    let (app, address) = (&context.app, context.peer.address);
    let Some((user, fingerprint)) = spoken_of(context, token).await? else {
        app.limits.wrong_by_address.take(neighbourhood(address))?;
        return Err(bad_token());
    };
    let turn = app.passwords.turn(Holder::of(&context.caller, address), Holder::User(user.id))?;
    let guess = app.limits.wrong_by_address.take(neighbourhood(address))?;
    if turn.verify(&user.hashed_password, Some(&fingerprint)).await? != Verdict::Right {
        return Err(bad_token());
    }
    guess.refund();
    Ok((user, turn))
}

/// The active user that a token of ours speaks of, and the fingerprint of the password that it was made for.
async fn spoken_of(context: &Context, token: &str) -> Result<Option<(User, String)>> {
    let claims: Option<Claims> = context.app.tokens.open(token, Some(AUDIENCE));
    let Some(claims) = claims else { return Ok(None) };
    let Ok(id) = claims.sub.parse::<ObjectId>() else { return Ok(None) };
    let is_theirs = |user: &User| claims.email.as_ref().is_none_or(|address| *address == user.email);
    let user = context.app.store.user(UserKey::Id(id)).await?;
    let user = user.filter(|user| user.is_active && is_theirs(user));
    Ok(user.map(|user| (user, claims.password_fgpt)))
}

/// Which tokens end with a password that its user, or an admin, sets anew.
pub(super) fn ends(context: &Context) -> Ends {
    if context.app.config.tokens_survive_password { Ends::Nothing } else { Ends::Logins }
}

/// What a token does that was mailed to this user, besides what it says: all tokens end, and nothing is done if the
/// address has become another one.
pub(super) fn by_mail(user: &User) -> UserChange {
    let only_if = Unchanged { email: Some(user.email.clone()), ..Unchanged::default() };
    UserChange { ends: Ends::All, only_if, ..UserChange::default() }
}

/// Sets a new password and whatever `change` says besides, unless the password has changed since `user` was read.
pub(super) async fn set(
    context: &Context,
    turn: &Turn<'_>,
    user: &User,
    password: &str,
    change: UserChange,
) -> Result<User> {
    let change = UserChange {
        hashed_password: Some(turn.hash(password).await?),
        only_if: Unchanged { password: Some(user.hashed_password.clone()), ..change.only_if },
        ..change
    };
    apply(context, user, &change).await.map_err(|error| match error.kind() {
        Kind::NotFound => bad_token(),
        _ => error,
    })
}

fn bad_token() -> Error {
    Error::bad_request("RESET_PASSWORD_BAD_TOKEN")
}
