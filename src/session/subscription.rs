//! A subscription: a position in a channel, a filter, and how to show what matches.

use std::collections::HashMap;
use std::sync::Arc;

use super::acks::{Acks, Delivered, Held};
use super::event_frame::{Included, event_frame, event_frame_with};
use super::frame::Frame;
use super::group::{Given, Group};
use super::handle::Reserved;
use super::limits;
use super::live::Live;
use super::outlet::Outlet;
use crate::error::Result;
use crate::event_log::Read;
use crate::hub::{Channel, Follower, SharedFilter};
use crate::model::event::Entry;
use crate::model::{ObjectId, User};
use crate::quota::Place;
use crate::rpc;
use crate::store::{Store, Wire};

/// Nodes above a node that `include:["ancestors"]` shows at most.
const MOST_ANCESTORS: usize = 16;

/// One subscription of one session.
pub struct Subscription {
    /// Holds the number that the client chose.
    pub reserved: Reserved,
    /// The channel.
    pub follower: Follower,
    /// Which events; `None`: all.
    pub filter: Option<Arc<SharedFilter>>,
    /// For a filter that takes much memory.
    pub weighed: Option<Place>,
    /// Who has subscribed, if that matters.
    pub reads_as: Option<ReadsAs>,
    /// What to add to an event.
    pub include: Include,
    /// Skip to now instead of catching up when far behind.
    pub latest: bool,
    /// Everything up to this sequence number has been looked at.
    pub seq: u64,
    /// The last sequence number that the client knows of.
    pub told: u64,
    /// What `seq` counts in.
    pub epoch: Arc<str>,
    /// A read is under way.
    pub busy: bool,
    /// What is acknowledged, if events are.
    pub acks: Option<Held>,
    /// What is lent to the channel while there is nothing else to do.
    pub live: Option<Arc<Live>>,
}

/// Who reads a channel that is not for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadsAs {
    /// The user.
    pub user: ObjectId,
    /// They may because they are a superuser.
    pub as_superuser: bool,
}

impl ReadsAs {
    /// Why a session whose user this is may not read on.
    pub fn lost(&self, user: Option<&User>) -> Option<&'static str> {
        match user {
            None => Some("the session has no user any more"),
            Some(user) if user.id != self.user => Some("the session has another user now"),
            Some(user) if self.as_superuser && !user.is_superuser => {
                Some("the user is no superuser any more")
            }
            Some(_) => None,
        }
    }
}

/// What is added to an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// The node as it stands at delivery.
    pub node: bool,
    /// Its parents, too, from the root down.
    pub ancestors: bool,
}

/// What came of looking at some events: frames for the client, and where the subscription stands after them.
#[derive(Debug)]
pub struct Batch {
    /// Frames with the sequence number that the client knows of after each.
    pub frames: Vec<(Frame, u64)>,
    /// The first frame tells a range that is missing.
    pub gap: bool,
    /// The new position.
    pub seq: u64,
    /// The epoch that it counts in.
    pub epoch: Arc<str>,
    /// Bytes of events that were looked at, each as many times as its filter is work.
    pub looked: usize,
}

impl Subscription {
    /// The number that the client chose.
    pub fn sub(&self) -> u32 {
        self.reserved.sub
    }

    /// Passes over what cannot match.
    pub fn skip(&mut self) {
        if self.follower.channel.share(&mut self.epoch) {
            self.seq = self.follower.skip(self.seq);
            self.follower.saw(self.seq);
        }
    }

    /// Whether there is anything behind the position.
    pub fn is_behind(&self) -> bool {
        self.follower.channel.head() > self.seq || !self.follower.channel.is_in(&self.epoch)
    }

    /// Whether there is anything to deliver now.
    pub fn wants_events(&self) -> bool {
        match self.group() {
            Some(group) => group.has_next(),
            None => self.is_behind() && self.room() > 0,
        }
    }

    /// Lets the channel write new events straight to the socket, until [`Subscription::take_back`]. Nothing may wait
    /// before them.
    pub(super) fn lend(&mut self, outlet: &Arc<Outlet>, sent: &::metrics::Counter) {
        if self.acks.is_some()
            || self.include.node
            || self.busy
            // What the channel writes is never longer than this.
            || self.reserved.longest_frame() < 2 * limits::BATCH
            || !self.follower.is_broad()
            || self.filter.as_ref().is_some_and(|filter| !filter.is_cheap())
            || self.is_behind()
        {
            return;
        }
        let live = self.live.get_or_insert_with(|| {
            let (filter, wake) = (self.filter.clone(), self.reserved.wake());
            let live = Live::new(self.reserved.sub, filter, outlet.clone(), wake, sent.clone(), &self.epoch);
            self.follower.deliver_to(live.clone());
            live
        });
        live.lend(self.seq, self.told, &self.epoch);
    }

    /// From here on the session moves it.
    pub(super) fn take_back(&mut self) {
        if let Some((seq, told)) = self.live.as_ref().and_then(|live| live.take_back()) {
            (self.seq, self.told) = (seq, told);
        }
    }

    fn group(&self) -> Option<&Group> {
        match &self.acks {
            Some(Held(Acks::Group(group))) => Some(group),
            _ => None,
        }
    }

    /// How many more events may be delivered now.
    fn room(&self) -> usize {
        self.acks.as_ref().map_or(usize::MAX, |held| held.0.room())
    }

    /// What there is to deliver, if that takes no time.
    pub fn at_hand(&self) -> Option<Batch> {
        match self.group() {
            None => self.read_live().map(|read| self.look(&read)),
            Some(_) if self.include.node => None,
            Some(group) => Some(self.batch(group.take().frames(self.sub(), self.reserved.longest_frame()))),
        }
    }

    /// Frames of a group, which leave the subscription where it is.
    fn batch(&self, frames: Vec<(Frame, u64)>) -> Batch {
        Batch { frames, gap: false, seq: self.seq, epoch: self.epoch.clone(), looked: 0 }
    }

    /// What follows its position, if that is at hand.
    pub(super) fn read_live(&self) -> Option<Read> {
        let channel = &self.follower.channel;
        if self.include.node || !channel.is_in(&self.epoch) {
            return None;
        }
        channel.read_live(self.seq, limits::SCAN)
    }

    /// Whether it goes on at the head when the log has got a new epoch. One whose place is kept reads on across.
    pub fn is_lost(&self) -> bool {
        self.acks.is_none() && !self.follower.channel.is_in(&self.epoch)
    }

    /// Moves behind what was looked at. False: it is of another epoch, and of no use.
    pub fn advance(&mut self, batch: &Batch) -> bool {
        if self.group().is_some() {
            return true;
        }
        if batch.epoch != self.epoch && self.acks.is_none() {
            return false;
        }
        if batch.epoch != self.epoch {
            self.epoch = batch.epoch.clone();
        }
        self.seq = self.seq.max(batch.seq);
        self.told = batch.frames.last().map_or(self.told, |(_, seq)| *seq);
        self.follower.saw(self.seq);
        if let Some(held) = &self.acks {
            let mut numbers = batch.frames.iter().map(|(_, seq)| *seq);
            held.0.delivered(Delivered {
                looked: self.seq,
                epoch: &self.epoch,
                gap: if batch.gap { numbers.next() } else { None },
                events: &mut numbers,
            });
        }
        true
    }

    /// What to tell the client of how far it has come, if it does not know.
    pub fn progress(&mut self) -> Option<Frame> {
        if self.seq <= self.told {
            return None;
        }
        self.told = self.seq;
        if let Some(held) = &self.acks {
            held.0.told(self.seq);
        }
        Some(progress_frame(self.sub(), self.seq))
    }

    /// What the client is told when history was lost, or when it wants to skip: continue from the head.
    pub fn skip_to_head(&mut self) -> Frame {
        let channel = &self.follower.channel;
        let (epoch, head) = (channel.epoch(), channel.head());
        let (sub, from) = (self.sub(), self.seq.saturating_add(1));
        let lost = if epoch == self.epoch { String::new() } else { new_epoch(&epoch) };
        (self.epoch, self.seq, self.told) = (epoch, head, head);
        self.follower.saw(head);
        gap_frame(sub, from, head, &lost)
    }

    /// Whether it is so far behind that it wants to skip.
    pub fn wants_to_skip(&self) -> bool {
        self.latest && self.follower.channel.head().saturating_sub(self.seq) > limits::LATEST_LAG
    }

    /// Looks at what was read, without anything that takes time. Only where nothing is to be included.
    pub(super) fn look(&self, read: &Read) -> Batch {
        let mut frames = gap_frames(self.sub(), read);
        let gap = !frames.is_empty();
        let (matching, seq, looked) = select(read, self.filter.as_ref(), self.seq, self.room());
        let longest = self.reserved.longest_frame();
        frames.extend(matching.iter().map(|entry| (event_frame(self.sub(), entry, longest), entry.seq)));
        Batch { frames, gap, seq, epoch: read.epoch.clone(), looked }
    }

    /// Reads on from here, in a future of its own.
    pub fn reader(&self) -> Reader {
        let (epoch, include) = (self.epoch.clone(), self.include);
        let source = match self.group() {
            Some(group) => Source::Group(group.take(), self.batch(Vec::new())),
            None => Source::Log(Log {
                channel: self.follower.channel.clone(),
                seq: self.seq,
                across: self.acks.is_some().then_some(epoch),
                room: self.room(),
                filter: self.filter.clone(),
            }),
        };
        Reader { sub: self.sub(), include, longest: self.reserved.longest_frame(), source }
    }
}

/// Reads what follows a subscription's position where that takes time: the log, included nodes.
pub struct Reader {
    /// The number of the subscription.
    pub sub: u32,
    include: Include,
    /// Bytes of the longest message that the client takes.
    longest: usize,
    source: Source,
}

enum Source {
    Log(Log),
    /// What a group has given, and where the subscription stands.
    Group(Given, Batch),
}

/// A place in a channel.
struct Log {
    channel: Arc<Channel>,
    seq: u64,
    /// Read on across epochs, from this one.
    across: Option<Arc<str>>,
    room: usize,
    filter: Option<Arc<SharedFilter>>,
}

impl Reader {
    /// Reads what comes next, from the log if need be, with everything that is to be included.
    pub async fn read(&self, store: &dyn Store) -> Result<Batch> {
        match &self.source {
            Source::Log(log) => log.read(self.sub, self.include, self.longest, store).await,
            Source::Group(given, stand) => {
                let frames = given.frames_with(self.sub, self.include, self.longest, store).await?;
                Ok(Batch { frames, gap: false, seq: stand.seq, epoch: stand.epoch.clone(), looked: 0 })
            }
        }
    }
}

impl Log {
    async fn read(&self, sub: u32, include: Include, longest: usize, store: &dyn Store) -> Result<Batch> {
        let (read, mut frames);
        match &self.across {
            None => {
                read = self.channel.read(self.seq, limits::SCAN).await?;
                frames = gap_frames(sub, &read);
            }
            Some(epoch) => {
                read = self.channel.read_across(self.seq, limits::SCAN).await?;
                frames = match read.epoch == *epoch {
                    true => gap_frames(sub, &read),
                    // Numbers go on; what the client has to know is that history was lost.
                    false => {
                        let (from, to) = read.gap.unwrap_or((self.seq.saturating_add(1), self.seq));
                        vec![(gap_frame(sub, from, to, &new_epoch(&read.epoch)), to)]
                    }
                };
            }
        }
        let gap = !frames.is_empty();
        let (matching, seq, looked) = select(&read, self.filter.as_ref(), self.seq, self.room);
        if !include.node {
            frames.extend(matching.iter().map(|entry| (event_frame(sub, entry, longest), entry.seq)));
        } else if !matching.is_empty() {
            let nodes = nodes_of(store, &matching, include).await?;
            for entry in matching {
                let included = included(entry, include, &nodes);
                frames.push((event_frame_with(sub, entry, "", Some(&included), longest), entry.seq));
            }
        }
        Ok(Batch { frames, gap, seq, epoch: read.epoch, looked })
    }
}

/// Those events that match, `most` at most, and the number of the last one that was looked at: no more at once than
/// others can wait for.
fn select<'r>(
    read: &'r Read,
    filter: Option<&Arc<SharedFilter>>,
    seq: u64,
    most: usize,
) -> (Vec<&'r Arc<Entry>>, u64, usize) {
    let mut seq = read.gap.map_or(seq, |(_, to)| to.max(seq));
    let (mut matching, mut bytes, mut looked) = (Vec::new(), 0, 0);
    for entry in &read.entries {
        if matching.len() >= most {
            break;
        }
        seq = entry.seq;
        looked += filter.map_or(entry.json.len(), |filter| filter.work(entry.json.len()));
        if filter.is_none_or(|filter| filter.matches(entry)) {
            bytes += entry.json.len();
            matching.push(entry);
        }
        if bytes > limits::BATCH || looked > limits::SCAN_BYTES {
            break;
        }
    }
    (matching, seq, looked)
}

/// The nodes that these events are about and, if wanted, all above them; one query a level.
pub(super) async fn nodes_of(
    store: &dyn Store,
    entries: &[&Arc<Entry>],
    include: Include,
) -> Result<HashMap<ObjectId, Wire>> {
    let mut nodes: HashMap<ObjectId, Wire> = HashMap::new();
    let mut wanted: Vec<ObjectId> = entries.iter().filter_map(|entry| entry.subject()).collect();
    let levels = if include.ancestors { MOST_ANCESTORS } else { 1 };
    for _ in 0..levels {
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|id| !nodes.contains_key(id));
        if wanted.is_empty() {
            break;
        }
        let found = store.nodes(&wanted).await?;
        wanted = found.iter().filter_map(|node| id_at(node, "parent")).collect();
        nodes.extend(found.into_iter().filter_map(|node| Some((id_at(&node, "id")?, node))));
    }
    Ok(nodes)
}

fn id_at(node: &Wire, key: &str) -> Option<ObjectId> {
    node.get(key)?.as_str()?.parse().ok()
}

/// What is included with an event, as members of its frame.
pub(super) fn included(entry: &Entry, include: Include, nodes: &HashMap<ObjectId, Wire>) -> Included {
    let node = entry.subject().and_then(|id| nodes.get(&id));
    let mut more = format!(",\"node\":{}", node.map_or("null".into(), text));
    if include.ancestors {
        let mut above = Vec::new();
        let mut next = node.and_then(|node| id_at(node, "parent"));
        while let Some(parent) = next.and_then(|id| nodes.get(&id))
            && above.len() < MOST_ANCESTORS
        {
            above.push(text(parent));
            next = id_at(parent, "parent");
        }
        above.reverse();
        more += &format!(",\"ancestors\":[{}]", above.join(","));
    }
    let without = if include.ancestors { ",\"node\":null,\"ancestors\":null" } else { ",\"node\":null" };
    Included { members: more, without }
}

fn text(node: &Wire) -> String {
    serde_json::to_string(node).unwrap_or_else(|_| "null".into())
}

fn gap_frames(sub: u32, read: &Read) -> Vec<(Frame, u64)> {
    read.gap.map(|(from, to)| (gap_frame(sub, from, to, ""), to)).into_iter().collect()
}

pub(super) fn new_epoch(epoch: &str) -> String {
    format!(",\"epoch\":\"{epoch}\"")
}

pub(super) fn gap_frame(sub: u32, from: u64, to: u64, more: &str) -> Frame {
    rpc::notification("gap", &format!("{{\"sub\":{sub},\"from\":{from},\"to\":{to}{more}}}")).into()
}

/// Tells the client how far a subscription has come without anything to show.
fn progress_frame(sub: u32, seq: u64) -> Frame {
    rpc::notification("progress", &format!("{{\"sub\":{sub},\"seq\":{seq}}}")).into()
}

/// Tells the client that a subscription has ended, and if another session has taken it over, which one.
pub fn unsubscribed_frame(sub: u32, reason: &str, taker: Option<&str>) -> Frame {
    let taker = taker.map_or_else(String::new, |taker| format!(",\"by\":\"{taker}\""));
    rpc::notification("unsubscribed", &format!("{{\"sub\":{sub},\"reason\":\"{reason}\"{taker}}}")).into()
}
