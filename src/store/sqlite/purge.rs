//! Removing old nodes.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::SqliteStore;
use super::append::Batch;
use super::filter::expression;
use crate::error::{Error, Result};
use crate::model::{ObjectId, Timestamp};
use crate::store::purge::{KEPT, Old, Purge, Purged};

/// How many nodes one transaction removes: others wait for it.
const STEP: usize = 200;

/// An old node: its row, when it was created, its id.
type Candidate = (i64, Timestamp, ObjectId);

#[async_trait]
impl Purge for SqliteStore {
    async fn purge_nodes(&self, old: &Old, limit: usize) -> Result<Purged> {
        let old = *old;
        let found = self.db.searches.run(move |connection| candidates(connection, &old, limit)).await?;
        let mut removed = 0;
        for part in found.chunks(STEP) {
            let part = part.to_vec();
            let remove = move |batch: &mut Batch<'_>| remove(batch.connection, &part, old.before);
            removed += self.db.writer.run(STEP, remove).await?;
        }
        let behind = found.last().filter(|_| found.len() == limit).map(|(_, created, id)| (*created, *id));
        Ok(Purged { removed, kept: found.len() as u64 - removed, behind })
    }
}

fn candidates(connection: &Connection, old: &Old, limit: usize) -> Result<Vec<Candidate>> {
    let [created, id, kind] = ["created", "id", "kind"].map(|field| expression(field, "doc"));
    // The last bound is beyond every id.
    let (from, from_id) = match old.behind {
        Some((created, id)) => (created, id.to_hex()),
        None => (old.before, String::new()),
    };
    let sql = format!(
        "SELECT n, {created}, {id} FROM node WHERE ({created}, {id}) < (?, ?) AND {kind} <> '{KEPT}'
         ORDER BY {created} DESC, {id} DESC LIMIT ?"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![from.to_wire(), from_id, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let created = Timestamp::parse_iso(&row.get::<_, String>(1)?)?;
        found.push((row.get(0)?, created, row.get::<_, String>(2)?.parse().map_err(Error::internal)?));
    }
    Ok(found)
}

fn remove(connection: &Connection, nodes: &[Candidate], before: Timestamp) -> Result<u64> {
    let [created, kind] = ["created", "kind"].map(|field| expression(field, "doc"));
    let parent = expression("parent", "child.doc");
    let sql = format!(
        "DELETE FROM node WHERE n = ? AND {created} < ? AND {kind} <> '{KEPT}'
         AND NOT EXISTS (SELECT 1 FROM node AS child WHERE {parent} = ?)"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut removed = 0;
    for (n, _, id) in nodes {
        removed += statement.execute(params![n, before.to_wire(), id.to_hex()])? as u64;
    }
    Ok(removed)
}
