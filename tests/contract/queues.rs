//! Queues: contract 5.9.

use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::support::{
    Answer, Backend, Http, Server, both_backends, both_backends_in_pairs, eventually, in_pairs, soon,
    to_redis, until,
};

async fn push(http: &Http, list: &str, body: Value) {
    let answer = http.post(&format!("/latest/push/{list}"), &body).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "null"), "{}", answer.text);
}

async fn pop(http: &Http, list: &str) -> Value {
    http.get(&format!("/latest/pop/{list}")).await.ok()
}

/// Whether the queue has nothing to give now.
async fn is_empty(http: &Http, list: &str) -> bool {
    let answer = http.get(&format!("/latest/pop/{list}?wait_ms=0")).await;
    assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (503, true), "{}", answer.text);
    true
}

/// The server has room for one pop that waits, so that a second one sees whether the first one does.
const ONE_PLACE: [(&str, &str); 1] = [("MAX_POLLS", "1")];

/// Whether a pop has the place that there is.
async fn place_is_taken(http: &Http) -> bool {
    http.get("/latest/pop/another?wait_ms=0").await.status == 429
}

/// Begins to wait for an item, and returns when that is so; the server has room for one who waits.
async fn waiting(http: &Http) -> JoinHandle<Answer> {
    let pop = tokio::spawn({
        let http = http.clone();
        // Whoever asks whether it waits may have the place just then.
        let look = async move || match http.get("/latest/pop/jobs").await {
            answer if answer.status == 429 => Err(answer.text),
            answer => Ok(answer),
        };
        async move { until("there is room for a pop", look).await }
    });
    eventually("the pop waits", async || place_is_taken(http).await).await;
    pop
}

#[apply(both_backends!)]
async fn an_item_is_a_cloud_event(server: Server) {
    let http = Http::admin(&server).await;
    push(&http, "jobs", json!({"data": {"a": "ü"}})).await;
    let item = pop(&http, "jobs").await;
    let names: Vec<&String> = item.as_object().unwrap().keys().collect();
    assert_eq!(names, ["specversion", "id", "source", "type", "time", "data"]);
    assert_eq!((&item["specversion"], &item["data"]), (&json!("1.0"), &json!({"a": "ü"})));
    assert_eq!(
        (&item["source"], &item["type"]),
        (&json!("https://api.kernelci.org/"), &json!("api.kernelci.org"))
    );
    assert_eq!(item["time"].as_str().map(|time| (time.len(), &time[26..])), Some((32, "+00:00")));
    // With other keys these are the attributes, and what is missing is null.
    push(&http, "jobs", json!({"data": null, "extra": 1, "type": "t"})).await;
    let item = pop(&http, "jobs").await;
    let names: Vec<&String> = item.as_object().unwrap().keys().collect();
    assert_eq!(names, ["specversion", "id", "source", "type", "time", "data", "extra"]);
    assert_eq!(
        (&item["source"], &item["type"], &item["data"], &item["extra"]),
        (&Value::Null, &json!("t"), &Value::Null, &json!(1))
    );
}

#[apply(both_backends!)]
async fn items_come_in_order_and_once(server: Server) {
    let http = Http::admin(&server).await;
    for n in 1..=5 {
        push(&http, "jobs", json!({"data": n})).await;
        push(&http, "others", json!({"data": -n})).await;
    }
    for n in 1..=5 {
        assert_eq!(pop(&http, "jobs").await["data"], n);
    }
    assert!(is_empty(&http, "jobs").await);
    assert_eq!(pop(&http, "others").await["data"], -1);
}

#[apply(both_backends!)]
async fn each_item_goes_to_one_of_many(server: Server) {
    let http = Http::admin(&server).await;
    let workers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let http = http.clone();
                async move {
                    let mut got = Vec::new();
                    for _ in 0..10 {
                        got.push(pop(&http, "jobs").await["data"].as_u64().unwrap());
                    }
                    got
                }
            })
        })
        .collect();
    for n in 0..40 {
        push(&http, "jobs", json!({"data": n})).await;
    }
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
}

#[apply(both_backends!)]
async fn refusals_name_what_is_wrong(server: Server) {
    let http = Http::admin(&server).await;
    let answer = http.post("/latest/push/jobs", &json!({"x": 1})).await;
    assert_eq!(
        (answer.status, &answer.json["detail"][0]["msg"]),
        (422, &json!("Field required")),
        "500 in KernelCI"
    );
    for path in ["/latest/push/a%0Ab", "/latest/push/kernelci%2Fx"] {
        let answer = http.post(path, &json!({"data": 1})).await;
        assert_eq!(
            (answer.status, &answer.json["detail"][0]["loc"]),
            (422, &json!(["path", "list"])),
            "{}",
            answer.text
        );
    }
    let anonymous = Http::new(&server);
    assert_eq!(anonymous.post("/latest/push/jobs", &json!({"data": 1})).await.status, 401);
    assert_eq!(anonymous.get("/latest/pop/jobs").await.status, 401);
    let large = json!({"data": "x".repeat(1 << 20)});
    assert_eq!(http.post("/latest/push/jobs", &large).await.status, 413);
    // Names that were keys of the counters in KernelCI are lists like any other.
    push(&http, "kernelci-api-event-seq", json!({"data": 1})).await;
    assert_eq!(pop(&http, "kernelci-api-event-seq").await["data"], 1);
    let mut raw = server.admin().await;
    let error = raw.fail("queue.ack", json!({"lease": "nonsense"})).await;
    assert_eq!(error["data"]["status"], 422);
    let error = raw.fail("queue.pop", json!({"list": "jobs", "lease_ms": 1})).await;
    assert!(error["data"]["detail"].to_string().contains("lease_ms"), "{error}");
}

#[apply(both_backends!)]
async fn an_item_waits_through_a_kill(server: Server) {
    let mut server = server;
    let http = Http::admin(&server).await;
    push(&http, "jobs", json!({"data": "precious"})).await;
    server.kill9();
    server.restart().await;
    assert_eq!(pop(&http, "jobs").await["data"], "precious");
}

#[apply(both_backends_in_pairs!)]
async fn an_item_for_a_client_that_has_gone_is_offered_again(backend: Backend) {
    let server = Server::start_with(backend, &ONE_PLACE).await;
    let http = Http::admin(&server).await;
    for n in 1..=10 {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        let request = format!(
            "GET /latest/pop/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            server.token().await
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        // It goes while the pop is on its way, or when it waits.
        while n % 4 > 0 && !place_is_taken(&http).await {
            // Whoever looks may have had the place just then, and it was refused.
            if stream.try_read(&mut [0; 4096]).is_ok() {
                stream.write_all(request.as_bytes()).await.unwrap();
            }
        }
        drop(stream);
        push(&http, "jobs", json!({"data": n})).await;
        // Not after the lease of an answer that is on its way, which lasts 30 s.
        let answer = until("there is room for a pop", async || {
            match http.get("/latest/pop/jobs?wait_ms=20000").await {
                answer if answer.status == 429 => Err(answer.text),
                answer => Ok(answer),
            }
        });
        assert_eq!(answer.await.ok()["data"], n);
    }
}

#[apply(both_backends_in_pairs!)]
async fn a_pop_is_woken_by_a_push_and_sent_home_by_a_drain(backend: Backend) {
    let mut server = Server::start_with(backend, &ONE_PLACE).await;
    let http = Http::admin(&server).await;
    // The best of several: a pop looks by itself every 10 s, and nothing but the time tells that apart.
    let mut best = Duration::MAX;
    for n in 1..=3 {
        let poll = waiting(&http).await;
        let begun = Instant::now();
        push(&http, "jobs", json!({"data": n})).await;
        assert_eq!(soon("the pop is answered", poll).await.unwrap().ok()["data"], n);
        best = best.min(begun.elapsed());
    }
    assert!(best < Duration::from_secs(3), "{best:?}");
    let poll = waiting(&http).await;
    assert!(server.terminate().await.success());
    let answer = soon("the pop is answered", poll).await.unwrap();
    assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (503, "1"));
}

#[apply(both_backends!)]
async fn a_key_makes_a_push_repeatable(server: Server) {
    let http = Http::admin(&server).await;
    for _ in 0..3 {
        push(&http, "jobs?idempotency_key=k", json!({"data": 1})).await;
    }
    assert_eq!(pop(&http, "jobs").await["data"], 1);
    push(&http, "jobs?idempotency_key=k", json!({"data": 1})).await;
    assert!(is_empty(&http, "jobs").await, "also after it was popped");
    push(&http, "others?idempotency_key=k", json!({"data": 2})).await;
    assert_eq!(pop(&http, "others").await["data"], 2);
}

#[apply(both_backends_in_pairs!)]
async fn a_lease_ends_with_an_ack_or_by_itself(server: Server) {
    let mut raw = server.admin().await;
    let http = Http::admin(&server).await;
    for n in 1..=3 {
        raw.call("queue.push", json!({"list": "jobs", "event": {"data": n}})).await;
    }
    let lease = json!({"list": "jobs", "lease_ms": 8000});
    let first = raw.call("queue.pop", lease.clone()).await;
    assert_eq!((&first["event"]["data"], &first["deliveries"]), (&json!(1), &json!(1)));
    let second = raw.call("queue.pop", lease.clone()).await;
    raw.call("queue.ack", json!({"lease": second["lease"]})).await;
    let third = raw.call("queue.pop", json!({"list": "jobs", "lease_ms": 60_000})).await;
    raw.call("queue.ack", json!({"lease": third["lease"], "release": true})).await;
    assert_eq!(pop(&http, "jobs").await["data"], 3);
    // The first one is offered again when its lease has ended.
    let again = raw.call("queue.pop", json!({"list": "jobs", "lease_ms": 60_000})).await;
    assert_eq!((&again["event"], &again["deliveries"]), (&first["event"], &json!(2)));
    let late = raw.fail("queue.ack", json!({"lease": first["lease"]})).await;
    assert_eq!(late["data"]["status"], 409);
    raw.call("queue.extend", json!({"lease": again["lease"], "lease_ms": 70_000})).await;
    let error = raw.fail("queue.extend", json!({"lease": again["lease"], "lease_ms": 999})).await;
    assert_eq!(error["data"]["status"], 422);
    let late = raw.fail("queue.extend", json!({"lease": first["lease"], "lease_ms": 70_000})).await;
    assert_eq!(late["data"]["status"], 409);
    raw.call("queue.ack", json!({"lease": again["lease"]})).await;
    let gone = raw.fail("queue.ack", json!({"lease": again["lease"]})).await;
    assert_eq!(gone["data"]["status"], 409);
    assert!(is_empty(&http, "jobs").await);
    // A plain pop on the WebSocket needs no ack.
    push(&http, "jobs", json!({"data": 4})).await;
    let popped = raw.call("queue.pop", json!({"list": "jobs"})).await;
    assert_eq!((&popped["event"]["data"], &popped["lease"]), (&json!(4), &Value::Null));
}

/// A push on one instance wakes a pop on another.
#[apply(in_pairs!)]
#[tokio::test]
async fn two_instances_share_a_queue() {
    let one = Server::start_with(Backend::Production, &ONE_PLACE).await;
    let two = one.another().await;
    let (here, there) = (Http::admin(&one).await, Http::admin(&two).await);
    // The best of several, as above.
    let mut best = Duration::MAX;
    for n in 1..=5 {
        let poll = waiting(&there).await;
        let begun = Instant::now();
        push(&here, "jobs", json!({"data": n})).await;
        assert_eq!(soon("the pop is answered", poll).await.unwrap().ok()["data"], n);
        best = best.min(begun.elapsed());
    }
    assert!(best < Duration::from_secs(4), "signalled: {best:?}");
}

/// What KernelCI's own server has pushed and nobody has popped (contract 7.6), also while it still runs.
#[tokio::test]
async fn items_of_kernelcis_own_server_are_taken_over_in_their_order() {
    let server = Server::start(Backend::Production).await;
    let other = server.another().await;
    let (http, there) = (Http::admin(&server).await, Http::new(&other).with(server.token().await));
    let mut redis = to_redis(None).await;
    let list = format!("lab-{}", bson::oid::ObjectId::new());
    let item = |n: u64| {
        format!(
            "{{\"specversion\": \"1.0\", \"id\": \"i{n}\", \"source\": \"s\", \"type\": \"t\", \"data\": {{\"n\": {n}}}}}"
        )
    };
    let push = async |redis: &mut redis::aio::MultiplexedConnection, text: String| {
        redis::cmd("RPUSH").arg(&list).arg(text).exec_async(redis).await.expect("pushed");
    };
    for n in 0..5 {
        push(&mut redis, item(n)).await;
    }
    push(&mut redis, "not even JSON".to_owned()).await;
    let first = pop(&http, &list).await;
    assert_eq!((&first["id"], &first["data"]), (&json!("i0"), &json!({"n": 0})), "as it was pushed");
    for n in 1..5 {
        let http = if n % 2 == 0 { &http } else { &there };
        assert_eq!(pop(http, &list).await["data"]["n"], n);
    }
    assert_eq!(pop(&http, &list).await["data"], "not even JSON");
    assert!(is_empty(&http, &list).await);
    let left: u64 = redis::cmd("LLEN").arg(&list).query_async(&mut redis).await.expect("a length");
    assert_eq!(left, 0);
    push(&mut redis, item(7)).await;
    assert_eq!(pop(&there, &list).await["data"]["n"], 7, "while the other one still runs");
    // Something else of this name is no list.
    let word = format!("word-{list}");
    redis::cmd("SET").arg(&word).arg("x").exec_async(&mut redis).await.expect("set");
    assert!(is_empty(&http, &word).await);
    redis::cmd("DEL").arg(&word).exec_async(&mut redis).await.expect("deleted");
}
