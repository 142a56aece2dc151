//! The session's credentials: hello and refresh.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use crate::error::{Error, Result};
use crate::health::Part;
use crate::model::{NODE_CHANNEL, Timestamp};
use crate::quota::{Kept, Share};

/// Bytes that a client may say it takes: a frame without data always fits.
const LONGEST_MESSAGES: std::ops::RangeInclusive<u64> = 4 << 10..=64 << 20;

/// Who is speaking.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// A token of `user.login` or `token.create`; without it the session reads anonymously.
    #[serde(default)]
    token: Option<String>,
    /// Name and version of the program, for the log, e.g. `scheduler/1.4`.
    #[serde(default)]
    client: Option<String>,
    /// Bytes of the longest message that the client takes, 4,096 to 67,108,864. What an event has beyond that is left out
    /// (`omitted`), a longer answer is an error. If it is not said, events are at most as long as `limits.message`.
    #[serde(default)]
    max_message: Option<u64>,
}

/// A new token for the session.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// A token of `user.login` or `token.create`.
    token: String,
}

/// The facts of a session.
#[derive(Serialize, JsonSchema)]
pub struct Facts {
    /// Identifies the session in the server's log.
    session: String,
    /// The instance that the session is on.
    instance: String,
    /// The username, or null when anonymous.
    user: Option<String>,
    /// Seconds until the token ends, or null.
    expires_in: Option<i64>,
    /// The epoch of the channel `node`, or null while the log cannot be reached.
    epoch: Option<String>,
    /// Milliseconds between the server's pings.
    ping_ms: u64,
    /// What the session may ask for.
    limits: Limits,
}

/// Limits of a session.
#[derive(Serialize, JsonSchema)]
pub struct Limits {
    /// Bytes of one message.
    message: usize,
    /// Subscriptions at a time.
    subscriptions: usize,
    /// Requests at a time.
    inflight: usize,
    /// How much the user may have of what stays, on all instances and over all sessions together; null without a user.
    /// How much it is already: `user.limits`.
    user: Option<Kept<u64>>,
}

/// Authenticates the session if a token is given; a wrong one is an error and ends the session (4401).
pub async fn hello(context: Context, params: Hello) -> Result<Facts> {
    let session = context.session()?;
    if let Some(client) = &params.client {
        session.set_client(client);
    }
    if let Some(bytes) = params.max_message {
        if !LONGEST_MESSAGES.contains(&bytes) {
            return Err(Error::invalid("max_message", "expected 4,096 to 67,108,864"));
        }
        session.takes(bytes as usize);
    }
    if let Some(token) = &params.token {
        session.peer().may_bring_credentials()?;
        session.set_caller(&context.app, context.app.caller(token).await?);
    }
    session.said_hello();
    facts(&context).await
}

/// Replaces the credentials of the session; a wrong token changes nothing.
pub async fn refresh(context: Context, params: Refresh) -> Result<Facts> {
    let session = context.session()?;
    session.peer().may_bring_credentials()?;
    session.set_caller(&context.app, context.app.caller(&params.token).await?);
    facts(&context).await
}

async fn facts(context: &Context) -> Result<Facts> {
    let session = context.session()?;
    let caller = session.caller();
    let head = context.app.health.serve(&[Part::Log], context.app.log.head(NODE_CHANNEL));
    let left = |end: Timestamp| (end.millis() - Timestamp::now().millis()) / 1000;
    Ok(Facts {
        session: session.id().to_owned(),
        instance: context.app.instance.clone(),
        user: caller.user.as_ref().map(|user| user.username.clone()),
        expires_in: caller.expires().map(left),
        epoch: head.await.ok().map(|head| head.epoch),
        ping_ms: context.app.config.ping_interval_ms,
        limits: Limits {
            message: session.longest_message(),
            subscriptions: session.limits().subscriptions,
            inflight: session.limits().requests,
            user: caller.user.as_ref().map(|user| Share::new(user, &context.app.config.quotas).most),
        },
    })
}
