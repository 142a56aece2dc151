use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::append::Appender;
use super::super::channels::Channels;
use super::super::clock::Clock;
use super::super::{Synchronous, schema};
use super::*;
use crate::model::timestamp::WallClock;

const LONG: Duration = Duration::from_secs(3600);

/// The table as version 2 had it.
const TABLE_2: &str = "
DROP TABLE queue;
DROP TABLE queue_item;
CREATE TABLE queue_item (n INTEGER PRIMARY KEY AUTOINCREMENT, list TEXT, doc TEXT, bytes INTEGER NOT NULL,
    key TEXT UNIQUE, until INTEGER NOT NULL, token TEXT, deliveries INTEGER NOT NULL, gone INTEGER,
    UNIQUE (list, n));
PRAGMA user_version = 2;
";

/// A file whose steps are counted, in a transaction of the writer.
struct Counted {
    connection: Connection,
    appender: Appender,
    steps: Arc<AtomicU64>,
}

impl Counted {
    fn open(path: &Path) -> Counted {
        let (mut connection, _) = schema::open(path, Synchronous::Normal).unwrap();
        let appender = Appender::load(
            &connection,
            Arc::new(Channels::default()),
            Clock::start(WallClock::default(), None),
        )
        .unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counter = steps.clone();
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(count)).unwrap();
        Counted { connection, appender, steps }
    }
    /// What the work answers, and the steps of SQLite's machine that it took.
    fn run<T>(&mut self, work: impl FnOnce(&Batch<'_>) -> Result<T>) -> (T, u64) {
        let batch = Batch::new(&self.connection, &mut self.appender).unwrap();
        let before = self.steps.load(Ordering::Relaxed);
        let done = work(&batch).unwrap();
        (done, self.steps.load(Ordering::Relaxed) - before)
    }
    fn push(&mut self, list: &str, key: Option<&str>) -> (Pushed, u64) {
        let item = NewItem {
            fingerprint: String::new(),
            list: list.to_owned(),
            json: "\"item\"".to_owned(),
            key: key.map(str::to_owned),
            share: None,
        };
        self.run(|batch| push(batch, &item))
    }
    fn take(&mut self, list: &str) -> (Option<Leased>, u64) {
        self.run(|batch| take(batch, list, &uuid::Uuid::new_v4().simple().to_string(), LONG))
    }
    fn depths(&self) -> Vec<(String, i64, i64)> {
        let mut statement = self.connection.prepare("SELECT * FROM queue ORDER BY list").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(|row| row.unwrap()).collect()
    }
}

/// Items of the list: free ones, behind as many that somebody has, and as many that are only remembered.
fn fill(connection: &Connection, list: &str, count: u64) {
    let far = i64::MAX / 2;
    for row in [
        "?2, 'x', 1, NULL, ?3, 't', 1, NULL",
        "?2, 'x', 1, NULL, 0, NULL, 0, NULL",
        "NULL, NULL, 0, ?2 || n, 0, NULL, 1, ?3",
    ] {
        let sql = format!(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?1)
             INSERT INTO queue_item (list, doc, bytes, key, until, token, deliveries, gone) SELECT {row} FROM c WHERE ?3"
        );
        connection.execute(&sql, params![count as i64, list, far]).unwrap();
    }
}

/// In steps, of a push (without a key, with one, with the same again), a pop, an ack and one of an item with a key.
fn costs(file: &mut Counted, list: &str) -> [u64; 6] {
    let (pushed, push) = file.push(list, None);
    let (again, keyed) = file.push(list, Some("k"));
    let (known, repeated) = file.push(list, Some("k"));
    assert_eq!([pushed, again, known], [Pushed::Done; 3]);
    let (taken, pop) = file.take(list);
    let lease = taken.unwrap().lease;
    let (removed, ack) = file.run(|batch| remove(batch, &lease));
    assert!(removed);
    let keyed_lease = Lease { item: 0, token: "t".repeat(32) };
    let sql = "UPDATE queue_item SET token = ? WHERE key = 'k' RETURNING n";
    let n: i64 = file.connection.query_row(sql, [&keyed_lease.token], |row| row.get(0)).unwrap();
    let (removed, keyed_ack) = file.run(|batch| remove(batch, &Lease { item: n as u64, ..keyed_lease }));
    assert!(removed);
    file.connection.execute("DELETE FROM queue_item WHERE key = 'k'", []).unwrap();
    [push, keyed, repeated, pop, ack, keyed_ack]
}

#[test]
fn a_long_queue_costs_what_a_short_one_costs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    for version_2 in [false, true] {
        if version_2 {
            Counted::open(&path).connection.execute_batch(TABLE_2).unwrap();
        }
        let mut file = Counted::open(&path);
        // Prepares the statements.
        costs(&mut file, "short");
        let short = costs(&mut file, "short");
        fill(&file.connection, "long", 3_000);
        let long = costs(&mut file, "long");
        let beside = costs(&mut file, "short");
        for (short, long) in short.iter().zip(long).chain(short.iter().zip(beside)) {
            assert!(long <= short + 20, "{short} steps, then {long}; version 2: {version_2}");
        }
    }
}

#[test]
fn what_a_file_of_version_2_has_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    {
        let file = Counted::open(&path);
        file.connection.execute_batch(TABLE_2).unwrap();
        fill(&file.connection, "a", MOST_ITEMS / 2);
        fill(&file.connection, "b", 1);
    }
    let full = |items: i64| vec![("a".to_owned(), items, items), ("b".to_owned(), 2, 2)];
    let most = MOST_ITEMS as i64;
    let mut file = Counted::open(&path);
    assert_eq!(file.depths(), full(most));
    assert_eq!(file.push("a", None).0, Pushed::Full);
    let (taken, _) = file.take("a");
    let lease = taken.unwrap().lease;
    assert!(file.run(|batch| remove(batch, &lease)).0);
    assert_eq!(file.depths(), full(most - 1));
    drop(file);
    // Counted once, not at every start.
    let mut file = Counted::open(&path);
    assert_eq!(file.depths(), full(most - 1));
    assert_eq!((file.push("a", None).0, file.push("a", None).0), (Pushed::Done, Pushed::Full));
    assert_eq!(file.take("b").0.map(|taken| taken.deliveries), Some(1));
}

#[test]
fn keys_are_forgotten_after_a_day_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Counted::open(&dir.path().join("db"));
    fill(&file.connection, "a", 5);
    let left = |file: &Counted| {
        let sql = "SELECT count(*) FROM queue_item WHERE gone IS NOT NULL";
        file.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert!(!file.run(|batch| prune(batch, 3)).0);
    assert_eq!(left(&file), 5);
    file.connection.execute("UPDATE queue_item SET gone = 1 WHERE gone IS NOT NULL", []).unwrap();
    assert!(file.run(|batch| prune(batch, 3)).0);
    assert_eq!(left(&file), 2);
    assert!(!file.run(|batch| prune(batch, 3)).0);
    assert_eq!((left(&file), file.depths()), (0, vec![("a".to_owned(), 10, 10)]));
}
