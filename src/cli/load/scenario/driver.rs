//! `driver`: what the bare MongoDB driver does where `requests` asks the server, on the server's own database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bson::oid::ObjectId;
use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection};

use super::events::positive;
use crate::cli::load::board::histogram;
use crate::cli::load::target::Target;

/// Documents that are read in turn.
const DOCUMENTS: i64 = 10_000;
/// The collection that is written to, and removed at the end.
const SCRATCH: &str = "load_driver";

/// Options of `driver`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Driver {
    /// What is done: reading a node, or inserting one beside the same indexes.
    #[arg(value_enum)]
    operation: Operation,
    #[command(flatten)]
    target: Target,
    /// The server's MongoDB.
    #[arg(long, env = "MONGO_URL", hide_env_values = true)]
    mongo_url: String,
    /// The server's database, which has nodes.
    #[arg(long, env = "MONGO_DB", default_value = "kernelci")]
    mongo_db: String,
    /// Tasks, each doing one thing at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    sessions: u16,
    /// Seconds.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    seconds: f64,
    /// Operations a second of each task; without, one after the other.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Operation {
    Get,
    Create,
}

impl Driver {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let mut run = self.target.begin(usize::from(self.sessions)).await?;
        let mut options = ClientOptions::parse(&self.mongo_url).await?;
        // As the server writes.
        let durable = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        (options.write_concern, options.max_pool_size) = (Some(durable), Some(100));
        let database = Client::with_options(options)?.database(&self.mongo_db);
        let nodes = database.collection::<Document>("node");
        let scratch = database.collection::<Document>(SCRATCH);
        let ids = nodes.find(doc! {}).projection(doc! {"_id": 1}).limit(DOCUMENTS).await?;
        let ids: Vec<Document> = ids.try_collect().await?;
        let ids: Vec<ObjectId> = ids.iter().filter_map(|id| id.get_object_id("_id").ok()).collect();
        if ids.is_empty() {
            bail!("the database {} has no nodes", self.mongo_db);
        }
        let work = Arc::new(Work { template: template(&nodes).await?, nodes, scratch, ids });
        if self.operation == Operation::Create {
            work.prepare().await?;
        }

        run.processes.begin();
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(self.seconds);
        let (clock, operation, next) = (run.clock, self.operation, Arc::new(AtomicUsize::new(0)));
        let every = self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let task = |_| {
            let (work, next) = (work.clone(), next.clone());
            tokio::spawn(async move {
                let mut times = histogram()?;
                let mut turns = every.map(tokio::time::interval);
                while Instant::now() < end {
                    if let Some(turns) = &mut turns {
                        turns.tick().await;
                    }
                    let began = clock.now();
                    match operation {
                        Operation::Get => work.get(next.fetch_add(1, Ordering::Relaxed)).await?,
                        Operation::Create => work.create().await?,
                    }
                    times.saturating_record(clock.now().saturating_sub(began));
                }
                anyhow::Ok(times)
            })
        };
        let tasks: Vec<_> = (0..self.sessions).map(task).collect();
        let mut times = histogram()?;
        for task in tasks {
            times.add(task.await??)?;
        }
        let (seconds, used) = (begin.elapsed().as_secs_f64(), run.processes.used());
        work.scratch.drop().await?;

        let name = if self.operation == Operation::Get { "get" } else { "create" };
        let mut report = run.report("driver").with("operation", name).with("sessions", self.sessions);
        if let Some(rate) = self.rate {
            report = report.with("rate", rate);
        }
        report.measured(seconds, used);
        report.figure("requests", times.len() as f64);
        report.figure("requests_per_second", times.len() as f64 / seconds);
        report.latency("answer", &times);
        run.finish(report)
    }
}

struct Work {
    nodes: Collection<Document>,
    scratch: Collection<Document>,
    ids: Vec<ObjectId>,
    template: Document,
}

/// A checkout as the server has stored it.
async fn template(nodes: &Collection<Document>) -> Result<Document> {
    let mut template = nodes.find_one(doc! {"kind": "checkout"}).await?.context("there is no checkout")?;
    template.remove("outbox");
    Ok(template)
}

impl Work {
    /// The collection that is written to gets the indexes of the server's own.
    async fn prepare(&self) -> Result<()> {
        self.scratch.drop().await?;
        let indexes: Vec<_> = self.nodes.list_indexes().await?.try_collect().await?;
        self.scratch.create_indexes(indexes).await?;
        Ok(())
    }

    async fn get(&self, number: usize) -> Result<()> {
        let id = self.ids[(number * 7919) % self.ids.len()];
        self.nodes.find_one(doc! {"_id": id}).await?.context("a node is gone")?;
        Ok(())
    }

    async fn create(&self) -> Result<()> {
        let mut document = self.template.clone();
        let id = ObjectId::new();
        document.insert("_id", id);
        // Unique, as the server's own index has it.
        document.insert("idempotency", format!("load:{id}"));
        self.scratch.insert_one(document).await?;
        Ok(())
    }
}
