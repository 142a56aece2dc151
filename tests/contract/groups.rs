//! Groups of users (contract 6.7), under both of their names.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Http, Server, both_backends};

const UNKNOWN: &str = "0123456789abcdef01234567";

fn refused(status: u16, detail: &str) -> (u16, Value) {
    (status, detail.into())
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[apply(both_backends!)]
async fn groups_come_and_go(server: Server) {
    let admin = Http::admin(&server).await;
    for (one, many) in [("/latest/user-groups", "/latest/user-groups"), ("/latest/group", "/latest/groups")] {
        let made = admin.post(one, &json!({"name": "g"})).await.ok();
        assert_eq!(keys(&made), ["name", "id"], "{one}");
        let path = format!("{one}/{}", made["id"].as_str().expect("an id"));
        let detail = "User group already exists with name: g";
        assert_eq!(admin.post(one, &json!({"name": "g"})).await.refusal(), refused(400, detail));
        let read = admin.get(&path).await.ok();
        assert_eq!((keys(&read), &read["name"]), (vec!["id", "name"], &json!("g")));
        let page = admin.get(&format!("{many}?name=g")).await.ok();
        assert_eq!(page, json!({"items": [read], "total": 1, "limit": 50, "offset": 0}));
        let page = admin.get(&format!("{many}?limit=1&offset=1")).await.ok();
        assert_eq!(
            (page["items"][0].clone(), &page["total"]),
            (read, &json!(2)),
            "node:edit:any comes first"
        );
        let answer = admin.delete(&path).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
        for method in ["GET", "DELETE"] {
            let detail = format!("User group not found with id: {UNKNOWN}");
            let path = format!("{one}/{UNKNOWN}");
            assert_eq!(admin.send(method, &path, None).await.refusal(), refused(404, &detail));
            assert_eq!(admin.send(method, &format!("{one}/xyz"), None).await.status, 400);
        }
    }
    assert_eq!(admin.post("/user-groups", &json!({"name": ""})).await.status, 200);
    for bad in
        [json!({}), json!({"name": 5}), json!({"name": "a\nb"}), json!([]), json!({"name": "x".repeat(300)})]
    {
        assert_eq!(admin.post("/user-groups", &bad).await.status, 422, "{bad}");
    }
    for bad in ["limit=0", "offset=x"] {
        assert_eq!(admin.get(&format!("/user-groups?{bad}")).await.status, 422);
    }
    for bad in ["$where=1", "_id=x", "name__re=x"] {
        assert_eq!(admin.get(&format!("/user-groups?{bad}")).await.status, 400);
    }
}

#[apply(both_backends!)]
async fn a_group_with_members_stays(server: Server) {
    let admin = Http::admin(&server).await;
    let group = admin.post("/user-groups", &json!({"name": "g"})).await.ok();
    let invite = json!({"username": "ann", "email": "ann@example.org", "groups": ["g"], "send_email": false});
    let user = admin.post("/user/invite", &invite).await.ok();
    let path = format!("/user-groups/{}", group["id"].as_str().expect("an id"));
    let detail = "User group is assigned to users and cannot be deleted. Remove it from users first.";
    assert_eq!(admin.delete(&path).await.refusal(), refused(409, detail));
    let user = format!("/user/{}", user["user"]["id"].as_str().expect("an id"));
    admin.patch(&user, &json!({"groups": []})).await.ok();
    assert_eq!(admin.delete(&path).await.status, 204);
}

#[apply(both_backends!)]
async fn removing_and_giving_race_to_one_end(server: Server) {
    let admin = Http::admin(&server).await;
    let invite = json!({"username": "ann", "email": "ann@example.org", "send_email": false});
    let user = admin.post("/user/invite", &invite).await.ok();
    let user = format!("/user/{}", user["user"]["id"].as_str().expect("an id"));
    for _ in 0..10 {
        let group = admin.post("/user-groups", &json!({"name": "g"})).await.ok();
        let path = format!("/user-groups/{}", group["id"].as_str().expect("an id"));
        let give = json!({"groups": ["g"]});
        let (gone, given) = tokio::join!(admin.delete(&path), admin.patch(&user, &give));
        let is_member = admin.get(&user).await.ok()["groups"] != json!([]);
        let is_there = admin.get(&path).await.status == 200;
        assert!(is_there || !is_member, "{gone:?} {given:?}");
        admin.patch(&user, &json!({"groups": []})).await.ok();
        admin.delete(&path).await;
    }
}

#[apply(both_backends!)]
async fn groups_are_an_admins_affair(server: Server) {
    let admin = Http::admin(&server).await;
    let invite =
        json!({"username": "ann", "email": "ann@example.org", "send_email": false, "return_token": true});
    let token = admin.post("/user/invite", &invite).await.ok()["token"].clone();
    admin.post("/user/accept-invite", &json!({"token": token, "password": "ann"})).await.ok();
    let ann = admin.with(&server.login("ann", "ann").await);
    let anonymous = Http::new(&server);
    let body = json!({"name": "x"});
    for (method, path, body) in [
        ("GET", "/user-groups", None),
        ("GET", "/user-groups/xyz", None),
        ("POST", "/user-groups", Some(&body)),
        ("DELETE", "/user-groups/xyz", None),
        ("GET", "/groups", None),
    ] {
        assert_eq!(
            ann.send(method, path, body).await.refusal(),
            refused(403, "Forbidden"),
            "{method} {path}"
        );
        assert_eq!(anonymous.send(method, path, body).await.refusal(), refused(401, "Unauthorized"));
    }
}
