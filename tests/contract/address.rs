//! Prefixes, slashes, HEAD, unknown paths and methods, headers (contract 1.1, 1.3, 1.4).

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Answer, Http, Server, answer, both_backends, node};

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).and_then(|value| value.to_str().ok())
}

async fn bare(server: &Server, method: &str, path: &str) -> Answer {
    Http::new(server).send(method, path, None).await
}

#[apply(both_backends!)]
async fn every_prefix_leads_to_the_same_routes(server: Server) {
    let http = Http::admin(&server).await;
    let made = http.post("/latest/node", &node("checkout", "a")).await.ok();
    let id = made["id"].as_str().expect("an id");
    for prefix in ["/latest", "/v0", "", "//latest/", "/v0//"] {
        for (path, wanted) in [
            (format!("/node/{id}"), &made["name"]),
            ("/count".into(), &json!(1)),
            ("/nodes/fast?limit=1".into(), &made["name"]),
        ] {
            let body = http.get(&format!("{prefix}{path}")).await.ok();
            let got = if body.is_array() { &body[0]["name"] } else { body.get("name").unwrap_or(&body) };
            assert_eq!(got, wanted, "{prefix}{path}");
        }
        assert_eq!(http.get(&format!("{prefix}/whoami")).await.ok()["username"], "admin", "{prefix}");
    }
}

#[apply(both_backends!)]
async fn other_versions_are_refused_in_plain_text(server: Server) {
    for (path, token) in [("/v1/nodes", "v1"), ("/v0.1/x", "v0.1"), ("/v./x", "v."), ("/v00/nodes", "v00")] {
        let refused = bare(&server, "GET", path).await;
        assert_eq!(
            (refused.status, refused.text),
            (400, format!("Unsupported API version: {token}")),
            "{path}"
        );
        assert_eq!(refused.headers["content-type"], "text/plain; charset=utf-8");
    }
}

#[apply(both_backends!)]
async fn unknown_paths_and_wrong_methods(server: Server) {
    for path in ["/nowhere", "/v0foo", "/latestfoo", "/v/x", "/latest/node/a/b", "/latest/user/me/x"] {
        let missing = bare(&server, "GET", path).await;
        assert_eq!((missing.status, &missing.json), (404, &json!({"detail": "Not Found"})), "{path}");
        assert_eq!(missing.headers["content-type"], "application/json");
    }
    for (method, path, allowed) in [
        ("DELETE", "/nodes", "GET"),
        ("POST", "/latest/count", "GET"),
        ("DELETE", "/v0/node/000000000000000000000000", "PATCH"),
        ("GET", "/batch/nodeset", "PUT"),
        ("GET", "/nodes/000000000000000000000000", "PUT"),
        ("GET", "/user/login", "POST"),
        ("POST", "/", "GET"),
    ] {
        let refused = bare(&server, method, path).await;
        assert_eq!(
            (refused.status, &refused.json),
            (405, &json!({"detail": "Method Not Allowed"})),
            "{method} {path}"
        );
        let allow = header(&refused, "allow").unwrap_or_default();
        assert!(allow.split(',').any(|method| method.trim() == allowed), "{method} {path}: {allow}");
    }
}

#[apply(both_backends!)]
async fn a_trailing_slash_is_redirected(server: Server) {
    for (path, to) in [
        ("/latest/nodes/", "/latest/nodes"),
        ("/nodes/", "/latest/nodes"),
        ("/v0/nodes/?limit=3&name=a%20b", "/latest/nodes?limit=3&name=a%20b"),
    ] {
        for method in ["GET", "POST", "PUT"] {
            let moved = bare(&server, method, path).await;
            assert_eq!(
                (moved.status, header(&moved, "location"), &*moved.text),
                (307, Some(to), ""),
                "{path}"
            );
        }
    }
    assert_eq!(bare(&server, "GET", "/v0").await.status, 200);
    assert_eq!(bare(&server, "GET", "/latest").await.status, 200);
}

#[apply(both_backends!)]
async fn the_index_greets_programs_in_json(server: Server) {
    for path in ["/", "/latest", "/latest/", "/v0", "/v0/"] {
        let greeting = bare(&server, "GET", path).await;
        assert_eq!((greeting.status, greeting.json), (200, json!({"message": "KernelCI API"})), "{path}");
        let page =
            answer(Http::new(&server).request("GET", path).header("accept", "text/html,*/*;q=0.8")).await;
        assert_eq!((page.status, header(&page, "content-type")), (200, Some("text/html; charset=utf-8")));
    }
}

#[apply(both_backends!)]
async fn head_is_get_without_the_body(server: Server) {
    let made = Http::admin(&server).await.post("/node", &node("checkout", "a")).await.ok();
    let id = made["id"].as_str().expect("an id");
    for path in
        [format!("/latest/node/{id}"), "/v0/nodes".into(), "/nodes/fast".into(), "/count".into(), "/".into()]
    {
        let (head, get) = (bare(&server, "HEAD", &path).await, bare(&server, "GET", &path).await);
        assert_eq!((head.status, &*head.text), (200, ""), "{path}");
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(header(&head, name), header(&get, name), "{path} {name}");
        }
    }
    assert_eq!(bare(&server, "HEAD", "/whoami").await.status, 401);
    assert_eq!(bare(&server, "HEAD", "/nowhere").await.status, 404);
}

/// Also what kci-dev sends: the bare token (contract 9.4).
#[apply(both_backends!)]
async fn who_asks_is_read_from_bearer_tokens_alone(server: Server) {
    let token = server.token().await;
    let whoami = async |authorization: &str| {
        let request = Http::new(&server).request("GET", "/whoami").header("authorization", authorization);
        answer(request).await.refusal()
    };
    for good in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER {token}")] {
        assert_eq!(whoami(&good).await.0, 200);
    }
    for absent in
        [token.to_owned(), format!("Token {token}"), format!("Basic {token}"), "Bearer".into(), String::new()]
    {
        assert_eq!(whoami(&absent).await, (401, "Unauthorized".into()), "{absent}");
        let nodes =
            Http::new(&server).request("GET", "/latest/nodes/fast?limit=1").header("authorization", &absent);
        assert_eq!(answer(nodes).await.status, 200, "reading goes on");
    }
    // Where nobody needs a token, one that is no good does not matter.
    let expired = server.token_for(-10).await;
    let expired = Http::new(&server).with(&expired);
    assert_eq!(expired.get("/nodes").await.status, 200);
    assert_eq!(expired.get("/node/000000000000000000000000").await.ok(), Value::Null);
    let refused = expired.post("/node", &node("checkout", "a")).await;
    assert_eq!(refused.refusal(), (401, "Unauthorized".into()));
    assert_eq!(header(&refused, "www-authenticate"), None);
}

#[apply(both_backends!)]
async fn json_is_compact_unescaped_and_without_charset(server: Server) {
    let http = Http::admin(&server).await;
    let made = http.post("/node", &node("checkout", "grün ☂")).await;
    assert_eq!(header(&made, "content-type"), Some("application/json"));
    let text = http.get("/nodes").await.text;
    assert!(text.contains("\"name\":\"grün ☂\",\"path\":[\"grün ☂\"],"), "{text}");
    assert!(
        text.starts_with("{\"items\":[{\"id\":\"")
            && text.ends_with("],\"total\":1,\"limit\":50,\"offset\":0}"),
        "{text}"
    );
}
