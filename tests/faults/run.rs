//! One cluster under load, the faults that strike it, and the judgement at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

use super::cluster::Cluster;
use super::fault::Fault;
use super::oracle;
use super::readers::{self, Reader};
use super::services::Keeps;
use super::table::Table;
use super::workload::{self, Shared, Target};
use crate::support::{PATIENCE, eventually_within, until_within};

/// The number in an environment variable.
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: no number")))
}

/// A cluster with its writers and readers.
pub struct Run {
    cluster: Cluster,
    rng: StdRng,
    seed: u64,
    target: Target,
    ledger: Shared,
    writers: Vec<JoinHandle<()>>,
    readers: Vec<Reader>,
    tasks: Vec<JoinHandle<()>>,
    /// What struck, and how long it took until writes were acknowledged and seen again.
    struck: Vec<(Fault, Duration)>,
}

impl Run {
    /// Starts the load, from `FAULT_SEED` or a seed by chance.
    pub async fn on(cluster: Cluster) -> Run {
        let seed = number("FAULT_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
        Run::from_seed(cluster, seed).await
    }

    pub async fn from_seed(cluster: Cluster, seed: u64) -> Run {
        println!("FAULT_SEED={seed}");
        let token = cluster.servers[0].token().await.to_owned();
        let target = Target { url: cluster.url(), token, stop: Arc::default() };
        let ledger = Shared::default();
        let (readers, tasks) = readers::start(&target).await;
        let writers = (0..3)
            .map(|writer| {
                tokio::spawn(workload::write(writer, seed + writer as u64, target.clone(), ledger.clone()))
            })
            .collect();
        let rng = StdRng::seed_from_u64(seed);
        let mut run = Run { cluster, rng, seed, target, ledger, writers, readers, tasks, struck: Vec::new() };
        run.recovers().await;
        run
    }

    /// One fault under load.
    pub async fn suffer(&mut self, fault: Fault) {
        if !fault.fits(&self.cluster) {
            return println!("{:<18} does not fit here", fault.name());
        }
        let calm = Duration::from_millis(self.rng.random_range(100..700));
        tokio::time::sleep(calm).await;
        let before = self.ledger.lock().unwrap().nodes.len();
        let begun = Instant::now();
        fault.strike(&mut self.cluster, &mut self.rng).await;
        let struck = begun.elapsed();
        let (recovered, last) = self.recovers().await;
        let ledger = self.ledger.lock().unwrap();
        println!(
            "{:<18} {:>5.1} s, well again after {:>5.2} s ({last}), {} writes meanwhile, {} unknown so far",
            fault.name(),
            struck.as_secs_f64(),
            recovered.as_secs_f64(),
            ledger.nodes.len() - before,
            ledger.unknown
        );
        drop(ledger);
        self.struck.push((fault, recovered));
    }

    /// Waits until a write is acknowledged and every reader of its kind is shown what comes after it.
    /// Also tells who was the last.
    async fn recovers(&mut self) -> (Duration, &'static str) {
        let mut last = "writers";
        let begun = Instant::now();
        let count = |readers: &[Reader]| -> Vec<usize> {
            readers.iter().map(|reader| reader.lock().unwrap().events.len()).collect()
        };
        let acknowledged = || self.ledger.lock().unwrap().nodes.len();
        let written = acknowledged();
        eventually_within(2 * PATIENCE, "writes are acknowledged", async || acknowledged() >= written + 3)
            .await;
        let shown = count(&self.readers);
        until_within(2 * PATIENCE, "every reader is shown something", async || {
            let now = count(&self.readers);
            let waiting: Vec<&Reader> = (self.readers.iter().zip(now.iter().zip(&shown)))
                .filter(|(_, (now, before))| now <= before)
                .map(|(reader, _)| reader)
                .filter(|reader| {
                    !["websocket, slow", "websocket, stops"].contains(&reader.lock().unwrap().name)
                })
                .collect();
            match waiting.first() {
                Some(reader) => last = reader.lock().unwrap().name,
                None => return Ok(()),
            }
            let seen = waiting.iter().map(|reader| reader.lock().unwrap());
            Err(seen.map(|seen| (seen.name, seen.unanswered, seen.faults.clone())).collect::<Vec<_>>())
        })
        .await;
        (begun.elapsed(), last)
    }

    /// On what it runs.
    fn back_end(&self) -> &'static str {
        match self.cluster.below {
            None => "SQLite",
            Some(_) => "MongoDB + Redis",
        }
    }

    /// Ends the load and judges.
    pub async fn end(self) {
        self.end_in(&mut Table::default()).await;
    }

    /// Ends the load and judges; the run goes into the table.
    pub async fn end_in(mut self, table: &mut Table) {
        self.target.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let done = tokio::time::timeout(2 * PATIENCE, writer).await;
            done.expect("every request is answered in time").expect("the writer does not panic");
        }
        let verdict = oracle::judge(&self.target, &self.ledger, &self.readers).await;
        self.tasks.iter().for_each(JoinHandle::abort);
        let ledger = self.ledger.lock().unwrap();
        println!(
            "{} events, {} writes acknowledged, {} unknown; lost {}, doubled {}, out of order {}; longest silence {:.1} s",
            verdict.events,
            ledger.nodes.len() + ledger.published.len(),
            ledger.unknown,
            verdict.lost,
            verdict.doubled,
            verdict.disordered,
            verdict.silence.as_secs_f64(),
        );
        table.add(self.back_end(), &self.struck, &verdict);
        if !verdict.is_good() {
            table.print();
            panic!("FAULT_SEED={}: {verdict:#?}", self.seed);
        }
    }
}

/// Clusters of every kind, one after the other, each with some faults by chance, until `FAULT_MINUTES` are over.
pub async fn soak() {
    let minutes = number("FAULT_MINUTES").unwrap_or(10);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let mut seed = number("FAULT_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let mut table = Table::default();
    while Instant::now() < end {
        let mut rng = StdRng::seed_from_u64(seed);
        let cluster = match rng.random_range(0..4) {
            0 => Cluster::embedded().await,
            1 => Cluster::production(2, 3, Keeps::Everything).await,
            2 => Cluster::production(3, 1, Keeps::Everything).await,
            _ => Cluster::production(2, 1, Keeps::Nothing).await,
        };
        let faults: Vec<Fault> = Fault::ALL.iter().copied().filter(|fault| fault.fits(&cluster)).collect();
        let mut run = Run::from_seed(cluster, seed).await;
        for _ in 0..8 {
            let fault = *faults.choose(&mut rng).expect("some fault fits");
            run.suffer(fault).await;
        }
        run.end_in(&mut table).await;
        seed += 1;
    }
    table.print();
}
