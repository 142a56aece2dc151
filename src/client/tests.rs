//! The connection task against a server that follows a script. Nothing here leaves the process, and time stands still
//! while anybody has something to do: what is waited for is waited for exactly, and takes no time.

mod durable;

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::*;
use crate::model::Position;
use crate::sync::lock;

const PATIENCE: Duration = Duration::from_secs(10);

/// As much as a socket might take.
const PIPE: usize = 64 << 10;

/// The servers that there are, by name, with what takes their connections.
static SERVERS: Mutex<Option<HashMap<String, mpsc::UnboundedSender<DuplexStream>>>> = Mutex::new(None);

/// A connection to the server of this name.
pub(super) fn dial(name: &str) -> io::Result<DuplexStream> {
    let (here, there) = tokio::io::duplex(PIPE);
    let taken = lock(&SERVERS).as_ref().and_then(|servers| servers.get(name)?.send(there).ok());
    taken.map(|()| here).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
}

/// A server of one connection at a time, that says only what the test tells it to say.
struct Server {
    name: String,
    connections: tokio::sync::Mutex<mpsc::UnboundedReceiver<DuplexStream>>,
    limits: Value,
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&SERVERS).as_mut().and_then(|servers| servers.remove(&self.name));
    }
}

/// One connection of the client, seen from the server.
struct Peer(WebSocketStream<DuplexStream>);

impl Server {
    async fn start() -> Server {
        let name = format!("server-{}", uuid::Uuid::new_v4());
        let (sender, connections) = mpsc::unbounded_channel();
        lock(&SERVERS).get_or_insert_default().insert(name.clone(), sender);
        Server { name, connections: connections.into(), limits: json!({}) }
    }
    fn options(&self) -> Options {
        Options::new(format!("http://{}", self.name))
    }
    async fn accept(&self) -> Peer {
        let mut connections = self.connections.lock().await;
        let stream = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
        #[allow(clippy::result_large_err)]
        let answer = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/latest/ws");
            let protocol = HeaderValue::from_static("kernelci.v1.json");
            assert_eq!(request.headers()["sec-websocket-protocol"], protocol);
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        Peer(tokio_tungstenite::accept_hdr_async(stream, answer).await.unwrap())
    }
    /// Accepts and says hello; returns what the client said.
    async fn session(&self) -> (Peer, Value) {
        let mut peer = self.accept().await;
        let hello = peer.expect("session.hello").await;
        peer.greet(&hello, &self.limits).await;
        (peer, hello)
    }
    async fn connected(&self) -> (Client, Peer) {
        let (client, (peer, _)) = tokio::join!(Client::connect(self.options()), self.session());
        (client.unwrap(), peer)
    }
}

impl Peer {
    async fn greet(&mut self, hello: &Value, limits: &Value) {
        let mut all = json!({"message": 1 << 20, "subscriptions": 128, "inflight": 32});
        all.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        let result = json!({"session": "s", "user": null, "epoch": "e1", "ping_ms": 25000, "limits": all});
        self.answer(hello, result).await;
    }
    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }
    async fn answer(&mut self, request: &Value, result: Value) {
        self.say(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await;
    }
    async fn refuse(&mut self, request: &Value, status: u16, data: Value) {
        let mut all = json!({"status": status, "detail": "no"});
        all.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        let error = json!({"code": -(32000 + i64::from(status) - 400), "message": "no", "data": all});
        self.say(json!({"jsonrpc": "2.0", "id": request["id"], "error": error})).await;
    }
    async fn notify(&mut self, method: &str, params: Value) {
        self.say(json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }
    async fn event(&mut self, sub: u64, seq: u64) {
        let event = json!({"specversion": "1.0", "id": format!("id-{seq}"), "source": "test", "type": "t",
            "data": {"n": seq}});
        self.notify("event", json!({"sub": sub, "seq": seq, "event": event})).await;
    }
    async fn next(&mut self) -> Option<Value> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.unwrap()? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
    /// The next request, which must be this one.
    async fn expect(&mut self, method: &str) -> Value {
        let request = self.next().await.unwrap_or_else(|| panic!("closed instead of {method}"));
        assert_eq!(request["method"], method, "{request}");
        request
    }
    /// Confirms a subscription; returns its parameters.
    async fn subscribed(&mut self, epoch: &str, seq: u64) -> Value {
        let request = self.expect("event.subscribe").await;
        let position = json!({"epoch": epoch, "seq": seq});
        let result = json!({"sub": request["params"]["sub"], "position": position, "recovered": true});
        self.answer(&request, result).await;
        request["params"].clone()
    }
}

async fn seq(subscription: &mut Subscription) -> u64 {
    match timeout(PATIENCE, subscription.next()).await.unwrap() {
        Some(Delivery::Event(delivery)) => {
            assert_eq!(delivery.event.id(), format!("id-{}", delivery.seq));
            delivery.seq
        }
        other => panic!("{other:?}"),
    }
}

use cloudevents::AttributesReader;

#[tokio::test(start_paused = true)]
async fn answers_may_come_in_any_order() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let script = async {
        let first = peer.expect("node.get").await;
        let second = peer.expect("node.get").await;
        peer.answer(&second, second["params"]["id"].clone()).await;
        peer.answer(&first, first["params"]["id"].clone()).await;
    };
    let (a, b, ()) = tokio::join!(client.node_get("a"), client.node_get("b"), script);
    assert_eq!((a.unwrap(), b.unwrap()), (json!("a"), json!("b")));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_repeats_what_may_be_repeated_and_nothing_else() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let script = async {
        let mut keys = Vec::new();
        for _ in 0..3 {
            let request = peer.next().await.unwrap();
            keys.push((request["method"].clone(), request["params"]["idempotency_key"].clone()));
        }
        drop(peer);
        let (mut peer, _) = server.session().await;
        for _ in 0..2 {
            let request = peer.next().await.unwrap();
            let again = (request["method"].clone(), request["params"]["idempotency_key"].clone());
            assert!(again.0 == "node.get" || again.1.is_string(), "{again:?} is not safe to repeat");
            assert!(keys.contains(&again), "{again:?} in {keys:?}");
            peer.answer(&request, json!({"method": request["method"]})).await;
        }
        peer
    };
    let update = UpdateNode { id: "a".into(), ..UpdateNode::default() };
    let (read, write, without_key, _peer) = tokio::join!(
        client.node_get("a"),
        client.node_update(&update),
        client.call::<Value>("node.update", json!({"id": "a", "set": {}})),
        script
    );
    assert_eq!(read.unwrap()["method"], "node.get");
    assert_eq!(write.unwrap()["method"], "node.update");
    assert!(matches!(without_key, Err(Error::Disconnected)), "{without_key:?}");
}

#[tokio::test(start_paused = true)]
async fn temporary_errors_of_reads_are_tried_again_after_the_asked_time() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let script = async {
        let request = peer.expect("node.get").await;
        peer.refuse(&request, 429, json!({"temporary": true, "retry_after_ms": 200})).await;
        let refused = Instant::now();
        let request = peer.expect("node.get").await;
        assert!(refused.elapsed() >= Duration::from_millis(200));
        peer.answer(&request, json!(1)).await;
        let request = peer.expect("node.get").await;
        peer.refuse(&request, 404, json!({})).await;
    };
    let calls = async {
        assert_eq!(client.node_get("a").await.unwrap(), 1);
        assert_eq!(client.node_get("b").await.unwrap_err().status(), Some(404));
    };
    tokio::join!(calls, script);
}

#[tokio::test(start_paused = true)]
async fn never_more_requests_at_once_than_the_server_allows() {
    let mut server = Server::start().await;
    server.limits = json!({"inflight": 2, "message": 2000});
    let (client, mut peer) = server.connected().await;
    let large = "x".repeat(3000);
    assert!(matches!(client.node_get(&large).await, Err(Error::TooLarge { limit: 2000, .. })));
    let calls = futures::future::join_all((0..5).map(|n| {
        let client = client.clone();
        async move { client.node_get(&n.to_string()).await.unwrap() }
    }));
    let script = async {
        for left in [3, 1] {
            let (a, b) = (peer.next().await.unwrap(), peer.next().await.unwrap());
            let early = timeout(Duration::from_millis(100), peer.0.next()).await;
            assert!(early.is_err(), "a third request: {early:?}, {left} left");
            peer.answer(&a, json!(0)).await;
            peer.answer(&b, json!(0)).await;
        }
        let last = peer.next().await.unwrap();
        peer.answer(&last, json!(0)).await;
    };
    tokio::join!(calls, script);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_continues_behind_its_last_event() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let wanted = Subscribe::to("node").filter(json!({"data.kind": "job"})).include("node");
    let (subscription, params) = tokio::join!(client.subscribe(wanted), peer.subscribed("e1", 10));
    let mut subscription = subscription.unwrap();
    assert_eq!(
        params,
        json!({"sub": 1, "channel": "node", "from": "now", "filter": {"data.kind": "job"}, "include": ["node"]})
    );
    assert_eq!(subscription.position().seq, 10);
    peer.event(1, 11).await;
    peer.event(1, 14).await;
    peer.notify("progress", json!({"sub": 1, "seq": 20})).await;
    assert_eq!((seq(&mut subscription).await, seq(&mut subscription).await), (11, 14));
    // The server falls over in the middle of a frame's way: no close, no farewell.
    drop(peer);
    let (mut peer, _) = server.session().await;
    let params = peer.subscribed("e1", 20).await;
    assert_eq!(params["from"], json!({"epoch": "e1", "seq": 20}));
    assert_eq!(params["filter"], json!({"data.kind": "job"}));
    // What it has seen already does not come twice.
    for n in [19, 20, 21, 21, 22] {
        peer.event(1, n).await;
    }
    assert_eq!((seq(&mut subscription).await, seq(&mut subscription).await), (21, 22));
    assert_eq!(*subscription.position(), Position { epoch: "e1".into(), seq: 22 });
    drop(subscription);
    let leave = peer.expect("event.unsubscribe").await;
    assert_eq!(leave["params"], json!({"sub": 1}));
}

#[tokio::test(start_paused = true)]
async fn lost_events_and_lost_history_are_told() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe(Subscribe::to("node")), peer.subscribed("e1", 5));
    let mut subscription = subscription.unwrap();
    peer.notify("gap", json!({"sub": 1, "from": 6, "to": 8})).await;
    let gap = subscription.next().await;
    assert!(matches!(gap, Some(Delivery::Gap { from: 6, to: 8 })), "{gap:?}");
    for (epoch, missed) in [("e1", Some(json!({"from": 9, "to": 11}))), ("e2", None)] {
        drop(peer);
        (peer, _) = server.session().await;
        let request = peer.expect("event.subscribe").await;
        let position = json!({"epoch": epoch, "seq": 11});
        let mut answer = json!({"sub": 1, "position": position, "recovered": false});
        if let Some(missed) = missed {
            assert_eq!(request["params"]["from"]["seq"], 8);
            answer["missed"] = missed;
        }
        peer.answer(&request, answer).await;
        match subscription.next().await {
            Some(Delivery::Gap { from, to }) => assert_eq!((epoch, from, to), ("e1", 9, 11)),
            Some(Delivery::Reset { position }) => assert_eq!((epoch, position.seq), ("e2", 11)),
            other => panic!("{other:?}"),
        }
    }
    peer.event(1, 12).await;
    assert_eq!(seq(&mut subscription).await, 12);
    // The same while the connection stands.
    peer.notify("gap", json!({"sub": 1, "from": 13, "to": 2, "epoch": "e3"})).await;
    let reset = subscription.next().await;
    assert!(matches!(reset, Some(Delivery::Reset { .. })), "{reset:?}");
    assert_eq!(*subscription.position(), Position { epoch: "e3".into(), seq: 2 });
    peer.event(1, 3).await;
    assert_eq!(seq(&mut subscription).await, 3);
    peer.notify("unsubscribed", json!({"sub": 1, "reason": "rights"})).await;
    assert!(subscription.next().await.is_none());
    assert_eq!(subscription.end_reason().as_deref(), Some("rights"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_up_nobody_and_loses_nothing() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe(Subscribe::to("node")), peer.subscribed("e1", 0));
    let mut subscription = subscription.unwrap();
    let queue = subscription::QUEUE as u64;
    for n in 1..=queue + 50 {
        peer.event(1, n).await;
    }
    let leave = peer.expect("event.unsubscribe").await;
    // Requests go on while the reader sleeps, and what was on its way is not taken for new.
    let (answer, ()) = tokio::join!(client.node_get("a"), async {
        let request = peer.expect("node.get").await;
        peer.answer(&request, json!(7)).await;
    });
    assert_eq!(answer.unwrap(), 7);
    peer.event(1, queue + 51).await;
    peer.answer(&leave, json!({})).await;
    for n in 1..=queue {
        assert_eq!(seq(&mut subscription).await, n);
    }
    let params = peer.subscribed("e1", queue).await;
    assert_eq!(params["from"], json!({"epoch": "e1", "seq": queue}));
    for n in queue + 1..=queue + 60 {
        peer.event(1, n).await;
    }
    for n in queue + 1..=queue + 60 {
        assert_eq!(seq(&mut subscription).await, n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_who_wants_the_latest_is_told_what_it_missed() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let wanted = Subscribe { on_slow: OnSlow::Latest, ..Subscribe::to("node") };
    let (subscription, params) = tokio::join!(client.subscribe(wanted), peer.subscribed("e1", 0));
    assert_eq!(params["on_slow"], "latest");
    let mut subscription = subscription.unwrap();
    let queue = subscription::QUEUE as u64;
    for n in 1..=queue + 1 {
        peer.event(1, n).await;
    }
    let leave = peer.expect("event.unsubscribe").await;
    peer.answer(&leave, json!({})).await;
    for n in 1..=queue {
        assert_eq!(seq(&mut subscription).await, n);
    }
    let params = peer.subscribed("e1", 9000).await;
    assert_eq!(params["from"], "now");
    match subscription.next().await {
        Some(Delivery::Gap { from, to }) => assert_eq!((from, to), (queue + 1, 9000)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_overtake_the_answer_of_subscribe_are_kept() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let script = async {
        let request = peer.expect("event.subscribe").await;
        peer.event(1, 6).await;
        let position = json!({"epoch": "e1", "seq": 5});
        peer.answer(&request, json!({"sub": 1, "position": position, "recovered": true})).await;
        peer.event(1, 7).await;
    };
    let (subscription, ()) = tokio::join!(client.subscribe(Subscribe::to("node")), script);
    let mut subscription = subscription.unwrap();
    assert_eq!((seq(&mut subscription).await, seq(&mut subscription).await), (6, 7));
}

#[tokio::test(start_paused = true)]
async fn a_closing_server_gets_nothing_new_and_is_left_alone_as_long_as_it_asks() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let script = async {
        let request = peer.expect("node.get").await;
        let closing = json!({"code": 1012, "after_ms": 1000, "jitter_ms": 100, "resume": true});
        peer.notify("session.closing", closing).await;
        let told = Instant::now();
        sleep(Duration::from_millis(600)).await;
        // The answer that is still owed is taken, then the client goes.
        peer.answer(&request, json!("old")).await;
        assert!(peer.next().await.is_none());
        let (mut peer, _) = server.session().await;
        let away = told.elapsed();
        assert!(away >= Duration::from_millis(1000) && away < Duration::from_millis(2000), "{away:?}");
        let request = peer.expect("node.get").await;
        peer.answer(&request, json!("new")).await;
    };
    let late = async {
        sleep(Duration::from_millis(300)).await;
        client.node_get("b").await
    };
    let (old, new, ()) = tokio::join!(client.node_get("a"), late, script);
    assert_eq!((old.unwrap(), new.unwrap()), (json!("old"), json!("new")));
}

#[tokio::test(start_paused = true)]
async fn a_password_gets_new_tokens_before_the_old_one_ends() {
    let server = Server::start().await;
    let auth = Auth::Password { user: "lab".into(), password: "secret".into() };
    let script = async {
        let mut peer = server.accept().await;
        let login = peer.expect("user.login").await;
        assert_eq!(login["params"], json!({"username": "lab", "password": "secret"}));
        peer.answer(&login, json!({"access_token": "t1", "token_type": "bearer"})).await;
        let hello = peer.expect("session.hello").await;
        assert_eq!(hello["params"]["token"], "t1");
        peer.greet(&hello, &json!({})).await;
        peer.notify("session.expiring", json!({"in_ms": 60000})).await;
        let login = peer.expect("user.login").await;
        peer.answer(&login, json!({"access_token": "t2", "token_type": "bearer"})).await;
        let refresh = peer.expect("session.refresh").await;
        assert_eq!(refresh["params"], json!({"token": "t2"}));
        peer.answer(&refresh, json!({})).await;
        drop(peer);
        // It keeps the token, and logs in again only when that is refused.
        let mut peer = server.accept().await;
        let hello = peer.expect("session.hello").await;
        assert_eq!(hello["params"]["token"], "t2");
        peer.refuse(&hello, 401, json!({})).await;
        let login = peer.expect("user.login").await;
        peer.answer(&login, json!({"access_token": "t3", "token_type": "bearer"})).await;
        let hello = peer.expect("session.hello").await;
        assert_eq!(hello["params"]["token"], "t3");
        peer.greet(&hello, &json!({})).await;
        peer
    };
    let (client, mut peer) = tokio::join!(Client::connect(server.options().auth(auth)), script);
    let client = client.unwrap();
    let mut state = client.state();
    let connected = state.wait_for(|state| matches!(state, State::Connected(_)));
    timeout(PATIENCE, connected).await.unwrap().unwrap();
    client.close().await;
    assert!(peer.next().await.is_none());
    assert!(matches!(client.node_get("a").await, Err(Error::Closed(_))));
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_end_the_client() {
    let server = Server::start().await;
    let options = server.options().auth(Auth::Token("bad".into()));
    let script = async {
        let mut peer = server.accept().await;
        let hello = peer.expect("session.hello").await;
        peer.refuse(&hello, 401, json!({})).await;
    };
    let (client, ()) = tokio::join!(Client::connect(options), script);
    assert_eq!(client.err().unwrap().status(), Some(401));

    let (client, (peer, _)) =
        tokio::join!(Client::connect(server.options().auth(Auth::Token("old".into()))), server.session());
    let client = client.unwrap();
    drop(peer);
    let mut peer = server.accept().await;
    let hello = peer.expect("session.hello").await;
    peer.refuse(&hello, 401, json!({})).await;
    let error = timeout(PATIENCE, client.node_get("a")).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Closed(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_counts_as_gone() {
    let server = Server::start().await;
    let begun = Instant::now();
    let script = async {
        let mut peer = server.accept().await;
        let hello = peer.expect("session.hello").await;
        peer.answer(&hello, json!({"ping_ms": 100})).await;
        peer
    };
    let (client, _silent) = tokio::join!(Client::connect(server.options()), script);
    let _client = client.unwrap();
    let _again = server.session().await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let script = async {
        let first = peer.expect("node.find").await;
        assert_eq!(first["params"], json!({"filter": {"kind": "job"}, "limit": 2}));
        peer.answer(&first, json!({"items": [1, 2], "next": "n"})).await;
        let second = peer.expect("node.find").await;
        assert_eq!(second["params"]["after"], "n");
        peer.answer(&second, json!({"items": [3], "next": null})).await;
    };
    let query = NodeQuery::filter(json!({"kind": "job"})).limit(2);
    let nodes = client.node_find_all(query).map(|node| node.unwrap());
    let (nodes, ()) = tokio::join!(nodes.collect::<Vec<Value>>(), script);
    assert_eq!(nodes, [1, 2, 3]);
}
