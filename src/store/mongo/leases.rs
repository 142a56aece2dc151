//! Leases, collection `lease`: `{_id: name, holder, until, token}`. A document stays when its lease ends, for the token.

use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, doc};
use mongodb::options::ReturnDocument;

use super::MongoStore;
use super::document::integer;
use super::errors::{self, call_on, is_duplicate};
use super::stored::Stored;
use crate::error::Result;
use crate::store::Leases;

#[async_trait]
impl Leases for MongoStore {
    async fn take_lease(&self, name: &str, holder: &str, time: Duration) -> Result<Option<u64>> {
        let leases = self.db.collection::<Stored>("lease");
        let own = doc! {"$eq": ["$holder", holder]};
        let over = doc! {"$lte": [{"$ifNull": ["$until", "$$NOW"]}, "$$NOW"]};
        let free = doc! {"$or": [own.clone(), over]};
        // The server's clock is not allowed in the condition of an upsert: what is not free is written as it was.
        let if_free = |new: Bson, old: &str| doc! {"$cond": [free.clone(), new, old]};
        let next = doc! {"$add": [{"$ifNull": ["$token", 0_i64]}, 1_i64]};
        let token = doc! {"$cond": [own, "$token", next]};
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4);
        let set = doc! {"$set": {
            "token": if_free(token.into(), "$token"),
            "holder": if_free(holder.into(), "$holder"),
            "until": if_free(doc! {"$add": ["$$NOW", time]}.into(), "$until"),
        }};
        let take = leases.find_one_and_update(doc! {"_id": name}, vec![set]);
        match errors::raw(take.upsert(true).return_document(ReturnDocument::After)).await {
            Ok(lease) => {
                let lease = lease.filter(|lease| lease.get_str("holder").is_ok_and(|now| now == holder));
                Ok(lease.and_then(|lease| integer(lease.get("token")?)).map(i64::unsigned_abs))
            }
            // Somebody else was first to make it.
            Err(error) if is_duplicate(&error) => Ok(None),
            Err(error) => Err(errors::translate(error)),
        }
    }

    async fn drop_lease(&self, name: &str, holder: &str) -> Result<()> {
        let leases = self.db.collection::<Stored>("lease");
        let end = vec![doc! {"$set": {"until": "$$NOW"}}];
        call_on(&leases, leases.update_one(doc! {"_id": name, "holder": holder}, end)).await.map(drop)
    }
}
