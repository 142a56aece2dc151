//! Whole requests to a whole server: whatever comes over a connection, the answer is never our fault.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tower::Layer;

use crate::app::App;
use crate::config::Config;
use crate::fuzz::{Fuzz, corpus, cuts, json as texts};
use crate::http::peer::Connected;
use crate::ops;
use crate::store::users::UserKey;

/// Stands for a token that is good.
const TOKEN: &str = "the-token-of-the-admin";
/// Feeds and long polls answer in their own time, which is not waited for.
const PATIENCE: Duration = Duration::from_millis(400);
const WORDS: &[&str] = &[
    "node",
    "job",
    "checkout",
    "kbuild",
    "process",
    "done",
    "pass",
    "68f0aa11bb22cc33dd44ee55",
    "0123456789abcdef0123456789abcdef",
    "2026-01-01T00:00:00",
    "-created",
    "latest",
    "earliest",
    "0",
    "5",
    "true",
    "^a.*b",
    "kind=job&limit=5",
    "https://example.org/a",
    "admin",
];

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    config: Config,
}

/// A server with one node in it, which lives as long as this.
struct Server {
    app: Arc<App>,
    token: String,
    node: String,
    _data: tempfile::TempDir,
}

impl Server {
    async fn start() -> Server {
        let data = tempfile::tempdir().unwrap();
        let mut config = Options::parse_from(["server"]).config;
        config.secrets.initial_password = Some("secret".to_owned());
        // Whatever the environment says.
        config.data = data.path().to_owned();
        (config.mongo_url, config.mongo_service) = (None, None);
        (config.redis_url, config.redis_host) = (None, None);
        let (app, _) = App::build(config).await.unwrap();
        let admin = app.store.user(UserKey::Name("admin")).await.unwrap().unwrap();
        let token = app.tokens.issue(&admin).unwrap();
        let caller = app.caller(&token).await.unwrap();
        let params = json!({"node": {"kind": "checkout", "name": "checkout", "path": ["checkout"]}});
        let context = ops::Context::new(app.clone(), caller, Arc::default(), None);
        let create = app.table.get("node.create").unwrap();
        let made = create.call(context, ops::Params::Value(params)).await.unwrap().rpc().unwrap();
        let made: Value = serde_json::from_str(&made).unwrap();
        let node = made["id"].as_str().unwrap().to_owned();
        Server { app, token, node, _data: data }
    }

    /// What comes back on a connection on which this comes in, in some pieces.
    async fn answer(&self, input: &[u8]) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let from = Connected([127, 0, 0, 1].into());
        let service =
            TowerToHyperService::new(axum::Extension(from).layer(crate::http::service(self.app.clone())));
        let mut builder = hyper::server::conn::http1::Builder::new();
        let connection =
            builder.half_close(true).serve_connection(TokioIo::new(server), service).with_upgrades();
        let talk = async {
            let cut = cuts(input).next().unwrap_or(0) % (input.len() + 1);
            _ = client.write_all(&input[..cut]).await;
            tokio::task::yield_now().await;
            _ = client.write_all(&input[cut..]).await;
            _ = client.shutdown().await;
            let mut answer = Vec::new();
            _ = tokio::time::timeout(PATIENCE, async {
                while client.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {
                    if answer.windows(17).any(|part| part == b"text/event-stream") {
                        return;
                    }
                }
            })
            .await;
            answer
        };
        tokio::select! {
            answer = talk => answer,
            _ = async { _ = connection.await; std::future::pending::<()>().await } => Vec::new(),
        }
    }
}

/// Names of all parameters, and of what nodes have.
fn names() -> &'static [&'static str] {
    let mut names: Vec<&'static str> = vec![
        "kind",
        "name",
        "path",
        "data",
        "state",
        "result",
        "created",
        "timeout",
        "parent",
        "kernel_revision",
        "child_nodes",
        "artifacts",
        "seq",
        "epoch",
        "time",
        "id",
        "any",
        "not",
        "name__re",
        "created__gt",
    ];
    for operation in ops::table().iter() {
        let properties = operation.schema()["properties"].as_object().cloned().unwrap_or_default();
        names.extend(properties.keys().map(|name| &*String::leak(name.clone())));
    }
    names.sort_unstable();
    names.dedup();
    names.leak()
}

/// Parameters of an operation, most of them there and many of them wrong.
fn params(operation: &ops::Operation, names: &'static [&'static str]) -> BoxedStrategy<String> {
    let properties = operation.schema()["properties"].as_object().cloned().unwrap_or_default();
    let required = operation.schema()["required"].as_array().cloned().unwrap_or_default();
    let members: Vec<_> = properties
        .keys()
        .map(|name| {
            let chance = if required.iter().any(|other| other == name.as_str()) { 0.95 } else { 0.3 };
            let name = format!("\"{name}\"");
            let value = prop_oneof![3 => texts::scalar(WORDS), 2 => texts::any_json(names, WORDS),
                1 => vec(texts::scalar(WORDS), 0..3).prop_map(|items| format!("[{}]", items.join(",")))];
            weighted(chance, value.prop_map(move |value| (name.clone(), value)))
        })
        .collect();
    members.prop_map(|members| texts::object(members.into_iter().flatten().collect())).boxed()
}

fn request(line: String, body: &str, kind: &str) -> String {
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len())
    };
    format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{length}\r\n{body}")
}

/// Requests for every operation, by its name and by its routes.
fn requests() -> BoxedStrategy<String> {
    let names = names();
    let mut all: Vec<BoxedStrategy<String>> = Vec::new();
    for operation in ops::table().iter() {
        let name = operation.name;
        // Whoever they are asked of is not there any more.
        if ["user.delete", "user.update_me", "user.logout", "user.update"].contains(&name) {
            continue;
        }
        all.push(
            params(operation, names)
                .prop_map(move |params| {
                    let body =
                        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{name}\",\"params\":{params}}}");
                    request("POST /latest/rpc".into(), &body, "application/json")
                })
                .boxed(),
        );
        for route in &operation.routes {
            let (method, path) = (route.method.clone(), route.path);
            let known: Vec<String> = operation.schema()["properties"]
                .as_object()
                .map(|all| all.keys().cloned().collect())
                .unwrap_or_default();
            let known = if known.is_empty() { vec!["limit".to_owned()] } else { known };
            let key = prop_oneof![3 => select(known), 2 => select(names).prop_map(str::to_owned)];
            let value = prop_oneof![3 => select(WORDS).prop_map(str::to_owned), 1 => texts::scalar(WORDS)];
            let query = vec((key, value.clone()), 0..4);
            let has_body = route.body != ops::Body::None;
            let kind = if route.body == ops::Body::Form {
                "application/x-www-form-urlencoded"
            } else {
                "application/json"
            };
            let body = prop_oneof![3 => params(operation, names), 1 => texts::any_json(names, WORDS)];
            let one = (query, value, body).prop_map(move |(query, value, body)| {
                let escape =
                    |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let path: Vec<String> = path
                    .split('/')
                    .map(|step| if step.starts_with('{') { escape(&value) } else { step.to_owned() })
                    .collect();
                let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
                let line = format!("{method} /latest{}?{query}", path.join("/"));
                request(line, if has_body { &body } else { "" }, kind)
            });
            all.push(one.boxed());
        }
    }
    let count = all.len();
    (0..count).prop_flat_map(move |index| all[index].clone()).boxed()
}

/// The first answer: its status and its body, as far as it is there.
fn read(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?.to_ascii_lowercase();
    let status =
        head.strip_prefix("http/1.1 ").or_else(|| head.strip_prefix("http/1.0 "))?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let is_json = head.lines().any(|line| line == "content-type: application/json");
    let body = answer[end + 4..].get(..length.filter(|_| is_json).unwrap_or(0)).unwrap_or_default();
    Some((status, body))
}

#[test]
fn any_request_is_answered_and_no_answer_is_our_fault() {
    let runtime = Runtime::new().unwrap();
    let mut server = runtime.block_on(Server::start());
    Fuzz::new("requests", 1200)
        .corpus(corpus::requests(TOKEN))
        .corpus([request(
            "POST /latest/rpc".into(),
            r#"{"jsonrpc":"2.0","id":1,"method":"node.list","params":{"offset":{}}}"#,
            "application/json",
        )])
        .words(["If-Match: \"7\"\r\n", "Idempotency-Key: k\r\n", "Content-Type: text/plain\r\n", "Transfer-Encoding: chunked\r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n", "Last-Event-ID: 1\r\n",
            "Expect: 100-continue\r\n", TOKEN])
        .grammar(requests())
        .run(|input| {
            let text = input.escape_ascii().to_string();
            let input = match std::str::from_utf8(input) {
                Ok(text) => text.replace(TOKEN, &server.token).replace(corpus::ID, &server.node).into_bytes(),
                Err(_) => input.to_vec(),
            };
            let answer = runtime.block_on(server.answer(&input));
            let Some((status, body)) = read(&answer) else { return false };
            let shown = String::from_utf8_lossy(body);
            // An empty queue is no fault of ours, though it has the status of one.
            let excused = shown.contains("the queue is empty");
            assert!(status < 500 || excused, "{status} {shown} to {text}");
            assert!(!shown.contains("untagged enum"), "{shown} to {text}");
            let mut good = status < 400;
            if !body.is_empty() {
                let body: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {shown}"));
                if let Some(error) = body.get("error").filter(|_| body.get("jsonrpc").is_some()) {
                    assert!(error["data"]["status"].as_u64().is_some_and(|status| status < 500 || excused), "{error} to {text}");
                    good = false;
                }
            }
            if status == 401 && runtime.block_on(server.app.caller(&server.token)).is_err() {
                server = runtime.block_on(Server::start());
            }
            good
        });
}
