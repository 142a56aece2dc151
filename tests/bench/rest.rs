//! REST on a store of 100,000 nodes: single nodes, pages, counts, creates, and whole hierarchies.
//!
//! The peer does the same work without a server in between: the bare driver with the server's own collection of
//! nodes (and a second one with the same indexes for writes), or bare SQLite in this process.

use std::sync::Arc;
use std::time::Instant;

use bson::doc;
use futures::TryStreamExt;
use serde_json::Value;

use crate::load::{LARGE, Pace, blocking_rate, checkout, hierarchy, pace};
use crate::report::{Figure, RUNS, Report, median, ms, percentile};
use crate::support::{Backend, Http, Server};
use crate::{mongo, sqlite};

/// Connections, each with one request at a time.
const CONNECTIONS: usize = 16;
/// Hierarchies in the store: about 100,000 nodes.
const CHECKOUTS: usize = 20;
/// Nodes of one hierarchy.
const HIERARCHY: usize = LARGE.nodes();

pub(crate) async fn measure(backend: Backend, report: &mut Report) {
    let server = Server::start(backend).await;
    let http = Http::admin(&server).await;
    let (mut submits, mut ids) = (Vec::new(), Vec::new());
    for number in 0..CHECKOUTS {
        let root = http.post("/latest/node", &checkout(&format!("run{number}"))).await.ok();
        let path = format!("/latest/nodes/{}", text(&root["id"]));
        let tree = hierarchy(root, LARGE);
        let begin = Instant::now();
        let nodes = http.put(&path, &tree).await.ok();
        submits.push(ms(begin.elapsed()));
        ids.extend(nodes.as_array().expect("nodes").iter().map(|node| text(&node["id"])));
    }
    let ids = Arc::new(ids);
    let example = http.get(&format!("/latest/node/{}", ids[HIERARCHY / 2])).await.ok();
    let peer = match backend {
        Backend::Embedded => Peer::Sqlite(example),
        Backend::Production => Peer::Mongo(Arc::new(mongo::Peer::new(&server).await)),
    };
    report.add(Figure {
        name: "PUT /nodes, 5,061 nodes",
        backend: Some(backend),
        unit: "ms",
        ours: &submits,
        peer: Some((peer.name(), &peer.hierarchy().await)),
    });
    for request in [Request::Get, Request::Page, Request::Count, Request::Create] {
        let (mut rates, mut p50, mut p99, mut peers) = (vec![], vec![], vec![], vec![]);
        for _ in 0..RUNS {
            let Pace { rate, times } = ours(&http, request, &ids).await;
            rates.push(rate);
            p50.push(percentile(&times, 50));
            p99.push(percentile(&times, 99));
            peers.push(peer.rate(request, &ids).await);
        }
        let name = format!("{}, p50 {:.1} p99 {:.1} ms", request.name(), median(&p50), median(&p99));
        let peer = Some((peer.name(), peers.as_slice()));
        report.add(Figure { name: &name, backend: Some(backend), unit: "/s", ours: &rates, peer });
    }
}

#[derive(Clone, Copy)]
enum Request {
    Get,
    Page,
    Count,
    Create,
}

impl Request {
    fn name(self) -> &'static str {
        match self {
            Request::Get => "GET node",
            Request::Page => "GET nodes",
            Request::Count => "GET count",
            Request::Create => "POST node",
        }
    }
}

async fn ours(http: &Http, request: Request, ids: &Arc<Vec<String>>) -> Pace {
    let ids = ids.clone();
    let one = move |http: Http, at: usize| {
        let ids = ids.clone();
        async move {
            let answer = match request {
                Request::Get => http.get(&format!("/latest/node/{}", ids[at * 7919 % ids.len()])).await,
                Request::Page => http.get("/latest/nodes?kind=kbuild&limit=50").await,
                Request::Count => http.get("/latest/count?kind=job&result=fail").await,
                Request::Create => http.post("/latest/node", &checkout(&format!("c{at}"))).await,
            };
            answer.ok();
        }
    };
    pace(&vec![http.clone(); CONNECTIONS], one).await
}

enum Peer {
    /// With a node as the server shows it.
    Sqlite(Value),
    Mongo(Arc<mongo::Peer>),
}

impl Peer {
    fn name(&self) -> &'static str {
        match self {
            Peer::Sqlite(_) => "SQLite in process, 1 thread",
            Peer::Mongo(_) => "driver, same indexes",
        }
    }

    /// Milliseconds for the nodes of one hierarchy in one step.
    async fn hierarchy(&self) -> Vec<f64> {
        let mut times = Vec::new();
        for _ in 0..RUNS {
            match self {
                Peer::Sqlite(node) => {
                    let nodes = vec![node.to_string(); HIERARCHY];
                    let mut peer = sqlite::Peer::new(node.to_string(), node.to_string());
                    let work = move || {
                        let begin = Instant::now();
                        peer.write_all(&nodes);
                        ms(begin.elapsed())
                    };
                    times.push(tokio::task::spawn_blocking(work).await.expect("the work ends well"));
                }
                Peer::Mongo(peer) => {
                    let documents: Vec<_> = (0..HIERARCHY).map(|_| peer.document()).collect();
                    let begin = Instant::now();
                    peer.indexed.insert_many(&documents).await.expect("inserts");
                    times.push(ms(begin.elapsed()));
                }
            }
        }
        times
    }

    async fn rate(&self, request: Request, ids: &Arc<Vec<String>>) -> f64 {
        match self {
            Peer::Sqlite(node) => bare_sqlite(node, request).await,
            Peer::Mongo(peer) => bare_driver(peer, request, ids).await,
        }
    }
}

async fn bare_driver(peer: &Arc<mongo::Peer>, request: Request, ids: &Arc<Vec<String>>) -> f64 {
    let (peer, ids) = (peer.clone(), ids.clone());
    let one = move |(), at: usize| {
        let (peer, ids) = (peer.clone(), ids.clone());
        async move {
            match request {
                Request::Get => {
                    let id: bson::oid::ObjectId = ids[at * 7919 % ids.len()].parse().expect("an id");
                    peer.own.find_one(doc! {"_id": id}).await.expect("a query").expect("a node");
                }
                Request::Page => {
                    let kind = doc! {"kind": "kbuild"};
                    let page = peer.own.find(kind.clone()).sort(doc! {"_id": 1}).limit(50);
                    let page: Vec<_> = page.await.expect("a query").try_collect().await.expect("a page");
                    assert_eq!(page.len(), 50);
                    peer.own.count_documents(kind).await.expect("a count");
                }
                Request::Count => {
                    let query = doc! {"kind": "job", "result": "fail"};
                    peer.own.count_documents(query).await.expect("a count");
                }
                Request::Create => {
                    peer.indexed.insert_one(peer.document()).await.expect("an insert");
                }
            }
        }
    };
    crate::load::rate(&[(); CONNECTIONS], one).await
}

async fn bare_sqlite(node: &Value, request: Request) -> f64 {
    let mut peer = sqlite::Peer::new(node.to_string(), node.to_string());
    let mut run = hierarchy(node.clone(), LARGE);
    let mut all = Vec::new();
    flatten(&mut run, &mut all);
    for _ in 0..CHECKOUTS {
        peer.write_all(&all);
    }
    peer.index(&["kind"]);
    peer.index(&["kind", "result"]);
    let mut at = 0;
    blocking_rate(move || {
        at += 1;
        match request {
            Request::Get => peer.read(at),
            Request::Page => peer.page("kbuild"),
            Request::Count => peer.count("job", "fail"),
            Request::Create => peer.write(1),
        }
    })
    .await
}

fn flatten(tree: &mut Value, into: &mut Vec<String>) {
    into.push(tree["node"].to_string());
    for child in tree["child_nodes"].as_array_mut().expect("children") {
        flatten(child, into);
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
