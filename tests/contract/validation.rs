//! Bodies of 422 and the order of checks (contract 1.5): golden items, row by row.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Http, Server, answer, both_backends, node};

/// The items of a 422.
async fn items(http: &Http, method: &str, path: &str, body: Option<Value>) -> Value {
    let mut refused = http.send(method, path, body.as_ref()).await;
    assert_eq!(refused.status, 422, "{method} {path} {body:?}: {}", refused.text);
    assert_eq!(refused.json.as_object().map(serde_json::Map::len), Some(1), "{}", refused.text);
    refused.json["detail"].take()
}

fn with(field: &str, value: Value) -> Value {
    let mut node = node("kbuild", "a");
    node[field] = value;
    node
}

#[apply(both_backends!)]
async fn fields_of_nodes(server: Server) {
    let http = Http::admin(&server).await;
    let post = async |body: Value| items(&http, "POST", "/node", Some(body)).await;

    let body = json!({"kind": "checkout"});
    assert_eq!(
        post(body.clone()).await,
        json!([
            {"type": "missing", "loc": ["body", "name"], "msg": "Field required", "input": body},
            {"type": "missing", "loc": ["body", "path"], "msg": "Field required", "input": body},
        ])
    );
    let states = "'running', 'available', 'closing' or 'done'";
    for (field, value, kind, msg, ctx) in [
        ("name", json!(5), "string_type", "Input should be a valid string", None),
        ("path", json!("a"), "list_type", "Input should be a valid list", None),
        ("data", json!([]), "dict_type", "Input should be a valid dictionary", None),
        ("retry_counter", json!("1"), "int_type", "Input should be a valid integer", None),
        ("retry_counter", json!(1.0), "int_type", "Input should be a valid integer", None),
        ("retry_counter", json!(true), "int_type", "Input should be a valid integer", None),
        (
            "state",
            json!("ended"),
            "enum",
            &format!("Input should be {states}"),
            Some(json!({"expected": states})),
        ),
        (
            "result",
            json!("ok"),
            "enum",
            "Input should be 'pass', 'fail', 'skip' or 'incomplete'",
            Some(json!({"expected": "'pass', 'fail', 'skip' or 'incomplete'"})),
        ),
        (
            "processed_by_kcidb_bridge",
            json!("maybe"),
            "bool_parsing",
            "Input should be a valid boolean, unable to interpret input",
            None,
        ),
        (
            "user_groups",
            json!(["a", "a"]),
            "value_error",
            "Value error, Groups must have unique names.",
            Some(json!({"error": {}})),
        ),
        (
            "timeout",
            json!("soon"),
            "datetime_from_date_parsing",
            "Input should be a valid datetime or date, input is too short",
            Some(json!({"error": "input is too short"})),
        ),
        ("timeout", json!(null), "datetime_type", "Input should be a valid datetime", None),
        ("created", json!([]), "datetime_type", "Input should be a valid datetime", None),
    ] {
        let mut item = json!({"type": kind, "loc": ["body", field], "msg": msg, "input": value});
        if let Some(ctx) = ctx {
            item["ctx"] = ctx;
        }
        assert_eq!(post(with(field, value)).await, json!([item]), "{field}");
    }
}

#[apply(both_backends!)]
async fn ids_and_urls_of_nodes(server: Server) {
    let http = Http::admin(&server).await;
    let post =
        async |field: &str, value: Value| items(&http, "POST", "/node", Some(with(field, value))).await;
    for field in ["parent", "id", "_id"] {
        assert_eq!(
            post(field, json!("zz")).await,
            json!([
                {"type": "is_instance_of", "loc": ["body", field, "is-instance[ObjectId]"],
                 "msg": "Input should be an instance of ObjectId", "input": "zz", "ctx": {"class": "ObjectId"}},
                {"type": "value_error", "loc": ["body", field, "chain[str,function-plain[validate()]]"],
                 "msg": "Value error, Invalid ObjectId: zz", "input": "zz", "ctx": {"error": {}}},
            ])
        );
    }
    let url = async |text: &str| {
        let items = post("artifacts", json!({"log": text})).await;
        assert_eq!(items[0]["loc"], json!(["body", "artifacts", "log"]));
        (items[0]["type"].clone(), items[0]["msg"].clone())
    };
    let scheme = ("url_scheme".into(), "URL scheme should be 'http' or 'https'".into());
    assert_eq!(url("ftp://x/y").await, scheme);
    let reason = "Input should be a valid URL, relative URL without a base";
    assert_eq!(url("x/y").await, ("url_parsing".into(), reason.into()));
    assert_eq!(
        url("http://").await,
        ("url_parsing".into(), "Input should be a valid URL, empty host".into())
    );
}

#[apply(both_backends!)]
async fn bodies_as_a_whole(server: Server) {
    let http = Http::admin(&server).await;
    let made = http.post("/node", &node("checkout", "a")).await.ok();
    let id = made["id"].as_str().expect("an id");
    for (method, path) in [
        ("POST", "/node".to_owned()),
        ("PUT", format!("/node/{id}")),
        ("PATCH", format!("/node/{id}")),
        ("PUT", format!("/nodes/{id}")),
        ("PUT", "/batch/nodeset".into()),
    ] {
        let missing = json!([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}]);
        assert_eq!(items(&http, method, &path, None).await, missing, "{method} {path}");
        assert_eq!(items(&http, method, &path, Some(json!(null))).await, missing, "{method} {path}");
        for body in [json!([]), json!("x"), json!(5)] {
            let msg = "Input should be a valid dictionary or object to extract fields from";
            let item = json!([{"type": "model_attributes_type", "loc": ["body"], "msg": msg, "input": body}]);
            assert_eq!(items(&http, method, &path, Some(body)).await, item, "{method} {path}");
        }
        for (text, at, reason) in [
            ("{\"a\":", 5, "Expecting value"),
            ("{\"a\" 1}", 5, "Expecting ':' delimiter"),
            ("nope", 0, "Expecting value"),
            ("{} x", 3, "Extra data"),
        ] {
            let refused =
                answer(http.request(method, &path).header("content-type", "application/json").body(text))
                    .await;
            let item = json!({"type": "json_invalid", "loc": ["body", at], "msg": "JSON decode error", "input": {},
                "ctx": {"error": reason}});
            assert_eq!(refused.refusal(), (422, json!([item])), "{method} {path} {text}");
        }
    }
    assert_eq!(http.get(&format!("/node/{id}")).await.ok()["name"], "a");
}

/// The reference refuses it (contract 12.1.14); being lenient is safe.
#[apply(both_backends!)]
async fn json_needs_no_content_type(server: Server) {
    let http = Http::admin(&server).await;
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut request = http.request("POST", "/node").body(node("checkout", "a").to_string());
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        assert_eq!(answer(request).await.ok()["name"], "a", "{kind:?}");
    }
}

#[apply(both_backends!)]
async fn parameters_of_queries(server: Server) {
    let http = Http::admin(&server).await;
    let of_limit = async |text: &str| items(&http, "GET", &format!("/nodes?limit={text}"), None).await;
    let msg = "Input should be a valid integer, unable to parse string as an integer";
    let item = json!([{"type": "int_parsing", "loc": ["query", "limit"], "msg": msg, "input": "abc"}]);
    assert_eq!(of_limit("abc").await, item);
    let msg = "Input should be greater than or equal to 1";
    let item = json!([{"type": "greater_than_equal", "loc": ["query", "limit"], "msg": msg, "input": "0", "ctx": {"ge": 1}}]);
    assert_eq!(of_limit("0").await, item);
    let msg = "Input should be greater than or equal to 0";
    let item = json!([{"type": "greater_than_equal", "loc": ["query", "offset"], "msg": msg, "input": "-1", "ctx": {"ge": 0}}]);
    assert_eq!(items(&http, "GET", "/nodes?offset=-1", None).await, item);
    let made = http.post("/node", &node("checkout", "a")).await.ok();
    let path = format!("/node/{}?noevent=perhaps", made["id"].as_str().expect("an id"));
    let msg = "Input should be a valid boolean, unable to interpret input";
    let item = json!([{"type": "bool_parsing", "loc": ["query", "noevent"], "msg": msg, "input": "perhaps"}]);
    assert_eq!(items(&http, "PUT", &path, Some(made)).await, item);
}

/// As it was sent, with what the server does not know and without what it adds, renames or reads of a text.
#[apply(both_backends!)]
async fn inputs_are_what_was_sent(server: Server) {
    let http = Http::admin(&server).await;
    let inputs = async |method: &str, path: &str, body: Option<Value>| -> Vec<Value> {
        let items = items(&http, method, path, body).await;
        items.as_array().expect("a list").iter().map(|item| item["input"].clone()).collect()
    };
    let put = async |body: Value| inputs("PUT", "/batch/nodeset", Some(body)).await;
    assert_eq!(put(json!({})).await, vec![json!({}); 3]);
    let some = json!({"nodes": ["x"], "extra": {"a": 1}});
    assert_eq!(put(some.clone()).await, vec![some; 2]);
    assert_eq!(put(json!({"nodes": "x", "field": "f", "value": "v"})).await, ["x"]);
    let flag = json!({"nodes": ["x"], "field": "f", "value": true});
    assert_eq!(put(flag).await, [json!(true)]);

    for (query, item) in [
        (
            "threshold=2",
            json!({"type": "less_than_equal", "loc": ["query", "threshold"], "input": "2",
                "msg": "Input should be less than or equal to 1", "ctx": {"le": 1.0}}),
        ),
        (
            "threshold=-0.50",
            json!({"type": "greater_than_equal", "loc": ["query", "threshold"], "input": "-0.50",
                "msg": "Input should be greater than or equal to 0", "ctx": {"ge": 0.0}}),
        ),
        (
            "min_total=%2B0",
            json!({"type": "greater_than_equal", "loc": ["query", "min_total"], "input": "+0",
                "msg": "Input should be greater than or equal to 1", "ctx": {"ge": 1}}),
        ),
    ] {
        let got = items(&http, "GET", &format!("/telemetry/anomalies?{query}"), None).await;
        assert_eq!(got, json!([item]), "{query}");
    }

    let invite = async |body: Value| inputs("POST", "/user/invite", Some(body)).await;
    assert_eq!(invite(json!({"username": "ann", "email": "nonsense"})).await, ["nonsense"]);
    assert_eq!(invite(json!({"email": " b "})).await, [json!({"email": " b "})]);
    assert_eq!(invite(json!({"email": "b", "password": "hidden"})).await, [json!({"email": "b"})]);
    let groups = json!(["g", "g"]);
    let body = json!({"username": "ann", "email": "ann@example.org", "groups": groups});
    assert_eq!(invite(body).await, [groups]);
    // What is read on the way to what is wrong stays as it was.
    assert_eq!(invite(json!({"is_superuser": "yes"})).await, vec![json!({"is_superuser": "yes"}); 2]);
    assert_eq!(inputs("PATCH", "/user/me", Some(json!({"email": "@x"}))).await, ["@x"]);
    assert_eq!(inputs("POST", "/user/forgot-password", Some(json!({"email": "a@"}))).await, ["a@"]);

    assert_eq!(inputs("POST", "/telemetry", Some(json!({"a": 1}))).await, [json!({"a": 1})]);
    assert_eq!(inputs("POST", "/telemetry", Some(json!([[1]]))).await, [json!([1])]);
    let publish = async |body: Value| inputs("POST", "/publish/lab", Some(body)).await;
    for nothing in [json!(null), json!(""), json!([]), json!(0), json!({})] {
        assert_eq!(publish(json!({"data": nothing})).await, [nothing]);
    }
    assert_eq!(publish(json!({"data": 1, "attributes": 5})).await, [json!(5)]);
    assert_eq!(publish(json!({"data": 1, "attributes": {"a": [7]}})).await, [json!([7])]);
    let login = http.form("/user/login", &[("password", "secret"), ("scope", "1")]).await;
    assert_eq!(login.json["detail"][0]["input"], json!({"scope": "1"}));
}

#[apply(both_backends!)]
async fn the_order_of_checks(server: Server) {
    let admin = Http::admin(&server).await;
    let nobody = Http::new(&server);
    let made = admin.post("/node", &node("checkout", "a")).await.ok();
    let path = format!("/latest/node/{}", made["id"].as_str().expect("an id"));
    let unauthorized = (401, json!("Unauthorized"));
    // The syntax of the body, before anybody asks who it is.
    let broken = |http: &Http, path: &str| answer(http.request("PUT", path).body("{"));
    assert_eq!(broken(&nobody, &path).await.status, 422);
    assert_eq!(broken(&admin, "/node/zz").await.status, 422);
    // Who it is, before what the rest says.
    for (path, body) in [(&*path, json!({})), ("/node/zz", json!({})), ("/node/zz?noevent=x", json!([]))] {
        assert_eq!(nobody.put(path, &body).await.refusal(), unauthorized, "{path}");
    }
    // The node, before the fields of the body.
    assert_eq!(admin.put("/node/zz", &json!({})).await.status, 400);
    let missing = (404, json!("Node not found with id: 000000000000000000000000"));
    assert_eq!(admin.put("/node/000000000000000000000000", &json!({})).await.refusal(), missing);
    assert_eq!(
        admin.patch("/node/000000000000000000000000", &json!({"state": "x"})).await.refusal(),
        missing
    );
    assert_eq!(admin.put("/nodes/000000000000000000000000", &json!({})).await.refusal(), missing);
    // The fields, before the rules.
    let body = json!({"kind": "nope", "name": 5, "path": []});
    assert_eq!(admin.put(&path, &body).await.status, 422);
}

/// More mistakes than anybody reads: the first of them and their number, on every transport.
#[apply(both_backends!)]
async fn ten_thousand_mistakes_are_told_in_short(server: Server) {
    const MANY: usize = 10_000;
    let http = Http::admin(&server).await;
    let mut session = server.admin().await;
    let made = http.post("/node", &node("checkout", "a")).await.ok();
    let id = made["id"].as_str().expect("an id");
    let bad = Value::from(vec![1; MANY]);
    let object = |key: &str, value: &str| -> Value {
        (0..MANY).map(|n| (format!("{key}{n}"), json!(value))).collect::<serde_json::Map<_, _>>().into()
    };
    let (urls, keys) = (json!({"artifacts": object("a", "x")}), with("data", object("$", "")));
    let (list, tree) =
        (with("jobfilter", bad.clone()), json!({"node": node("checkout", "a"), "child_nodes": bad}));
    let (set, marks) = (json!({"jobfilter": bad}), json!({"field": "x", "value": "true"}));
    let beside = |mut params: Value, name: &str, value: &Value| {
        params[name] = value.clone();
        params
    };
    let token = json!({"name": "n", "scope": bad});
    for (rest, body, method, params) in [
        ("POST /node", &list, "node.create", json!({"node": list})),
        ("POST /node", &keys, "node.create", json!({"node": keys})),
        ("PUT /node/$id", &list, "node.replace", json!({"id": id, "node": list})),
        ("PATCH /node/$id", &set, "node.update", json!({"id": id, "set": set})),
        ("PATCH /node/$id", &urls, "node.update", json!({"id": id, "set": urls})),
        ("PUT /nodes/$id", &tree, "node.submit", json!({"id": id, "tree": tree})),
        (
            "PUT /batch/nodeset",
            &beside(marks.clone(), "nodes", &bad),
            "node.mark",
            beside(marks, "ids", &bad),
        ),
        ("POST /telemetry", &bad, "telemetry.add", json!({"events": bad})),
        ("POST /user/tokens", &token, "token.create", token.clone()),
    ] {
        let (verb, path) = rest.split_once(' ').expect("a method and a path");
        let of_rest = http.send(verb, &path.replace("$id", id), Some(body)).await;
        assert!((400..=422).contains(&of_rest.status), "{rest}: {}", of_rest.text);
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let of_rpc = http.post("/rpc", &call).await.ok()["error"]["data"].take();
        let of_session = session.fail(method, params).await["data"].take();
        assert_eq!(of_rpc["detail"], of_session["detail"], "{method}");
        for detail in [&of_rest.json["detail"], &of_rpc["detail"]] {
            let text = detail.to_string();
            assert!(text.len() < 6_000, "{rest}, {method}: {} bytes: {text:.1000}", text.len());
            let Some(items) = detail.as_array().filter(|items| items.len() > 1) else { continue };
            assert_eq!(items.len(), 21, "{detail}");
            let more = MANY - 20;
            assert_eq!(
                items[20],
                json!({"type": "more_errors", "loc": ["body"], "msg": format!("{more} more errors"), "input": null,
                    "ctx": {"count": more}})
            );
        }
    }
    // 400 is a text.
    let told = http.patch(&format!("/node/{id}"), &urls).await;
    let told = told.json["detail"].as_str().expect("a text");
    assert!(told.starts_with("10000 validation errors for Checkout\nartifacts.a0\n"), "{told}");
    assert!(told.ends_with("\n9980 more errors"), "{told}");
}
