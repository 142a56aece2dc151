//! Nodes as KernelCI has them, to write and to read; the release figures use them, too.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::adapter::{Adapter, KernelCi};
use super::progress::Progress;

/// What stands below a checkout.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Builds of the checkout.
    pub builds: usize,
    /// Jobs of a build.
    pub jobs: usize,
    /// Tests of a job.
    pub tests: usize,
}

/// The shape of a large run.
pub const LARGE: Shape = Shape { builds: 20, jobs: 12, tests: 20 };

impl Shape {
    /// Nodes, with the checkout.
    pub const fn nodes(self) -> usize {
        1 + self.builds * (1 + self.jobs * (1 + self.tests))
    }
}

/// A checkout as KernelCI has them.
pub fn checkout(name: &str) -> Value {
    json!({
        "kind": "checkout", "name": name, "path": [name], "group": "figures", "state": "running",
        "data": {"kernel_revision": {
            "tree": "mainline", "branch": "master", "commit": "7d0a66e4bb9081d75c82ec4957c50034cb0ea449",
            "describe": "v6.18-rc7-12-g7d0a66e4bb90", "version": {"version": 6, "patchlevel": 18},
            "url": "https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git",
        }},
    })
}

/// A run of CI below its checkout, which exists.
pub fn hierarchy(root: Value, shape: Shape) -> Value {
    let node = |kind: &str, number: usize| {
        let result = if number % 10 == 3 { "fail" } else { "pass" };
        json!({"kind": kind, "name": format!("{kind}-{number}"), "path": ["checkout", kind], "group": "figures",
            "state": "done", "result": result, "data": {"arch": "arm64", "platform": "bcm2711-rpi-4-b"}})
    };
    let with = |kind: &str, number: usize, child_nodes: Vec<Value>| json!({"node": node(kind, number), "child_nodes": child_nodes});
    let tests = || (0..shape.tests).map(|number| with("test", number, Vec::new())).collect();
    let jobs = || (0..shape.jobs).map(|number| with("job", number, tests())).collect();
    let builds: Vec<Value> = (0..shape.builds).map(|number| with("kbuild", number, jobs())).collect();
    json!({"node": root, "child_nodes": builds})
}

/// Writes hierarchies until the store has so many nodes.
pub(super) async fn fill(server: &KernelCi, nodes: u64) -> Result<()> {
    let mut link = server.connect().await?;
    let count = KernelCi::ask(&mut link, "count", "node.count", &json!({})).await?;
    let there = count["count"].as_u64().context("node.count answers without a count")?;
    let missing = nodes.saturating_sub(there) as usize;
    let mut written = 0;
    let progress = Progress::of("nodes", missing.div_ceil(LARGE.nodes()) as u64);
    while written < missing {
        let left = missing - written;
        // A part of a large one at the end, in whole builds.
        let builds = (left * LARGE.builds).div_ceil(LARGE.nodes()).min(LARGE.builds);
        let shape = Shape { builds, ..LARGE };
        let create = json!({"node": checkout("checkout")});
        let root = KernelCi::ask(&mut link, "root", "node.create", &create).await?;
        put(server, &root, shape).await?;
        written += shape.nodes();
        progress.step();
    }
    Ok(())
}

/// Writes a hierarchy below a checkout.
pub(super) async fn put(server: &KernelCi, root: &Value, shape: Shape) -> Result<()> {
    let id = root["id"].as_str().context("node.create answers without an id")?;
    let mut node = root.clone();
    if let Some(node) = node.as_object_mut() {
        // A session shows it, REST does not take it.
        node.remove("revision");
    }
    server.put(&format!("/nodes/{id}"), &hierarchy(node, shape).to_string()).await
}

/// The ids of some nodes, at most `most`.
pub(super) async fn ids(server: &KernelCi, most: usize) -> Result<Vec<String>> {
    let mut link = server.connect().await?;
    let (mut ids, mut after) = (Vec::new(), Value::Null);
    while ids.len() < most {
        let params = json!({"limit": 1000, "fields": ["id"], "after": after});
        let page = KernelCi::ask(&mut link, "page", "node.find", &params).await?;
        let items = page["items"].as_array().context("node.find answers without items")?;
        ids.extend(items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)));
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    ids.truncate(most);
    Ok(ids)
}
