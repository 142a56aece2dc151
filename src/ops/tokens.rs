//! Tokens that users make for their programs, with a name and no more rights than needed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::nodes::node_id;
use super::operation::NoParams;
use crate::error::{Error, Kind, Result};
use crate::model::{NamedToken, ObjectId, Scope, Timestamp};
use crate::quota::{Over, Thing};
use crate::store::tokens::TokenSaved;

const LONGEST_NAME: usize = 64;
const LONGEST_SECONDS: u64 = 10 * 365 * 24 * 3600;

/// A new token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// What it is for, 1 to 64 characters; unique among one's own.
    name: String,
    /// `["read"]`, or `["write:<runtime>", …]`: reads, and writes nodes whose `data.runtime` is one of these, as far as
    /// the user may.
    scopes: Vec<String>,
    /// Seconds until it ends, up to ten years; default: as long as a login.
    #[serde(default)]
    #[schemars(range(min = 1))]
    expires_in: Option<u64>,
}

/// One token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// 24 hex digits.
    id: String,
}

/// What is known of a token.
#[derive(Serialize, JsonSchema)]
pub struct TokenRead {
    /// 24 hex digits.
    id: String,
    /// What it is for.
    name: String,
    /// What it may do.
    scopes: Vec<String>,
    /// When it was made.
    created: String,
    /// When it was last used, to the minute or so.
    last_used: Option<String>,
    /// When it ends.
    expires: String,
}

/// A new token. The token itself is told this once.
#[derive(Serialize, JsonSchema)]
pub struct Created {
    #[serde(flatten)]
    facts: TokenRead,
    /// For `Authorization: Bearer` and `session.hello`.
    token: String,
}

/// The caller's tokens.
#[derive(Serialize, JsonSchema)]
pub struct Listed {
    /// Oldest first.
    items: Vec<TokenRead>,
}

/// Makes a token.
pub async fn create(context: Context, params: Create) -> Result<Created> {
    let (app, user) = (&context.app, context.caller.user()?);
    let is_name = (1..=LONGEST_NAME).contains(&params.name.chars().count());
    if !is_name || params.name.chars().any(char::is_control) {
        return Err(Error::invalid("name", format!("expected 1 to {LONGEST_NAME} printable characters")));
    }
    let lifetime = params.expires_in.unwrap_or(app.tokens.lifetime_seconds().min(LONGEST_SECONDS));
    if !(1..=LONGEST_SECONDS).contains(&lifetime) {
        return Err(Error::invalid("expires_in", format!("expected 1 to {LONGEST_SECONDS}")));
    }
    let now = Timestamp::now();
    let token = NamedToken {
        id: ObjectId::new(),
        user: user.id,
        name: params.name,
        scope: Scope::parse(&params.scopes)?,
        created: now,
        last_used: None,
        expires: now.plus_seconds(i64::try_from(lifetime).unwrap_or(i64::MAX)),
    };
    let most = context.share()?.most.tokens;
    match app.store.insert_token(&token, usize::try_from(most).unwrap_or(usize::MAX)).await? {
        TokenSaved::Done => {}
        TokenSaved::NameTaken => {
            return Err(Error::new(
                Kind::Conflict,
                format!("Token already exists with name: {}", token.name),
            ));
        }
        TokenSaved::TooMany => {
            let used = app.store.tokens_of(user.id).await?.len() as u64;
            return Err(Over { thing: Thing::Tokens, used, most }.into());
        }
    }
    Ok(Created { token: app.tokens.issue_named(user, &token)?, facts: read(&context, token) })
}

/// Lists the caller's tokens.
pub async fn list(context: Context, _: NoParams) -> Result<Listed> {
    let tokens = context.app.store.tokens_of(context.caller.user()?.id).await?;
    Ok(Listed { items: tokens.into_iter().map(|token| read(&context, token)).collect() })
}

/// Ends a token of the caller's, and the rights of every session that it opened.
pub async fn revoke(context: Context, params: Revoke) -> Result<()> {
    let (app, user, id) = (&context.app, context.caller.user()?, node_id(&params.id)?);
    if !app.store.delete_token(user.id, id).await? {
        return Err(Error::not_found(format!("Token not found with id: {id}")));
    }
    app.identities.changed(user.id).await;
    Ok(())
}

fn read(context: &Context, token: NamedToken) -> TokenRead {
    let last_used = token.last_used.max(context.app.identities.last_used(token.id));
    TokenRead {
        id: token.id.to_hex(),
        name: token.name,
        scopes: token.scope.names(),
        created: token.created.to_wire(),
        last_used: last_used.map(Timestamp::to_wire),
        expires: token.expires.to_wire(),
    }
}
