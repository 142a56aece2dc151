//! Named tokens, and revocation: what ends when, and on whose sessions.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{
    Backend, Http, MailServer, PATIENCE, Protection, Raw, Server, both_backends, node, soon, until,
};

async fn member(server: &Server, name: &str) -> (String, Http) {
    let admin = Http::admin(server).await;
    let invite = json!({"username": name, "email": format!("{name}@example.org"), "send_email": false,
        "return_token": true});
    let token = admin.post("/latest/user/invite", &invite).await.ok()["token"].clone();
    let user = admin.post("/user/accept-invite", &json!({"token": token, "password": name})).await.ok();
    (user["id"].as_str().expect("an id").to_owned(), admin.with(&server.login(name, name).await))
}

async fn session(server: &Server, token: &str) -> Raw {
    let mut raw = server.connect().await;
    raw.call("session.hello", json!({"token": token})).await;
    raw.call("event.subscribe", json!({"sub": 1, "channel": "node"})).await;
    raw
}

/// The session hears that it has lost its rights, long before the next ping, and has.
async fn ended(raw: &mut Raw) {
    let told = raw.next_notification("unsubscribed", PATIENCE).await;
    assert_eq!(told["sub"], 1);
    assert!(told["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{told}");
    assert_eq!(raw.fail("node.find", json!({})).await["code"], -32001);
}

fn job(runtime: &str) -> Value {
    let mut job = node("job", "j");
    job["data"]["runtime"] = runtime.into();
    job
}

#[apply(both_backends!)]
async fn a_token_is_made_listed_and_revoked(server: Server) {
    let (_, ann) = member(&server, "ann").await;
    let made = ann
        .post("/latest/user/tokens", &json!({"name": "ci", "scopes": ["read"], "expires_in": 60}))
        .await
        .ok();
    let keys: Vec<_> = made.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["id", "name", "scopes", "created", "last_used", "expires", "token"]);
    assert_eq!((&made["scopes"], &made["last_used"]), (&json!(["read"]), &Value::Null));
    let reader = ann.with(made["token"].as_str().expect("a token"));
    assert_eq!(reader.get("/whoami").await.ok()["username"], "ann");
    let list = ann.get("/latest/user/tokens").await.ok();
    assert_eq!(list["items"][0]["id"], made["id"]);
    assert!(list["items"][0]["last_used"].is_string(), "{list}");
    assert!(list["items"][0].get("token").is_none(), "told once");
    let again = json!({"name": "ci", "scopes": ["read"]});
    assert_eq!(ann.post("/user/tokens", &again).await.status, 409);
    for bad in [
        json!({"name": "", "scopes": ["read"]}),
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "scopes": ["admin"]}),
        json!({"name": "x", "scopes": "read"}),
        json!({"name": "x", "scopes": ["read"], "expires_in": 0}),
        json!({"name": "x", "scopes": ["read"], "expires_in": 1e12}),
        json!({"name": "x\u{0}", "scopes": ["read"]}),
        json!({"scopes": ["read"]}),
    ] {
        assert_eq!(ann.post("/user/tokens", &bad).await.status, 422, "{bad}");
    }
    let (_, bob) = member(&server, "bob").await;
    let path = format!("/latest/user/tokens/{}", made["id"].as_str().expect("an id"));
    assert_eq!(bob.get("/user/tokens").await.ok()["items"], json!([]));
    assert_eq!(bob.delete(&path).await.status, 404, "somebody else's");
    let answer = ann.delete(&path).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    assert_eq!(reader.get("/whoami").await.status, 401);
    assert_eq!(ann.delete(&path).await.status, 404);
    assert_eq!(ann.delete("/user/tokens/xyz").await.status, 400);
    assert_eq!(Http::new(&server).get("/user/tokens").await.status, 401);
}

#[apply(both_backends!)]
async fn a_user_has_a_bounded_number(server: Server) {
    let (_, ann) = member(&server, "ann").await;
    for n in 0..50 {
        ann.post("/user/tokens", &json!({"name": format!("t{n}"), "scopes": ["read"]})).await.ok();
    }
    let more = ann.post("/user/tokens", &json!({"name": "more", "scopes": ["read"]})).await;
    assert_eq!(more.status, 409);
    assert!(more.json["detail"].as_str().is_some_and(|detail| detail.contains("50")), "{more:?}");
}

/// A login of the user, and a named token of theirs.
async fn two_tokens(server: &Server, name: &str, password: &str) -> [Http; 2] {
    let login = Http::new(server).with(&server.login(name, password).await);
    let named = json!({"name": format!("of {password}"), "scopes": ["read"]});
    let made = login.post("/user/tokens", &named).await.ok();
    let named = login.with(made["token"].as_str().expect("a token"));
    [login, named]
}

async fn are_good(tokens: &[Http; 2]) -> [bool; 2] {
    [tokens[0].get("/whoami").await.status == 200, tokens[1].get("/whoami").await.status == 200]
}

/// Each way to set a new password while one has the old one, or is an admin.
async fn set_passwords(server: &Server, id: &str, stays: [bool; 2]) {
    let admin = Http::admin(server).await;
    let tokens = two_tokens(server, "ann", "ann").await;
    let fields = [("username", "ann"), ("password", "ann"), ("new_password", "two")];
    assert_eq!(admin.form("/user/update-password", &fields).await.status, 200);
    assert_eq!(are_good(&tokens).await, stays);
    let tokens = two_tokens(server, "ann", "two").await;
    tokens[0].patch("/user/me", &json!({"password": "three"})).await.ok();
    assert_eq!(are_good(&tokens).await, stays);
    let tokens = two_tokens(server, "ann", "three").await;
    admin.patch(&format!("/user/{id}"), &json!({"password": "four"})).await.ok();
    assert_eq!(are_good(&tokens).await, stays);
    assert_eq!(tokens[1].get("/user/tokens").await.ok()["items"].as_array().map(Vec::len), Some(3));
}

#[apply(both_backends!)]
async fn a_new_password_ends_logins_and_no_named_token(server: Server) {
    let (id, _) = member(&server, "ann").await;
    set_passwords(&server, &id, [false, true]).await;
}

#[apply(both_backends!)]
async fn logins_outlive_a_new_password_where_a_site_wants_it(backend: Backend) {
    let sink = MailServer::start(Protection::None).await;
    let mut settings = sink.settings();
    settings.push(("TOKENS_SURVIVE_PASSWORD", "true".to_owned()));
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_with(backend, &settings).await;
    let (id, ann) = member(&server, "ann").await;
    set_passwords(&server, &id, [true, true]).await;
    assert_eq!(ann.get("/whoami").await.status, 200);
    // Who needs a mailed token may have lost more than a password.
    let tokens = two_tokens(&server, "ann", "four").await;
    assert_eq!(ann.post("/user/forgot-password", &json!({"email": "ann@example.org"})).await.status, 202);
    let reset = json!({"token": sink.next().await.token(), "password": "five"});
    assert_eq!(ann.post("/user/reset-password", &reset).await.status, 200);
    assert_eq!(are_good(&tokens).await, [false, false]);
    assert_eq!(ann.get("/whoami").await.status, 401);
}

#[apply(both_backends!)]
async fn a_read_token_reads(server: Server) {
    let admin = Http::admin(&server).await;
    let token = admin.post("/user/tokens", &json!({"name": "r", "scopes": ["read"]})).await.ok();
    let reader = admin.with(token["token"].as_str().expect("a token"));
    for path in ["/whoami", "/users", "/user-groups", "/user/tokens", "/count", "/user/invite/url"] {
        assert_eq!(reader.get(path).await.status, 200, "{path}");
    }
    let refusals = [
        reader.post("/node", &node("checkout", "x")).await,
        reader.post("/user-groups", &json!({"name": "x"})).await,
        reader.post("/user/tokens", &json!({"name": "x", "scopes": ["read"]})).await,
        reader.patch("/user/me", &json!({"password": "x"})).await,
        reader.post("/user/invite", &json!({"username": "x", "email": "x@example.org"})).await,
    ];
    for refusal in refusals {
        assert_eq!(refusal.status, 403, "{refusal:?}");
        assert!(refusal.json["detail"].as_str().is_some_and(|detail| detail.contains("read")), "{refusal:?}");
    }
    let mut raw = session(&server, token["token"].as_str().expect("a token")).await;
    raw.call("user.whoami", json!({})).await;
    assert_eq!(raw.fail("node.create", json!({"node": node("checkout", "x")})).await["code"], -32003);
    assert_eq!(raw.fail("event.publish", json!({"channel": "x", "data": 1})).await["code"], -32003);
    raw.call("user.logout", json!({})).await;
    assert_eq!(reader.get("/whoami").await.status, 401, "a token may end itself");
    assert_eq!(admin.get("/whoami").await.status, 200);
}

#[apply(both_backends!)]
async fn a_runtime_token_writes_its_runtimes(server: Server) {
    let admin = Http::admin(&server).await;
    let body = json!({"name": "lab", "scopes": ["write:lava-a", "write:lava-b"]});
    let token = admin.post("/user/tokens", &body).await.ok();
    let lab = admin.with(token["token"].as_str().expect("a token"));
    let mine = lab.post("/node", &job("lava-a")).await.ok();
    let other = admin.post("/node", &job("lava-x")).await.ok();
    assert_eq!(lab.post("/node", &job("lava-x")).await.status, 403);
    assert_eq!(lab.post("/node", &node("checkout", "c")).await.status, 403);
    let path = |node: &Value| format!("/node/{}", node["id"].as_str().expect("an id"));
    lab.patch(&path(&mine), &json!({"debug": {"x": "y"}})).await.ok();
    assert_eq!(lab.patch(&path(&other), &json!({"debug": {"x": "y"}})).await.status, 401);
    let moved = json!({"data": {"runtime": "lava-x"}});
    assert_eq!(lab.patch(&path(&mine), &moved).await.status, 403, "nothing is given away");
    let mut raw = session(&server, token["token"].as_str().expect("a token")).await;
    let mark = json!({"ids": [mine["id"], other["id"]], "field": "processed_by_kcidb_bridge", "value": true});
    assert_eq!(raw.call("node.mark", mark).await["updated"], 1);
    let root = raw.call("node.get", json!({"id": mine["id"]})).await;
    let tree = |child: Value| {
        json!({"id": mine["id"], "tree": {"node": root, "child_nodes": [
        {"node": child, "child_nodes": []}]}})
    };
    let nodes = raw.call("node.submit", tree(node("test", "t"))).await["nodes"].clone();
    assert_eq!(nodes.as_array().map(Vec::len), Some(2), "results below a job of theirs");
    raw.call("node.submit", tree(nodes[1].clone())).await;
    let error = raw.fail("node.submit", tree(job("lava-x"))).await;
    assert_eq!(error["data"]["status"], 403, "{error}");
    // As with `node.update`, nothing loses its runtime.
    let below = raw.call("node.submit", tree(job("lava-b"))).await["nodes"][1].clone();
    for (at, changed) in [("the root", &mine), ("what is below it", &below)] {
        let mut request = tree(below.clone());
        let place = if *changed == mine { "/tree/node/data" } else { "/tree/child_nodes/0/node/data" };
        request.pointer_mut(place).and_then(Value::as_object_mut).expect("data").remove("runtime");
        let error = raw.fail("node.submit", request).await;
        assert_eq!(error["data"]["status"], 403, "{at}: {error}");
    }
    let stray = admin.post("/node", &node("checkout", "stray")).await.ok();
    let mut stray = raw.call("node.get", json!({"id": stray["id"]})).await;
    stray["name"] = "taken".into();
    let error = raw.fail("node.submit", tree(stray)).await;
    assert_eq!(error["data"]["status"], 403, "{error}");
    for (method, params) in [
        ("event.publish", json!({"channel": "x", "data": 1})),
        ("token.create", json!({"name": "x", "scopes": ["read"]})),
        ("user.update_me", json!({})),
    ] {
        assert_eq!(raw.fail(method, params).await["code"], -32003, "{method}");
    }
}

#[apply(both_backends!)]
async fn sessions_end_with_what_they_stand_on(backend: Backend) {
    // No ping helps: what is heard comes at once.
    let settings = [("ANONYMOUS_READ", "false"), ("PING_INTERVAL_MS", "600000")];
    let server = Server::start_with(backend, &settings).await;
    // In production the change comes in at another instance than the session's.
    let other = match backend {
        Backend::Production => Some(server.another().await),
        Backend::Embedded => None,
    };
    let other = other.as_ref().unwrap_or(&server);
    let admin = Http::admin(&server).await;
    let login = async |name: &str| server.login(name, name).await;
    for name in ["ann", "bob", "cat", "dan", "eve"] {
        member(&server, name).await;
    }
    let id = async |name: &str| {
        let page = admin.get(&format!("/users?username={name}")).await.ok();
        page["items"][0]["id"].as_str().expect("an id").to_owned()
    };

    let (ann, again) = (login("ann").await, login("ann").await);
    let (mut gone, mut stays) = (session(other, &ann).await, session(other, &again).await);
    assert_eq!(admin.with(&ann).post("/user/logout", &json!({})).await.status, 204);
    ended(&mut gone).await;
    assert_eq!(gone.fail("session.refresh", json!({"token": ann})).await["code"], -32001);
    stays.call("node.find", json!({})).await;

    let mut raw = session(other, &login("bob").await).await;
    admin.patch(&format!("/user/{}", id("bob").await), &json!({"is_active": false})).await.ok();
    ended(&mut raw).await;

    let mut raw = session(other, &login("cat").await).await;
    let fields = [("username", "cat"), ("password", "cat"), ("new_password", "new")];
    assert_eq!(admin.form("/user/update-password", &fields).await.status, 200);
    ended(&mut raw).await;

    let dan = admin.with(&login("dan").await);
    let token = dan.post("/user/tokens", &json!({"name": "x", "scopes": ["read"]})).await.ok();
    let mut raw = session(other, token["token"].as_str().expect("a token")).await;
    assert_eq!(
        dan.delete(&format!("/user/tokens/{}", token["id"].as_str().expect("an id"))).await.status,
        204
    );
    ended(&mut raw).await;
    let mut raw = session(other, &login("dan").await).await;
    assert_eq!(admin.delete(&format!("/user/{}", id("dan").await)).await.status, 200);
    ended(&mut raw).await;

    // Rights come and go with the next request.
    let mut raw = session(other, &login("eve").await).await;
    assert_eq!(raw.fail("group.find", json!({})).await["code"], -32003);
    let path = format!("/user/{}", id("eve").await);
    for (is_superuser, allowed) in [(true, true), (false, false)] {
        admin.patch(&path, &json!({"is_superuser": is_superuser})).await.ok();
        until("the session has its new rights", async || {
            let answer = raw.request("group.find", json!({})).await;
            if answer["error"].is_null() == allowed { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    stays.call("node.find", json!({})).await;
}

#[apply(both_backends!)]
async fn a_feed_ends_with_its_token(backend: Backend) {
    // No ping helps here either.
    let settings = [("ANONYMOUS_READ", "false"), ("PING_INTERVAL_MS", "600000")];
    let server = Server::start_with(backend, &settings).await;
    let (_, ann) = member(&server, "ann").await;
    let mut feed = ann.request("GET", "/latest/events/feed").send().await.expect("answers");
    assert_eq!(feed.status().as_u16(), 200);
    feed.chunk().await.expect("open").expect("a greeting");
    assert_eq!(ann.post("/user/logout", &json!({})).await.status, 204);
    let end = async { while let Ok(Some(_)) = feed.chunk().await {} };
    soon("the feed ends", end).await;
}

#[apply(both_backends!)]
async fn the_websocket_knows_them_all(server: Server) {
    let mut raw = server.admin().await;
    let invite =
        json!({"username": "ann", "email": "ann@example.org", "send_email": false, "return_token": true});
    let invited = raw.call("user.invite", invite).await;
    let accept = json!({"token": invited["token"], "password": "ann"});
    let user = raw.call("user.accept_invite", accept).await;
    raw.call("group.create", json!({"name": "g"})).await;
    let changed =
        raw.call("user.update", json!({"id": user["id"], "groups": ["g"], "is_superuser": true})).await;
    assert_eq!((&changed["groups"][0]["name"], &changed["is_superuser"]), (&json!("g"), &json!(true)));
    let page = raw.call("user.find", json!({"filter": {"groups.name": "g", "is_active": true}})).await;
    assert_eq!((&page["items"][0]["id"], &page["total"]), (&user["id"], &json!(1)));
    assert_eq!(
        raw.fail("user.find", json!({"filter": {"hashed_password": "x"}})).await["data"]["status"],
        400
    );
    let page = raw.call("group.find", json!({"filter": {"name": "g"}})).await;
    let group = page["items"][0]["id"].clone();
    assert_eq!(raw.fail("group.delete", json!({"id": group})).await["data"]["status"], 409);
    raw.call("user.delete", json!({"id": user["id"]})).await;
    raw.call("group.delete", json!({"id": group})).await;
    assert_eq!(raw.call("token.list", json!({})).await["items"], json!([]));
    let token = raw.call("token.create", json!({"name": "x", "scopes": ["write:lava-a"]})).await;
    raw.call("token.revoke", json!({"id": token["id"]})).await;
    raw.call("user.logout", json!({})).await;
    assert_eq!(raw.fail("user.whoami", json!({})).await["code"], -32001);
}
