//! The filter language means the same everywhere: random documents × random filters, decided by `Filter::matches`,
//! by SQLite and by a real MongoDB (`MONGO_URL`).
//!
//! Proptest's environment variables work: `PROPTEST_CASES` for more batches, `PROPTEST_RNG_SEED` for the same ones.

mod documents;
mod filters;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Instant;

use bson::{Document, doc};
use documents::{event, node, stored};
use filters::filter;
use futures::{StreamExt, TryStreamExt};
use kernelci_live::filter::{EVENT, FieldType, Filter, NODE, Schema};
use kernelci_live::model::ObjectId;
use kernelci_live::store::{mongo, sqlite};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestCaseError, TestRunner};
use serde_json::Value;

use crate::support::services;

const DOCS: usize = 300;
const FILTERS: usize = 1000;

#[derive(Default)]
struct Tally {
    filters: usize,
    refused: usize,
    pairs: usize,
    matched: usize,
    sql_exact: usize,
    mongo_exact: usize,
}

struct Batch<'b> {
    schema: &'static Schema,
    docs: &'b [Value],
    filters: &'b [(String, Option<Filter>)],
}

type Found = (BTreeSet<usize>, bool);

impl Batch<'_> {
    fn sqlite(&self) -> Vec<Option<Found>> {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        sqlite::filter::register(&db).unwrap();
        let check = sqlite::filter::scalars(self.schema, "doc");
        db.execute_batch(&format!(
            "CREATE TABLE t (n INTEGER PRIMARY KEY, doc BLOB NOT NULL CHECK ({check}))"
        ))
        .unwrap();
        for (index, path) in ["kind", "created", "data.kernel_revision.commit", "data.a", "data.a.b", "path"]
            .iter()
            .enumerate()
        {
            let expression = sqlite::filter::expression(path, "doc");
            db.execute_batch(&format!("CREATE INDEX i{index} ON t ({expression})")).unwrap();
        }
        for (n, doc) in self.docs.iter().enumerate() {
            db.execute("INSERT INTO t VALUES (?, jsonb(?))", (n as i64, doc.to_string())).unwrap();
        }
        let run = |filter: &Filter| {
            let sql = sqlite::filter::to_sql(filter, "t.doc");
            let text = format!("SELECT n FROM t WHERE {}", sql.text);
            let mut statement = db.prepare(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let rows =
                statement.query_map(rusqlite::params_from_iter(&sql.params), |row| row.get::<_, i64>(0));
            let found = rows.unwrap().map(|n| n.unwrap() as usize).collect();
            (found, sql.exact)
        };
        self.filters.iter().map(|(_, filter)| filter.as_ref().map(run)).collect()
    }

    async fn mongo(&self, collection: &mongodb::Collection<Document>) -> Vec<Option<Found>> {
        collection.delete_many(doc! {}).await.unwrap();
        let docs = self.docs.iter().enumerate().map(|(n, doc)| stored(doc, self.schema, n % 2 == 0));
        collection.insert_many(docs).await.unwrap();
        let run = |(text, filter): &(String, Option<Filter>)| {
            let query = filter.as_ref().map(|filter| match self.schema.type_of("time") {
                FieldType::EventDate => mongo::filter::to_mongo_event(filter),
                _ => mongo::filter::to_mongo(filter),
            });
            let text = text.clone();
            async move {
                let mongo::filter::Mongo { query, exact } = query?;
                let cursor = collection.find(query.clone()).projection(doc! {"_id": 1}).await;
                let cursor = cursor.unwrap_or_else(|error| panic!("{error}: {text} as {query}"));
                let docs: Vec<Document> = cursor.try_collect().await.unwrap();
                let number = |doc: &Document| {
                    let bytes = doc.get_object_id("_id").unwrap().bytes();
                    usize::from(u16::from_be_bytes([bytes[10], bytes[11]]))
                };
                Some((docs.iter().map(number).collect(), exact))
            }
        };
        futures::stream::iter(self.filters.iter().map(run).collect::<Vec<_>>()).buffered(8).collect().await
    }

    fn compare(&self, name: &str, found: &[Option<Found>], tally: &mut usize) -> Result<(), TestCaseError> {
        for ((text, filter), found) in self.filters.iter().zip(found) {
            let (Some(filter), Some((found, exact))) = (filter, found) else {
                continue;
            };
            *tally += usize::from(*exact);
            for (n, doc) in self.docs.iter().enumerate() {
                let (memory, store) = (filter.matches(doc), found.contains(&n));
                if let Some(unmet) = filter.demands().iter().find(|demand| memory && !demand.is_met(doc)) {
                    return Err(TestCaseError::fail(format!(
                        "{doc} matches {text}, which demands {unmet:?}"
                    )));
                }
                if memory != store && (memory || *exact) {
                    let said = if store { "found" } else { "did not find" };
                    return Err(TestCaseError::fail(format!(
                        "{name} {said}\n  {doc}\nby\n  {text}\n  {filter:?}"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Numbers the documents through their ids.
fn numbered(docs: &[Value]) -> Vec<Value> {
    let number = |(n, doc): (usize, &Value)| {
        let mut doc = doc.clone();
        doc["id"] = format!("5f0000000000000000{n:06x}").into();
        doc
    };
    docs.iter().enumerate().map(number).collect()
}

/// One batch of documents and filters, another one for each part.
fn agree(schema: &'static Schema, document: BoxedStrategy<Value>, name: &'static str, part: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(mongodb::Client::with_uri_str(&services().mongo)).unwrap();
    let database = client.database(&format!("filter_agreement_{}", ObjectId::new()));
    let collection = database.collection::<Document>("docs");

    let seeds = FileFailurePersistence::Direct("tests/filter_agreement/regressions.txt");
    let mut config =
        Config { failure_persistence: Some(Box::new(seeds)), max_shrink_iters: 20, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 1;
    }
    if let RngSeed::Fixed(seed) = config.rng_seed {
        config.rng_seed = RngSeed::Fixed(seed + part);
    }
    let tally = RefCell::new(Tally::default());
    let started = Instant::now();
    let inputs = (vec(document, DOCS), vec(filter(schema), FILTERS));
    let result = TestRunner::new(config).run(&inputs, |(docs, filters)| {
        let docs = numbered(&docs);
        let batch = Batch { schema, docs: &docs, filters: &filters };
        let mut tally = tally.borrow_mut();
        let usable = filters.iter().filter_map(|(_, filter)| filter.as_ref());
        let count = usable.clone().count();
        tally.filters += count;
        tally.refused += filters.len() - count;
        tally.pairs += count * docs.len();
        tally.matched +=
            usable.map(|filter| docs.iter().filter(|doc| filter.matches(doc)).count()).sum::<usize>();
        batch.compare("SQLite", &batch.sqlite(), &mut tally.sql_exact)?;
        let found = runtime.block_on(batch.mongo(&collection));
        batch.compare("MongoDB", &found, &mut tally.mongo_exact)
    });
    runtime.block_on(async { database.drop().await }).unwrap();
    let tally = tally.into_inner();
    let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
    println!(
        "{name}: {} pairs of {} filters ({} more refused) compared in {:.1} s, {:.0} % matched; exact: SQLite {:.1} %, MongoDB {:.1} %",
        tally.pairs,
        tally.filters,
        tally.refused,
        started.elapsed().as_secs_f64(),
        share(tally.matched, tally.pairs),
        share(tally.sql_exact, tally.filters),
        share(tally.mongo_exact, tally.filters),
    );
    if let Err(error) = result {
        panic!("{error}");
    }
    // Neither trivially true nor trivially empty, and mostly exact.
    assert!((5.0..95.0).contains(&share(tally.matched, tally.pairs)));
    assert!(share(tally.mongo_exact, tally.filters) > 60.0);
    assert!(share(tally.refused, tally.refused + tally.filters) < 20.0);
}

// A test for each batch: they take seconds, and do so beside each other.

#[test]
fn nodes_agree_1() {
    agree(&NODE, node().boxed(), "nodes", 1);
}

#[test]
fn nodes_agree_2() {
    agree(&NODE, node().boxed(), "nodes", 2);
}

#[test]
fn nodes_agree_3() {
    agree(&NODE, node().boxed(), "nodes", 3);
}

#[test]
fn nodes_agree_4() {
    agree(&NODE, node().boxed(), "nodes", 4);
}

#[test]
fn events_agree_1() {
    agree(&EVENT, event().boxed(), "events", 1);
}

#[test]
fn events_agree_2() {
    agree(&EVENT, event().boxed(), "events", 2);
}

#[test]
fn events_agree_3() {
    agree(&EVENT, event().boxed(), "events", 3);
}
