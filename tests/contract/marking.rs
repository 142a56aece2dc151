//! Setting one flag of many nodes (contract 3.7).

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::nodes::{NOWHERE, get, id, patch, post, told};
use crate::support::{Http, Server, both_backends, node};

/// Contract 3.7.
#[apply(both_backends!)]
async fn many_are_marked_at_once(server: Server) {
    let http = Http::admin(&server).await;
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(post(&http, &node("job", name)).await);
    }
    let ids: Vec<&str> = nodes.iter().map(id).collect();
    let set = async |nodes: Value, field: &str, value: Value| {
        http.put("/latest/batch/nodeset", &json!({"nodes": nodes, "field": field, "value": value})).await
    };
    let flag = "processed_by_kcidb_bridge";
    assert_eq!(set(json!(ids), flag, "True".into()).await.ok(), 3);
    for node in &nodes {
        let read = get(&http, node).await;
        assert_eq!(read[flag], true);
        assert!(read["updated"].as_str() >= node["updated"].as_str());
    }
    // No event but those of its making and of what comes after.
    patch(&http, &nodes[2], json!({"debug": {"n": 1}, flag: true})).await.ok();
    let events = told(&server, &nodes[2], 2).await;
    let ops: Vec<&Value> = events.iter().map(|event| &event["op"]).collect();
    assert_eq!(ops, ["created", "updated"]);
    assert_eq!(set(json!([ids[0]]), flag, "false".into()).await.ok(), 1);
    assert_eq!(set(json!([]), "anything", "x".into()).await.ok(), 0);
    assert_eq!(set(json!(ids), "state", "done".into()).await.refusal(), (400, "Field not supported".into()));
    assert_eq!(
        set(json!([ids[1], NOWHERE]), flag, "false".into()).await.refusal(),
        (404, format!("Node not found with id: {NOWHERE}").into())
    );
    assert_eq!(set(json!([ids[1], "zz"]), flag, "false".into()).await.status, 400);
    // Was stored as text, and spoiled every page with the node on it (contract D-9).
    assert_eq!(set(json!([ids[1]]), flag, "maybe".into()).await.status, 400);
    let refused = set(json!([ids[1]]), flag, true.into()).await;
    let item = json!({"type": "string_type", "loc": ["body", "value"], "msg": "Input should be a valid string", "input": true});
    assert_eq!(refused.refusal(), (422, json!([item])));
    assert_eq!(get(&http, &nodes[1]).await[flag], true, "nothing of what failed was written");
}
