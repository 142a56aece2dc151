//! What there is on a server, so that two looks can be compared: in its stores, of its process, and by its gauges.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Backend, PATIENCE, Server, services, until};

/// Gauges are computed anew after half a second.
const REST: Duration = Duration::from_millis(600);

/// Gauges of what goes on by itself: the process's own figures are looked at apart, times pass, events are history.
const PASSING: &[&str] =
    &["process_", "_lag_seconds{", "kernelci_log_", "kernelci_ring_", "kernelci_scrape_", "kernelci_up"];

/// One look.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Rows, documents and keys, if they are asked for.
    kept: BTreeMap<String, u64>,
    /// Descriptors and gauges.
    held: BTreeMap<String, u64>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// The process alone, for those who write meanwhile.
    Process,
    /// What it keeps as well.
    All,
}

async fn look(server: &Server, at: At) -> Look {
    let kept = match at {
        At::All => server.traces().await,
        At::Process => BTreeMap::new(),
    };
    let mut held = BTreeMap::from([("descriptors".into(), descriptors(server))]);
    let text = reqwest::get(format!("{}/latest/metrics", server.url())).await.expect("answers");
    let text = text.text().await.expect("text");
    let mut gauge = false;
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            gauge = kind.ends_with(" gauge");
        }
        let known = gauge && !line.starts_with('#') && !PASSING.iter().any(|name| line.contains(name));
        if let Some((name, value)) = line.rsplit_once(' ').filter(|_| known) {
            held.insert(name.to_owned(), value.parse::<f64>().expect("a number") as u64);
        }
    }
    Look { kept, held }
}

/// How many descriptors the process has, those aside that its stores keep for the next who come: files in the data folder,
/// connections to services.
fn descriptors(server: &Server) -> u64 {
    let port = |url: &String| url::Url::parse(url).ok().and_then(|url| url.port());
    let ports = match server.backend() {
        Backend::Embedded => Vec::new(),
        Backend::Production => vec![port(&services().mongo), port(&services().redis)],
    };
    let to_services = |line: &str| {
        let mut words = line.split_whitespace();
        let port = u16::from_str_radix(words.nth(2)?.split_once(':')?.1, 16).ok()?;
        let inode = words.nth(6)?;
        ports.contains(&Some(port)).then(|| format!("socket:[{inode}]"))
    };
    let process = format!("/proc/{}", server.pid());
    let connections = fs::read_to_string(format!("{process}/net/tcp")).expect("the process lives");
    let connections: HashSet<String> = connections.lines().filter_map(to_services).collect();
    let own = |path: &PathBuf| {
        !path.starts_with(server.folder()) && !path.to_str().is_some_and(|path| connections.contains(path))
    };
    let all = fs::read_dir(format!("{process}/fd")).expect("the process lives");
    // One may be closed meanwhile.
    all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).filter(own).count() as u64
}

/// How many entries a folder of the process in /proc has.
pub fn entries(server: &Server, folder: &str) -> u64 {
    let folder = fs::read_dir(format!("/proc/{}/{folder}", server.pid())).expect("the process lives");
    folder.count() as u64
}

/// What is there when nothing moves any more.
pub async fn at_rest(server: &Server, at: At) -> Look {
    let mut last = None;
    until("nothing moves", async || {
        let now = look(server, at).await;
        tokio::time::sleep(REST).await;
        match last.replace(now.clone()) {
            Some(before) if before == now => Ok(now),
            before => Err((before, now)),
        }
    })
    .await
}

/// Waits until all is as it was, or less of it is held; an `Err` says what is not.
pub async fn is_back(server: &Server, at: At, before: &Look) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = look(server, at).await;
        let names = before.kept.keys().chain(now.kept.keys());
        let kept = names.filter(|name| before.kept.get(*name) != now.kept.get(*name));
        let kept: Vec<_> = kept.map(|name| (name, before.kept.get(name), now.kept.get(name))).collect();
        let held: Vec<_> =
            now.held.iter().filter(|(name, now)| *now > before.held.get(*name).unwrap_or(&0)).collect();
        if kept.is_empty() && held.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{kept:?}, {held:?} where there was {:?}", before.held));
        }
        tokio::time::sleep(REST).await;
    }
}
