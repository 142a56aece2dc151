//! Statements whose text depends on what a client asks.

use std::ops::{Deref, DerefMut};

use rusqlite::{CachedStatement, Connection, Result, Statement};

/// How many prepared statements a connection keeps, those that were used last.
pub(super) const MOST_KEPT: usize = 64;
/// Bytes of the text of one that is worth keeping: nearly all that are asked again are shorter. A prepared one takes some
/// ten times as much.
const LONGEST_KEPT: usize = 4096;

/// A statement, kept for the next time or not.
pub(crate) enum Prepared<'c> {
    Kept(CachedStatement<'c>),
    Once(Statement<'c>),
}

/// Prepares a statement, which is kept if it is short: [`MOST_KEPT`] counts statements, and a client may write long ones.
pub(crate) fn prepare<'c>(connection: &'c Connection, sql: &str) -> Result<Prepared<'c>> {
    match sql.len() <= LONGEST_KEPT {
        true => connection.prepare_cached(sql).map(Prepared::Kept),
        false => connection.prepare(sql).map(Prepared::Once),
    }
}

impl<'c> Deref for Prepared<'c> {
    type Target = Statement<'c>;
    fn deref(&self) -> &Statement<'c> {
        match self {
            Prepared::Kept(statement) => statement,
            Prepared::Once(statement) => statement,
        }
    }
}

impl<'c> DerefMut for Prepared<'c> {
    fn deref_mut(&mut self) -> &mut Statement<'c> {
        match self {
            Prepared::Kept(statement) => statement,
            Prepared::Once(statement) => statement,
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::{StatementStatus, params_from_iter};
    use serde_json::{Value, json};

    use super::super::filter::{register, to_sql};
    use super::*;
    use crate::filter::{Filter, NODE};

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.set_prepared_statement_cache_capacity(MOST_KEPT);
        register(&connection).unwrap();
        connection.execute_batch("CREATE TABLE node (doc BLOB)").unwrap();
        connection
    }

    /// Counts, and says how often this very statement has run and what it takes.
    fn count(connection: &Connection, filter: &Value) -> (i32, i32) {
        let sql = to_sql(&Filter::from_json(filter, &NODE).unwrap(), "doc");
        let text = format!("SELECT count(*) FROM node WHERE {}", sql.text);
        let mut statement = prepare(connection, &text).unwrap();
        let count: i64 = statement.query_row(params_from_iter(sql.params), |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
        (statement.get_status(StatementStatus::Run), statement.get_status(StatementStatus::MemUsed))
    }

    #[test]
    fn lists_of_all_lengths_are_one_statement() {
        let connection = connection();
        let mixed = |n: i32| if n % 2 == 0 { json!(n) } else { json!(format!("v{n}")) };
        let mut last = (0, 0);
        for length in 1..=1000 {
            let filter = json!({"data.x.y__in": (0..length).map(mixed).collect::<Vec<_>>()});
            last = count(&connection, &filter);
        }
        let (runs, bytes) = last;
        assert!(runs > 990, "the very short ones are others: {runs}");
        assert!(bytes < 64 << 10, "{bytes}");
    }

    #[test]
    fn what_is_long_is_not_kept() {
        let connection = connection();
        let short = json!({"kind": "a", "data.x.y__gt": 1});
        let long: Value =
            (0..30).map(|n| (format!("data.x{n}.y.z"), json!(n))).collect::<serde_json::Map<_, _>>().into();
        for times in 1..=3 {
            assert_eq!(count(&connection, &short).0, times);
            assert_eq!(count(&connection, &long).0, 1);
        }
    }

    /// What all that are kept may take.
    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let connection = connection();
        let mut most = 0;
        for n in 0..40 {
            let conditions = (0..n).map(|m| (format!("data.x{m}.y__in"), json!(["a", 1, null])));
            let filter = Value::Object(conditions.collect());
            let text = to_sql(&Filter::from_json(&filter, &NODE).unwrap(), "doc").text;
            if text.len() < LONGEST_KEPT - 100 {
                most = most.max(count(&connection, &filter).1);
            }
        }
        assert!(most > 0 && (most as usize) < 64 << 10, "{most}");
    }
}
