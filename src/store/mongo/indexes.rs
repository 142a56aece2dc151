//! Indexes: what the code wants in each collection, made at the start where it is missing.
//!
//! An index with the wanted keys under another name is accepted; what nobody here wants is left alone. A start never
//! fails because of an index, and never deletes anything.

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::options::{Collation, CollationStrength, IndexOptions};
use mongodb::{Database, IndexModel};
use tokio::sync::watch;

use super::channel_owners;
use super::document::integer;
use super::errors::{self, translate};
use super::failure::Failure;
use super::moment;
use super::queues::depth;
use super::single::KEY_SECONDS;
use super::stored::Stored;
use super::tokens;
use crate::error::Result;
use crate::store::{IndexState, IndexStatus, indexes::NODE};

/// An index that the code wants.
struct Wanted {
    on: &'static str,
    name: &'static str,
    keys: Document,
    unique: bool,
    partial: Option<Document>,
    ignore_case: bool,
    expire: Option<u64>,
}

/// How long documents are kept, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    pub(super) events: u64,
    pub(super) telemetry: u64,
}

const COLLECTIONS: [&str; 12] = [
    "node",
    "user",
    "usergroup",
    "eventhistory",
    "telemetry",
    "idempotency",
    "subscriber_state",
    "queueitem",
    depth::COLLECTION,
    channel_owners::COLLECTION,
    tokens::NAMED,
    tokens::ENDED,
];
/// The index that makes a sweep of the outboxes cheap.
const OUTBOX: &str = "outbox_pending";

fn wanted(kept: Kept) -> Vec<Wanted> {
    let index = |on, name, keys| Wanted {
        on,
        name,
        keys,
        unique: false,
        partial: None,
        ignore_case: false,
        expire: None,
    };
    let unique = |on, name, keys| Wanted { unique: true, ..index(on, name, keys) };
    let having = |field: &str| Some(doc! {field: {"$exists": true}});
    let mut all = vec![
        Wanted { partial: having("outbox.id"), ..index("node", OUTBOX, doc! {"outbox.id": 1}) },
        Wanted {
            partial: having("idempotency"),
            ..unique("node", "idempotency_key", doc! {"idempotency": 1})
        },
        unique("user", "email_1", doc! {"email": 1}),
        unique("user", "username_1", doc! {"username": 1}),
        Wanted { ignore_case: true, ..unique("user", "case_insensitive_email_index", doc! {"email": 1}) },
        Wanted { partial: having("names"), ..unique("user", "names_1", doc! {"names": 1}) },
        Wanted {
            partial: having("name_outline"),
            ..unique("user", "name_outline_1", doc! {"name_outline": 1})
        },
        unique(tokens::NAMED, "user_1_name_1", doc! {"user": 1, "name": 1}),
        Wanted { expire: Some(0), ..index(tokens::NAMED, "expires_1", doc! {"expires": 1}) },
        Wanted { expire: Some(0), ..index(tokens::ENDED, "expires_1", doc! {"expires": 1}) },
        unique("usergroup", "name_1", doc! {"name": 1}),
        Wanted { expire: Some(kept.events), ..index("eventhistory", "timestamp_1", doc! {"timestamp": 1}) },
        index("eventhistory", "channel_1_sequence_id_1", doc! {"channel": 1, "sequence_id": 1}),
        index("eventhistory", "kind_timestamp", doc! {"data.kind": 1, "timestamp": 1}),
        // A number is given once in an epoch: where it would not be, Redis has forgotten something.
        Wanted {
            partial: having("epoch"),
            ..unique(
                "eventhistory",
                "channel_epoch_sequence",
                doc! {"channel": 1, "epoch": 1, "sequence_id": 1},
            )
        },
        index("eventhistory", "channel_timestamp", doc! {"channel": 1, "timestamp": 1}),
        index("eventhistory", "timestamp_us_id", moment::order()),
        Wanted { expire: Some(kept.telemetry), ..index("telemetry", "ts_1", doc! {"ts": 1}) },
        index("telemetry", "kind_1_ts_-1", doc! {"kind": 1, "ts": -1}),
        index("telemetry", "runtime_1_device_type_1_ts_-1", doc! {"runtime": 1, "device_type": 1, "ts": -1}),
        index("telemetry", "job_name_1_ts_-1", doc! {"job_name": 1, "ts": -1}),
        index(
            "telemetry",
            "result_1_is_infra_error_1_ts_-1",
            doc! {"result": 1, "is_infra_error": 1, "ts": -1},
        ),
        Wanted { expire: Some(u64::from(KEY_SECONDS)), ..index("idempotency", "at_1", doc! {"at": 1}) },
        unique("subscriber_state", "unique_subscriber_id", doc! {"subscriber_id": 1}),
        Wanted { partial: having("id"), ..unique("subscriber_state", "id_1", doc! {"id": 1}) },
        index("subscriber_state", "last_poll", doc! {"last_poll": 1}),
        index("subscriber_state", "user_id_1_subscriber_id_1", doc! {"user_id": 1, "subscriber_id": 1}),
        index("queueitem", "list_1_until_1__id_1", doc! {"list": 1, "until": 1, "_id": 1}),
        index("queueitem", "list_1_bytes_1", doc! {"list": 1, "bytes": 1}),
        Wanted {
            partial: having("owner"),
            ..index("queueitem", "owner_1_list_1_bytes_1", doc! {"owner": 1, "list": 1, "bytes": 1})
        },
        Wanted { partial: having("key"), ..unique("queueitem", "key_1", doc! {"key": 1}) },
        Wanted { expire: Some(u64::from(KEY_SECONDS)), ..index("queueitem", "gone_1", doc! {"gone": 1}) },
        index(channel_owners::COLLECTION, "user_1", doc! {"user": 1}),
        index(channel_owners::COLLECTION, "at_1", doc! {"at": 1}),
        Wanted {
            expire: Some(depth::KEPT_SECONDS),
            ..index(depth::COLLECTION, "counted_1", doc! {"counted": 1})
        },
    ];
    for node in NODE {
        let mut keys = Document::new();
        for field in node.fields.iter().chain(&["id"]) {
            keys.insert(if *field == "id" { "_id" } else { *field }, 1);
        }
        all.push(index("node", node.name, keys));
    }
    all
}

impl Wanted {
    /// Whether an existing index does what this one is for.
    fn is(&self, on: &str, found: &IndexModel) -> bool {
        let options = found.options.clone().unwrap_or_default();
        let strength = options.collation.as_ref().and_then(|collation| collation.strength);
        self.on == on
            && same_keys(&self.keys, &found.keys)
            && self.unique == options.unique.unwrap_or(false)
            && self.partial == options.partial_filter_expression
            && self.ignore_case == matches!(strength, Some(CollationStrength::Secondary))
    }

    fn model(&self) -> IndexModel {
        let collation = Collation::builder().locale("en").strength(CollationStrength::Secondary).build();
        let options = IndexOptions::builder()
            .name(self.name.to_owned())
            .unique(self.unique.then_some(true))
            .partial_filter_expression(self.partial.clone())
            .collation(self.ignore_case.then_some(collation))
            .expire_after(self.expire.map(std::time::Duration::from_secs))
            .build();
        IndexModel::builder().keys(self.keys.clone()).options(options).build()
    }
}

fn same_keys(one: &Document, other: &Document) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|((a, x), (b, y))| a == b && integer(x) == integer(y) && integer(x).is_some())
}

/// Makes what is missing. `indexed` turns true as soon as outboxes can be swept.
pub(super) async fn ensure(db: &Database, kept: Kept, indexed: &watch::Sender<bool>) {
    let wanted = wanted(kept);
    for on in COLLECTIONS {
        let found = match list(db, on).await {
            Ok(found) => found,
            Err(error) => {
                let error = Failure::of(&error, None);
                tracing::warn!(%error, on, "indexes cannot be listed");
                continue;
            }
        };
        for index in wanted.iter().filter(|index| index.on == on) {
            let outcome = match found.iter().find(|found| index.is(on, found)) {
                Some(found) => retain(db, index, found).await,
                // A large collection takes its time: no limit on the call.
                None => db.collection::<Stored>(on).create_index(index.model()).await.map(drop),
            };
            match outcome {
                Ok(()) if index.name == OUTBOX => drop(indexed.send(true)),
                Ok(()) => {}
                Err(error) => {
                    let error = Failure::of(&error, Some(on));
                    tracing::warn!(%error, on, index = index.name, "an index could not be made");
                }
            }
        }
    }
}

/// Changes how long documents are kept, if the setting has changed. Documents are not touched here.
async fn retain(db: &Database, index: &Wanted, found: &IndexModel) -> mongodb::error::Result<()> {
    let is = found.options.as_ref().and_then(|options| options.expire_after).map(|time| time.as_secs());
    let Some(seconds) = index.expire.filter(|_| is != index.expire) else { return Ok(()) };
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let change = doc! {"keyPattern": found.keys.clone(), "expireAfterSeconds": seconds};
    errors::raw(db.run_command(doc! {"collMod": index.on, "index": change})).await.map(drop)
}

async fn list(db: &Database, on: &str) -> mongodb::error::Result<Vec<IndexModel>> {
    let listed: mongodb::error::Result<Vec<IndexModel>> =
        async { errors::raw(db.collection::<Stored>(on).list_indexes()).await?.try_collect().await }.await;
    match listed {
        // NamespaceNotFound: the collection comes with its first index.
        Err(error) if errors::code(&error) == Some(26) => Ok(Vec::new()),
        listed => listed,
    }
}

/// Wanted and existing indexes, by collection.
pub(super) async fn status(db: &Database) -> Result<Vec<IndexStatus>> {
    let wanted = wanted(Kept::default());
    let mut all = Vec::new();
    for on in COLLECTIONS {
        let found = list(db, on).await.map_err(translate)?;
        for index in wanted.iter().filter(|index| index.on == on) {
            let there = found.iter().find(|found| index.is(on, found));
            let state = if there.is_some() { IndexState::Present } else { IndexState::Missing };
            let name = there.and_then(name).unwrap_or(index.name).to_owned();
            all.push(IndexStatus { on: on.into(), name, keys: words(&index.keys), state });
        }
        for found in &found {
            let is_wanted = wanted.iter().any(|index| index.is(on, found));
            if !is_wanted && name(found) != Some("_id_") {
                let (name, keys) = (name(found).unwrap_or_default().to_owned(), words(&found.keys));
                all.push(IndexStatus { on: on.into(), name, keys, state: IndexState::LeftOver });
            }
        }
    }
    Ok(all)
}

fn name(index: &IndexModel) -> Option<&str> {
    index.options.as_ref()?.name.as_deref()
}

fn words(keys: &Document) -> String {
    let words = keys.iter().map(|(field, direction)| match integer(direction) {
        Some(1) => field.clone(),
        Some(-1) => format!("{field} descending"),
        _ => format!("{field} {direction}"),
    });
    words.collect::<Vec<_>>().join(", ")
}
