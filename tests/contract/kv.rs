//! Key and value (contract 7.1, 7.6, D-51).

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, Http, Server, answer, both_backends, to_redis};

/// Redis is shared by all tests, and the layout has no prefix.
fn namespace() -> String {
    format!("test-{}", uuid::Uuid::new_v4().simple())
}

async fn raw(http: &Http, path: &str, content_type: Option<&str>, body: &str) -> (u16, Value) {
    let mut request = http.request("POST", path).body(body.to_owned());
    if let Some(kind) = content_type {
        request = request.header("content-type", kind);
    }
    let answer = answer(request).await;
    (answer.status, answer.json)
}

#[apply(both_backends!)]
async fn values_are_set_read_and_removed(server: Server) {
    let http = Http::admin(&server).await;
    let path = &format!("/kv/{}/key", namespace());
    assert_eq!(http.get(path).await.ok(), Value::Null);
    assert_eq!(http.post(path, &json!("wört\"lich")).await.ok(), "OK");
    assert_eq!(http.get(path).await.ok(), "wört\"lich");
    assert_eq!(http.get(&format!("/latest{path}")).await.ok(), "wört\"lich");
    assert_eq!(http.post(path, &json!("other")).await.ok(), "OK");
    assert_eq!(http.get(path).await.ok(), "other");
    assert_eq!(http.delete(path).await.ok(), "Key-value pair deleted successfully");
    assert_eq!(http.get(path).await.ok(), Value::Null);
    assert_eq!(http.delete(path).await.ok(), "Key-value pair deleted successfully");
    for nothing in ["\"\"", "null", ""] {
        http.post(path, &json!("there")).await.ok();
        assert_eq!(
            raw(&http, path, Some("application/json"), nothing).await,
            (200, json!("OK")),
            "{nothing}"
        );
        assert_eq!(http.get(path).await.ok(), Value::Null, "{nothing}");
    }
    http.post(path, &json!("there")).await.ok();
    assert_eq!(http.send("POST", path, None).await.ok(), "OK");
    assert_eq!(http.get(path).await.ok(), Value::Null);
}

#[apply(both_backends!)]
async fn a_body_that_is_no_json_is_the_value(server: Server) {
    let http = Http::admin(&server).await;
    let path = &format!("/kv/{}/key", namespace());
    for (kind, body, value) in [
        (Some("text/plain"), "plain \"text\"", "plain \"text\""),
        (Some("application/x-www-form-urlencoded"), "a=1", "a=1"),
        (None, "{\"a\":1}", "{\"a\":1}"),
        // As kernelci-core sends it: not quoted, and called JSON.
        (Some("application/json"), "v6.1-rc1", "v6.1-rc1"),
        (Some("application/json; charset=utf-8"), "\"quoted\"", "quoted"),
    ] {
        assert_eq!(raw(&http, path, kind, body).await, (200, json!("OK")), "{body}");
        assert_eq!(http.get(path).await.ok(), value, "{body}");
    }
    for (body, kind) in [
        ("5", "string_type"),
        ("{\"a\":1}", "string_type"),
        ("[]", "string_type"),
        ("true", "string_type"),
        ("{\"a\"", "json_invalid"),
        ("\"open", "json_invalid"),
    ] {
        let (status, answer) = raw(&http, path, Some("application/json"), body).await;
        assert_eq!(status, 422, "{body}");
        assert_eq!(answer["detail"][0]["type"], kind, "{answer}");
        assert_eq!(answer["detail"][0]["loc"][0], "body", "{answer}");
    }
    assert_eq!(http.get(path).await.ok(), "quoted");
}

#[apply(both_backends!)]
async fn only_active_users_have_access_and_sizes_are_bounded(server: Server) {
    let (http, anonymous) = (Http::admin(&server).await, Http::new(&server));
    let path = &format!("/kv/{}/key", namespace());
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(anonymous.send(method, path, None).await.refusal(), (401, json!("Unauthorized")));
    }
    assert_eq!(anonymous.post(path, &json!(5)).await.status, 401);
    assert_eq!(http.post(path, &json!("x".repeat(1 << 20))).await.status, 200);
    assert_eq!(http.post(path, &json!("x".repeat((1 << 20) + 1))).await.status, 422);
    assert_eq!(http.get(&format!("/kv/{}/key", "n".repeat(129))).await.status, 422);
    assert_eq!(http.get(&format!("/kv/n/{}", "k".repeat(513))).await.status, 422);
    assert_eq!(http.get("/kv/n%00/k").await.status, 422);
    assert_eq!(http.post(path, &json!("")).await.status, 200);
}

#[apply(both_backends!)]
async fn namespaces_do_not_run_into_each_other(server: Server) {
    let http = Http::admin(&server).await;
    let ns = namespace();
    http.post(&format!("/kv/{ns}:b/c"), &json!("one")).await.ok();
    http.post(&format!("/kv/{ns}/b:c"), &json!("two")).await.ok();
    assert_eq!(http.get(&format!("/kv/{ns}:b/c")).await.ok(), "one");
    assert_eq!(http.get(&format!("/kv/{ns}/b:c")).await.ok(), "two");
    http.delete(&format!("/kv/{ns}:b/c")).await.ok();
    http.delete(&format!("/kv/{ns}/b:c")).await.ok();
}

#[apply(both_backends!)]
async fn the_websocket_has_the_same(server: Server) {
    let (http, mut ws) = (Http::admin(&server).await, server.admin().await);
    let ns = namespace();
    let name = json!({"namespace": ns, "key": "k"});
    assert_eq!(
        ws.call("kv.set", json!({"namespace": ns, "key": "k", "value": "v"})).await,
        json!({"status": "OK"})
    );
    assert_eq!(http.get(&format!("/kv/{ns}/k")).await.ok(), "v");
    assert_eq!(ws.call("kv.get", name.clone()).await, json!({"value": "v"}));
    ws.call("kv.delete", name.clone()).await;
    assert_eq!(ws.call("kv.get", name.clone()).await, json!({"value": null}));
    assert_eq!(server.anonymous().await.fail("kv.get", name).await["data"]["status"], 401);
}

#[tokio::test]
async fn the_present_server_reads_what_is_written_and_the_other_way_round() {
    let server = Server::start(Backend::Production).await;
    let http = Http::admin(&server).await;
    let ns = namespace();
    let mut redis = to_redis(Some(0)).await;
    http.post(&format!("/kv/{ns}/ours"), &json!("1")).await.ok();
    let value: Option<String> =
        redis::cmd("GET").arg(format!("{ns}:ours")).query_async(&mut redis).await.expect("read");
    assert_eq!(value.as_deref(), Some("1"));
    redis::cmd("SET").arg(format!("{ns}:theirs")).arg("2").exec_async(&mut redis).await.expect("written");
    assert_eq!(http.get(&format!("/kv/{ns}/theirs")).await.ok(), "2");
    for key in ["ours", "theirs"] {
        http.delete(&format!("/kv/{ns}/{key}")).await.ok();
    }
    // The server's own keys are out of reach, where they are in the same database.
    let prefix = server.setting("REDIS_PREFIX").expect("a prefix");
    let own = format!("/kv/{prefix}/x");
    assert_ne!(http.post(&own, &json!("x")).await.status, 200, "{prefix}");
}
