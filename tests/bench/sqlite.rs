//! Bare SQLite: the row of a node and the row of its event in one durable transaction, nothing else.

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

    /// Reads one node.
    pub(crate) fn read(&self, at: usize) -> usize {
        let id = 1 + at as i64 * 7919 % self.next;
        let mut select =
            self.connection.prepare_cached("SELECT json(doc) FROM node WHERE id = ?").expect("a query");
        let doc: String = select.query_row([id], |row| row.get(0)).expect("a node");
        usize::from(!doc.is_empty())
    }
}
