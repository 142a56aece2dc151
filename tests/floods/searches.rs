//! Searches that no index serves, and patterns that are dear to compile and to keep.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::Bystander;
use super::looks::{At, at_rest, is_back};
use crate::support::{Backend, Http, PATIENCE, Server, both_backends_in_pairs, node};

/// Three thousand nodes of a kilobyte.
async fn fill(server: &Server) {
    let mut session = server.admin().await;
    let http = Http::admin(server).await;
    for tree in 0..3 {
        let root =
            session.call("node.create", json!({"node": node("checkout", &format!("root-{tree}"))})).await;
        let child = |number: usize| {
            let mut child = node("kbuild", &format!("kbuild-{tree}-{number}"));
            child["data"] = json!({"log": format!("{}{number}", "a b c d e ".repeat(90))});
            json!({"node": child, "child_nodes": []})
        };
        let tree = json!({"node": root, "child_nodes": (0..1000).map(child).collect::<Vec<_>>()});
        let id = root["id"].as_str().expect("an id");
        let answer = http.put(&format!("/latest/nodes/{id}"), &tree).await;
        assert_eq!(answer.status, 200, "{:.300}", answer.text);
    }
}

/// Four strangers look through everything, 28 times each; what an index serves, the health and events go on meanwhile.
#[apply(both_backends_in_pairs!)]
async fn searches_of_strangers_hold_nobody_up(server: Server) {
    fill(&server).await;
    let mut bystander = Bystander::come(&server).await;
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    let mut sessions = Vec::new();
    for stranger in 0..4 {
        let mut session = server.anonymous().await;
        for number in 0..28 {
            let pattern = format!("(a|b| )*c.*{stranger}{number}x$");
            let filter = json!({"filter": {"data.log__re": pattern}});
            session.send_request("node.count", filter).await.expect("sent");
        }
        sessions.push(session);
    }
    for _ in 0..5 {
        bystander.work().await;
    }
    let grown = server.memory().saturating_sub(memory);
    assert!(grown < 96 << 20, "{} MiB", grown >> 20);
    // Two leave, the others are answered.
    sessions.truncate(2);
    for session in &mut sessions {
        for _ in 0..28 {
            let answer = session.receive(2 * PATIENCE).await.expect("an answer");
            let told = answer["error"]["data"]["temporary"].as_bool();
            assert!(answer["result"]["count"] == 0 || told == Some(true), "{answer}");
        }
    }
    drop(sessions);
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
}

/// Patterns of a stranger's subscriptions, as many as there may be of both.
#[apply(both_backends_in_pairs!)]
async fn patterns_are_counted(backend: Backend) {
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "600000")]).await;
    let mut bystander = Bystander::come(&server).await;
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    let mut strangers = Vec::new();
    for stranger in 0..4 {
        let mut session = server.anonymous().await;
        let mut refused = 0;
        for sub in 0..128 {
            let pattern =
                |number: usize| json!({"data.name__re": format!("\\pL{{3}}{stranger}{sub}{number}")});
            let filter = json!({"any": (0..8).map(pattern).collect::<Vec<Value>>()});
            let answer = session.request("event.subscribe", json!({"sub": sub, "filter": filter})).await;
            match answer["error"]["data"]["status"].as_u64() {
                None => {}
                Some(429) => refused += 1,
                other => panic!("{other:?}: {answer}"),
            }
        }
        assert!(refused > 64, "{refused} subscriptions are too many");
        strangers.push(session);
    }
    let grown = server.memory().saturating_sub(memory);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    // A large event is looked at with each of them.
    let mut large = node("checkout", "large");
    large["data"] = json!({"log": "ä".repeat(25_000)});
    bystander.session.call("node.create", json!({"node": large})).await;
    bystander.session.event(1).await;
    for _ in 0..3 {
        bystander.work().await;
    }
    drop(strangers);
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
}

/// Patterns that nobody has sent before, as fast as they go, most of them for filters that are refused.
#[apply(both_backends_in_pairs!)]
async fn patterns_are_compiled_apart(server: Server) {
    let mut bystander = Bystander::come(&server).await;
    bystander.work().await;
    let before = at_rest(&server, At::Process).await;
    let mut sessions = Vec::new();
    for stranger in 0..4 {
        let mut session = server.anonymous().await;
        for number in 0..120 {
            let pattern =
                |at: usize| (format!("data.a{at}__re"), format!("\\pL{{3}}{stranger}1{number}1{at}").into());
            let filter: Value = (0..8).map(pattern).collect::<serde_json::Map<_, _>>().into();
            let (method, params) = match number % 2 {
                0 => ("event.subscribe", json!({"sub": number, "filter": filter})),
                _ => ("event.find", json!({"channel": "node", "filter": filter})),
            };
            session.send_request(method, params).await.expect("sent");
        }
        sessions.push(session);
    }
    for _ in 0..10 {
        bystander.work().await;
    }
    bystander.was_not_held_up();
    drop(sessions);
    assert_eq!(is_back(&server, At::Process, &before).await, Ok(()));
}
