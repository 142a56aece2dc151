use serde_json::json;

use super::*;

const ID: &str = "68f0aa11bb22cc33dd44ee55";
/// Milliseconds.
const YEAR_20000: i64 = 568_971_820_800_000;
const NOW: &str = "2026-05-01T12:00:00";
const LATER: &str = "2026-05-02T12:00:00.250000";

fn at(wire: &str) -> Timestamp {
    Timestamp::parse_body(&json!(wire)).unwrap()
}
fn create(body: &Value) -> Result<Node> {
    Node::create(body, at(NOW))
}
fn body(more: Value) -> Value {
    let mut body = json!({"kind": "checkout", "name": "checkout", "path": ["checkout"]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}
fn stored(more: Value) -> Node {
    let mut node = create(&body(more)).unwrap();
    node.owner = Some("ann".into());
    node
}
fn patch(node: &Node, set: Value) -> Result<Node> {
    node.patch(set.as_object().unwrap(), at(LATER), false)
}
fn items(error: &Error) -> Vec<Value> {
    assert_eq!(error.status(), 422);
    error.detail().as_array().unwrap().clone()
}
fn text(error: &Error) -> String {
    assert_eq!(error.status(), 400);
    error.detail().as_str().unwrap().to_owned()
}

#[test]
fn a_new_node_has_the_defaults_of_the_contract() {
    let node = create(&body(json!({"unknown": 1, "revision": 9, "owner": "eve"}))).unwrap();
    let wire = Value::Object(node.to_wire());
    assert_eq!(
        wire,
        json!({
            "id": node.id.to_hex(), "kind": "checkout", "name": "checkout", "path": ["checkout"],
            "group": null, "parent": null, "state": "running", "result": null, "artifacts": {},
            "data": {}, "debug": {}, "jobfilter": null, "platform_filter": [], "created": NOW,
            "updated": NOW, "timeout": "2026-05-01T18:00:00", "holdoff": null, "owner": null,
            "submitter": null, "treeid": null, "user_groups": [], "processed_by_kcidb_bridge": false,
            "retry_counter": 0, "revision": 1
        })
    );
    assert_ne!(create(&body(json!({}))).unwrap().id, node.id);
}

#[test]
fn what_a_new_node_is_given_is_kept() {
    let given = json!({
        "path": ["checkout", "x"], "group": "g", "parent": ID, "state": "done", "result": "skip",
        "artifacts": {"log": "HTTP://X:80/a b"}, "data": {"tree_priority": "high", "odd": {"n": 1.5}},
        "debug": null, "jobfilter": ["a"], "platform_filter": null, "created": "2020-01-01",
        "updated": "2021-01-01T00:00:00+01:00", "timeout": 1_700_000_000, "holdoff": "2026-01-01 00:10:00.123456+00:00",
        "submitter": "s", "treeid": "t", "user_groups": ["u"], "processed_by_kcidb_bridge": "yes",
        "retry_counter": 2
    });
    let wire = create(&body(given)).unwrap().to_wire();
    for (key, value) in [
        ("parent", json!(ID)),
        ("state", json!("done")),
        ("result", json!("skip")),
        ("artifacts", json!({"log": "http://x/a%20b"})),
        ("data", json!({"tree_priority": "high", "odd": {"n": 1.5}})),
        ("debug", json!(null)),
        ("jobfilter", json!(["a"])),
        ("platform_filter", json!(null)),
        ("created", json!("2020-01-01T00:00:00")),
        ("updated", json!("2020-12-31T23:00:00")),
        ("timeout", json!("2023-11-14T22:13:20")),
        ("holdoff", json!("2026-01-01T00:10:00.123000")),
        ("submitter", json!("s")),
        ("treeid", json!("t")),
        ("user_groups", json!(["u"])),
        ("processed_by_kcidb_bridge", json!(true)),
        ("retry_counter", json!(2)),
    ] {
        assert_eq!(wire[key], value, "{key}");
    }
}

/// Every row of contract 2.1 with a value of the wrong type.
#[test]
fn each_wrong_field_is_named() {
    let rows = [
        ("id", json!("zz"), "is_instance_of"),
        ("kind", json!(null), "string_type"),
        ("name", json!(5), "string_type"),
        ("path", json!("checkout"), "list_type"),
        ("group", json!(5), "string_type"),
        ("parent", json!("zz"), "is_instance_of"),
        ("state", json!("Running"), "enum"),
        ("result", json!("passed"), "enum"),
        ("artifacts", json!([]), "dict_type"),
        ("data", json!("x"), "dict_type"),
        ("debug", json!([]), "dict_type"),
        ("jobfilter", json!("x"), "list_type"),
        ("platform_filter", json!("x"), "list_type"),
        ("created", json!(null), "datetime_type"),
        ("updated", json!("x"), "datetime_from_date_parsing"),
        ("timeout", json!(null), "datetime_type"),
        ("holdoff", json!({}), "datetime_type"),
        ("owner", json!(5), "string_type"),
        ("submitter", json!(5), "string_type"),
        ("treeid", json!(5), "string_type"),
        ("user_groups", json!(["a", "a"]), "value_error"),
        ("processed_by_kcidb_bridge", json!("perhaps"), "bool_parsing"),
        ("retry_counter", json!("1"), "int_type"),
    ];
    for (field, bad, kind) in rows {
        let found = items(&create(&body(json!({ field: bad }))).unwrap_err());
        assert_eq!(found[0]["type"], kind, "{field}");
        assert_eq!(found[0]["loc"].as_array().unwrap()[..2], [json!("body"), json!(field)]);
    }
    let found =
        items(&create(&body(json!({"artifacts": {"ok": "http://x", "log": "ftp://x"}}))).unwrap_err());
    assert_eq!(found[0]["loc"], json!(["body", "artifacts", "log"]));
    assert_eq!(found.len(), 1);
}

#[test]
fn missing_fields_and_bodies_that_are_no_objects_are_told_as_fastapi_does() {
    let found = items(&create(&json!({"kind": "job"})).unwrap_err());
    assert_eq!(
        found,
        [
            json!({"type":"missing","loc":["body","name"],"msg":"Field required","input":{"kind":"job"}}),
            json!({"type":"missing","loc":["body","path"],"msg":"Field required","input":{"kind":"job"}}),
        ]
    );
    assert_eq!(
        items(&create(&json!(null)).unwrap_err()),
        [json!({"type":"missing","loc":["body"],"msg":"Field required","input":null})]
    );
    assert_eq!(
        items(&create(&json!([1])).unwrap_err()),
        [json!({"type":"model_attributes_type","loc":["body"],
            "msg":"Input should be a valid dictionary or object to extract fields from","input":[1]})]
    );
}

#[test]
fn kind_data_and_id_are_checked_after_the_base_fields() {
    let base_first = create(&json!({"kind": "odd", "name": 5, "path": [], "_id": ID})).unwrap_err();
    assert_eq!(base_first.status(), 422);
    let kind = create(&json!({"name": "n", "path": [], "_id": ID})).unwrap_err();
    assert_eq!(text(&kind), "Unsupported node kind: node");
    let data = create(&body(json!({"data": null, "id": ID}))).unwrap_err();
    assert!(text(&data).starts_with("1 validation error for Checkout\ndata\n"));
    for key in ["id", "_id"] {
        let error = create(&body(json!({ key: ID }))).unwrap_err();
        assert_eq!(text(&error), format!("Object cannot be created with id: {ID}"));
    }
    let other = ID.replace('6', "7");
    let error = create(&body(json!({"id": other, "_id": ID}))).unwrap_err();
    assert!(text(&error).ends_with(ID), "_id wins");
    assert!(create(&body(json!({"id": null}))).is_ok());
}

#[test]
fn versions_are_translated_and_that_is_what_is_stored() {
    let revision = json!({"tree": "t", "url": "git://x", "branch": "b", "commit": "c",
        "version": {"version": "6", "patchlevel": "1"}});
    let node = create(&body(json!({"data": {"kernel_revision": revision.clone()}}))).unwrap();
    let data = json!(node.data);
    assert_eq!(data["kernel_revision"]["version"], json!({"version": 6, "patchlevel": 1}));
    assert_eq!(data["kernel_revision"]["url"], "git://x", "not normalised");
    let replaced =
        node.replace(&body(json!({"data": {"kernel_revision": revision.clone()}})), at(LATER)).unwrap();
    assert_eq!(replaced.data, node.data);
    // An update is checked as it is.
    let error = patch(&node, json!({"data": {"kernel_revision": revision}})).unwrap_err();
    assert!(text(&error).contains("data.kernel_revision.version.version\n"));
    assert!(create(&body(json!({"data": {"kernel_revision": null}}))).is_ok());
    assert_eq!(create(&body(json!({"data": {"kernel_revision": "x"}}))).unwrap_err().status(), 400);
}

#[test]
fn what_no_store_keeps_is_refused() {
    for bad in
        [json!({"data": {"n": u64::MAX}}), json!({"debug": {"a\u{0}b": 1}}), json!({"data": {"$where": 1}})]
    {
        items(&create(&body(bad)).unwrap_err());
    }
    let deep = (0..64).fold(json!({}), |inner, _| json!({ "d": inner }));
    items(&create(&body(json!({ "data": deep }))).unwrap_err());
}

#[test]
fn texts_lists_and_doubles_are_taken_whatever_they_are() {
    let long = "n\u{0}".repeat(3000);
    let node = create(&body(json!({
        "name": long, "path": vec![&long; 300], "treeid": long, "data": {"error_msg": long, "n": 1e300},
    })));
    let node = node.unwrap();
    assert_eq!((&node.name, node.path.len(), node.treeid.as_ref()), (&long, 300, Some(&long)));
    assert_eq!(json!(node.data), json!({"error_msg": long, "n": 1e300}));
}

/// A node as an older server may have left it, with what this one refuses.
fn odd() -> Node {
    let mut node = stored(json!({}));
    let map = |value: Value| value.as_object().cloned();
    node.data = map(json!({
        "kernel_revision": {"version": {"version": "six"}, "url": "git@host:x"}, "error_code": "git_commit_error",
        "$set": [{"$a": 1}, u64::MAX],
    }));
    node.artifacts = map(json!({"log": "ftp://x", "n": 5}));
    node.user_groups = vec!["a".into(), "a".into()];
    node.parent = Some(node.id);
    node.created = Timestamp::from_millis(YEAR_20000);
    node.timeout = Timestamp::from_millis(-YEAR_20000);
    node.holdoff = Some(Timestamp::from_millis(YEAR_20000));
    node
}

#[test]
fn whatever_a_read_gives_a_replacement_takes() {
    let node = odd();
    let unknown = Node { kind: "node".into(), data: None, ..node.clone() };
    for node in [node, unknown] {
        let mut read = Value::Object(node.to_wire());
        let same = node.replace(&read, at(LATER)).unwrap();
        assert_eq!(same, Node { updated: at(LATER), revision: node.revision + 1, ..node.clone() });
        read["state"] = "done".into();
        read["debug"] = json!({"n": 1});
        let done = node.replace(&read, at(LATER)).unwrap();
        let debug = json!({"n": 1}).as_object().cloned();
        assert_eq!(done, Node { state: State::Done, debug, ..same });
    }
}

#[test]
fn what_a_replacement_changes_is_looked_at() {
    let node = odd();
    let change = |pointer: &str, value: Value| {
        let mut read = Value::Object(node.to_wire());
        *read.pointer_mut(pointer).unwrap() = value;
        node.replace(&read, at(LATER)).unwrap_err()
    };
    assert_eq!(
        items(&change("/data/$set/0", json!({"$b": 1})))[0]["loc"],
        json!(["body", "data", "$set", 0, "$b"])
    );
    assert_eq!(items(&change("/artifacts/n", json!(6)))[0]["loc"], json!(["body", "artifacts", "n"]));
    assert_eq!(items(&change("/user_groups", json!(["b", "b"])))[0]["loc"], json!(["body", "user_groups"]));
    assert_eq!(items(&change("/timeout", json!("soon")))[0]["loc"], json!(["body", "timeout"]));
    assert!(text(&change("/data/error_code", json!("other"))).contains("\ndata.error_code\n"));
    assert!(
        text(&change("/data/kernel_revision/url", json!("git@host:y"))).contains("data.kernel_revision.url")
    );
    let version = change("/data/kernel_revision/version", json!({"version": "seven"}));
    assert!(text(&version).starts_with("invalid literal for int()"));
    assert_eq!(text(&change("/kind", json!("node"))), "Unsupported node kind: node");
    // A new version is translated, the stored one stays as it is.
    let mut read = Value::Object(node.to_wire());
    read["data"]["kernel_revision"]["version"] = json!({"version": "7", "patchlevel": 1});
    let translated = node.replace(&read, at(LATER)).unwrap();
    assert_eq!(json!(translated.data)["kernel_revision"]["version"], json!({"version": 7, "patchlevel": 1}));
}

#[test]
fn an_update_leaves_alone_what_it_does_not_change() {
    let node = odd();
    let mut data = node.data.clone().unwrap();
    data.insert("more".into(), 1.into());
    let set =
        json!({"data": data, "artifacts": node.artifacts, "timeout": node.timeout, "holdoff": node.holdoff});
    let changed = patch(&node, set).unwrap();
    assert_eq!(
        changed,
        Node { data: Some(data), updated: at(LATER), revision: node.revision + 1, ..node.clone() }
    );
    assert!(
        text(&patch(&node, json!({"data": {"error_code": "other"}})).unwrap_err())
            .contains("data.error_code")
    );
    let of_no_kind = Node { kind: "node".into(), ..node };
    assert_eq!(patch(&of_no_kind, json!({"state": "done"})).unwrap().state, State::Done);
}

#[test]
fn a_new_node_is_not_of_the_future() {
    let future = json!({"created": "9999-12-31", "updated": "9999-12-31", "timeout": "9999-12-31"});
    let day = at(NOW).plus_seconds(24 * 3600);
    let node = create(&body(future.clone())).unwrap();
    assert_eq!((node.created, node.updated, node.timeout), (day, day, at("9999-12-31")));
    let soon = create(&body(json!({"created": day}))).unwrap();
    assert_eq!(soon.created, day);
    let replaced = soon.replace(&body(future), at(LATER)).unwrap();
    assert_eq!(replaced.created, at(LATER).plus_seconds(24 * 3600));
}

#[test]
fn a_replacement_resets_to_defaults_and_keeps_what_is_not_its_own() {
    let mut node =
        stored(json!({"treeid": "t", "retry_counter": 3, "created": "2020-01-01", "submitter": "s",
        "artifacts": {"a": "http://x"}, "data": {"k": 1}, "user_groups": ["u"], "parent": ID}));
    node.revision = 7;
    let theirs = body(json!({"kind": "process", "name": "p", "owner": "eve", "submitter": "eve",
        "user_groups": ["eve"], "id": ID, "updated": "2020-01-01", "revision": 99, "extra": 1}));
    let new = node.replace(&theirs, at(LATER)).unwrap();
    let default = create(&body(json!({"kind": "process", "name": "p"}))).unwrap();
    let expected = Node {
        id: node.id,
        owner: Some("ann".into()),
        submitter: Some("s".into()),
        user_groups: vec!["u".into()],
        created: at(LATER),
        updated: at(LATER),
        timeout: at("2026-05-02T18:00:00.250000"),
        revision: 8,
        ..default
    };
    assert_eq!(new, expected);
}

#[test]
fn what_a_read_returned_can_be_put_back() {
    let node = stored(json!({"state": "available", "result": "pass", "holdoff": "2026-06-01", "debug": null,
        "artifacts": {"a": "http://x/%2B"}, "platform_filter": null, "data": {"x": [1, null]}, "treeid": "t"}));
    let new = node.replace(&Value::Object(node.to_wire()), at(LATER)).unwrap();
    assert_eq!(new, Node { updated: at(LATER), revision: 2, ..node });
}

#[test]
fn a_replacement_is_refused_for_its_parent_and_its_state() {
    let node = stored(json!({"state": "closing"}));
    let error =
        node.replace(&body(json!({"parent": node.id.to_hex(), "state": "done"})), at(LATER)).unwrap_err();
    assert_eq!(text(&error), "Parent cannot be the same as the object");
    let error = node.replace(&body(json!({})), at(LATER)).unwrap_err();
    assert_eq!(text(&error), "Transition not allowed with state: running", "the default state");
    assert!(node.replace(&body(json!({"state": "done", "parent": ID})), at(LATER)).is_ok());
}

/// Contract 3.3: true if and only if the state stays, the flag was false, and the body says true.
#[test]
fn the_flag_after_a_replacement() {
    for (before, body_flag, state, after) in [
        (false, true, "running", true),
        (false, false, "running", false),
        (true, true, "running", false),
        (true, false, "running", false),
        (false, true, "done", false),
        (true, true, "done", false),
    ] {
        let node = stored(json!({"processed_by_kcidb_bridge": before}));
        let body = body(json!({"processed_by_kcidb_bridge": body_flag, "state": state}));
        let new = node.replace(&body, at(LATER)).unwrap();
        assert_eq!(new.processed_by_kcidb_bridge, after, "{before} {body_flag} {state}");
    }
}

#[test]
fn an_update_sets_each_accepted_field_and_nothing_else() {
    let node =
        stored(json!({"data": {"a": 1}, "debug": {"d": 1}, "jobfilter": ["j"], "holdoff": "2026-06-01",
        "artifacts": {"a": "http://x"}, "result": "fail"}));
    let changed = |set: Value| patch(&node, set).unwrap();
    let base = || Node { updated: at(LATER), revision: 2, ..node.clone() };
    let map = |value: Value| value.as_object().cloned();
    assert_eq!(changed(json!({"state": "done"})), Node { state: State::Done, ..base() });
    assert_eq!(changed(json!({"state": null})), base());
    assert_eq!(changed(json!({"result": "pass"})), Node { result: Some(Outcome::Pass), ..base() });
    assert_eq!(changed(json!({"result": null})), Node { result: None, ..base() });
    assert_eq!(changed(json!({"data": {"b": 2}})), Node { data: map(json!({"b": 2})), ..base() });
    assert_eq!(changed(json!({"debug": null})), Node { debug: None, ..base() });
    assert_eq!(changed(json!({"debug": {}})), Node { debug: Some(Map::new()), ..base() });
    assert_eq!(changed(json!({"artifacts": null})), Node { artifacts: None, ..base() });
    let normal = map(json!({"b": "http://y/a%20b"}));
    assert_eq!(changed(json!({"artifacts": {"b": "HTTP://Y:80/a b"}})), Node { artifacts: normal, ..base() });
    assert_eq!(changed(json!({"jobfilter": null})), Node { jobfilter: None, ..base() });
    assert_eq!(
        changed(json!({"platform_filter": ["p"]})),
        Node { platform_filter: Some(vec!["p".into()]), ..base() }
    );
    assert_eq!(changed(json!({"timeout": "2030-01-01"})), Node { timeout: at("2030-01-01"), ..base() });
    assert_eq!(changed(json!({"holdoff": null})), Node { holdoff: None, ..base() });
    assert_eq!(
        changed(json!({"processed_by_kcidb_bridge": 1, "name": "x", "owner": "eve"})),
        Node { processed_by_kcidb_bridge: true, ..base() }
    );
}

#[test]
fn an_update_that_says_nothing_or_nonsense_is_refused() {
    let node = stored(json!({}));
    assert_eq!(text(&patch(&node, json!({})).unwrap_err()), "No fields to update");
    assert_eq!(text(&patch(&node, json!({"name": "x"})).unwrap_err()), "No fields to update");
    for (set, line) in [
        (json!({"timeout": null}), "timeout\n  Input should be a valid datetime [type=datetime_type, "),
        (
            json!({"processed_by_kcidb_bridge": null}),
            "processed_by_kcidb_bridge\n  Input should be a valid boolean [",
        ),
        (
            json!({"artifacts": {"log": "ftp://x"}}),
            "artifacts.log\n  URL scheme should be 'http' or 'https' [",
        ),
        (json!({"data": null}), "data\n  Input should be a valid dictionary or instance of CheckoutData ["),
        (
            json!({"data": {"error_code": "x"}}),
            "data.error_code\n  Input should be 'node_timeout' or 'git_checkout_failure' [",
        ),
    ] {
        let error = text(&patch(&node, set).unwrap_err());
        assert!(error.starts_with(&format!("1 validation error for Checkout\n{line}")), "{error}");
    }
    for (set, kind) in [
        (json!({"state": "odd"}), "enum"),
        (json!({"artifacts": {"log": 5}}), "string_type"),
        (json!({"timeout": "odd"}), "datetime_from_date_parsing"),
        (json!({"debug": {"\u{0}": "x"}}), "value_error"),
    ] {
        assert_eq!(items(&patch(&node, set).unwrap_err())[0]["type"], kind);
    }
}

#[test]
fn a_strict_update_names_the_field_that_it_does_not_know() {
    let node = stored(json!({}));
    let set = json!({"state": "done", "stat": "done"});
    let error = node.patch(set.as_object().unwrap(), at(LATER), true).unwrap_err();
    let found = items(&error);
    assert_eq!((&found[0]["type"], &found[0]["loc"]), (&json!("extra_forbidden"), &json!(["body", "stat"])));
    assert!(found[0]["msg"].as_str().unwrap().contains("expected state, result, "));
    assert_eq!(found.len(), 1);
}

#[test]
fn an_update_follows_the_state_machine() {
    let node = stored(json!({"state": "done"}));
    let error = patch(&node, json!({"state": "closing"})).unwrap_err();
    assert_eq!(text(&error), "Transition not allowed with state: closing");
    assert!(patch(&node, json!({"state": "done"})).is_ok());
}

/// Contract 3.5: explicit and the state stays: that value; otherwise false.
#[test]
fn the_flag_after_an_update() {
    for (before, set, after) in [
        (false, json!({"processed_by_kcidb_bridge": true}), true),
        (true, json!({"processed_by_kcidb_bridge": true}), true),
        (true, json!({"processed_by_kcidb_bridge": false}), false),
        (true, json!({"result": "pass"}), false),
        (false, json!({"processed_by_kcidb_bridge": true, "state": "running"}), true),
        (false, json!({"processed_by_kcidb_bridge": true, "state": "done"}), false),
        (true, json!({"state": "done"}), false),
    ] {
        let node = stored(json!({"processed_by_kcidb_bridge": before}));
        assert_eq!(patch(&node, set.clone()).unwrap().processed_by_kcidb_bridge, after, "{before} {set}");
    }
}

#[test]
fn only_one_field_is_marked_and_only_with_booleans() {
    for (value, flag) in [
        (json!("True"), true),
        (json!("true"), true),
        (json!(true), true),
        (json!("False"), false),
        (json!("false"), false),
        (json!(false), false),
    ] {
        assert_eq!(mark(MARKABLE, &value).unwrap(), flag);
    }
    assert_eq!(text(&mark("state", &json!("True")).unwrap_err()), "Field not supported");
    for odd in [json!("TRUE"), json!("1"), json!(1), json!(null), json!(""), json!("x".repeat(1000))] {
        let error = text(&mark(MARKABLE, &odd).unwrap_err());
        assert!(error.starts_with("value: expected true or false, not ") && error.len() < 120, "{error}");
    }
    let node = stored(json!({"state": "done"}));
    let expected = Node { processed_by_kcidb_bridge: true, updated: at(LATER), revision: 2, ..node.clone() };
    assert_eq!(node.marked(true, at(LATER)), expected);
}
