//! How much one user may have of what stays: queues, consumers, channels, keys, tokens.

use futures::future::join_all;
use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::names::session;
use super::polling::user;
use crate::support::{Answer, Backend, Http, Server, both_backends, in_pairs, to_redis};

/// Two of each, or a megabyte.
const FEW: [(&str, &str); 8] = [
    ("QUEUES_PER_USER", "2"),
    ("QUEUED_MB_PER_USER", "1"),
    ("CONSUMERS_PER_USER", "2"),
    ("UNNAMED_CONSUMERS_PER_USER", "2"),
    ("CHANNELS_PER_USER", "2"),
    ("KEYS_PER_USER", "2"),
    ("KV_MB_PER_USER", "1"),
    ("TOKENS_PER_USER", "2"),
];

/// How much of a thing the user has.
async fn used(http: &Http, thing: &str) -> u64 {
    http.get("/latest/user/limits").await.ok()["kept"][thing]["used"].as_u64().expect("a number")
}

/// That this was refused, because a user has at most two.
#[track_caller]
fn refused(answer: &Answer, status: u16, what: &str) {
    let detail = answer.json["detail"].as_str().unwrap_or_default();
    let told = detail.starts_with(&format!("a user has at most 2 {what}, and you have 2: "));
    assert!(answer.status == status && told, "{} {}", answer.status, answer.text);
    // Whoever tries again only if that makes sense is told.
    assert_eq!(answer.headers.contains_key("retry-after"), status == 429, "{answer:?}");
}

/// A request with this path and, if any, body.
async fn post(http: &Http, path: &str, body: Value) -> Answer {
    http.post(&format!("/latest{path}"), &body).await
}

#[apply(both_backends!)]
async fn each_thing_that_stays_has_a_limit_for_each_user(backend: Backend) {
    let server = Server::start_with(backend, &FEW).await;
    let (admin, ann, bob) =
        (Http::admin(&server).await, user(&server, "ann").await, user(&server, "bob").await);
    let namespace = uuid::Uuid::new_v4().simple().to_string();
    // What, how one more of it is made, and how one goes; by number.
    let token = json!({"scopes": ["read"]});
    let token = |n: usize| {
        let mut token = token.clone();
        token["name"] = format!("t{n}").into();
        token
    };
    let (item, key) = (json!({"data": 1}), json!("value"));
    type Made<'a> = (&'a str, u16, &'a str, Box<dyn Fn(usize) -> (String, Value) + 'a>);
    let things: Vec<Made<'_>> = vec![
        ("channels", 409, "channels", Box::new(|n| (format!("/publish/{namespace}-{n}"), item.clone()))),
        (
            "consumers",
            409,
            "named consumers",
            Box::new(|n| (format!("/subscribe/node?subscriber_id=c{n}"), Value::Null)),
        ),
        ("queues", 429, "queues with items", Box::new(|n| (format!("/push/q{n}"), item.clone()))),
        ("keys", 409, "keys", Box::new(|n| (format!("/kv/{namespace}/k{n}"), key.clone()))),
        ("tokens", 409, "tokens", Box::new(|n| ("/user/tokens".to_owned(), token(n)))),
    ];
    for (thing, status, what, make) in &things {
        let one = async |http: &Http, n: usize| {
            let (path, body) = make(n);
            post(http, &path, body).await
        };
        for n in 0..2 {
            one(&bob, n).await.ok();
        }
        let before = server.traces().await;
        refused(&one(&bob, 2).await, *status, what);
        if *thing != "keys" {
            // (Redis remembers for some seconds that keys were counted.)
            assert_eq!(server.traces().await, before, "{thing}");
        }
        assert_eq!((used(&bob, thing).await, used(&ann, thing).await), (2, 0), "{thing}");
        // What is there already can be used, and others are not concerned.
        if *thing != "tokens" {
            one(&bob, 1).await.ok();
        }
        one(&ann, 2).await.ok();
        assert_eq!((used(&bob, thing).await, used(&ann, thing).await), (2, 1), "{thing}");
        for n in 2..12 {
            one(&admin, 10 + n).await.ok();
        }
        assert_eq!(used(&admin, thing).await, 10, "a superuser may have ten times as much");
    }
    // What is removed makes room.
    let mut raw = session(&server, &bob).await;
    raw.call("consumer.delete", json!({"name": "c0"})).await;
    let group = json!({"sub": 1, "channel": "node", "durable": "g", "group": true});
    raw.call("event.subscribe", group).await;
    for more in [json!({"group": true}), json!({})] {
        let mut params = json!({"sub": 2, "channel": "node", "durable": "more"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = raw.fail("event.subscribe", params).await;
        assert_eq!(error["data"]["status"], 409, "{error}");
        assert_eq!(error["data"]["quota"], json!({"name": "consumers", "used": 2, "most": 2}));
        assert_eq!(error["data"]["temporary"], false);
    }
    for _ in 0..2 {
        bob.get("/latest/pop/q0").await.ok();
        if bob.get("/latest/pop/q0?wait_ms=0").await.status == 503 {
            break;
        }
    }
    crate::support::eventually("the item is gone", async || used(&bob, "queues").await == 1).await;
    post(&bob, "/push/q2", item.clone()).await.ok();
    bob.delete(&format!("/latest/kv/{namespace}/k0")).await.ok();
    post(&bob, &format!("/kv/{namespace}/k2"), json!("value")).await.ok();
    assert_eq!((used(&bob, "keys").await, used(&ann, "keys").await), (2, 0), "it was Ann's");
    post(&ann, &format!("/kv/{namespace}/k1"), json!("other")).await.ok();
    assert_eq!((used(&bob, "keys").await, used(&ann, "keys").await), (1, 1));
}

#[apply(both_backends!)]
async fn what_is_large_is_counted_in_bytes(backend: Backend) {
    let server = Server::start_with(backend, &FEW).await;
    let bob = user(&server, "bob").await;
    let namespace = uuid::Uuid::new_v4().simple().to_string();
    let (half, item) = ("x".repeat(600 << 10), json!({"data": "x".repeat(600 << 10)}));
    let key = |name: &str| format!("/kv/{namespace}/{name}");
    post(&bob, &key("one"), json!(half)).await.ok();
    let before = used(&bob, "key_bytes").await;
    assert_eq!(before, (half.len() + namespace.len() + "one".len() + bytes_between(backend)) as u64);
    let answer = post(&bob, &key("two"), json!(half)).await;
    let told = format!("a user has at most 1048576 bytes of keys and values, and you have {before}: ");
    assert_eq!(answer.status, 409);
    assert!(answer.json["detail"].as_str().unwrap().starts_with(&told), "{}", answer.text);
    // The same again is no more; shorter values make room.
    post(&bob, &key("one"), json!(half)).await.ok();
    post(&bob, &key("one"), json!("short")).await.ok();
    post(&bob, &key("two"), json!(half)).await.ok();
    for name in ["one", "two"] {
        bob.delete(&format!("/latest{}", key(name))).await.ok();
    }
    assert_eq!((used(&bob, "keys").await, used(&bob, "key_bytes").await), (0, 0));

    post(&bob, "/push/q", item.clone()).await.ok();
    let full = post(&bob, "/push/q", item.clone()).await;
    assert_eq!(full.status, 429, "{}", full.text);
    assert!(full.json["detail"].as_str().unwrap().contains("bytes of items in queues"), "{}", full.text);
    assert!(used(&bob, "queued_bytes").await > 600 << 10);
    post(&user(&server, "ann").await, "/push/q", item.clone()).await.ok();
    bob.get("/latest/pop/q").await.ok();
    crate::support::eventually("the item is gone", async || used(&bob, "queued_bytes").await == 0).await;
    post(&bob, "/push/q", item).await.ok();
}

/// Between namespace and key.
fn bytes_between(backend: Backend) -> usize {
    match backend {
        Backend::Embedded => 0,
        Backend::Production => 1,
    }
}

/// Dead letters begin channels, which are on the owner of the group. Where that has no room they still come, all on one.
#[apply(both_backends!)]
async fn groups_that_come_and_go_leave_no_more_channels_than_a_user_may_have(backend: Backend) {
    let server = Server::start_with(backend, &FEW).await;
    let (admin, bob) = (Http::admin(&server).await, user(&server, "bob").await);
    post(&bob, "/publish/lab", json!({"data": "it never works"})).await.ok();
    let id = bob.get("/latest/whoami").await.ok()["id"].as_str().unwrap().to_owned();
    let overflow = format!("dead.{id}.overflow");
    let mut raw = session(&server, &bob).await;
    let mut letters = session(&server, &admin).await;
    let groups: Vec<String> = (0..5).map(|n| format!("g{n}")).collect();
    for (sub, channel) in
        groups.iter().map(|name| format!("dead.{name}")).chain([overflow.clone()]).enumerate()
    {
        letters.call("event.subscribe", json!({"sub": sub, "channel": channel})).await;
    }
    for (n, name) in groups.iter().enumerate() {
        let group = json!({
            "sub": n, "channel": "lab", "durable": name, "group": true, "max_deliveries": 1, "from": "earliest",
        });
        raw.call("event.subscribe", group).await;
        let seq = raw.event(n as u64).await["seq"].take();
        raw.call("event.nack", json!({"sub": n, "seq": seq})).await;
        // The first one has the channel that Bob may still have.
        let letter = letters.event(if n == 0 { 0 } else { groups.len() as u64 }).await["event"].take();
        let data = &letter["data"];
        assert_eq!((&data["consumer"], &data["event"]["data"]), (&json!(name), &json!("it never works")));
        assert_eq!(used(&bob, "channels").await, 2);
        raw.call("consumer.delete", json!({"name": name})).await;
    }
    let channel_of = async |channel: &str| {
        let found = session(&server, &admin).await.call("event.find", json!({"channel": channel})).await;
        found["items"].as_array().unwrap().len()
    };
    assert_eq!(channel_of("dead.g0").await, 1);
    for name in &groups[1..] {
        assert_eq!(channel_of(&format!("dead.{name}")).await, 0, "{name}");
    }
    assert_eq!(channel_of(&overflow).await, groups.len() - 1);
    // A group must not be fed with what it has given up.
    let own = json!({"sub": 9, "channel": overflow, "durable": "g", "group": true});
    assert_eq!(raw.fail("event.subscribe", own).await["data"]["status"], 422);
}

/// As many at once get through as there may be, also on two instances: at the most one more on each further one.
#[apply(both_backends!)]
async fn the_limits_hold_for_many_at_once(backend: Backend) {
    let server = Server::start_with(backend, &FEW).await;
    let bob = user(&server, "bob").await;
    let mut servers = vec![(bob.clone(), "here")];
    let other = match backend {
        Backend::Embedded => None,
        Backend::Production => Some(server.another().await),
    };
    if let Some(other) = &other {
        servers.push((Http::new(other).with(bob.token().unwrap()), "there"));
    }
    let most = 2 + servers.len() as u64 - 1;
    let namespace = uuid::Uuid::new_v4().simple().to_string();
    for (thing, exact) in
        [("consumers", false), ("channels", false), ("queues", false), ("keys", true), ("tokens", true)]
    {
        let requests = (0..24).map(|n| {
            let (http, place) = &servers[n % servers.len()];
            let (path, body) = match thing {
                "consumers" => (format!("/subscribe/node?subscriber_id={place}{n}"), Value::Null),
                "channels" => (format!("/publish/{place}{n}"), json!({"data": 1})),
                "queues" => (format!("/push/{place}{n}"), json!({"data": 1})),
                "keys" => (format!("/kv/{namespace}/{place}{n}"), json!("v")),
                _ => ("/user/tokens".to_owned(), json!({"name": format!("{place}{n}"), "scopes": ["read"]})),
            };
            async move { post(http, &path, body).await }
        });
        let answers = join_all(requests).await;
        let done = answers.iter().filter(|answer| answer.status < 300).count() as u64;
        let used = used(&bob, thing).await;
        assert_eq!(done, used, "{thing}");
        // Of tokens that are too many at once all may be refused; of others none is too few.
        let least = if thing == "tokens" { 0 } else { 2 };
        assert!((least..=if exact { 2 } else { most }).contains(&used), "{thing}: {used}");
        let refused = answers.iter().filter(|answer| [409, 429].contains(&answer.status)).count() as u64;
        assert_eq!(refused, 24 - done, "{thing}");
    }
}

#[apply(both_backends!)]
async fn everybody_sees_what_they_have_and_may_have(server: Server) {
    let (admin, bob) = (Http::admin(&server).await, user(&server, "bob").await);
    post(&bob, "/publish/lab", json!({"data": 1})).await.ok();
    let mut raw = session(&server, &bob).await;
    let limits = raw.call("user.limits", json!({})).await;
    let kept = &limits["kept"];
    assert_eq!(kept["channels"], json!({"used": 1, "most": 200}));
    assert_eq!(kept["consumers"], json!({"used": 0, "most": 500}));
    assert_eq!(kept["key_bytes"], json!({"used": 0, "most": 32 << 20}));
    assert_eq!(limits["shared"]["sessions"]["used"], 1, "{limits}");
    for (name, pool) in limits["shared"].as_object().unwrap() {
        let number = |key: &str| pool[key].as_u64().unwrap();
        assert!(number("used") <= number("taken") && number("taken") <= number("limit"), "{name}: {pool}");
        assert!(number("share") > 0, "{name}: {pool}");
    }
    let hello = raw.call("session.refresh", json!({"token": bob.token().unwrap()})).await;
    let most: serde_json::Map<String, Value> = kept
        .as_object()
        .unwrap()
        .iter()
        .map(|(thing, amount)| (thing.clone(), amount["most"].clone()))
        .collect();
    assert_eq!(hello["limits"]["user"], Value::Object(most));
    let stranger = server.connect().await.call("session.hello", json!({})).await;
    assert_eq!(stranger["limits"]["user"], Value::Null);
    assert_eq!(Http::new(&server).get("/latest/user/limits").await.status, 401);
    let admins = admin.get("/latest/user/limits").await.ok();
    assert_eq!(admins["kept"]["consumers"]["most"], 5000);
    // Prometheus sees the same of all together.
    let metrics = Http::new(&server).get("/metrics").await.text;
    for (name, pool) in admins["shared"].as_object().unwrap() {
        let line = |metric: &str| {
            let (begin, label) = (format!("{metric}{{"), format!("pool=\"{name}\""));
            let line = metrics.lines().find(|line| line.starts_with(&begin) && line.contains(&label));
            let line = line.expect("a line");
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        assert_eq!(line("kernelci_quota_limit"), pool["limit"].as_f64().unwrap(), "{name}");
        assert!(line("kernelci_quota_taken") <= line("kernelci_quota_limit"));
    }
}

/// KernelCI's own server removes keys without a word.
#[apply(in_pairs!)]
#[tokio::test]
async fn keys_that_went_another_way_do_not_count_for_long() {
    let server = Server::start_with(Backend::Production, &FEW).await;
    let bob = user(&server, "bob").await;
    let namespace = uuid::Uuid::new_v4().simple().to_string();
    for n in 0..2 {
        post(&bob, &format!("/kv/{namespace}/k{n}"), json!("v")).await.ok();
    }
    let mut other = to_redis(Some(0)).await;
    let removed: u64 =
        redis::cmd("DEL").arg(format!("{namespace}:k0")).query_async(&mut other).await.unwrap();
    assert_eq!(removed, 1);
    assert_eq!(used(&bob, "keys").await, 2, "nobody has looked");
    post(&bob, &format!("/kv/{namespace}/k2"), json!("v")).await.ok();
    assert_eq!(used(&bob, "keys").await, 2);
}

/// Many keys are looked at piece by piece, while others are set; what is counted in the end is what there is.
#[apply(in_pairs!)]
#[tokio::test]
async fn many_keys_are_counted_anew_in_pieces() {
    const KEYS: usize = 700;
    let most = KEYS.to_string();
    let server = Server::start_with(Backend::Production, &[("KEYS_PER_USER", &most)]).await;
    let (ann, bob) = (user(&server, "ann").await, user(&server, "bob").await);
    let namespace = uuid::Uuid::new_v4().simple().to_string();
    let path = |n: usize| format!("/kv/{namespace}/k{n:04}");
    let set = async |http: &Http, n: usize| post(http, &path(n), json!("value")).await;
    for some in (0..KEYS).collect::<Vec<_>>().chunks(50) {
        for answer in join_all(some.iter().map(|n| set(&bob, *n))).await {
            answer.ok();
        }
    }
    // Others remove, change and replace keys without a word, or with one.
    let mut other = to_redis(Some(0)).await;
    let key = |n: usize| format!("{namespace}:k{n:04}");
    let mut changes = redis::pipe();
    for n in 0..300 {
        changes.cmd("DEL").arg(key(n)).ignore();
    }
    for n in 300..400 {
        changes.cmd("SET").arg(key(n)).arg("another value").ignore();
    }
    changes.cmd("DEL").arg(key(400)).ignore().cmd("RPUSH").arg(key(400)).arg("no text").ignore();
    changes.cmd("SET").arg(key(401)).arg("").ignore();
    changes.exec_async(&mut other).await.unwrap();
    set(&ann, 402).await.ok();
    assert_eq!(used(&bob, "keys").await, KEYS as u64 - 1, "nobody has looked");
    set(&bob, KEYS).await.ok();
    // Beyond what there was room for, it is looked, once; whoever asks meanwhile may be told to try again.
    let answers = join_all((KEYS + 1..KEYS + 41).map(|n| set(&bob, n))).await;
    let done = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(done > 0 && answers.iter().all(|answer| [200, 409].contains(&answer.status)), "{done}");
    let keys = KEYS - 300 - 2 + 1 + done;
    assert_eq!(used(&bob, "keys").await, keys as u64);
    let bytes = keys * (key(0).len() + "value".len()) + 100 * ("another value".len() - "value".len());
    assert_eq!(used(&bob, "key_bytes").await, (bytes - "value".len()) as u64);
    assert_eq!(used(&ann, "keys").await, 1);
    set(&bob, KEYS + 50).await.ok();
    assert_eq!(used(&bob, "keys").await, keys as u64 + 1);
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{namespace}:*")).query_async(&mut other).await.unwrap();
    for some in keys.chunks(100) {
        redis::cmd("DEL").arg(some).exec_async(&mut other).await.unwrap();
    }
}
