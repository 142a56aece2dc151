//! Keys and values in the store's file.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::Kv;
use crate::error::Result;
use crate::store::sqlite::Database;

/// The table.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS kv (namespace TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (namespace, key)) WITHOUT ROWID;
";

/// Keys and values in a SQLite file.
pub struct SqliteKv {
    db: Arc<Database>,
}

impl SqliteKv {
    pub(crate) fn new(db: Arc<Database>) -> SqliteKv {
        SqliteKv { db }
    }
}

#[async_trait]
impl Kv for SqliteKv {
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<String>> {
        let names = [namespace.to_owned(), key.to_owned()];
        let read = move |connection: &rusqlite::Connection| {
            let sql = "SELECT value FROM kv WHERE namespace = ? AND key = ?";
            Ok(connection.prepare_cached(sql)?.query_row(names, |row| row.get(0)).optional()?)
        };
        self.db.quick.run(read).await
    }

    async fn set(&self, namespace: &str, key: &str, value: &str) -> Result<()> {
        let (namespace, key, value) = (namespace.to_owned(), key.to_owned(), value.to_owned());
        let write = move |batch: &mut crate::store::sqlite::Batch<'_>| {
            let sql = "INSERT INTO kv (namespace, key, value) VALUES (?, ?, ?)
                       ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value";
            batch.connection.prepare_cached(sql)?.execute(params![namespace, key, value])?;
            Ok(())
        };
        self.db.writer.run(1, write).await
    }

    async fn remove(&self, namespace: &str, key: &str) -> Result<()> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let write = move |batch: &mut crate::store::sqlite::Batch<'_>| {
            let sql = "DELETE FROM kv WHERE namespace = ? AND key = ?";
            batch.connection.prepare_cached(sql)?.execute(params![namespace, key])?;
            Ok(())
        };
        self.db.writer.run(1, write).await
    }
}
