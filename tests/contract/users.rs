//! Users, logins, passwords, invitations (contract 6): golden requests and answers.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Answer, Backend, Http, PASSWORD, Server, both_backends, both_backends_in_pairs, node};

/// A user who has accepted an invitation, and their id.
pub(crate) async fn member(admin: &Http, name: &str) -> String {
    let invite = json!({"username": name, "email": format!("{name}@example.org"), "send_email": false,
        "return_token": true});
    let invited = admin.post("/latest/user/invite", &invite).await.ok();
    let accept = json!({"token": invited["token"], "password": name});
    let user = admin.post("/latest/user/accept-invite", &accept).await.ok();
    user["id"].as_str().expect("an id").to_owned()
}

/// The same server as seen by this member.
pub(crate) async fn logged_in(server: &Server, name: &str) -> Http {
    Http::new(server).with(&server.login(name, name).await)
}

pub(crate) async fn try_login(http: &Http, name: &str, password: &str) -> Answer {
    http.form("/latest/user/login", &[("username", name), ("password", password)]).await
}

pub(crate) fn refused(status: u16, detail: &str) -> (u16, Value) {
    (status, detail.into())
}

pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

pub(crate) const USER_READ: [&str; 7] =
    ["id", "email", "is_active", "is_superuser", "is_verified", "username", "groups"];
pub(crate) const UNKNOWN: &str = "0123456789abcdef01234567";
const BAD_ID: &str = "'xyz' is not a valid ObjectId, it must be a 12-byte input or a 24-character hex string";

#[apply(both_backends!)]
async fn logging_in(server: Server) {
    let http = Http::new(&server);
    let answer = try_login(&http, "admin", "a password of the tests").await;
    assert_eq!((answer.status, keys(&answer.json)), (200, vec!["access_token", "token_type"]));
    assert_eq!(answer.json["token_type"], "bearer");
    let claims = server.sign(json!({})).await;
    assert_eq!(http.with(&claims).get("/whoami").await.status, 200);
    for (name, password) in
        [("admin", "wrong"), ("nobody", "x"), ("Admin", "a password of the tests"), ("", "")]
    {
        assert_eq!(try_login(&http, name, password).await.refusal(), refused(400, "LOGIN_BAD_CREDENTIALS"));
    }
    let answer = http.form("/latest/user/login", &[("username", "admin")]).await;
    assert_eq!((answer.status, &answer.json["detail"][0]["loc"]), (422, &json!(["body", "password"])));
    let fields = [("username", "admin"), ("password", "a password of the tests"), ("grant_type", "other")];
    assert_eq!(http.form("/latest/user/login", &fields).await.status, 422);
}

/// Addresses are kept in logs and histories: what stands there is passed over.
#[apply(both_backends!)]
async fn secrets_come_in_bodies_only(server: Server) {
    let admin = Http::admin(&server).await;
    let password = url::form_urlencoded::byte_serialize(PASSWORD.as_bytes()).collect::<String>();
    let login = format!("/latest/user/login?username=admin&password={password}");
    for fields in [&[][..], &[("username", "admin")]] {
        let answer = admin.form(&login, fields).await;
        assert_eq!(
            (answer.status, &answer.json["detail"][0]["type"]),
            (422, &json!("missing")),
            "{answer:?}"
        );
        assert_eq!(answer.json["detail"][0]["loc"], json!(["body", "password"]));
    }
    let update = "/latest/user/update-password?new_password=x";
    let answer = admin.form(update, &[("username", "admin"), ("password", PASSWORD)]).await;
    assert_eq!(answer.refusal(), refused(400, "\"User\" object has no field \"password\""));
    admin.patch("/user/me?password=stolen", &json!({})).await.ok();
    server.login("admin", PASSWORD).await;
    for path in ["/user/reset-password", "/user/accept-invite", "/user/verify"] {
        let answer = admin.post(&format!("{path}?token=x&password=y"), &json!({})).await;
        let detail = &answer.json["detail"][0];
        assert_eq!((answer.status, &detail["loc"]), (422, &json!(["body", "token"])), "{path}");
        assert_eq!(detail["input"], json!({}), "{path}");
    }
}

/// FastAPI takes both encodings of a form (contract 1.3).
#[apply(both_backends!)]
async fn forms_may_come_in_parts(server: Server) {
    let http = Http::new(&server);
    let login = [("grant_type", "password"), ("username", "admin"), ("password", PASSWORD)];
    let token = http.multipart("/latest/user/login", &login).await.ok()["access_token"].clone();
    assert_eq!(http.with(token.as_str().expect("text")).get("/whoami").await.status, 200);
    let wrong = http.multipart("/user/login", &[("username", "admin"), ("password", "wrong")]).await;
    assert_eq!(wrong.refusal(), refused(400, "LOGIN_BAD_CREDENTIALS"));
    let missing = http.multipart("/user/login", &[("username", "admin")]).await;
    assert_eq!((missing.status, &missing.json["detail"][0]["loc"]), (422, &json!(["body", "password"])));
    let change = [("username", "admin"), ("password", PASSWORD), ("new_password", "another password & =")];
    assert_eq!(http.multipart("/user/update-password", &change).await.ok(), Value::Null);
    server.login("admin", "another password & =").await;
    let broken =
        http.request("POST", "/user/login").header("content-type", "multipart/form-data; boundary=x");
    assert_eq!(crate::support::answer(broken.body("username=admin")).await.status, 400);
}

#[apply(both_backends!)]
async fn old_hashes_are_verified_and_upgraded(server: Server) {
    let admin = Http::admin(&server).await;
    let id = member(&admin, "old").await;
    server.set_password_hash("old", &bcrypt::hash("s3cret", 4).expect("a hash")).await;
    assert_eq!(try_login(&admin, "old", "wrong").await.status, 400);
    let first = server.login("old", "s3cret").await;
    assert!(server.password_hash("old").await.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"));
    server.login("old", "s3cret").await;
    assert_eq!(admin.with(&first).get("/whoami").await.ok()["id"], id.as_str(), "an upgrade ends nothing");
    server.set_password_hash("old", "something else").await;
    assert_eq!(try_login(&admin, "old", "s3cret").await.refusal(), refused(400, "LOGIN_BAD_CREDENTIALS"));
}

#[apply(both_backends!)]
async fn who_one_is(server: Server) {
    let admin = Http::admin(&server).await;
    let me = admin.get("/latest/whoami").await.ok();
    assert_eq!(keys(&me), USER_READ);
    let wanted = json!({"id": me["id"], "email": "admin@kernelci.org", "is_active": true, "is_superuser": true,
        "is_verified": true, "username": "admin", "groups": []});
    assert_eq!(me, wanted);
    let http = Http::new(&server);
    assert_eq!(http.get("/whoami").await.refusal(), refused(401, "Unauthorized"));
    assert_eq!(http.with("nonsense").get("/whoami").await.refusal(), refused(401, "Unauthorized"));
    let id = member(&admin, "ann").await;
    let ann = logged_in(&server, "ann").await;
    ann.patch("/user/me", &json!({"email": "ann@new.example"})).await.ok();
    assert_eq!(ann.get("/whoami").await.refusal(), refused(403, "Forbidden"), "not verified any more");
    assert_eq!(ann.get(&format!("/user/{id}")).await.ok()["is_verified"], false);
    assert_eq!(try_login(&http, "ann", "ann").await.refusal(), refused(400, "LOGIN_USER_NOT_VERIFIED"));
}

#[apply(both_backends!)]
async fn users_are_read_one_by_one(server: Server) {
    let admin = Http::admin(&server).await;
    let id = member(&admin, "ann").await;
    member(&admin, "bob").await;
    let (ann, bob) = (logged_in(&server, "ann").await, logged_in(&server, "bob").await);
    let path = format!("/latest/user/{id}");
    let full = admin.get(&path).await.ok();
    assert_eq!((keys(&full), &full["email"]), (USER_READ.to_vec(), &json!("ann@example.org")));
    assert_eq!(ann.get(&path).await.ok(), full);
    let seen = bob.get(&path).await.ok();
    assert_eq!(keys(&seen), USER_READ);
    let wanted = json!({"id": id, "email": null, "is_active": null, "is_superuser": null, "is_verified": null,
        "username": "ann", "groups": []});
    assert_eq!(seen, wanted, "of others one sees who they are");
    for path in [format!("/user/{UNKNOWN}"), "/user/xyz".into(), "/user/me".into()] {
        assert_eq!(bob.get(&path).await.refusal(), refused(404, "Not Found"), "{path}");
    }
    assert_eq!(Http::new(&server).get(&path).await.refusal(), refused(401, "Unauthorized"));
}

#[apply(both_backends!)]
async fn users_are_listed(server: Server) {
    let admin = Http::admin(&server).await;
    for name in ["ann", "bob"] {
        member(&admin, name).await;
    }
    let page = admin.get("/latest/users").await.ok();
    assert_eq!(keys(&page), ["items", "total", "limit", "offset"]);
    assert_eq!((&page["total"], &page["limit"], &page["offset"]), (&json!(3), &json!(50), &json!(0)));
    let item = &page["items"][1];
    assert_eq!(keys(item)[..3], ["id", "revision_id", "email"]);
    assert_eq!((&item["username"], &item["revision_id"]), (&json!("ann"), &Value::Null));
    assert!(!page.to_string().contains("argon2"), "{page}");
    let names = async |http: &Http, query: &str| {
        let page = http.get(&format!("/users?{query}")).await.ok();
        page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|user| user["username"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&admin, "limit=1&offset=2").await, ["bob"]);
    assert_eq!(names(&admin, "is_superuser=True").await, ["admin"]);
    assert_eq!(names(&admin, "is_superuser=false&username=bob").await, ["bob"]);
    assert_eq!(names(&admin, "email=ann@example.org").await, ["ann"]);
    assert_eq!(names(&admin, "username=true").await, [""; 0]);
    let bob = logged_in(&server, "bob").await;
    assert_eq!(names(&bob, "username=ann").await, ["ann"]);
    assert_eq!(bob.get("/users").await.ok()["items"][1]["email"], Value::Null);
    assert_eq!(bob.get("/users").await.ok()["items"][2]["email"], "bob@example.org");
    for hidden in ["email=ann@example.org", "is_superuser=true", "groups.name=x"] {
        assert_eq!(
            bob.get(&format!("/users?{hidden}")).await.refusal(),
            refused(403, "Forbidden"),
            "{hidden}"
        );
    }
    for bad in
        ["hashed_password=x", "$where=1", "hashed_password__re=^a", "username__ne=x", "is_active=maybe"]
    {
        assert_eq!(admin.get(&format!("/users?{bad}")).await.status, 400, "{bad}");
    }
    for bad in ["limit=0", "limit=x", "offset=-1"] {
        assert_eq!(admin.get(&format!("/users?{bad}")).await.status, 422, "{bad}");
    }
    assert_eq!(Http::new(&server).get("/users").await.status, 401);
}

#[apply(both_backends!)]
async fn changing_oneself(server: Server) {
    let admin = Http::admin(&server).await;
    let id = member(&admin, "ann").await;
    member(&admin, "bob").await;
    let ann = logged_in(&server, "ann").await;
    let me = async |body: Value| ann.patch("/latest/user/me", &body).await;
    let before = me(json!({})).await.ok();
    assert_eq!(keys(&before), USER_READ);
    assert_eq!(
        me(json!({"username": null, "email": null, "password": null, "groups": null})).await.ok(),
        before
    );
    assert_eq!(me(json!({"groups": []})).await.ok(), before);
    let detail = "User groups can only be updated by an admin user";
    assert_eq!(me(json!({"groups": ["x"]})).await.refusal(), refused(400, detail));
    let flags = json!({"is_active": false, "is_superuser": true, "is_verified": false});
    assert_eq!(me(flags).await.ok(), before);
    assert_eq!(me(json!({"username": "bob"})).await.refusal(), refused(400, "Username already exists: bob"));
    let detail = "UPDATE_USER_EMAIL_ALREADY_EXISTS";
    assert_eq!(me(json!({"email": "BOB@example.org"})).await.refusal(), refused(400, detail));
    assert_eq!(me(json!({"email": "ANN@example.org"})).await.ok()["email"], "ANN@example.org", "one's own");
    let answer = me(json!({"email": "ann"})).await;
    let item = &answer.json["detail"][0];
    assert_eq!(
        (answer.status, &item["type"], &item["loc"]),
        (422, &json!("value_error"), &json!(["body", "email"]))
    );
    assert!(
        item["msg"].as_str().is_some_and(|msg| msg.contains("value is not a valid email address: ")),
        "{item}"
    );
    let renamed = me(json!({"username": "anna"})).await.ok();
    assert_eq!((&renamed["id"], &renamed["username"]), (&json!(id), &json!("anna")));
    for bad in [
        json!({"username": " "}),
        json!({"username": "a b"}),
        json!({"username": 5}),
        json!({"password": ""}),
        json!([]),
        json!("x"),
    ] {
        assert_eq!(me(bad.clone()).await.status, 422, "{bad}");
    }
    assert_eq!(Http::new(&server).patch("/user/me", &json!({})).await.status, 401);
}

#[apply(both_backends!)]
async fn changing_others(server: Server) {
    let admin = Http::admin(&server).await;
    let id = member(&admin, "ann").await;
    for group in ["g", "h"] {
        admin.post("/user-groups", &json!({"name": group})).await.ok();
    }
    let path = format!("/latest/user/{id}");
    let change = async |body: Value| admin.patch(&path, &body).await;
    let flags = json!({"is_active": false, "is_superuser": true, "is_verified": false});
    let changed = change(flags.clone()).await.ok();
    for (name, value) in flags.as_object().expect("an object") {
        assert_eq!(&changed[name], value);
    }
    let detail = "User group does not exist with name: x";
    assert_eq!(change(json!({"groups": ["g", "x"]})).await.refusal(), refused(400, detail));
    let changed = change(json!({"groups": ["g", "h"]})).await.ok();
    let names: Vec<_> = changed["groups"].as_array().expect("groups").iter().map(|g| &g["name"]).collect();
    assert_eq!(names, ["g", "h"]);
    assert_eq!(keys(&changed["groups"][0]), ["id", "name"]);
    assert_eq!(change(json!({"groups": ["h"]})).await.ok()["groups"].as_array().map(Vec::len), Some(1));
    assert_eq!(change(json!({"groups": []})).await.ok()["groups"], json!([]), "the last one can go, too");
    let answer = change(json!({"groups": ["g", "g"]})).await;
    assert_eq!(
        (answer.status, &answer.json["detail"][0]["msg"]),
        (422, &json!("Value error, Groups must have unique names."))
    );
    let changed = change(json!({"is_verified": true})).await.ok();
    assert_eq!(changed["is_verified"], true);
    assert_eq!(change(json!({"email": "a@new.example"})).await.ok()["is_verified"], false);
    let changed = change(json!({"email": "b@new.example", "is_verified": true})).await.ok();
    assert_eq!((&changed["email"], &changed["is_verified"]), (&json!("b@new.example"), &json!(true)));
    assert_eq!(
        change(json!({"username": "admin"})).await.refusal(),
        refused(400, "Username already exists: admin")
    );
    let unknown = admin.patch(&format!("/user/{UNKNOWN}"), &json!({})).await;
    assert_eq!(unknown.refusal(), refused(404, &format!("User not found with id: {UNKNOWN}")));
    assert_eq!(admin.patch("/user/xyz", &json!({})).await.refusal(), refused(400, BAD_ID));
    member(&admin, "bob").await;
    let bob = logged_in(&server, "bob").await;
    assert_eq!(bob.patch(&path, &json!({"is_superuser": true})).await.refusal(), refused(403, "Forbidden"));
}

#[apply(both_backends!)]
async fn removing_a_user(server: Server) {
    let admin = Http::admin(&server).await;
    let id = member(&admin, "ann").await;
    let ann = logged_in(&server, "ann").await;
    let path = format!("/latest/user/{id}");
    assert_eq!(ann.delete(&path).await.refusal(), refused(403, "Forbidden"));
    let answer = admin.delete(&path).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "null"));
    assert_eq!(ann.get("/whoami").await.status, 401);
    for path in [path.as_str(), "/user/xyz", "/user/me"] {
        assert_eq!(admin.delete(path).await.refusal(), refused(404, "Not Found"), "{path}");
    }
}

#[apply(both_backends!)]
async fn a_name_is_worth_no_more_than_its_first_owner(mut server: Server) {
    let admin = Http::admin(&server).await;
    let ids = [member(&admin, "lab").await, member(&admin, "thief").await, member(&admin, "spare").await];
    let (lab, thief) = (logged_in(&server, "lab").await, logged_in(&server, "thief").await);
    let made = lab.post("/node", &node("checkout", "a")).await.ok();
    let path = format!("/node/{}", made["id"].as_str().expect("an id"));
    let me = async |http: &Http, name: &str| http.patch("/user/me", &json!({"username": name})).await;
    me(&lab, "laboratory").await.ok();
    let set = json!({"debug": {"x": "y"}});
    assert_eq!(lab.patch(&path, &set).await.status, 200, "still theirs");
    assert_eq!(me(&thief, "lab").await.refusal(), refused(400, "Username already exists: lab"));
    assert_eq!(admin.delete(&format!("/user/{}", ids[0])).await.status, 200);
    assert_eq!(
        me(&thief, "lab").await.refusal(),
        refused(400, "Username already exists: lab"),
        "owns a node"
    );
    for name in ["production", "staging.kernelci.org"] {
        let detail = format!("Username already exists: {name}");
        assert_eq!(me(&thief, name).await.refusal(), refused(400, &detail));
    }
    assert_eq!(
        thief.patch(&path, &set).await.refusal(),
        refused(401, "Unauthorized to complete the operation")
    );
    // An admin may, but no name that was taken later gives rights by itself.
    admin.patch(&format!("/user/{}", ids[2]), &json!({"username": "production"})).await.ok();
    member(&admin, "staging.kernelci.org").await;
    server.terminate().await;
    server.restart().await;
    let groups = async |name: &str| {
        let page = admin.get(&format!("/users?username={name}")).await.ok();
        page["items"][0]["groups"].as_array().expect("groups").len()
    };
    assert_eq!((groups("production").await, groups("staging.kernelci.org").await), (0, 1));
}

#[apply(both_backends!)]
async fn registration_is_disabled(server: Server) {
    let admin = Http::admin(&server).await;
    let user = json!({"username": "x", "email": "x@example.org", "password": "x"});
    let answer = admin.post("/latest/user/register", &user).await;
    assert_eq!(answer.refusal(), refused(404, "User registration is disabled; use /user/invite instead."));
    assert_eq!(admin.post("/user/register", &json!({"username": "x"})).await.status, 422);
    let bad = json!({"username": "x", "email": "x", "password": "x"});
    assert_eq!(admin.post("/user/register", &bad).await.status, 422);
    assert_eq!(
        Http::new(&server).post("/user/register", &user).await.refusal(),
        refused(401, "Unauthorized")
    );
}

#[apply(both_backends!)]
async fn changing_the_password(server: Server) {
    let admin = Http::admin(&server).await;
    member(&admin, "ann").await;
    let before = logged_in(&server, "ann").await;
    let http = Http::new(&server);
    let update = async |fields: &[(&str, &str)]| http.form("/latest/user/update-password", fields).await;
    let wrong = [("username", "ann"), ("password", "x"), ("new_password", "new")];
    assert_eq!(update(&wrong).await.refusal(), refused(400, "LOGIN_BAD_CREDENTIALS"));
    let none = [("username", "ann"), ("password", "ann")];
    assert_eq!(update(&none).await.refusal(), refused(400, "\"User\" object has no field \"password\""));
    assert_eq!(update(&[("password", "ann")]).await.status, 422);
    assert_eq!(before.get("/whoami").await.status, 200);
    let answer = update(&[("username", "ann"), ("password", "ann"), ("new_password", "new")]).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "null"));
    assert_eq!(before.get("/whoami").await.status, 401, "older tokens end");
    assert_eq!(try_login(&http, "ann", "ann").await.status, 400);
    let now = http.with(&server.login("ann", "new").await);
    now.patch("/user/me", &json!({"email": "ann@new.example"})).await.ok();
    let unverified = [("username", "ann"), ("password", "new"), ("new_password", "newer")];
    assert_eq!(update(&unverified).await.status, 200, "works for unverified users");
    assert_eq!(now.get("/users").await.status, 401);
}

#[apply(both_backends!)]
async fn logging_out(server: Server) {
    let admin = Http::admin(&server).await;
    member(&admin, "ann").await;
    let (one, two) = (logged_in(&server, "ann").await, logged_in(&server, "ann").await);
    let answer = one.post("/latest/user/logout", &json!({})).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    assert_eq!(one.get("/whoami").await.refusal(), refused(401, "Unauthorized"));
    assert_eq!(two.get("/whoami").await.status, 200, "only the token it came with");
    assert_eq!(Http::new(&server).post("/user/logout", &json!({})).await.status, 401);
    two.patch("/user/me", &json!({"email": "ann@new.example"})).await.ok();
    assert_eq!(
        two.post("/user/logout", &json!({})).await.refusal(),
        refused(403, "Forbidden"),
        "verified only"
    );
}

#[apply(both_backends!)]
async fn both_secrets_verify(backend: Backend) {
    let server =
        Server::start_with(backend, &[("UNIFIED_SECRET", "the other secret of the tests, as long")]).await;
    let admin = Http::admin(&server).await;
    let id = member(&admin, "ann").await;
    let sign = |secret: &str, claims: &Value| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("signs")
    };
    let now = chrono::Utc::now().timestamp();
    let unified = json!({"sub": id, "email": "ann@example.org", "origin": "kernelci", "permissions": ["checkout"],
        "aud": "fastapi-users:auth", "iat": now - 10, "exp": now + 60});
    let unified = admin.with(&sign("the other secret of the tests, as long", &unified));
    assert_eq!(unified.get("/whoami").await.ok()["username"], "ann");
    let endless = sign(crate::support::SECRET, &json!({"sub": id, "aud": ["x", "fastapi-users:auth"]}));
    assert_eq!(admin.with(&endless).get("/whoami").await.status, 200);
    let stranger = sign("a third secret", &json!({"sub": id, "aud": "fastapi-users:auth"}));
    assert_eq!(admin.with(&stranger).get("/whoami").await.status, 401);
    let scheme = Http::new(&server).request("GET", "/whoami");
    let scheme = scheme.header("authorization", format!("bEARER {endless}"));
    assert_eq!(scheme.send().await.expect("answers").status().as_u16(), 200, "the scheme in any case");
    admin.patch(&format!("/user/{id}"), &json!({"password": "new"})).await.ok();
    assert_eq!(unified.get("/whoami").await.status, 401);
    assert_eq!(admin.with(&endless).get("/whoami").await.status, 401);
}

#[apply(both_backends_in_pairs!)]
async fn guessing_is_slowed_down(server: Server) {
    let admin = Http::admin(&server).await;
    member(&admin, "ann").await;
    let http = Http::new(&server);
    let tries = (0..60).map(|n| {
        let http = http.clone();
        async move { try_login(&http, if n % 2 == 0 { "ann" } else { "nobody" }, "wrong").await }
    });
    let answers = futures::future::join_all(tries).await;
    assert!(answers.iter().all(|answer| matches!(answer.status, 400 | 429)), "{answers:?}");
    // On a slow machine the last of them may find room again.
    let limited = answers.iter().find(|answer| answer.status == 429).expect("a refusal");
    let after: u64 = limited.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(admin.get("/whoami").await.status, 200, "tokens go on");
}
