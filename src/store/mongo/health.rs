//! Whether MongoDB takes writes: it is asked for one, collection `health`: `{_id: "writes", at}`.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use bson::{Document, doc};
use mongodb::Database;

use super::errors::{DUPLICATE_KEY, translate};
use crate::error::{Error, Result};

/// How long it may take; then mongod itself gives it up, so that none of them pile up behind a lock.
pub(super) const PATIENCE: Duration = Duration::from_millis(2500);
/// Between two looks of who waits.
const PAUSE: Duration = Duration::from_millis(250);

/// Fails with 503 if there is no primary, or a majority does not have a write on its disks within [`PATIENCE`].
pub(super) async fn takes_writes(db: &Database) -> Result<()> {
    let patience = PATIENCE.as_millis() as i64;
    let update = doc! {"q": {"_id": "writes"}, "u": {"$currentDate": {"at": true}}, "upsert": true};
    let command = doc! {
        "update": "health",
        "updates": [update],
        "writeConcern": {"w": "majority", "j": true, "wtimeout": patience},
        "maxTimeMS": patience,
    };
    // Not behind our own calls.
    let answer = match tokio::time::timeout(2 * PATIENCE, db.run_command(command)).await {
        Ok(answer) => answer.map_err(translate)?,
        Err(late) => return Err(Error::unavailable("store", late)),
    };
    match refused(&answer) {
        None => Ok(()),
        Some(why) => Err(Error::unavailable("store", anyhow!("MongoDB takes no writes: {why}"))),
    }
}

/// Waits until MongoDB takes writes, for so long at most; `tell` hears each time why it does not. Only what time may mend
/// is waited for: a wrong URL or password is an error at once.
pub async fn wait(url: &str, database: &str, patience: Duration, tell: impl Fn(&Error)) -> Result<()> {
    let end = Instant::now() + patience;
    let mut client = None;
    loop {
        let look = async {
            let client = match &client {
                Some(client) => client,
                None => client.insert(super::connect(url).await?),
            };
            takes_writes(&client.database(database)).await
        };
        match look.await {
            Err(error) if error.kind().row().temporary && Instant::now() < end => {
                tell(&error);
                tokio::time::sleep(PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
            }
            done => {
                if let Some(client) = client {
                    client.shutdown().immediate(true).await;
                }
                return done;
            }
        }
    }
}

/// What was wrong with a write that was answered.
fn refused(answer: &Document) -> Option<String> {
    let errors =
        answer.get_array("writeErrors").into_iter().flatten().filter_map(|error| error.as_document());
    let concern = answer.get_document("writeConcernError").ok();
    // Another instance was first to make the document, which is a write, too.
    let mut errors = errors.filter(|error| error.get_i32("code").ok() != Some(DUPLICATE_KEY)).chain(concern);
    errors.next().map(|error| {
        let (code, message) = (error.get_i32("code").unwrap_or(0), error.get_str("errmsg").unwrap_or(""));
        format!("{message} (code {code})")
    })
}
