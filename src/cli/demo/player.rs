//! Carries out a plan against a server: creates the nodes and leads them through their states, at a chosen speed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, join, join_all};
use futures::stream::FuturesUnordered;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::plan::{Checkout, Failure, Job, KernelBuild, Outcome, Test, Try};
use crate::client::{Client, Error, Result, Submit, UpdateNode};

/// How often a change is tried again when the connection was lost on the way.
const TRIES: usize = 5;
/// Nodes that are closed at the same time when the demo is interrupted.
const CLOSING: usize = 16;

/// What has been done so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Checkouts that are done.
    pub checkouts: AtomicU64,
    /// Builds that are done.
    pub builds: AtomicU64,
    /// Jobs that are done, each try for itself.
    pub jobs: AtomicU64,
    /// Tests that were submitted.
    pub tests: AtomicU64,
    /// Requests that changed something.
    pub writes: AtomicU64,
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Plays plans. Cheap to clone.
#[derive(Clone)]
pub struct Player {
    client: Client,
    /// How many times faster than a real CI.
    speed: f64,
    /// When it is cancelled, nothing new begins.
    stop: CancellationToken,
    tally: Arc<Tally>,
    /// Nodes that are not done yet, by id.
    open: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// A node that this player leads through its life.
struct Live {
    node: Value,
}

impl Live {
    fn id(&self) -> &str {
        self.node["id"].as_str().unwrap_or_default()
    }
    fn revision(&self) -> Option<u64> {
        self.node["revision"].as_u64()
    }
    /// `data` with some members replaced.
    fn data_with(&self, changes: Value) -> Value {
        let mut data = self.node["data"].as_object().cloned().unwrap_or_default();
        if let Value::Object(changes) = changes {
            data.extend(changes);
        }
        Value::Object(data)
    }
    /// A new node below this one, with what the whole tree has in common.
    fn child(&self, kind: &str, name: &str, group: &str, data: &Map<String, Value>) -> Value {
        let mut path = self.node["path"].as_array().cloned().unwrap_or_default();
        path.push(name.into());
        let mut data = data.clone();
        data.insert("kernel_revision".into(), self.node["data"]["kernel_revision"].clone());
        json!({
            "kind": kind,
            "name": name,
            "path": path,
            "group": group,
            "parent": self.node["id"],
            "state": "running",
            "data": data,
            "treeid": self.node["treeid"],
            "submitter": self.node["submitter"],
        })
    }
}

impl Player {
    /// A player over this connection. `stop` ends it early.
    pub fn new(client: Client, speed: f64, stop: CancellationToken) -> Player {
        let speed = if speed.is_finite() && speed > 0.0 { speed } else { 1.0 };
        Player { client, speed, stop, tally: Arc::default(), open: Arc::default() }
    }

    /// What has been done so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Plays one checkout from its beginning to its end, or until it is stopped.
    pub async fn checkout(&self, plan: &Checkout) -> Result<()> {
        let node = json!({
            "kind": "checkout",
            "name": "checkout",
            "path": ["checkout"],
            "group": "checkout",
            "state": "running",
            "data": {"kernel_revision": plan.revision},
            "treeid": plan.treeid,
            "submitter": plan.submitter,
        });
        let mut checkout = self.create(node).await?;
        if !self.pass(plan.fetch).await {
            return Ok(());
        }
        if let Some(failure) = &plan.failure {
            self.fail(&mut checkout, failure, None).await?;
            count(&self.tally.checkouts, 1);
            return Ok(());
        }
        self.update(&mut checkout, json!({"state": "available", "artifacts": plan.artifacts})).await?;
        let builds = join_all(plan.builds.iter().map(|build| self.build(&checkout, build)));
        let jobs = self.jobs(&checkout, &plan.jobs);
        let (builds, jobs) = join(builds, jobs).await;
        builds.into_iter().collect::<Result<()>>()?;
        jobs?;
        if self.stop.is_cancelled() {
            return Ok(());
        }
        self.update(&mut checkout, json!({"state": "closing"})).await?;
        if self.pass(Duration::from_secs(30)).await {
            self.update(&mut checkout, json!({"state": "done", "result": "pass"})).await?;
            count(&self.tally.checkouts, 1);
        }
        Ok(())
    }

    async fn build(&self, checkout: &Live, plan: &KernelBuild) -> Result<()> {
        if !self.pass(plan.wait).await {
            return Ok(());
        }
        let mut build = self.create(checkout.child("kbuild", &plan.name, &plan.name, &plan.data)).await?;
        if !self.pass(plan.work).await {
            return Ok(());
        }
        match &plan.failure {
            Some(failure) => self.fail(&mut build, failure, Some(&plan.artifacts)).await?,
            None => {
                self.update(&mut build, json!({"state": "available", "artifacts": plan.artifacts})).await?;
                self.jobs(&build, &plan.jobs).await?;
                if self.stop.is_cancelled() {
                    return Ok(());
                }
                self.update(&mut build, json!({"state": "done", "result": "pass"})).await?;
            }
        }
        count(&self.tally.builds, 1);
        Ok(())
    }

    fn jobs<'a>(&'a self, parent: &'a Live, plans: &'a [Job]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut running: FuturesUnordered<_> = plans.iter().map(|plan| self.job(parent, plan)).collect();
            while let Some(done) = running.next().await {
                done?;
            }
            Ok(())
        })
    }

    async fn job(&self, parent: &Live, plan: &Job) -> Result<()> {
        for (retry, attempt) in plan.tries.iter().enumerate() {
            if !self.pass(plan.wait).await {
                return Ok(());
            }
            let mut node = parent.child("job", &plan.name, &plan.name, &plan.data);
            node["retry_counter"] = retry.into();
            let mut job = self.create(node).await?;
            // The lab takes the job first, then finds a board.
            if !self.pass(plan.work / 4).await {
                return Ok(());
            }
            let job_id = format!("{}", 100_000 + count_of(&self.tally.writes));
            let data = job.data_with(json!({"job_id": job_id, "device": attempt.device}));
            self.update(&mut job, json!({"data": data})).await?;
            if !self.pass(plan.work).await {
                return Ok(());
            }
            match &attempt.failure {
                Some(failure) => self.fail(&mut job, failure, Some(&attempt.artifacts)).await?,
                None => self.results(&mut job, attempt).await?,
            }
            count(&self.tally.jobs, 1);
        }
        Ok(())
    }

    /// Ends a job with everything that its tests found, in one request.
    async fn results(&self, job: &mut Live, attempt: &Try) -> Result<()> {
        let mut root = job.node.clone();
        if let Some(root) = root.as_object_mut() {
            // The server's own fields.
            root.retain(|key, _| !matches!(key.as_str(), "revision" | "updated"));
        }
        root["state"] = "done".into();
        root["result"] = json!(attempt.outcome());
        root["artifacts"] = attempt.artifacts.clone();
        let below: Vec<Value> =
            attempt.tests.iter().map(|test| hierarchy(test, &root, &job.node["data"])).collect();
        let tests: usize = attempt.tests.iter().map(Test::count).sum();
        let id = job.id().to_owned();
        let tree = json!({"node": root, "child_nodes": below});
        self.client.node_submit(Submit { id, tree, ..Submit::default() }).await?;
        self.forget(job.id());
        count(&self.tally.writes, 1);
        count(&self.tally.tests, tests as u64);
        Ok(())
    }

    async fn fail(&self, live: &mut Live, failure: &Failure, artifacts: Option<&Value>) -> Result<()> {
        let data = live.data_with(json!({"error_code": failure.code, "error_msg": failure.message}));
        let mut set = json!({"state": "done", "result": failure.outcome, "data": data});
        if let Some(artifacts) = artifacts {
            set["artifacts"] = artifacts.clone();
        }
        self.update(live, set).await
    }

    async fn create(&self, node: Value) -> Result<Live> {
        let live = Live { node: self.client.node_create(&node, None).await? };
        count(&self.tally.writes, 1);
        self.remember(&live);
        Ok(live)
    }

    /// Changes a node, against exactly the revision that is known: so a change whose answer was lost can be told
    /// from one that never arrived, and is made once.
    async fn update(&self, live: &mut Live, set: Value) -> Result<()> {
        let mut tries = TRIES;
        loop {
            let set = set.as_object().cloned().unwrap_or_default();
            let wanted = set.get("state").cloned();
            let update = UpdateNode {
                id: live.id().to_owned(),
                set,
                if_revision: live.revision(),
                ..UpdateNode::default()
            };
            tries -= 1;
            match self.client.node_update(&update).await {
                Ok(node) => {
                    live.node = node;
                    break;
                }
                Err(Error::Disconnected) if tries > 0 => {
                    let now = self.client.node_get(live.id()).await?;
                    let arrived = now["revision"].as_u64() > live.revision();
                    live.node = now;
                    if arrived && wanted.is_none_or(|wanted| live.node["state"] == wanted) {
                        break;
                    }
                }
                Err(error) if error.temporary() && tries > 0 => {
                    tokio::time::sleep(error.retry_after().unwrap_or(Duration::from_millis(500))).await;
                }
                Err(error) => return Err(error),
            }
        }
        count(&self.tally.writes, 1);
        match live.node["state"].as_str() {
            Some("done") => self.forget(live.id()),
            _ => self.remember(live),
        }
        Ok(())
    }

    fn remember(&self, live: &Live) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(live.id().to_owned(), live.revision().unwrap_or(0));
    }
    fn forget(&self, id: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Lets a length of time of the real CI pass. `false`: the player was stopped.
    async fn pass(&self, length: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(length.div_f64(self.speed)) => true,
        }
    }

    /// Ends what a stopped player has left open, so that nothing seems to run for ever. Returns how many nodes.
    pub async fn cancel_open(&self) -> usize {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        let set = json!({"state": "done", "result": Outcome::Incomplete});
        let set = set.as_object().cloned().unwrap_or_default();
        let updates = open.into_keys().map(|id| {
            let update = UpdateNode { id, set: set.clone(), ..UpdateNode::default() };
            async move { self.client.node_update(&update).await.is_ok() }
        });
        let closed = futures::stream::iter(updates).buffer_unordered(CLOSING);
        closed.filter(|closed| std::future::ready(*closed)).count().await
    }
}

fn count_of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A test and its parts as `node.submit` takes them.
fn hierarchy(test: &Test, parent: &Value, data: &Value) -> Value {
    let mut path = parent["path"].as_array().cloned().unwrap_or_default();
    path.push(test.name.as_str().into());
    let node = json!({
        "kind": "test",
        "name": test.name,
        "path": path,
        "group": parent["group"],
        "state": "done",
        "result": test.outcome,
        "data": data,
    });
    let below: Vec<Value> = test.children.iter().map(|test| hierarchy(test, &node, data)).collect();
    json!({"node": node, "child_nodes": below})
}
