//! Logins under attack: what they cost, whom they keep out, and who is let in all the same.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use macro_rules_attribute::apply;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{
    Answer, Backend, Http, PASSWORD, Raw, Server, answer, both_backends, both_backends_in_pairs, until,
};

/// The tests say where requests come from.
const BEHIND_A_PROXY: [(&str, &str); 1] = [("TRUSTED_PROXIES", "127.0.0.0/8")];
const HOME: &str = "10.0.0.1";
const LOGIN: &str = "/latest/user/login";

/// An address that nobody has used.
fn elsewhere() -> String {
    static USED: AtomicU32 = AtomicU32::new(0);
    Ipv4Addr::from_bits(0x0b00_0000 + USED.fetch_add(1, Ordering::Relaxed)).to_string()
}

/// Users who have the password of `admin`; their ids.
async fn users(server: &Server, names: &[String]) -> Vec<String> {
    let hash = server.password_hash("admin").await;
    let mut ids = Vec::new();
    for name in names {
        let token = server.user(name).await;
        server.set_password_hash(name, &hash).await;
        // Read, not asked for: the server would remember from where.
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap_or_default()).expect("a JWT");
        let claims: Value = serde_json::from_slice(&claims).expect("claims");
        ids.push(claims["sub"].as_str().expect("an id").to_owned());
    }
    ids
}

/// A form sent from this address.
async fn post(http: &Http, path: &str, address: &str, fields: &[(&str, &str)]) -> Answer {
    answer(http.request("POST", path).header("x-forwarded-for", address).form(fields)).await
}

async fn login(http: &Http, address: &str, password: &str) -> Answer {
    post(http, LOGIN, address, &[("username", "ann"), ("password", password)]).await
}

fn detail(answer: &Answer) -> String {
    answer.json["detail"].as_str().unwrap_or_default().to_owned()
}

fn is_told_to_wait(answer: &Answer) -> bool {
    answer.status == 429 && detail(answer).contains("wrong credentials")
}

/// Too long for a password: it is wrong without being hashed, which would take longer than a new guess takes to come on a
/// busy machine.
fn wrong() -> String {
    "x".repeat(1025)
}

/// Guesses at `ann` from ever other addresses until there are no more guesses for strangers.
async fn attack(http: &Http) {
    let wrong = wrong();
    until("the name is closed to strangers", async || {
        let addresses: Vec<String> = (0..6).map(|_| elsewhere()).collect();
        let guesses = addresses.iter().map(|address| login(http, address, &wrong));
        let answers = futures::future::join_all(guesses).await;
        assert!(answers.iter().all(|answer| matches!(answer.status, 400 | 429)), "{answers:?}");
        if answers.iter().any(is_told_to_wait) { Ok(()) } else { Err(answers) }
    })
    .await;
}

/// The right password does not help whom `ask` makes a stranger, as long as the attack lasts.
async fn is_kept_waiting(http: &Http, ask: impl AsyncFn() -> Answer) {
    let refused = until("a stranger is told to wait", async || {
        attack(http).await;
        let answer = ask().await;
        if is_told_to_wait(&answer) { Ok(answer) } else { Err(answer) }
    })
    .await;
    assert!(detail(&refused).contains("for this name") && detail(&refused).contains("last_token"));
    assert!(refused.headers.contains_key("retry-after"));
}

#[apply(both_backends!)]
async fn a_name_cannot_be_locked_from_outside(backend: Backend) {
    let server = Server::start_with(backend, &BEHIND_A_PROXY).await;
    let ids = users(&server, &["ann".to_owned(), "bob".to_owned()]).await;
    let http = Http::new(&server);
    assert_eq!(login(&http, HOME, PASSWORD).await.status, 200);

    is_kept_waiting(&http, async || login(&http, &elsewhere(), PASSWORD).await).await;
    assert_eq!(login(&http, HOME, PASSWORD).await.status, 200, "she has logged in from there before");

    // A token that a login has given proves as much, wherever it is sent from, and long after its end.
    let now = chrono::Utc::now().timestamp();
    let ended = |id: &str| server.sign(json!({"sub": id, "exp": now - 1000, "iat": now - 2000}));
    let (last, bobs) = (ended(&ids[0]).await, ended(&ids[1]).await);
    let with = async |token: &str| {
        let fields = [("username", "ann"), ("password", PASSWORD), ("last_token", token)];
        post(&http, LOGIN, &elsewhere(), &fields).await
    };
    attack(&http).await;
    assert_eq!(with(&last).await.status, 200);
    assert_eq!(login(&http.with(&last), &elsewhere(), PASSWORD).await.status, 200, "as Authorization");
    for (header, given) in [(None, Some(&last)), (Some(&last), None)] {
        let params = json!({"username": "ann", "password": PASSWORD, "last_token": given});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "user.login", "params": params});
        let http = header.map_or(http.clone(), |token| http.with(token));
        let asked = http.request("POST", "/latest/rpc").header("x-forwarded-for", elsewhere()).json(&body);
        let answer = answer(asked).await.ok();
        assert!(answer["result"]["access_token"].is_string(), "{answer}");
    }
    let params = json!({"username": "ann", "password": PASSWORD, "last_token": last});
    assert!(session(&server).await.call("user.login", params).await["access_token"].is_string());
    // One that counts is known to the session.
    let mut raw = session(&server).await;
    let good = server.sign(json!({"sub": ids[0]})).await;
    raw.call("session.hello", json!({"token": good})).await;
    raw.call("user.login", json!({"username": "ann", "password": PASSWORD})).await;

    let forged = format!("{last}x");
    for token in [bobs.as_str(), &forged, "nonsense"] {
        is_kept_waiting(&http, async || with(token).await).await;
    }
    let mut raw = session(&server).await;
    let params = json!({"username": "ann", "password": PASSWORD, "last_token": bobs});
    until("a stranger is told to wait on a session, too", async || {
        attack(&http).await;
        let answer = raw.try_request("user.login", params.clone()).await.expect("an answer");
        let told =
            answer["error"]["data"]["detail"].as_str().is_some_and(|text| text.contains("for this name"));
        if told { Ok(()) } else { Err(answer) }
    })
    .await;

    let change =
        [("username", "ann"), ("password", PASSWORD), ("new_password", "new"), ("last_token", &last)];
    assert_eq!(post(&http, "/latest/user/update-password", &elsewhere(), &change).await.ok(), Value::Null);
    assert_eq!(login(&http, HOME, "new").await.status, 200);
}

/// Who has a token that is not theirs gets no more guesses than others, and takes none from anybody.
#[apply(both_backends!)]
async fn a_stolen_token_is_good_for_few_guesses(backend: Backend) {
    let server = Server::start_with(backend, &BEHIND_A_PROXY).await;
    let ids = users(&server, &["ann".to_owned()]).await;
    let http = Http::new(&server);
    let stolen = server.sign(json!({"sub": ids[0], "exp": 1000})).await;
    let wrong = wrong();
    let guess = async || {
        let fields = [("username", "ann"), ("password", &*wrong), ("last_token", &stolen)];
        post(&http, LOGIN, &elsewhere(), &fields).await
    };
    until("there are no more guesses", async || {
        let answers = futures::future::join_all((0..6).map(|_| guess())).await;
        if answers.iter().any(is_told_to_wait) { Ok(()) } else { Err(answers) }
    })
    .await;
    assert_eq!(login(&http, &elsewhere(), PASSWORD).await.status, 200, "strangers are counted apart");
}

async fn session(server: &Server) -> Raw {
    let address = elsewhere();
    let headers = [("x-forwarded-for", address.as_str())];
    Raw::connect(&server.ws_url(), Some("kernelci.v1.json"), &headers).await.expect("the upgrade succeeds")
}

/// All of them come from one address, as a site behind a proxy does.
#[apply(both_backends_in_pairs!)]
async fn one_user_keeps_nobody_else_out(server: Server) {
    let names: Vec<String> =
        (0..12).map(|number| format!("user{number}")).chain(["ann".to_owned()]).collect();
    users(&server, &names).await;
    let http = Http::new(&server);
    let annoying = (0..48).map(|_| login(&http, HOME, PASSWORD));
    let others = names[..12].iter().map(|name| {
        let http = http.clone();
        async move { http.form(LOGIN, &[("username", name), ("password", PASSWORD)]).await }
    });
    let (annoying, others) =
        tokio::join!(futures::future::join_all(annoying), futures::future::join_all(others));
    assert!(others.iter().all(|answer| answer.status == 200), "{others:?}");
    let let_in = annoying.iter().filter(|answer| answer.status == 200).count();
    assert!((2..48).contains(&let_in), "{let_in}");
    for refused in annoying.iter().filter(|answer| answer.status != 200) {
        assert_eq!(refused.status, 429, "{refused:?}");
        assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    }
}

/// Whose clients have gone: they cost no more than a processor each, and the guess is paid for.
#[apply(both_backends_in_pairs!)]
async fn logins_that_nobody_waits_for(server: Server) {
    let names: Vec<String> = (0..40).map(|number| format!("user{number}")).collect();
    users(&server, &names).await;
    let http = Http::new(&server);
    let right = async |name: &str| http.form(LOGIN, &[("username", name), ("password", PASSWORD)]).await;
    // What one hash needs is there.
    assert_eq!(right("admin").await.status, 200);
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let most = server.memory() + (processors + 3) * (64 << 20);
    let abandoned = async |name: String| {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("it listens");
        let body = format!("username={name}&password=wrong");
        let request = format!(
            "POST {LOGIN} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        // Long enough to be looked at, most times, and not to be answered.
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut others = names.iter();
    until("they have used up what the address may guess", async || {
        futures::future::join_all((0..15).map(|number| abandoned(format!("nobody{number}")))).await;
        assert!(server.memory() < most, "{} MiB", server.memory() >> 20);
        // Right, and so it is given back, the first time that the user comes from here.
        let answer = right(others.next().expect("another user")).await;
        if is_told_to_wait(&answer) { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!(right("admin").await.status, 200, "he has been here before");
}
