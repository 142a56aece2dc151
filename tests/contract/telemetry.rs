//! Telemetry over REST (contract 7.2, 7.5).

use bson::doc;
use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, Http, Server, both_backends, services};

/// A time so many minutes ago, as the emitters write it.
fn ago(minutes: i64) -> String {
    (chrono::Utc::now() - chrono::Duration::minutes(minutes)).format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

fn result(runtime: &str, device: (&str, &str), result: &str, infra: bool, minutes: i64) -> Value {
    json!({
        "kind": "job_result", "runtime": runtime, "device_type": device.0, "device_id": device.1, "result": result,
        "is_infra_error": infra, "ts": ago(minutes), "error_type": if infra { json!("Infrastructure") } else { json!(null) },
        "error_msg": format!("{result} {minutes}"), "tree": "mainline",
    })
}

fn column(list: &Value, key: &str) -> Vec<Value> {
    list.as_array().expect("a list").iter().map(|item| item[key].clone()).collect()
}

fn keys(item: &Value) -> Vec<String> {
    item.as_object().expect("an object").keys().cloned().collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[apply(both_backends!)]
async fn records_are_added_and_listed(backend: Backend) {
    // Records of January must not be too old.
    let server = Server::start_with(backend, &[("TELEMETRY_TTL_SECONDS", "2147483647")]).await;
    let (http, anonymous) = (Http::admin(&server).await, Http::new(&server));
    let events = json!([
        {"kind": "job_result", "runtime": "lab-a", "device_type": "pi", "result": "pass", "unknown": 1, "retry": 1},
        {"kind": "runtime_error", "runtime": "lab-b", "ts": "2026-01-01T00:00:00", "is_infra_error": "yes",
         "extra": {"url": "http://x/", "deep": {"x": "y"}}, "error_msg": "no\nroute"},
        {"kind": "job_skip", "runtime": "lab-a", "ts": "2026-01-02 00:00:00+02:00"},
    ]);
    assert_eq!(http.post("/telemetry", &events).await.ok(), json!({"inserted": 3}));
    let page = anonymous.get("/telemetry").await.ok();
    assert_eq!(keys(&page), ["items", "total", "limit", "offset"]);
    assert_eq!((&page["total"], &page["limit"], &page["offset"]), (&json!(3), &json!(50), &json!(0)));
    assert_eq!(column(&page["items"], "kind"), ["job_result", "runtime_error", "job_skip"]);
    let second = &page["items"][1];
    let order = "id ts kind runtime device_type device_id job_name test_name job_id node_id tree branch arch result \
                 is_infra_error error_type error_msg retry extra";
    assert_eq!(keys(second), words(order));
    assert_eq!(second["ts"], "2026-01-01T00:00:00");
    assert_eq!(second["is_infra_error"], true);
    assert_eq!(second["extra"], json!({"url": "http://x/", "deep": {"x": "y"}}));
    assert_eq!((&second["result"], &second["retry"]), (&Value::Null, &json!(0)));
    assert_eq!(page["items"][2]["ts"], "2026-01-01T22:00:00");
    for (query, kinds, total) in [
        ("runtime=lab-a", vec!["job_result", "job_skip"], 2),
        ("runtime=lab-a&limit=1", vec!["job_result"], 2),
        ("runtime=lab-a&limit=1&offset=1", vec!["job_skip"], 2),
        ("offset=3", vec![], 3),
        ("kind=job_skip&runtime=lab-b", vec![], 0),
        ("is_infra_error=True", vec!["runtime_error"], 1),
        ("is_infra_error=false&device_type=pi", vec!["job_result"], 1),
        ("since=2026-01-01T00:00:00&until=2026-01-01T22:00:00Z", vec!["runtime_error", "job_skip"], 2),
        ("until=2026-01-01T21:59:59", vec!["runtime_error"], 1),
        ("since=2026-01-01T00:00:00.001&until=2026-01-01T21:59:59", vec![], 0),
        ("extra.deep.x=y", vec!["runtime_error"], 1),
        ("extra.deep.x=z", vec![], 0),
        ("retry=1", vec!["job_result"], 1),
    ] {
        let page = anonymous.get(&format!("/telemetry?{query}")).await.ok();
        assert_eq!(column(&page["items"], "kind"), kinds, "{query}");
        assert_eq!(page["total"], total, "{query}");
    }
    let mut ws = server.anonymous().await;
    let found = ws.call("telemetry.find", json!({"filter": {"runtime": "lab-b"}, "limit": 5})).await;
    assert_eq!(found["items"][0], *second);
}

#[apply(both_backends!)]
async fn what_is_wrong_is_told_in_the_words_of_the_contract(server: Server) {
    let (http, anonymous) = (Http::admin(&server).await, Http::new(&server));
    assert_eq!(anonymous.post("/telemetry", &json!([])).await.refusal(), (401, json!("Unauthorized")));
    assert_eq!(
        http.post("/telemetry", &json!([])).await.refusal(),
        (400, json!("Events list cannot be empty"))
    );
    let good = json!({"kind": "k", "runtime": "r"});
    let bad = http.post("/telemetry", &json!([good, {"kind": "k"}])).await;
    assert_eq!(bad.status, 400);
    let detail = bad.json["detail"].as_str().expect("text");
    let wanted = "Invalid telemetry event: 1 validation error for TelemetryEvent\nruntime\n  Field required [type=missing";
    assert!(detail.starts_with(wanted), "{detail}");
    for body in [
        json!({"kind": "k", "runtime": "r"}),
        json!("x"),
        json!(null),
        json!([good, 5]),
        json!([good, [good]]),
    ] {
        assert_eq!(http.post("/telemetry", &body).await.status, 422, "{body}");
    }
    for extra in [json!({"x": u64::MAX}), json!({"a\u{0}": 1})] {
        let refused =
            http.post("/telemetry", &json!([good, {"kind": "k", "runtime": "r", "extra": extra}])).await;
        assert_eq!(refused.status, 422, "{extra}");
        assert!(refused.text.contains("extra"), "{}", refused.text);
    }
    let many = Value::from(vec![good.clone(); 10_001]);
    assert_eq!(http.post("/telemetry", &many).await.status, 413);
    assert_eq!(http.get("/telemetry").await.ok()["total"], 0, "nothing was added");
    for (query, detail) in [
        ("telemetry?is_infra_error=1", "Bad is_infra_error value, use 'true' or 'false'"),
        ("telemetry?since=yesterday", "Invalid isoformat string: 'yesterday'"),
        ("telemetry?no.such=1", "no.such: there is no such field"),
        ("telemetry?$where=1", "$where: there is no such field"),
        ("telemetry?extra.$x=1", "extra.$x: there is no such field"),
        ("telemetry/stats", "'group_by' parameter is required"),
        ("telemetry/stats?group_by=", "'group_by' parameter is required"),
        ("telemetry/stats?group_by=foo", "Invalid group_by fields: {'foo'}"),
        ("telemetry/stats?group_by=runtime,foo", "Invalid group_by fields: {'foo'}"),
        (
            "telemetry/stats?group_by=lab&lab=a&runtime=b",
            "'lab' and 'runtime' must match when both are provided",
        ),
        ("telemetry/stats?group_by=lab&until=zz", "Invalid isoformat string: 'zz'"),
        ("telemetry/anomalies?window=7h", "Invalid window '7h'. Use: 1h, 3h, 6h, 12h, 24h, 48h"),
    ] {
        assert_eq!(anonymous.get(&format!("/{query}")).await.refusal(), (400, json!(detail)), "{query}");
    }
    for query in [
        "telemetry?limit=0",
        "telemetry?limit=x",
        "telemetry?offset=-1",
        "telemetry/anomalies?threshold=1.5",
        "telemetry/anomalies?threshold=x",
        "telemetry/anomalies?min_total=0",
        "telemetry/anomalies?scope=lab",
    ] {
        let answer = anonymous.get(&format!("/{query}")).await;
        assert_eq!(answer.status, 422, "{query}: {}", answer.text);
        assert_eq!(answer.json["detail"][0]["loc"][0], "query", "{query}");
    }
}

/// One record of a batch that is too large does not take the others with it.
#[apply(both_backends!)]
async fn of_a_large_record_long_texts_are_cut_and_the_others_are_stored(server: Server) {
    let http = Http::admin(&server).await;
    let mut events: Vec<Value> =
        (0..50).map(|n| json!({"kind": "job_result", "runtime": "lab-a", "job_id": n.to_string()})).collect();
    events[17]["error_msg"] = "x\u{0}".repeat(8500).into();
    events[17]["extra"] = json!({"n": 0.9424502837770503, "log": "short"});
    assert_eq!(http.post("/telemetry", &events.into()).await.ok(), json!({"inserted": 50}));
    let page = http.get("/telemetry?limit=50").await.ok();
    let ids: Vec<Value> = (0..50).map(|n| n.to_string().into()).collect();
    assert_eq!(column(&page["items"], "job_id"), ids);
    let large = &page["items"][17];
    let text = large["error_msg"].as_str().expect("a text");
    assert!(text.starts_with("x\u{0}x\u{0}") && text.ends_with("… (cut, of 17000 characters)"), "{text}");
    assert_eq!(large["extra"], json!({"n": 0.9424502837770503, "log": "short"}), "what is short stays whole");
}

#[apply(both_backends!)]
async fn a_record_of_the_far_future_is_of_tomorrow(server: Server) {
    let http = Http::admin(&server).await;
    let event = |ts: &str| json!({"kind": "k", "runtime": "r", "ts": ts});
    http.post("/telemetry", &json!([event("9999-12-31T00:00:00"), event(&ago(-60))])).await.ok();
    let latest = ago(-24 * 60);
    let page = http.get("/telemetry").await.ok();
    let times = column(&page["items"], "ts");
    assert!(times.iter().all(|ts| ts.as_str().is_some_and(|ts| *ts <= *latest)), "{times:?}");
    assert_eq!(http.get(&format!("/telemetry?since={}", ago(-23 * 60))).await.ok()["total"], 1, "{times:?}");
}

#[apply(both_backends!)]
async fn results_are_added_up(server: Server) {
    let http = Http::admin(&server).await;
    let mut events = Vec::new();
    for n in 0..4 {
        events.push(result("lab-a", ("pi", "pi-1"), if n == 0 { "fail" } else { "pass" }, n == 0, n));
    }
    events.push(result("lab-b", ("pc", ""), "incomplete", true, 5));
    let old = json!({"kind": "job_result", "runtime": "lab-b", "result": "skip", "ts": ago(60 * 24 * 10)});
    events.push(old);
    http.post("/telemetry", &events.into()).await.ok();
    let stats = http.get("/telemetry/stats?group_by=lab,device_type").await.ok();
    assert_eq!(
        stats,
        json!([
            {"lab": "lab-a", "device_type": "pi", "total": 4, "pass": 3, "fail": 1, "incomplete": 0, "skip": 0, "infra_error": 1},
            {"lab": "lab-b", "device_type": null, "total": 1, "pass": 0, "fail": 0, "incomplete": 0, "skip": 1, "infra_error": 0},
            {"lab": "lab-b", "device_type": "pc", "total": 1, "pass": 0, "fail": 0, "incomplete": 1, "skip": 0, "infra_error": 1},
        ])
    );
    let recent = format!("/telemetry/stats?group_by=runtime,%20lab&lab=lab-b&since={}", ago(60));
    assert_eq!(
        http.get(&recent).await.ok(),
        json!([
            {"runtime": "lab-b", "lab": "lab-b", "total": 1, "pass": 0, "fail": 0, "incomplete": 1, "skip": 0, "infra_error": 1},
        ])
    );
    let one = "/telemetry/stats?group_by=tree&runtime=lab-a&lab=lab-a&tree=mainline&kind=job_result";
    let one = http.get(one).await.ok();
    assert_eq!((one[0]["tree"].as_str(), one[0]["total"].as_u64()), (Some("mainline"), Some(4)));
    assert_eq!(http.get("/telemetry/stats?group_by=arch&tree=next").await.ok(), json!([]));
}

#[apply(both_backends!)]
async fn anomalies_stand_out(server: Server) {
    let http = Http::admin(&server).await;
    let mut events = Vec::new();
    for n in 0..4 {
        events.push(result("lab-a", ("pi", "pi-1"), if n == 3 { "pass" } else { "fail" }, false, n));
        events.push(result("lab-b", ("pc", "pc-1"), "incomplete", true, n));
        events.push(result("lab-c", ("ok", "ok-1"), "pass", false, n));
        events.push(
            json!({"kind": "runtime_error", "runtime": "lab-b", "error_type": "Timeout", "ts": ago(n)}),
        );
    }
    // Too few, and too old.
    events.push(result("lab-d", ("few", "few-1"), "fail", false, 1));
    events.extend((0..5).map(|n| result("lab-e", ("old", "old-1"), "fail", true, 7 * 60 + n)));
    events.push(json!({"kind": "job_skip", "runtime": "lab-a", "error_type": "Busy", "ts": ago(1)}));
    let mut test = result("lab-a", ("pi", ""), "fail", false, 9);
    test["kind"] = "test_result".into();
    events.push(test);
    http.post("/telemetry", &events.into()).await.ok();
    let found = http.get("/telemetry/anomalies").await.ok();
    assert_eq!(
        keys(&found),
        words("window threshold min_total scope since result_anomalies error_anomalies")
    );
    let asked = [&found["window"], &found["threshold"], &found["min_total"], &found["scope"]];
    assert_eq!(asked, [&json!("6h"), &json!(0.5), &json!(3), &json!("device_type")]);
    assert!(found["since"].as_str().unwrap().ends_with("+00:00"), "{}", found["since"]);
    let results = &found["result_anomalies"];
    assert_eq!(column(results, "runtime"), ["lab-b", "lab-a"]);
    let order = "runtime lab device_type total pass fail incomplete skip infra_error infra_rate fail_rate constant_failure \
                 constant_infra_failure last_seen latest_error_type latest_error_msg";
    assert_eq!(keys(&results[0]), words(order));
    let says = |index: usize, names: &str| {
        words(names).iter().map(|name| results[index][name].clone()).collect::<Vec<_>>()
    };
    let names =
        "infra_rate fail_rate constant_failure constant_infra_failure latest_error_type latest_error_msg";
    let worst =
        [json!(1.0), json!(1.0), json!(true), json!(true), json!("Infrastructure"), json!("incomplete 0")];
    assert_eq!(says(0, names), worst);
    // Three of four jobs and the test.
    let second = [json!(5), json!(0.8), json!(0.0), json!(false)];
    assert_eq!(says(1, "total fail_rate infra_rate constant_failure"), second);
    assert_eq!(found["error_anomalies"], json!([{"runtime": "lab-b", "error_type": "Timeout", "count": 4}]));

    let device = "/telemetry/anomalies?scope=device&threshold=0.9&min_total=1&window=48h";
    let device = http.get(device).await.ok();
    let mut devices = column(&device["result_anomalies"], "device_id");
    assert_eq!(devices.pop(), Some(json!("few-1")), "only others have infrastructure errors");
    devices.sort_by_key(Value::to_string);
    assert_eq!(devices, ["old-1", "pc-1"]);
    let errors = http.get("/telemetry/anomalies?min_total=1").await.ok();
    assert_eq!(column(&errors["error_anomalies"], "count"), [4, 1]);
}

#[tokio::test]
async fn documents_of_the_present_server_are_read() {
    let server = Server::start(Backend::Production).await;
    let client = mongodb::Client::with_uri_str(&services().mongo).await.expect("MongoDB");
    let telemetry = client
        .database(server.setting("MONGO_DB").expect("a database"))
        .collection::<bson::Document>("telemetry");
    let now = bson::DateTime::now();
    // Pages go by `_id`, which two processes give in no order within a second: this one is of an earlier one.
    let id = bson::oid::ObjectId::parse_str("650000000000000000000001").expect("an id");
    let old = doc! {
        "_id": id, "id": null, "ts": now, "kind": "job_result", "runtime": "lab-a", "device_type": "pi", "device_id": null,
        "result": "fail", "is_infra_error": true, "retry": 2_i32, "extra": {"at": now},
    };
    telemetry.insert_one(old).await.expect("inserted");
    let http = Http::admin(&server).await;
    http.post("/telemetry", &json!([{"kind": "job_result", "runtime": "lab-a", "result": "pass"}]))
        .await
        .ok();
    let page = http.get("/telemetry?runtime=lab-a").await.ok();
    assert_eq!(column(&page["items"], "retry"), [2, 0]);
    assert_eq!(page["items"][0]["id"].as_str().map(str::len), Some(24));
    assert_eq!(page["items"][0]["is_infra_error"], true);
    let stats = http.get("/telemetry/stats?group_by=device_id").await.ok();
    assert_eq!(stats[0]["total"], 2, "null and missing are the same group: {stats}");
    let ours = telemetry.find_one(doc! {"result": "pass"}).await.expect("read").expect("there");
    assert!(ours.get("id").is_none() && ours.get_datetime("ts").is_ok(), "{ours}");
    assert_eq!(ours.get_i32("retry").ok(), Some(0));
}

#[apply(both_backends!)]
async fn pages_are_as_long_as_is_asked_for(server: Server) {
    const MANY: usize = 2_345;
    let http = Http::admin(&server).await;
    let record =
        |n: usize| json!({"kind": "job_result", "runtime": "lab", "retry": n, "extra": {"half": n % 2}});
    http.post("/telemetry", &(0..MANY).map(record).collect()).await.ok();
    for (query, wanted) in [
        ("limit=1001", (0..1001).collect::<Vec<usize>>()),
        ("limit=2345", (0..MANY).collect()),
        ("limit=1000000&runtime=lab", (0..MANY).collect()),
        ("limit=1500&offset=100", (100..1600).collect()),
        ("limit=1500&offset=2000", (2000..MANY).collect()),
        ("limit=2000&since=2020-01-01", (0..2000).collect()),
        ("limit=1000&offset=1345", (1345..MANY).collect()),
        ("limit=5&offset=9000", vec![]),
    ] {
        let page = http.get(&format!("/telemetry?{query}")).await.ok();
        let found: Vec<usize> = page["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|item| item["retry"].as_u64())
            .map(|n| n as usize)
            .collect();
        assert_eq!(found, wanted, "{query}");
        assert_eq!(page["total"], MANY, "{query}");
        assert_eq!(
            page.as_object().map(|page| page.keys().map(String::as_str).collect::<Vec<_>>()),
            Some(vec!["items", "total", "limit", "offset"]),
            "{query}"
        );
    }
    for list in ["users", "user-groups", "groups"] {
        let page = http.get(&format!("/{list}?limit=10001")).await.ok();
        assert_eq!(page["limit"], 10_001, "{list}");
        assert_eq!(
            page["items"].as_array().map(Vec::len),
            page["total"].as_u64().map(|total| total as usize)
        );
    }
    // A message of a session holds one piece, and says so.
    let mut ws = server.anonymous().await;
    let page = ws.call("telemetry.find", json!({"limit": 1000, "offset": 1000})).await;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1000));
    let error = ws.fail("telemetry.find", json!({"limit": 1001})).await;
    assert_eq!(error["data"]["status"], 413, "{error}");
    assert_eq!(
        ws.call("telemetry.find", json!({"limit": 2000, "offset": 1400})).await["items"]
            .as_array()
            .map(Vec::len),
        Some(MANY - 1400)
    );
}

#[apply(both_backends!)]
async fn sums_that_are_cut_say_so(server: Server) {
    let http = Http::admin(&server).await;
    let record = |n: usize| json!({"kind": "job_result", "runtime": "lab", "device_id": n.to_string()});
    let sums = async || {
        let sums = http.get("/telemetry/stats?group_by=device_id").await;
        let said = sums.headers.get("x-total-truncated").is_some_and(|said| said == "true");
        (sums.ok().as_array().map(Vec::len), said)
    };
    http.post("/telemetry", &(0..9_999).map(record).collect()).await.ok();
    assert_eq!(sums().await, (Some(9_999), false));
    http.post("/telemetry", &(9_999..10_002).map(record).collect()).await.ok();
    assert_eq!(sums().await, (Some(10_000), true));
    let cut = server.anonymous().await.call("telemetry.stats", json!({"group_by": "device_id"})).await;
    assert_eq!(cut["truncated"], true);
}
