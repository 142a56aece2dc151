//! What the caller may have, and has.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::Context;
use super::operation::NoParams;
use crate::error::Result;
use crate::quota::{Holder, Kept};

/// What one may have, and has.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UserLimits")]
pub struct Limits {
    /// Of what stays until it is removed, on all instances together. More is refused with 409, or with 429 where it frees
    /// itself; `data.quota` of the error names it.
    kept: Kept<Used>,
    /// Of what this instance shares out at the moment, by name: `sessions`, `searches`, `answer_bytes`, and so on.
    shared: BTreeMap<String, Shared>,
}

/// How much one has of a thing.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "Amount")]
pub struct Used {
    /// So much.
    used: u64,
    /// The most that one may have.
    most: u64,
}

/// A part of what an instance has.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PoolShare")]
pub struct Shared {
    /// How much the caller has.
    used: u64,
    /// How much the caller may have; of some things more, as long as less than half of it is taken.
    share: u64,
    /// How much everybody together has.
    taken: u64,
    /// How much there is.
    limit: u64,
}

/// How much the caller has of each thing, and may have.
pub async fn limits(context: Context, _: NoParams) -> Result<Limits> {
    let (app, share) = (&context.app, context.share()?);
    let (store, user) = (&app.store, share.user);
    let (queues, consumers, channels, keys, tokens) = tokio::try_join!(
        store.count_queues(user),
        store.count_consumers(user),
        store.count_channels(user),
        app.kv.count(user),
        store.tokens_of(user),
    )?;
    let used = Kept {
        queues: queues.0,
        queued_bytes: queues.1,
        consumers: consumers.0,
        unnamed_consumers: consumers.1,
        channels,
        keys: keys.0,
        key_bytes: keys.1,
        tokens: tokens.len() as u64,
    };
    let holder = Holder::User(user);
    let shared = app.pools().into_iter().map(|(name, pool)| {
        let (used, taken) = (pool.taken_by(holder), pool.taken());
        let shared = Shared { used, share: pool.share(holder), taken, limit: pool.limits().server };
        (name.to_owned(), shared)
    });
    Ok(Limits { kept: used.with(share.most, |used, most| Used { used, most }), shared: shared.collect() })
}
