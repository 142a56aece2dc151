//! How long events and telemetry are kept (contract 6.9, 7.5, D-12).

use std::time::Duration;

use bson::{Document, doc};
use futures::TryStreamExt;
use macro_rules_attribute::apply;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use serde_json::json;

use crate::support::{Backend, Http, PATIENCE, Server, both_backends, services, until, until_within};

async fn database(server: &Server) -> mongodb::Database {
    let client = mongodb::Client::with_uri_str(&services().mongo).await.expect("MongoDB");
    client.database(server.setting("MONGO_DB").expect("a database"))
}

/// Seconds after which documents end, by the field that says so.
async fn ttl(database: &mongodb::Database, on: &str, field: &str) -> Vec<Option<u64>> {
    let listed = database.collection::<Document>(on).list_indexes().await.expect("listed");
    let indexes: Vec<IndexModel> = listed.try_collect().await.expect("listed");
    let on_field = indexes.into_iter().filter(|index| index.keys.keys().eq([field]));
    on_field.map(|index| index.options?.expire_after.map(|time| time.as_secs())).collect()
}

/// Waits until the indexes say what they should.
async fn until_ttl(database: &mongodb::Database, on: &str, field: &str, seconds: u64) {
    until(&format!("{on}.{field} ends after {seconds} s"), async || {
        let found = ttl(database, on, field).await;
        if found == [Some(seconds)] { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test]
async fn a_database_with_other_indexes_is_taken_over_with_its_history() {
    let mut server = Server::start_apart(Backend::Production, &[]).await;
    server.terminate().await;
    let database = database(&server).await;
    let (history, telemetry) =
        (database.collection::<Document>("eventhistory"), database.collection::<Document>("telemetry"));
    history.drop().await.expect("dropped");
    telemetry.drop().await.expect("dropped");
    // As the present server's old format had it: it would delete everything at this sight.
    let index = |keys: Document, seconds: Option<u64>, name: &str| {
        let expire = seconds.map(Duration::from_secs);
        IndexModel::builder()
            .keys(keys)
            .options(IndexOptions::builder().name(name.to_owned()).expire_after(expire).build())
            .build()
    };
    history.create_index(index(doc! {"timestamp": 1}, Some(86_400), "old_ttl")).await.expect("made");
    history
        .create_index(index(doc! {"channel": 1, "sequence_id": 1}, None, "another_name"))
        .await
        .expect("made");
    telemetry.create_index(index(doc! {"ts": 1}, None, "ts_without_ttl")).await.expect("made");
    let two_days_ago = bson::DateTime::from_millis(bson::DateTime::now().timestamp_millis() - 3_600_000);
    let event = doc! {
        "timestamp": two_days_ago, "sequence_id": 7_i32, "channel": "node", "owner": null, "data": {"kind": "job"},
    };
    history.insert_one(event).await.expect("inserted");
    server.restart().await;
    until_ttl(&database, "eventhistory", "timestamp", 604_800).await;
    until_ttl(&database, "telemetry", "ts", 1_209_600).await;
    let events = Http::new(&server).get("/events").await.ok();
    assert_eq!(events[0]["sequence_id"], 7, "{events}");
}

#[apply(both_backends!)]
async fn telemetry_ends_after_a_while(backend: Backend) {
    // SQLite looks for what is old the more often, the shorter events are kept.
    let settings = [("TELEMETRY_TTL_SECONDS", "60"), ("EVENT_HISTORY_TTL_SECONDS", "20")];
    let server = Server::start_with(backend, &settings).await;
    let http = Http::admin(&server).await;
    let past = (chrono::Utc::now() - chrono::Duration::seconds(120)).format("%Y-%m-%dT%H:%M:%S").to_string();
    let events = json!([
        {"kind": "k", "runtime": "old", "ts": past},
        {"kind": "k", "runtime": "new"},
    ]);
    http.post("/telemetry", &events).await.ok();
    // MongoDB of the tests looks every second, but at all the databases that there are.
    let page = until_within(3 * PATIENCE, "the old one goes", async || {
        let page = http.get("/telemetry").await.ok();
        if page["items"].as_array().is_some_and(|items| items.len() == 1) { Ok(page) } else { Err(page) }
    })
    .await;
    assert_eq!(page["items"][0]["runtime"], "new", "{page}");
}

#[apply(both_backends!)]
async fn settings_are_checked(backend: Backend) {
    // A server that starts with the shortest settings works.
    let settings = [("EVENT_HISTORY_TTL_SECONDS", "3600"), ("TELEMETRY_TTL_SECONDS", "3600")];
    let server = Server::start_with(backend, &settings).await;
    assert_eq!(Http::new(&server).get("/ready").await.status, 200);
    if backend == Backend::Production {
        let database = database(&server).await;
        until_ttl(&database, "eventhistory", "timestamp", 3600).await;
        until_ttl(&database, "telemetry", "ts", 3600).await;
    }
}
