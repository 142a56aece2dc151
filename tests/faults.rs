//! Faults at any moment: real servers on a real replica set and a real Redis, with proxies in between, are killed,
//! frozen, cut off and robbed of their data, while clients write and readers of every kind follow. At the end an
//! oracle reads the store: every acknowledged write has its event, every reader was shown every event, once and in
//! order, and no write that failed has one.
//!
//! The tests here take a few seconds for each fault. `scripts/soak` mixes them at random for as long as asked.

mod clock;
mod clock_jumps;
pub mod cluster;
mod consumers;
mod degraded;
mod disk;
mod drain;
pub mod fault;
mod full_disk;
mod leaving;
mod oracle;
mod readers;
mod refusing;
pub mod run;
pub mod services;
mod signals;
mod startup;
mod table;
mod workload;

use cluster::Cluster;
use fault::Fault;
use run::Run;
use services::Keeps;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_server_on_a_small_disk() {
    let mut run = Run::on(Cluster::embedded().await).await;
    for fault in
        [Fault::KillInstance, Fault::FullDisk, Fault::SetClock, Fault::KillInstance, Fault::FreezeInstance]
    {
        run.suffer(fault).await;
    }
    run.end().await;
}

/// On one member of MongoDB, and a Redis without persistence.
async fn two_instances_suffer(faults: &[Fault]) {
    let mut run = Run::on(Cluster::production(2, 1, Keeps::Nothing).await).await;
    for fault in faults {
        run.suffer(*fault).await;
    }
    run.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_on_a_redis_that_forgets() {
    two_instances_suffer(&[
        Fault::KillInstance,
        Fault::Flush,
        Fault::FreezeInstance,
        Fault::KillRedis,
        Fault::OldDump,
        Fault::RestartInstance,
        Fault::KillRelay,
        Fault::SetClock,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_whose_connections_break() {
    two_instances_suffer(&[
        Fault::CutClients,
        Fault::HalfOpenClients,
        Fault::CutServices,
        Fault::BlackHoleRedis,
        Fault::BlackHoleMongo,
        Fault::TwiceRedis,
        Fault::HalfOpenRedis,
        Fault::HalfOpenMongo,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_set_of_three_loses_its_primary() {
    let mut run = Run::on(Cluster::production(2, 3, Keeps::Everything).await).await;
    for fault in [Fault::StepDown, Fault::KillPrimary, Fault::KillRedis] {
        run.suffer(fault).await;
    }
    run.end().await;
}

/// `scripts/soak`: faults by chance until the time is up, in clusters of every kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as FAULT_MINUTES says"]
async fn soak() {
    run::soak().await;
}
