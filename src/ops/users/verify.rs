//! E-mail addresses: confirming that they are their users' (contract D-48).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::change::apply;
use super::password::mailable;
use crate::auth::letters;
use crate::error::{Error, Kind, Result};
use crate::model::user::UserRead;
use crate::model::{ObjectId, Timestamp, User, email};
use crate::ops::Context;
use crate::quota::Place;
use crate::store::UserKey;
use crate::store::users::{Unchanged, UserChange};

const AUDIENCE: &str = "fastapi-users:verify";
const LIFETIME_SECONDS: i64 = 3600;

/// Whose address is to be confirmed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The address.
    email: String,
}

/// What came to the address.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// From the mail.
    token: String,
}

/// What a mailed token says. It confirms one address once.
#[derive(Clone, Serialize, Deserialize)]
struct Claims {
    sub: String,
    email: String,
    /// [`User::confirmations`] at the time.
    #[serde(default)]
    confirmations: u32,
    aud: String,
    exp: i64,
}

/// Mails a token to an active user whose address is not confirmed; says the same whoever asks for whom.
pub async fn request(context: Context, params: Request) -> Result<()> {
    let address = email::check("email", &params.email)?;
    if let Some((user, place)) = mailable(&context, &address).await?
        && !user.is_verified
    {
        send(&context, &user, place);
    }
    Ok(())
}

/// Mails the token that confirms the user's address.
pub(super) fn send(context: &Context, user: &User, place: Place) {
    let claims = Claims {
        sub: user.id.to_hex(),
        email: user.email.clone(),
        confirmations: user.confirmations,
        aud: AUDIENCE.to_owned(),
        exp: Timestamp::now().plus_seconds(LIFETIME_SECONDS).millis() / 1000,
    };
    let (app, to) = (context.app.clone(), user.clone());
    let letter = async move { Ok(letters::verification(&to, &app.tokens.sign(&claims)?)) };
    context.app.mail.later(place, user.email.clone(), letter);
}

/// Confirms the address that the token was mailed to.
pub async fn verify(context: Context, params: Verify) -> Result<UserRead> {
    let bad = || Error::bad_request("VERIFY_USER_BAD_TOKEN");
    let claims: Claims = context.app.tokens.open(&params.token, Some(AUDIENCE)).ok_or_else(bad)?;
    let id: ObjectId = claims.sub.parse().map_err(|_| bad())?;
    let user = context.app.store.user(UserKey::Id(id)).await?.ok_or_else(bad)?;
    if !user.is_active || user.email != claims.email {
        return Err(bad());
    }
    if user.is_verified {
        return Err(Error::bad_request("VERIFY_USER_ALREADY_VERIFIED"));
    }
    if user.confirmations != claims.confirmations {
        return Err(bad());
    }
    // The address may become another one at this moment.
    let only_if = Unchanged {
        email: Some(claims.email),
        confirmations: Some(claims.confirmations),
        ..Unchanged::default()
    };
    let change = UserChange { confirms: true, only_if, ..UserChange::default() };
    let confirmed = apply(&context, &user, &change).await;
    confirmed.map(|user| user.read()).map_err(|error| match error.kind() {
        Kind::NotFound => bad(),
        _ => error,
    })
}
