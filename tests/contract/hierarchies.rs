//! Writing a node and everything below it at once (contract 3.6).

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::nodes::{KEYS, NOWHERE, but, get, id, keys, post, told};
use crate::support::{Http, Server, both_backends, both_backends_in_pairs, node};

/// A tree in the body of a request.
fn tree(node: Value, child_nodes: Vec<Value>) -> Value {
    json!({"node": node, "child_nodes": child_nodes})
}

fn leaf(name: &str, changes: Value) -> Value {
    tree(but(&node("test", name), changes), Vec::new())
}

/// Contract 3.6, as mended by D-4 to D-7.
#[apply(both_backends!)]
async fn hierarchies(server: Server) {
    let http = Http::new(&server).with(&server.add_user("lab", &[]).await);
    let top = post(&http, &but(&node("checkout", "top"), json!({"treeid": "t", "submitter": "s"}))).await;
    let root = post(
        &http,
        &but(&node("job", "root"), json!({"parent": top["id"], "treeid": "t", "submitter": "s"})),
    )
    .await;
    let old = post(&http, &but(&node("test", "old"), json!({"parent": root["id"]}))).await;
    let body = tree(
        but(
            &root,
            json!({"state": "done", "result": "pass", "owner": "mallory", "treeid": "x", "submitter": "x"}),
        ),
        vec![
            tree(
                but(&node("test", "suite"), json!({"owner": "mallory", "artifacts": null})),
                vec![leaf(
                    "case",
                    json!({"result": "fail", "created": "2020-01-01", "data": {"tree_priority": "high", "misc": {"n": 1}}}),
                )],
            ),
            leaf("old", json!({"id": old["id"], "state": "done", "owner": "mallory"})),
        ],
    );
    let path = format!("/latest/nodes/{}", id(&root));
    let written = http.put(&path, &body).await.ok();
    let written = written.as_array().expect("a list");
    let names: Vec<&str> = written.iter().filter_map(|node| node["name"].as_str()).collect();
    assert_eq!(names, ["root", "suite", "case", "old"], "depth first, the root first");
    for node in written {
        assert_eq!(keys(node), KEYS);
        assert_eq!(
            (&node["owner"], &node["submitter"], &node["treeid"]),
            (&json!("lab"), &json!("s"), &json!("t")),
            "{node}"
        );
        assert_eq!(&get(&http, node).await, node);
    }
    let parents: Vec<&Value> = written.iter().map(|node| &node["parent"]).collect();
    assert_eq!(parents, [&top["id"], &root["id"], &written[1]["id"], &root["id"]]);
    let data = &written[2]["data"];
    assert_eq!(
        (&data["tree_priority"], &data["misc"]),
        (&json!("high"), &json!({"n": 1})),
        "unknown keys are kept"
    );
    assert_eq!(
        (&written[2]["created"], &written[1]["artifacts"]),
        (&json!("2020-01-01T00:00:00"), &Value::Null)
    );
    assert_eq!((&written[3]["id"], &written[3]["state"]), (&old["id"], &json!("done")));
    // One event, for the root.
    let events = told(&server, &root, 2).await;
    let last = events.last().expect("events");
    for (key, value) in [
        ("op", json!("updated")),
        ("is_hierarchy", true.into()),
        ("state", "done".into()),
        ("result", "pass".into()),
        ("previous_state", "running".into()),
        ("previous_result", Value::Null),
    ] {
        assert_eq!(last[key], value, "{key}: {last}");
    }

    // One for each, on request.
    let again = tree(written[0].clone(), vec![leaf("new", json!({})), tree(written[3].clone(), Vec::new())]);
    let written = http.put(&format!("{path}?events=each"), &again).await.ok();
    for (node, op, count) in
        [(&written[0], "updated", 3), (&written[1], "created", 1), (&written[2], "updated", 2)]
    {
        let events = told(&server, node, count).await;
        assert_eq!(events.len(), count, "{events:?}");
        let last = events.last().expect("events");
        assert_eq!((&last["op"], &last["is_hierarchy"]), (&json!(op), &json!(true)), "{last}");
    }
}

/// Contract 2.3: what a hierarchy stores in `data` is whole and normalised; single writes keep it as it came.
#[apply(both_backends!)]
async fn hierarchies_fill_in_data(server: Server) {
    let http = Http::admin(&server).await;
    let revision = json!({"tree": "t", "branch": "b", "commit": "c", "url": "HTTPS://Git.example:443/x y"});
    let data = json!({"tree_priority": "high", "kernel_revision": revision});
    let root = post(&http, &but(&node("checkout", "root"), json!({"data": data}))).await;
    assert_eq!(root["data"], data);
    let child = leaf("x", json!({"data": {"test_source": "HTTPS://Git.example/y", "own": {"a": 1}}}));
    let written = http.put(&format!("/nodes/{}", id(&root)), &tree(root.clone(), vec![child])).await.ok();
    let whole = json!({
        "kernel_revision": {"tree": "t", "url": "https://git.example/x%20y", "branch": "b", "commit": "c",
            "describe": null, "version": null, "patchset": null, "commit_tags": [], "commit_message": null,
            "tip_of_branch": null},
        "error_code": null, "error_msg": null, "architecture_filter": null, "tree_priority": "high"
    });
    assert_eq!(written[0]["data"], whole);
    assert_eq!(get(&http, &root).await["data"], whole);
    let test = get(&http, &written[1]).await["data"].clone();
    assert_eq!((&test["test_source"], &test["own"]), (&json!("https://git.example/y"), &json!({"a": 1})));
    assert_eq!((&test["misc"], &test["error_code"], &test["arch"]), (&json!({}), &Value::Null, &Value::Null));
    // What was read can be put back.
    let again = http.put(&format!("/node/{}", id(&root)), &written[0]).await.ok();
    assert_eq!(again["data"], whole);
}

#[apply(both_backends!)]
async fn hierarchies_are_all_or_nothing(server: Server) {
    let http = Http::new(&server).with(&server.add_user("lab", &[]).await);
    let admin = Http::admin(&server).await;
    let root = post(&http, &node("job", "root")).await;
    let foreign = post(&admin, &node("test", "foreign")).await;
    let done = post(&http, &but(&node("test", "done"), json!({"state": "done"}))).await;
    let many = (0..50).map(|n| leaf(&format!("n{n}"), json!({}))).collect::<Vec<_>>();
    let and = |last: Value| {
        tree(but(&root, json!({"state": "done"})), many.iter().cloned().chain([last]).collect())
    };
    let path = format!("/latest/nodes/{}", id(&root));
    for (body, status, mentions) in [
        (and(leaf("x", json!({"kind": "nope"}))), 400, "Unsupported node kind: nope"),
        (and(leaf("x", json!({"data": {"error_code": "nope"}}))), 400, "child_nodes.50.node.data.error_code"),
        (and(leaf("x", json!({"name": 5}))), 422, "[\"body\",\"child_nodes\",50,\"node\",\"name\"]"),
        (and(json!({"node": node("test", "x")})), 422, "[\"body\",\"child_nodes\",50,\"child_nodes\"]"),
        (and(json!(5)), 422, "model_attributes_type"),
        (and(leaf("x", json!({"id": NOWHERE}))), 400, "No object found with id: 000000000000000000000000"),
        (and(leaf("x", json!({"id": foreign["id"]}))), 401, "Unauthorized to complete the operation"),
        (
            and(leaf("x", json!({"id": done["id"], "state": "running"}))),
            400,
            "Transition not allowed with state: running",
        ),
        (and(leaf("x", json!({"id": root["id"]}))), 400, "twice"),
        (
            and(leaf("x", json!({"user_groups": ["nobody's"]}))),
            400,
            "User group does not exist with name: nobody's",
        ),
        (json!({"node": root}), 422, "Field required"),
        (json!({"node": root, "child_nodes": 5}), 422, "Input should be a valid list"),
    ] {
        let refused = http.put(&path, &body).await;
        assert_eq!(refused.status, status, "{mentions}: {}", refused.text);
        assert!(refused.text.contains(mentions), "{mentions}: {}", refused.text);
    }
    assert_eq!(http.get("/count").await.ok(), 3);
    for node in [&root, &foreign, &done] {
        assert_eq!(&get(&http, node).await, node);
    }
    assert_eq!(told(&server, &root, 1).await.len(), 1);
}

#[apply(both_backends!)]
async fn hierarchies_have_limits(server: Server) {
    let http = Http::admin(&server).await;
    let root = post(&http, &node("job", "root")).await;
    let path = format!("/latest/nodes/{}", id(&root));
    let deep = |levels: usize| {
        (1..levels).fold(leaf("x", json!({})), |below, _| tree(node("test", "x"), vec![below]))
    };
    assert_eq!(
        http.put(&path, &tree(root.clone(), vec![deep(20)])).await.ok().as_array().map(Vec::len),
        Some(21)
    );
    let refused = http.put(&path, &deep(70)).await;
    assert!(
        refused.status == 422 && refused.text.contains("nested deeper than 110 levels"),
        "{}",
        refused.text
    );
    let children =
        (0..20_000).map(|_| json!({"node": {"kind": "test", "name": "x", "path": []}, "child_nodes": []}));
    let refused = http.put(&path, &tree(root.clone(), children.collect())).await;
    assert_eq!(refused.refusal(), (413, "child_nodes: a tree has at most 20000 nodes".into()));
    let large = tree(but(&root, json!({"debug": {"log": "x".repeat(33 << 20)}})), Vec::new());
    assert_eq!(http.put(&path, &large).await.status, 413);
}

#[apply(both_backends_in_pairs!)]
async fn a_hierarchy_of_thousands(server: Server) {
    let http = Http::admin(&server).await;
    let root = post(&http, &node("job", "root")).await;
    let suites = (0..50).map(|suite| {
        let cases =
            (0..99).map(|case| leaf(&format!("case-{suite}-{case}"), json!({"result": "pass"}))).collect();
        tree(node("test", &format!("suite-{suite}")), cases)
    });
    let body = tree(but(&root, json!({"state": "done"})), suites.collect());
    let written = http.put(&format!("/nodes/{}?events=each", id(&root)), &body).await.ok();
    assert_eq!(written.as_array().map(Vec::len), Some(5001));
    assert_eq!(http.get("/count?name__re=^case-").await.ok(), 4950);
}
