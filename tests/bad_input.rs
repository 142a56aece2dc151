//! Input that no friendly client sends: each gets the documented error, and the server goes on for everybody else.

use std::time::{Duration, Instant};

use crate::support::{Lost, PATIENCE, Raw, Server, both_backends, both_backends_in_pairs, node, until};
use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// The server still serves others.
async fn goes_on(server: &Server) {
    let mut raw = server.admin().await;
    let made = raw.call("node.create", json!({"node": node("checkout", "goes on")})).await;
    assert_eq!(raw.call("node.get", json!({"id": made["id"]})).await["name"], "goes on");
}

/// Sends a text and returns the error that answers it.
async fn refused(raw: &mut Raw, text: &str) -> Value {
    raw.send_text(text).await;
    let mut answer = raw.receive(PATIENCE).await.expect("an answer");
    let shown: String = text.chars().take(80).collect();
    assert!(answer["error"].is_object(), "{shown}: {answer}");
    answer["error"].take()
}

/// Asserts that the request fails with one of `statuses`, and names what is wrong: one of `mentions`, split at `|`.
async fn fails(raw: &mut Raw, method: &str, params: Value, statuses: &[u64], mentions: &str) {
    let error = raw.fail(method, params.clone()).await;
    let status = error["data"]["status"].as_u64().unwrap_or_default();
    assert!(statuses.contains(&status), "{method} {params}: {error}");
    let detail = error["data"]["detail"].to_string();
    let named = |word: &str| {
        detail.match_indices(word).any(|(at, _)| {
            let around = [detail[..at].chars().next_back(), detail[at + word.len()..].chars().next()];
            around.iter().flatten().all(|c| !c.is_alphanumeric())
        })
    };
    assert!(mentions.split('|').any(named), "{method} {params}: {error}");
}

/// A masked client frame with this header and payload, which need not fit together.
fn frame(first_byte: u8, announced: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte, 0x80 | 127];
    bytes.extend(announced.to_be_bytes());
    bytes.extend([0; 4]); // a mask that changes nothing
    bytes.extend(payload);
    bytes
}

/// The close code in what the server sends on a bare stream until it ends it, if there is a close frame.
async fn close_code(stream: &mut TcpStream) -> Option<u16> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "the connection stays open");
    let at = bytes.windows(2).rposition(|pair| pair[0] == 0x88 && pair[1] >= 2)?;
    Some(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]))
}

#[apply(both_backends!)]
async fn broken_frames(server: Server) {
    let cases: [(&str, Vec<u8>, &[u16]); 6] = [
        ("an announced length of 2^40", frame(0x81, 1 << 40, b"x"), &[4413, 1009]),
        ("an announced length of 2 MiB", frame(0x81, 2 << 20, b"x"), &[4413, 1009]),
        ("a reserved opcode", frame(0x83, 1, b"x"), &[4400, 1002]),
        ("reserved bits", frame(0xf1, 1, b"x"), &[4400, 1002]),
        ("a continuation of nothing", frame(0x80, 1, b"x"), &[4400, 1002]),
        ("a frame without a mask", vec![0x81, 0x01, b'x'], &[4400, 1002]),
    ];
    for (what, bytes, codes) in cases {
        let mut stream = server.admin().await.into_stream();
        stream.write_all(&bytes).await.expect("sent");
        let code = close_code(&mut stream).await;
        assert!(code.is_some_and(|code| codes.contains(&code)), "{what}: {code:?}");
        goes_on(&server).await;
    }
    // Half a frame and then the end of the connection.
    for bytes in [frame(0x81, 100, b"half"), vec![0x81], vec![0x81, 0x80 | 126, 1]] {
        let mut stream = server.admin().await.into_stream();
        stream.write_all(&bytes).await.expect("sent");
        stream.shutdown().await.expect("ends");
        close_code(&mut stream).await;
    }
    goes_on(&server).await;
}

#[apply(both_backends!)]
async fn endless_fragments(server: Server) {
    let mut raw = server.admin().await;
    let piece = "x".repeat(64 * 1024);
    let first = Frame::message(piece.clone(), OpCode::Data(Data::Text), false);
    let mut sent = raw.send(Message::Frame(first)).await;
    for _ in 0..64 {
        if sent.is_err() {
            break;
        }
        sent = raw
            .send(Message::Frame(Frame::message(piece.clone(), OpCode::Data(Data::Continue), false)))
            .await;
    }
    match raw.receive(PATIENCE).await {
        Err(Lost::Closed(4413, _) | Lost::Broken(_)) => {}
        other => panic!("{other:?}"),
    }
    goes_on(&server).await;
}

#[apply(both_backends!)]
async fn frames_that_are_not_text(server: Server) {
    let mut raw = server.admin().await;
    raw.send(Message::binary(vec![0, 159, 146, 150])).await.expect("sent");
    assert_eq!(raw.expect_close().await, 4400);
    let mut raw = server.admin().await;
    let invalid = Frame::message(vec![0xff, 0xfe, b'{'], OpCode::Data(Data::Text), true);
    raw.send(Message::Frame(invalid)).await.expect("sent");
    let code = raw.expect_close().await;
    assert!(matches!(code, 4400 | 1007), "{code}");
    let mut raw = server.admin().await;
    for _ in 0..1000 {
        raw.send(Message::Ping(vec![1; 100].into())).await.expect("sent");
    }
    raw.call("node.count", json!({})).await;
    goes_on(&server).await;
}

#[apply(both_backends_in_pairs!)]
async fn half_open_connections(server: Server) {
    let address = format!("127.0.0.1:{}", server.port());
    let mut held = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        let part: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET /latest/ws HT",
            2 => b"GET /latest/ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n",
            _ => b"POST /latest/rpc HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        };
        stream.write_all(part).await.expect("sent");
        held.push(stream);
    }
    goes_on(&server).await;
    // Sessions whose client vanishes without a word.
    for _ in 0..50 {
        let mut raw = server.anonymous().await;
        raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
        drop(raw.into_stream());
    }
    goes_on(&server).await;
}

#[apply(both_backends!)]
async fn upgrades_that_are_none(server: Server) {
    let address = format!("127.0.0.1:{}", server.port());
    for request in [
        "GET /latest/ws HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "GET /latest/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
        "GET /latest/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: h2c\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "GET /latest/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 8\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "\u{1}\u{2}\u{3}\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = vec![0; 64];
        let length =
            tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time").expect("reads");
        let status = String::from_utf8_lossy(&answer[..length]);
        assert!(length == 0 || status.starts_with("HTTP/1.1 4"), "{request:?}: {status}");
    }
    goes_on(&server).await;
}

#[apply(both_backends_in_pairs!)]
async fn json_that_bites(server: Server) {
    let mut raw = server.admin().await;
    for bomb in ["[".repeat(200_000), r#"{"a":"#.repeat(100_000), "[".repeat(65) + &"]".repeat(65)] {
        let error = refused(&mut raw, &bomb).await;
        assert!([-32700, -32600].contains(&error["code"].as_i64().unwrap_or_default()), "{error}");
    }
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let deep = |depth: usize| {
        let data = nested(depth);
        format!(
            r#"{{"jsonrpc":"2.0","id":"deep","method":"event.publish","params":{{"channel":"lab","data":{data}}}}}"#
        )
    };
    raw.send_text(deep(60)).await;
    assert!(raw.answer("deep").await["error"].is_null(), "60 levels are allowed");
    assert!(refused(&mut raw, &deep(65)).await["data"]["detail"].to_string().contains("64"));
    for text in [
        r#"{"jsonrpc":"2.0","id":1e999,"method":"node.count"}"#,
        r#"{"jsonrpc":"2.0","id":"\ud800","method":"node.count"}"#,
        r#"{"jsonrpc":"1.0","id":1e999,"method":"node.count"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"node.count","params":{"filter":{"name":"\ud800"}}}"#,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node\u{0}count\"}",
        r#"{"jsonrpc":"2.0","id":1,"method":"node.count","params":{"filter":{"name":NaN}}}"#,
    ] {
        let error = refused(&mut raw, text).await;
        let code = error["code"].as_i64().unwrap_or_default();
        assert!([-32700, -32600, -32602].contains(&code), "{text}: {error}");
    }
    raw.call("node.count", json!({})).await;
    goes_on(&server).await;
}

/// A page of nodes may have megabytes, a session 32 requests in flight, and anybody may ask.
#[apply(both_backends_in_pairs!)]
async fn answers_that_nobody_reads_cost_little(server: Server) {
    const BIG: usize = 900_000;
    let mut raw = server.admin().await;
    for number in 0..10 {
        let mut big = node("checkout", &format!("big {number}"));
        big["data"] = json!({"log": "x".repeat(BIG)});
        raw.call("node.create", json!({"node": big})).await;
    }
    let before = server.memory();
    let mut silent = server.anonymous().await;
    for _ in 0..32 {
        silent.send_request("node.find", json!({"limit": 1000})).await.expect("sent");
    }
    // What was asked for later is found later: whatever the server does for the silent one, it has begun with.
    let mut other = server.anonymous().await;
    for _ in 0..3 {
        until("another one finds them", async || {
            let answer = other.request("node.find", json!({"limit": 1000})).await;
            if answer["error"].is_null() { Ok(()) } else { Err(answer["error"].clone()) }
        })
        .await;
    }
    goes_on(&server).await;
    // Whoever reads in the end is answered, one after the other, in whatever order.
    let mut pages = 0;
    while pages < 6 {
        let answer = silent.receive(PATIENCE).await.expect("an answer");
        match answer["result"]["items"].as_array() {
            Some(items) => assert!(items.len() > 7, "a page"),
            // A slow machine may have no time for one of them.
            None => assert_eq!(answer["error"]["data"]["temporary"], true, "{answer:.300}"),
        }
        pages += usize::from(answer["error"].is_null());
    }
    let most = most_memory(&server).saturating_sub(before);
    assert!(most < 200 << 20, "{} MiB for one session", most >> 20);
}

/// The most memory that the server's process has had.
fn most_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[apply(both_backends!)]
async fn wrong_types_name_the_parameter(server: Server) {
    let mut raw = server.admin().await;
    for (method, params, name) in [
        ("node.get", json!({"id": 5}), "id"),
        ("node.get", json!({"id": null}), "id"),
        ("node.find", json!({"filter": 5}), "filter"),
        ("node.find", json!({"filter": ["kind"]}), "filter"),
        ("node.find", json!({"sort": "name"}), "sort"),
        ("node.find", json!({"limit": -1}), "limit"),
        ("node.find", json!({"limit": 1e99}), "limit"),
        ("node.find", json!({"limit": 10.5}), "limit"),
        ("node.find", json!({"filter": {}, "fnord": 1}), "fnord"),
        ("node.find", json!({"filter": {"kind__fnord": 1}}), "fnord"),
        ("node.update", json!({"id": "0123456789abcdef01234567", "set": 5}), "set"),
        (
            "node.update",
            json!({"id": "0123456789abcdef01234567", "set": {"state": "done"}, "if_revision": "1"}),
            "if_revision",
        ),
        ("node.create", json!({"node": "x"}), "node|body"),
        ("node.create", json!({"node": {"kind": "checkout", "path": []}}), "name"),
        ("node.create", json!({"node": {"kind": "checkout", "name": 5, "path": []}}), "name"),
        ("node.create", json!({"node": {"kind": "fnord", "name": "x", "path": []}}), "fnord"),
        (
            "node.create",
            json!({"node": node("checkout", "x"), "idempotency_key": "x".repeat(129)}),
            "idempotency_key",
        ),
        ("event.subscribe", json!({"sub": -1, "channel": "node"}), "sub"),
        ("event.subscribe", json!({"sub": "one", "channel": "node"}), "sub"),
        ("event.subscribe", json!({"sub": 1, "channel": "node", "from": "yesterday"}), "from"),
        ("event.subscribe", json!({"sub": 1, "channel": "node", "from": {"seq": 1}}), "from"),
        ("event.subscribe", json!({"sub": 1, "channel": "node", "include": ["fnord"]}), "include"),
        ("event.publish", json!({"channel": 5, "data": 1}), "channel"),
    ] {
        fails(&mut raw, method, params, &[400, 422], name).await;
    }
    goes_on(&server).await;
}

#[apply(both_backends!)]
async fn bad_ids_and_dates(server: Server) {
    let mut raw = server.admin().await;
    for id in [
        "",
        "zz",
        "0123456789abcdef0123456",
        "0123456789abcdef0123456g",
        "0123456789abcdef012345678",
        "../etc/passwd",
    ] {
        fails(&mut raw, "node.get", json!({"id": id}), &[400, 422], id).await;
        fails(&mut raw, "node.update", json!({"id": id, "set": {"state": "done"}}), &[400, 422], id).await;
    }
    let mut orphan = node("checkout", "orphan");
    orphan["parent"] = "0123456789abcdef01234567".into();
    fails(&mut raw, "node.create", json!({"node": orphan}), &[404], "0123456789abcdef01234567").await;
    for date in ["yesterday", "2024-13-01", "2024-01-01T25:00:00", "", "99999999-01-01"] {
        fails(
            &mut raw,
            "node.find",
            json!({"filter": {"created__gt": date}}),
            &[400, 422],
            "created|Invalid isoformat string",
        )
        .await;
        let mut dated = node("checkout", "dated");
        dated["timeout"] = date.into();
        fails(&mut raw, "node.create", json!({"node": dated}), &[400, 422], "timeout").await;
        let from = json!({"sub": 1, "channel": "node", "from": {"time": date}});
        fails(&mut raw, "event.subscribe", from, &[400, 422], "time|Invalid isoformat string").await;
    }
    goes_on(&server).await;
}

#[apply(both_backends!)]
async fn bad_durable_subscriptions(server: Server) {
    let mut raw = server.admin().await;
    let with = |more: Value| {
        let mut params = json!({"sub": 1, "channel": "lab", "durable": "d"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    for name in
        [json!(""), json!("x".repeat(129)), json!("a\nb"), json!("a\u{0}"), json!(7), json!(["d"]), json!({})]
    {
        fails(&mut raw, "event.subscribe", with(json!({"durable": name})), &[400, 422], "durable").await;
    }
    for window in [json!(0), json!(1001), json!(-1), json!(1.5), json!("3"), json!(u64::MAX), json!([1])] {
        fails(&mut raw, "event.subscribe", with(json!({"window": window})), &[400, 422], "window").await;
    }
    fails(&mut raw, "event.subscribe", json!({"sub": 1, "channel": "lab", "window": 5}), &[422], "window")
        .await;
    fails(&mut raw, "event.subscribe", with(json!({"on_slow": "latest"})), &[422], "on_slow").await;
    // None of them has left anything behind.
    assert_eq!(raw.call("consumer.list", json!({})).await["items"], json!([]));
    raw.call("event.subscribe", with(json!({}))).await;
    raw.call("event.subscribe", json!({"sub": 2, "channel": "lab"})).await;
    for seq in [json!(1), json!(u64::MAX), json!(-1), json!(1.5), json!("1"), Value::Null] {
        fails(&mut raw, "event.ack", json!({"sub": 1, "seq": seq}), &[400, 422], "seq").await;
    }
    fails(&mut raw, "event.ack", json!({"sub": 2, "seq": 0}), &[400], "durable").await;
    fails(&mut raw, "event.ack", json!({"sub": 3, "seq": 0}), &[404], "sub").await;
    fails(&mut raw, "event.ack", json!({"sub": -1, "seq": 0}), &[400, 422], "sub").await;
    fails(&mut raw, "event.ack", json!({"sub": 1}), &[400, 422], "seq").await;
    fails(&mut raw, "event.ack", json!({"sub": 1, "seq": 0, "more": 1}), &[400, 422], "more").await;
    assert_eq!(raw.call("event.ack", json!({"sub": 1, "seq": 0})).await, json!({}));
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "event.ack", "params": {"sub": 1, "seq": 0}});
    let request = reqwest::Client::new().post(format!("{}/latest/rpc", server.url())).json(&body);
    let answer: Value =
        request.bearer_auth(server.token().await).send().await.expect("answers").json().await.expect("JSON");
    assert_eq!(answer["error"]["data"]["status"], 405, "{answer}");
    raw.call("event.publish", json!({"channel": "lab", "data": 1})).await;
    assert_eq!(raw.event(1).await["seq"], 1);
    // Names are data, whatever they look like.
    for (sub, name) in ["$where", "a.b", "🐧", "'; DROP TABLE consumer; --"].into_iter().enumerate() {
        let answer = raw.call("event.subscribe", with(json!({"sub": sub + 10, "durable": name}))).await;
        assert_eq!((&answer["resumed"], &answer["position"]["seq"]), (&json!(false), &json!(1)), "{answer}");
    }
    goes_on(&server).await;
}

#[apply(both_backends!)]
async fn dollar_keys_are_no_commands(server: Server) {
    let mut raw = server.admin().await;
    raw.call("node.create", json!({"node": node("checkout", "secret")})).await;
    for filter in [
        json!({"$where": "1"}),
        json!({"$or": [{"kind": "checkout"}, {"name": "secret"}]}),
        json!({"name": {"$gt": ""}}),
        json!({"name": {"$regex": ".*"}}),
        json!({"name__in": [{"$gt": ""}]}),
        json!({"data.$where": "1"}),
        json!({"name__re": {"$gt": ""}}),
    ] {
        let answer = raw.request("node.find", json!({"filter": filter})).await;
        let status = answer["error"]["data"]["status"].as_u64();
        let harmless = answer["result"]["items"] == json!([]) || matches!(status, Some(400 | 422));
        assert!(harmless, "{filter}: {answer}");
    }
    // What nodes and events carry is data: stored as it is, or refused by name, the same on both back ends.
    for data in [
        json!({"$set": {"a": 1}}),
        json!({"a.b": 1}),
        json!({"": 1}),
        json!({"a": {"$oid": "x"}}),
        json!({"a": {"$date": 1}}),
    ] {
        let mut strange = node("checkout", "strange");
        strange["data"] = data.clone();
        let answer = raw.request("node.create", json!({"node": strange})).await;
        if answer["error"].is_null() {
            let read = raw.call("node.get", json!({"id": answer["result"]["id"]})).await;
            assert_eq!(read["data"], data);
        } else {
            assert!(
                matches!(answer["error"]["data"]["status"].as_u64(), Some(400 | 422)),
                "{data}: {answer}"
            );
        }
        // Nothing of it may spoil a page for others.
        raw.call("node.find", json!({"limit": 1000})).await;
        let answer = raw.call("event.publish", json!({"channel": "lab", "data": data})).await;
        let found = raw.call("event.find", json!({"channel": "lab", "limit": 1000})).await;
        let items = found["items"].as_array().expect("items");
        assert!(
            items.iter().any(|item| item["data"] == data || item["event"]["data"] == data),
            "{answer} {found}"
        );
    }
    goes_on(&server).await;
}

#[apply(both_backends_in_pairs!)]
async fn expensive_filters(server: Server) {
    let mut raw = server.admin().await;
    raw.call("node.create", json!({"node": node("checkout", &"a".repeat(1000))})).await;
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let since = Instant::now();
        let bomb = raw.call("node.find", json!({"filter": {"name__re": "^(a+)+$x"}})).await;
        assert_eq!(bomb["items"], json!([]));
        best = best.min(since.elapsed());
    }
    assert!(best < Duration::from_secs(5), "{best:?}");
    for pattern in ["(", "a{1000}{1000}{1000}", "(?P<x", r"(a)\1", "(?=a)", &"a".repeat(257)] {
        fails(&mut raw, "node.find", json!({"filter": {"name__re": pattern}}), &[400, 422], "name").await;
        let subscribe = json!({"sub": 1, "channel": "node", "filter": {"data.name__re": pattern}});
        fails(&mut raw, "event.subscribe", subscribe, &[400, 422], "name").await;
    }
    let terms: serde_json::Map<String, Value> = (0..65).map(|n| (format!("data.f{n}"), n.into())).collect();
    fails(&mut raw, "node.find", json!({"filter": terms}), &[400, 413, 422], "64").await;
    let deepest = |levels: usize| (1..levels).fold(json!({"kind": "job"}), |inner, _| json!({"not": inner}));
    raw.call("node.find", json!({"filter": deepest(8)})).await;
    fails(&mut raw, "node.find", json!({"filter": deepest(9)}), &[400, 413, 422], "8").await;
    let values: Vec<u32> = (0..100_000).collect();
    let answer = raw.request("node.find", json!({"filter": {"retry_counter__in": values}})).await;
    let status = answer["error"]["data"]["status"].as_u64();
    assert!(matches!(status, None | Some(400 | 413 | 422 | 429)), "{answer}");
    goes_on(&server).await;
}

/// Strangers cannot make the server hold more of a body than of a message.
#[apply(both_backends_in_pairs!)]
async fn bodies_of_strangers_are_small(server: Server) {
    let padded = |size: usize| {
        let padding = " ".repeat(size);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"node.count"{padding}}}"#)
    };
    let post = async |body: reqwest::Body, token: Option<&str>| {
        let request = reqwest::Client::new().post(format!("{}/latest/rpc", server.url())).body(body);
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        request.send().await.map_or(0, |answer| answer.status().as_u16())
    };
    let chunked = |size: usize| {
        let parts: Vec<_> = padded(size)
            .into_bytes()
            .chunks(1 << 16)
            .map(|part| Ok::<_, std::io::Error>(part.to_vec()))
            .collect();
        reqwest::Body::wrap_stream(futures::stream::iter(parts))
    };
    let token = server.token().await;
    for size in [1000, 1_000_000] {
        assert_eq!(post(padded(size).into(), None).await, 200, "{size}");
        assert_eq!(post(chunked(size), None).await, 200, "{size} in chunks");
    }
    for size in [2_000_000, 20_000_000] {
        assert_eq!(post(padded(size).into(), None).await, 413, "{size}");
        assert_eq!(post(chunked(size), None).await, 413, "{size} in chunks");
        assert_eq!(post(padded(size).into(), Some("no.such.token")).await, 413, "{size} with a bad token");
        assert_eq!(post(padded(size).into(), Some(token)).await, 200, "{size} of somebody known");
        assert_eq!(post(chunked(size), Some(token)).await, 200, "{size} of somebody known in chunks");
    }
    goes_on(&server).await;
}

#[apply(both_backends_in_pairs!)]
async fn rest_bodies(server: Server) {
    let client = reqwest::Client::new();
    for (body, status) in [
        (b"{".to_vec(), 422),
        (b"\xff\xfe".to_vec(), 422),
        (Vec::new(), 422),
        ("[".repeat(100_000).into_bytes(), 422),
        (vec![b' '; (32 << 20) + 1], 413),
    ] {
        let request =
            client.post(format!("{}/latest/rpc", server.url())).header("content-type", "application/json");
        let request = request.bearer_auth(server.token().await);
        let shown = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
        let answer = request.body(body).send().await.expect("answers");
        // JSON-RPC over POST may also answer 200 with the error inside.
        let got = answer.status().as_u16();
        let error = answer.json::<Value>().await.unwrap_or_default();
        assert!(got == status || (status != 413 && error["error"].is_object()), "{shown:?}: {got} {error}");
    }
    goes_on(&server).await;
}
