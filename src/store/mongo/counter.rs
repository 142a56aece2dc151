//! Numbers that are given once, whichever instance asks: collection `counter`.

use bson::doc;
use mongodb::options::ReturnDocument;

use super::MongoStore;
use super::document::integer;
use super::errors::{self, call_on, is_duplicate};
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::model::Timestamp;

/// The next number of this counter. It begins with the seconds since 1970, so that numbers of an earlier server or
/// database are not given again.
pub(super) async fn next(store: &MongoStore, name: &str) -> Result<i64> {
    let counters = store.db.collection::<Stored>("counter");
    let begin = doc! {"$setOnInsert": {"n": Timestamp::now().millis() / 1000}};
    for _ in 0..3 {
        let update = doc! {"$inc": {"n": 1_i64}};
        let next = counters.find_one_and_update(doc! {"_id": name}, update);
        if let Some(counter) = call_on(&counters, next.return_document(ReturnDocument::After)).await? {
            let n = counter.get("n").and_then(integer);
            return n.ok_or_else(|| Error::internal(anyhow::anyhow!("counter {name} is no number")));
        }
        match errors::raw(counters.update_one(doc! {"_id": name}, begin.clone()).upsert(true)).await {
            Ok(_) => {}
            // Another instance was first.
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(errors::translate(error)),
        }
    }
    Err(Error::unavailable("store", anyhow::anyhow!("counter {name} keeps going away")))
}
