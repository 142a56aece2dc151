//! How a session begins, what it may do, and how it ends.

use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{
    Backend, Http, PATIENCE, Raw, Server, answer, both_backends, both_backends_in_pairs, node, until,
};

const PROTOCOL: Option<&str> = Some("kernelci.v1.json");

/// The HTTP status of a refused upgrade.
fn refusal(connected: Result<Raw, Error>) -> u16 {
    match connected {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("the upgrade fails with {other}"),
        Ok(_) => panic!("the upgrade succeeds"),
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[apply(both_backends!)]
async fn hello_with_a_token_tells_the_facts(server: Server) {
    let mut raw = server.connect().await;
    assert_eq!(raw.upgrade.headers()["sec-websocket-protocol"], "kernelci.v1.json");
    let facts = raw.call("session.hello", json!({"token": server.token().await, "client": "tests/1"})).await;
    assert_eq!(facts["user"], "admin");
    assert!(facts["session"].as_str().is_some_and(|id| !id.is_empty()), "{facts}");
    assert!(facts["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()), "{facts}");
    assert!(facts["expires_in"].as_i64().is_some_and(|seconds| seconds > 0), "{facts}");
    assert_eq!(facts["ping_ms"], 25_000);
    let mut limits = facts["limits"].clone();
    // What a user may have of what stays: `contract::limits`.
    assert!(limits["user"].take().is_object(), "{facts}");
    let expected = json!({"message": 1_048_576, "subscriptions": 128, "inflight": 32, "user": null});
    assert_eq!(limits, expected);
    raw.call("node.create", json!({"node": node("checkout", "mine")})).await;
}

#[apply(both_backends!)]
async fn the_upgrade_may_carry_the_token(server: Server) {
    let token = bearer(server.token().await);
    for path in ["latest", "v0"] {
        let url = format!("ws://127.0.0.1:{}/{path}/ws", server.port());
        let mut raw = Raw::connect(&url, PROTOCOL, &[("authorization", &token)]).await.expect("upgrades");
        let facts = raw.call("session.hello", json!({})).await;
        assert_eq!(facts["user"], "admin", "{path}");
        raw.call("node.create", json!({"node": node("checkout", "mine")})).await;
    }
}

#[apply(both_backends!)]
async fn hello_comes_first(server: Server) {
    let mut raw = server.connect().await;
    assert_eq!(raw.fail("node.find", json!({})).await["code"], -32001);
    raw.call("session.hello", json!({})).await;
    raw.call("node.find", json!({})).await;
    // A request right behind the hello is not overtaken by it.
    let mut raw = server.connect().await;
    let hello =
        raw.send_request("session.hello", json!({"token": server.token().await})).await.expect("sent");
    let create = json!({"node": node("checkout", "at once")});
    let create = raw.send_request("node.create", create).await.expect("sent");
    assert!(raw.answer(hello).await["error"].is_null());
    assert!(raw.answer(create).await["error"].is_null());
}

#[apply(both_backends!)]
async fn another_subprotocol_is_refused(server: Server) {
    assert_eq!(refusal(Raw::connect(&server.ws_url(), Some("graphql-ws"), &[]).await), 400);
}

#[apply(both_backends!)]
async fn without_a_token_one_may_read(server: Server) {
    let mut raw = server.connect().await;
    let facts = raw.call("session.hello", json!({})).await;
    assert_eq!((&facts["user"], &facts["expires_in"]), (&Value::Null, &Value::Null));
    raw.call("node.find", json!({})).await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
    for (method, params) in [
        ("node.create", json!({"node": node("checkout", "x")})),
        ("event.publish", json!({"channel": "test", "data": 1})),
    ] {
        let error = raw.fail(method, params).await;
        assert_eq!((&error["code"], &error["data"]["status"]), (&json!(-32001), &json!(401)), "{method}");
        assert_eq!(error["data"]["detail"], "Unauthorized");
    }
}

#[apply(both_backends!)]
async fn anonymous_reading_can_be_switched_off(backend: Backend) {
    let server = Server::start_with(backend, &[("ANONYMOUS_READ", "false")]).await;
    let mut raw = server.anonymous().await;
    for (method, params) in [
        ("node.find", json!({})),
        ("event.find", json!({})),
        ("event.subscribe", json!({"sub": 1, "channel": "node"})),
    ] {
        assert_eq!(raw.fail(method, params).await["code"], -32001, "{method}");
    }
    server.admin().await.call("node.find", json!({})).await;
}

#[apply(both_backends!)]
async fn a_bad_token_is_refused(server: Server) {
    let expired = server.token_for(-60).await;
    let stranger = server.sign(json!({"sub": "0123456789abcdef01234567"})).await;
    let elsewhere = server.sign(json!({"aud": "somewhere:else"})).await;
    for token in ["", "nonsense", "a.b.c", &expired, &stranger, &elsewhere] {
        let mut raw = server.connect().await;
        let error = raw.fail("session.hello", json!({"token": token})).await;
        assert_eq!((&error["code"], &error["data"]["status"]), (&json!(-32001), &json!(401)), "{token}");
        assert_eq!(raw.expect_close().await, 4401, "{token}");
    }
    let upgrade = Raw::connect(&server.ws_url(), PROTOCOL, &[("authorization", &bearer(&expired))]).await;
    assert_eq!(refusal(upgrade), 401);
}

#[apply(both_backends!)]
async fn refresh_renews_in_place(server: Server) {
    let mut raw = server.connect().await;
    let facts = raw.call("session.hello", json!({"token": server.token_for(120).await})).await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
    assert!((100..=120).contains(&facts["expires_in"].as_i64().unwrap()), "{facts}");
    assert_eq!(raw.fail("session.refresh", json!({"token": "nonsense"})).await["code"], -32001);
    raw.call("node.create", json!({"node": node("checkout", "still mine")})).await;
    let later = raw.call("session.refresh", json!({"token": server.token_for(500).await})).await;
    assert!((480..=500).contains(&later["expires_in"].as_i64().unwrap()), "{later}");
    assert_eq!(later["session"], facts["session"]);
    raw.event(1).await;
}

/// Gives the session a token that ends in a moment; one that has ended on its way is refused and changes nothing.
async fn refresh_for_a_moment(raw: &mut Raw, server: &Server) {
    until("a token that is nearly over is taken", async || {
        let answer = raw.request("session.refresh", json!({"token": server.token_for(3).await})).await;
        if answer["error"].is_null() { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[apply(both_backends!)]
async fn an_expired_session_becomes_anonymous(server: Server) {
    let mut raw = server.connect().await;
    // It is told a minute before the end.
    raw.call("session.hello", json!({"token": server.token_for(58).await})).await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
    raw.call("node.create", json!({"node": node("checkout", "in time")})).await;
    let notice = raw.next_notification("session.expiring", PATIENCE).await;
    assert!(notice["in_ms"].as_i64().is_some_and(|ms| (0..=58_000).contains(&ms)), "{notice}");
    refresh_for_a_moment(&mut raw, &server).await;
    until("the session is nobody's any more", async || {
        let answer = raw.request("user.whoami", json!({})).await;
        if answer["error"]["code"] == -32001 { Ok(()) } else { Err(answer) }
    })
    .await;
    let error = raw.fail("node.create", json!({"node": node("checkout", "too late")})).await;
    assert_eq!(error["code"], -32001);
    raw.event(1).await;
    server.admin().await.call("node.create", json!({"node": node("checkout", "other")})).await;
    assert_eq!(raw.event(1).await["event"]["data"]["name"], "other", "what anybody may read goes on");
    raw.call("session.refresh", json!({"token": server.token().await})).await;
    raw.call("node.create", json!({"node": node("checkout", "again")})).await;
}

#[apply(both_backends!)]
async fn an_expired_session_loses_what_needs_rights(backend: Backend) {
    let server = Server::start_with(backend, &[("ANONYMOUS_READ", "false")]).await;
    let mut raw = server.admin().await;
    raw.call("event.subscribe", json!({"sub": 7, "channel": "node"})).await;
    refresh_for_a_moment(&mut raw, &server).await;
    let ended = raw.next_notification("unsubscribed", PATIENCE).await;
    assert_eq!(ended["sub"], 7);
    assert!(ended["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{ended}");
    assert_eq!(raw.fail("node.find", json!({})).await["code"], -32001);
    let mut admin = server.admin().await;
    admin.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
    admin.call("node.create", json!({"node": node("checkout", "secret")})).await;
    admin.event(1).await;
    // What the session is shown once it may read again would have come behind the secret.
    raw.call("session.refresh", json!({"token": server.token().await})).await;
    raw.call("event.subscribe", json!({"sub": 8, "channel": "node"})).await;
    admin.call("node.create", json!({"node": node("checkout", "open")})).await;
    assert_eq!(raw.event(8).await["event"]["data"]["name"], "open");
    raw.assert_none_came("event", 7);
}

#[apply(both_backends_in_pairs!)]
async fn a_deactivated_user_loses_the_session(backend: Backend) {
    // With a ping it is looked whether the user is still there.
    let settings = [("ANONYMOUS_READ", "false"), ("PING_INTERVAL_MS", "2000")];
    let server = Server::start_with(backend, &settings).await;
    let mut raw = server.admin().await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
    raw.call("node.create", json!({"node": node("checkout", "in office")})).await;
    raw.event(1).await;
    server.deactivate("admin").await;
    assert_eq!(raw.next_notification("unsubscribed", PATIENCE).await["sub"], 1);
    assert_eq!(raw.fail("node.create", json!({"node": node("checkout", "too late")})).await["code"], -32001);
    assert_eq!(raw.fail("session.refresh", json!({"token": server.token().await})).await["code"], -32001);
}

#[apply(both_backends!)]
async fn foreign_pages_have_no_credentials(backend: Backend) {
    let server = Server::start_with(backend, &[("ALLOWED_ORIGINS", "https://ok.example")]).await;
    let token = server.token().await.to_owned();
    let own = server.url();
    for origin in [own.as_str(), "https://ok.example"] {
        let mut raw =
            Raw::connect(&server.ws_url(), PROTOCOL, &[("origin", origin)]).await.expect("upgrades");
        raw.call("session.hello", json!({"token": token})).await;
        raw.call("node.create", json!({"node": node("checkout", "allowed")})).await;
    }
    for origin in ["https://evil.example", "https://ok.example.evil.example", "http://ok.example", "null"] {
        let headers = [("origin", origin), ("authorization", &bearer(&token))];
        let upgrade = Raw::connect(&server.ws_url(), PROTOCOL, &headers).await;
        assert_eq!(refusal(upgrade), 403, "{origin}");
        let mut raw =
            Raw::connect(&server.ws_url(), PROTOCOL, &[("origin", origin)]).await.expect("upgrades");
        assert_eq!(raw.fail("session.hello", json!({"token": token})).await["code"], -32003, "{origin}");
        assert_eq!(raw.expect_close().await, 4403, "{origin}");
        let mut raw =
            Raw::connect(&server.ws_url(), PROTOCOL, &[("origin", origin)]).await.expect("upgrades");
        raw.call("session.hello", json!({})).await;
        raw.call("node.count", json!({})).await;
        assert_eq!(raw.fail("session.refresh", json!({"token": token})).await["code"], -32003, "{origin}");
    }
}

#[apply(both_backends!)]
async fn whoever_says_nothing_is_cut(backend: Backend) {
    let server = Server::start_with(backend, &[("HELLO_TIMEOUT_MS", "4000")]).await;
    // In time, which it may not be at once on a slow machine.
    let mut polite = until("somebody says hello", async || {
        let mut raw = server.connect().await;
        raw.try_request("session.hello", json!({})).await.map(|_| raw)
    })
    .await;
    // Whoever comes later is cut later: the time of the polite one is over, too, twice.
    for _ in 0..2 {
        let since = Instant::now();
        let mut silent = server.connect().await;
        assert_eq!(silent.expect_close().await, 4408);
        assert!(since.elapsed() >= Duration::from_millis(3500), "{:?}", since.elapsed());
    }
    polite.call("node.count", json!({})).await;
}

#[apply(both_backends_in_pairs!)]
async fn whoever_answers_no_ping_is_cut(backend: Backend) {
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "2000")]).await;
    let mut polite = server.anonymous().await;
    let deaf = server.anonymous().await;
    let mut stream = deaf.into_stream();
    // Reading raw bytes answers nothing; what comes is pings, then the close frame 4408 or the end.
    let mut bytes = Vec::new();
    tokio::select! {
        _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes) => {}
        () = polite.answer_pings(12) => panic!("the silent session is not ended"),
    }
    // Nobody is cut who has answered more of them than the other one was sent.
    polite.answer_pings(4).await;
    assert!(bytes.windows(2).any(|pair| pair == 4408u16.to_be_bytes()), "{bytes:?}");
    polite.call("node.count", json!({})).await;
}

#[apply(both_backends!)]
async fn before_hello_messages_are_small(server: Server) {
    let mut raw = server.connect().await;
    let client = "x".repeat(9 * 1024);
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "session.hello", "params": {"client": client}});
    raw.send_text(hello.to_string()).await;
    assert_eq!(raw.expect_close().await, 4413);
}

#[apply(both_backends!)]
async fn a_larger_message_than_allowed_ends_the_session(server: Server) {
    let mut raw = server.admin().await;
    let mut large = node("checkout", "large");
    large["data"]["error_msg"] = "x".repeat(1_000_000).into();
    raw.call("node.create", json!({"node": large})).await;
    large["data"]["error_msg"] = "x".repeat(1_048_576).into();
    // The server may close before all of it is written.
    let _ = raw.send_request("node.create", json!({"node": large})).await;
    assert_eq!(raw.expect_close().await, 4413);
    server.admin().await.call("node.count", json!({})).await;
}

#[apply(both_backends!)]
async fn sigterm_says_goodbye(backend: Backend) {
    // Some time between now and then, and at once.
    for spread in ["500", "0"] {
        let mut server = Server::start_with(backend, &[("DRAIN_MS", spread)]).await;
        let mut raw = server.admin().await;
        raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
        raw.call("node.create", json!({"node": node("checkout", "last")})).await;
        server.ask_to_stop();
        let notice = raw.next_notification("session.closing", PATIENCE).await;
        assert_eq!(notice["code"], 1012);
        assert_eq!(notice["resume"], true);
        assert!(notice["after_ms"].is_u64() && notice["jitter_ms"].is_u64(), "{notice}");
        assert_eq!(raw.expect_close().await, 1012);
        assert_eq!(raw.event(1).await["event"]["data"]["name"], "last");
        assert!(server.exited().await.success());
    }
}

#[apply(both_backends!)]
async fn a_close_is_answered(server: Server) {
    let mut raw = server.anonymous().await;
    raw.send(Message::Close(None)).await.expect("sent");
    raw.expect_close().await;
}

/// What one session, and one request, may have is what the settings say.
#[apply(both_backends!)]
async fn the_limits_of_a_session_are_settings(backend: Backend) {
    let settings = [
        ("MESSAGE_KB", "128"),
        ("MESSAGE_KB_OF_STRANGERS", "16"),
        ("SUBSCRIPTIONS_PER_SESSION", "2"),
        ("REQUESTS_PER_SESSION", "3"),
        ("FILTERS_MB_PER_SESSION", "1"),
        ("BODY_MB", "2"),
        ("LARGE_BODY_MB", "3"),
    ];
    let server = Server::start_with(backend, &settings).await;
    let mut raw = server.admin().await;
    let facts = raw.call("session.hello", json!({"token": server.token().await})).await;
    let limits = &facts["limits"];
    assert_eq!(
        [&limits["message"], &limits["subscriptions"], &limits["inflight"]],
        [&json!(128 << 10), &json!(2), &json!(3)]
    );
    raw.call("event.subscribe", json!({"sub": 1})).await;
    let large: serde_json::Map<String, Value> =
        (0..8).map(|number| (format!("data.a{number}__re"), json!(format!("\\pL{{3}}{number}")))).collect();
    let pattern = json!({"sub": 2, "filter": large});
    assert_eq!(raw.fail("event.subscribe", pattern.clone()).await["data"]["status"], 429);
    let member = with(&pattern, json!({"durable": "large", "group": true}));
    assert_eq!(raw.fail("event.subscribe", member).await["data"]["status"], 429, "a group's counts, too");
    assert_eq!(raw.call("consumer.list", json!({})).await["items"], json!([]));
    raw.call("event.subscribe", json!({"sub": 2})).await;
    assert_eq!(raw.fail("event.subscribe", json!({"sub": 3})).await["data"]["status"], 429);
    for id in 10..13 {
        raw.send_text(pop(id)).await;
    }
    raw.send_text(pop(13)).await;
    assert_eq!(raw.answer(13).await["error"]["data"]["status"], 429);
    raw.send_text(" ".repeat((128 << 10) + 1)).await;
    assert_eq!(raw.expect_close().await, 4413);

    let mut stranger = server.connect().await;
    stranger.call("session.hello", json!({})).await;
    stranger.send_text(" ".repeat((16 << 10) + 1)).await;
    assert_eq!(stranger.expect_close().await, 4413);

    let http = Http::admin(&server).await;
    let padded = async |path: &str, body: Value, bytes: usize| {
        let request = http.request("POST", path).body(body.to_string() + &" ".repeat(bytes));
        answer(request).await
    };
    let rpc = |method: &str, params| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let submit = json!({"id": "0123456789abcdef01234567", "tree": []});
    for (method, params, bytes, is_larger) in [
        ("node.count", json!({}), 64 << 10, false),
        ("node.count", json!({}), 128 << 10, true),
        ("telemetry.add", json!({"events": []}), 128 << 10, true),
        ("node.submit", submit.clone(), 1 << 20, false),
    ] {
        let answer = padded("/latest/rpc", rpc(method, params), bytes).await;
        assert_eq!(answer.json["error"]["data"]["status"] == 413, is_larger, "{method}: {}", answer.text);
    }
    for (path, bytes, is_larger) in [
        ("/latest/publish/x", 1 << 20, false),
        ("/latest/publish/x", 2 << 20, true),
        ("/latest/node", 2 << 20, false),
        ("/latest/node", 3 << 20, true),
        ("/latest/telemetry", 2 << 20, false),
        ("/latest/telemetry", 3 << 20, true),
        ("/latest/rpc", 3 << 20, true),
    ] {
        let answer = padded(path, submit.clone(), bytes).await;
        assert_eq!(answer.status == 413, is_larger, "{path}: {} {}", answer.status, answer.text);
    }
}

fn with(params: &Value, more: Value) -> Value {
    let both = [params, &more].into_iter().flat_map(|object| object.as_object().expect("an object").clone());
    Value::Object(both.collect())
}

/// A request that waits.
fn pop(id: u64) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "queue.pop", "params": {"list": "empty"}}).to_string()
}
