//! The history of events over REST (contract 5.1, 11.2 D-27, D-28).

use std::collections::BTreeSet;

use bson::doc;
use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, Http, Server, both_backends, both_backends_in_pairs, node, services, until};

/// What of [`Value`] is a list of objects, as `data.n` or whatever `key` says.
fn column(list: &Value, pointer: &str) -> Vec<Value> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|item| item.pointer(pointer).cloned().unwrap_or_default())
        .collect()
}

/// Publishes `data` on a channel.
async fn publish(http: &Http, channel: &str, data: Value) {
    let params = json!({"channel": channel, "data": data});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "event.publish", "params": params});
    let answer = http.post("/rpc", &call).await.ok();
    assert!(answer["result"]["id"].is_string(), "{answer}");
}

/// Waits until so many events are in the history.
async fn settled(http: &Http, count: usize) -> Value {
    until(&format!("{count} events"), async || {
        let list = http.get("/events").await.ok();
        if list.as_array().is_some_and(|list| list.len() >= count) { Ok(list) } else { Err(list) }
    })
    .await
}

#[apply(both_backends!)]
async fn events_are_listed_oldest_first_in_the_shape_of_the_contract(server: Server) {
    let http = Http::admin(&server).await;
    let made = http.post("/node", &node("checkout", "a")).await.ok();
    let id = made["id"].as_str().expect("an id");
    let update = json!({"state": "available"});
    http.patch(&format!("/node/{id}"), &update).await.ok();
    publish(&http, "lab", json!({"board": 7, "on": true})).await;
    let list = settled(&http, 3).await;
    assert_eq!(column(&list, "/channel"), ["node", "node", "lab"]);
    assert_eq!(column(&list, "/data/op"), [json!("created"), json!("updated"), json!(null)]);
    let keys = |item: &Value| item.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&list[0]), ["timestamp", "sequence_id", "channel", "owner", "data", "id"]);
    let timestamp = list[0]["timestamp"].as_str().expect("text");
    assert!(timestamp.len() == 26 || timestamp.len() == 19, "{timestamp}");
    assert!(!timestamp.ends_with('Z') && timestamp.is_char_boundary(10), "{timestamp}");
    assert_eq!(list[1]["owner"], "admin");
    assert_eq!(list[1]["data"]["previous_state"], "running");

    let anonymous = Http::new(&server);
    for (query, ops) in [
        ("op=created", vec!["created"]),
        ("kind=checkout&state=available", vec!["updated"]),
        ("kind=checkout&result=", vec!["created", "updated"]),
        ("kind=job", vec![]),
        ("name=a&owner=admin", vec!["created", "updated"]),
        ("owner=nobody", vec![]),
        ("channel=node&limit=1", vec!["created"]),
        ("channel=node&offset=1", vec!["updated"]),
        ("path=^a$", vec!["created", "updated"]),
        ("path=b", vec![]),
        ("data.is_hierarchy=False&op=updated", vec!["updated"]),
        ("data.is_hierarchy=true", vec![]),
        ("data.previous_state=running", vec!["updated"]),
        (&format!("node_id={id}&limit=0"), vec!["created", "updated"]),
        (&format!("data.id={id}&limit="), vec!["created", "updated"]),
        (&format!("id={}", list[1]["id"].as_str().unwrap()), vec!["updated"]),
        (
            &format!("ids=,{} , {},", list[1]["id"].as_str().unwrap(), list[0]["id"].as_str().unwrap()),
            vec!["created", "updated"],
        ),
        (&format!("channel=node&from={timestamp}&op=created"), vec![]),
        ("from=2020-01-01&op=created", vec!["created"]),
        ("from=2020-01-01T00:00:00%2B00:00&op=updated&channel=node", vec!["updated"]),
        ("from=2100-01-01", vec![]),
        ("channel=node&after=1", vec!["updated"]),
        (&format!("channel=node&after={}", list[0]["id"].as_str().unwrap()), vec!["updated"]),
    ] {
        let found = anonymous.get(&format!("/events?{query}")).await.ok();
        assert_eq!(column(&found, "/data/op"), ops, "{query}");
    }
    let lab = anonymous.get("/events?data.on=True").await.ok();
    assert_eq!(column(&lab, "/data/board"), [7]);
    // Behind any event, also over all channels.
    let behind = format!("/events?after={}", list[1]["id"].as_str().unwrap());
    assert_eq!(column(&anonymous.get(&behind).await.ok(), "/channel"), ["lab"]);
}

#[apply(both_backends!)]
async fn recursive_adds_the_node_as_it_is_now(server: Server) {
    let http = Http::admin(&server).await;
    let made = http.post("/node", &node("checkout", "a")).await.ok();
    publish(&http, "lab", json!("no object")).await;
    publish(&http, "lab", json!({"id": "0".repeat(24)})).await;
    settled(&http, 3).await;
    for yes in ["true", "True", "1", "yes"] {
        let list = http.get(&format!("/events?recursive={yes}&limit=10")).await.ok();
        assert_eq!(list[0]["node"].as_object().expect("a node").len(), 23, "{list}");
        assert_eq!(list[0]["node"]["id"], made["id"]);
        assert_eq!((list[1].get("node"), list[2].get("node")), (None, None));
    }
    for no in ["false", "False", "0", ""] {
        let list = http.get(&format!("/events?recursive={no}")).await.ok();
        assert_eq!(list[0].get("node"), None, "{no}");
    }
}

#[apply(both_backends!)]
async fn what_is_wrong_is_told_in_the_words_of_the_contract(server: Server) {
    let http = Http::new(&server);
    let id = "0123456789abcdef01234567";
    for (query, detail) in [
        (&*format!("node_id={id}&data.id={id}"), "Provide either node_id or data.id, not both"),
        (&format!("id={id}&ids={id}"), "Provide either id or ids, not both"),
        ("id=xyz", "Invalid id format"),
        (&format!("ids={id},xyz"), "Invalid ids format"),
        ("ids=,%20,", "ids must contain at least one id"),
        ("from=yesterday", "Invalid 'from' parameter, must be an ISO 8601 datetime"),
        ("from=1700000000", "Invalid 'from' parameter, must be an ISO 8601 datetime"),
        ("limit=abc", "invalid literal for int() with base 10: 'abc'"),
        ("offset=1.5", "invalid literal for int() with base 10: '1.5'"),
        ("limit=-1", "limit: expected 0 or more"),
        ("offset=-1", "offset: expected 0 or more"),
        ("recursive=true", "Recursive limit is too large, max is 1000"),
        ("recursive=true&limit=0", "Recursive limit is too large, max is 1000"),
        ("recursive=true&limit=1001", "Recursive limit is too large, max is 1000"),
        ("recursive=maybe&limit=1", "recursive: expected true or false"),
        (&format!("after={id}"), "after: there is no event with this id in the history (any more)"),
    ] {
        assert_eq!(http.get(&format!("/events?{query}")).await.refusal(), (400, json!(detail)), "{query}");
    }
    for query in ["path=(", "$where=1", "data.$where=1", "after=5", "after=rubbish", "channel=a%2Fb"] {
        let status = http.get(&format!("/events?{query}")).await.status;
        assert!(status == 400 || status == 422, "{query}: {status}");
    }
    assert_eq!(http.get("/events").await.ok(), json!([]));
    assert_eq!(http.get("/events?channel=nobody").await.ok(), json!([]));
}

#[apply(both_backends!)]
async fn polling_with_the_last_timestamp_skips_nothing(server: Server) {
    let http = Http::admin(&server).await;
    // Far more than fit into one millisecond each, several writers at once.
    let names: Vec<String> = (0..120).map(|n| format!("n{n}")).collect();
    let makes = names.iter().map(|name| {
        let http = http.clone();
        async move { http.post("/node", &node("checkout", name)).await.ok() }
    });
    futures::future::join_all(makes).await;
    settled(&http, 120).await;
    for limit in [1, 3, 50] {
        let (mut from, mut seen) = ("2020-01-01".to_owned(), Vec::new());
        loop {
            let page = http.get(&format!("/events?state=running&limit={limit}&from={from}")).await.ok();
            let Some(last) = page.as_array().and_then(|page| page.last()) else { break };
            from = last["timestamp"].as_str().expect("text").to_owned();
            seen.extend(column(&page, "/data/name"));
        }
        let distinct: BTreeSet<&str> = seen.iter().filter_map(Value::as_str).collect();
        assert_eq!((seen.len(), distinct.len()), (120, 120), "limit {limit}");
    }
    // With a sequence number as the cursor the limit is exact.
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = http.get(&format!("/events?channel=node&limit=7&after={after}")).await.ok();
        let Some(last) = page.as_array().and_then(|page| page.last()) else { break };
        after = last["sequence_id"].as_u64().expect("a number");
        assert!(page.as_array().unwrap().len() <= 7);
        seen.extend(column(&page, "/sequence_id"));
    }
    assert_eq!(seen, (1..=120).map(Value::from).collect::<Vec<_>>());
}

#[apply(both_backends!)]
async fn the_websocket_answers_the_same_events(server: Server) {
    let http = Http::admin(&server).await;
    for n in 0..5 {
        publish(&http, "lab", json!({"n": n, "kind": "job"})).await;
    }
    settled(&http, 5).await;
    let mut ws = server.anonymous().await;
    let page =
        ws.call("event.find", json!({"channel": "lab", "kind": "job", "limit": 2, "event": false})).await;
    assert_eq!(page["items"], http.get("/events?channel=lab&kind=job&limit=2").await.ok());
    let rest = ws.call("event.find", json!({"channel": "lab", "after": page["next"]})).await;
    assert_eq!(column(&rest["items"], "/data/n"), [2, 3, 4]);
    assert_eq!(rest["items"][0]["event"]["specversion"], "1.0");
    assert_eq!(rest["next"], Value::Null);
    let error = ws.fail("event.find", json!({"limit": "x"})).await;
    assert_eq!(error["data"]["detail"], "invalid literal for int() with base 10: 'x'");
}

/// More than one answer of a session holds, and than is read at a time.
#[apply(both_backends_in_pairs!)]
async fn all_events_are_answered_however_many(server: Server) {
    const PARTS: usize = 2;
    const NODES: usize = 5_100;
    let http = Http::admin(&server).await;
    for part in 0..PARTS {
        let root = http.post("/node", &node("checkout", &format!("root {part}"))).await.ok();
        let child = |n: usize| json!({"node": node("kbuild", &format!("{part}/{n}")), "child_nodes": []});
        let tree = json!({"node": root, "child_nodes": (0..NODES).map(child).collect::<Vec<_>>()});
        let path = format!("/nodes/{}?events=each", root["id"].as_str().expect("an id"));
        http.put(&path, &tree).await.ok();
    }
    // Each root is made and updated.
    let count = PARTS * (NODES + 2);
    let all = settled(&http, count).await;
    assert_eq!(column(&all, "/sequence_id"), (1..=count).map(Value::from).collect::<Vec<_>>());
    let distinct: BTreeSet<String> = column(&all, "/id").iter().map(Value::to_string).collect();
    assert_eq!(distinct.len(), count);
    for (query, wanted) in [
        ("limit=", count),
        ("limit=10001", 10_001),
        ("channel=node&limit=10100&offset=3", 10_100),
        ("channel=node&after=7", count - 7),
        ("kind=kbuild", PARTS * NODES),
        ("limit=0&offset=10", count - 10),
        ("from=2020-01-01&channel=node&kind=kbuild&limit=1000000", PARTS * NODES),
    ] {
        let found = http.get(&format!("/events?{query}")).await.ok();
        let found = column(&found, "/id");
        assert_eq!(found.len(), wanted, "{query}");
        let first: BTreeSet<String> = found.iter().map(Value::to_string).collect();
        assert_eq!(first.len(), wanted, "{query}");
    }
    // From a time on an answer does not end inside a millisecond.
    let found = http.get("/events?from=2020-01-01&limit=10050").await.ok();
    let times = column(&all, "/timestamp");
    let end = 10_050 + times[10_050..].iter().take_while(|time| **time == times[10_049]).count();
    assert_eq!(found.as_array().map(Vec::len), Some(end));
    // A message of a session holds what it can, and says where to go on.
    let mut ws = server.anonymous().await;
    let page = ws.call("event.find", json!({"limit": 0, "channel": "node", "event": false})).await;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(10_000));
    let rest = json!({"limit": 0, "channel": "node", "after": page["next"]});
    assert_eq!(ws.call("event.find", rest).await["items"].as_array().map(Vec::len), Some(count - 10_000));
}

#[tokio::test]
async fn the_history_of_the_present_server_is_read() {
    let mut server = Server::start(Backend::Production).await;
    let client = mongodb::Client::with_uri_str(&services().mongo).await.expect("MongoDB");
    let history = client
        .database(server.setting("MONGO_DB").expect("a database"))
        .collection::<bson::Document>("eventhistory");
    let (event, node_id, other) =
        (bson::oid::ObjectId::new(), bson::oid::ObjectId::new(), bson::oid::ObjectId::new());
    let now = bson::DateTime::now();
    let old = doc! {
        "_id": event, "timestamp": now, "sequence_id": 41_i32, "channel": "node", "owner": "bob",
        "data": {
            "op": "updated", "id": node_id.to_hex(), "kind": "regression", "name": "r", "path": ["a", "r"],
            "data": {"fail_node": other, "node_sequence": [other], "at": now},
        },
    };
    history.insert_one(old).await.expect("inserted");
    // As an upgrade is done: the database is there before the server.
    server.terminate().await;
    server.restart().await;
    let http = Http::admin(&server).await;
    let list = http.get("/events?kind=regression&recursive=true&limit=5").await.ok();
    assert_eq!(list[0]["id"], event.to_hex());
    assert_eq!(list[0]["sequence_id"], 41);
    assert_eq!(list[0]["owner"], "bob");
    assert_eq!(list[0]["data"]["data"]["fail_node"], other.to_hex());
    assert_eq!(list[0]["data"]["data"]["node_sequence"], json!([other.to_hex()]));
    assert_eq!(list[0].get("node"), None);
    // New events follow in both orders.
    http.post("/node", &node("checkout", "new")).await.ok();
    let all = settled(&http, 2).await;
    assert_eq!(column(&all, "/data/name"), ["r", "new"]);
    let behind = http.get("/events?channel=node&after=41").await.ok();
    assert_eq!(column(&behind, "/data/name"), ["new"]);
    assert_eq!(column(&http.get("/events?path=^r$").await.ok(), "/data/name"), ["r"]);
}
