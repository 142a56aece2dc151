//! Telemetry: a table with a column for each field.

use std::sync::LazyLock;

use async_trait::async_trait;
use rusqlite::{Connection, Row, params, params_from_iter, types::Value as SqlValue};

use super::SqliteStore;
use super::append::Batch;
use super::statement::prepare;
use crate::error::{Error, Result};
use crate::model::telemetry::{LABELS, Sample};
use crate::model::{ObjectId, Timestamp};
use crate::store::telemetry::{Group, MOST_GROUPS, Samples, Telemetry, Which};

/// The table; its indexes are in [`INDEXES`].
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS telemetry (n INTEGER PRIMARY KEY, id TEXT NOT NULL, ts INTEGER NOT NULL, kind TEXT NOT NULL,
    runtime TEXT NOT NULL, device_type TEXT, device_id TEXT, job_name TEXT, test_name TEXT, job_id TEXT, node_id TEXT,
    tree TEXT, branch TEXT, arch TEXT, result TEXT, error_type TEXT, error_msg TEXT, is_infra_error INTEGER NOT NULL,
    retry INTEGER NOT NULL, extra TEXT NOT NULL);
";

/// Names and columns of the indexes: those of contract 7.5.
pub(super) const INDEXES: [(&str, &str); 5] = [
    ("telemetry_by_ts", "ts"),
    ("telemetry_by_kind", "kind, ts"),
    ("telemetry_by_device_type", "runtime, device_type, ts"),
    ("telemetry_by_job_name", "job_name, ts"),
    ("telemetry_by_result", "result, is_infra_error, ts"),
];

/// How many records one transaction writes: others wait for it.
const STEP: usize = 500;

static COLUMNS: LazyLock<String> =
    LazyLock::new(|| format!("id, ts, is_infra_error, retry, extra, {}", LABELS.join(", ")));

#[async_trait]
impl Telemetry for SqliteStore {
    async fn add_samples(&self, samples: &[Sample]) -> Result<()> {
        for part in samples.chunks(STEP) {
            let part = part.to_vec();
            let add = move |batch: &mut Batch<'_>| {
                part.iter().try_for_each(|sample| insert(batch.connection, sample))
            };
            self.db.writer.run(STEP, add).await?;
        }
        Ok(())
    }

    async fn find_samples(&self, which: &Which, limit: u64, offset: u64) -> Result<Samples> {
        let which = which.clone();
        let find = move |connection: &Connection| {
            let total = count(connection, &which)?;
            Ok(Samples { total, ..find(connection, &which, i64::MIN, limit, offset)? })
        };
        self.db.searches.run(find).await
    }

    async fn more_samples(&self, which: &Which, end: &str, limit: u64) -> Result<Samples> {
        let (which, end) = (which.clone(), end.parse().map_err(Error::internal)?);
        self.db.searches.run(move |connection| find(connection, &which, end, limit, 0)).await
    }

    async fn group_samples(&self, which: &Which, by: &[&'static str], least: u64) -> Result<Vec<Group>> {
        let (which, by) = (which.clone(), by.to_vec());
        self.db.searches.run(move |connection| group(connection, &which, &by, least)).await
    }
}

fn insert(connection: &Connection, sample: &Sample) -> Result<()> {
    let marks = vec!["?"; 5 + LABELS.len()].join(", ");
    let sql = format!("INSERT INTO telemetry ({}) VALUES ({marks})", *COLUMNS);
    let extra = serde_json::to_string(&sample.extra).map_err(Error::internal)?;
    let first: [SqlValue; 5] = [
        sample.id.to_hex().into(),
        sample.ts.millis().into(),
        sample.is_infra_error.into(),
        sample.retry.into(),
        extra.into(),
    ];
    let labels = sample.labels.iter().map(|label| label.clone().into());
    connection.prepare_cached(&sql)?.execute(params_from_iter(first.into_iter().chain(labels)))?;
    Ok(())
}

/// The condition as SQL with its parameters.
fn condition(which: &Which) -> (String, Vec<SqlValue>) {
    let (mut parts, mut values) = (vec!["1".to_owned()], Vec::new());
    for (label, value) in &which.labels {
        parts.push(format!("{label} = ?"));
        values.push(value.clone().into());
    }
    for (path, value) in &which.extra {
        parts.push("json_extract(extra, ?) = ?".to_owned());
        values.extend([json_path(path), value.clone()].map(SqlValue::from));
    }
    let moment = |time: Option<Timestamp>| time.map(|time| SqlValue::from(time.millis()));
    for (part, value) in [
        ("is_infra_error = ?", which.is_infra_error.map(SqlValue::from)),
        ("retry = ?", which.retry.map(SqlValue::from)),
        ("ts >= ?", moment(which.since)),
        ("ts <= ?", moment(which.until)),
    ] {
        if let Some(value) = value {
            parts.push(part.to_owned());
            values.push(value);
        }
    }
    if let Some(label) = which.having {
        parts.push(format!("{label} <> ''"));
    }
    if !which.kinds.is_empty() {
        parts.push(format!("kind IN ({})", vec!["?"; which.kinds.len()].join(", ")));
        values.extend(which.kinds.iter().map(|&kind| SqlValue::from(kind.to_owned())));
    }
    (parts.join(" AND "), values)
}

/// Names hold no quotes: [`Which`] is made of checked ones.
fn json_path(names: &[String]) -> String {
    names.iter().fold("$".to_owned(), |path, name| format!("{path}.\"{name}\""))
}

fn count(connection: &Connection, which: &Which) -> Result<u64> {
    let (condition, values) = condition(which);
    let count = format!("SELECT count(*) FROM telemetry WHERE {condition}");
    let total: i64 = prepare(connection, &count)?.query_row(params_from_iter(&values), |row| row.get(0))?;
    Ok(total.unsigned_abs())
}

/// Records behind number `end`.
fn find(connection: &Connection, which: &Which, end: i64, limit: u64, offset: u64) -> Result<Samples> {
    let (condition, mut values) = condition(which);
    let sql = format!(
        "SELECT {}, n FROM telemetry WHERE {condition} AND n > ? ORDER BY n LIMIT ? OFFSET ?",
        *COLUMNS
    );
    values.push(end.into());
    values.extend([limit, offset].map(|number| SqlValue::from(i64::try_from(number).unwrap_or(i64::MAX))));
    let mut statement = prepare(connection, &sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Samples::default();
    while let Some(row) = rows.next()? {
        found.items.push(read(row)?.to_wire());
        found.end = Some(row.get::<_, i64>("n")?.to_string());
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Sample> {
    let mut labels = [const { None }; LABELS.len()];
    for (index, label) in labels.iter_mut().enumerate() {
        *label = row.get(5 + index)?;
    }
    Ok(Sample {
        id: row.get::<_, String>(0)?.parse::<ObjectId>().map_err(Error::internal)?,
        ts: Timestamp::from_millis(row.get(1)?),
        labels,
        is_infra_error: row.get(2)?,
        retry: row.get(3)?,
        extra: serde_json::from_str(row.get_ref(4)?.as_str().map_err(Error::internal)?)
            .map_err(Error::internal)?,
    })
}

fn group(connection: &Connection, which: &Which, by: &[&'static str], least: u64) -> Result<Vec<Group>> {
    let (condition, mut values) = condition(which);
    let by_columns = by.join(", ");
    // Columns beside max() are those of the row that has the maximum.
    let sql = format!(
        "SELECT count(*) AS total, sum(result IS 'pass'), sum(result IS 'fail'), sum(result IS 'incomplete'),
             sum(result IS 'skip'), sum(is_infra_error), max(ts), error_type, error_msg, {by_columns}
         FROM telemetry WHERE {condition} GROUP BY {by_columns} HAVING total >= ?
         ORDER BY total DESC, {by_columns} LIMIT ?"
    );
    values.extend([i64::try_from(least).unwrap_or(i64::MAX), MOST_GROUPS as i64].map(SqlValue::from));
    let mut statement = prepare(connection, &sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut groups = Vec::new();
    while let Some(row) = rows.next()? {
        let number = |index: usize| row.get::<_, i64>(index).map(i64::unsigned_abs);
        groups.push(Group {
            by: (0..by.len()).map(|index| row.get(9 + index)).collect::<rusqlite::Result<_>>()?,
            total: number(0)?,
            pass: number(1)?,
            fail: number(2)?,
            incomplete: number(3)?,
            skip: number(4)?,
            infra_error: number(5)?,
            last_seen: Timestamp::from_millis(row.get(6)?),
            error_type: row.get(7)?,
            error_msg: row.get(8)?,
        });
    }
    Ok(groups)
}

/// Removes up to `limit` records that are older than `cutoff`; whether there may be more.
pub(super) fn prune(batch: &Batch<'_>, cutoff: Timestamp, limit: i64) -> Result<bool> {
    let sql = "DELETE FROM telemetry WHERE n IN (SELECT n FROM telemetry WHERE ts < ? ORDER BY ts LIMIT ?)";
    let removed = batch.connection.prepare_cached(sql)?.execute(params![cutoff.millis(), limit])?;
    Ok(removed as i64 == limit)
}
