//! Reads the store at the end and compares: with what the writers were told, and with what every reader was shown.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use kernelci_live::client::Client;
use serde_json::{Value, json};

use super::readers::{self, Reader, Seen};
use super::workload::{CHANNEL, Ledger, Shared, Target};

/// How long readers may be shown nothing of what is left, once everything is whole again.
const PATIENCE: Duration = Duration::from_secs(60);

/// An event as the history has it.
struct Logged {
    seq: u64,
    id: String,
    node: String,
    kind: String,
    /// The number that the write left in the node, or what was published.
    what: String,
}

/// What the store says.
#[derive(Default)]
struct Truth {
    /// Node id → revision: how often it was written.
    revisions: HashMap<String, u64>,
    node: Vec<Logged>,
    published: Vec<Logged>,
}

/// The judgement.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Events in the logs.
    pub events: usize,
    /// Acknowledged or stored writes without their event, in the log or at a reader.
    pub lost: usize,
    /// Events that are there twice, or without a write.
    pub doubled: usize,
    pub disordered: usize,
    /// The longest that a reader saw nothing.
    pub silence: Duration,
    /// What is wrong, in words.
    pub notes: Vec<String>,
}

impl Verdict {
    fn note(&mut self, text: String) {
        if self.notes.len() < 20 {
            self.notes.push(text);
        }
    }
    pub fn is_good(&self) -> bool {
        self.lost + self.doubled + self.disordered == 0 && self.notes.is_empty()
    }
}

/// Waits until every reader has everything, or nothing more comes; then judges. How far a reader is behind says nothing:
/// some are slow on purpose, and machines are.
pub async fn judge(target: &Target, ledger: &Shared, readers: &[Reader]) -> Verdict {
    let patience = PATIENCE + readers::stop();
    let client = target.client("oracle").await;
    let (mut moved, mut least) = (Instant::now(), usize::MAX);
    loop {
        let truth = Truth::read(&client).await;
        let verdict = compare(&truth, &ledger.lock().unwrap(), readers);
        if verdict.lost < least {
            (moved, least) = (Instant::now(), verdict.lost);
        }
        if verdict.is_good() || moved.elapsed() > patience {
            return verdict;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

impl Truth {
    async fn read(client: &Client) -> Truth {
        let mut truth = Truth::default();
        pages(client, "node.find", json!({"limit": 1000, "fields": ["id", "revision"]}), |node| {
            let id = node["id"].as_str().unwrap_or_default().to_owned();
            truth.revisions.insert(id, node["revision"].as_u64().unwrap_or_default());
        })
        .await;
        for channel in ["node", CHANNEL] {
            let log = if channel == CHANNEL { &mut truth.published } else { &mut truth.node };
            pages(client, "event.find", json!({"limit": 1000, "channel": channel}), |item| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let data = &item["data"];
                log.push(Logged {
                    seq: item["sequence_id"].as_u64().unwrap_or_default(),
                    id: text(&item["id"]),
                    node: text(&data["id"]),
                    kind: text(&data["kind"]),
                    what: if channel == CHANNEL {
                        text(&data["what"])
                    } else {
                        text(&data["data"]["error_msg"])
                    },
                });
            })
            .await;
        }
        truth
    }
}

/// All items of all pages; as often as it takes while the store is away.
async fn pages(client: &Client, method: &str, mut params: Value, mut take: impl FnMut(&Value)) {
    loop {
        let mut page: Value = match client.call(method, &params).await {
            Ok(page) => page,
            Err(error) if error.temporary() => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            Err(error) => panic!("{method} {params}: {error}"),
        };
        page["items"].as_array().into_iter().flatten().for_each(&mut take);
        params["after"] = page["next"].take();
        if params["after"].is_null() {
            return;
        }
    }
}

fn compare(truth: &Truth, ledger: &Ledger, readers: &[Reader]) -> Verdict {
    let mut verdict = Verdict { events: truth.node.len() + truth.published.len(), ..Verdict::default() };
    ledger.wrong.iter().for_each(|wrong| verdict.note(wrong.clone()));
    compare_log("node", &truth.node, &mut verdict);
    compare_log(CHANNEL, &truth.published, &mut verdict);
    compare_nodes(truth, ledger, &mut verdict);
    compare_published(&truth.published, ledger, &mut verdict);
    for reader in readers {
        let seen = reader.lock().unwrap();
        let log = if seen.channel == CHANNEL { &truth.published } else { &truth.node };
        compare_reader(&seen, log, &mut verdict);
    }
    verdict
}

/// Numbers are dense and no event stands in a log twice.
fn compare_log(channel: &str, log: &[Logged], verdict: &mut Verdict) {
    for (event, expected) in log.iter().zip(1..) {
        if event.seq != expected {
            verdict.disordered += 1;
            return verdict.note(format!("{channel}: number {} where {expected} was expected", event.seq));
        }
    }
    let ids: HashSet<&str> = log.iter().map(|event| event.id.as_str()).collect();
    verdict.doubled += log.len() - ids.len();
}

/// One event for each write of a node that the store knows, in the order of the writes.
fn compare_nodes(truth: &Truth, ledger: &Ledger, verdict: &mut Verdict) {
    let mut of_node: HashMap<&str, Vec<&Logged>> = HashMap::new();
    for event in &truth.node {
        of_node.entry(&event.node).or_default().push(event);
    }
    for (id, &revision) in &truth.revisions {
        let events = of_node.remove(id.as_str()).unwrap_or_default();
        let count = events.len() as u64;
        if count != revision {
            verdict.lost += revision.saturating_sub(count) as usize;
            verdict.doubled += count.saturating_sub(revision) as usize;
            verdict.note(format!("node {id}: written {revision} times, {count} events"));
        }
        let numbers: Vec<u64> = events.iter().filter_map(|event| event.what.parse().ok()).collect();
        if !numbers.is_sorted() {
            verdict.disordered += 1;
            verdict.note(format!("node {id}: events out of order: {numbers:?}"));
        }
    }
    for (id, events) in of_node {
        verdict.doubled += events.len();
        verdict.note(format!("{} events of node {id}, which is not there", events.len()));
    }
    let told: HashSet<(&str, &str)> =
        truth.node.iter().map(|event| (event.node.as_str(), event.what.as_str())).collect();
    for (id, number) in &ledger.nodes {
        if !told.contains(&(id.as_str(), number.to_string().as_str())) {
            verdict.lost += 1;
            verdict.note(format!("node {id}: write {number} was acknowledged and has no event"));
        }
    }
}

/// What was acknowledged is there, under the number that was told; nothing is there twice.
fn compare_published(log: &[Logged], ledger: &Ledger, verdict: &mut Verdict) {
    let mut by_what: HashMap<&str, u64> = HashMap::new();
    for event in log {
        if by_what.insert(&event.what, event.seq).is_some() {
            verdict.doubled += 1;
            verdict.note(format!("{} was published twice", event.what));
        }
    }
    for (what, told) in &ledger.published {
        match (by_what.get(what.as_str()), told) {
            (None, _) => {
                verdict.lost += 1;
                verdict.note(format!("{what} was acknowledged and is not there"));
            }
            (Some(seq), Some(told)) if seq != told => {
                verdict.disordered += 1;
                verdict.note(format!("{what} was told number {told} and stands at {seq}"));
            }
            _ => {}
        }
    }
}

/// A reader was shown the whole log, in its order, each event once.
fn compare_reader(seen: &Seen, log: &[Logged], verdict: &mut Verdict) {
    verdict.silence = verdict.silence.max(seen.silence);
    seen.faults.iter().for_each(|fault| verdict.note(format!("{}: {fault}", seen.name)));
    let wanted = |event: &&Logged| seen.kind.is_none_or(|kind| event.kind == kind);
    let expected: Vec<(u64, &str)> =
        log.iter().filter(wanted).map(|event| (event.seq, event.id.as_str())).collect();
    let mut got: Vec<(u64, &str)> = seen.events.iter().map(|(seq, id)| (*seq, id.as_str())).collect();
    if seen.shared {
        got.sort_unstable();
    }
    if seen.unanswered.is_some() {
        // The same once more, as long as nothing else came in between.
        got.dedup();
    }
    if got == expected {
        return;
    }
    let all: HashSet<_> = expected.iter().collect();
    let distinct: HashSet<_> = got.iter().collect();
    let lost = all.difference(&distinct).count();
    let is_right = got.last() == expected.last()
        && got.windows(2).all(|pair| pair[0].0 < pair[1].0)
        && distinct.is_subset(&all);
    // Each that is missing may have been in an answer that did not arrive.
    if is_right && lost <= seen.unanswered.unwrap_or(0) {
        return;
    }
    let doubled = got.len() - distinct.len() + distinct.difference(&all).count();
    verdict.lost += lost;
    verdict.doubled += doubled;
    verdict.disordered += got.windows(2).filter(|pair| pair[0].0 >= pair[1].0).count();
    let at = got.iter().zip(&expected).take_while(|(got, expected)| got == expected).count();
    verdict.note(format!(
        "{}: {} of {} events, {lost} missing, {doubled} too many; after {at}: {:?} where {:?} was expected",
        seen.name,
        got.len(),
        expected.len(),
        got.get(at),
        expected.get(at),
    ));
}
