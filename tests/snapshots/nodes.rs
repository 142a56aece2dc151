//! `node.*`.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::book::{ABSENT, Book};
use crate::support::{Server, both_backends, node};

pub(super) const METHODS: &[&str] = &["node."];

#[apply(both_backends!)]
async fn methods_of_nodes(server: Server) {
    let (mut raw, mut nobody, mut book) = (server.admin().await, server.anonymous().await, Book::default());
    let raw = &mut raw;

    let mut checkout = node("checkout", "checkout");
    checkout["data"] = json!({"kernel_revision": {"tree": "mainline", "branch": "master", "commit": "a".repeat(40),
        "url": "https://git.example/linux.git"}});
    checkout["timeout"] = "2099-01-01T00:00:00".into();
    let checkout = json!({"node": checkout, "idempotency_key": "once"});
    let root = book.ask(raw, "a checkout", "node.create", checkout.clone()).await;
    book.ask(raw, "repeated with its key", "node.create", checkout.clone()).await;
    let mut build = node("kbuild", "kbuild");
    build["parent"] = root["id"].clone();
    build["data"] = json!({"arch": "arm64", "compiler": "gcc-12"});
    let build = book.ask(raw, "below it", "node.create", json!({"node": build})).await;
    book.refused(raw, "not a node", "node.create", json!({"node": {"kind": "job", "path": 5}})).await;
    book.refused(&mut nobody, "without a user", "node.create", checkout).await;

    let id = json!({"id": root["id"]});
    book.ask(raw, "all of it", "node.get", id).await;
    let some = json!({"id": root["id"], "fields": ["name", "data.kernel_revision.tree"]});
    book.ask(raw, "some of it", "node.get", some).await;
    book.refused(raw, "there is none", "node.get", json!({"id": ABSENT})).await;
    book.refused(raw, "not an id", "node.get", json!({"id": "x"})).await;

    let first = json!({"filter": {"kind__in": ["checkout", "kbuild"]}, "sort": ["name"], "limit": 1, "fields": ["id", "name"]});
    let page = book.ask(raw, "the first page", "node.find", first.clone()).await;
    let mut next = first;
    next["after"] = page["next"].clone();
    book.ask(raw, "the last page", "node.find", next).await;
    book.ask(raw, "whole nodes", "node.find", json!({"filter": {"kind": "kbuild"}})).await;
    book.refused(raw, "not a filter", "node.find", json!({"filter": {"kind__like": "x"}})).await;
    book.refused(raw, "more than a page", "node.find", json!({"limit": 1001})).await;
    let rows = json!({"filter": {"name": "checkout"}, "limit": 1, "offset": 0});
    book.ask(raw, "one", "node.page", rows.clone()).await;
    book.ask(raw, "one", "node.list", rows).await;
    book.ask(raw, "all", "node.count", json!({})).await;
    book.ask(raw, "some", "node.count", json!({"filter": {"data.arch": "arm64"}})).await;

    let set = json!({"id": build["id"], "if_revision": 1, "set": {"state": "done", "result": "pass"}});
    book.ask(raw, "from this revision", "node.update", set.clone()).await;
    book.refused(raw, "from a revision that is past", "node.update", set).await;
    let back = json!({"id": build["id"], "set": {"state": "running"}});
    book.refused(raw, "backwards", "node.update", back).await;
    let name = json!({"id": build["id"], "set": {"name": "x"}});
    book.refused(raw, "what cannot be set", "node.update", name).await;
    let mut whole = raw.call("node.get", json!({"id": root["id"]})).await;
    whole["state"] = "available".into();
    let replace = json!({"id": root["id"], "node": whole});
    book.ask(raw, "with another state", "node.replace", replace).await;
    let absent = json!({"id": ABSENT, "node": node("checkout", "x")});
    book.refused(raw, "there is none", "node.replace", absent).await;

    let mut whole = raw.call("node.get", json!({"id": root["id"]})).await;
    whole["state"] = "done".into();
    whole["result"] = "pass".into();
    let children = json!([{"node": node("job", "job"), "child_nodes": [{"node": node("test", "test"), "child_nodes": []}]}]);
    let tree = json!({"node": whole, "child_nodes": children});
    book.ask(raw, "two below the root", "node.submit", json!({"id": root["id"], "tree": tree})).await;
    let not_a_tree = json!({"id": root["id"], "tree": {"node": {}}});
    book.refused(raw, "not a tree", "node.submit", not_a_tree).await;

    let mark = |id: &Value| json!({"ids": [id], "field": "processed_by_kcidb_bridge", "value": true});
    book.ask(raw, "one that is there", "node.mark", mark(&root["id"])).await;
    book.refused(raw, "one that is not", "node.mark", mark(&json!(ABSENT))).await;
    let mark = json!({"ids": [root["id"]], "field": "name", "value": true});
    book.refused(raw, "another field", "node.mark", mark).await;
    book.close(METHODS);
}
