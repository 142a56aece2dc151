//! The one-way feeds: bare CloudEvents over a WebSocket, and the same as server-sent events.

use futures::StreamExt;
use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

use crate::support::{Backend, PATIENCE, Raw, Server, both_backends, eventually, node, soon, until_within};

fn feed(server: &Server, scheme: &str, query: &str) -> String {
    format!("{scheme}://127.0.0.1:{}/latest/events/feed?{query}", server.port())
}

/// Server-sent events, block by block.
struct Sse {
    stream: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

/// What stands between two blank lines.
#[derive(Debug)]
struct Block(String);

impl Block {
    fn field(&self, name: &str) -> Option<&str> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim_start())
    }
    fn json(&self) -> Value {
        serde_json::from_str(self.field("data").expect("data")).expect("JSON")
    }
    fn id(&self) -> String {
        self.field("id").expect("an id").to_owned()
    }
}

impl Sse {
    async fn open(server: &Server, query: &str, last_id: Option<&str>) -> Sse {
        let mut request =
            reqwest::Client::new().get(feed(server, "http", query)).header("accept", "text/event-stream");
        // A channel without an event is there for users only.
        request = request.bearer_auth(server.token().await);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let answer = request.send().await.expect("answers");
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        Sse { stream: answer.bytes_stream().boxed(), text: String::new() }
    }

    /// The next block; `None`: the stream has ended.
    async fn next(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(Block(block));
            }
            let part = soon("more comes", self.stream.next()).await?.expect("bytes");
            self.text.push_str(std::str::from_utf8(&part).expect("UTF-8"));
        }
    }

    /// The next block with data.
    async fn data(&mut self) -> Block {
        loop {
            let block = self.next().await.expect("more");
            if block.field("data").is_some() {
                return block;
            }
        }
    }
}

/// Reads server-sent events: (id, data) of the first `count` that carry data.
async fn sse(server: &Server, query: &str, last_id: Option<&str>, count: usize) -> Vec<(String, Value)> {
    let (mut stream, mut events) = (Sse::open(server, query, last_id).await, Vec::new());
    while events.len() < count {
        let block = stream.data().await;
        events.push((block.id(), block.json()));
    }
    events
}

async fn websocket(server: &Server, query: &str) -> Raw {
    let token = format!("Bearer {}", server.token().await);
    let headers = [("authorization", token.as_str())];
    Raw::connect(&feed(server, "ws", query), Some("cloudevents.json"), &headers).await.expect("upgrades")
}

/// A feed on either way out.
enum Way {
    Sse(Sse),
    WebSocket(Box<Raw>),
}

impl Way {
    async fn both(server: &Server, query: &str) -> [Way; 2] {
        [
            Way::Sse(Sse::open(server, query, None).await),
            Way::WebSocket(Box::new(websocket(server, query).await)),
        ]
    }

    /// What comes next: the data of a control event, or an event.
    async fn next(&mut self) -> Result<Value, Value> {
        match self {
            Way::Sse(sse) => {
                let block = sse.data().await;
                match block.field("event") {
                    None => Ok(block.json()),
                    Some("gap") => Err(block.json()),
                    Some(other) => panic!("{other}: {block:?}"),
                }
            }
            Way::WebSocket(raw) => {
                let mut event = raw.receive(PATIENCE).await.expect("an event");
                assert_eq!(event["specversion"], "1.0");
                match event["type"] == "org.kernelci.gap" {
                    true => {
                        assert_eq!(event.get("sequence"), None, "{event}");
                        Err(event["data"].take())
                    }
                    false => Ok(event),
                }
            }
        }
    }
}

#[apply(both_backends!)]
async fn bare_cloudevents_over_a_websocket(server: Server) {
    let mut raw = server.admin().await;
    for (kind, name) in [("checkout", "a"), ("job", "b")] {
        raw.call("node.create", json!({"node": node(kind, name)})).await;
    }
    let mut jobs = websocket(&server, "channel=node&from=earliest&data.kind=job").await;
    assert_eq!(jobs.upgrade.headers()["sec-websocket-protocol"], "cloudevents.json");
    let event = jobs.receive(PATIENCE).await.expect("an event");
    assert_eq!((&event["specversion"], &event["data"]["name"]), (&json!("1.0"), &json!("b")));
    assert_eq!(event["sequence"], format!("{:020}", 2));
    raw.call("node.create", json!({"node": node("job", "c")})).await;
    assert_eq!(jobs.receive(PATIENCE).await.expect("an event")["data"]["name"], "c");
}

#[apply(both_backends!)]
async fn server_sent_events_resume_after_the_last_id(server: Server) {
    let mut raw = server.admin().await;
    for name in ["a", "b", "c"] {
        raw.call("node.create", json!({"node": node("checkout", name)})).await;
    }
    let first = sse(&server, "channel=node&from=earliest", None, 3).await;
    let names: Vec<&Value> = first.iter().map(|(_, event)| &event["data"]["name"]).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let rest = sse(&server, "channel=node&from=earliest", Some(&first[0].0), 2).await;
    assert_eq!(rest, first[1..]);
}

#[apply(both_backends!)]
async fn a_full_instance_has_no_room_for_feeds_either(backend: Backend) {
    let server = Server::start_with(backend, &[("MAX_SESSIONS", "2")]).await;
    let session = server.anonymous().await;
    let get = async || reqwest::get(feed(&server, "http", "")).await.expect("answers");
    let followed = get().await;
    assert_eq!(followed.status(), 200);
    assert_eq!(get().await.status(), 503);
    let refused = Raw::connect(&feed(&server, "ws", ""), Some("cloudevents.json"), &[]).await;
    assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 503));
    assert_eq!(server.connect().await.expect_close().await, 1013);
    drop((session, followed));
    eventually("those who left make room", async || get().await.status() == 200).await;
}

#[apply(both_backends!)]
async fn a_wrong_query_is_refused(server: Server) {
    for query in ["channel=node&from=yesterday", "channel=node&data.name__re=(", "channel=no%2Fchannel"] {
        let request =
            reqwest::Client::new().get(feed(&server, "http", query)).header("accept", "text/event-stream");
        let answer = request.send().await.expect("answers");
        assert!(matches!(answer.status().as_u16(), 400 | 422), "{query}: {}", answer.status());
    }
}

/// As readers send it who have seen no id.
#[apply(both_backends!)]
async fn an_empty_last_event_id_is_none(server: Server) {
    let mut raw = server.admin().await;
    raw.call("node.create", json!({"node": node("checkout", "a")})).await;
    for empty in ["", " "] {
        let events = sse(&server, "channel=&from=earliest", Some(empty), 1).await;
        assert_eq!(events[0].1["data"]["name"], "a", "{empty:?}");
    }
    let url = feed(&server, "ws", "from=earliest");
    let mut events =
        Raw::connect(&url, Some("cloudevents.json"), &[("last-event-id", "")]).await.expect("upgrades");
    assert_eq!(events.receive(PATIENCE).await.expect("an event")["data"]["name"], "a");
    // Without a place, too, it begins now.
    let mut events =
        Raw::connect(&feed(&server, "ws", "from="), Some("cloudevents.json"), &[]).await.expect("upgrades");
    raw.call("node.create", json!({"node": node("checkout", "b")})).await;
    assert_eq!(events.receive(PATIENCE).await.expect("an event")["data"]["name"], "b");
}

/// Publishes on the channel `lab`.
async fn publish(raw: &mut Raw, data: Value) {
    raw.call("event.publish", json!({"channel": "lab", "data": data})).await;
}

/// Where a session is told that it begins which wants to begin there.
async fn begun(raw: &mut Raw, from: Value) -> Value {
    let answer = raw.call("event.subscribe", json!({"sub": 1, "channel": "lab", "from": from})).await;
    raw.call("event.unsubscribe", json!({"sub": 1})).await;
    answer
}

#[apply(both_backends!)]
async fn readers_from_another_epoch_hear_it_before_the_first_event(server: Server) {
    let mut raw = server.admin().await;
    for n in 1..=3 {
        publish(&mut raw, json!({"n": n})).await;
    }
    let foreign = "0123456789abcdef0123456789abcdef";
    for filter in ["", "&data.n=last"] {
        // What a session is told.
        let answer = begun(&mut raw, json!({"epoch": foreign, "seq": 2})).await;
        let mut expected = answer["missed"].clone();
        expected["epoch"] = answer["position"]["epoch"].clone();
        let query = format!("channel=lab&from={foreign}:2{filter}");
        for mut way in Way::both(&server, &query).await {
            assert_eq!(way.next().await.expect_err("the gap comes first"), expected, "{query}");
            publish(&mut raw, json!({"n": "last"})).await;
            assert_eq!(way.next().await.expect("then what follows")["data"]["n"], "last", "{query}");
        }
    }
}

#[apply(both_backends!)]
async fn readers_from_a_place_that_has_expired_hear_it_before_the_first_event(backend: Backend) {
    let server = Server::start_with(backend, &[("EVENT_HISTORY_TTL_SECONDS", "3")]).await;
    let mut raw = server.admin().await;
    for n in 1..=3 {
        publish(&mut raw, json!({"n": n})).await;
    }
    let epoch = begun(&mut raw, json!("now")).await["position"]["epoch"].clone();
    let epoch = epoch.as_str().expect("an epoch");
    // MongoDB of the tests looks every second, but at all the databases that there are.
    until_within(5 * PATIENCE, "the oldest event expires", async || {
        let answer = begun(&mut raw, json!({"epoch": epoch, "seq": 0})).await;
        if answer["missed"]["to"].as_u64() >= Some(3) { Ok(()) } else { Err(answer) }
    })
    .await;
    for filter in ["", "&data.n=now"] {
        let query = format!("channel=lab&from={epoch}:1{filter}");
        for mut way in Way::both(&server, &query).await {
            let gap = way.next().await.expect_err("the gap comes first");
            assert_eq!((&gap["from"], gap.get("epoch")), (&json!(2), None), "{query}: {gap}");
            assert!(gap["to"].as_u64() >= Some(3), "{query}: {gap}");
            publish(&mut raw, json!({"n": "now"})).await;
            while way.next().await.expect("then what follows")["data"]["n"] != "now" {}
        }
    }
}

#[apply(both_backends!)]
async fn keep_alives_say_where_a_reader_stands_who_gets_nothing(backend: Backend) {
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "200")]).await;
    let mut raw = server.admin().await;
    publish(&mut raw, json!({"n": 0})).await;
    let query = "channel=lab&data.n=never";
    let mut events = Sse::open(&server, query, None).await;
    let mut messages = websocket(&server, query).await;
    let first = events.next().await.expect("a block").id();
    assert!(first.ends_with(":1"), "{first}");
    assert_eq!(messages.next_ping().await, first);
    let last = first.replace(":1", ":301");
    let publish_many = async {
        for n in 0..300 {
            publish(&mut raw, json!({"n": n})).await;
        }
    };
    let events_say = async {
        loop {
            let block = events.next().await.expect("a block");
            assert_eq!(block.field("data"), None);
            if block.id() == last {
                break;
            }
        }
    };
    let pings_say = async { while messages.next_ping().await != last {} };
    tokio::join!(publish_many, events_say, pings_say);
    // Whoever goes on from there has missed nothing.
    publish(&mut raw, json!({"n": "never"})).await;
    let [(id, event)] = &sse(&server, query, Some(&last), 1).await[..] else { panic!("one was asked for") };
    assert_eq!((id, &event["data"]["n"]), (&first.replace(":1", ":302"), &json!("never")));
}

#[apply(both_backends!)]
async fn readers_leave_at_times_of_their_own_when_the_server_drains(backend: Backend) {
    let mut server = Server::start_with(backend, &[("DRAIN_MS", "1500")]).await;
    let mut raw = server.admin().await;
    publish(&mut raw, json!({"n": 0})).await;
    let mut readers = Vec::new();
    for _ in 0..12 {
        let mut events = Sse::open(&server, "channel=lab", None).await;
        readers.push(tokio::spawn(async move {
            let mut last = events.next().await.expect("a block");
            while let Some(block) = events.next().await {
                last = block;
            }
            let ended = std::time::Instant::now();
            assert_eq!((last.field(""), last.id().ends_with(":1")), (Some("draining"), true), "{last:?}");
            let retry: u64 = last.field("retry").expect("when to come back").parse().expect("a number");
            assert!((500..=750).contains(&retry), "{retry}");
            ended
        }));
        let mut messages = websocket(&server, "channel=lab").await;
        readers.push(tokio::spawn(async move {
            assert_eq!(messages.expect_close().await, 1012);
            std::time::Instant::now()
        }));
    }
    server.ask_to_stop();
    let mut ends = Vec::new();
    for reader in readers {
        ends.push(reader.await.expect("it ends well"));
    }
    let spread = ends.iter().max().expect("some").duration_since(*ends.iter().min().expect("some"));
    // By chance within a fifth of the time: once in 10^15 runs.
    assert!(spread.as_millis() > 300, "they left within {spread:?}");
    assert!(server.exited().await.success());
}

/// A session is given up in the same way (`session::whoever_answers_no_ping_is_cut`).
#[apply(both_backends!)]
async fn a_feed_whose_client_answers_no_ping_is_given_up(backend: Backend) {
    use tokio::io::AsyncReadExt;
    let server = Server::start_with(backend, &[("PING_INTERVAL_MS", "200")]).await;
    // One that answers, beside it.
    let mut good = websocket(&server, "").await;
    let mut silent = websocket(&server, "").await.into_stream();
    let mut said = Vec::new();
    let (ended, ()) = tokio::join!(soon("it ends", silent.read_to_end(&mut said)), good.answer_pings(5));
    ended.expect("bytes");
    let pings = said.windows(2).filter(|two| two[0] == 0x89).count();
    let close = [&[0x88, 9][..], &4408_u16.to_be_bytes(), b"timeout"].concat();
    // The first one may have come with the answer to the upgrade.
    assert!(
        (1..=2).contains(&pings) && said.ends_with(&close),
        "{pings} pings, {}",
        String::from_utf8_lossy(&said)
    );
}
