use serde_json::json;

use super::*;
use crate::model::node::State;

const NOW: i64 = 1_700_000_000_000;

fn now() -> Timestamp {
    Timestamp::from_millis(NOW)
}
/// Milliseconds.
const YEAR_20000: i64 = 568_971_820_800_000;

fn tree(node: Value, children: Vec<Value>) -> Value {
    json!({"node": node, "child_nodes": children})
}
fn body(kind: &str, name: &str, more: Value) -> Value {
    let mut body = json!({"kind": kind, "name": name, "path": []});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}
fn stored(kind: &str, more: Value) -> Node {
    let mut node = Node::create(&body(kind, kind, more), Timestamp::from_millis(0)).unwrap();
    node.owner = Some("ann".into());
    node.revision = 5;
    node
}
fn build(body: &Value, root: &Node, others: &[&Node]) -> Result<Vec<(Node, Option<u64>)>> {
    let stored = others.iter().map(|node| (node.id, (*node).clone())).collect();
    Tree::parse(body.clone())?.build(root, &stored, "bob", now())
}
fn text(error: &Error) -> String {
    assert_eq!(error.status(), 400);
    error.detail().as_str().unwrap().to_owned()
}
fn items(body: &Value) -> Vec<Value> {
    let error = Tree::parse(body.clone()).unwrap_err();
    assert_eq!(error.status(), 422);
    error.detail().as_array().unwrap().clone()
}

#[test]
fn nodes_come_depth_first_and_get_parent_path_owner_and_tree() {
    let root = stored("job", json!({"submitter": "s", "treeid": "t", "user_groups": ["u"]}));
    let request = tree(
        body("job", "root", json!({"path": ["c", "root"], "owner": "eve", "treeid": "x", "user_groups": []})),
        vec![
            tree(
                body(
                    "test",
                    "a",
                    json!({"owner": "eve", "submitter": "eve", "parent": root.id.to_hex(),
                    "created": "2020-01-01", "updated": "2021-01-01", "processed_by_kcidb_bridge": true,
                    "data": {"tree_priority": 1}, "revision": 9}),
                ),
                vec![tree(body("test", "aa", json!({"path": ["own"]})), vec![])],
            ),
            tree(body("test", "b", json!({"state": "done", "result": "pass"})), vec![]),
        ],
    );
    let built = build(&request, &root, &[]).unwrap();
    let seen: Vec<_> = built.iter().map(|(node, old)| (node.name.as_str(), *old)).collect();
    assert_eq!(seen, [("root", Some(5)), ("a", None), ("aa", None), ("b", None)]);
    let nodes: Vec<&Node> = built.iter().map(|(node, _)| node).collect();
    let [top, a, aa, b] = nodes[..] else { panic!("four") };

    assert_eq!((top.id, top.owner.as_deref(), top.revision), (root.id, Some("ann"), 6));
    assert_eq!((&top.user_groups, top.created, top.updated), (&root.user_groups, root.created, now()));
    assert_eq!((a.parent, aa.parent, b.parent), (Some(top.id), Some(a.id), Some(top.id)));
    assert_eq!((&a.path, &aa.path), (&vec!["c".into(), "root".into(), "a".into()], &vec!["own".into()]));
    for node in &nodes {
        assert_eq!((node.submitter.as_deref(), node.treeid.as_deref()), (Some("s"), Some("t")));
    }
    assert_eq!((a.owner.as_deref(), a.revision), (Some("bob"), 1));
    assert_eq!(a.created.to_wire(), "2020-01-01T00:00:00");
    assert_eq!(a.updated.to_wire(), "2021-01-01T00:00:00");
    assert_eq!((b.created, b.updated, b.state), (now(), now(), State::Done));
    assert_eq!(json!(a.data)["tree_priority"], 1, "unknown keys of data are kept");
    assert!(a.processed_by_kcidb_bridge, "as the body says");
}

/// Contract 2.3: a hierarchy stores whole `data` in normalised form. Unknown keys are kept, at every level.
#[test]
fn data_is_filled_in_and_normalised() {
    let root = stored("checkout", json!({}));
    let revision = json!({"tree": "t", "url": "HTTPS://Git.example:443/a b", "branch": "b", "commit": "c", "odd": [1],
        "version": {"version": 6, "patchlevel": 1, "flavour": "x"}, "tip_of_branch": "yes"});
    let id = root.id.to_hex();
    let request = tree(
        body("checkout", "root", json!({"data": {"tree_priority": "high", "kernel_revision": revision}})),
        vec![
            tree(
                body(
                    "test",
                    "t",
                    json!({"data": {"test_source": "git://x", "regression": id.to_uppercase()}}),
                ),
                vec![],
            ),
            tree(body("regression", "r", json!({})), vec![]),
            tree(body("process", "p", json!({"data": {"a": 1}})), vec![]),
            tree(body("process", "q", json!({"data": null})), vec![]),
        ],
    );
    let built = build(&request, &root, &[]).unwrap();
    let data: Vec<Value> = built.iter().map(|(node, _)| json!(node.data)).collect();
    assert_eq!(
        data[0].to_string(),
        json!({
            "kernel_revision": {
                "tree": "t", "url": "https://git.example/a%20b", "branch": "b", "commit": "c", "describe": null,
                "version": {"version": 6, "patchlevel": 1, "sublevel": null, "extra": null, "name": null, "flavour": "x"},
                "patchset": null, "commit_tags": [], "commit_message": null, "tip_of_branch": true, "odd": [1]
            },
            "error_code": null, "error_msg": null, "architecture_filter": null, "tree_priority": "high"
        })
        .to_string()
    );
    assert_eq!((&data[1]["test_source"], &data[1]["regression"]), (&json!("git://x"), &json!(id)));
    assert_eq!(
        (&data[1]["misc"], &data[1]["kernel_revision"], &data[1]["arch"]),
        (&json!({}), &Value::Null, &Value::Null)
    );
    assert_eq!(data[1].as_object().unwrap().len(), 17);
    assert_eq!((&data[2]["node_sequence"], &data[2]["fail_node"]), (&json!([]), &Value::Null));
    assert_eq!(data[3..], [json!({"a": 1}), json!(null)], "a process has no model");
}

#[test]
fn existing_children_are_replaced_under_the_rules_of_replacing() {
    let root = stored("job", json!({"treeid": "t"}));
    let mut child = stored("test", json!({"state": "closing", "submitter": "old", "user_groups": ["g"]}));
    child.revision = 0;
    let with = |state: &str| {
        let given = json!({"id": child.id.to_hex(), "state": state, "owner": "eve", "created": "2020-01-01"});
        tree(body("job", "root", json!({})), vec![tree(body("test", "t", given), vec![])])
    };
    let parsed = Tree::parse(with("done")).unwrap();
    assert_eq!(parsed.existing_ids().collect::<Vec<_>>(), [child.id]);
    assert_eq!(parsed.node_count(), 2);

    let built = build(&with("done"), &root, &[&child]).unwrap();
    let (new, replaced) = &built[1];
    assert_eq!((new.id, *replaced, new.revision), (child.id, Some(0), 1));
    assert_eq!((new.owner.as_deref(), &new.user_groups), (Some("ann"), &child.user_groups));
    assert_eq!((new.created, new.updated, new.parent), (child.created, now(), Some(root.id)));
    assert_eq!((new.submitter.as_deref(), new.treeid.as_deref()), (None, Some("t")));

    let error = build(&with("running"), &root, &[&child]).unwrap_err();
    assert_eq!(text(&error), "Transition not allowed with state: running");
    let error = build(&with("done"), &root, &[]).unwrap_err();
    assert_eq!(text(&error), format!("No object found with id: {}", child.id));
}

#[test]
fn the_root_follows_the_state_machine_too() {
    let root = stored("job", json!({"state": "done"}));
    let error = build(&tree(body("job", "r", json!({})), vec![]), &root, &[]).unwrap_err();
    assert_eq!(text(&error), "Transition not allowed with state: running");
}

#[test]
fn an_id_occurs_once_and_no_node_becomes_its_own_ancestor() {
    let root = stored("job", json!({}));
    let child = stored("test", json!({}));
    let leaf = |id: ObjectId| tree(body("test", "t", json!({"_id": id.to_hex()})), vec![]);
    let top = |more: Value, children: Vec<Value>| tree(body("job", "r", more), children);
    let nested =
        top(json!({}), vec![tree(body("test", "t", json!({"id": child.id.to_hex()})), vec![leaf(child.id)])]);
    let twice = format!("Object occurs twice in the hierarchy: {}", child.id);
    assert_eq!(text(&Tree::parse(nested).unwrap_err()), twice);
    assert_eq!(text(&Tree::parse(top(json!({}), vec![leaf(child.id), leaf(child.id)])).unwrap_err()), twice);
    let error = build(&top(json!({}), vec![leaf(root.id)]), &root, &[&root]).unwrap_err();
    assert_eq!(text(&error), format!("Object occurs twice in the hierarchy: {}", root.id));
    let error = build(&top(json!({"parent": root.id.to_hex()}), vec![]), &root, &[]).unwrap_err();
    assert_eq!(text(&error), "Parent cannot be the same as the object");
    let request = top(json!({"parent": child.id.to_hex()}), vec![leaf(child.id)]);
    let error = build(&request, &root, &[&child]).unwrap_err();
    assert_eq!(text(&error), format!("Parent cannot be below the object: {}", child.id));
    // The body's id of the root means nothing: the address says it.
    assert!(build(&top(json!({"id": child.id.to_hex()}), vec![leaf(child.id)]), &root, &[&child]).is_ok());
}

#[test]
fn mistakes_are_named_by_their_place() {
    let good = || body("test", "t", json!({}));
    assert_eq!(items(&json!({"node": good()}))[0]["loc"], json!(["body", "child_nodes"]));
    assert_eq!(items(&json!({"node": good(), "child_nodes": null}))[0]["type"], "list_type");
    assert_eq!(items(&json!({"child_nodes": []}))[0]["loc"], json!(["body", "node"]));
    assert_eq!(
        items(&json!(null))[0],
        json!({"type":"missing","loc":["body"],"msg":"Field required","input":null})
    );
    assert_eq!(items(&json!([]))[0]["type"], "model_attributes_type");
    let deep = tree(
        good(),
        vec![
            tree(good(), vec![]),
            tree(good(), vec![json!({"node": {"kind": 5, "path": []}, "child_nodes": []})]),
        ],
    );
    let found = items(&deep);
    let place = ["body", "child_nodes"];
    assert_eq!(found[0]["loc"], json!([place[0], place[1], 1, "child_nodes", 0, "node", "kind"]));
    assert_eq!(found[1]["loc"], json!([place[0], place[1], 1, "child_nodes", 0, "node", "name"]));
    let nul = tree(good(), vec![tree(body("test", "n", json!({"debug": {"\u{0}": 1}})), vec![])]);
    assert_eq!(items(&nul)[0]["loc"], json!(["body", "child_nodes", 0, "node", "debug", "\u{0}"]));
}

#[test]
fn kinds_and_data_are_checked_in_every_node() {
    let bad = tree(
        body("test", "t", json!({})),
        vec![tree(body("kbuild", "k", json!({"data": {"error_code": "x"}})), vec![])],
    );
    let error = text(&Tree::parse(bad).unwrap_err());
    assert!(
        error.starts_with("1 validation error for Kbuild\nchild_nodes.0.node.data.error_code\n"),
        "{error}"
    );
    let root = tree(body("test", "t", json!({"data": null})), vec![]);
    assert!(text(&Tree::parse(root).unwrap_err()).starts_with("1 validation error for Test\ndata\n"));
    let none = tree(body("test", "t", json!({})), vec![tree(json!({"name": "n", "path": []}), vec![])]);
    assert_eq!(text(&Tree::parse(none).unwrap_err()), "Unsupported node kind: node");
}

#[test]
fn size_and_depth_are_bounded() {
    let leaf = || tree(body("test", "t", json!({})), vec![]);
    let wide = |count: usize| tree(body("job", "r", json!({})), (1..count).map(|_| leaf()).collect());
    assert_eq!(Tree::parse(wide(MAX_NODES)).unwrap().node_count(), MAX_NODES);
    assert_eq!(Tree::parse(wide(MAX_NODES + 1)).unwrap_err().status(), 413);
    let deep =
        |levels: usize| (1..levels).fold(leaf(), |below, _| tree(body("test", "t", json!({})), vec![below]));
    assert_eq!(Tree::parse(deep(MAX_DEPTH)).unwrap().node_count(), MAX_DEPTH);
    assert_eq!(items(&deep(MAX_DEPTH + 1))[0]["type"], "value_error");
}

#[test]
fn what_is_stored_is_no_reason_to_refuse_a_tree() {
    let mut root = stored("job", json!({"data": {"error_code": "Bug"}}));
    let mut child = stored("test", json!({}));
    root.data.as_mut().unwrap().insert("error_code".into(), "RequestBodyTooLarge".into());
    root.created = Timestamp::from_millis(YEAR_20000);
    root.holdoff = Some(Timestamp::from_millis(YEAR_20000));
    child.kind = "node".into();
    child.debug = json!({"$set": {"a": u64::MAX}}).as_object().cloned();
    child.timeout = Timestamp::from_millis(-YEAR_20000);
    let as_read = |node: &Node| Value::Object(node.to_wire());
    let request = |child: Value| tree(as_read(&root), vec![tree(child, vec![])]);
    let known = Known::new(&root, [&child]);
    let mut done = as_read(&child);
    done["state"] = "done".into();
    assert_eq!(Tree::ids(&request(done.clone())), HashSet::from([child.id]));
    Tree::parse(request(done.clone())).unwrap_err();
    let all = HashMap::from([(child.id, child.clone())]);
    let parsed = Tree::parse_besides(request(done.clone()), &known).unwrap();
    let built = parsed.build(&root, &all, "bob", now()).unwrap();
    let (new_root, new_child) = (&built[0].0, &built[1].0);
    assert_eq!((new_root.created, new_root.holdoff), (root.created, root.holdoff));
    assert_eq!(new_root.data.as_ref().unwrap()["error_code"], "RequestBodyTooLarge");
    assert_eq!((new_child.state, new_child.timeout), (State::Done, child.timeout));
    assert_eq!((&new_child.kind, &new_child.debug), (&child.kind, &child.debug));
    // What it changes is looked at.
    done["debug"]["$set"]["$other"] = 1.into();
    let error = Tree::parse_besides(request(done), &known).unwrap_err();
    assert_eq!(
        error.detail()[0]["loc"],
        json!(["body", "child_nodes", 0, "node", "debug", "$set", "$other"])
    );
}

#[test]
fn new_nodes_are_not_of_the_future() {
    let root = stored("job", json!({}));
    let new =
        body("test", "t", json!({"created": "9999-01-01", "updated": "9999-01-01", "timeout": "9999-01-01"}));
    let built = build(&tree(body("job", "r", json!({})), vec![tree(new, vec![])]), &root, &[]).unwrap();
    let day = now().plus_seconds(24 * 3600);
    assert_eq!((built[1].0.created, built[1].0.updated), (day, day));
    assert_eq!(built[1].0.timeout.to_wire(), "9999-01-01T00:00:00");
}
