//! Every answer carries a request id, and so does what the log says of it.

use crate::support::{Backend, Http, Server, answer, both_backends};
use macro_rules_attribute::apply;

async fn id_for(http: &Http, path: &str, sent: Option<&str>) -> String {
    let mut request = http.request("GET", path);
    if let Some(sent) = sent {
        request = request.header("X-Request-Id", sent);
    }
    let answer = answer(request).await;
    answer.headers["x-request-id"].to_str().expect("text").to_owned()
}

#[apply(both_backends!)]
async fn every_answer_has_one(server: Server) {
    let http = Http::new(&server);
    for path in [
        "/nodes/",
        "/v9/x",
        "/latest/nowhere",
        "/whoami",
        "/count",
        "/",
        "/metrics",
        "/node/xyz",
        "/latest/ws",
    ] {
        let made = id_for(&http, path, None).await;
        assert_eq!(made.len(), 32, "{path}");
        assert_ne!(made, id_for(&http, path, None).await);
        assert_eq!(id_for(&http, path, Some("build-7.a:b/c")).await, "build-7.a:b/c", "{path}");
        for odd in ["a b", "\"", &"x".repeat(129)] {
            assert_eq!(id_for(&http, path, Some(odd)).await.len(), 32, "{odd}");
        }
    }
}

#[apply(both_backends!)]
async fn every_line_of_the_log_names_the_instance(backend: Backend) {
    for (format, wanted) in [("json", "{\"instance\":\"lab-7\","), ("text", " instance=lab-7")] {
        let settings =
            [("LOG_FORMAT", format), ("INSTANCE", "lab-7"), ("LOG", "info,kernelci_live::http=debug")];
        let server = Server::start_with(backend, &settings).await;
        id_for(&Http::new(&server), "/count", Some("find-me")).await;
        let log = server.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("kernelci_live")).collect();
        assert!(lines.iter().any(|line| line.contains("find-me")), "{log}");
        assert!(lines.iter().all(|line| line.contains(wanted)), "{log}");
    }
}

#[apply(both_backends!)]
async fn the_log_has_it_as_json(backend: Backend) {
    let settings = [("LOG_FORMAT", "json"), ("LOG", "info,kernelci_live::http=debug")];
    let server = Server::start_with(backend, &settings).await;
    id_for(&Http::new(&server), "/count", Some("find-me")).await;
    let log = server.log();
    let lines: Vec<serde_json::Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let line = lines.iter().find(|line| line["span"]["id"] == "find-me").expect("the request's line");
    assert_eq!(line["fields"]["message"], "answered");
    assert_eq!(line["fields"]["status"], 200);
    assert_eq!(line["span"]["path"], "/count");
    assert!(line["fields"]["ms"].is_number() && line["timestamp"].is_string() && line["level"] == "DEBUG");
}
