//! Named tokens (collection `namedtoken`), and tokens that have ended before their time (`endedtoken`). MongoDB removes
//! both when they expire; until it has, they are not found.

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::Collection;

use super::MongoStore;
use super::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use super::stored::Stored;
use crate::error::Result;
use crate::model::{NamedToken, ObjectId, Scope, Timestamp};
use crate::store::tokens::{TokenSaved, Tokens};

pub(super) const NAMED: &str = "namedtoken";
pub(super) const ENDED: &str = "endedtoken";

#[async_trait]
impl Tokens for MongoStore {
    async fn insert_token(&self, token: &NamedToken, most: usize) -> Result<TokenSaved> {
        let tokens = self.named();
        let expired = doc! {"user": token.user, "expires": {"$lte": bson::DateTime::now()}};
        call_on(&tokens, tokens.delete_many(expired)).await?;
        let document = doc! {
            "_id": token.id, "user": token.user, "name": &token.name, "scopes": token.scope.names(),
            "created": date(token.created), "last_used": Bson::Null, "expires": date(token.expires),
        };
        match errors::raw(tokens.insert_one(Stored(document))).await {
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => return Ok(TokenSaved::NameTaken),
            Err(error) => return Err(errors::translate(error)),
        }
        // Counted once it is there, so that of many at once none is one too many.
        let count = call(tokens.count_documents(doc! {"user": token.user}).max_time(QUERY_TIME)).await?;
        if count > most as u64 {
            call_on(&tokens, tokens.delete_one(doc! {"_id": token.id})).await?;
            return Ok(TokenSaved::TooMany);
        }
        Ok(TokenSaved::Done)
    }

    async fn token(&self, id: ObjectId) -> Result<Option<NamedToken>> {
        let query = doc! {"_id": id, "expires": {"$gt": bson::DateTime::now()}};
        Ok(call(self.named().find_one(query).max_time(QUERY_TIME)).await?.and_then(|found| read(&found)))
    }

    async fn tokens_of(&self, user: ObjectId) -> Result<Vec<NamedToken>> {
        let query = doc! {"user": user, "expires": {"$gt": bson::DateTime::now()}};
        let tokens = self.named();
        let find = tokens.find(query).sort(doc! {"_id": 1}).max_time(QUERY_TIME);
        let found: Vec<Stored> = call(async { find.await?.try_collect().await }).await?;
        Ok(found.iter().filter_map(|found| read(found)).collect())
    }

    async fn delete_token(&self, user: ObjectId, id: ObjectId) -> Result<bool> {
        Ok(call(self.named().delete_one(doc! {"_id": id, "user": user})).await?.deleted_count > 0)
    }

    async fn delete_tokens_of(&self, user: ObjectId) -> Result<()> {
        call(self.named().delete_many(doc! {"user": user})).await.map(drop)
    }

    async fn touch_tokens(&self, used: &[(ObjectId, Timestamp)]) -> Result<()> {
        for (id, at) in used {
            let update = doc! {"$max": {"last_used": date(*at)}};
            call(self.named().update_one(doc! {"_id": id}, update)).await?;
        }
        Ok(())
    }

    async fn end_token(&self, key: &str, expires: Option<Timestamp>) -> Result<()> {
        let expires = expires.map_or(Bson::Null, |at| Bson::DateTime(date(at)));
        let ended = Stored(doc! {"_id": key, "expires": expires});
        match errors::raw(self.ended().insert_one(ended)).await {
            Err(error) if !is_duplicate(&error) => Err(errors::translate(error)),
            _ => Ok(()),
        }
    }

    async fn is_ended(&self, key: &str) -> Result<bool> {
        Ok(call(self.ended().find_one(doc! {"_id": key}).max_time(QUERY_TIME)).await?.is_some())
    }
}

impl MongoStore {
    fn named(&self) -> Collection<Stored> {
        self.db.collection(NAMED)
    }
    fn ended(&self) -> Collection<Stored> {
        self.db.collection(ENDED)
    }
}

fn date(at: Timestamp) -> bson::DateTime {
    bson::DateTime::from_millis(at.millis())
}

fn read(document: &Document) -> Option<NamedToken> {
    let time =
        |key: &str| document.get_datetime(key).ok().map(|at| Timestamp::from_millis(at.timestamp_millis()));
    let scopes = document.get_array("scopes").ok()?.iter().filter_map(Bson::as_str).map(str::to_owned);
    Some(NamedToken {
        id: document.get_object_id("_id").ok()?,
        user: document.get_object_id("user").ok()?,
        name: document.get_str("name").ok()?.to_owned(),
        scope: Scope::parse(&scopes.collect::<Vec<_>>()).ok()?,
        created: time("created")?,
        last_used: time("last_used"),
        expires: time("expires")?,
    })
}
