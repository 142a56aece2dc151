//! `bare-sqlite`: what bare SQLite does where `requests create` asks an embedded server: the same rows with the same
//! indexes, so many to a transaction, each of which is on the disk before the next one begins.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::events::positive;
use crate::cli::load::board::histogram;
use crate::cli::load::nodes;
use crate::cli::load::target::Target;
use crate::model::node::event_data;
use crate::model::{Event, NODE_CHANNEL, Node, ObjectId, Timestamp};
use crate::store::sqlite;

/// Options of `bare-sqlite`.
#[derive(clap::Args, Clone, Debug)]
pub(in crate::cli::load) struct Bare {
    #[command(flatten)]
    target: Target,
    /// A folder for the file, which must not exist; removed at the end.
    #[arg(long, default_value = "bare-sqlite")]
    folder: PathBuf,
    /// Nodes, each with its event, in one transaction: as many as there are sessions in `requests`.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    group: u16,
    /// Seconds.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    seconds: f64,
}

impl Bare {
    pub(in crate::cli::load) async fn run(&self) -> Result<()> {
        let mut run = self.target.begin(0).await?;
        std::fs::create_dir(&self.folder).with_context(|| format!("--folder {}", self.folder.display()))?;
        run.processes.begin();
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || this.write()).await?;
        let used = run.processes.used();
        std::fs::remove_dir_all(&self.folder)?;
        let (count, seconds, times) = written?;

        let mut report = run.report("bare-sqlite").with("operation", "create").with("sessions", self.group);
        report.measured(seconds, used);
        report.figure("requests", count as f64);
        report.figure("requests_per_second", count as f64 / seconds);
        report.latency("answer", &times);
        run.finish(report)
    }

    fn write(&self) -> Result<(u64, f64, hdrhistogram::Histogram<u64>)> {
        let connection = sqlite::bare(&self.folder.join("bare.db"))?;
        let mut times = histogram()?;
        let (began, mut count) = (Instant::now(), 0_i64);
        while began.elapsed() < Duration::from_secs_f64(self.seconds) {
            let rows: Vec<(String, Event)> = (0..self.group).map(|_| row()).collect::<Result<_>>()?;
            let at = Instant::now();
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            for (node, event) in &rows {
                count += 1;
                connection
                    .prepare_cached("INSERT INTO node (revision, doc) VALUES (1, jsonb(?))")?
                    .execute([node])?;
                connection
                    .prepare_cached(
                        "INSERT INTO event (n, id, time, clock, doc) VALUES (?1, ?2, ?3, ?3, jsonb(?4))",
                    )?
                    .execute((count, event.id.to_hex(), event.time.to_millis().millis(), event.to_text()))?;
            }
            connection.prepare_cached("COMMIT")?.execute([])?;
            times.saturating_record_n(at.elapsed().as_micros() as u64, u64::from(self.group));
        }
        Ok((count.unsigned_abs(), began.elapsed().as_secs_f64(), times))
    }
}

/// A new node as the server stores it, and its event.
fn row() -> Result<(String, Event)> {
    let now = Timestamp::now();
    let node = Node::create(&nodes::checkout("load"), now)?;
    let event = Event {
        id: ObjectId::new(),
        channel: NODE_CHANNEL.to_owned(),
        source: "https://api.kernelci.org/".to_owned(),
        kind: "api.kernelci.org".to_owned(),
        subject: Some(node.id.to_hex()),
        time: now.into(),
        owner: Some("admin".to_owned()),
        partitionkey: node.treeid.clone(),
        extensions: serde_json::Map::new(),
        data: Value::Object(event_data(&node, "created", None, false)),
    };
    Ok((serde_json::to_string(&node)?, event))
}
