//! What the server says unasked: a page for each kind.

use macro_rules_attribute::apply;
use serde_json::json;

use super::book::Book;
use super::compare;
use crate::support::{
    Backend, Mode, PATIENCE, Proxy, Server, both_backends_in_pairs, node, services, to_redis,
};

/// Pages of both back ends.
const BOTH: &[&str] = &["event", "gap", "progress", "session.closing", "session.expiring", "unsubscribed"];
/// What needs Redis away, or empty. An embedded server says the same of a disk that is full (`faults::full_disk`).
const OF_REDIS: &[&str] = &["gap.epoch", "session.degraded", "session.recovered"];
/// What takes thousands of events (`protocol::groups`).
const OF_MANY: &[&str] = &["stalled"];

#[test]
fn every_notification_has_a_page() {
    let document = kernelci_live::ops::schema::asyncapi(&kernelci_live::ops::table());
    let operations = document["operations"].as_object().expect("operations");
    let sent = operations.iter().filter(|(name, operation)| operation["action"] == "send" && *name != "feed");
    for (name, _) in sent {
        assert!([BOTH, OF_REDIS, OF_MANY].concat().contains(&&**name), "{name} has no page");
    }
}

#[apply(both_backends_in_pairs!)]
async fn notifications(backend: Backend) {
    // Progress is told with every ping.
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "2000"), ("DRAIN_MS", "0")]).await;
    let (mut raw, mut book) = (server.admin().await, Book::default());

    let include = json!(["node", "ancestors"]);
    raw.call("event.subscribe", json!({"sub": 1, "filter": {"data.name__ne": "many"}})).await;
    raw.call("event.subscribe", json!({"sub": 2, "filter": {"data.kind": "job"}, "include": include})).await;
    let root = raw.call("node.create", json!({"node": node("checkout", "checkout")})).await;
    let event = raw.event(1).await;
    book.notification("a node was created", "event", &event);
    let update = json!({"id": root["id"], "set": {"state": "available"}});
    raw.call("node.update", update).await;
    let event = raw.event(1).await;
    book.notification("it was changed", "event", &event);
    let mut job = node("job", "job");
    job["parent"] = root["id"].clone();
    raw.call("node.create", json!({"node": job})).await;
    let event = raw.event(2).await;
    book.notification("with the node and those above it", "event", &event);

    let group = |sub: u64| json!({"sub": sub, "channel": "lab", "durable": "team", "group": true});
    raw.call("event.subscribe", group(3)).await;
    raw.call("event.publish", json!({"channel": "lab", "data": [1], "attributes": {"rack": "r1"}})).await;
    let event = raw.event(3).await;
    book.notification("to a member of a group", "event", &event);
    raw.call("event.nack", json!({"sub": 3, "seq": 1})).await;
    let event = raw.event(3).await;
    book.notification("again", "event", &event);
    raw.call("consumer.delete", json!({"name": "team"})).await;
    book.told(&mut raw, "deleted", "unsubscribed").await;

    let durable = |sub: u64| json!({"sub": sub, "channel": "lab", "durable": "alone"});
    raw.call("event.subscribe", durable(4)).await;
    raw.call("event.subscribe", durable(5)).await;
    book.told(&mut raw, "another one has the name", "unsubscribed").await;
    raw.call("consumer.seek", json!({"name": "alone", "to": "now"})).await;
    book.told(&mut raw, "moved", "unsubscribed").await;

    // Far behind, for whoever wants what is new.
    let tree = json!({"node": raw.call("node.get", json!({"id": root["id"]})).await,
        "child_nodes": vec![json!({"node": node("kbuild", "many"), "child_nodes": []}); 1100]});
    raw.call("node.submit", json!({"id": root["id"], "tree": tree, "events": "each"})).await;
    // The last of 1,104 events.
    let root = json!({"sub": 6, "from": {"time": "2001-01-01T00:00:00"}});
    raw.call("event.subscribe", root).await;
    while raw.event(6).await["seq"] != 1104 {}
    raw.call("event.unsubscribe", json!({"sub": 6})).await;
    let latest = json!({"sub": 7, "from": "earliest", "on_slow": "latest", "filter": {"data.kind": "job"}});
    raw.call("event.subscribe", latest).await;
    let gap = book.told(&mut raw, "skipped by whoever wants the latest", "gap").await;
    assert_eq!(gap["to"], 1104, "{gap}");
    // What comes before depends on when the pings fall.
    let progress = loop {
        let progress = raw.next_notification("progress", PATIENCE).await;
        if progress["sub"] == 1 && progress["seq"] == gap["to"] {
            break progress;
        }
    };
    book.notification("nothing matched", "progress", &progress);

    let mut short = server.connect().await;
    short.call("session.hello", json!({"token": server.token_for(50).await})).await;
    book.told(&mut short, "within a minute", "session.expiring").await;

    server.ask_to_stop();
    book.told(&mut raw, "the server shuts down", "session.closing").await;
    compare("notifications", &book.pages(), |name| BOTH.contains(&name));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_of_redis() {
    let port = url::Url::parse(&services().redis).expect("an address").port().expect("a port");
    let proxy = Proxy::to(&[port]).await;
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let server = Server::start_with(Backend::Production, &[("REDIS_URL", &url)]).await;
    let (mut raw, mut book) = (server.admin().await, Book::default());
    raw.call("event.subscribe", json!({"sub": 1, "channel": "lab", "durable": "alone"})).await;
    for n in 1..=3 {
        raw.call("event.publish", json!({"channel": "lab", "data": n})).await;
        raw.event(1).await;
    }
    proxy.set(Mode::Refuse);
    proxy.cut();
    book.told(&mut raw, "Redis is away", "session.degraded").await;
    // When it comes back, it has nothing, and MongoDB is as it was after the second event.
    forget(&server).await;
    proxy.set(Mode::Pass);
    book.told(&mut raw, "it is back", "session.recovered").await;
    raw.call("event.publish", json!({"channel": "lab", "data": 4})).await;
    let params = raw.next_notification("gap", PATIENCE).await;
    book.about("gap.epoch", "history was lost");
    book.frame("gap.epoch", "←", &json!({"jsonrpc": "2.0", "method": "gap", "params": params}));
    compare("notifications", &book.pages(), |name| OF_REDIS.contains(&name));
}

/// Redis loses everything of this server, and MongoDB the last event.
async fn forget(server: &Server) {
    let database = server.mongo().await;
    let last = bson::doc! {"sequence_id": 3};
    database.collection::<bson::Document>("eventhistory").delete_many(last).await.expect("deleted");
    let back = bson::doc! {"$set": {"head": 2_i64}};
    let channels = database.collection::<bson::Document>("channel");
    channels.update_one(bson::doc! {"_id": "lab"}, back).await.expect("set back");
    let mut redis = to_redis(None).await;
    let keys = format!("{}*", server.setting("REDIS_PREFIX").expect("a prefix"));
    let keys: Vec<String> = redis::cmd("KEYS").arg(keys).query_async(&mut redis).await.expect("keys");
    redis::cmd("UNLINK").arg(keys).exec_async(&mut redis).await.expect("deleted");
}
