//! A replica set with a secondary that is an hour behind.

use bson::{Document, doc};
use kernelci_live::event_log::EventLog;
use kernelci_live::model::Node;
use kernelci_live::store::mongo::{Options, open};
use kernelci_live::store::{Committed, Store};
use serde_json::json;

use super::support::{Mongod, Servers, commit, event, node};
use crate::support::{PATIENCE, published, until_within};

async fn command(mongod: &Mongod, command: Document) -> mongodb::error::Result<Document> {
    let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", mongod.port);
    mongodb::Client::with_uri_str(url).await?.database("admin").run_command(command).await
}

/// Waits until the member is in this state: 1 is primary, 2 is secondary.
async fn is_in(mongod: &Mongod, state: i32) {
    until_within(2 * PATIENCE, "the replica set", async || {
        let status =
            command(mongod, doc! {"replSetGetStatus": 1}).await.map_err(|error| error.to_string())?;
        match status.get_i32("myState") {
            Ok(now) if now == state => Ok(()),
            now => Err(format!("{now:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_url_says_a_secondary_that_lags_decides_nothing() {
    let (first, second) =
        tokio::join!(Mongod::start(&["--replSet", "lag"]), Mongod::start(&["--replSet", "lag"]));
    let [one, other] = [&first, &second].map(|mongod| format!("127.0.0.1:{}", mongod.port));
    let members = vec![
        doc! {"_id": 0, "host": &one},
        doc! {"_id": 1, "host": &other, "priority": 0, "votes": 0, "secondaryDelaySecs": 3600_i64},
    ];
    command(&first, doc! {"replSetInitiate": {"_id": "lag", "members": members}}).await.unwrap();
    is_in(&first, 1).await;
    is_in(&second, 2).await;

    let servers = Servers::on(format!("mongodb://{one}/?directConnection=true")).await;
    let far = format!(
        "mongodb://{one},{other}/?replicaSet=lag&readPreference=secondaryPreferred&readConcernLevel=available"
    );
    let options = Options { mongo_url: far, ..servers.options.clone() };
    let (store, log) = open(options.clone()).await.unwrap();
    for number in 1..=5 {
        assert_eq!(published(&*log, event("ch", json!(number))).await, number);
    }
    let before = log.head("ch").await.unwrap();
    // Its own writes are there at once.
    let written = node("n");
    assert_eq!(store.commit(commit([&written])).await.unwrap(), Committed::Done);
    assert_eq!(store.nodes(&[written.id]).await.unwrap().len(), 1);
    let stale = Node { revision: 5, ..written.clone() };
    assert_eq!(store.commit(commit([&stale])).await.unwrap(), Committed::Conflict(written.id, Some(1)));
    // Only MongoDB knows how far the log is.
    servers.forget("*").await;
    assert_eq!(published(&*log, event("ch", json!(6))).await, 6);
    let (_store, another) = open(options).await.unwrap();
    let after = another.head("ch").await.unwrap();
    assert_eq!((after.epoch, after.seq), (before.epoch, 6), "no history is lost");
    store.close().await;
}
