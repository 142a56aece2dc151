//! The indexes of the file: made when it is opened, listed for `kernelci-live indexes`.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::filter::expression;
use super::{queues, telemetry};
use crate::error::Result;
use crate::store::indexes::NODE;
use crate::store::{IndexState, IndexStatus};

/// With more nodes than this the planner gets real statistics.
const WORTH_ANALYSING: i64 = 100_000;

/// An index as it should be.
struct Wanted {
    on: &'static str,
    name: &'static str,
    keys: String,
    sql: String,
    /// For `sqlite_stat1`.
    statistics: Option<String>,
}

/// Table, name, keys and definition of those that find what a user has.
const OF_USERS: [(&str, &str, &str, &str); 4] = [
    ("consumer", "consumer_by_user", "user_id, name", "(user_id, name)"),
    ("channel_owner", "channel_owner_by_user", "user", "(user)"),
    ("queue_item", "queue_item_by_owner", "owner", "(owner) WHERE owner IS NOT NULL"),
    ("kv", "kv_by_owner", "owner", "(owner) WHERE owner IS NOT NULL"),
];

fn wanted() -> Vec<Wanted> {
    let id = expression("id", "doc");
    let mut all = vec![
        Wanted {
            on: "node",
            name: "node_by_id",
            keys: "id".to_owned(),
            sql: format!("CREATE UNIQUE INDEX node_by_id ON node ({id})"),
            statistics: Some("1000000 1".to_owned()),
        },
        Wanted {
            on: "event",
            name: "event_by_time",
            keys: "time, us, id".to_owned(),
            sql: "CREATE INDEX event_by_time ON event (time, us, id)".to_owned(),
            statistics: None,
        },
        Wanted {
            on: "ended_token",
            name: "ended_token_by_expires",
            keys: "expires".to_owned(),
            sql: "CREATE INDEX ended_token_by_expires ON ended_token (expires)".to_owned(),
            statistics: None,
        },
    ];
    for (name, columns) in telemetry::INDEXES {
        all.push(Wanted {
            on: "telemetry",
            name,
            keys: columns.to_owned(),
            sql: format!("CREATE INDEX {name} ON telemetry ({columns})"),
            statistics: None,
        });
    }
    for (name, keys, what) in queues::INDEXES {
        all.push(Wanted {
            on: "queue_item",
            name,
            keys: keys.to_owned(),
            sql: format!("CREATE INDEX {name} ON queue_item {what}"),
            statistics: None,
        });
    }
    for (on, name, keys, what) in OF_USERS {
        all.push(Wanted {
            on,
            name,
            keys: keys.to_owned(),
            sql: format!("CREATE INDEX {name} ON {on} {what}"),
            statistics: None,
        });
    }
    for index in NODE {
        let expressions: Vec<String> = index.fields.iter().map(|field| expression(field, "doc")).collect();
        let rows: Vec<String> = index.rows_per_key.iter().map(u32::to_string).collect();
        all.push(Wanted {
            on: "node",
            name: index.name,
            keys: index.keys(),
            sql: format!("CREATE INDEX {} ON node ({}, {id})", index.name, expressions.join(", ")),
            statistics: Some(format!("1000000 {} 1", rows.join(" "))),
        });
    }
    all
}

/// Makes what is missing, and makes anew what an older version defined otherwise. Indexes of other names are left
/// alone.
pub(super) fn ensure(connection: &Connection) -> Result<()> {
    let present = present(connection)?;
    for index in wanted() {
        match present.get(index.name) {
            Some((_, sql)) if *sql == index.sql => continue,
            Some(_) => connection.execute_batch(&format!("DROP INDEX {}", index.name))?,
            None => {}
        }
        connection.execute_batch(&index.sql)?;
    }
    statistics(connection)
}

/// Without statistics the planner takes all indexes for equally selective, and would look for the children of one
/// node among all that are done. A young file gets the estimates of the table of indexes, a grown one its own.
fn statistics(connection: &Connection) -> Result<()> {
    let nodes: Option<i64> = connection.query_row("SELECT max(n) FROM node", [], |row| row.get(0))?;
    if nodes.unwrap_or(0) > WORTH_ANALYSING {
        return Ok(connection.execute_batch("PRAGMA analysis_limit = 1000; ANALYZE node")?);
    }
    // Makes the tables of statistics.
    connection
        .execute_batch("ANALYZE sqlite_schema; ANALYZE meta; DELETE FROM sqlite_stat1 WHERE tbl = 'node'")?;
    for index in wanted() {
        if let Some(statistics) = index.statistics {
            connection.execute(
                "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)",
                params![index.on, index.name, statistics],
            )?;
        }
    }
    Ok(connection.execute_batch("ANALYZE sqlite_schema")?)
}

/// What there is, should be, and is left over.
pub(super) fn status(connection: &Connection) -> Result<Vec<IndexStatus>> {
    let mut present = present(connection)?;
    let mut all = Vec::new();
    for index in wanted() {
        let state = match present.remove(index.name) {
            Some(_) => IndexState::Present,
            None => IndexState::Missing,
        };
        all.push(IndexStatus {
            on: index.on.to_owned(),
            name: index.name.to_owned(),
            keys: index.keys,
            state,
        });
    }
    for (name, (on, sql)) in present {
        let keys = sql.split_once('(').map_or("", |(_, keys)| keys.trim_end_matches(')')).to_owned();
        all.push(IndexStatus { on, name, keys, state: IndexState::LeftOver });
    }
    Ok(all)
}

/// Indexes by name: table and definition. Those that SQLite makes for UNIQUE have no definition and do not count.
fn present(connection: &Connection) -> Result<BTreeMap<String, (String, String)>> {
    let sql = "SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use rusqlite::params_from_iter;
    use serde_json::{Value, json};

    use super::super::filter::{register, to_sql};
    use super::super::schema;
    use super::*;
    use crate::filter::{self, Filter};

    /// The plan of a query on a new file: what the estimates are for.
    fn plan(filter: &Value, order: &str) -> String {
        let connection = Connection::open_in_memory().unwrap();
        schema::PARTS.iter().for_each(|tables| connection.execute_batch(tables).unwrap());
        register(&connection).unwrap();
        ensure(&connection).unwrap();
        let condition = to_sql(&Filter::from_json(filter, &filter::NODE).unwrap(), "doc");
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT n FROM node WHERE {} ORDER BY {order} LIMIT 50",
            condition.text
        );
        let mut statement = connection.prepare(&sql).unwrap();
        let steps =
            statement.query_map(params_from_iter(condition.params), |row| row.get::<_, String>(3)).unwrap();
        steps.map(|step| step.unwrap()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn the_planner_takes_the_selective_index() {
        let id = expression("id", "doc");
        let created = format!("{} DESC, {id} DESC", expression("created", "doc"));
        let node = "5f0000000000000000000abc";
        let date = "2026-01-01T00:00:00";
        for (filter, order, index, sorted) in [
            (json!({"parent": node, "state": "done", "kind": "job"}), &id, "node_by_parent", true),
            (json!({"treeid": "t", "state": "done"}), &id, "node_by_treeid", true),
            (json!({"kind": "job", "state": "available"}), &id, "node_by_kind_state", true),
            (json!({"id": node, "state": "done"}), &id, "node_by_id", true),
            (json!({"id__gt": node}), &id, "node_by_id", true),
            (json!({"id__in": [node, node, node], "state": "done"}), &id, "node_by_id", false),
            (
                json!({"parent__in": [node, "5f0000000000000000000ab2"], "state": "done", "kind": "job"}),
                &id,
                "node_by_parent",
                false,
            ),
            (json!({}), &id, "node_by_id", true),
            (json!({}), &created, "node_by_created", true),
            (json!({"created__gt": date}), &created, "node_by_created", true),
            (json!({"kind": "checkout", "created__gt": date}), &created, "node_by_kind_created", true),
            (json!({"kind": "job", "result": "fail"}), &created, "node_by_kind_result_created", true),
            (json!({"kind": "kbuild", "name": "n"}), &created, "node_by_kind_name_created", true),
            (
                json!({"state__in": ["running", "closing"], "timeout__lt": date}),
                &id,
                "node_by_state_timeout",
                false,
            ),
            (json!({"state": "available", "holdoff__lt": date}), &id, "node_by_state_holdoff", false),
            (
                json!({"state": "done", "processed_by_kcidb_bridge": false, "updated__lt": date}),
                &id,
                "node_by_state_bridge_updated",
                false,
            ),
            (
                json!({"data.kernel_revision.tree": "t", "data.kernel_revision.branch": "b",
                       "data.kernel_revision.commit": "c", "kind": "checkout"}),
                &id,
                "node_by_kernel_revision",
                false,
            ),
        ] {
            let plan = plan(&filter, order);
            assert!(plan.contains(index), "{filter}: {plan}");
            assert!(!sorted || !plan.contains("TEMP B-TREE"), "{filter} is sorted by its index: {plan}");
        }
    }
}
