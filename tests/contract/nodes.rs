//! Reading and writing nodes (contract 2, 3, 4.6).

use macro_rules_attribute::apply;

use serde_json::{Map, Value, json};

use crate::support::{Answer, Http, Server, both_backends, node, until};

pub(crate) const NOWHERE: &str = "000000000000000000000000";

pub(crate) fn id(node: &Value) -> &str {
    node["id"].as_str().expect("an id")
}

/// `node` with some members changed.
pub(crate) fn but(node: &Value, changes: Value) -> Value {
    let mut node = node.clone();
    for (key, value) in changes.as_object().expect("changes") {
        node[key] = value.clone();
    }
    node
}

pub(crate) fn keys(node: &Value) -> Vec<&str> {
    node.as_object().expect("a node").keys().map(String::as_str).collect()
}

/// Whether Python 3.9 reads it with `datetime.fromisoformat`: naive, with six digits of a second or none.
fn is_naive_date(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let (time, fraction) =
        text.split_once('.').map_or((text, None), |(time, fraction)| (time, Some(fraction)));
    chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%dT%H:%M:%S").is_ok()
        && fraction.is_none_or(|digits| digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

pub(crate) async fn post(http: &Http, node: &Value) -> Value {
    http.post("/latest/node", node).await.ok()
}

pub(crate) async fn get(http: &Http, node: &Value) -> Value {
    http.get(&format!("/latest/node/{}", id(node))).await.ok()
}

async fn put(http: &Http, node: &Value, body: &Value) -> Answer {
    http.put(&format!("/latest/node/{}", id(node)), body).await
}

pub(crate) async fn patch(http: &Http, node: &Value, body: Value) -> Answer {
    http.patch(&format!("/latest/node/{}", id(node)), &body).await
}

/// What the events of channel `node` tell about this node, once there are so many. (On MongoDB they follow the write.)
pub(crate) async fn told(server: &Server, node: &Value, count: usize) -> Vec<Value> {
    let params = json!({"channel": "node", "filter": {"subject": id(node)}, "limit": 1000});
    let mut raw = server.admin().await;
    until(&format!("{count} events of the node"), async || {
        let found = raw.call("event.find", params.clone()).await;
        let items = found["items"].as_array().expect("items").iter();
        let told: Vec<Value> = items.map(|item| item.get("event").unwrap_or(item)["data"].clone()).collect();
        if told.len() >= count { Ok(told) } else { Err(told) }
    })
    .await
}

pub(crate) const KEYS: [&str; 23] = [
    "id",
    "kind",
    "name",
    "path",
    "group",
    "parent",
    "state",
    "result",
    "artifacts",
    "data",
    "debug",
    "jobfilter",
    "platform_filter",
    "created",
    "updated",
    "timeout",
    "holdoff",
    "owner",
    "submitter",
    "treeid",
    "user_groups",
    "processed_by_kcidb_bridge",
    "retry_counter",
];

#[apply(both_backends!)]
async fn a_new_node_has_its_keys_and_defaults(server: Server) {
    let http = Http::admin(&server).await;
    let body = json!({"kind": "checkout", "name": "", "path": [], "owner": "somebody", "unknown": 1});
    let made = post(&http, &body).await;
    let mut id_last = KEYS.to_vec();
    id_last.rotate_left(1);
    assert_eq!(keys(&made), id_last, "new nodes have their id last");
    let read = get(&http, &made).await;
    assert_eq!(keys(&read), KEYS);
    assert_eq!(read, made);
    let mut rest = read.clone();
    for date in ["created", "updated", "timeout"] {
        assert!(is_naive_date(&read[date]), "{date}: {read}");
        rest.as_object_mut().expect("a node").remove(date);
    }
    assert_eq!(
        rest,
        json!({
            "id": id(&made), "kind": "checkout", "name": "", "path": [], "group": null, "parent": null,
            "state": "running", "result": null, "artifacts": {}, "data": {}, "debug": {}, "jobfilter": null,
            "platform_filter": [], "holdoff": null, "owner": "admin", "submitter": null, "treeid": null,
            "user_groups": [], "processed_by_kcidb_bridge": false, "retry_counter": 0
        })
    );
    let hours = |date: &Value| {
        chrono::NaiveDateTime::parse_from_str(date.as_str().expect("a date"), "%Y-%m-%dT%H:%M:%S%.f")
            .expect("a date")
    };
    assert_eq!((hours(&read["timeout"]) - hours(&read["created"])).num_hours(), 6);
    assert_eq!(http.get(&format!("/node/{NOWHERE}")).await.ok(), Value::Null);
    let detail = "'xyz' is not a valid ObjectId, it must be a 12-byte input or a 24-character hex string";
    assert_eq!(http.get("/node/xyz").await.refusal(), (400, detail.into()));
}

#[apply(both_backends!)]
async fn what_a_new_node_says_is_kept(server: Server) {
    let http = Http::admin(&server).await;
    let parent = post(&http, &node("checkout", "a")).await;
    let revision = json!({"tree": "t", "url": "HTTPS://Git.example.org:443/x", "branch": "b", "commit": "c",
        "version": {"version": "6", "patchlevel": " +1_1 ", "sublevel": null}});
    let body = json!({
        "kind": "kbuild", "name": "n", "path": ["a", "n"], "group": "g", "parent": id(&parent).to_uppercase(),
        "state": "done", "result": "incomplete", "artifacts": {"log": "HTTP://Ex.com:80/A b"},
        "data": {"kernel_revision": revision, "tree_priority": "high"}, "debug": {"d": 1}, "jobfilter": ["j"],
        "platform_filter": null, "created": "2026-01-01 00:10:00.123456+00:00", "updated": "2026-01-02",
        "timeout": "2026-01-01T02:00:00+02:00", "holdoff": 1_767_225_600, "submitter": "s", "treeid": "t",
        "processed_by_kcidb_bridge": "yes", "retry_counter": 3,
    });
    let made = post(&http, &body).await;
    let mut stored = body["data"].clone();
    stored["kernel_revision"]["version"] = json!({"version": 6, "patchlevel": 11, "sublevel": null});
    let wanted = but(
        &body,
        json!({
            "parent": id(&parent), "artifacts": {"log": "http://ex.com/A%20b"}, "data": stored,
            "created": "2026-01-01T00:10:00.123000", "updated": "2026-01-02T00:00:00",
            "timeout": "2026-01-01T00:00:00", "holdoff": "2026-01-01T00:00:00",
            "processed_by_kcidb_bridge": true, "owner": "admin",
        }),
    );
    for (key, value) in wanted.as_object().expect("a node") {
        assert_eq!(&made[key], value, "{key}");
    }
    assert_eq!(get(&http, &made).await, made);
}

#[apply(both_backends!)]
async fn nodes_that_cannot_be_made(server: Server) {
    let http = Http::admin(&server).await;
    let plain = node("checkout", "a");
    for (changes, status, detail) in [
        (json!({"kind": "node"}), 400, "Unsupported node kind: node".to_owned()),
        (json!({"kind": "Kbuild"}), 400, "Unsupported node kind: Kbuild".to_owned()),
        (json!({"id": NOWHERE}), 400, format!("Object cannot be created with id: {NOWHERE}")),
        (json!({"_id": NOWHERE}), 400, format!("Object cannot be created with id: {NOWHERE}")),
        (json!({"parent": NOWHERE}), 404, format!("Parent not found with id: {NOWHERE}")),
        (json!({"user_groups": ["nobody's"]}), 400, "User group does not exist with name: nobody's".into()),
        (
            json!({"data": {"kernel_revision": {"version": {"version": "x"}}}}),
            400,
            "invalid literal for int() with base 10: 'x'".into(),
        ),
    ] {
        let refused = http.post("/node", &but(&plain, changes.clone())).await;
        assert_eq!(refused.refusal(), (status, detail.into()), "{changes}");
    }
    let mut kindless = plain.clone();
    kindless.as_object_mut().expect("a node").remove("kind");
    assert_eq!(http.post("/node", &kindless).await.refusal(), (400, "Unsupported node kind: node".into()));
    // What depends on the kind is 400 with pydantic's text.
    for (changes, first, names) in [
        (
            json!({"data": null}),
            "1 validation error for Checkout",
            "data\n  Input should be a valid dictionary or instance of CheckoutData",
        ),
        (
            json!({"data": {"error_code": "git_commit_error"}}),
            "1 validation error for Checkout",
            "data.error_code\n",
        ),
        (
            json!({"kind": "job", "data": {"error_code": "RequestBodyTooLarge"}}),
            "1 validation error for Job",
            "data.error_code\n",
        ),
        (
            json!({"kind": "kbuild", "data": {"kernel_revision": {}}}),
            "4 validation errors for Kbuild",
            "data.kernel_revision.tree\n  Field required",
        ),
        (
            json!({"kind": "kbuild", "data": {"kernel_revision": "x"}}),
            "1 validation error for Kbuild",
            "data.kernel_revision\n",
        ),
        (json!({"kind": "test", "data": {"runtime": 5}}), "1 validation error for Test", "data.runtime\n"),
        (
            json!({"kind": "regression", "data": {"fail_node": "zz"}}),
            "validation errors for Regression",
            "data.fail_node",
        ),
    ] {
        let (status, detail) = http.post("/node", &but(&plain, changes.clone())).await.refusal();
        let detail = detail.as_str().unwrap_or_default().to_owned();
        assert!(
            status == 400 && detail.contains(first) && detail.contains(names),
            "{changes}: {status} {detail}"
        );
    }
    // What was a 500 (contract D-15): null is no revision, and numbers have 64 bits.
    assert_eq!(
        http.post("/node", &but(&plain, json!({"data": {"kernel_revision": null}}))).await.status,
        200
    );
    assert_eq!(http.post("/node", &but(&plain, json!({"data": {"n": u64::MAX}}))).await.status, 422);
    assert_eq!(http.get("/count").await.ok(), 1, "nothing else was made");
}

#[apply(both_backends!)]
async fn urls_are_normalised(server: Server) {
    let http = Http::admin(&server).await;
    let given = json!({
        "a": "https://example.com", "b": "HTTP://Ex.com:80/A b", "c": "http:\\\\x\\y", "d": "http://x/a/../b",
        "e": "http://x/{}\"<>`|^", "f": " http://x/ \n", "g": "http:h", "h": "http://x/%2B", "i": "http://bücher.example/",
    });
    let normal = json!({
        "a": "https://example.com/", "b": "http://ex.com/A%20b", "c": "http://x/y", "d": "http://x/b",
        "e": "http://x/%7B%7D%22%3C%3E%60|^", "f": "http://x/", "g": "http://h/", "h": "http://x/%2B", "i": "http://xn--bcher-kva.example/",
    });
    let made = post(&http, &but(&node("checkout", "a"), json!({"artifacts": given}))).await;
    assert_eq!(made["artifacts"], normal);
    // A search finds what reads show, whatever wrote it (contract D-11).
    patch(&http, &made, json!({"artifacts": {"b": "HTTP://Ex.com:80/A b"}})).await.ok();
    let found = http.get("/nodes/fast?artifacts.b=http%3A%2F%2Fex.com%2FA%2520b").await.ok();
    assert_eq!(found[0]["artifacts"], json!({"b": "http://ex.com/A%20b"}));
    assert_eq!(put(&http, &made, &but(&made, json!({"artifacts": {"a": "ftp://x"}}))).await.status, 422);
    let (status, detail) = patch(&http, &made, json!({"artifacts": {"a": "ftp://x"}})).await.refusal();
    assert!(
        status == 400
            && detail
                .as_str()
                .is_some_and(|text| text.contains("artifacts.a\n  URL scheme should be 'http' or 'https'")),
        "{detail}"
    );
    let (status, _) = patch(&http, &made, json!({"artifacts": {"a": 5}})).await.refusal();
    assert_eq!(status, 422, "not even text");
}

/// Surprise: PUT resets what the body leaves out (contract 3.3).
#[apply(both_backends!)]
async fn replacing_resets_what_is_left_out(server: Server) {
    let http = Http::admin(&server).await;
    let made = post(&http, &json!({
        "kind": "kbuild", "name": "n", "path": ["n"], "group": "g", "treeid": "t", "retry_counter": 3, "submitter": "s",
        "created": "2020-01-01", "timeout": "2020-01-01", "artifacts": {"a": "http://x/"}, "data": {"arch": "arm"},
        "debug": {"d": 1}, "jobfilter": ["j"], "platform_filter": ["p"],
    })).await;
    let body = json!({"_id": NOWHERE, "kind": "job", "name": "m", "path": ["m"], "owner": "somebody", "submitter": "x", "user_groups": []});
    let replaced = put(&http, &made, &body).await.ok();
    assert_eq!(keys(&replaced), KEYS);
    for (key, value) in [
        ("id", made["id"].clone()),
        ("kind", "job".into()),
        ("name", "m".into()),
        ("group", Value::Null),
        ("treeid", Value::Null),
        ("retry_counter", 0.into()),
        ("owner", "admin".into()),
        ("submitter", "s".into()),
        ("artifacts", json!({})),
        ("data", json!({})),
        ("debug", json!({})),
        ("jobfilter", Value::Null),
        ("platform_filter", json!([])),
    ] {
        assert_eq!(replaced[key], value, "{key}");
    }
    for date in ["created", "timeout", "updated"] {
        assert!(replaced[date].as_str() > Some("2026"), "{date}: {replaced}");
    }
    assert_eq!(get(&http, &made).await, replaced);
    // Whatever GET returns is accepted by PUT (contract 9.2), and stays the same.
    let again = put(&http, &made, &replaced).await.ok();
    assert_eq!(but(&again, json!({"updated": 0})), but(&replaced, json!({"updated": 0})));
}

#[apply(both_backends!)]
async fn replacing_has_rules(server: Server) {
    let http = Http::admin(&server).await;
    let made = post(&http, &but(&node("checkout", "a"), json!({"state": "done"}))).await;
    let missing = http.put(&format!("/node/{NOWHERE}"), &made).await;
    assert_eq!(missing.refusal(), (404, format!("Node not found with id: {NOWHERE}").into()));
    assert_eq!(http.put("/node/zz", &made).await.status, 400);
    let own = put(&http, &made, &but(&made, json!({"parent": made["id"]}))).await;
    assert_eq!(own.refusal(), (400, "Parent cannot be the same as the object".into()));
    // The default of a left out state is running.
    let stateless = put(&http, &made, &node("checkout", "a")).await;
    assert_eq!(stateless.refusal(), (400, "Transition not allowed with state: running".into()));
    assert_eq!(
        put(&http, &made, &but(&made, json!({"kind": "node"}))).await.refusal(),
        (400, "Unsupported node kind: node".into())
    );
    assert_eq!(get(&http, &made).await, made);
    let text = but(
        &made,
        json!({"data": {"kernel_revision": {"tree": "t", "url": "git://x/y", "branch": "b", "commit": "c",
        "version": {"version": "6", "patchlevel": "1"}}}}),
    );
    assert_eq!(
        put(&http, &made, &text).await.ok()["data"]["kernel_revision"]["version"],
        json!({"version": 6, "patchlevel": 1})
    );
}

#[apply(both_backends!)]
async fn states_go_forwards(server: Server) {
    let http = Http::admin(&server).await;
    let states = ["running", "available", "closing", "done"];
    for (place, from) in states.iter().enumerate() {
        for (next, to) in states.iter().enumerate() {
            let made = post(&http, &but(&node("job", "a"), json!({"state": from}))).await;
            let answers = [
                put(&http, &made, &but(&made, json!({"state": to}))).await,
                patch(
                    &http,
                    &post(&http, &but(&node("job", "a"), json!({"state": from}))).await,
                    json!({"state": to}),
                )
                .await,
            ];
            for answer in answers {
                match next >= place {
                    true => assert_eq!(answer.ok()["state"], *to, "{from} -> {to}"),
                    false => assert_eq!(
                        answer.refusal(),
                        (400, format!("Transition not allowed with state: {to}").into())
                    ),
                }
            }
        }
    }
}

/// Surprise: the flag goes back to false when true is sent twice (contract 3.3), and not with PATCH (3.5).
#[apply(both_backends!)]
async fn the_flag_of_the_bridge(server: Server) {
    let http = Http::admin(&server).await;
    let flagged = async |stored: bool| {
        post(&http, &but(&node("job", "a"), json!({"processed_by_kcidb_bridge": stored}))).await
    };
    for (stored, state, sent, put_says, patch_says) in [
        (false, "running", Some(true), true, true),
        (true, "running", Some(true), false, true),
        (true, "running", Some(false), false, false),
        (true, "running", None, false, false),
        (false, "done", Some(true), false, false),
        (true, "done", Some(true), false, false),
        (true, "done", None, false, false),
    ] {
        let body = |mut body: Value| {
            body["state"] = state.into();
            match sent {
                Some(flag) => body["processed_by_kcidb_bridge"] = flag.into(),
                None => drop(body.as_object_mut().and_then(|body| body.remove("processed_by_kcidb_bridge"))),
            }
            body
        };
        let made = flagged(stored).await;
        let replaced = put(&http, &made, &body(made.clone())).await.ok();
        assert_eq!(replaced["processed_by_kcidb_bridge"], put_says, "PUT {stored} {state} {sent:?}");
        let patched = patch(&http, &flagged(stored).await, body(json!({}))).await.ok();
        assert_eq!(patched["processed_by_kcidb_bridge"], patch_says, "PATCH {stored} {state} {sent:?}");
    }
    let patched = patch(&http, &flagged(true).await, json!({"result": "pass"})).await.ok();
    assert_eq!(patched["processed_by_kcidb_bridge"], false, "not told again");
}

#[apply(both_backends!)]
async fn patching_sets_whole_fields(server: Server) {
    let http = Http::admin(&server).await;
    let made = post(&http, &but(&node("kbuild", "a"), json!({
        "data": {"arch": "arm", "extra": 1}, "artifacts": {"a": "http://x/"}, "debug": {"d": 1}, "jobfilter": ["j"],
    }))).await;
    let patched = patch(
        &http,
        &made,
        json!({"data": {"arch": "x86"}, "name": "ignored", "owner": "x", "result": "pass"}),
    )
    .await
    .ok();
    assert_eq!(
        but(&patched, json!({"updated": 0})),
        but(&made, json!({"data": {"arch": "x86"}, "result": "pass", "updated": 0}))
    );
    let nulls = json!({"result": null, "artifacts": null, "debug": null, "jobfilter": null, "platform_filter": null, "holdoff": null, "state": null});
    let patched = patch(&http, &made, nulls.clone()).await.ok();
    assert_eq!(patched, but(&patched, but(&nulls, json!({"state": "running"}))));
    let holdoff = patch(&http, &made, json!({"holdoff": "2026-01-01 00:10:00.123456+00:00"})).await.ok();
    assert_eq!(holdoff["holdoff"], "2026-01-01T00:10:00.123000");
    for (set, status, mentions) in [
        (json!({}), 400, "No fields to update"),
        (json!({"name": "x", "nope": 1}), 400, "No fields to update"),
        (json!({"timeout": null}), 400, "timeout"),
        (json!({"processed_by_kcidb_bridge": null}), 400, "processed_by_kcidb_bridge"),
        (json!({"data": null}), 400, "KbuildData"),
        (json!({"data": {"arch": 5}}), 400, "data.arch"),
        (json!({"state": "ended"}), 422, "'running', 'available', 'closing' or 'done'"),
        (json!({"jobfilter": "x"}), 422, "Input should be a valid list"),
    ] {
        let refused = patch(&http, &made, set.clone()).await;
        assert_eq!(refused.status, status, "{set}: {}", refused.text);
        assert!(refused.text.contains(mentions), "{set}: {}", refused.text);
    }
    let missing = http.patch(&format!("/node/{NOWHERE}"), &json!({"state": "done"})).await;
    assert_eq!(missing.refusal(), (404, format!("Node not found with id: {NOWHERE}").into()));
}

/// Contract 3.4, 5.3.
#[apply(both_backends!)]
async fn events_tell_of_writes(server: Server) {
    let http = Http::admin(&server).await;
    let made =
        post(&http, &but(&node("kbuild", "a"), json!({"result": "fail", "data": {"arch": "arm"}}))).await;
    let payload = |op: &str, changes: Value| {
        let mut payload = json!({"op": op, "id": made["id"], "kind": "kbuild", "name": "a", "path": ["a"], "group": null,
            "state": "running", "result": "fail", "owner": "admin", "data": {"arch": "arm"}, "is_hierarchy": false});
        for (key, value) in changes.as_object().expect("changes") {
            payload[key] = value.clone();
        }
        payload
    };
    patch(&http, &made, json!({"state": "done", "result": "pass"})).await.ok();
    let quiet = http.patch(&format!("/node/{}?noevent=true", id(&made)), &json!({"debug": {}})).await.ok();
    http.put(&format!("/node/{}?noevent=True", id(&made)), &quiet).await.ok();
    put(&http, &made, &quiet).await.ok();
    let previous =
        json!({"state": "done", "result": "pass", "previous_state": "running", "previous_result": "fail"});
    let last =
        json!({"state": "done", "result": "pass", "previous_state": "done", "previous_result": "pass"});
    assert_eq!(
        told(&server, &made, 3).await,
        [payload("created", json!({})), payload("updated", previous), payload("updated", last)]
    );
}

#[apply(both_backends!)]
async fn who_may_edit(server: Server) {
    let owner = Http::new(&server).with(&server.add_user("owner", &[]).await);
    let body = json!({"kind": "job", "name": "a", "path": ["a"], "data": {"runtime": "lava-x"}, "user_groups": ["team"]});
    let mate = Http::new(&server).with(&server.add_user("mate", &["team"]).await);
    let made = post(&owner, &body).await;
    assert_eq!(made["owner"], "owner");
    let refusal = (401, json!("Unauthorized to complete the operation"));
    for (name, groups, may) in [
        ("nobody", &[][..], false),
        ("any", &["node:edit:any"], true),
        ("editor", &["runtime:lava-x:node-editor"], true),
        ("boss", &["runtime:lava-x:node-admin"], true),
        ("other-lab", &["runtime:lava-y:node-editor"], false),
    ] {
        let http = Http::new(&server).with(&server.add_user(name, groups).await);
        let node = get(&http, &made).await;
        let tree = json!({"node": node, "child_nodes": []});
        let answers = [
            put(&http, &made, &node).await,
            patch(&http, &made, json!({"debug": {}})).await,
            http.put(&format!("/nodes/{}", id(&made)), &tree).await,
        ];
        for answer in answers {
            match may {
                true => assert_eq!(answer.status, 200, "{name}: {}", answer.text),
                false => assert_eq!(answer.refusal(), refusal, "{name}"),
            }
        }
        let flag = json!({"nodes": [id(&made)], "field": "processed_by_kcidb_bridge", "value": "True"});
        assert_eq!(http.put("/batch/nodeset", &flag).await.ok(), u64::from(may), "{name}");
    }
    for http in [&owner, &mate, &Http::admin(&server).await] {
        patch(http, &made, json!({"debug": {}})).await.ok();
    }
    let read = get(&owner, &made).await;
    assert_eq!(
        (&read["owner"], &read["user_groups"]),
        (&json!("owner"), &json!(["team"])),
        "nobody has taken it"
    );
}

#[apply(both_backends!)]
async fn revisions_over_rest(server: Server) {
    let http = Http::admin(&server).await;
    let made = http.post("/node", &node("checkout", "a")).await;
    assert_eq!(made.headers["etag"], "\"1\"");
    let made = made.ok();
    assert!(made.get("revision").is_none());
    let path = format!("/latest/node/{}", id(&made));
    let matching = async |etag: &str, body: &Value| {
        crate::support::answer(http.request("PATCH", &path).header("if-match", etag).json(body)).await
    };
    let second = matching("\"1\"", &json!({"debug": {"n": 1}})).await;
    assert_eq!((second.status, &second.headers["etag"]), (200, &"\"2\"".parse().expect("a value")));
    let late = matching("\"1\"", &json!({"debug": {"n": 2}})).await;
    assert_eq!(late.refusal(), (409, "revision conflict: the node is at revision 2".into()));
    assert_eq!(matching("x", &json!({"debug": {}})).await.status, 400);
    let read = http.get(&format!("{path}?revision=true")).await.ok();
    assert_eq!((&read["revision"], &read["debug"]), (&json!(2), &json!({"n": 1})));
    let list = http.get("/nodes?revision=true").await.ok();
    assert_eq!(list["items"][0]["revision"], 2);
    // Repeated with the same key, the node of the first time (contract 12.1.12).
    let keyed = async || {
        let request = http.request("POST", "/node").header("idempotency-key", "k").json(&node("job", "once"));
        crate::support::answer(request).await.ok()
    };
    assert_eq!(keyed().await["id"], keyed().await["id"]);
    assert_eq!(http.get("/count?kind=job").await.ok(), 1);
}

/// Contract 1.5: who asks and what the path names come before what is wrong with query and body.
#[apply(both_backends!)]
async fn checks_come_in_kernelcis_order(server: Server) {
    let admin = Http::admin(&server).await;
    let stranger = Http::new(&server).with(&server.add_user("stranger", &[]).await);
    let made = post(&admin, &node("checkout", "a")).await;
    for (method, path) in [("PUT", "node"), ("PATCH", "node"), ("PUT", "nodes")] {
        let wrong = async |http: &Http, id: &str| {
            let query =
                http.send(method, &format!("/{path}/{id}?noevent=x&events=x"), Some(&json!({}))).await;
            let body = http.send(method, &format!("/{path}/{id}"), Some(&json!([1]))).await;
            let empty = http.send(method, &format!("/{path}/{id}"), Some(&Value::Null)).await;
            let statuses = [query.status, body.status, empty.status];
            assert!(statuses.iter().all(|status| *status == statuses[0]), "{method} {path} {statuses:?}");
            (statuses[0], query.json["detail"].clone())
        };
        assert_eq!(wrong(&Http::new(&server), id(&made)).await, (401, "Unauthorized".into()));
        assert_eq!(wrong(&admin, "xyz").await.0, 400, "{method} {path}");
        assert_eq!(wrong(&admin, NOWHERE).await, (404, format!("Node not found with id: {NOWHERE}").into()));
        let refused = (401, "Unauthorized to complete the operation".into());
        assert_eq!(wrong(&stranger, id(&made)).await, refused, "{method} {path}");
        assert_eq!(wrong(&admin, id(&made)).await.0, 422, "{method} {path}");
        let no_json = stranger.request(method, &format!("/{path}/{NOWHERE}")).body("{");
        let no_json = crate::support::answer(no_json.header("content-type", "application/json")).await;
        assert_eq!((no_json.status, &no_json.json["detail"][0]["type"]), (422, &"json_invalid".into()));
    }
    assert_eq!(get(&admin, &made).await, made);
}

/// Whatever comes in: a clear error, never a 500, nothing half-written (contract 11).
#[apply(both_backends!)]
async fn bad_input_at_every_route(server: Server) {
    let http = Http::admin(&server).await;
    let made = post(&http, &node("checkout", "a")).await;
    let path = |prefix: &str| format!("{prefix}/{}", id(&made));
    let nul = json!({"kind": "checkout", "name": "a", "path": [], "data": {"a\u{0}": 1}});
    let dollar = json!({"kind": "checkout", "name": "a", "path": [], "data": {"$set": 1}});
    let bodies = [
        json!(null),
        json!(5),
        json!([]),
        json!({}),
        json!("x"),
        json!({"node": []}),
        json!({"nodes": [], "field": 1}),
        json!({"kind": {}, "name": [], "path": {}}),
        nul,
        dollar,
        json!({"node": {"kind": "job"}, "child_nodes": [[]]}),
        json!({"state": [], "data": "x"}),
        Value::Object(Map::new()),
    ];
    for (method, path) in [
        ("POST", "/node".to_owned()),
        ("PUT", path("/node")),
        ("PATCH", path("/node")),
        ("PUT", path("/nodes")),
        ("PUT", "/batch/nodeset".into()),
        ("PUT", "/node/%00".into()),
        ("PATCH", "/node/..%2f".into()),
        ("PUT", "/nodes/☂".into()),
    ] {
        for body in &bodies {
            let refused = http.send(method, &path, Some(body)).await;
            assert!(
                (400..500).contains(&refused.status),
                "{method} {path} {body}: {} {}",
                refused.status,
                refused.text
            );
            assert!(!refused.json["detail"].is_null(), "{method} {path} {body}: {}", refused.text);
        }
    }
    assert_eq!(get(&http, &made).await, made);
    assert_eq!(http.get("/count").await.ok(), 1);
}
