//! Reading nodes.
//!
//! SQL preselects with a condition that is never too narrow, `Filter::matches` decides where that is not exact, and
//! what is skipped and limited is counted after that. Searches sort row numbers and fetch the documents afterwards,
//! so that a sort never carries documents.

use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde_json::Value;

use super::filter::{Param, Sql, expression, to_sql};
use super::statement::prepare;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::model::ObjectId;
use crate::store::{Found, Query, Raw, SortKey, Wire};

/// The column that holds the documents.
const DOC: &str = "doc";

/// The nodes with these ids.
pub(super) fn by_ids(connection: &Connection, ids: &[ObjectId]) -> Result<Vec<(ObjectId, Raw)>> {
    let sql = format!("SELECT json({DOC}) FROM node WHERE {} = ?", expression("id", DOC));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(doc) = statement.query_row([id.to_hex()], text).optional()? {
            found.push((*id, Raw::Text(doc.into())));
        }
    }
    Ok(found)
}

/// The nodes that match, in order.
pub(super) fn find(connection: &Connection, query: &Query) -> Result<Found> {
    let Sql { text: condition, mut params, exact } = to_sql(&query.filter, DOC);
    let mut sql = format!("SELECT n FROM node WHERE {condition} ORDER BY {}", order_by(&query.sort));
    if exact {
        sql.push_str(" LIMIT ? OFFSET ?");
        params.push(bounded(query.limit));
        params.push(bounded(query.offset));
    }
    let mut places = prepare(connection, &sql)?;
    let mut documents = connection.prepare_cached("SELECT json(doc) FROM node WHERE n = ?")?;
    let mut rows = places.query(params_from_iter(params))?;
    let (mut skip, mut found, mut bytes) = (if exact { 0 } else { query.offset }, Vec::new(), 0);
    while (found.len() as u64) < query.limit
        && let Some(row) = rows.next()?
    {
        if bytes > query.bytes {
            return Ok(Found { nodes: found, cut: true });
        }
        let doc: String = documents.query_row([row.get::<_, i64>(0)?], text)?;
        if !exact && !query.filter.matches(&Value::Object(parse(&doc)?)) {
            continue;
        }
        if skip > 0 {
            skip -= 1;
        } else {
            bytes += doc.len();
            found.push(Raw::Text(doc.into()));
        }
    }
    Ok(Found { nodes: found, cut: false })
}

/// How many nodes match.
pub(super) fn count(connection: &Connection, filter: &Filter) -> Result<u64> {
    let Sql { text: condition, params, exact } = to_sql(filter, DOC);
    if exact {
        let sql = format!("SELECT count(*) FROM node WHERE {condition}");
        let count: i64 = prepare(connection, &sql)?.query_row(params_from_iter(params), |row| row.get(0))?;
        return Ok(count as u64);
    }
    let mut statement = prepare(connection, &format!("SELECT json({DOC}) FROM node WHERE {condition}"))?;
    let mut rows = statement.query(params_from_iter(params))?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        if filter.matches(&Value::Object(parse(&text(row)?)?)) {
            count += 1;
        }
    }
    Ok(count)
}

/// The sort keys as the expressions that the indexes are made of. SQLite sorts null first, as the contract demands.
fn order_by(sort: &[SortKey]) -> String {
    let direction = |descending| if descending { "DESC" } else { "ASC" };
    let mut keys: Vec<String> = Vec::new();
    for key in sort.iter().take_while(|key| key.field != "id") {
        keys.push(format!("{} {}", expression(key.field, DOC), direction(key.descending)));
    }
    // Nothing behind `id` can matter. If it is not asked for it goes the way of the first key, so that an index can
    // be read from either end.
    let id = sort.iter().find(|key| key.field == "id").or(sort.first());
    let descending = id.is_some_and(|key| key.descending);
    keys.push(format!("{} {}", expression("id", DOC), direction(descending)));
    keys.join(", ")
}

fn bounded(count: u64) -> Param {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}

fn text(row: &Row<'_>) -> rusqlite::Result<String> {
    row.get(0)
}

fn parse(doc: &str) -> Result<Wire> {
    serde_json::from_str(doc).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_always_the_last_key() {
        let key = |field, descending| SortKey { field, descending };
        let id = expression("id", DOC);
        let created = expression("created", DOC);
        assert_eq!(order_by(&[]), format!("{id} ASC"));
        assert_eq!(order_by(&[key("created", true)]), format!("{created} DESC, {id} DESC"));
        assert_eq!(order_by(&[key("created", true), key("id", false)]), format!("{created} DESC, {id} ASC"));
        assert_eq!(order_by(&[key("id", true), key("created", false)]), format!("{id} DESC"));
    }
}
