//! The same request over REST and over the WebSocket: the same status, detail and result, on both back ends.
//!
//! Each subject has a table of [`Case`]s and a test that runs it; `$name` in paths, bodies and parameters stands for
//! what the test has prepared. A case runs once on each transport, so one that writes writes twice; ids and dates
//! of what is new differ and are not compared.

use std::collections::HashMap;

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Answer, Http, Raw, Server, both_backends, node};

/// One request in its two forms.
pub(crate) struct Case {
    rest: (&'static str, &'static str, Value),
    ws: (&'static str, Value),
    status: u16,
    member: Option<&'static str>,
    or_null: bool,
    by_nobody: bool,
}

/// `rest` is method and path, perhaps with a body behind ([`Case::body`]); `method` and `params` what the WebSocket
/// sends.
pub(crate) fn case(rest: &'static str, method: &'static str, params: Value) -> Case {
    let rest = rest.split_once(' ').expect("a method and a path");
    Case {
        rest: (rest.0, rest.1, Value::Null),
        ws: (method, params),
        status: 200,
        member: None,
        or_null: false,
        by_nobody: false,
    }
}

impl Case {
    /// The JSON body of the REST request.
    pub(crate) fn body(mut self, body: Value) -> Case {
        self.rest.2 = body;
        self
    }
    /// The status that both must have; 200 if nothing else is said.
    pub(crate) fn status(self, status: u16) -> Case {
        Case { status, ..self }
    }
    /// REST answers this member of the result.
    pub(crate) fn member(self, name: &'static str) -> Case {
        Case { member: Some(name), ..self }
    }
    /// REST answers 200 `null` where the WebSocket says 404.
    pub(crate) fn or_null(self) -> Case {
        Case { or_null: true, status: 404, ..self }
    }
    /// Without a token.
    pub(crate) fn by_nobody(self) -> Case {
        Case { by_nobody: true, ..self }
    }

    fn filled(&self, known: &HashMap<&str, String>) -> Case {
        let fill = |text: &str| {
            known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
        };
        let value = |value: &Value| serde_json::from_str(&fill(&value.to_string())).expect("JSON");
        let path: &'static str = fill(self.rest.1).leak();
        Case { rest: (self.rest.0, path, value(&self.rest.2)), ws: (self.ws.0, value(&self.ws.1)), ..*self }
    }
}

/// Runs the cases as `admin` (or as nobody) and compares.
pub(crate) async fn same(server: &Server, cases: &[Case], known: &[(&str, &Value)]) {
    let known: HashMap<&str, String> =
        known.iter().map(|(name, value)| (*name, value.as_str().expect("text").to_owned())).collect();
    let (admin, nobody) = (Http::admin(server).await, Http::new(server));
    let (mut admins, mut nobodys) = (server.admin().await, server.anonymous().await);
    for case in cases {
        let case = case.filled(&known);
        let (http, raw) = if case.by_nobody { (&nobody, &mut nobodys) } else { (&admin, &mut admins) };
        compare(&case, http, raw).await;
    }
}

async fn compare(case: &Case, http: &Http, raw: &mut Raw) {
    let (verb, path, body) = &case.rest;
    let shown = format!("{verb} {path} {body} / {} {}", case.ws.0, case.ws.1);
    let rest: Answer = http.send(verb, path, (!body.is_null()).then_some(body)).await;
    let mut ws = raw.request(case.ws.0, case.ws.1.clone()).await;
    let status = ws["error"]["data"]["status"].as_u64().unwrap_or(200);
    assert_eq!(status, u64::from(case.status), "{shown}: {ws}");
    if case.or_null {
        return assert_eq!((rest.status, &*rest.text), (200, "null"), "{shown}");
    }
    assert_eq!(rest.status, case.status, "{shown}: {}", rest.text);
    if case.status < 300 {
        let mut result = ws["result"].take();
        if let Some(member) = case.member {
            result = result[member].take();
        }
        assert_eq!(plain(rest.json), plain(result), "{shown}");
        return;
    }
    let (said, detail) = (&rest.json["detail"], &ws["error"]["data"]["detail"]);
    match (said, detail) {
        // REST tells about parameters in FastAPI's form, the WebSocket in a sentence: the same one is named.
        (Value::Array(items), Value::String(text)) if case.status == 422 => {
            let named = items.iter().filter_map(|item| item["loc"].as_array()).flatten();
            let mut named =
                named.filter_map(Value::as_str).filter(|step| !["body", "query", "path"].contains(step));
            let whole = items.iter().all(|item| item["loc"].as_array().is_some_and(|loc| loc.len() == 1));
            assert!(whole || named.any(|step| text.contains(step)), "{shown}: {said} / {detail}");
        }
        _ => assert_eq!(said, detail, "{shown}"),
    }
}

/// Without what REST leaves out, and without what is new every time.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(key, _)| key != "revision");
            members.map(|(key, value)| (key, plain(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::String(text) if text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            "(an id)".into()
        }
        Value::String(text) if text.starts_with("20") && text.as_bytes().get(10) == Some(&b'T') => {
            "(a date)".into()
        }
        other => other,
    }
}

/// Contract 3 and 4.
fn nodes() -> Vec<Case> {
    let nowhere = "000000000000000000000000";
    let test = json!({"kind": "test", "name": "t", "path": ["t"]});
    let tree = json!({"node": {"kind": "job", "name": "job", "path": ["job"]}, "child_nodes": [{"node": test, "child_nodes": []}]});
    let bad_tree = json!({"node": {"kind": "job", "name": "job", "path": ["job"]}, "child_nodes": [{"node": {"kind": "nope", "name": "x", "path": []}, "child_nodes": []}]});
    vec![
        case("GET /node/$job", "node.get", json!({"id": "$job"})),
        case("GET /node/000000000000000000000000", "node.get", json!({"id": nowhere})).or_null(),
        case("GET /node/xyz", "node.get", json!({"id": "xyz"})).status(400),
        case("GET /nodes", "node.page", json!({})),
        case(
            "GET /nodes?kind=job&limit=1&offset=0",
            "node.page",
            json!({"filter": {"kind": "job"}, "limit": 1, "offset": 0}),
        ),
        case(
            "GET /nodes?data.arch=arm&result=null",
            "node.page",
            json!({"filter": {"data.arch": "arm", "result": null}}),
        ),
        case("GET /nodes?data.arch=arm", "node.page", json!({"filter": "data.arch=arm"})),
        case("GET /nodes?limit=0", "node.page", json!({"limit": 0})).status(422),
        case("GET /nodes?limit=x", "node.page", json!({"limit": "x"})).status(422),
        case("GET /nodes?offset=-1", "node.page", json!({"offset": -1})).status(422),
        case("GET /nodes?created__gt=zz", "node.page", json!({"filter": {"created__gt": "zz"}})).status(400),
        case(
            "GET /nodes/fast?kind__in=job,kbuild",
            "node.list",
            json!({"filter": {"kind__in": ["job", "kbuild"]}}),
        )
        .member("items"),
        case("GET /nodes/fast?limit=-1&offset=1", "node.list", json!({"limit": -1, "offset": 1}))
            .member("items"),
        case("GET /nodes/fast?limit=x", "node.list", json!({"limit": "x"})).status(400),
        case("GET /nodes/fast?offset=-1", "node.list", json!({"offset": -1})).status(400),
        case("GET /count", "node.count", json!({})).member("count"),
        case("GET /count?kind=job", "node.count", json!({"filter": {"kind": "job"}})).member("count"),
        case("GET /count?parent=zz", "node.count", json!({"filter": {"parent": "zz"}})).status(400),
        case("POST /node", "node.create", json!({"node": test})).body(test.clone()),
        case("POST /node", "node.create", json!({"node": {"kind": "nope", "name": "x", "path": []}}))
            .body(json!({"kind": "nope", "name": "x", "path": []}))
            .status(400),
        case("POST /node", "node.create", json!({"node": {"kind": "job"}}))
            .body(json!({"kind": "job"}))
            .status(422),
        case("POST /node", "node.create", json!({"node": []})).body(json!([])).status(422),
        case("POST /node", "node.create", json!({"node": null})).status(422),
        case("POST /node", "node.create", json!({"node": test})).body(test.clone()).by_nobody().status(401),
        case("PUT /node/$job", "node.replace", json!({"id": "$job", "node": test})).body(test.clone()),
        case("PUT /node/$done", "node.replace", json!({"id": "$done", "node": test}))
            .body(test.clone())
            .status(400),
        case("PUT /node/000000000000000000000000", "node.replace", json!({"id": nowhere, "node": test}))
            .body(test.clone())
            .status(404),
        case("PUT /node/zz", "node.replace", json!({"id": "zz", "node": test}))
            .body(test.clone())
            .status(400),
        case("PUT /node/$job?noevent=x", "node.replace", json!({"id": "$job", "node": test, "noevent": "x"}))
            .body(test.clone())
            .status(422),
        case(
            "PATCH /node/$job?noevent=true",
            "node.update",
            json!({"id": "$job", "set": {"debug": {"a": 1}}, "noevent": true}),
        )
        .body(json!({"debug": {"a": 1}})),
        case("PATCH /node/$done", "node.update", json!({"id": "$done", "set": {"state": "running"}}))
            .body(json!({"state": "running"}))
            .status(400),
        case(
            "PATCH /node/$job",
            "node.update",
            json!({"id": "$job", "set": {"x": 1}, "ignore_others": true}),
        )
        .body(json!({"x": 1}))
        .status(400),
        case("PATCH /node/$job", "node.update", json!({"id": "$job", "set": {"state": "ended"}}))
            .body(json!({"state": "ended"}))
            .status(422),
        case("PATCH /node/$job", "node.update", json!({"id": "$job", "set": []})).body(json!([])).status(422),
        case("PUT /nodes/$job", "node.submit", json!({"id": "$job", "tree": tree}))
            .body(tree.clone())
            .member("nodes"),
        case(
            "PUT /nodes/$job?events=each",
            "node.submit",
            json!({"id": "$job", "tree": tree, "events": "each"}),
        )
        .body(tree.clone())
        .member("nodes"),
        case(
            "PUT /nodes/$job?events=some",
            "node.submit",
            json!({"id": "$job", "tree": tree, "events": "some"}),
        )
        .body(tree.clone())
        .status(422),
        case("PUT /nodes/$job", "node.submit", json!({"id": "$job", "tree": bad_tree}))
            .body(bad_tree)
            .status(400),
        case("PUT /nodes/$job", "node.submit", json!({"id": "$job", "tree": {}})).body(json!({})).status(422),
        case("PUT /nodes/$job", "node.submit", json!({"id": "$job", "tree": tree}))
            .body(tree)
            .by_nobody()
            .status(401),
        case(
            "PUT /batch/nodeset",
            "node.mark",
            json!({"ids": ["$job"], "field": "processed_by_kcidb_bridge", "value": "True"}),
        )
        .body(json!({"nodes": ["$job"], "field": "processed_by_kcidb_bridge", "value": "True"}))
        .member("updated"),
        case("PUT /batch/nodeset", "node.mark", json!({"ids": ["$job"], "field": "state", "value": "done"}))
            .body(json!({"nodes": ["$job"], "field": "state", "value": "done"}))
            .status(400),
        case(
            "PUT /batch/nodeset",
            "node.mark",
            json!({"ids": [nowhere], "field": "processed_by_kcidb_bridge", "value": "true"}),
        )
        .body(json!({"nodes": [nowhere], "field": "processed_by_kcidb_bridge", "value": "true"}))
        .status(404),
        case("PUT /batch/nodeset", "node.mark", json!({"ids": [], "field": 5, "value": "done"}))
            .body(json!({"nodes": [], "field": 5, "value": "done"}))
            .status(422),
    ]
}

#[apply(both_backends!)]
async fn nodes_are_the_same_on_both(server: Server) {
    let http = Http::admin(&server).await;
    let mut job = node("job", "job");
    job["data"] = json!({"arch": "arm"});
    let job = http.post("/node", &job).await.ok();
    let mut done = node("kbuild", "done");
    done["state"] = "done".into();
    let done = http.post("/node", &done).await.ok();
    same(&server, &nodes(), &[("job", &job["id"]), ("done", &done["id"])]).await;
}
