//! What the server says about itself to machines.

use serde_json::Value;

use super::redact::Redactor;
use super::{Pages, compare};
use crate::support::{Backend, Http, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents() {
    // They are made of the code; the back end has no part in them.
    let server = Server::start(Backend::Embedded).await;
    let mut pages = Pages::new();
    for name in ["asyncapi", "openapi"] {
        let answer = Http::new(&server).get(&format!("/latest/{name}.json")).await;
        assert!(answer.json.is_object(), "{}", answer.text);
        pages.insert(name.to_owned(), pretty(&answer.json));
    }
    compare("documents", &pages, |name| name != "metrics");
}

fn pretty(document: &Value) -> String {
    // The address is that of the request.
    Redactor::new().hosts(&serde_json::to_string_pretty(document).expect("JSON"))
}
