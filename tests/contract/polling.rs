//! Long-poll subscriptions: contract 5.4 to 5.8 and 5.10.

use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{
    Answer, Backend, Http, PATIENCE, Raw, Server, another_moment, both_backends, both_backends_in_pairs,
    eventually_within, node, soon, until, until_within,
};

/// Subscribes and returns the id.
pub(crate) async fn subscribe(http: &Http, path: &str) -> u64 {
    let body = http.post(&format!("/latest/subscribe/{path}"), &Value::Null).await.ok();
    body["id"].as_u64().expect("an id")
}

/// Polls until something other than a keep-alive comes.
pub(crate) async fn listen(http: &Http, id: u64) -> Value {
    loop {
        let message = http.get(&format!("/latest/listen/{id}")).await.ok();
        let event = event(&message);
        if event["data"] != "BEEP" {
            return event;
        }
    }
}

/// Begins a poll, and returns when it waits: what comes from now on wakes it. The subscription was not polled before.
pub(crate) async fn waiting(http: &Http, id: u64) -> JoinHandle<Answer> {
    let poll = tokio::spawn({
        let http = http.clone();
        async move { http.get(&format!("/latest/listen/{id}")).await }
    });
    // It is noted when the poll has looked for events and listens for more.
    until("the poll is noted", async || {
        let stats = http.get("/latest/stats/subscriptions").await.ok();
        let one = stats.as_array().unwrap().iter().find(|one| one["id"] == id).cloned();
        if one.as_ref().is_some_and(|one| one["last_poll"].is_string()) { Ok(()) } else { Err(one) }
    })
    .await;
    poll
}

/// The answer of a poll that has a reason to end.
pub(crate) async fn answered(poll: JoinHandle<Answer>) -> Answer {
    soon("the poll is answered", poll).await.unwrap()
}

/// Polls are not ended by keep-alives while a test waits.
const QUIET: [(&str, &str); 1] = [("KEEP_ALIVE_PERIOD", "3600")];

/// The CloudEvent of a message.
fn event(message: &Value) -> Value {
    serde_json::from_str(message["data"].as_str().expect("data is a string")).expect("JSON")
}

pub(crate) async fn publish(http: &Http, channel: &str, data: Value) {
    let body = json!({"data": data});
    assert_eq!(http.post(&format!("/latest/publish/{channel}"), &body).await.ok(), Value::Null);
}

/// A user who may do nothing special.
pub(crate) async fn user(server: &Server, name: &str) -> Http {
    Http::new(server).with(&server.user(name).await)
}

#[apply(both_backends!)]
async fn a_message_is_what_kernelci_sends(server: Server) {
    let http = Http::admin(&server).await;
    let answer = http.post("/latest/subscribe/retry", &Value::Null).await.ok();
    let id = answer["id"].as_u64().expect("an id");
    assert_eq!(answer, json!({"id": id, "channel": "retry", "user": "admin", "promiscuous": false}));
    let body = json!({"data": {"é": [1, 2], "x": null}, "type": "t", "source": "https://s/",
        "attributes": {"extra": "1", "owner": "mallory", "type": "no", "source": "no"}});
    assert_eq!(http.post("/latest/publish/retry", &body).await.ok(), Value::Null);
    let answer = http.get(&format!("/latest/listen/{id}")).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let start =
        r#"{"type":"message","pattern":null,"channel":"retry","data":"{\"specversion\": \"1.0\", \"id\": \""#;
    assert!(answer.text.starts_with(start), "{}", answer.text);
    let text = answer.json["data"].as_str().expect("a string");
    let event = event(&answer.json);
    let (event_id, time) = (event["id"].as_str().unwrap(), event["time"].as_str().unwrap());
    let expected = format!(
        "{{\"specversion\": \"1.0\", \"id\": \"{event_id}\", \"source\": \"https://s/\", \"type\": \"t\", \"time\": \"{time}\", \
         \"data\": {{\"\\u00e9\": [1, 2], \"x\": null}}, \"owner\": \"admin\", \"extra\": \"1\", \"_sequence_id\": 1}}"
    );
    assert_eq!(text, expected);
    assert_eq!((time.len(), &time[26..]), (32, "+00:00"), "{time}");
    // Defaults; and the history has the same.
    publish(&http, "retry", json!("plain")).await;
    let event = listen(&http, id).await;
    assert_eq!(event["source"], "https://api.kernelci.org/");
    assert_eq!(event["type"], "api.kernelci.org");
    assert_eq!(event["_sequence_id"], 2);
}

#[apply(both_backends!)]
async fn attributes_and_channels_have_the_names_that_their_publisher_gives(server: Server) {
    let http = Http::admin(&server).await;
    assert_eq!(http.post("/publish/lab", &json!({"data": 1, "attributes": null})).await.status, 200);
    for (number, channel) in
        ["a b", "ü", "{x}", "}y{", "100%", "node job", &"é".repeat(64)].iter().enumerate()
    {
        let encoded: String = url::form_urlencoded::byte_serialize(channel.as_bytes()).collect();
        let encoded = encoded.replace('+', "%20");
        let id = subscribe(&http, &encoded).await;
        let body = json!({"data": {"n": number},
            "attributes": {"Foo_bar": "1", "traceparent": "00", "Rack-Nr.": 7, "none": null, "partitionkey": "k"}});
        assert_eq!(http.post(&format!("/publish/{encoded}"), &body).await.ok(), Value::Null, "{channel}");
        let message = http.get(&format!("/listen/{id}")).await.ok();
        assert_eq!(message["channel"], *channel);
        let heard = event(&message);
        let attributes: Vec<&String> = heard.as_object().expect("an event").keys().skip(6).collect();
        assert_eq!(
            attributes,
            ["owner", "partitionkey", "Foo_bar", "traceparent", "Rack-Nr.", "_sequence_id"],
            "{channel}"
        );
        assert_eq!((&heard["Foo_bar"], &heard["Rack-Nr."]), (&json!("1"), &json!(7)));
        // The history tells the channel; sessions and feeds have names as CloudEvents have them.
        let told = http.get(&format!("/events?channel={encoded}")).await.ok();
        assert_eq!((&told[0]["channel"], &told[0]["data"]["n"]), (&json!(channel), &json!(number)));
        let mut raw = server.admin().await;
        let from = json!({"sub": 1, "channel": channel, "from": "earliest", "filter": {"foobar": "1"}});
        raw.call("event.subscribe", from).await;
        let seen = raw.event(1).await["event"].take();
        assert_eq!(
            (&seen["foobar"], &seen["racknr"], seen.get("Foo_bar")),
            (&json!("1"), &json!(7), None),
            "{seen}"
        );
        assert_eq!(seen["attributenames"], r#"["Foo_bar","Rack-Nr."]"#);
        let feed = format!("ws://127.0.0.1:{}/events/feed?from=earliest&channel={encoded}", server.port());
        let mut feed = Raw::connect(&feed, Some("cloudevents.json"), &[]).await.expect("upgrades");
        assert_eq!(feed.receive(PATIENCE).await.expect("an event"), seen);
        // Items of queues are given as they were pushed.
        assert_eq!(
            http.post(&format!("/push/{encoded}"), &json!({"data": 1, "Foo_bar": 2})).await.ok(),
            Value::Null
        );
        assert_eq!(http.get(&format!("/pop/{encoded}")).await.ok()["Foo_bar"], 2, "{channel}");
    }
    for (channel, attributes, field) in [
        ("lab", json!({"Foo_bar": 1, "foobar": 2}), "foobar"),
        ("lab", json!({"_": 1}), "_"),
        ("lab", json!({"Owner": "eve"}), "Owner"),
        ("lab", json!({"x": 1.5}), "x"),
        ("a%0Ab", json!({}), "channel"),
        ("a%2Fb", json!({}), "channel"),
        ("first%20epoch", json!({}), "channel"),
        ("ended%205", json!({}), "channel"),
    ] {
        let body = json!({"data": 1, "attributes": attributes});
        let refused = http.post(&format!("/publish/{channel}"), &body).await;
        assert_eq!(refused.status, 422, "{channel} {attributes}: {}", refused.text);
        assert!(refused.text.contains(field), "{}", refused.text);
    }
    let long = http.post(&format!("/publish/{}", "x".repeat(129)), &json!({"data": 1})).await;
    assert_eq!(long.status, 422);
}

#[apply(both_backends!)]
async fn a_node_event_comes_as_it_was_written(server: Server) {
    let http = Http::admin(&server).await;
    let id = subscribe(&http, "node").await;
    let made = http.post("/latest/node", &node("checkout", "c")).await.ok();
    let event = listen(&http, id).await;
    let names: Vec<&String> = event.as_object().unwrap().keys().collect();
    assert_eq!(names, ["specversion", "id", "source", "type", "time", "data", "owner", "_sequence_id"]);
    let data = &event["data"];
    let names: Vec<&String> = data.as_object().unwrap().keys().collect();
    let expected =
        ["op", "id", "kind", "name", "path", "group", "state", "result", "owner", "data", "is_hierarchy"];
    assert_eq!(names, expected);
    assert_eq!((&data["op"], &data["id"]), (&json!("created"), &made["id"]));
    let mut update = made.clone();
    update["state"] = "done".into();
    update["result"] = "pass".into();
    http.put(&format!("/latest/node/{}", made["id"].as_str().unwrap()), &update).await.ok();
    let data = &listen(&http, id).await["data"];
    assert_eq!(
        (&data["op"], &data["previous_state"], &data["previous_result"]),
        (&json!("updated"), &json!("running"), &Value::Null)
    );
}

#[apply(both_backends!)]
async fn what_happens_between_polls_comes_in_order(server: Server) {
    let http = Http::admin(&server).await;
    let id = subscribe(&http, "lab").await;
    for n in 1..=20 {
        publish(&http, "lab", json!(n)).await;
    }
    for n in 1..=10 {
        assert_eq!(listen(&http, id).await["data"], n);
    }
    for n in 21..=25 {
        publish(&http, "lab", json!(n)).await;
    }
    for n in 11..=25 {
        assert_eq!(listen(&http, id).await["data"], n);
    }
}

#[apply(both_backends!)]
async fn a_poll_is_woken_by_an_event(backend: Backend) {
    let server = Server::start_with(backend, &QUIET).await;
    let http = Http::admin(&server).await;
    for n in 1..=3 {
        let poll = waiting(&http, subscribe(&http, "lab").await).await;
        publish(&http, "lab", json!(n)).await;
        assert_eq!(event(&answered(poll).await.ok())["data"], n);
    }
}

#[apply(both_backends!)]
async fn events_of_others_are_for_the_promiscuous(server: Server) {
    let (admin, bob) = (Http::admin(&server).await, user(&server, "bob").await);
    let own = subscribe(&bob, "lab").await;
    let all = subscribe(&bob, "lab?promisc=True").await;
    publish(&admin, "lab", json!("admin's")).await;
    publish(&bob, "lab", json!("bob's")).await;
    assert_eq!(listen(&bob, own).await["data"], "bob's");
    assert_eq!(listen(&bob, all).await["data"], "admin's");
    assert_eq!(listen(&bob, all).await["data"], "bob's");
    let stats = admin.get("/latest/stats/subscriptions").await.ok();
    let promiscuous: Vec<&Value> = stats.as_array().unwrap().iter().map(|one| &one["promiscuous"]).collect();
    assert_eq!(promiscuous, [false, true]);
}

#[apply(both_backends!)]
async fn refusals_are_those_of_the_contract(server: Server) {
    let (admin, bob) = (Http::admin(&server).await, user(&server, "bob").await);
    let id = subscribe(&admin, "lab").await;
    let unknown = |id: u64| json!(format!("Subscription id not found: 'Subscription {id} not found'"));
    assert_eq!(admin.get("/latest/listen/7").await.refusal(), (404, unknown(7)));
    assert_eq!(admin.post("/latest/unsubscribe/7", &Value::Null).await.refusal(), (404, unknown(7)));
    let foreign = bob.get(&format!("/latest/listen/{id}")).await.refusal();
    let detail = json!(format!("Error while listening to sub id {id}: Subscription {id} not owned by bob"));
    assert_eq!(foreign, (403, detail), "500 in KernelCI, which clients retry");
    let foreign = bob.post(&format!("/latest/unsubscribe/{id}"), &Value::Null).await.refusal();
    assert_eq!(foreign, (403, json!(format!("Subscription {id} not owned by bob"))));
    let bad = admin.get("/latest/listen/x").await;
    assert_eq!((bad.status, &bad.json["detail"][0]["loc"]), (422, &json!(["path", "sub_id"])));
    for (method, path) in [
        ("POST", "subscribe/lab"),
        ("GET", "listen/7"),
        ("POST", "unsubscribe/7"),
        ("POST", "publish/lab"),
        ("GET", "stats/subscriptions"),
    ] {
        let body = json!({"data": 1});
        let answer = Http::new(&server)
            .send(method, &format!("/latest/{path}"), (method == "POST").then_some(&body))
            .await;
        assert_eq!(answer.refusal(), (401, json!("Unauthorized")), "{path}");
    }
    assert_eq!(bob.get("/latest/stats/subscriptions").await.refusal(), (403, json!("Forbidden")));
    assert_eq!(admin.get(&format!("/latest/unsubscribe/{id}")).await.status, 405);
    let done = admin.post(&format!("/latest/unsubscribe/{id}"), &Value::Null).await;
    assert_eq!((done.status, done.text.as_str()), (200, "null"));
    assert_eq!(admin.get(&format!("/latest/listen/{id}")).await.refusal(), (404, unknown(id)));
}

#[apply(both_backends!)]
async fn a_subscription_that_ends_ends_its_poll(backend: Backend) {
    let server = Server::start_with(backend, &QUIET).await;
    let http = Http::admin(&server).await;
    let id = subscribe(&http, "lab").await;
    let poll = waiting(&http, id).await;
    http.post(&format!("/latest/unsubscribe/{id}"), &Value::Null).await.ok();
    assert_eq!(answered(poll).await.refusal(), (404, json!(format!("Subscription id not found: {id}"))));
}

#[apply(both_backends!)]
async fn payloads_that_python_takes_for_none_are_refused(server: Server) {
    let http = Http::admin(&server).await;
    let id = subscribe(&http, "lab").await;
    for nothing in [json!(null), json!(""), json!(0), json!(0.0), json!(false), json!([]), json!({})] {
        let answer = http.post("/latest/publish/lab", &json!({"data": nothing})).await;
        let item = &answer.json["detail"][0];
        assert_eq!(answer.status, 422, "{nothing}");
        assert_eq!(
            (&item["type"], &item["loc"], &item["msg"]),
            (
                &json!("value_error"),
                &json!(["body", "data"]),
                &json!("Value error, None is not allowed as event payload")
            )
        );
    }
    for data in [json!("x"), json!(1.5), json!(true), json!([0]), json!({"a": null})] {
        publish(&http, "lab", data.clone()).await;
        assert_eq!(listen(&http, id).await["data"], data);
    }
    // Left out it is null.
    assert_eq!(http.post("/latest/publish/lab", &json!({})).await.ok(), Value::Null);
    assert_eq!(listen(&http, id).await["data"], Value::Null);
}

#[apply(both_backends!)]
async fn only_who_may_edit_a_node_tells_of_it(server: Server) {
    let (admin, bob) = (Http::admin(&server).await, user(&server, "bob").await);
    let made = admin.post("/latest/node", &node("kbuild", "k")).await.ok();
    let mut event = made.clone();
    event["op"] = "updated".into();
    let id = subscribe(&admin, "node").await;
    // As lava_callback does.
    publish(&admin, "node", event.clone()).await;
    // The node's own event comes first, if it was still on its way.
    let mut heard = listen(&admin, id).await;
    if heard["data"]["op"] == "created" {
        heard = listen(&admin, id).await;
    }
    assert_eq!(heard["data"], event);
    assert_eq!(bob.post("/latest/publish/node", &json!({"data": event})).await.status, 401);
    for field in ["op", "id", "kind", "name", "state", "result", "data"] {
        let mut lacking = event.clone();
        lacking.as_object_mut().unwrap().remove(field);
        let answer = admin.post("/latest/publish/node", &json!({"data": lacking})).await;
        assert_eq!((answer.status, &answer.json["detail"][0]["loc"]), (422, &json!(["body", "data", field])));
    }
    for (field, wrong) in
        [("name", json!({"toString": 1})), ("path", json!(5)), ("state", json!("odd")), ("data", json!("x"))]
    {
        let mut odd = event.clone();
        odd[field] = wrong;
        let answer = admin.post("/latest/publish/node", &json!({"data": odd})).await;
        assert_eq!((answer.status, &answer.json["detail"][0]["loc"]), (422, &json!(["body", "data", field])));
    }
    assert_eq!(admin.post("/latest/publish/node", &json!({"data": "text"})).await.status, 422);
    let own = bob.post("/latest/node", &node("kbuild", "bob's")).await.ok();
    let mut event = own.clone();
    event["op"] = "updated".into();
    publish(&bob, "node", event).await;
}

#[apply(both_backends!)]
async fn a_kill_between_polls_loses_nothing(server: Server) {
    let mut server = server;
    let http = Http::admin(&server).await;
    let (named, unnamed) =
        (subscribe(&http, "lab?subscriber_id=daemon").await, subscribe(&http, "lab").await);
    let mut n = 0;
    for kill in [true, false, true] {
        for _ in 0..3 {
            n += 1;
            publish(&http, "lab", json!(n)).await;
            assert_eq!(listen(&http, named).await["data"], n);
            assert_eq!(listen(&http, unnamed).await["data"], n);
        }
        n += 1;
        publish(&http, "lab", json!(n)).await;
        // What was handed over is noted a moment later; only then is just the last one left.
        until("what was handed over is noted", async || {
            let stats = http.get("/latest/stats/subscriptions").await.ok();
            let lags: Vec<_> =
                stats.as_array().unwrap().iter().map(|one| one["lag_events"].clone()).collect();
            if lags == [1, 1] { Ok(()) } else { Err(lags) }
        })
        .await;
        if kill {
            server.kill9();
        } else {
            server.terminate().await;
        }
        server.restart().await;
        assert_eq!(listen(&http, named).await["data"], n);
        assert_eq!(listen(&http, unnamed).await["data"], n);
    }
}

#[apply(both_backends!)]
async fn of_two_polls_each_event_goes_to_one(backend: Backend) {
    // A poll that another one has overtaken waits that long, and then is made again.
    let server = Server::start_with(backend, &[("KEEP_ALIVE_PERIOD", "1")]).await;
    let http = Http::admin(&server).await;
    let id = subscribe(&http, "lab").await;
    let reader = |http: Http| {
        tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                let data = listen(&http, id).await["data"].clone();
                if data == "end" {
                    return seen;
                }
                seen.push(data.as_u64().unwrap());
            }
        })
    };
    let (one, two) = (reader(http.clone()), reader(http.clone()));
    for n in 1..=100 {
        publish(&http, "lab", json!(n)).await;
    }
    // Each needs its own end, and which of them an end goes to is not said.
    eventually_within(2 * PATIENCE, "both readers come to the end", async || {
        publish(&http, "lab", json!("end")).await;
        one.is_finished() && two.is_finished()
    })
    .await;
    let mut all = [one.await.unwrap(), two.await.unwrap()].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=100).collect::<Vec<_>>(), "nothing is lost, nothing comes twice");
}

#[apply(both_backends!)]
async fn a_client_that_goes_while_it_waits_loses_nothing(server: Server) {
    use tokio::io::AsyncWriteExt;
    let http = Http::admin(&server).await;
    let id = subscribe(&http, "lab").await;
    for n in 1..=10 {
        let before = http.get("/latest/stats/subscriptions").await.ok()[0]["last_poll"].clone();
        another_moment().await;
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        let request = format!(
            "GET /latest/listen/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            server.token().await
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        // It goes while the poll is on its way to the store, or when it waits.
        if n % 4 > 0 {
            until("the poll is noted", async || {
                let stats = http.get("/latest/stats/subscriptions").await.ok();
                let noted = stats[0]["last_poll"].clone();
                if noted != before { Ok(()) } else { Err(noted) }
            })
            .await;
        }
        if n % 2 == 0 {
            // Reset instead of an orderly end.
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        publish(&http, "lab", json!(n)).await;
        assert_eq!(listen(&http, id).await["data"], n);
    }
}

#[apply(both_backends!)]
async fn keep_alives_come_while_nothing_does(backend: Backend) {
    let server = Server::start_with(backend, &[("KEEP_ALIVE_PERIOD", "1")]).await;
    let http = Http::admin(&server).await;
    let id = subscribe(&http, "lab?subscriber_id=quiet").await;
    let begun = Instant::now();
    for _ in 0..2 {
        let message = http.get(&format!("/latest/listen/{id}")).await.ok();
        let event = event(&message);
        let names: Vec<&String> = event.as_object().unwrap().keys().collect();
        assert_eq!(names, ["specversion", "id", "source", "type", "time", "data"]);
        assert_eq!(event["data"], "BEEP");
    }
    assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
    // That is the least; how much later they come is the machine's affair.
    // A keep-alive acknowledges nothing that was not handed over.
    publish(&http, "lab", json!("x")).await;
    assert_eq!(listen(&http, id).await["data"], "x");
}

#[apply(both_backends!)]
async fn a_server_that_drains_sends_its_polls_home(backend: Backend) {
    let mut server = Server::start_with(backend, &QUIET).await;
    let http = Http::admin(&server).await;
    let poll = waiting(&http, subscribe(&http, "lab").await).await;
    assert!(server.terminate().await.success());
    assert_eq!(event(&answered(poll).await.ok())["data"], "BEEP");
}

#[apply(both_backends_in_pairs!)]
async fn subscriptions_that_nobody_polls_are_dropped(backend: Backend) {
    let settings = [
        // It is looked for what is too old every 10 s then.
        ("SUBSCRIPTION_IDLE_SECONDS", "20"),
        ("CONSUMER_IDLE_SECONDS", "30"),
        ("PING_INTERVAL_MS", "10000"),
    ];
    let server = Server::start_with(backend, &settings).await;
    let http = Http::admin(&server).await;
    let never = subscribe(&http, "lab").await;
    let named = subscribe(&http, "lab?subscriber_id=named").await;
    let polled = subscribe(&http, "lab").await;
    for id in [never, named] {
        server.age_subscription(id).await;
    }
    until_within(2 * PATIENCE, "those that nobody polls are dropped", async || {
        publish(&http, "lab", json!("x")).await;
        assert_eq!(listen(&http, polled).await["data"], "x");
        let stats = http.get("/latest/stats/subscriptions").await.ok();
        let open: Vec<_> = stats.as_array().unwrap().iter().map(|one| one["id"].as_u64().unwrap()).collect();
        assert!(open.contains(&polled), "{open:?}");
        if open == [polled] { Ok(()) } else { Err(open) }
    })
    .await;
    // It is counted when the store has answered.
    until("both are counted", async || {
        let metrics = http.get("/latest/metrics").await.text;
        let line = metrics.lines().find(|line| line.starts_with("subscriptions_cleaned")).map(str::to_owned);
        if line.as_ref().is_some_and(|line| line.ends_with(" 2")) { Ok(()) } else { Err(line) }
    })
    .await;
}

#[apply(both_backends!)]
async fn stats_show_how_far_behind_each_is(server: Server) {
    let http = Http::admin(&server).await;
    let id = subscribe(&http, "lab?promisc=true&subscriber_id=slow").await;
    for n in 1..=3 {
        publish(&http, "lab", json!(n)).await;
    }
    listen(&http, id).await;
    // That it was handed over is noted a little later.
    let stats = until("one of three is acknowledged", async || {
        let stats = http.get("/latest/stats/subscriptions").await.ok();
        if stats[0]["lag_events"] == 2 && stats[0]["lag_seconds"].as_f64() > Some(0.2) {
            Ok(stats)
        } else {
            Err(stats)
        }
    })
    .await;
    let one = &stats[0];
    let names: Vec<&String> = one.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "id",
            "channel",
            "user",
            "promiscuous",
            "created",
            "last_poll",
            "subscriber_id",
            "lag_events",
            "lag_seconds"
        ]
    );
    assert_eq!((&one["id"], &one["user"], &one["promiscuous"]), (&json!(id), &json!("admin"), &json!(true)));
    assert_eq!((&one["subscriber_id"], &one["lag_events"]), (&json!("slow"), &json!(2)));
    let same = server.admin().await.call("stats.subscriptions", json!({})).await;
    assert_eq!(same["items"][0]["id"], id);
}

/// Any instance answers any poll.
#[tokio::test]
async fn two_instances_answer_one_subscription_in_turn() {
    let one = Server::start_with(Backend::Production, &QUIET).await;
    let two = one.another().await;
    let (here, there) = (Http::admin(&one).await, Http::admin(&two).await);
    let id = subscribe(&here, "lab").await;
    for n in 1..=60 {
        publish(if n % 3 == 0 { &here } else { &there }, "lab", json!(n)).await;
        if n % 2 == 0 {
            // Two events wait: one from each instance.
            assert_eq!(listen(&there, id).await["data"], n - 1);
            assert_eq!(listen(&here, id).await["data"], n);
        }
    }
    assert_eq!(there.get("/latest/stats/subscriptions").await.ok()[0]["id"], id);
    // By itself a poll looks once a minute whether there still is a subscription: the other instance tells it.
    for _ in 0..3 {
        let last = subscribe(&here, "lab").await;
        let poll = waiting(&there, last).await;
        here.post(&format!("/latest/unsubscribe/{last}"), &Value::Null).await.ok();
        assert_eq!(answered(poll).await.status, 404);
    }
}

/// A subscriber of KernelCI's own server, whose position is a number of all channels together, goes on with us.
#[tokio::test]
async fn a_subscriber_of_the_present_server_goes_on() {
    use bson::{Bson, DateTime, doc, oid::ObjectId};
    let server = Server::start(Backend::Production).await;
    let http = Http::admin(&server).await;
    let client = mongodb::Client::with_uri_str(&crate::support::services().mongo).await.unwrap();
    let database = client.database(server.setting("MONGO_DB").unwrap());
    let now = DateTime::now();
    let state = |name: &str, channel: &str, last: i32| {
        doc! {
            "subscriber_id": name, "channel": channel, "user": "admin", "promiscuous": false,
            "last_event_id": last, "created_at": now, "last_poll": Bson::Null,
        }
    };
    let states = database.collection("subscriber_state");
    states.insert_many([state("behind", "retry", 4), state("ahead", "retry", 900)]).await.unwrap();
    let event = |number: i32| {
        doc! {
            "_id": ObjectId::new(), "timestamp": now, "sequence_id": number, "channel": "retry", "owner": "admin",
            "data": {"old": number},
        }
    };
    database.collection("eventhistory").insert_many([event(3), event(5), event(8)]).await.unwrap();
    publish(&http, "retry", json!("ours")).await;
    // Behind its place: the old events, then ours.
    let id = subscribe(&http, "retry?subscriber_id=behind").await;
    for data in [json!({"old": 5}), json!({"old": 8}), json!("ours")] {
        assert_eq!(listen(&http, id).await["data"], data);
    }
    // The global number was far ahead of the channel's, and must not hide what came since.
    let id = subscribe(&http, "retry?subscriber_id=ahead").await;
    assert_eq!(listen(&http, id).await["data"], "ours");
}
