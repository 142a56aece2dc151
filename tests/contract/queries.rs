//! Queries over REST (contract 4): what is found, in which order, how pages are cut.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, Http, Server, both_backends, both_backends_in_pairs, node};

async fn add(http: &Http, name: &str, changes: Value) -> Value {
    let mut body = node("job", name);
    for (key, value) in changes.as_object().expect("changes") {
        body[key] = value.clone();
    }
    http.post("/node", &body).await.ok()
}

/// The names that a query finds, the same by all three routes.
async fn found(http: &Http, query: &str) -> Vec<String> {
    let page = http.get(&format!("/latest/nodes?{query}")).await.ok();
    let fast = http.get(&format!("/latest/nodes/fast?{query}")).await.ok();
    let count = http.get(&format!("/latest/count?{query}")).await.ok();
    assert_eq!(page["items"], fast, "{query}");
    assert_eq!(
        (&page["total"], count.as_u64()),
        (&count, fast.as_array().map(|all| all.len() as u64)),
        "{query}"
    );
    let names =
        fast.as_array().expect("a list").iter().map(|node| node["name"].as_str().expect("a name").to_owned());
    names.collect()
}

/// Refused in the same way by all three routes.
async fn refused(http: &Http, query: &str) -> (u16, String) {
    let mut answers = Vec::new();
    for route in ["nodes", "nodes/fast", "count"] {
        let (status, detail) = http.get(&format!("/latest/{route}?{query}")).await.refusal();
        answers.push((status, detail.as_str().unwrap_or_default().to_owned()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{query}: {answers:?}");
    answers.swap_remove(0)
}

/// Contract 4.1, step by step.
#[apply(both_backends!)]
async fn conditions(server: Server) {
    let http = Http::admin(&server).await;
    let root = add(
        &http,
        "root",
        json!({"kind": "checkout", "result": "pass", "state": "done", "created": "2026-01-01T12:00:00.500"}),
    )
    .await;
    let parent = root["id"].as_str().expect("an id");
    add(&http, "a", json!({"parent": parent, "retry_counter": 2, "holdoff": "2026-02-01", "created": "2026-01-02",
        "data": {"arch": "arm", "job_id": "123", "kernel_revision": {"tree": "t", "url": "git://x/y", "branch": "b", "commit": "c",
        "version": {"version": 6, "patchlevel": 1}}}})).await;
    add(&http, "b", json!({"parent": parent, "result": "fail", "state": "done", "created": "2026-01-03", "processed_by_kcidb_bridge": true,
        "path": ["root", "b"], "data": {"arch": "x86", "n": 7, "flag": true, "text": "true"}})).await;
    let of_parent = format!("parent={parent}");
    let upper = format!("parent={}", parent.to_uppercase());
    let not_parent = format!("parent__ne={parent}");
    for (query, names) in [
        ("", &["root", "a", "b"][..]),
        // Equality; the last of repeated keys.
        ("name=a", &["a"]),
        ("name=b&name=a", &["a"]),
        ("state=done&result=fail", &["b"]),
        // 1. null
        ("result=null", &["a"]),
        ("result=Null", &[]),
        ("result__ne=null", &["root", "b"]),
        ("no.such.field=null", &["root", "a", "b"]),
        // 2. operators
        ("created__gt=2026-01-01&created__lt=2026-01-03", &["root", "a"]),
        ("result=fail&result__ne=pass", &["b"]),
        ("a__b__c=x", &[]),
        // 3. parent: null means roots, operators work (contract D-38, D-39)
        (&of_parent, &["a", "b"]),
        (&upper, &["a", "b"]),
        ("parent=null", &["root"]),
        (&not_parent, &["root"]),
        // 4. dates
        ("created=2026-01-02", &["a"]),
        ("created=2026-01-01T12:00:00.500", &["root"]),
        ("created__gte=2026-01-02T00:00:00%2B00:00", &["a", "b"]),
        ("created__gte=2026-01-02T02:00:00%2B02:00&created__lt=2026-01-02T00:00:01Z", &["a"]),
        ("created__lt=2026-01-02+00:00:00", &["root"]),
        ("created=20260102", &["a"]),
        ("holdoff=null", &["root", "b"]),
        ("holdoff__ne=null", &["a"]),
        ("holdoff__lt=2027-01-01", &["a"]),
        // 5. retry_counter
        ("retry_counter=2", &["a"]),
        ("retry_counter__lt=2", &["root", "b"]),
        ("retry_counter=null", &[]),
        // 6. operators on values
        ("name__in=a,b,x", &["a", "b"]),
        ("name__nin=a,b", &["root"]),
        ("name__re=o", &["root"]),
        ("name__re=^O", &[]),
        ("name__re=123", &[]),
        ("data.job_id__re=^12", &["a"]),
        ("data.kernel_revision.version.version__gte=6", &["a"]),
        ("data.kernel_revision.version.version__gt=6", &[]),
        ("data.job_id__ne=123", &["root", "b"]),
        ("data.job_id__in=123,456", &["a"]),
        // 7. __int
        ("data.n__int=7", &["b"]),
        ("data.n=7", &[]),
        ("data.n__int=-7", &[]),
        // 8. booleans
        ("processed_by_kcidb_bridge=True", &["b"]),
        ("processed_by_kcidb_bridge=false", &["root", "a"]),
        ("processed_by_kcidb_bridge=False&state=done", &["root"]),
        ("processed_by_kcidb_bridge__ne=true", &["root", "a"]),
        ("data.flag=TRUE", &["b"]),
        ("name=true", &[]),
        // 9. dotted paths
        ("data.arch=arm", &["a"]),
        ("path.0=root", &["root", "b"]),
        ("path=b", &["b"]),
        // Paging is no condition; neither is what asks for the revision.
        ("revision=false", &["root", "a", "b"]),
    ] {
        assert_eq!(found(&http, query).await, names, "{query}");
    }
}

#[apply(both_backends!)]
async fn conditions_that_say_nothing(server: Server) {
    let http = Http::admin(&server).await;
    add(&http, "a", json!({})).await;
    for (query, detail) in [
        (
            "parent=zz",
            "'zz' is not a valid ObjectId, it must be a 12-byte input or a 24-character hex string",
        ),
        ("created__gt=zz", "Invalid isoformat string: 'zz'"),
        ("updated=2026-01", "Invalid isoformat string: '2026-01'"),
        ("timeout__lt=1767225600", "Invalid isoformat string: '1767225600'"),
        ("holdoff=2026-01-01T24:00", "Invalid isoformat string: '2026-01-01T24:00'"),
        ("retry_counter=x", "invalid literal for int() with base 10: 'x'"),
        ("data.n__int=1.5", "invalid literal for int() with base 10: '1.5'"),
    ] {
        assert_eq!(refused(&http, query).await, (400, detail.to_owned()), "{query}");
    }
    // What reached the database unchecked, or failed there (contract D-32, D-33, D-38).
    for (query, mentions) in [
        ("$where=1", "$where"),
        ("data.$gt=1", "$"),
        ("name__$ne=x", "$ne"),
        ("name__like=x", "unknown operator 'like'"),
        ("name__re=(", "name__re"),
        ("name__re=(a)%5C1", "name__re"),
        ("created__re=2026", "created__re"),
        ("a%00b=x", "path"),
    ] {
        let (status, detail) = refused(&http, query).await;
        assert!(status == 400 && detail.contains(mentions), "{query}: {status} {detail}");
    }
    let long = format!("name__re={}", "a".repeat(300));
    assert_eq!(refused(&http, &long).await.0, 400);
    let many: Vec<String> = (0..70).map(|n| format!("data.f{n}=x")).collect();
    assert_eq!(refused(&http, &many.join("&")).await.0, 400);
}

/// Surprise: ids could not be queried (contract 4.7); ours can.
#[apply(both_backends!)]
async fn ids_can_be_queried(server: Server) {
    let http = Http::admin(&server).await;
    let made = add(&http, "a", json!({})).await;
    add(&http, "b", json!({})).await;
    let id = made["id"].as_str().expect("an id");
    for query in [format!("id={id}"), format!("_id={id}"), format!("id__in={id}")] {
        assert_eq!(found(&http, &query).await, ["a"], "{query}");
    }
}

/// Contract 4.3, 9.1.
#[apply(both_backends!)]
async fn pages(server: Server) {
    let http = Http::admin(&server).await;
    let empty = http.get("/nodes").await;
    assert_eq!(empty.text, r#"{"items":[],"total":0,"limit":50,"offset":0}"#);
    for number in 0..120 {
        add(
            &http,
            &format!("n{number:03}"),
            json!({"result": if number % 2 == 0 { "pass" } else { "fail" }}),
        )
        .await;
    }
    let page = async |query: &str| {
        let page = http.get(&format!("/nodes?{query}")).await.ok();
        let keys: Vec<&str> = page.as_object().expect("a page").keys().map(String::as_str).collect();
        assert_eq!(keys, ["items", "total", "limit", "offset"]);
        let names: Vec<String> = page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|node| node["name"].as_str().expect("a name").to_owned())
            .collect();
        (names, page["total"].as_u64(), page["limit"].as_u64(), page["offset"].as_u64())
    };
    let names = |numbers: &mut dyn Iterator<Item = u32>| {
        numbers.map(|number| format!("n{number:03}")).collect::<Vec<_>>()
    };
    assert_eq!(page("").await, (names(&mut (0..50)), Some(120), Some(50), Some(0)), "oldest first");
    assert_eq!(page("limit=3&offset=118").await, (names(&mut (118..120)), Some(120), Some(3), Some(118)));
    assert_eq!(page("limit=3&offset=500").await, (vec![], Some(120), Some(3), Some(500)));
    assert_eq!(
        page("result=fail&limit=2&offset=1").await,
        (names(&mut [3, 5].into_iter()), Some(60), Some(2), Some(1))
    );
    assert_eq!(page("limit=1&limit=2").await.2, Some(2), "the last wins");
    // As kernelci-core reads all: until a page is not full.
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let (names, ..) = page(&format!("limit=100&offset={offset}")).await;
        let full = names.len() == 100;
        all.extend(names);
        offset += 100;
        if !full {
            break;
        }
    }
    assert_eq!(all, names(&mut (0..120)));
    assert_eq!(http.get("/nodes/fast?limit=1000000").await.ok().as_array().map(Vec::len), Some(120));
    // Paging is no field here (contract D-39).
    assert_eq!(http.get("/count?limit=5&offset=2").await.ok(), 120);
}

/// Contract 4.4.
#[apply(both_backends!)]
async fn the_fast_list(server: Server) {
    let http = Http::admin(&server).await;
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        add(&http, name, json!({})).await;
    }
    let names = async |query: &str| {
        let list = http.get(&format!("/nodes/fast?{query}")).await.ok();
        list.as_array()
            .expect("a bare list")
            .iter()
            .filter_map(|node| node["name"].as_str())
            .collect::<String>()
    };
    for (query, wanted) in [
        ("", "abcdefg"),
        ("limit=2", "ab"),
        ("limit=2&offset=1", "bc"),
        ("offset=5", "fg"),
        ("limit=0", "abcdefg"),
        ("limit=null&offset=null", "abcdefg"),
        ("limit=-5", "abcde"),
        ("limit=%20+3", "abc"),
        ("offset=50", ""),
    ] {
        assert_eq!(names(query).await, wanted, "{query}");
    }
    for (query, detail) in [
        ("limit=abc", "invalid literal for int() with base 10: 'abc'"),
        ("offset=1.5", "invalid literal for int() with base 10: '1.5'"),
        ("offset=-1", "skip must be >= 0"),
    ] {
        assert_eq!(
            http.get(&format!("/nodes/fast?{query}")).await.refusal(),
            (400, detail.into()),
            "{query}"
        );
    }
}

/// More than one piece of a list, and more than one message holds.
#[apply(both_backends_in_pairs!)]
async fn long_lists(server: Server) {
    let http = Http::admin(&server).await;
    let root = add(&http, "root", json!({})).await;
    let child = |number: u32| json!({"node": {"kind": "test", "name": format!("n{number}"), "path": []}, "child_nodes": []});
    let tree = json!({"node": root, "child_nodes": (1..3000).map(child).collect::<Vec<_>>()});
    http.put(&format!("/nodes/{}", root["id"].as_str().expect("an id")), &tree).await.ok();
    let ids = |list: &Value| -> Vec<String> {
        list.as_array()
            .expect("a list")
            .iter()
            .map(|node| node["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    let all = ids(&http.get("/nodes/fast").await.ok());
    assert_eq!(all.len(), 3000);
    assert!(all.is_sorted());
    let page = http.get("/nodes?limit=100000&revision=true").await.ok();
    assert_eq!((ids(&page["items"]), &page["total"]), (all.clone(), &json!(3000)));
    assert!(page["items"].as_array().expect("items").iter().all(|node| node["revision"].is_u64()));
    for (limit, offset) in [(1000, 0), (1001, 0), (1999, 17), (2500, 999), (3001, 1)] {
        let part = ids(&http.get(&format!("/nodes/fast?limit={limit}&offset={offset}")).await.ok());
        assert_eq!(part, all[offset..(offset + limit).min(3000)], "{limit} {offset}");
        let page = http.get(&format!("/nodes?kind=test&limit={limit}&offset={offset}")).await.ok();
        assert_eq!(page["total"], 2999);
        assert_eq!(page["items"].as_array().map(Vec::len), Some(limit.min(2999 - offset)));
    }
    let mut raw = server.admin().await;
    assert_eq!(
        raw.call("node.list", json!({"limit": 1000})).await["items"].as_array().map(Vec::len),
        Some(1000)
    );
    for method in ["node.list", "node.page"] {
        let error = raw.fail(method, json!({"limit": 2000})).await;
        assert_eq!(error["data"]["status"], 413);
        assert!(error["data"]["detail"].as_str().is_some_and(|text| text.contains("node.find")), "{error}");
    }
}

/// Nodes of many kilobytes: a page ends before it holds too much, and the next one goes on (contract D-35).
#[apply(both_backends!)]
async fn pages_end_by_their_bytes(server: Server) {
    let http = Http::admin(&server).await;
    let root = large_nodes(&http, 30, 700 << 10).await;
    let mut session = server.admin().await;
    let mut names = std::collections::BTreeSet::new();
    let (mut pages, mut after) = (0, Value::Null);
    loop {
        let mut params = json!({"filter": {"parent": root["id"]}, "limit": 1000, "fields": ["name"]});
        if !after.is_null() {
            params["after"] = after;
        }
        let page = session.call("node.find", params).await;
        for item in page["items"].as_array().expect("items") {
            assert!(names.insert(item["name"].as_str().expect("a name").to_owned()), "{item} twice");
        }
        pages += 1;
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!((names.len(), pages), (30, 3), "twelve at a time");
    // REST answers as many as were asked for, piece by piece.
    let query = format!("parent={}", root["id"].as_str().expect("an id"));
    let page = http.get(&format!("/nodes?{query}&limit=25&offset=2")).await.ok();
    assert_eq!((page["items"].as_array().map(Vec::len), &page["total"]), (Some(25), &json!(30)));
    assert_eq!(http.get(&format!("/nodes/fast?{query}")).await.ok().as_array().map(Vec::len), Some(30));
    let refused = session.fail("node.list", json!({"filter": {"parent": root["id"]}})).await;
    assert_eq!(refused["data"]["status"], 413);
}

/// Contract 4.4.
#[apply(both_backends!)]
async fn a_slow_list_is_given_up(backend: Backend) {
    let server = Server::start_with(backend, &[("QUERY_TIMEOUT_MS", "1")]).await;
    let http = Http::admin(&server).await;
    large_nodes(&http, 300, 20_000).await;
    let slow = "data.log__re=y%2By&data.log__re=(y|z)x";
    let refused = http.get(&format!("/nodes/fast?{slow}")).await;
    assert_eq!(refused.refusal(), (504, "Timeout while fetching nodes: ".into()));
    assert_eq!(http.get(&format!("/nodes?{slow}")).await.status, 504);
    assert_eq!(http.get(&format!("/count?{slow}")).await.status, 504);
}

/// Adds so many nodes with so many bytes each below a new one, and returns that.
async fn large_nodes(http: &Http, count: usize, bytes: usize) -> Value {
    let root = add(http, "root", json!({})).await;
    let log = "x".repeat(bytes);
    let child = |n: usize| {
        let mut child = node("test", &format!("large-{n}"));
        child["data"] = json!({"log": log});
        json!({"node": child, "child_nodes": []})
    };
    for from in (0..count).step_by(10.max(count / 10)) {
        let children: Vec<Value> = (from..count.min(from + 10.max(count / 10))).map(child).collect();
        let tree = json!({"node": root, "child_nodes": children});
        let path = format!("/nodes/{}", root["id"].as_str().expect("an id"));
        http.put(&path, &tree).await.ok();
    }
    root
}
