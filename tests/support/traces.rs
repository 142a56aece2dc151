//! What a server keeps, counted: so that a test can say that something leaves nothing behind.

use std::collections::BTreeMap;

use super::server::{Backend, Server};
use super::services::to_redis;

/// A key that goes by itself so soon does not count.
const SOON_MS: i64 = 60_000;

impl Server {
    /// How many rows each table has; or how many documents each collection, and how many keys
    /// stay in Redis.
    pub async fn traces(&self) -> BTreeMap<String, u64> {
        match self.backend() {
            Backend::Embedded => {
                let database = self.database();
                let tables =
                    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
                let mut tables = database.prepare(tables).expect("a query");
                let names = tables.query_map([], |row| row.get::<_, String>(0)).expect("tables");
                let rows = |name: &String| {
                    let count = format!("SELECT count(*) FROM \"{name}\"");
                    database.query_row(&count, [], |row| row.get::<_, i64>(0)).expect("a count") as u64
                };
                names.map(|name| name.expect("a name")).map(|name| (name.clone(), rows(&name))).collect()
            }
            Backend::Production => {
                let database = self.mongo().await;
                let mut traces = BTreeMap::new();
                for name in database.list_collection_names().await.expect("collections") {
                    let documents = database.collection::<bson::Document>(&name);
                    let count = documents.count_documents(bson::doc! {}).await.expect("a count");
                    traces.insert(name, count);
                }
                let mut redis = to_redis(None).await;
                let pattern = format!("{}*", self.setting("REDIS_PREFIX").expect("a prefix"));
                let keys: Vec<String> =
                    redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.expect("keys");
                let mut stay = 0;
                for key in keys {
                    let end: i64 =
                        redis::cmd("PTTL").arg(key).query_async(&mut redis).await.expect("its end");
                    stay += u64::from(end == -1 || end > SOON_MS);
                }
                traces.insert("redis".into(), stay);
                traces
            }
        }
    }
}
