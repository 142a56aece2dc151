//! Requests and their answers: ids, errors, limits, paging, conflicts, repetition.

use std::collections::HashSet;

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Server, both_backends, node};

/// Asserts the common shape of an application error.
fn check(error: &Value, code: i64, status: u16, mentions: &str) {
    assert_eq!((&error["code"], &error["data"]["status"]), (&json!(code), &json!(status)), "{error}");
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    assert!(error["data"]["temporary"].is_boolean(), "{error}");
    assert!(error["data"]["detail"].to_string().contains(mentions), "{mentions} is not mentioned: {error}");
}

async fn rpc(server: &Server, body: Value, token: Option<&str>) -> Value {
    let mut request = reqwest::Client::new().post(format!("{}/latest/rpc", server.url())).json(&body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.expect("answers").json().await.expect("answers with JSON")
}

#[apply(both_backends!)]
async fn answers_carry_the_id_of_their_request(server: Server) {
    let mut raw = server.anonymous().await;
    for id in [json!(7), json!("seven"), json!(-7), json!(9_007_199_254_740_991_i64)] {
        raw.send_text(json!({"jsonrpc": "2.0", "id": id, "method": "node.count"}).to_string()).await;
        let answer = raw.answer(id.clone()).await;
        assert_eq!((&answer["jsonrpc"], &answer["result"]), (&json!("2.0"), &json!({"count": 0})), "{id}");
    }
    // No id: a notification, which nobody answers, not even when it is wrong.
    raw.send_text(r#"{"jsonrpc":"2.0","method":"node.count"}"#).await;
    raw.send_text(r#"{"jsonrpc":"2.0","method":"no.such"}"#).await;
    // Requests are answered side by side: what is answered at all has been so after some rounds.
    for _ in 0..5 {
        let id = raw.send_request("node.count", json!({})).await.expect("sent");
        let answer = raw.receive(crate::support::PATIENCE).await.expect("an answer");
        assert_eq!(answer["id"], id, "a notification was answered");
    }
}

#[apply(both_backends!)]
async fn requests_run_side_by_side_and_are_all_answered(server: Server) {
    let mut raw = server.admin().await;
    let mut open = HashSet::new();
    for number in 0..200 {
        let (method, params) = match number % 4 {
            0 => ("node.create", json!({"node": node("checkout", &format!("n{number}"))})),
            1 => ("node.find", json!({"filter": {"name__re": "n.*7"}, "limit": 1000})),
            2 => ("node.count", json!({})),
            _ => ("node.get", json!({"id": "0123456789abcdef01234567"})),
        };
        open.insert(raw.send_request(method, params).await.expect("sent"));
    }
    while !open.is_empty() {
        let answer = raw.receive(crate::support::PATIENCE).await.expect("more answers");
        assert!(open.remove(&answer["id"].as_u64().expect("an id")), "answered twice: {answer}");
        // Beyond 32 at a time the server may refuse, but then it says so.
        let code = &answer["error"]["code"];
        assert!(code.is_null() || code == -32004 || code == -32029, "{answer}");
        if code == -32029 {
            assert_eq!(answer["error"]["data"]["temporary"], true);
        }
    }
    raw.call("node.count", json!({})).await;
}

#[apply(both_backends!)]
async fn protocol_faults_have_the_codes_of_json_rpc(server: Server) {
    let mut raw = server.anonymous().await;
    for (text, code) in [
        ("{", -32700),
        ("", -32700),
        ("hello", -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"node.count"} x"#, -32700),
        ("null", -32600),
        ("5", -32600),
        ("{}", -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"node.count"}]"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"node.count"}"#, -32600),
        (r#"{"id":1,"method":"node.count"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"node.count"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"node.count","params":5}"#, -32600),
    ] {
        raw.send_text(text).await;
        let answer = raw.receive(crate::support::PATIENCE).await.expect("an answer");
        assert!(
            answer["error"]["code"] == code || (code == -32600 && answer["error"]["code"] == -32602),
            "{text}: {answer}"
        );
        assert!(answer.get("id").is_some(), "{text}: {answer}");
    }
    check(&raw.fail("node.fnord", json!({})).await, -32601, 404, "node.fnord");
    check(&raw.fail("node.find", json!({"limits": 5})).await, -32602, 422, "limits");
    check(&raw.fail("node.find", json!({"limit": "many"})).await, -32602, 422, "limit");
    check(&raw.fail("node.get", json!({})).await, -32602, 422, "id");
    raw.call("node.count", json!({})).await;
}

#[apply(both_backends!)]
async fn application_errors_say_what_rest_would(server: Server) {
    let mut raw = server.admin().await;
    let absent = "0123456789abcdef01234567";
    check(&raw.fail("node.get", json!({"id": absent})).await, -32004, 404, absent);
    let made = raw.call("node.create", json!({"node": node("checkout", "c")})).await;
    assert_eq!(made["revision"], 1);
    let id = &made["id"];
    let update = |revision: u64| json!({"id": id, "if_revision": revision, "set": {"state": "done"}});
    assert_eq!(raw.call("node.update", update(1)).await["revision"], 2);
    let conflict = raw.fail("node.update", update(1)).await;
    check(&conflict, -32009, 409, "2");
    assert_eq!(conflict["data"]["revision"], 2);
    let backwards = raw.fail("node.update", json!({"id": id, "set": {"state": "running"}})).await;
    check(&backwards, -32000, 400, "Transition not allowed");
}

#[apply(both_backends!)]
async fn a_repeated_create_is_done_once(server: Server) {
    let mut raw = server.admin().await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
    let create = json!({"node": node("checkout", "once"), "idempotency_key": "k1"});
    let first = raw.call("node.create", create.clone()).await;
    let again = server.admin().await.call("node.create", create).await;
    assert_eq!(first["id"], again["id"]);
    assert_eq!(raw.call("node.count", json!({"filter": {"name": "once"}})).await["count"], 1);
    raw.event(1).await;
    let other = raw.call("node.create", json!({"node": node("checkout", "other")})).await;
    assert_eq!(raw.event(1).await["event"]["subject"], other["id"], "the repetition has no event");
}

#[apply(both_backends!)]
async fn find_sorts_and_pages(server: Server) {
    let mut raw = server.admin().await;
    for number in 0..25 {
        raw.call("node.create", json!({"node": node("checkout", &format!("p{number:02}"))})).await;
    }
    raw.call("node.create", json!({"node": node("kbuild", "other")})).await;
    let mut names = Vec::new();
    let mut after = Value::Null;
    loop {
        let mut params = json!({"filter": {"kind": "checkout"}, "sort": ["-name"], "limit": 10});
        if !after.is_null() {
            params["after"] = after;
        }
        let page = raw.call("node.find", params).await;
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 10);
        names.extend(items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()));
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    let expected: Vec<String> = (0..25).rev().map(|number| format!("p{number:02}")).collect();
    assert_eq!(names, expected);
    let some = raw.call("node.find", json!({"fields": ["name"], "limit": 1})).await;
    let keys: Vec<&String> = some["items"][0].as_object().expect("a node").keys().collect();
    assert!(keys.len() <= 2 && keys.iter().all(|key| *key == "id" || *key == "name"), "{keys:?}");
    check(&raw.fail("node.find", json!({"limit": 1001})).await, -32602, 422, "1000");
    check(&raw.fail("node.find", json!({"limit": 0})).await, -32602, 422, "limit");
    check(&raw.fail("node.find", json!({"sort": ["fnord"]})).await, -32602, 422, "sort");
    check(&raw.fail("node.find", json!({"after": "forged"})).await, -32602, 422, "after");
}

#[apply(both_backends!)]
async fn the_same_requests_go_over_post(server: Server) {
    let count = json!({"jsonrpc": "2.0", "id": "a", "method": "node.count", "params": {}});
    let answer = rpc(&server, count, None).await;
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": "a", "result": {"count": 0}}));
    let create = json!({"jsonrpc": "2.0", "id": 1, "method": "node.create", "params": {"node": node("checkout", "c")}});
    assert_eq!(rpc(&server, create.clone(), None).await["error"]["code"], -32001);
    assert_eq!(rpc(&server, create, Some(server.token().await)).await["result"]["owner"], "admin");
    let unknown = json!({"jsonrpc": "2.0", "id": 2, "method": "fnord"});
    assert_eq!(rpc(&server, unknown, None).await["error"]["code"], -32601);
    let session = json!({"jsonrpc": "2.0", "id": 3, "method": "event.subscribe", "params": {"sub": 1, "channel": "node"}});
    let refused = rpc(&server, session, Some(server.token().await)).await;
    assert!(refused["error"]["data"]["detail"].to_string().contains("WebSocket"), "{refused}");
}
