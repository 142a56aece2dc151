//! Groups at work: several instances, each with a hub and a registry of its own, over one store and log.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kernelci_live::consumer_group::{Delivery, Ended, Groups, Joined, Member, Parts, Verdict, Wish, topic};
use kernelci_live::error::Result;
use kernelci_live::hub::{Hub, Limits};
use kernelci_live::model::event::Entry;
use kernelci_live::model::{Event, ObjectId, Timestamp};
use kernelci_live::signals::{Local, Signals};
use kernelci_live::store::consumers::{ConsumerKey, Cursor, NewConsumer, Owner};
use kernelci_live::sync::Bell;
use macro_rules_attribute::apply;
use serde_json::json;

use super::support::{Fixture, event};
use crate::support::{both_backends, both_backends_in_pairs, eventually, published};

/// A lease that a machine under load does not miss.
const LEASE: Duration = Duration::from_secs(4);
/// One that nobody in a test waits for.
const FOREVER: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(120);

struct Site {
    f: Fixture,
    signals: Arc<dyn Signals>,
    owner: Owner,
    begin: Cursor,
}

impl Site {
    async fn new(f: Fixture) -> Site {
        let owner = Owner { id: Some(ObjectId::new()), name: "ann".to_owned() };
        let head = f.log.head("ch").await.unwrap();
        Site { f, signals: Arc::new(Local::default()), owner, begin: Cursor::at(&head.epoch, head.seq) }
    }

    fn instance(&self, name: &str) -> Groups {
        Groups::new(Parts {
            store: self.f.store.clone(),
            log: self.f.log.clone(),
            hub: Arc::new(Hub::new(self.f.log.clone(), Limits::default())),
            signals: self.signals.clone(),
            instance: name.to_owned(),
            source: "https://example.org/".to_owned(),
            idle_seconds: 3600,
        })
    }

    async fn join(&self, instance: &Groups, wish: &Wish, window: usize) -> Worker {
        let new = NewConsumer {
            name: Some("g".to_owned()),
            channel: "ch".to_owned(),
            owner: self.owner.clone(),
            promiscuous: true,
            cursor: self.begin.clone(),
            share: None,
            session: None,
        };
        let wake = Arc::new(Bell::default());
        let Joined { member, .. } = instance.join(&new, wish, window, &wake).await.unwrap();
        Worker { member, wake }
    }

    async fn publish(&self, count: usize, trees: usize) {
        for n in 0..count {
            let tree = (n % (trees + 1) < trees).then(|| format!("tree {}", n % (trees + 1)));
            let event = Event { partitionkey: tree, ..event("ch", json!(n)) };
            published(&*self.f.log, event).await;
        }
    }
}

/// A member with what wakes it.
struct Worker {
    member: Member,
    wake: Arc<Bell>,
}

impl Worker {
    /// What comes next; `None`: the member has ended.
    async fn next(&self) -> Option<Delivery> {
        let waiting = async {
            loop {
                if let Some(delivery) = self.member.next() {
                    return Some(delivery);
                }
                if self.member.ended().is_some() {
                    return None;
                }
                self.wake.rung().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("something comes")
    }

    async fn event(&self) -> (u64, u32) {
        match self.next().await {
            Some(Delivery::Event(entry, deliveries)) => (entry.seq, deliveries),
            other => panic!("{other:?}"),
        }
    }

    async fn say(&self, seq: u64, delivery: Option<u32>, verdict: Verdict) -> Result<()> {
        self.member.say(seq, delivery, verdict)?.written().await
    }

    async fn done(&self, seq: u64) -> bool {
        self.say(seq, None, Verdict::Done).await.is_ok()
    }
}

fn wish(ordered: bool, ack_wait: Duration) -> Wish {
    let ms = u64::try_from(ack_wait.as_millis()).unwrap();
    Wish { ordered: Some(ordered), ack_wait_ms: Some(ms), max_deliveries: Some(3), filter: None }
}

/// Who works on what, as seen from outside.
#[derive(Default)]
struct Oracle {
    busy: HashMap<String, (u64, Instant)>,
    done: BTreeMap<u64, u32>,
    last: HashMap<String, u64>,
    seen: HashMap<u64, u32>,
}

impl Oracle {
    fn tree(entry: &Entry) -> String {
        let key = entry.value().get("partitionkey").and_then(|key| key.as_str());
        key.map_or_else(|| format!("event {}", entry.seq), str::to_owned)
    }

    fn begin(&mut self, entry: &Entry, deliveries: u32) {
        let tree = Oracle::tree(entry);
        let now = Instant::now();
        if let Some((other, since)) = self.busy.insert(tree.clone(), (entry.seq, now)) {
            // What was received before the lease of the other one had surely ended.
            let apart = now - since;
            assert!(apart > LEASE / 2, "{other} and {} of {tree} at once, {apart:?} apart", entry.seq);
        }
        let last = self.last.get(&tree).copied().unwrap_or(0);
        assert!(entry.seq > last, "{} of {tree} comes after {last} was done", entry.seq);
        let seen = self.seen.entry(entry.seq).or_default();
        assert!(deliveries > *seen, "{} is counted: {deliveries} after {seen}", entry.seq);
        *seen = deliveries;
    }

    fn end(&mut self, entry: &Entry, done: bool) {
        let tree = Oracle::tree(entry);
        if self.busy.get(&tree).is_some_and(|(seq, _)| *seq == entry.seq) {
            self.busy.remove(&tree);
        }
        if done {
            *self.done.entry(entry.seq).or_default() += 1;
            self.last.insert(tree, entry.seq);
        }
    }
}

#[apply(both_backends_in_pairs!)]
async fn each_event_goes_to_one_member_in_the_order_of_its_tree(f: Fixture) {
    const EVENTS: usize = 150;
    let site = Arc::new(Site::new(f).await);
    let wish = Wish { max_deliveries: Some(100), ..wish(true, LEASE) };
    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let instances = Arc::new([site.instance("one"), site.instance("two")]);
    let workers = (0..6).map(|n| {
        let (site, wish, oracle, instances) = (site.clone(), wish.clone(), oracle.clone(), instances.clone());
        tokio::spawn(async move {
            let mut turn = n;
            let mut worker = site.join(&instances[n % 2], &wish, 4).await;
            loop {
                let next = tokio::time::timeout(Duration::from_millis(100), worker.next()).await;
                let Ok(Some(Delivery::Event(entry, deliveries))) = next else {
                    if oracle.lock().unwrap().done.len() == EVENTS {
                        return;
                    }
                    continue;
                };
                oracle.lock().unwrap().begin(&entry, deliveries);
                turn += 7;
                tokio::time::sleep(Duration::from_millis(turn as u64 % 5)).await;
                match turn % 20 {
                    // Its session goes, and another one comes.
                    3 => {
                        oracle.lock().unwrap().end(&entry, false);
                        worker = site.join(&instances[turn % 2], &wish, 4).await;
                    }
                    // Its process dies: nobody says so.
                    5 if turn < 60 => {
                        oracle.lock().unwrap().end(&entry, false);
                        std::mem::forget(std::mem::replace(
                            &mut worker,
                            site.join(&instances[turn % 2], &wish, 4).await,
                        ));
                    }
                    11 => {
                        let delay = Verdict::Retry(turn as i64 % 30, None);
                        oracle.lock().unwrap().end(&entry, false);
                        let _ = worker.say(entry.seq, Some(deliveries), delay).await;
                    }
                    _ => {
                        // Noted first: the next one of the tree may be out before this one hears that it is done.
                        oracle.lock().unwrap().end(&entry, true);
                        if worker.say(entry.seq, Some(deliveries), Verdict::Done).await.is_err() {
                            *oracle.lock().unwrap().done.get_mut(&entry.seq).unwrap() -= 1;
                        }
                    }
                }
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    site.publish(EVENTS, 5).await;
    for worker in workers {
        tokio::time::timeout(PATIENCE, worker).await.expect("the work ends").unwrap();
    }
    let oracle = oracle.lock().unwrap();
    assert_eq!(oracle.done.keys().copied().collect::<Vec<_>>(), (1..=EVENTS as u64).collect::<Vec<_>>());
    assert!(oracle.done.values().all(|times| *times == 1), "{:?}", oracle.done);
}

#[apply(both_backends!)]
async fn what_a_member_leaves_goes_to_others_at_once(f: Fixture) {
    let site = Site::new(f).await;
    let (one, two) = (site.instance("one"), site.instance("two"));
    let first = site.join(&one, &wish(false, FOREVER), 2).await;
    site.publish(3, 0).await;
    assert_eq!((first.event().await, first.event().await), ((1, 1), (2, 1)));
    let second = site.join(&two, &wish(false, FOREVER), 2).await;
    assert_eq!(second.event().await, (3, 1), "for which the first one has no room");
    assert!(!first.member.has_next(), "{:?}", first.member.next());
    assert!(!second.done(1).await, "it is in other hands");
    assert!(first.done(2).await && !first.done(2).await);
    drop(first);
    assert_eq!(second.event().await, (1, 2));
    // What is given back goes to others first, and comes back if there is nobody else.
    let retry = Verdict::Retry(0, None);
    second.say(1, Some(2), retry.clone()).await.unwrap();
    assert_eq!(second.event().await, (1, 3));
    assert!(second.say(1, Some(2), Verdict::Done).await.is_err(), "that was another delivery");
    // The server sends it away: that is no try.
    second.member.excuse();
    drop(second);
    let third = site.join(&two, &wish(false, FOREVER), 2).await;
    assert_eq!((third.event().await, third.event().await), ((1, 4), (3, 2)));
    assert!(third.done(1).await && third.done(3).await);
    let place = async || site.f.store.consumer(ConsumerKey::Name("g")).await.unwrap().unwrap().cursor.seq;
    assert_eq!(place().await, 3);
    drop(third);
    one.close().await;
    two.close().await;
}

#[apply(both_backends_in_pairs!)]
async fn what_nobody_can_do_becomes_a_dead_letter_once(f: Fixture) {
    let site = Site::new(f).await;
    let instance = site.instance("one");
    let worker = site.join(&instance, &wish(true, Duration::from_secs(6)), 8).await;
    let tree = Event { partitionkey: Some("t".into()), ..event("ch", json!({"what": "poison"})) };
    published(&*site.f.log, tree.clone()).await;
    let next = Event { id: ObjectId::new(), data: json!("next"), ..tree };
    published(&*site.f.log, next).await;
    for time in 1..=3 {
        assert_eq!(worker.event().await, (1, time));
        match time {
            // The lease ends.
            1 => {}
            _ => {
                let retry = Verdict::Retry(0, Some(format!("reason {time}")));
                worker.say(1, Some(time), retry).await.unwrap();
            }
        }
    }
    assert_eq!(worker.event().await, (2, 1), "its tree goes on");
    site.f.settled("dead.g", 1).await;
    let letter = site.f.events_from("dead.g", 1).await.remove(0);
    let value = letter.value();
    assert_eq!((&value["type"], &value["partitionkey"]), (&json!("api.kernelci.org.dead"), &json!("t")));
    let data = &value["data"];
    assert_eq!((&data["consumer"], &data["channel"], &data["seq"]), (&json!("g"), &json!("ch"), &json!(1)));
    assert_eq!((&data["deliveries"], &data["reason"]), (&json!(3), &json!("reason 3")));
    assert_eq!(data["event"]["data"], json!({"what": "poison"}));
    assert!(worker.done(2).await);
    eventually("the place behind both", async || {
        site.f.store.consumer(ConsumerKey::Name("g")).await.unwrap().unwrap().cursor.seq == 2
    })
    .await;
    assert_eq!(site.f.events_from("dead.g", 1).await.len(), 1);
}

#[apply(both_backends!)]
async fn a_group_that_is_moved_or_removed_ends_for_its_members(f: Fixture) {
    let site = Site::new(f).await;
    let (one, two) = (site.instance("one"), site.instance("two"));
    site.publish(2, 0).await;
    let workers =
        [site.join(&one, &wish(false, FOREVER), 1).await, site.join(&two, &wish(false, FOREVER), 1).await];
    let (mut got, other) = (workers[0].event().await.0, workers[1].event().await.0);
    got += other;
    assert_eq!(got, 3);
    assert!(site.f.store.seek_consumer("g", &site.begin).await.unwrap());
    site.signals.send(&topic("g")).await;
    for worker in &workers {
        assert!(worker.next().await.is_none());
        assert_eq!(worker.member.ended(), Some(Ended::Moved));
        assert!(!worker.done(1).await && !worker.done(2).await);
    }
    let again = site.join(&one, &wish(false, FOREVER), 2).await;
    assert_eq!((again.event().await, again.event().await), ((1, 1), (2, 1)), "as if nothing had been");
    assert!(site.f.store.delete_consumer("g").await.unwrap());
    site.signals.send(&topic("g")).await;
    assert!(again.next().await.is_none());
    assert_eq!(again.member.ended(), Some(Ended::Deleted));
    // Its members of another run leave, and nobody minds.
    drop((workers, again));
    let new = site.join(&two, &wish(true, LEASE), 2).await;
    assert_eq!(new.event().await, (1, 1), "a new group with other settings");
}

#[apply(both_backends!)]
async fn retention_is_told_to_the_group(f: Fixture) {
    let site = Site::new(f).await;
    let old = Timestamp::now().plus_seconds(-7200);
    for n in 0..4 {
        site.f.publish_at(old, event("ch", json!(n))).await;
    }
    site.publish(2, 0).await;
    site.f.retained_from("ch", 5).await;
    let instance = site.instance("one");
    let worker = site.join(&instance, &wish(true, FOREVER), 8).await;
    match worker.next().await {
        Some(Delivery::Gap(gap)) => assert_eq!((gap.from, gap.to, gap.epoch), (1, 4, None)),
        other => panic!("{other:?}"),
    }
    assert_eq!((worker.event().await, worker.event().await), ((5, 1), (6, 1)));
}
