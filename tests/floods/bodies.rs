//! Bodies of requests: many halves, large ones that are refused, lists of what is wrong.

use std::cell::Cell;

use kernelci_live::ops::{Body, table};
use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::looks::{At, at_rest, is_back};
use super::{Bystander, close_code, frame_of, head, metric, rest_of, says, says_from};
use crate::support::{
    Backend, Http, Server, answer, both_backends, both_backends_in_pairs, eventually, soon,
};

/// Of the megabyte that each of these sends half of.
const HALVES: usize = 400;
const MEMORY: u64 = 160 << 20;

/// Strangers from everywhere who send half of a body each, or much of it in the smallest pieces: no more of it is held
/// than there may be, and those who stand still are not waited for.
#[apply(both_backends_in_pairs!)]
async fn halves_of_bodies_are_counted(backend: Backend) {
    let settings = [
        ("BODIES_MB", "16"),
        ("BODIES_MB_PER_ADDRESS", "4"),
        ("MESSAGE_TIMEOUT_MS", "3000"),
        ("MIMALLOC_PURGE_DELAY", "0"),
    ];
    let server = Server::start_with(backend, &settings).await;
    let mut bystander = Bystander::come(&server).await;
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    let large = " ".repeat(1_000_000);
    // Each costs a stranger six bytes.
    let pieces = "1\r\n \r\n".repeat(2000);
    for (what, head, body) in [
        ("halves", head("POST /latest/rpc", None, "content-length: 1048576\r\n"), large),
        ("pieces", head("POST /latest/rpc", None, "transfer-encoding: chunked\r\n"), pieces),
    ] {
        let mut held = Vec::new();
        let mut most = 0;
        for number in 0..HALVES {
            let mut stream = says_from(&server, 10 + (number % 48) as u8, head.as_bytes()).await;
            // Who is refused may be told before all is sent.
            _ = soon(what, stream.write_all(body.as_bytes())).await;
            held.push(stream);
            most = most.max(server.memory().saturating_sub(memory));
        }
        bystander.work().await;
        println!("{what}: {} MiB", most >> 20);
        assert!(most < MEMORY, "{what}: {} MiB", most >> 20);
        drop(held);
        assert_eq!(is_back(&server, At::Process, &before).await, Ok(()), "{what}");
    }
}

/// A length that is only said takes nothing, and what has come of a message on a session counts as a body does.
#[apply(both_backends_in_pairs!)]
async fn what_is_only_said_costs_nothing_and_what_comes_is_counted(backend: Backend) {
    let settings = [("BODIES_MB", "8"), ("BODIES_MB_PER_USER", "8"), ("MESSAGE_TIMEOUT_MS", "600000")];
    let server = Server::start_with(backend, &settings).await;
    let mut bystander = Bystander::come(&server).await;
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    let mut held = Vec::new();
    for path in ["/latest/rpc", "/latest/telemetry"] {
        let head = head(&format!("POST {path}"), Some(server.token().await), "content-length: 33554432\r\n");
        for _ in 0..100 {
            held.push(says(&server, format!("{head}{{").as_bytes()).await);
        }
    }
    // A byte of each is there.
    eventually("all are there", async || taken(&server).await >= 200).await;
    let grown = server.memory().saturating_sub(memory);
    assert!(grown < 64 << 20, "{} MiB for 200 lengths", grown >> 20);
    drop(held);
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));

    let mut held = Vec::new();
    let half = frame_of(0x81, &[b' '; 1 << 20]);
    for number in 1..=9 {
        let mut stream = server.admin().await.into_stream();
        stream.write_all(&half[..900_000]).await.expect("sent");
        held.push(stream);
        let all = number * 800_000;
        eventually("it is counted", async || taken(&server).await >= all).await;
    }
    // Who brings too much is sent away.
    let mut late = server.admin().await.into_stream();
    _ = late.write_all(&half[..1_000_000]).await;
    assert_eq!(close_code(&rest_of(&mut late).await.expect("the session ends")), Some(1013));
    bystander.work().await;
    // Whoever goes on is heard.
    let mut first = held.swap_remove(0);
    first.write_all(&half[900_000..]).await.expect("sent");
    drop(held);
    eventually("it is free again", async || taken(&server).await < 800_000).await;
    drop(first);
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
}

/// Bytes of bodies that are counted.
async fn taken(server: &Server) -> u64 {
    metric(server, "kernelci_quota_taken", "\"body_bytes\"").await
}

/// Whatever is made of it would be many times as large: it is not read at all.
#[apply(both_backends_in_pairs!)]
async fn many_small_values_are_refused(server: Server) {
    let mut bystander = Bystander::come(&server).await;
    let http = Http::admin(&server).await;
    let reader = http.post("/latest/user/tokens", &json!({"name": "reader", "scopes": ["read"]})).await.ok();
    let reader = Http::new(&server).with(reader["token"].as_str().expect("a token"));
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    let list = format!("[{}[]]", "[],".repeat((31 << 20) / 3));
    let rpc =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"node.submit","params":{{"id":"0","tree":{list}}}}}"#);
    let id = "0123456789abcdef01234567";
    for (path, method, body) in [
        ("/latest/rpc", "POST", rpc),
        (&*format!("/latest/nodes/{id}"), "PUT", list.clone()),
        ("/latest/telemetry", "POST", list),
    ] {
        let send = || answer(reader.request(method, path).body(body.clone()));
        let (most, answered) = (Cell::new(0), Cell::new(false));
        let answers = async {
            let answers = tokio::join!(send(), send(), send());
            answered.set(true);
            answers
        };
        let others = async {
            while !answered.get() {
                bystander.work().await;
                most.set(most.get().max(server.memory().saturating_sub(memory)));
            }
        };
        let (answers, ()) = tokio::join!(answers, others);
        for answer in [&answers.0, &answers.1, &answers.2] {
            let status = answer.json["error"]["data"]["status"].as_u64().unwrap_or(answer.status.into());
            assert!((400..500).contains(&status), "{path}: {} {:.300}", answer.status, answer.text);
            assert!(answer.text.len() < 10_000, "{path}: {} bytes", answer.text.len());
        }
        // Three bodies, each as it comes and as a whole.
        assert!(most.get() < 3 * 2 * (32 << 20), "{path}: {} MiB", most.get() >> 20);
    }
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
}

/// For every list that an operation takes: of ten thousand wrong members the first are told.
#[apply(both_backends!)]
async fn ten_thousand_mistakes_are_not_all_told(server: Server) {
    let http = Http::admin(&server).await;
    let mut lists = 0;
    for operation in table().iter() {
        let properties = operation.schema()["properties"].as_object().cloned().unwrap_or_default();
        let is_list = |schema: &Value| {
            let kinds = schema["type"]
                .as_array()
                .map_or_else(|| vec![&schema["type"]], |kinds| kinds.iter().collect());
            kinds.contains(&&json!("array"))
        };
        for name in properties.iter().filter(|(_, schema)| is_list(schema)).map(|(name, _)| name) {
            lists += 1;
            let wrong: Vec<Value> = (0..10_000).map(|number| json!({"wrong": number})).collect();
            let params = json!({name: wrong});
            let request = json!({"jsonrpc": "2.0", "id": 1, "method": operation.name, "params": params});
            let mut answers = vec![http.post("/latest/rpc", &request).await];
            for route in &operation.routes {
                let body = match route.body {
                    Body::Under(under) if under == name => json!(wrong),
                    Body::Params => json!({route.alias(name): wrong}),
                    _ => continue,
                };
                let path = route.path.replace("{id}", "0123456789abcdef01234567");
                answers.push(http.send(route.method.as_str(), &format!("/latest{path}"), Some(&body)).await);
            }
            for answer in answers {
                assert!((200..500).contains(&answer.status), "{}: {}", operation.name, answer.status);
                assert!(answer.text.len() < 20_000, "{} {name}: {} bytes", operation.name, answer.text.len());
            }
        }
    }
    assert!(lists > 3, "{lists} lists");
}
