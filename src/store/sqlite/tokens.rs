//! Named tokens, and tokens that have ended before their time.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::append::Batch;
use super::users::count_of;
use crate::error::{Error, Result};
use crate::model::{NamedToken, ObjectId, Scope, Timestamp};
use crate::store::tokens::{TokenSaved, Tokens};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS named_token (id TEXT PRIMARY KEY, user TEXT NOT NULL, name TEXT NOT NULL, scopes TEXT NOT NULL,
    created INTEGER NOT NULL, last_used INTEGER, expires INTEGER NOT NULL, UNIQUE (user, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ended_token (key TEXT PRIMARY KEY, expires INTEGER) WITHOUT ROWID;
";

#[async_trait]
impl Tokens for SqliteStore {
    async fn insert_token(&self, token: &NamedToken, most: usize) -> Result<TokenSaved> {
        let token = token.clone();
        self.db.writer.run(1, move |batch| insert(batch.connection, &token, most)).await
    }

    async fn token(&self, id: ObjectId) -> Result<Option<NamedToken>> {
        self.db.quick.run(move |connection| one(connection, id)).await
    }

    async fn tokens_of(&self, user: ObjectId) -> Result<Vec<NamedToken>> {
        self.db.quick.run(move |connection| all(connection, user)).await
    }

    async fn delete_token(&self, user: ObjectId, id: ObjectId) -> Result<bool> {
        let work = move |batch: &mut Batch<'_>| {
            let sql = "DELETE FROM named_token WHERE id = ? AND user = ?";
            Ok(batch.connection.prepare_cached(sql)?.execute([id.to_hex(), user.to_hex()])? > 0)
        };
        self.db.writer.run(1, work).await
    }

    async fn delete_tokens_of(&self, user: ObjectId) -> Result<()> {
        let work = move |batch: &mut Batch<'_>| {
            let sql = "DELETE FROM named_token WHERE user = ?";
            batch.connection.prepare_cached(sql)?.execute([user.to_hex()])?;
            Ok(())
        };
        self.db.writer.run(1, work).await
    }

    async fn touch_tokens(&self, used: &[(ObjectId, Timestamp)]) -> Result<()> {
        let used = used.to_vec();
        let work = move |batch: &mut Batch<'_>| {
            let sql = "UPDATE named_token SET last_used = max(coalesce(last_used, 0), ?2) WHERE id = ?1";
            let mut statement = batch.connection.prepare_cached(sql)?;
            for (id, at) in &used {
                statement.execute(params![id.to_hex(), at.millis()])?;
            }
            Ok(())
        };
        self.db.writer.run(1, work).await
    }

    async fn end_token(&self, key: &str, expires: Option<Timestamp>) -> Result<()> {
        let key = key.to_owned();
        let work = move |batch: &mut Batch<'_>| {
            let old = "DELETE FROM ended_token WHERE expires < ?";
            batch.connection.prepare_cached(old)?.execute([batch.now.millis()])?;
            let sql = "INSERT OR IGNORE INTO ended_token (key, expires) VALUES (?, ?)";
            batch.connection.prepare_cached(sql)?.execute(params![key, expires.map(Timestamp::millis)])?;
            Ok(())
        };
        self.db.writer.run(1, work).await
    }

    async fn is_ended(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        let work = move |connection: &Connection| {
            Ok(connection.prepare_cached("SELECT 1 FROM ended_token WHERE key = ?")?.exists([&key])?)
        };
        self.db.quick.run(work).await
    }
}

fn insert(connection: &Connection, token: &NamedToken, most: usize) -> Result<TokenSaved> {
    let user = token.user.to_hex();
    let expired = "DELETE FROM named_token WHERE user = ? AND expires <= ?";
    connection.prepare_cached(expired)?.execute(params![user, Timestamp::now().millis()])?;
    let named = "SELECT 1 FROM named_token WHERE user = ? AND name = ?";
    if connection.prepare_cached(named)?.exists([&user, &token.name])? {
        return Ok(TokenSaved::NameTaken);
    }
    let count = "SELECT count(*) FROM named_token WHERE user = ?";
    if connection.prepare_cached(count)?.query_row([&user], count_of)? >= most as u64 {
        return Ok(TokenSaved::TooMany);
    }
    let scopes = serde_json::to_string(&token.scope.names()).map_err(Error::internal)?;
    connection
        .prepare_cached(
            "INSERT INTO named_token (id, user, name, scopes, created, expires) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            token.id.to_hex(),
            user,
            token.name,
            scopes,
            token.created.millis(),
            token.expires.millis()
        ])?;
    Ok(TokenSaved::Done)
}

fn one(connection: &Connection, id: ObjectId) -> Result<Option<NamedToken>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM named_token WHERE id = ? AND expires > ?")?;
    let found = statement.query_row(params![id.to_hex(), Timestamp::now().millis()], |row| Ok(read(row)));
    found.optional()?.transpose()
}

fn all(connection: &Connection, user: ObjectId) -> Result<Vec<NamedToken>> {
    let sql = "SELECT * FROM named_token WHERE user = ? AND expires > ? ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![user.to_hex(), Timestamp::now().millis()], |row| Ok(read(row)))?;
    rows.map(|row| row?).collect()
}

fn read(row: &Row<'_>) -> Result<NamedToken> {
    let id = |column| row.get::<_, String>(column)?.parse::<ObjectId>().map_err(Error::internal);
    let scopes: Vec<String> =
        serde_json::from_str(&row.get::<_, String>("scopes")?).map_err(Error::internal)?;
    Ok(NamedToken {
        id: id("id")?,
        user: id("user")?,
        name: row.get("name")?,
        scope: Scope::parse(&scopes)?,
        created: Timestamp::from_millis(row.get("created")?),
        last_used: row.get::<_, Option<i64>>("last_used")?.map(Timestamp::from_millis),
        expires: Timestamp::from_millis(row.get("expires")?),
    })
}
