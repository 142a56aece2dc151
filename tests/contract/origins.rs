//! Whose web pages may do what, by which names people reach us, and what a proxy in front of us says of that.

use macro_rules_attribute::apply;
use serde_json::json;

use crate::support::{Answer, Backend, Http, PASSWORD, Raw, Server, answer, both_backends, node};

const PROTOCOL: Option<&str> = Some("kernelci.v1.json");
const EVIL: &str = "https://evil.example";

/// Headers of a request, by name.
type Headers<'h> = &'h [(&'h str, &'h str)];

async fn send(http: &Http, method: &str, path: &str, headers: Headers<'_>) -> Answer {
    let request = http.request(method, path);
    answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

async fn login(server: &Server, headers: Headers<'_>) -> Answer {
    let request = Http::new(server).request("POST", "/latest/user/login");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    answer(request.form(&[("username", "admin"), ("password", PASSWORD)])).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).and_then(|value| value.to_str().ok())
}

#[apply(both_backends!)]
async fn foreign_pages_log_nobody_in(server: Server) {
    let admin = json!({"username": "admin", "password": PASSWORD});
    let mut raw = Raw::connect(&server.ws_url(), PROTOCOL, &[("origin", EVIL)]).await.expect("upgrades");
    raw.call("session.hello", json!({})).await;
    raw.call("node.count", json!({})).await;
    for (method, params) in [
        ("user.login", admin.clone()),
        ("user.update_password", json!({"username": "admin", "password": PASSWORD, "new_password": "x"})),
        ("user.accept_invite", json!({"token": "t", "password": "x"})),
        ("user.reset_password", json!({"token": "t", "password": "x"})),
        ("user.verify", json!({"token": "t"})),
    ] {
        let error = raw.fail(method, params.clone()).await;
        assert_eq!(error["code"], -32003, "{method}: {error}");
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = Http::new(&server).request("POST", "/rpc").header("origin", EVIL).json(&call);
        assert_eq!(answer(request).await.json["error"]["code"], -32003, "{method}");
    }
    assert_eq!(login(&server, &[("origin", EVIL)]).await.status, 403);
    assert_eq!(login(&server, &[("origin", "null")]).await.status, 403);
    let own = server.url();
    let mut raw = Raw::connect(&server.ws_url(), PROTOCOL, &[("origin", &own)]).await.expect("upgrades");
    raw.call("session.hello", json!({})).await;
    assert!(raw.call("user.login", admin).await["access_token"].is_string());
    assert_eq!(login(&server, &[]).await.status, 200, "programs have no page");
}

#[apply(both_backends!)]
async fn passwords_are_taken_at_our_own_addresses_only(backend: Backend) {
    let settings =
        [("PUBLIC_BASE_URL", "https://api.example.org/"), ("OWN_HOSTS", "inside.example,b.example")];
    let server = Server::start_with(backend, &settings).await;
    for (host, status) in [
        ("evil.example", 403),
        ("api.example.org.evil.example", 403),
        ("api.example.org", 200),
        ("Inside.Example:8001", 200),
        ("10.1.2.3:8001", 200),
        ("localhost:9", 200),
    ] {
        assert_eq!(login(&server, &[("host", host)]).await.status, status, "{host}");
    }
    // A page of somebody who has their own name lead here.
    let page = [("host", "evil.example"), ("origin", "http://evil.example")];
    assert_eq!(login(&server, &page).await.status, 403);
    let admin = Http::admin(&server).await;
    assert_eq!(send(&admin, "GET", "/whoami", &page).await.status, 403);
    // Nothing else asks for it.
    let elsewhere = [("host", "evil.example")];
    for path in ["/health", "/ready", "/metrics", "/latest/nodes"] {
        assert_eq!(send(&Http::new(&server), "GET", path, &elsewhere).await.status, 200, "{path}");
    }
    let made = admin.request("POST", "/latest/node").header("host", "evil.example");
    assert_eq!(answer(made.json(&node("checkout", "a"))).await.status, 200);
    let token = admin.request("POST", "/latest/user/tokens").header("host", "evil.example");
    assert_eq!(answer(token.json(&json!({"name": "t", "scopes": ["read"]}))).await.status, 200);
}

#[apply(both_backends!)]
async fn links_and_origins_go_by_one_address(backend: Backend) {
    let page = "https://api.example.org";
    let host = ("host", "127.0.0.1:8001");
    let proxy = ("TRUSTED_PROXIES", "127.0.0.0/8");
    for (settings, headers, link) in [
        (vec![("PUBLIC_BASE_URL", page)], vec![host], page),
        (
            vec![proxy],
            vec![host, ("x-forwarded-host", "api.example.org"), ("x-forwarded-proto", "https")],
            page,
        ),
        (
            vec![proxy, ("PROXY_HEADERS", "forwarded")],
            vec![host, ("forwarded", "for=9.9.9.9;host=api.example.org;proto=https")],
            page,
        ),
        // A proxy that does not tell, and passes on what was asked for.
        (vec![], vec![("host", "api.example.org")], "http://api.example.org"),
    ] {
        let server = Server::start_with(backend, &settings).await;
        let admin = Http::admin(&server).await;
        let from = [&headers[..], &[("origin", page)]].concat();
        let urls = send(&admin, "GET", "/user/invite/url", &from).await;
        assert_eq!(urls.ok()["public_base_url"], link, "{settings:?}");
        let mut raw = Raw::connect(&server.ws_url(), PROTOCOL, &from).await.expect("upgrades");
        raw.call("session.hello", json!({"token": server.token().await})).await;
        let evil = [&headers[..], &[("origin", EVIL)]].concat();
        assert_eq!(send(&admin, "GET", "/user/invite/url", &evil).await.status, 403, "{settings:?}");
    }
    let server = Server::start_with(backend, &[("OWN_HOSTS", "api.example.org")]).await;
    let admin = Http::admin(&server).await;
    let urls = send(&admin, "GET", "/user/invite/url", &[("host", "evil.example")]).await;
    assert_eq!(urls.ok()["public_base_url"], "http://api.example.org");
}

#[apply(both_backends!)]
async fn what_the_proxy_does_not_write_is_the_clients_and_ignored(backend: Backend) {
    let seen = async |write: &str, headers: Headers<'_>| {
        let settings = [("TRUSTED_PROXIES", "127.0.0.0/8"), ("PROXY_HEADERS", write)];
        let server = Server::start_with(backend, &settings).await;
        send(&Http::admin(&server).await, "GET", "/user/invite/url", headers).await.ok()
    };
    let both = [
        ("forwarded", "for=6.6.6.6;host=one.example;proto=https"),
        ("x-forwarded-for", "7.7.7.7"),
        ("x-forwarded-host", "two.example"),
    ];
    assert_eq!(seen("x-forwarded", &both).await["public_base_url"], "http://two.example");
    assert_eq!(seen("forwarded", &both).await["public_base_url"], "https://one.example");
    // Guessing passwords from one address goes by what the proxy says, however often the client calls itself another.
    let server = Server::start_with(backend, &[("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let mut last = 0;
    for number in 0..40 {
        let claimed = format!("for=10.0.0.{number}");
        let headers = [("x-forwarded-for", "7.7.7.7"), ("forwarded", claimed.as_str())];
        let body = json!({"token": "nonsense", "password": "x"});
        let request = Http::new(&server).request("POST", "/latest/user/accept-invite");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        last = answer(request.json(&body)).await.status;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
}

#[apply(both_backends!)]
async fn pages_of_listed_origins_may_read_and_write_and_no_others(backend: Backend) {
    const LISTED: &str = "https://ok.example";
    let server = Server::start_with(backend, &[("ALLOWED_ORIGINS", LISTED)]).await;
    let admin = Http::admin(&server).await;
    let asks =
        [("access-control-request-method", "PUT"), ("access-control-request-headers", "authorization")];
    for path in ["/latest/node/000000000000000000000000", "/nodes", "/latest/rpc", "/events/feed", "/nowhere"]
    {
        let may =
            send(&Http::new(&server), "OPTIONS", path, &[&asks[..], &[("origin", LISTED)]].concat()).await;
        assert_eq!((may.status, header(&may, "access-control-allow-origin")), (204, Some(LISTED)), "{path}");
        let allowed = header(&may, "access-control-allow-headers").unwrap_or_default().to_lowercase();
        for name in ["authorization", "content-type", "if-match", "idempotency-key"] {
            assert!(allowed.contains(name), "{allowed}");
        }
        assert!(header(&may, "access-control-allow-methods").is_some_and(|methods| methods.contains("PUT")));
        let not =
            send(&Http::new(&server), "OPTIONS", path, &[&asks[..], &[("origin", EVIL)]].concat()).await;
        assert_eq!((header(&not, "access-control-allow-origin"), not.status >= 400), (None, true), "{path}");
    }
    let from = [("origin", LISTED)];
    for (http, path, status) in [
        (&admin, "/whoami", 200),
        (&admin, "/latest/nodes", 200),
        (&Http::new(&server), "/whoami", 401),
        (&admin, "/nowhere", 404),
        (&admin, "/nodes/", 307),
    ] {
        let shown = send(http, "GET", path, &from).await;
        assert_eq!(
            (shown.status, header(&shown, "access-control-allow-origin")),
            (status, Some(LISTED)),
            "{path}"
        );
        assert_eq!(header(&shown, "access-control-allow-credentials"), None, "{path}");
        assert!(header(&shown, "access-control-expose-headers").is_some_and(|names| names.contains("ETag")));
        let hidden = send(http, "GET", path, &[("origin", EVIL)]).await;
        assert_eq!(header(&hidden, "access-control-allow-origin"), None, "{path}");
        for answer in [&shown, &hidden] {
            let varies: Vec<_> = answer.headers.get_all("vary").iter().collect();
            assert!(varies.iter().any(|value| *value == "Origin"), "{path}: {varies:?}");
        }
    }
    // Reading needs no leave, credentials do.
    assert_eq!(send(&Http::new(&server), "GET", "/nodes", &[("origin", EVIL)]).await.status, 200);
    assert_eq!(send(&admin, "GET", "/nodes", &[("origin", EVIL)]).await.status, 403);
    let feed = Http::new(&server).request("GET", "/latest/events/feed").header("origin", LISTED);
    let feed = feed.send().await.expect("answers");
    assert_eq!(feed.headers()["access-control-allow-origin"], LISTED);
    // Where no origin is listed nobody is told anything.
    let server = Server::start(backend).await;
    let plain = send(&Http::new(&server), "GET", "/nodes", &from).await;
    assert_eq!((header(&plain, "access-control-allow-origin"), header(&plain, "vary")), (None, None));
    assert_eq!(send(&Http::new(&server), "OPTIONS", "/nodes", &asks).await.status, 405);
}

#[apply(both_backends!)]
async fn answers_say_how_they_may_be_kept_and_read(server: Server) {
    let admin = Http::admin(&server).await;
    let user =
        json!({"username": "ann", "email": "ann@example.org", "return_token": true, "send_email": false});
    let secrets = [
        login(&server, &[]).await,
        admin.post("/user/invite", &user).await,
        admin.post("/user/tokens", &json!({"name": "t", "scopes": ["read"]})).await,
        admin.post("/user/accept-invite", &json!({"token": "t", "password": "x"})).await,
        admin.form("/user/login", &[]).await,
        admin
            .post(
                "/rpc",
                &json!({"jsonrpc": "2.0", "id": 1, "method": "user.login", "params":
            {"username": "admin", "password": PASSWORD}}),
            )
            .await,
    ];
    for answer in secrets {
        assert_eq!(header(&answer, "cache-control"), Some("no-store"), "{}", answer.text);
    }
    for path in
        ["/nodes", "/latest/node/x", "/nowhere", "/nodes/", "/v1/x", "/", "/health", "/metrics", "/viewer"]
    {
        let answer = admin.get(path).await;
        let kinds: Vec<_> = answer.headers.get_all("x-content-type-options").iter().collect();
        assert_eq!(kinds, ["nosniff"], "{path}");
    }
    for accept in ["text/html", "*/*"] {
        let index = send(&Http::new(&server), "GET", "/", &[("accept", accept)]).await;
        assert_eq!(header(&index, "vary"), Some("Accept"), "{accept}");
    }
}
