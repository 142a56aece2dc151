//! Leases. Only one process has the file open, so they keep its own tasks apart.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::SqliteStore;
use super::append::Batch;
use crate::error::Result;
use crate::store::Leases;

/// A lease cannot end later than its time from now, give or take; one that does was taken before the clock was set back.
const SLACK: i64 = 60_000;

/// `token` is kept when a lease ends.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until INTEGER NOT NULL,
    token INTEGER NOT NULL) WITHOUT ROWID;
";

#[async_trait]
impl Leases for SqliteStore {
    async fn take_lease(&self, name: &str, holder: &str, time: Duration) -> Result<Option<u64>> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let take = move |batch: &mut Batch<'_>| {
            let now = batch.now.millis();
            let sql = "INSERT INTO lease (name, holder, until, token) VALUES (?1, ?2, ?3, 1)
                       ON CONFLICT (name) DO UPDATE SET holder = ?2, until = ?3, token = token + (holder <> ?2)
                       WHERE holder = ?2 OR until <= ?4 OR until > ?3 + ?5 RETURNING token";
            let until = now.saturating_add(time);
            let mut statement = batch.connection.prepare_cached(sql)?;
            let token =
                statement.query_row(params![name, holder, until, now, SLACK], |row| row.get::<_, i64>(0));
            Ok(token.optional()?.map(i64::unsigned_abs))
        };
        self.db.writer.run(1, take).await
    }

    async fn drop_lease(&self, name: &str, holder: &str) -> Result<()> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        let end = move |batch: &mut Batch<'_>| {
            let sql = "UPDATE lease SET until = 0 WHERE name = ? AND holder = ?";
            batch.connection.prepare_cached(sql)?.execute([&name, &holder])?;
            Ok(())
        };
        self.db.writer.run(1, end).await
    }
}
