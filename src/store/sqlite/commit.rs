//! Commits of nodes, inside the writer's transaction.

use std::collections::HashSet;
use std::sync::LazyLock;

use anyhow::anyhow;
use rusqlite::{Connection, OptionalExtension, params};

use super::append::{Batch, EventRow};
use super::filter::expression;
use crate::error::{Error, Result};
use crate::model::{ObjectId, Timestamp};
use crate::store::{Commit, Committed, Expect, IdempotencyKey, Write, is_same_request, size};
use crate::sync::HEAVY;

/// How long an idempotency key is remembered, in seconds.
pub(super) const REMEMBERED: i64 = 24 * 3600;

/// Larger commits are serialised off the async threads.
const LARGE: usize = 32;

/// A commit whose documents are already JSON text: the writer's time is what everybody waits for.
pub(super) struct Prepared {
    writes: Vec<Row>,
    idempotency: Option<IdempotencyKey>,
}

struct Row {
    id: ObjectId,
    hex: String,
    expect: Expect,
    revision: i64,
    doc: String,
    events: Vec<EventRow>,
}

/// Serialises a commit. Fails if it contradicts itself.
pub(super) async fn prepare(commit: Commit) -> Result<Prepared> {
    let few = commit.writes.len() <= LARGE && commit.writes.iter().all(|write| write.node.heap() <= HEAVY);
    if few {
        return serialise(commit);
    }
    tokio::task::spawn_blocking(move || serialise(commit)).await.map_err(Error::internal)?
}

fn serialise(commit: Commit) -> Result<Prepared> {
    let mut ids = HashSet::with_capacity(commit.writes.len());
    if let Some(twice) = commit.writes.iter().find(|write| !ids.insert(write.node.id)) {
        return Err(Error::internal(anyhow!("node {} is written twice in one commit", twice.node.id)));
    }
    let writes = commit.writes.into_iter().map(row).collect::<Result<_>>()?;
    Ok(Prepared { writes, idempotency: commit.idempotency })
}

/// Takes the write, so that a large commit is not held in both forms.
fn row(write: Write) -> Result<Row> {
    size::check(&write)?;
    let node = &write.node;
    let replaced = match write.expect {
        Expect::Absent => 0,
        Expect::Revision(revision) => revision,
    };
    if replaced.checked_add(1) != Some(node.revision) {
        return Err(Error::internal(anyhow!(
            "node {} would go from revision {replaced} to {}",
            node.id,
            node.revision
        )));
    }
    Ok(Row {
        id: node.id,
        hex: node.id.to_hex(),
        expect: write.expect,
        revision: node.revision as i64,
        doc: serde_json::to_string(&**node).map_err(Error::internal)?,
        events: write.events.iter().map(EventRow::new).collect(),
    })
}

impl Row {
    /// Adds the node; 0 if it is there already.
    fn insert(&self, batch: &Batch<'_>) -> Result<usize> {
        let sql = "INSERT INTO node (revision, doc) VALUES (?, jsonb(?)) ON CONFLICT DO NOTHING";
        Ok(batch.connection.prepare_cached(sql)?.execute(params![self.revision, self.doc])?)
    }

    fn append(&self, batch: &mut Batch<'_>) -> Result<()> {
        self.events.iter().try_for_each(|event| batch.append(event).map(drop))
    }
}

impl Prepared {
    /// About how many rows it writes.
    pub(super) fn rows(&self) -> usize {
        self.writes.iter().map(|row| 1 + row.events.len()).sum::<usize>() + 1
    }

    /// Writes everything or, when the answer is not [`Committed::Done`], nothing: what can be in the way is looked
    /// for first.
    pub(super) fn apply(&self, batch: &mut Batch<'_>) -> Result<Committed> {
        if let Some(ids) = self.repeated(batch)? {
            return Ok(Committed::Repeated(ids));
        }
        if let [row] = &self.writes[..]
            && row.expect == Expect::Absent
        {
            // Whether it is there already is found out by adding it.
            if row.insert(batch)? == 0 {
                let stored = stored(batch, &row.hex)?;
                return Ok(Committed::Conflict(row.id, stored.map(|(_, revision)| revision)));
            }
            row.append(batch)?;
            self.remember(batch)?;
            return Ok(Committed::Done);
        }
        let mut places = Vec::with_capacity(self.writes.len());
        for row in &self.writes {
            let stored = stored(batch, &row.hex)?;
            let expected = match row.expect {
                Expect::Absent => stored.is_none(),
                Expect::Revision(expected) => stored.is_some_and(|(_, revision)| revision == expected),
            };
            if !expected {
                return Ok(Committed::Conflict(row.id, stored.map(|(_, revision)| revision)));
            }
            places.push(stored.map(|(n, _)| n));
        }
        for (row, place) in self.writes.iter().zip(places) {
            match place {
                None => row.insert(batch)?,
                Some(n) => batch
                    .connection
                    .prepare_cached("UPDATE node SET revision = ?, doc = jsonb(?) WHERE n = ?")?
                    .execute(params![row.revision, row.doc, n])?,
            };
            row.append(batch)?;
        }
        self.remember(batch)?;
        Ok(Committed::Done)
    }

    /// The nodes of the first time, if this is not the first time.
    fn repeated(&self, batch: &Batch<'_>) -> Result<Option<Vec<ObjectId>>> {
        match &self.idempotency {
            Some(key) => remembered(batch.connection, key, batch.now),
            None => Ok(None),
        }
    }

    fn remember(&self, batch: &Batch<'_>) -> Result<()> {
        let Some(key) = &self.idempotency else { return Ok(()) };
        let ids: Vec<&str> = self.writes.iter().map(|row| row.hex.as_str()).collect();
        // Replaces one that is too old to count and has not been pruned.
        batch
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO idempotency (user, method, key, at, ids, fingerprint) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                key.user.to_hex(),
                key.method,
                key.key,
                batch.now.millis(),
                ids.join(" "),
                key.fingerprint
            ])?;
        Ok(())
    }
}

/// The nodes that a commit with this key wrote within the last day; 422 if that was another request.
pub(super) fn remembered(
    connection: &Connection,
    key: &IdempotencyKey,
    now: Timestamp,
) -> Result<Option<Vec<ObjectId>>> {
    let oldest = now.plus_seconds(-REMEMBERED).millis();
    let sql =
        "SELECT ids, fingerprint FROM idempotency WHERE user = ? AND method = ? AND key = ? AND at >= ?";
    let found: Option<(String, Option<String>)> = connection
        .prepare_cached(sql)?
        .query_row(params![key.user.to_hex(), key.method, key.key, oldest], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((ids, fingerprint)) = found else { return Ok(None) };
    is_same_request(fingerprint.as_deref(), &key.fingerprint)?;
    let ids = ids.split_whitespace().map(|id| id.parse().map_err(Error::internal));
    Ok(Some(ids.collect::<Result<_>>()?))
}

/// Row and revision of the node, if it exists.
fn stored(batch: &Batch<'_>, id: &str) -> Result<Option<(i64, u64)>> {
    static BY_ID: LazyLock<String> =
        LazyLock::new(|| format!("SELECT n, revision FROM node WHERE {} = ?", expression("id", "doc")));
    let stored = batch
        .connection
        .prepare_cached(&BY_ID)?
        .query_row([id], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))
        .optional()?;
    Ok(stored.map(|(n, revision)| (n, revision as u64)))
}
