//! Inviting people (contract 6.8): golden requests and answers.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::users::{UNKNOWN, USER_READ, keys, refused};
use crate::support::{Backend, Http, Server, both_backends};

#[apply(both_backends!)]
async fn inviting(server: Server) {
    let admin = Http::admin(&server).await;
    let group = admin.post("/user-groups", &json!({"name": "g"})).await.ok();
    let invite =
        json!({"username": "ann", "email": "ann@example.org", "groups": ["g"], "return_token": true});
    let answer = admin.post("/latest/user/invite", &invite).await.ok();
    assert_eq!(
        keys(&answer),
        ["user", "email_sent", "public_base_url", "accept_invite_url", "invite_url", "token"]
    );
    assert_eq!((keys(&answer["user"]), &answer["email_sent"]), (USER_READ.to_vec(), &json!(false)));
    assert_eq!(answer["user"]["groups"], json!([{"id": group["id"], "name": "g"}]));
    assert_eq!((&answer["user"]["is_active"], &answer["user"]["is_verified"]), (&json!(true), &json!(false)));
    let (base, token) = (server.url(), answer["token"].as_str().expect("a token").to_owned());
    assert_eq!(answer["public_base_url"], base.as_str());
    assert_eq!(answer["accept_invite_url"], format!("{base}/user/accept-invite"));
    assert_eq!(answer["invite_url"], format!("{base}/user/accept-invite?token={token}"));
    let urls = admin.get("/latest/user/invite/url").await.ok();
    assert_eq!(
        urls,
        json!({"public_base_url": base, "accept_invite_url": format!("{base}/user/accept-invite")})
    );

    let again = async |changes: Value| {
        let mut body = invite.clone();
        for (key, value) in changes.as_object().expect("an object") {
            body[key] = value.clone();
        }
        admin.post("/user/invite", &body).await
    };
    assert_eq!(again(json!({})).await.refusal(), refused(400, "User already exists"));
    let other = json!({"username": "other"});
    assert_eq!(again(other).await.refusal(), refused(400, "User already exists"), "by address");
    let detail = "REGISTER_USER_ALREADY_EXISTS";
    assert_eq!(
        again(json!({"username": "b", "email": "ANN@example.org"})).await.refusal(),
        refused(400, detail)
    );
    let resend = json!({"resend_if_exists": true, "return_token": false});
    let resent = again(resend).await.ok();
    assert_eq!((&resent["user"]["id"], &resent["token"]), (&answer["user"]["id"], &Value::Null));
    let detail = "Existing user has a different username";
    assert_eq!(
        again(json!({"resend_if_exists": true, "username": "b"})).await.refusal(),
        refused(400, detail)
    );
    let detail = "Existing user has a different email";
    assert_eq!(
        again(json!({"resend_if_exists": true, "email": "b@example.org"})).await.refusal(),
        refused(400, detail)
    );
    let detail = "User group does not exist with name: x";
    let new = json!({"username": "b", "email": "b@example.org", "groups": ["x"]});
    assert_eq!(again(new).await.refusal(), refused(400, detail));
    assert_eq!(again(json!({"username": "b", "email": "b"})).await.status, 422);
    assert_eq!(
        again(json!({"groups": ["g", "g"], "username": "b", "email": "b@example.org"})).await.status,
        422
    );
    assert_eq!(Http::new(&server).post("/user/invite", &invite).await.status, 401);

    let accept = async |token: &str, password: &str| {
        let body = json!({"token": token, "password": password});
        Http::new(&server).post("/latest/user/accept-invite", &body).await
    };
    assert_eq!(accept("nonsense", "x").await.refusal(), refused(400, "Invalid or expired invite token"));
    assert_eq!(accept(server.token().await, "x").await.refusal(), refused(400, "Invalid invite token"));
    assert_eq!(accept(&token, "").await.status, 422);
    let stranger = server.sign(json!({"sub": UNKNOWN, "purpose": "invite", "email": "x@example.org"})).await;
    assert_eq!(accept(&stranger, "x").await.refusal(), refused(404, "User not found"));
    let id = answer["user"]["id"].as_str().expect("an id");
    let path = format!("/user/{id}");
    admin.patch(&path, &json!({"email": "new@example.org"})).await.ok();
    assert_eq!(accept(&token, "x").await.refusal(), refused(400, "Invalid invite token"));
    admin.patch(&path, &json!({"email": "ann@example.org", "is_active": false})).await.ok();
    assert_eq!(accept(&token, "x").await.refusal(), refused(400, "User is inactive"));
    admin.patch(&path, &json!({"is_active": true})).await.ok();
    let user = accept(&token, "chosen").await.ok();
    assert_eq!((keys(&user), &user["is_verified"]), (USER_READ.to_vec(), &json!(true)));
    assert_eq!(accept(&token, "x").await.refusal(), refused(400, "Invite already accepted"));
    assert_eq!(
        again(json!({"resend_if_exists": true})).await.refusal(),
        refused(400, "User already verified")
    );
    server.login("ann", "chosen").await;
}

#[apply(both_backends!)]
async fn an_invitation_is_accepted_once(server: Server) {
    let admin = Http::admin(&server).await;
    let invite =
        json!({"username": "ann", "email": "ann@example.org", "return_token": true, "send_email": false});
    let token = admin.post("/user/invite", &invite).await.ok()["token"].clone();
    let accept = |n: usize| {
        let body = json!({"token": token, "password": format!("p{n}")});
        let admin = admin.clone();
        async move { admin.post("/user/accept-invite", &body).await.status }
    };
    // Two hash at a time, and come in each other's way.
    let mut both = futures::future::join_all((0..2).map(accept)).await;
    both.sort_unstable();
    assert_eq!(both, [200, 400]);
    let many = futures::future::join_all((2..7).map(accept)).await;
    assert!(many.iter().all(|status| *status == 400), "{many:?}");
}

#[apply(both_backends!)]
async fn an_invitation_that_was_used_does_nothing_again(server: Server) {
    let admin = Http::admin(&server).await;
    let invite = json!({"username": "ann", "email": "ann@example.org", "return_token": true, "send_email": false,
        "resend_if_exists": true});
    let accept = async |token: &Value, password: &str| {
        admin.post("/user/accept-invite", &json!({"token": token, "password": password})).await
    };
    let invited = admin.post("/user/invite", &invite).await.ok();
    let id = invited["user"]["id"].as_str().expect("an id").to_owned();
    let path = format!("/user/{id}");
    // As KernelCI's own server has mailed it.
    let old = server.sign(json!({"sub": id, "purpose": "invite", "email": "ann@example.org"})).await;
    accept(&invited["token"], "first").await.ok();
    let ann = admin.with(&server.login("ann", "first").await);
    let named = ann.post("/user/tokens", &json!({"name": "ci", "scopes": ["read"]})).await.ok();
    let named = admin.with(named["token"].as_str().expect("a token"));

    admin.patch(&path, &json!({"is_verified": false})).await.ok();
    let used = refused(400, "Invite already accepted");
    for token in [&invited["token"], &json!(old)] {
        assert_eq!(accept(token, "second").await.refusal(), used);
    }
    for one in [&ann, &named] {
        assert_eq!(one.get(&path).await.ok()["is_verified"], false, "nothing has happened");
    }
    // A new one is good, and ends what there was.
    let again = admin.post("/user/invite", &invite).await.ok();
    accept(&again["token"], "second").await.ok();
    server.login("ann", "second").await;
    for one in [&ann, &named] {
        assert_eq!(one.get(&path).await.status, 401);
    }
    assert_eq!(accept(&again["token"], "third").await.refusal(), used);
}

#[apply(both_backends!)]
async fn an_invitation_of_kernelcis_own_server_is_good(server: Server) {
    let admin = Http::admin(&server).await;
    let invite = json!({"username": "ann", "email": "ann@example.org", "send_email": false});
    let invited = admin.post("/user/invite", &invite).await.ok();
    let claims = json!({"sub": invited["user"]["id"], "purpose": "invite", "email": "ann@example.org"});
    let accept = json!({"token": server.sign(claims).await, "password": "chosen"});
    admin.post("/user/accept-invite", &accept).await.ok();
    server.login("ann", "chosen").await;
}

#[apply(both_backends!)]
async fn links_do_not_follow_strangers(backend: Backend) {
    let server = Server::start_with(backend, &[("TRUSTED_PROXIES", "10.0.0.0/8")]).await;
    let admin = Http::admin(&server).await;
    let request = admin.request("GET", "/user/invite/url");
    let request = request.header("x-forwarded-host", "evil.example").header("forwarded", "host=evil.example");
    assert_eq!(crate::support::answer(request).await.ok()["public_base_url"], server.url());
    let server = Server::start_with(backend, &[("TRUSTED_PROXIES", "127.0.0.1,::1")]).await;
    let request = Http::admin(&server).await.request("GET", "/user/invite/url");
    let request = request.header("x-forwarded-host", "api.example").header("x-forwarded-proto", "https");
    assert_eq!(crate::support::answer(request).await.ok()["public_base_url"], "https://api.example");
    let server = Server::start_with(backend, &[("PUBLIC_BASE_URL", "https://api.kernelci.org/")]).await;
    let urls = Http::admin(&server).await.get("/user/invite/url").await.ok();
    assert_eq!(urls["accept_invite_url"], "https://api.kernelci.org/user/accept-invite");
}
