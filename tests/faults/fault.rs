//! The faults. Each leaves everything whole again.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::cluster::Cluster;
use super::services::freeze;
use crate::support::{Mode, Proxy};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An instance dies (SIGKILL) and is started again.
    KillInstance,
    /// An instance is told to end (SIGTERM) and is started again.
    RestartInstance,
    /// An instance stands still and goes on later (SIGSTOP).
    FreezeInstance,
    /// Redis dies and comes back with what it keeps.
    KillRedis,
    /// Redis forgets everything while it runs.
    Flush,
    /// Redis comes back as it was some time ago.
    OldDump,
    /// Redis stands still.
    FreezeRedis,
    /// The primary dies.
    KillPrimary,
    /// The primary steps down.
    StepDown,
    /// The primary stands still.
    FreezePrimary,
    /// All connections of all clients are cut.
    CutClients,
    /// Clients do not learn that their connections are gone.
    HalfOpenClients,
    /// Nothing passes between clients and instances.
    BlackHoleClients,
    /// Connections between instances and services are cut.
    CutServices,
    /// Nothing passes between an instance and Redis.
    BlackHoleRedis,
    /// Nothing passes between an instance and MongoDB.
    BlackHoleMongo,
    /// Redis is slow.
    DelayRedis,
    /// MongoDB is slow.
    DelayMongo,
    /// What is sent to Redis arrives there twice.
    TwiceRedis,
    /// What is sent to MongoDB arrives there twice.
    TwiceMongo,
    /// Instances do not learn that their connections to Redis are gone.
    HalfOpenRedis,
    /// Instances do not learn that their connections to MongoDB are gone.
    HalfOpenMongo,
    /// An instance dies with commits whose events are not in Redis yet.
    KillRelay,
    /// The wall clock of an instance is a day wrong for a while.
    SetClock,
    /// The disk of the embedded store is full.
    FullDisk,
}

impl Fault {
    /// Does it, to a part that `rng` chooses, for as long as it says.
    pub async fn strike(self, cluster: &mut Cluster, rng: &mut StdRng) {
        let one = rng.random_range(0..cluster.servers.len());
        let time = Duration::from_millis(rng.random_range(200..2500));
        match self {
            Fault::KillInstance => {
                cluster.servers[one].kill9();
                tokio::time::sleep(time / 4).await;
                cluster.servers[one].restart().await;
            }
            Fault::RestartInstance => {
                cluster.servers[one].terminate().await;
                cluster.servers[one].restart().await;
            }
            Fault::FreezeInstance => freeze(cluster.servers[one].pid(), time).await,
            Fault::KillRedis => cluster.below().redis.kill9(time / 2).await,
            Fault::Flush => cluster.below().redis.command(&["FLUSHALL"]).await,
            Fault::OldDump => {
                cluster.below().redis.dump().await;
                tokio::time::sleep(time).await;
                cluster.below().redis.restore().await;
            }
            Fault::FreezeRedis => cluster.below().redis.freeze(time).await,
            Fault::KillPrimary => cluster.below().mongo.kill9(time / 2).await,
            Fault::StepDown => cluster.below().mongo.step_down().await,
            Fault::FreezePrimary => cluster.below().mongo.freeze(time).await,
            Fault::CutClients => cluster.front.cut(),
            Fault::HalfOpenClients => cluster.front.half_open(),
            Fault::BlackHoleClients => for_a_while(&[&cluster.front], Mode::BlackHole, time).await,
            Fault::CutServices => {
                let below = cluster.below();
                below
                    .to_redis
                    .iter()
                    .chain(&below.to_mongo)
                    .chain(below.mongo.proxies())
                    .for_each(Proxy::cut);
            }
            Fault::BlackHoleRedis => {
                for_a_while(&[&cluster.below().to_redis[one]], Mode::BlackHole, 2 * time).await;
            }
            Fault::DelayRedis => {
                let slow = Mode::Delay(Duration::from_millis(20));
                for_a_while(&[&cluster.below().to_redis[one]], slow, 2 * time).await;
            }
            Fault::TwiceRedis => twice(&cluster.below().to_redis.iter().collect::<Vec<_>>(), 2 * time).await,
            Fault::TwiceMongo => twice(&cluster.below().mongo_ways(one), 2 * time).await,
            Fault::HalfOpenRedis => cluster.below().to_redis.iter().for_each(Proxy::half_open),
            Fault::HalfOpenMongo => {
                cluster.below().mongo_ways(one).iter().for_each(|proxy| proxy.half_open());
            }
            Fault::KillRelay => {
                let set = |cluster: &Cluster, mode| {
                    let below = cluster.below.as_ref().expect("a production cluster");
                    below.to_redis.iter().for_each(|proxy| proxy.set(mode));
                };
                set(cluster, Mode::BlackHole);
                // Long enough for commits to pile up.
                tokio::time::sleep(Duration::from_millis(300) + time / 2).await;
                cluster.servers[one].kill9();
                set(cluster, Mode::Pass);
                tokio::time::sleep(time / 4).await;
                cluster.servers[one].restart().await;
            }
            Fault::SetClock => {
                let day = if rng.random() { DAY } else { -DAY };
                cluster.clocks[one].jump(day, 2 * time).await;
            }
            Fault::FullDisk => cluster.disk.as_ref().expect("a small disk").full_for(time).await,
            Fault::BlackHoleMongo => {
                let proxies = cluster.below().mongo_ways(one);
                for_a_while(&proxies, Mode::BlackHole, 2 * time).await;
            }
            Fault::DelayMongo => {
                let proxies = cluster.below().mongo_ways(one);
                for_a_while(&proxies, Mode::Delay(Duration::from_millis(20)), 2 * time).await;
            }
        }
    }

    /// In which words a table shows it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Whether a cluster has the parts that this needs.
    pub fn fits(self, cluster: &Cluster) -> bool {
        use Fault::*;
        let production = cluster.below.is_some();
        match self {
            KillInstance | RestartInstance | FreezeInstance | CutClients | HalfOpenClients
            | BlackHoleClients | SetClock => true,
            StepDown => production && cluster.below.as_ref().is_some_and(|below| below.to_mongo.is_empty()),
            FullDisk => cluster.disk.is_some(),
            OldDump => cluster.below.as_ref().is_some_and(|below| below.redis.forgets()),
            _ => production,
        }
    }

    /// All of them.
    pub const ALL: &[Fault] = &[
        Fault::KillInstance,
        Fault::RestartInstance,
        Fault::FreezeInstance,
        Fault::KillRedis,
        Fault::Flush,
        Fault::OldDump,
        Fault::FreezeRedis,
        Fault::KillPrimary,
        Fault::StepDown,
        Fault::FreezePrimary,
        Fault::CutClients,
        Fault::HalfOpenClients,
        Fault::BlackHoleClients,
        Fault::CutServices,
        Fault::BlackHoleRedis,
        Fault::BlackHoleMongo,
        Fault::DelayRedis,
        Fault::DelayMongo,
        Fault::TwiceRedis,
        Fault::TwiceMongo,
        Fault::HalfOpenRedis,
        Fault::HalfOpenMongo,
        Fault::KillRelay,
        Fault::SetClock,
        Fault::FullDisk,
    ];
}

/// How wrong a clock goes, in seconds.
pub const DAY: i64 = 86_400;

/// New connections are doubled for a while, and all are new.
async fn twice(proxies: &[&Proxy], time: Duration) {
    for mode in [Mode::Twice, Mode::Pass] {
        proxies.iter().for_each(|proxy| proxy.set(mode));
        proxies.iter().for_each(|proxy| proxy.cut());
        if mode == Mode::Twice {
            tokio::time::sleep(time).await;
        }
    }
}

async fn for_a_while(proxies: &[&Proxy], mode: Mode, time: Duration) {
    proxies.iter().for_each(|proxy| proxy.set(mode));
    tokio::time::sleep(time).await;
    proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
}
