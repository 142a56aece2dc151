//! Nodes created and read per second, over one session and over 64, one request at a time on each.

use std::sync::{Arc, Mutex};

use bson::doc;
use kernelci_live::client::Client;

use crate::load::{blocking_rate, checkout, rate, sessions};
use crate::report::{Figure, RUNS, Report};
use crate::support::{Backend, Server};
use crate::{mongo, sqlite};

const SESSIONS: [usize; 2] = [1, 64];

pub(crate) async fn measure(backend: Backend, report: &mut Report) {
    let server = Server::start(backend).await;
    let clients = sessions(&server, SESSIONS[1]).await;
    let ours = Ours { ids: Arc::default() };
    // Caches, connection pools, the first channel; and nodes to read.
    ours.create(&clients).await;
    match backend {
        Backend::Embedded => embedded(&clients, &ours, report).await,
        Backend::Production => production(&server, &clients, &ours, report).await,
    }
}

async fn embedded(clients: &[Client], ours: &Ours, report: &mut Report) {
    let node = clients[0].node_get(&ours.id(0)).await.expect("the node").to_string();
    let event = clients[0].event_find(&Default::default()).await.expect("events").items[0].to_string();
    for count in SESSIONS {
        let (mut creates, mut gets, mut bare_creates, mut bare_gets) = (vec![], vec![], vec![], vec![]);
        for _ in 0..RUNS {
            creates.push(ours.create(&clients[..count]).await);
            gets.push(ours.get(&clients[..count]).await);
            let mut peer = sqlite::Peer::new(node.clone(), event.clone());
            peer.write(1000);
            let mut reader = sqlite::Peer::new(node.clone(), event.clone());
            reader.write(2000);
            bare_creates.push(blocking_rate(move || peer.write(count)).await);
            let mut at = 0;
            let read = move || {
                at += 1;
                reader.read(at)
            };
            bare_gets.push(blocking_rate(read).await);
        }
        let backend = Some(Backend::Embedded);
        let peer = format!("SQLite, 1 writer, {count} per transaction");
        report.add(Figure {
            name: &name("node.create", count),
            backend,
            unit: "/s",
            ours: &creates,
            peer: Some((&peer, &bare_creates)),
        });
        report.add(Figure {
            name: &name("node.get", count),
            backend,
            unit: "/s",
            ours: &gets,
            peer: Some(("SQLite in process, 1 thread", &bare_gets)),
        });
    }
}

async fn production(server: &Server, clients: &[Client], ours: &Ours, report: &mut Report) {
    let peer = Arc::new(mongo::Peer::new(server).await);
    let documents: Vec<_> = (0..2000).map(|_| peer.document()).collect();
    peer.nodes.insert_many(&documents).await.expect("documents to read");
    let ids: Arc<Vec<_>> =
        Arc::new(documents.iter().map(|document| document.get_object_id("_id").expect("an id")).collect());
    for count in SESSIONS {
        let mut rates = [const { Vec::new() }; 5];
        for _ in 0..RUNS {
            rates[0].push(ours.create(&clients[..count]).await);
            for (at, collection) in [(1, &peer.nodes), (2, &peer.indexed)] {
                let (peer, collection) = (peer.clone(), collection.clone());
                let insert = move |(), _| {
                    let (document, collection) = (peer.document(), collection.clone());
                    async move { drop(collection.insert_one(document).await.expect("an insert")) }
                };
                rates[at].push(rate(&vec![(); count], insert).await);
            }
            rates[3].push(ours.get(&clients[..count]).await);
            let (ids, nodes) = (ids.clone(), peer.nodes.clone());
            let find = move |(), at| {
                let (id, nodes) = (ids[at * 7919 % ids.len()], nodes.clone());
                async move { drop(nodes.find_one(doc! {"_id": id}).await.expect("a query").expect("a node")) }
            };
            rates[4].push(rate(&vec![(); count], find).await);
        }
        let tasks = |what: &str| format!("driver, {count} task{}{what}", if count == 1 { "" } else { "s" });
        let mut add = |operation: &str, ours: &[f64], peer: String, bare: &[f64]| {
            report.add(Figure {
                name: &name(operation, count),
                backend: Some(Backend::Production),
                unit: "/s",
                ours,
                peer: Some((&peer, bare)),
            });
        };
        add("node.create", &rates[0], tasks(""), &rates[1]);
        add("node.create", &rates[0], tasks(", same indexes"), &rates[2]);
        add("node.get", &rates[3], tasks(""), &rates[4]);
    }
}

fn name(operation: &str, sessions: usize) -> String {
    format!("{operation}, {sessions} session{}", if sessions == 1 { "" } else { "s" })
}

/// The server under test.
struct Ours {
    ids: Arc<Mutex<Vec<String>>>,
}

impl Ours {
    fn id(&self, at: usize) -> String {
        let ids = self.ids.lock().expect("the ids");
        ids[at % ids.len()].clone()
    }

    async fn create(&self, clients: &[Client]) -> f64 {
        let ids = self.ids.clone();
        let create = move |client: Client, at| {
            let ids = ids.clone();
            async move {
                let node = client.node_create(&checkout(&format!("c{at}")), None).await.expect("created");
                ids.lock().expect("the ids").push(node["id"].as_str().expect("an id").to_owned());
            }
        };
        rate(clients, create).await
    }

    async fn get(&self, clients: &[Client]) -> f64 {
        let ids = Arc::new(self.ids.lock().expect("the ids").clone());
        let get = move |client: Client, at: usize| {
            let ids = ids.clone();
            async move { drop(client.node_get(&ids[at * 7919 % ids.len()]).await.expect("the node")) }
        };
        rate(clients, get).await
    }
}
