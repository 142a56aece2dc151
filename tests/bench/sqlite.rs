//! Bare SQLite: the row of a node and the row of its event in one durable transaction, and the plainest queries.

use rusqlite::{Connection, params};
use tempfile::TempDir;

/// A database with one node table and one event table.
pub(crate) struct Peer {
    connection: Connection,
    next: i64,
    node: String,
    event: String,
    // Behind the connection: removed after it is closed.
    _folder: TempDir,
}

impl Peer {
    /// `node` and `event` are JSON as the server stores them.
    pub(crate) fn new(node: String, event: String) -> Peer {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let connection = Connection::open(folder.path().join("peer.db")).expect("a database");
        connection.pragma_update(None, "journal_mode", "wal").expect("WAL");
        connection.pragma_update(None, "synchronous", "full").expect("synchronous");
        connection
            .execute_batch(
                "CREATE TABLE node (id INTEGER PRIMARY KEY, doc BLOB NOT NULL);
                 CREATE TABLE event (id INTEGER PRIMARY KEY, doc BLOB NOT NULL);",
            )
            .expect("tables");
        Peer { connection, next: 0, node, event, _folder: folder }
    }

    /// Writes `count` nodes with their events in one transaction.
    pub(crate) fn write(&mut self, count: usize) -> usize {
        let transaction = self.connection.transaction().expect("a transaction");
        for _ in 0..count {
            self.next += 1;
            for (table, doc) in [("node", &self.node), ("event", &self.event)] {
                transaction
                    .prepare_cached(&format!("INSERT INTO {table} (id, doc) VALUES (?, jsonb(?))"))
                    .and_then(|mut insert| insert.execute(params![self.next, doc]))
                    .expect("an insert");
            }
        }
        transaction.commit().expect("a commit");
        count
    }

    /// An index on these members of the documents, as the queries of [`Peer::page`] and [`Peer::count`] need it.
    pub(crate) fn index(&self, members: &[&str]) {
        let keys: Vec<String> = members.iter().map(|member| format!("doc ->> '$.{member}'")).collect();
        let sql = format!("CREATE INDEX by_{} ON node ({})", members.join("_"), keys.join(", "));
        self.connection.execute_batch(&sql).expect("an index");
    }

    /// Writes these nodes and one event in one transaction.
    pub(crate) fn write_all(&mut self, nodes: &[String]) -> usize {
        let transaction = self.connection.transaction().expect("a transaction");
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO node (id, doc) VALUES (?, jsonb(?))").expect("SQL");
            for node in nodes {
                self.next += 1;
                insert.execute(params![self.next, node]).expect("an insert");
            }
            let sql = "INSERT INTO event (id, doc) VALUES (?, jsonb(?))";
            transaction.execute(sql, params![self.next, self.event]).expect("an insert");
        }
        transaction.commit().expect("a commit");
        nodes.len()
    }

    /// The first 50 nodes of this kind, and how many there are.
    pub(crate) fn page(&self, kind: &str) -> usize {
        let sql = "SELECT json(doc) FROM node WHERE doc ->> '$.kind' = ? LIMIT 50";
        let mut select = self.connection.prepare_cached(sql).expect("a query");
        let rows = select.query_map([kind], |row| row.get::<_, String>(0)).expect("rows");
        let page: Vec<String> = rows.collect::<Result<_, _>>().expect("rows");
        let sql = "SELECT count(*) FROM node WHERE doc ->> '$.kind' = ?";
        let mut count = self.connection.prepare_cached(sql).expect("a query");
        let total: i64 = count.query_row([kind], |row| row.get(0)).expect("a number");
        usize::from(total >= page.len() as i64)
    }

    /// How many nodes of this kind have this result.
    pub(crate) fn count(&self, kind: &str, result: &str) -> usize {
        let sql = "SELECT count(*) FROM node WHERE doc ->> '$.kind' = ? AND doc ->> '$.result' = ?";
        let mut count = self.connection.prepare_cached(sql).expect("a query");
        let total: i64 = count.query_row([kind, result], |row| row.get(0)).expect("a number");
        usize::from(total > 0)
    }

    /// Reads one node.
    pub(crate) fn read(&self, at: usize) -> usize {
        let id = 1 + at as i64 * 7919 % self.next;
        let mut select =
            self.connection.prepare_cached("SELECT json(doc) FROM node WHERE id = ?").expect("a query");
        let doc: String = select.query_row([id], |row| row.get(0)).expect("a node");
        usize::from(!doc.is_empty())
    }
}
