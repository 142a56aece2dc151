use serde_json::json;

use super::*;

/// The plan of a query over a table with the indexes that nodes have.
fn plan(filter: &Value, tail: &str) -> String {
    let db = Connection::open_in_memory().unwrap();
    register(&db).unwrap();
    db.execute_batch(&format!(
        "CREATE TABLE node (id TEXT PRIMARY KEY, doc BLOB CHECK ({}))",
        scalars(&NODE, "doc")
    ))
    .unwrap();
    for (name, paths) in [
        ("by_kind_state", &["kind", "state"] as &[&str]),
        ("by_parent", &["parent"]),
        ("by_treeid", &["treeid"]),
        ("by_created", &["created"]),
        ("by_commit", &["data.kernel_revision.commit"]),
        ("by_revision", &["data.kernel_revision.tree", "data.kernel_revision.branch"]),
        ("by_bridge", &["processed_by_kcidb_bridge", "updated"]),
    ] {
        let keys: Vec<String> = paths.iter().map(|path| expression(path, "doc")).collect();
        db.execute_batch(&format!("CREATE INDEX {name} ON node ({}, id)", keys.join(", "))).unwrap();
    }
    let sql = to_sql(&Filter::from_json(filter, &NODE).unwrap(), "n.doc");
    let text = format!("EXPLAIN QUERY PLAN SELECT doc FROM node n WHERE {} {tail}", sql.text);
    let mut statement = db.prepare(&text).unwrap();
    let rows =
        statement.query_map(rusqlite::params_from_iter(sql.params), |row| row.get::<_, String>(3)).unwrap();
    rows.map(|row| row.unwrap()).collect::<Vec<_>>().join("; ")
}

#[test]
fn indexes_serve_equality_and_ranges() {
    let id = "5f0000000000000000000abc";
    for (filter, index) in [
        (json!({"kind": "job"}), "by_kind_state (<expr>=?)"),
        (json!({"kind": "job", "state": "done"}), "by_kind_state (<expr>=? AND <expr>=?)"),
        (json!({"kind__in": ["job", "test"], "state": "done"}), "by_kind_state (<expr>=? AND <expr>=?)"),
        (json!({"parent": id}), "by_parent (<expr>=?)"),
        (json!({"parent__in": [id, "5f0000000000000000000ab2"]}), "by_parent (<expr>=?)"),
        (json!({"treeid__in": ["x", "y", "z"]}), "by_treeid (<expr>=?)"),
        (json!({"data.kernel_revision.commit__in": ["x", "y", true]}), "by_commit (<expr>=?)"),
        (json!({"parent": null}), "by_parent (<expr>=?)"),
        (json!({"treeid": "x"}), "by_treeid (<expr>=?)"),
        (json!({"created__gt": "2026-01-01"}), "by_created (<expr>>? AND <expr><?)"),
        (
            json!({"created__gte": "2026-01-01", "created__lt": "2026-01-02"}),
            "by_created (<expr>>? AND <expr><?)",
        ),
        (json!({"data.kernel_revision.commit": "x"}), "by_commit (<expr>=?)"),
        (
            json!({"data.kernel_revision.tree": "x", "data.kernel_revision.branch": "y"}),
            "by_revision (<expr>=? AND <expr>=?)",
        ),
        (
            json!({"processed_by_kcidb_bridge": false, "updated__lt": "2026-01-01"}),
            "by_bridge (<expr>=? AND <expr>>? AND <expr><?)",
        ),
        (json!({"all": [{"treeid": "x"}, {"not": {"name__re": "a"}}]}), "by_treeid (<expr>=?)"),
    ] {
        let plan = plan(&filter, "");
        // A list is read by itself, once.
        let search: Vec<&str> =
            plan.split("; ").filter(|step| !step.contains("rarray") && !step.starts_with("LIST")).collect();
        assert_eq!(search, [format!("SEARCH n USING INDEX {index}")], "{filter}: {plan}");
    }
}

/// Equality on declared fields keeps the order of the index: a page is read without sorting what matches.
#[test]
fn pages_are_read_off_the_index() {
    let filter = json!({"kind": "job", "state": "done"});
    assert!(!plan(&filter, "ORDER BY n.id LIMIT 50").contains("TEMP B-TREE"));
}

#[test]
fn tables_refuse_what_declared_fields_cannot_be() {
    let db = Connection::open_in_memory().unwrap();
    let check = scalars(&NODE, "doc");
    db.execute_batch(&format!("CREATE TABLE node (doc BLOB CHECK ({check}))")).unwrap();
    let insert = |doc: Value| db.execute("INSERT INTO node VALUES (jsonb(?))", [doc.to_string()]).is_ok();
    assert!(insert(json!({"kind": "job", "data": {"a": []}, "path": []})) && insert(json!({})));
    assert!(!insert(json!({"kind": []})) && !insert(json!({"created": {}})));
}

#[test]
fn large_filters_fit_the_limits_of_sqlite() {
    let db = Connection::open_in_memory().unwrap();
    register(&db).unwrap();
    db.execute_batch("CREATE TABLE node (doc BLOB)").unwrap();
    let path = |n: usize| format!("x{n}.{}", ["y"; 19].join("."));
    let mixed: Vec<Value> = (0..500).flat_map(|n| [json!(n), json!(n.to_string())]).collect();
    let lists = (0..10).map(|n| (format!("{}__in", path(n)), Value::from(mixed.clone())));
    let others = (10..64).map(|n| (format!("{}__gt", path(n)), json!(1)));
    let filter = Value::Object(lists.chain(others).collect());
    let sql = to_sql(&Filter::from_json(&filter, &NODE).unwrap(), "doc");
    let mut statement = db.prepare(&format!("SELECT count(*) FROM node WHERE {}", sql.text)).unwrap();
    let count: i64 = statement.query_row(rusqlite::params_from_iter(sql.params), |row| row.get(0)).unwrap();
    assert_eq!(count, 0);
}
