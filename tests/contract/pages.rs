//! Pages, icons, static files and what their answers say about being kept (contract 1.4, 8).

use serde_json::{Value, json};

use crate::support::{Answer, Backend, Http, Server, answer};

const NEVER_KEPT: [&str; 9] = [
    "/viewer",
    "/viewer?node_id=68f000000000000000000000",
    "/dashboard",
    "/dashboard?builds=1",
    "/dashboard?testsuites=1&tree=mainline",
    "/dashboard?tests=1",
    "/manage",
    "/analytics",
    "/stats",
];
const PLAIN: [&str; 3] = ["/", "/user/invite", "/user/accept-invite?token=abc"];
const PREFIXES: [&str; 3] = ["", "/latest", "/v0"];

/// As a browser asks.
async fn page(http: &Http, path: &str) -> Answer {
    answer(http.request("GET", path).header("accept", "text/html,*/*;q=0.8")).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn pages_answer_under_every_prefix() {
    let server = Server::start(Backend::Embedded).await;
    let http = Http::new(&server);
    for prefix in PREFIXES {
        for path in NEVER_KEPT.iter().chain(&PLAIN) {
            let answer = page(&http, &format!("{prefix}{path}")).await;
            assert_eq!(answer.status, 200, "{prefix}{path}: {}", answer.text);
            assert_eq!(header(&answer, "content-type"), Some("text/html; charset=utf-8"), "{path}");
            assert!(answer.text.contains("KernelCI API Server"), "{path}");
            assert!(answer.text.contains("href=\"/viewer\""), "{path} has the navigation");
            let kept = ["cache-control", "pragma", "expires"].map(|name| header(&answer, name));
            let never = [Some("no-cache, no-store, must-revalidate"), Some("no-cache"), Some("0")];
            assert_eq!(kept, if PLAIN.contains(path) { [None; 3] } else { never }, "{path}");
            let policy = header(&answer, "content-security-policy").unwrap();
            assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        }
    }
    // The dashboard stays what it is; its bookmarked views are grids.
    assert!(page(&http, "/dashboard").await.text.contains("/static/app.js"));
    assert!(page(&http, "/dashboard?builds").await.text.contains("/static/pages/grids.js"));
    let current = "href=\"/viewer\" aria-current=\"page\"";
    assert!(page(&http, "/viewer").await.text.contains(current));
    assert!(!page(&http, "/stats").await.text.contains(current));
    // Whoever does not ask for HTML is greeted in JSON.
    assert_eq!(http.get("/").await.ok(), json!({"message": "KernelCI API"}));
    assert_eq!(http.send("POST", "/viewer", None).await.status, 405);
}

/// Addresses that a page loads from: `src`, `href` of links to styles, imports of scripts.
fn loaded(text: &str) -> Vec<String> {
    let quoted = |mark: &str| {
        let parts = text.split(mark).skip(1);
        parts.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut all = quoted("src=\"");
    all.extend(quoted("from \""));
    all.extend(quoted("rel=\"stylesheet\" href=\""));
    all.extend(quoted("@import url(\""));
    all.extend(quoted("import(\""));
    all
}

#[tokio::test]
async fn whatever_a_page_loads_is_there_and_is_ours() {
    let server = Server::start(Backend::Embedded).await;
    let http = Http::new(&server);
    let base = url::Url::parse(&server.url()).unwrap();
    let paths =
        NEVER_KEPT.iter().chain(&PLAIN).chain(&["/docs", "/static/js/viewer.js", "/static/css/viewer.css"]);
    let mut open: Vec<_> = paths.map(|path| base.join(path).unwrap()).collect();
    let mut seen = std::collections::HashSet::new();
    while let Some(url) = open.pop() {
        if !seen.insert(url.clone()) {
            continue;
        }
        assert_eq!(url.host_str(), base.host_str(), "{url} is elsewhere");
        let address = url.as_str().strip_prefix(base.as_str()).unwrap();
        let answer = page(&http, &format!("/{address}")).await;
        assert_eq!(answer.status, 200, "{url}: {}", answer.text);
        open.extend(loaded(&answer.text).iter().map(|link| url.join(link).unwrap()));
        let inline = answer.text.contains("<style") || answer.text.contains(" style=");
        assert!(url.path().starts_with("/static") || !inline, "{url} has a style of its own");
    }
    assert!(seen.len() > 40, "{}", seen.len());
}

#[tokio::test]
async fn icons_and_files_say_what_is_wrong() {
    let server = Server::start(Backend::Embedded).await;
    let http = Http::new(&server);
    for prefix in PREFIXES {
        for name in ["ok", "bad", "warning"] {
            let answer = http.get(&format!("{prefix}/icons/{name}.png")).await;
            assert_eq!((answer.status, header(&answer, "content-type")), (200, Some("image/png")));
        }
    }
    let hour = Some("public, max-age=3600");
    for (path, kind) in [
        ("/static/js/viewer.js", "application/javascript"),
        ("/static/css/viewer.css", "text/css; charset=utf-8"),
    ] {
        let answer = http.get(path).await;
        assert_eq!((answer.status, header(&answer, "content-type")), (200, Some(kind)));
        assert_eq!(header(&answer, "cache-control"), hour);
    }
    // Ours are asked for each time, and sent when they are others than before.
    let ours = http.get("/static/style.css").await;
    assert_eq!(header(&ours, "cache-control"), Some("no-cache"));
    let again = |tag: &str| answer(http.request("GET", "/static/style.css").header("if-none-match", tag));
    let unchanged = again(header(&ours, "etag").unwrap()).await;
    assert_eq!((unchanged.status, unchanged.text.len()), (304, 0));
    assert_eq!(again("\"another\"").await.text, ours.text);

    let refusals: [(&str, u16, &str); 14] = [
        ("/icons/ok", 400, "Invalid icon name"),
        ("/icons/ok.svg", 400, "Invalid icon name"),
        ("/icons/a%20b.png", 400, "Invalid icon name"),
        ("/icons/..%2Ficons%2Fok.png", 400, "Invalid icon name"),
        ("/icons/none.png", 404, "File not found"),
        ("/static/js/viewer.css", 400, "Invalid filename"),
        ("/static/js/..%2Fapp.js", 400, "Invalid filename"),
        ("/static/js/none.js", 404, "File not found"),
        ("/static/css/viewer.js", 400, "Invalid filename"),
        ("/static/css/%00.css", 400, "Invalid filename"),
        ("/static/css/none.css", 404, "File not found"),
        ("/static/viewer.html", 404, "File not found"),
        ("/static/..%2FCargo.toml", 404, "File not found"),
        ("/static/view/none.js", 404, "File not found"),
    ];
    for (path, status, detail) in refusals {
        assert_eq!(http.get(path).await.refusal(), (status, Value::from(detail)), "{path}");
    }
}
