//! What is tested: instances with a proxy in front of them, and proxies between each of them and its services.

use super::clock::Clock;
use super::disk::Disk;
use super::services::{Keeps, Mongo, Redis};
use crate::support::{Backend, Proxy, Server};

/// Some instances behind one address.
pub struct Cluster {
    /// What an embedded server writes to, if that can be filled. Goes before the server's folder, in which it is.
    pub disk: Option<Disk>,
    /// The clock of each instance.
    pub clocks: Vec<Clock>,
    pub servers: Vec<Server>,
    /// Clients connect here.
    pub front: Proxy,
    /// What the instances stand on, in production.
    pub below: Option<Below>,
}

/// The services of a production cluster and the ways to them.
pub struct Below {
    pub mongo: Mongo,
    pub redis: Redis,
    /// From each instance to MongoDB; empty where the replica set has its own proxies.
    pub to_mongo: Vec<Proxy>,
    /// From each instance to Redis.
    pub to_redis: Vec<Proxy>,
}

impl Below {
    /// The proxies between an instance and MongoDB.
    pub fn mongo_ways(&self, instance: usize) -> Vec<&Proxy> {
        match self.to_mongo.get(instance) {
            Some(own) => vec![own],
            None => self.mongo.proxies().collect(),
        }
    }
}

/// Short, so that the silence of a connection is noticed within a test.
const PING_MS: &str = "1500";
/// MiB of the disk of an embedded server: enough for what a run writes.
const DISK: u32 = 96;

impl Cluster {
    /// One server on SQLite.
    pub async fn embedded() -> Cluster {
        Cluster::embedded_with(PING_MS).await
    }

    /// As [`Cluster::embedded`], with this time between pings.
    pub async fn embedded_with(ping_ms: &str) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::mount(&folder.path().join("data"), DISK);
        let clock = Clock::new();
        let mut settings = vec![("PING_INTERVAL_MS", ping_ms.to_owned())];
        settings.extend(clock.settings());
        let server = Server::start_in(folder, Backend::Embedded, &borrowed(&settings)).await;
        let front = Proxy::to(&[server.port()]).await;
        Cluster { disk, clocks: vec![clock], front, servers: vec![server], below: None }
    }

    /// Instances on services of their own.
    pub async fn production(instances: usize, members: usize, keeps: Keeps) -> Cluster {
        Cluster::production_with(instances, members, keeps, &[("DRAIN_MS", "500")]).await
    }

    /// As [`Cluster::production`], with these settings.
    pub async fn production_with(
        instances: usize,
        members: usize,
        keeps: Keeps,
        settings: &[(&str, &str)],
    ) -> Cluster {
        let (mongo, redis) = tokio::join!(Mongo::start(members), Redis::start(keeps));
        let mut below = Below { mongo, redis, to_mongo: Vec::new(), to_redis: Vec::new() };
        let (mut servers, mut clocks) = (Vec::new(), Vec::new());
        for _ in 0..instances {
            let mongo_url = match members {
                1 => {
                    let proxy = Proxy::to(&[below.mongo.port()]).await;
                    let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port());
                    below.to_mongo.push(proxy);
                    url
                }
                _ => below.mongo.url(),
            };
            let proxy = Proxy::to(&[below.redis.port]).await;
            let redis_url = format!("redis://127.0.0.1:{}/", proxy.port());
            below.to_redis.push(proxy);
            let mut all = vec![
                ("MONGO_URL", mongo_url.as_str()),
                ("REDIS_URL", redis_url.as_str()),
                ("PING_INTERVAL_MS", PING_MS),
            ];
            all.extend(settings);
            let clock = Clock::new();
            let of_clock = clock.settings();
            all.extend(borrowed(&of_clock));
            clocks.push(clock);
            servers.push(Server::start_with(Backend::Production, &all).await);
        }
        let ports: Vec<u16> = servers.iter().map(Server::port).collect();
        Cluster { disk: None, clocks, front: Proxy::to(&ports).await, servers, below: Some(below) }
    }

    /// `http://…` of the front.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.front.port())
    }

    /// Everything that lies below a production cluster.
    pub fn below(&mut self) -> &mut Below {
        self.below.as_mut().expect("a production cluster")
    }
}

fn borrowed<'a>(settings: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(key, value)| (*key, value.as_str())).collect()
}
