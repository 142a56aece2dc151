//! Values come back as they were sent: in answers, in reads, in events as they happen and as they are kept.

use macro_rules_attribute::apply;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::nodes::{but, get, id, post};
use crate::support::{Backend, Http, Server, answer, both_backends, node, until};

/// What is stored of the node's last event, as `/events` shows it.
async fn last_event(http: &Http, node: &Value, state: &str) -> Value {
    let path = format!("/events?node_id={}&state={state}", id(node));
    until("the event is in the history", async || {
        let events = http.get(&path).await.ok();
        events.as_array().and_then(|events| events.last().cloned()).ok_or(events)
    })
    .await
}

#[apply(both_backends!)]
async fn a_nul_in_a_value_is_stored_as_sent_and_found(server: Server) {
    let http = Http::admin(&server).await;
    let mut raw = server.admin().await;
    let text = "panic\u{0}\u{0}at 0x0\u{0}";
    let filter = json!({"data.data.error_msg": text});
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node", "filter": filter})).await;
    let job =
        post(&http, &but(&node("job", "j"), json!({"data": {"error_msg": text}, "treeid": "t\u{0}"}))).await;
    assert_eq!((&job["data"]["error_msg"], &job["treeid"]), (&json!(text), &json!("t\u{0}")));
    assert_eq!(get(&http, &job).await, job);
    assert_eq!(raw.event(1).await["event"]["data"]["data"]["error_msg"], text);
    assert_eq!(last_event(&http, &job, "running").await["data"]["data"]["error_msg"], text);

    // One of thirty tests.
    let child = |n: usize| {
        let msg = if n == 17 { text } else { "panic" };
        json!({"node": but(&node("test", &format!("t{n}\u{0}")), json!({"data": {"error_msg": msg}})), "child_nodes": []})
    };
    let tree = json!({"node": but(&job, json!({"state": "done"})), "child_nodes": (0..30).map(child).collect::<Vec<_>>()});
    let written = http.put(&format!("/nodes/{}", id(&job)), &tree).await.ok();
    assert_eq!(get(&http, &written[18]).await["data"]["error_msg"], text);
    let changed =
        http.patch(&format!("/node/{}", id(&written[3])), &json!({"debug": {"n": text}})).await.ok();
    assert_eq!(get(&http, &changed).await["debug"]["n"], text);

    for (query, count) in [
        ("data.error_msg=panic%00%00at%200x0%00", 2),
        ("data.error_msg=panic", 29),
        ("data.error_msg=panic%00", 0),
        ("data.error_msg__re=c%00%00at", 2),
        ("data.error_msg__re=c.%7B2%7Dat", 2),
        ("data.error_msg__gt=panic%00%00", 2),
        ("data.error_msg__in=x,panic%00%00at%200x0%00", 2),
        ("name=t5%00", 1),
        ("name__re=%00$", 30),
    ] {
        assert_eq!(http.get(&format!("/count?{query}")).await.ok(), count, "{query}");
    }
    let found = raw.call("node.count", json!({"filter": {"data.error_msg": text}})).await;
    assert_eq!(found["count"], 2);
    for body in [
        json!({"data": {"a\u{0}b": 1}}),
        json!({"debug": {"l": [{"\u{0}": 1}]}}),
        json!({"artifacts": {"\u{0}": "http://x/"}}),
    ] {
        let refused = http.post("/node", &but(&node("job", "j"), body)).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        assert!(refused.text.contains("keys must not contain NUL"), "{}", refused.text);
    }
}

#[apply(both_backends!)]
async fn long_names_long_paths_and_large_doubles_are_taken(server: Server) {
    let http = Http::admin(&server).await;
    let long = "é".repeat(5000);
    let body = but(
        &node("job", &long),
        json!({"path": vec!["p"; 1000], "group": long, "treeid": long, "submitter": long, "jobfilter": vec![&long; 3],
            "artifacts": (0..10_001).map(|n| (format!("a{n}"), json!("http://x/"))).collect::<serde_json::Map<_, _>>(),
            "data": {"n": [9.3e18, -1e19, 1e300, -1.7976931348623157e308]}}),
    );
    let made = post(&http, &body).await;
    for field in ["name", "path", "group", "treeid", "submitter", "jobfilter", "artifacts", "data"] {
        assert_eq!(made[field], body[field]);
    }
    let read = get(&http, &made).await;
    let done = http.put(&format!("/node/{}", id(&made)), &but(&read, json!({"state": "done"}))).await.ok();
    assert_eq!(done, but(&read, json!({"state": "done", "updated": done["updated"]})));
    assert_eq!(last_event(&http, &made, "done").await["data"]["name"], json!(long));
    let mut session = server.admin().await;
    assert_eq!(
        session.call("node.count", json!({"filter": {"data.n": 1e300, "name": long}})).await["count"],
        1
    );
}

/// Numbers with what is special about them, and others of any bits.
fn numbers(count: usize) -> Vec<Value> {
    let mut random = StdRng::seed_from_u64(31);
    let mut numbers =
        vec![json!(0.942_450_283_777_050_3), json!(1_796_223_835.051_461_5), json!(-0.0), json!(0)];
    for edge in [i64::MIN, i64::MAX, i32::MIN.into(), i32::MAX.into(), 1 << 53, -(1 << 53), 0] {
        numbers.extend((-2..=2).filter_map(|by| edge.checked_add(by)).map(Value::from));
        numbers.extend(
            (-2..=2).map(|by| json!(f64::from_bits((edge as f64).to_bits().wrapping_add_signed(by)))),
        );
    }
    for edge in [f64::MAX, f64::MIN_POSITIVE, f64::EPSILON, 1e15, 1e16, 1e17, 1e21, 1e22, 1e23, 0.1, 0.3, 1.0]
    {
        for by in -2..=2 {
            let near = f64::from_bits(edge.to_bits().wrapping_add_signed(by));
            numbers.extend([json!(near), json!(-near)]);
        }
    }
    numbers.retain(|number| !number.is_null());
    while numbers.len() < count {
        let bits: u64 = random.random();
        numbers.push(match random.random_range(0..4) {
            0 => json!(f64::from_bits(bits)),
            1 => json!(random.random::<f64>() * 10f64.powi(random.random_range(-20..20))),
            2 => json!((bits >> random.random_range(0..64)).cast_signed()),
            // As clocks give them.
            _ => json!((1.7e9 + (bits % 200_000_000) as f64) + random.random::<f64>()),
        });
        if numbers.last().is_some_and(Value::is_null) {
            // No number, or infinite.
            numbers.pop();
        }
    }
    numbers
}

/// Bit for bit, and of the same kind.
#[track_caller]
fn same(found: &Value, sent: &[Value], where_from: &str) {
    let found = found.as_array().unwrap_or_else(|| panic!("{where_from}: a list, not {found}"));
    assert_eq!(found.len(), sent.len(), "{where_from}");
    for (found, sent) in found.iter().zip(sent) {
        let bits = |number: &Value| (number.is_f64(), number.as_f64().map(f64::to_bits), number.as_i64());
        assert_eq!(bits(found), bits(sent), "{where_from}: {found} for {sent}");
    }
}

#[apply(both_backends!)]
async fn every_number_comes_back_bit_for_bit(server: Server) {
    let http = Http::admin(&server).await;
    let mut raw = server.admin().await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
    raw.call("event.subscribe", json!({"sub": 2, "channel": "numbers"})).await;
    let all = numbers(100_000);
    for sent in all.chunks(10_000) {
        let made = post(&http, &but(&node("job", "j"), json!({"data": {"misc": {"n": sent}}}))).await;
        same(&made["data"]["misc"]["n"], sent, "answer");
        same(&raw.event(1).await["event"]["data"]["data"]["misc"]["n"], sent, "live event");
        let read = get(&http, &made).await;
        same(&read["data"]["misc"]["n"], sent, "stored node");
        let done = but(&read, json!({"state": "done"}));
        same(
            &http.put(&format!("/node/{}", id(&made)), &done).await.ok()["data"]["misc"]["n"],
            sent,
            "put back",
        );
        same(
            &raw.event(1).await["event"]["data"]["data"]["misc"]["n"],
            sent,
            "live event of what was put back",
        );
        same(&last_event(&http, &made, "done").await["data"]["data"]["misc"]["n"], sent, "stored event");
        same(&get(&http, &made).await["data"]["misc"]["n"], sent, "stored node that was put back");

        http.post("/publish/numbers", &json!({"data": {"n": sent}})).await.ok();
        same(&raw.event(2).await["event"]["data"]["n"], sent, "published event");
        http.post("/push/numbers", &json!({"data": sent})).await.ok();
        same(&http.get("/pop/numbers").await.ok()["data"], sent, "item of a queue");
    }
    let events = http.get("/events?channel=numbers").await.ok();
    for (event, sent) in events.as_array().expect("events").iter().zip(all.chunks(10_000)) {
        same(&event["data"]["n"], sent, "stored published event");
    }
    let samples: Vec<Value> =
        all.iter().take(500).map(|n| json!({"kind": "k", "runtime": "r", "extra": {"n": n}})).collect();
    http.post("/telemetry", &samples.into()).await.ok();
    let page = http.get("/telemetry?limit=500").await.ok();
    let read: Vec<Value> =
        page["items"].as_array().expect("items").iter().map(|item| item["extra"]["n"].clone()).collect();
    same(&read.into(), &all[..500], "telemetry");
}

#[apply(both_backends!)]
async fn a_whole_number_beyond_64_bits_is_refused_and_named(server: Server) {
    let http = Http::admin(&server).await;
    let made = post(&http, &node("job", "j")).await;
    let path = format!("/node/{}", id(&made));
    let tree = |n: &str| {
        format!(
            r#"{{"node":{{"kind":"job","name":"j","path":[]}},"child_nodes":[{{"node":{{"kind":"test","name":"t","path":[],"data":{{"n":{n}}}}},"child_nodes":[]}}]}}"#
        )
    };
    for number in ["18446744073709551616", "-9223372036854775809", "100000000000000000000000000"] {
        for (method, path, body, named) in [
            (
                "POST",
                "/node",
                format!(r#"{{"kind":"job","name":"j","path":[],"data":{{"l":[1,{number}]}}}}"#),
                "data.l.1",
            ),
            (
                "PUT",
                &path,
                format!(r#"{{"kind":"job","name":"j","path":[],"debug":{{"n":{number}}}}}"#),
                "debug.n",
            ),
            ("PATCH", &path, format!(r#"{{"debug":{{"n":{number}}}}}"#), "debug.n"),
            ("PUT", &path.replace("node", "nodes"), tree(number), "child_nodes.0.node.data.n"),
            ("POST", "/publish/x", format!(r#"{{"data":{{"n":{number}}}}}"#), "data.n"),
            ("POST", "/push/x", format!(r#"{{"data":{number}}}"#), "data"),
            (
                "POST",
                "/telemetry",
                format!(r#"[{{"kind":"k","runtime":"r","extra":{{"n":{number}}}}}]"#),
                "0.extra.n",
            ),
        ] {
            let request = http.request(method, path).header("content-type", "application/json").body(body);
            let refused = answer(request).await;
            assert_eq!(refused.status, 422, "{method} {path}: {}", refused.text);
            assert!(
                refused.text.contains(&format!("{named}: whole numbers")),
                "{method} {path}: {}",
                refused.text
            );
        }
        let mut raw = server.admin().await;
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"node.update","params":{{"id":"{}","set":{{"debug":{{"n":{number}}}}}}}}}"#,
            id(&made)
        );
        raw.send_text(message).await;
        let refused = raw.answer(7).await;
        let detail = refused["error"]["data"]["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("params.set.debug.n: whole numbers"), "{refused}");
    }
    assert_eq!(get(&http, &made).await, made);
    // Within 64 bits, and too large for what stores have.
    let unsigned = http.post("/node", &but(&node("job", "j"), json!({"data": {"n": u64::MAX}}))).await;
    assert_eq!((unsigned.status, &unsigned.json["detail"][0]["loc"]), (422, &json!(["body", "data", "n"])));
}

#[apply(both_backends!)]
async fn a_payload_keeps_its_revisions(server: Server) {
    let http = Http::admin(&server).await;
    let data =
        json!({"revision": 5, "node": {"revision": 7}, "items": [{"revision": 1, "node": {"revision": 2}}]});
    http.post("/push/revisions", &but(&data, json!({"data": data}))).await.ok();
    let item = http.get("/pop/revisions").await.ok();
    assert_eq!(item["data"], data);
    for member in ["revision", "node", "items"] {
        assert_eq!(item[member], data[member], "beside the payload");
    }
    http.post("/publish/revisions", &json!({"data": data})).await.ok();
    let events = http.get("/events?channel=revisions").await.ok();
    assert_eq!(events[0]["data"], data);
    http.post("/telemetry", &json!([{"kind": "k", "runtime": "r", "extra": data}])).await.ok();
    assert_eq!(http.get("/telemetry").await.ok()["items"][0]["extra"], data);
    // A node's own is not shown unless asked for; what clients keep in it is theirs.
    let made = post(&http, &but(&node("job", "j"), json!({"data": data, "debug": data}))).await;
    assert_eq!((made.get("revision"), &made["data"], &made["debug"]), (None, &data, &data));
    let path = format!("/node/{}", id(&made));
    for answer in [
        http.get(&path).await,
        http.put(&path, &made).await,
        http.patch(&path, &json!({"debug": data})).await,
    ] {
        assert!(answer.headers.contains_key("etag"), "{answer:?}");
        let node = answer.ok();
        assert_eq!((node.get("revision"), &node["data"], &node["debug"]), (None, &data, &data));
    }
    assert_eq!(http.get(&format!("{path}?revision=true")).await.ok()["revision"], 3);
}

#[apply(both_backends!)]
async fn a_node_is_not_of_the_far_future(server: Server) {
    let http = Http::admin(&server).await;
    let future = json!({"created": "9999-12-31T00:00:00", "updated": "9999-12-31T00:00:00", "timeout": "9999-12-31T00:00:00"});
    let now = || chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S").to_string();
    let tomorrow =
        || (chrono::Utc::now() + chrono::Duration::days(1)).format("%Y-%m-%dT%H:%M:%S.999").to_string();
    let late = |node: &Value, field: &str| {
        node[field].as_str().is_none_or(|time| *time > *tomorrow() || *time < *now())
    };
    let made = post(&http, &but(&node("job", "j"), future.clone())).await;
    let tree = json!({"node": made, "child_nodes": [{"node": but(&node("test", "t"), future.clone()), "child_nodes": []}]});
    let child = http.put(&format!("/nodes/{}", id(&made)), &tree).await.ok()[1].clone();
    let replaced = http.put(&format!("/node/{}", id(&made)), &but(&node("job", "j"), future)).await.ok();
    for node in [&made, &child, &replaced] {
        assert!(!late(node, "created"), "{node}");
        assert_eq!(node["timeout"], "9999-12-31T00:00:00", "when something ends may be any time");
    }
    assert!(!late(&made, "updated") && !late(&child, "updated"));
    let events = http.get(&format!("/events?from={}", tomorrow())).await.ok();
    assert_eq!(events, json!([]), "events are of now");
}

/// A node whose document fits into the 16 MiB of one of MongoDB, with or without its event.
#[apply(both_backends!)]
async fn a_node_of_many_megabytes_is_taken_and_told(backend: Backend) {
    let server = Server::start(backend).await;
    let http = Http::admin(&server).await;
    let large = |megabytes: usize| json!({"log": "x".repeat(megabytes << 20), "n": 1});
    for megabytes in [2, 9] {
        let body = but(&node("job", &format!("m{megabytes}")), json!({"data": large(megabytes)}));
        let made = post(&http, &body).await;
        assert!(made["data"] == body["data"], "{megabytes} MiB are answered");
        let path = format!("/node/{}", id(&made));
        let mut read = http.get(&path).await.ok();
        assert!(read["data"] == body["data"], "{megabytes} MiB are read");
        read["state"] = "available".into();
        http.put(&path, &read).await.ok();
        http.patch(&path, &json!({"state": "done"})).await.ok();
        let mut place = 0;
        for state in ["running", "available", "done"] {
            let event = last_event(&http, &made, state).await;
            assert!(event["data"]["data"] == body["data"], "{megabytes} MiB are told");
            let behind = std::mem::replace(&mut place, event["sequence_id"].as_u64().expect("a number"));
            assert!(place > behind, "in the order of the writes");
        }
    }
    // Many small values, fewer bytes.
    let many = but(&node("job", "many"), json!({"debug": {"l": vec![0; 400_000]}}));
    let made = post(&http, &many).await;
    let put = http.put(&format!("/node/{}", id(&made)), &get(&http, &made).await).await.ok();
    assert!(put["debug"] == many["debug"]);

    let count = http.get("/count").await.ok();
    let too_large =
        but(&node("job", "too large"), json!({"data": {"a": "x".repeat(8 << 20), "b": "x".repeat(8 << 20)}}));
    let refused = http.post("/node", &too_large).await;
    assert_eq!(refused.status, 413, "{}", refused.text);
    assert!(refused.text.contains("has at most"), "{}", refused.text);
    let path = format!("/node/{}", id(&made));
    assert_eq!(http.patch(&path, &json!({"data": too_large["data"]})).await.status, 413);
    let small = json!({"node": node("test", "small"), "child_nodes": []});
    let tree =
        json!({"node": node("job", "many"), "child_nodes": [small, {"node": too_large, "child_nodes": []}]});
    assert_eq!(http.put(&path.replace("node", "nodes"), &tree).await.status, 413);
    assert_eq!(http.get("/count").await.ok(), count, "nothing was written");
    assert_eq!(get(&http, &made).await["updated"], put["updated"]);
}
