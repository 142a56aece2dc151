//! The first doors of REST: prefixes, the login form, one node with its ETag, error bodies (contract 1, 4.6, 6.1).

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Server, both_backends, node};

async fn get(server: &Server, path: &str) -> (u16, Value, Option<String>) {
    let answer = reqwest::Client::new().get(server.url() + path).send().await.expect("answers");
    let etag = answer.headers().get("etag").and_then(|value| value.to_str().ok()).map(str::to_owned);
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null), etag)
}

#[apply(both_backends!)]
async fn a_node_is_read_by_every_prefix(server: Server) {
    let made = server.admin().await.call("node.create", json!({"node": node("checkout", "a")})).await;
    let id = made["id"].as_str().expect("an id");
    for prefix in ["/latest", "/v0", ""] {
        let (status, body, etag) = get(&server, &format!("{prefix}/node/{id}")).await;
        assert_eq!((status, etag.as_deref()), (200, Some("\"1\"")), "{body}");
        assert_eq!((&body["name"], body.get("revision")), (&json!("a"), None), "{body}");
    }
    let (_, body, _) = get(&server, &format!("/node/{id}?revision=true")).await;
    assert_eq!(body["revision"], 1);
    assert_eq!(get(&server, "/node/000000000000000000000000").await.0, 200);
    assert_eq!(get(&server, "/node/000000000000000000000000").await.1, Value::Null);
    let (status, body, _) = get(&server, "/node/xyz").await;
    assert_eq!(status, 400);
    assert!(
        body["detail"].as_str().is_some_and(|text| text.starts_with("'xyz' is not a valid ObjectId")),
        "{body}"
    );
    assert_eq!(get(&server, "/nowhere").await.1, json!({"detail": "Not Found"}));
    assert_eq!(get(&server, "/whoami").await.1, json!({"detail": "Unauthorized"}));
    assert_eq!(get(&server, "/v1/whoami").await.0, 400);
}

#[apply(both_backends!)]
async fn the_login_form_says_what_is_missing(server: Server) {
    let login = |fields: Vec<(&'static str, &'static str)>| {
        let request = reqwest::Client::new().post(server.url() + "/user/login").form(&fields);
        async move {
            let answer = request.send().await.expect("answers");
            (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
        }
    };
    let (status, body) = login(vec![("password", "secret")]).await;
    assert_eq!(status, 422);
    let item = json!({"type": "missing", "loc": ["body", "username"], "msg": "Field required", "input": {}});
    assert_eq!(body, json!({"detail": [item]}));
    let (status, body) = login(vec![("username", "admin"), ("password", "wrong")]).await;
    assert_eq!((status, body), (400, json!({"detail": "LOGIN_BAD_CREDENTIALS"})));
}
