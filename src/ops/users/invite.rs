//! Invitations: how people become users (contract 6.8).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::change::{check_groups, groups};
use super::password;
use crate::auth::bootstrap::random_text;
use crate::auth::letters;
use crate::error::{Error, Kind, Result};
use crate::model::user::UserRead;
use crate::model::{ObjectId, Timestamp, User, email, username};
use crate::ops::Context;
use crate::ops::operation::NoParams;
use crate::quota::{Holder, neighbourhood};
use crate::store::UserKey;
use crate::store::users::{Ends, Taken, UserChange};

const PURPOSE: &str = "invite";

/// Whom to invite.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// Their name: 1 to 64 of letters, digits and `. _ @ + -`. No other user has one that looks like it, in any case.
    username: String,
    /// Their address.
    email: String,
    /// Names of the groups that they are in.
    #[serde(default)]
    groups: Vec<String>,
    /// Whether they may do everything.
    #[serde(default)]
    is_superuser: bool,
    /// Whether the link is mailed to them.
    #[serde(default = "yes")]
    send_email: bool,
    /// Whether the link is answered, too.
    #[serde(default)]
    return_token: bool,
    /// Invites a user again who has not accepted yet.
    #[serde(default)]
    resend_if_exists: bool,
}

fn yes() -> bool {
    true
}

/// Somebody who has been invited.
#[derive(Serialize, JsonSchema)]
pub struct Invited {
    /// The user: active, not verified.
    user: UserRead,
    /// Whether the SMTP server took the mail.
    email_sent: bool,
    /// How people reach this server.
    public_base_url: String,
    /// The page where invitations are accepted.
    accept_invite_url: String,
    /// That page with the token, if `return_token`.
    invite_url: Option<String>,
    /// The token, if `return_token`.
    token: Option<String>,
}

/// Where links lead.
#[derive(Serialize, JsonSchema)]
pub struct InviteUrl {
    /// How people reach this server.
    public_base_url: String,
    /// The page where invitations are accepted.
    accept_invite_url: String,
}

/// An invitation and the password that the invited chooses.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// From the link.
    token: String,
    /// The password from now on.
    password: String,
}

/// What an invitation says. It is good for one password, the one that nobody knows, and for one address.
#[derive(Clone, Serialize, Deserialize)]
struct Claims {
    sub: String,
    /// Fingerprint of the password's hash; KernelCI's own server does not say it.
    #[serde(default)]
    password_fgpt: Option<String>,
    /// Nobody knows that password, so nobody has a token yet.
    #[serde(default)]
    first: bool,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    purpose: Option<String>,
    #[serde(default)]
    iat: i64,
    exp: i64,
}

/// Adds a user with a password that nobody knows, and mails them the way to choose one.
pub async fn invite(context: Context, params: Invite) -> Result<Invited> {
    let app = &context.app;
    let address = email::check("email", &params.email)?;
    let me = context.holder();
    let place = (params.send_email && app.mail.is_set()).then(|| app.mail.place(me)).transpose()?;
    app.limits.invitation(me, place.is_some().then_some(&*address))?;
    let (user, first) = match invited_before(&context, &params, &address).await? {
        Some(user) => (user, false),
        None => (add(&context, &params, address).await?, true),
    };
    let now = Timestamp::now();
    let lifetime = i64::try_from(app.config.invite_token_expire_seconds).unwrap_or(i64::MAX);
    let token = app.tokens.sign(&Claims {
        sub: user.id.to_hex(),
        password_fgpt: Some(app.tokens.fingerprint(&user.hashed_password)?),
        first,
        email: Some(user.email.clone()),
        purpose: Some(PURPOSE.to_owned()),
        iat: now.millis() / 1000,
        exp: now.plus_seconds(lifetime).millis() / 1000,
    })?;
    let InviteUrl { public_base_url, accept_invite_url } = links(&context);
    let url = format!("{accept_invite_url}?token={token}");
    let mut email_sent = false;
    if let Some(place) = place {
        let sent = app.mail.send(place, &user.email, letters::invitation(&user, &url)).await;
        email_sent = sent.is_ok();
        if let Err(error) = sent {
            tracing::warn!(error = format!("{error:#}"), "an invitation was not mailed");
        }
    }
    let shown = params.return_token.then_some((url, token));
    let (invite_url, token) = shown.unzip();
    Ok(Invited { user: user.read(), email_sent, public_base_url, accept_invite_url, invite_url, token })
}

/// The user, if they exist and may be invited again; 400 if they exist and may not.
async fn invited_before(context: &Context, params: &Invite, address: &str) -> Result<Option<User>> {
    let store = &context.app.store;
    let refuse = |detail: &str| Err(Error::bad_request(detail));
    let mut user = store.user(UserKey::Name(&params.username)).await?;
    if user.is_none() {
        user = store.user(UserKey::Email(address)).await?.filter(|user| user.email == address);
    }
    let Some(user) = user else {
        username::check(&params.username)?;
        return Ok(None);
    };
    match () {
        () if !params.resend_if_exists => refuse("User already exists"),
        () if user.is_verified => refuse("User already verified"),
        () if user.username != params.username => refuse("Existing user has a different username"),
        () if user.email != address => refuse("Existing user has a different email"),
        () => Ok(Some(user)),
    }
}

async fn add(context: &Context, params: &Invite, address: String) -> Result<User> {
    let app = &context.app;
    let me = Holder::of(&context.caller, context.peer.address);
    let user = User {
        id: ObjectId::new(),
        username: params.username.clone(),
        email: address,
        hashed_password: app.passwords.turn(me, me)?.hash(&random_text(32)).await?,
        is_active: true,
        is_superuser: params.is_superuser,
        groups: groups(context, &params.groups).await?,
        ..User::default()
    };
    match app.store.insert_user(&user).await? {
        None => check_groups(context, &user).await.map(|()| user),
        Some(Taken::Username) => Err(Error::bad_request("User already exists")),
        Some(Taken::Email) => Err(Error::bad_request("REGISTER_USER_ALREADY_EXISTS")),
    }
}

/// Where the links of invitations lead.
pub async fn invite_url(context: Context, _: NoParams) -> Result<InviteUrl> {
    Ok(links(&context))
}

fn links(context: &Context) -> InviteUrl {
    let base = context.app.own_addresses.links(&context.peer.base_url);
    InviteUrl { accept_invite_url: format!("{base}/user/accept-invite"), public_base_url: base }
}

/// Sets the password that the invited has chosen; the invitation has confirmed their address.
pub async fn accept(context: Context, params: Accept) -> Result<UserRead> {
    password::check("password", &params.password)?;
    let (app, address) = (&context.app, context.peer.address);
    let guess = app.limits.wrong_by_address.take(neighbourhood(address))?;
    let refuse = |detail: &str| Error::bad_request(detail);
    let Some(claims) = app.tokens.open::<Claims>(&params.token, None) else {
        return Err(refuse("Invalid or expired invite token"));
    };
    // It is one of ours.
    guess.refund();
    let invalid = || refuse("Invalid invite token");
    if claims.purpose.as_deref() != Some(PURPOSE) {
        return Err(invalid());
    }
    let id: ObjectId = claims.sub.parse().map_err(|_| invalid())?;
    let user = app.store.user(UserKey::Id(id)).await?.ok_or_else(|| Error::not_found("User not found"))?;
    match () {
        () if claims.email.as_deref() != Some(user.email.as_str()) => return Err(invalid()),
        () if !user.is_active => return Err(refuse("User is inactive")),
        () if user.is_verified => return Err(refuse("Invite already accepted")),
        () => {}
    }
    let is_used = match &claims.password_fgpt {
        Some(fingerprint) => *fingerprint != app.tokens.fingerprint(&user.hashed_password)?,
        // Of KernelCI's own server: as far as one can tell, a password that was set since then.
        None => user.generation > 0 || user.confirmations > 0,
    };
    if is_used {
        return Err(refuse("Invite already accepted"));
    }
    let mut change = UserChange { confirms: true, ..password::by_mail(&user) };
    if claims.first {
        // Ending none leaves those alone that other services make: they do not say when.
        change.ends = Ends::Nothing;
    }
    let turn = app.passwords.turn(Holder::of(&context.caller, address), Holder::User(user.id))?;
    let accepted = password::set(&context, &turn, &user, &params.password, change).await;
    // Somebody else was faster with the same invitation.
    let raced = |error: Error| match error.kind() {
        Kind::BadRequest => refuse("Invite already accepted"),
        _ => error,
    };
    accepted.map(|user| user.read()).map_err(raced)
}
