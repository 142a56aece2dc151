//! Subscribe, replay, live, in every order that chance finds: the real hub, ring, start and subscription on a log in
//! memory that grows, forgets, fails and loses history also between any two of their steps; a model of the client says
//! what it may be shown.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::frame::Frame;
use super::handle::Handle;
use super::limits;
use super::outlet::Outlet;
use super::subscription::{Include, Subscription};
use crate::error::{Error, Result};
use crate::event_log::{EventLog, HistoryQuery, Logged, Read, Tail};
use crate::hub::{self, Hub};
use crate::model::event::Entry;
use crate::model::{Event, EventTime, NODE_CHANNEL, Position};
use crate::ops::Peer;
use crate::ops::subscriptions::{From, FromWord, in_step, start};
use crate::quota::Holder;
use crate::sync::lock;

/// What happens to the log.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// So many events more.
    Append(u64),
    /// Retention takes so many.
    Expire(u64),
    /// History is lost: another epoch begins.
    Lose,
    /// So many of the next calls fail (but not the tail's, which rests for long then).
    Fail(u32),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Now(Change),
    /// In the middle of the next call of the log.
    Meanwhile(Change),
    Subscribe(usize, Place),
    /// The session looks at its subscription once.
    Pump(usize),
    Disconnect(usize),
    /// Others get so many turns.
    Rest(u8),
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Now,
    Earliest,
    Resume,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (1..20_u64).prop_map(Change::Append),
        2 => (1..40_u64).prop_map(Change::Expire),
        1 => Just(Change::Lose),
        1 => (1..3_u32).prop_map(Change::Fail),
    ]
}

const READERS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let place = prop_oneof![1 => Just(Place::Now), 1 => Just(Place::Earliest), 4 => Just(Place::Resume)];
    prop_oneof![
        3 => change().prop_map(Step::Now),
        3 => change().prop_map(Step::Meanwhile),
        3 => (0..READERS, place).prop_map(|(reader, place)| Step::Subscribe(reader, place)),
        8 => (0..READERS).prop_map(Step::Pump),
        2 => (0..READERS).prop_map(Step::Disconnect),
        3 => (0..6_u8).prop_map(Step::Rest),
    ]
}

/// The log as it is. Numbers only grow, also from one epoch to the next.
#[derive(Default)]
struct State {
    epoch: u64,
    head: u64,
    /// The lowest number that can be read.
    floor: u64,
    fails: u32,
    meanwhile: VecDeque<Change>,
}

impl State {
    fn change(&mut self, change: Change) {
        match change {
            Change::Append(count) => self.head += count,
            Change::Expire(count) => self.floor = (self.floor + count).min(self.head + 1),
            // What was before is of another epoch, whether it is still somewhere or not.
            Change::Lose => (self.epoch, self.floor) = (self.epoch + 1, self.head + 1),
            Change::Fail(count) => self.fails += count,
        }
    }
    fn epoch(&self) -> Arc<str> {
        self.epoch.to_string().into()
    }
    fn read(&self, seq: u64, limit: usize) -> Read {
        let gap = (seq + 1 < self.floor).then(|| (seq + 1, self.floor - 1));
        let from = self.floor.max(seq + 1);
        let to = self.head.min(from + limit as u64 - 1);
        let entries = (from..=to).map(|n| Arc::new(Entry::new(n, &event(self.epoch, n)))).collect();
        Read { epoch: self.epoch(), gap, entries }
    }
}

/// What is told of event `n`: so that a reader can tell it from the same number of another epoch.
fn event(epoch: u64, n: u64) -> String {
    let parity = if n % 2 == 1 { "odd" } else { "even" };
    json!({"data": {"epoch": epoch, "n": n, "odd": n % 2, "parity": parity}}).to_string()
}

#[derive(Clone, Default)]
struct Log {
    state: Arc<Mutex<State>>,
    moved: Arc<Notify>,
}

impl Log {
    /// Something else may happen before and after a call has its answer.
    async fn look<T>(&self, answer: impl FnOnce(&State) -> T) -> T {
        self.meanwhile();
        tokio::task::yield_now().await;
        let answer = answer(&lock(&self.state));
        self.meanwhile();
        tokio::task::yield_now().await;
        answer
    }
    async fn call<T>(&self, answer: impl FnOnce(&State) -> T) -> Result<T> {
        if let Some(left) = { lock(&self.state).fails }.checked_sub(1) {
            lock(&self.state).fails = left;
            return Err(Error::unavailable("log", anyhow::anyhow!("as planned")));
        }
        Ok(self.look(answer).await)
    }
    fn meanwhile(&self) {
        let mut state = lock(&self.state);
        if let Some(change) = state.meanwhile.pop_front() {
            state.change(change);
            self.moved.notify_waiters();
        }
    }
    fn change(&self, change: Change) {
        lock(&self.state).change(change);
        self.moved.notify_waiters();
    }
}

#[async_trait]
impl EventLog for Log {
    async fn ping(&self) -> Result<()> {
        Ok(())
    }
    async fn head(&self, _: &str) -> Result<Position> {
        self.call(|state| Position { epoch: state.epoch().to_string(), seq: state.head }).await
    }
    async fn exists(&self, _: &str) -> Result<bool> {
        Ok(true)
    }
    async fn floor(&self, _: &str) -> Result<u64> {
        self.call(|state| state.floor).await
    }
    async fn seq_before(&self, _: &str, _: EventTime) -> Result<u64> {
        Ok(0)
    }
    async fn read_after(&self, _: &str, seq: u64, limit: usize) -> Result<Read> {
        self.call(|state| state.read(seq, limit)).await
    }
    async fn tail(&self, _: &str, seq: u64) -> Result<Box<dyn Tail>> {
        let epoch = self.look(State::epoch).await;
        Ok(Box::new(LogTail { log: self.clone(), seq, epoch }))
    }
    async fn publish(&self, _: Event) -> Result<Option<u64>> {
        Ok(None)
    }
    async fn like(&self, _: &[&str], _: &[&str]) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    async fn find(&self, _: &HistoryQuery) -> Result<Vec<Logged>> {
        Ok(Vec::new())
    }
    async fn pending(&self) -> Result<u64> {
        Ok(0)
    }
    async fn close(&self) {}
}

struct LogTail {
    log: Log,
    seq: u64,
    epoch: Arc<str>,
}

#[async_trait]
impl Tail for LogTail {
    async fn next(&mut self, limit: usize) -> Result<Read> {
        let moved = self.log.moved.clone();
        let mut moved = std::pin::pin!(moved.notified());
        moved.as_mut().enable();
        let mut read = self.log.look(|state| state.read(self.seq, limit)).await;
        if read.gap.is_none() && read.entries.is_empty() && read.epoch == self.epoch {
            let _ = tokio::time::timeout(Duration::from_secs(1), moved).await;
            read = self.log.look(|state| state.read(self.seq, limit)).await;
        }
        self.seq = read.gap.map_or(self.seq, |(_, to)| to);
        self.seq = read.entries.last().map_or(self.seq, |entry| entry.seq);
        self.epoch = read.epoch.clone();
        Ok(read)
    }
}

/// A client: what it knows and what it may be told next.
struct Client {
    /// Only every other event is for it.
    filtered: bool,
    position: Option<Position>,
    session: Option<Subscription>,
    /// Where the channel writes to while the subscription is lent to it, and the other end.
    outlet: Arc<Outlet>,
    inlet: std::net::TcpStream,
}

impl Client {
    async fn new(filtered: bool) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("its address");
        let (outlet, inlet) = tokio::join!(TcpStream::connect(to), listener.accept());
        let (outlet, inlet) = (outlet.expect("a connection"), inlet.expect("its other end").0);
        outlet.writable().await.expect("room");
        let outlet = Arc::new(Outlet::new(outlet));
        // Not tokio's: that does not look by itself whether there is something to read.
        let inlet = inlet.into_std().expect("a socket");
        Client { filtered, position: None, session: None, outlet, inlet }
    }

    /// Takes the subscription back, and reads what the channel has written meanwhile.
    fn take_back(&mut self, log: &Log) {
        let Some(session) = &mut self.session else { return };
        session.take_back();
        let mut bytes = Vec::new();
        let end = self.inlet.read_to_end(&mut bytes).expect_err("it stays open");
        assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock);
        for frame in Frame::split(&bytes) {
            self.shown(&frame, log);
        }
    }

    async fn subscribe(&mut self, hub: &Arc<Hub>, log: &Log, place: Place) -> Result<()> {
        self.disconnect(log);
        let handle = Arc::new(Handle::new("s".into(), Arc::new(Peer::default()), Arc::default()));
        let reserved = handle.reserve(1)?;
        let from = match (place, &self.position) {
            (Place::Resume, Some(position)) => From::Position(position.clone()),
            (Place::Earliest, _) => From::Word(FromWord::Earliest),
            _ => From::Now,
        };
        // The same events, one way by an index and one way without.
        let filter = match place {
            _ if !self.filtered => None,
            Place::Now => Some(hub.filter(&json!({"data.odd": 1}))?),
            Place::Earliest | Place::Resume => Some(hub.filter(&json!({"data.parity": "odd"}))?),
        };
        let holder = Holder::stranger(Peer::default().address);
        let follower = match &filter {
            Some(filter) => hub.follow_matching(NODE_CHANNEL, holder, reserved.wake(), filter).await?,
            None => hub.follow(NODE_CHANNEL, holder, reserved.wake()).await?,
        };
        let before = Bounds::of(log);
        let start = start(log, NODE_CHANNEL, &from).await?;
        let after = Bounds::of(log);
        in_step(log, &follower.channel, &start.position.epoch).await?;
        let recovered = start.missed.is_none();
        if let From::Position(wanted) = &from {
            let is_whole =
                |at: &Bounds| at.epoch == wanted.epoch && wanted.seq + 1 >= at.floor && wanted.seq <= at.head;
            assert!(!recovered || is_whole(&before), "recovered with a hole: {wanted:?}, {before:?}");
            assert!(recovered || !is_whole(&after), "not recovered without a hole: {wanted:?}, {after:?}");
            assert!(!recovered || start.position == *wanted, "{wanted:?} became {:?}", start.position);
        }
        if matches!(from, From::Now) {
            assert!((before.head..=after.head).contains(&start.position.seq));
        }
        let Position { epoch, seq } = &start.position;
        self.session = Some(Subscription {
            reads_as: None,
            weighed: None,
            reserved,
            follower,
            filter,
            include: Include::default(),
            latest: false,
            seq: *seq,
            told: *seq,
            epoch: epoch.as_str().into(),
            busy: false,
            acks: None,
            live: None,
        });
        self.position = Some(start.position);
        Ok(())
    }

    fn disconnect(&mut self, log: &Log) {
        self.take_back(log);
        self.session = None;
    }

    /// What the session's task does with one subscription.
    async fn pump(&mut self, log: &Log) -> Result<()> {
        self.take_back(log);
        let moved = self.bring(log).await;
        if let Some(session) = &mut self.session {
            session.lend(&self.outlet, &::metrics::Counter::noop());
        }
        moved
    }

    async fn bring(&mut self, log: &Log) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.skip();
        if !session.wants_events() {
            return Ok(());
        }
        if session.is_lost() {
            let frame = session.skip_to_head();
            self.shown(&frame, log);
            return Ok(());
        }
        let read = match session.read_live() {
            Some(read) => read,
            None => session.follower.channel.read(session.seq, limits::SCAN).await?,
        };
        let batch = session.look(&read);
        if session.advance(&batch) {
            let told = session.told;
            for (frame, _) in &batch.frames {
                self.shown(frame, log);
            }
            assert_eq!(
                self.position.as_ref().map(|position| position.seq),
                Some(told),
                "what it is thought to know"
            );
        }
        Ok(())
    }

    fn shown(&mut self, frame: &Frame, log: &Log) {
        let frame: Value = serde_json::from_str(&frame.payload()).expect("JSON");
        let params = &frame["params"];
        let number = |value: &Value| value.as_u64().expect("a number");
        let now = Bounds::of(log);
        let position = self.position.as_mut().expect("subscribed");
        match frame["method"].as_str() {
            Some("event") => {
                let (seq, data) = (number(&params["seq"]), &params["event"]["data"]);
                assert_eq!(data["n"], seq, "{frame}");
                assert_eq!(
                    data["epoch"].to_string(),
                    position.epoch,
                    "an event of another epoch at {position:?}"
                );
                let left_out = (position.seq + 1..seq).find(|n| !self.filtered || n % 2 == 1);
                assert_eq!(left_out, None, "a hole, or a step back, from {position:?} to {seq}");
                assert!(seq > position.seq, "twice: {seq}");
                position.seq = seq;
            }
            Some("gap") => {
                let (from, to) = (number(&params["from"]), number(&params["to"]));
                match params["epoch"].as_str() {
                    Some(epoch) => {
                        assert_ne!(epoch, position.epoch);
                        position.epoch = epoch.to_owned();
                    }
                    None => assert!(to < now.floor, "{from} to {to} could be read: {now:?}"),
                }
                // A filtered reader knows less than its session.
                assert!(
                    from == position.seq + 1 || (self.filtered && from > position.seq),
                    "{frame} at {position:?}"
                );
                position.seq = to.max(position.seq);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// How the log is at one moment.
#[derive(Debug)]
struct Bounds {
    epoch: String,
    floor: u64,
    head: u64,
}

impl Bounds {
    fn of(log: &Log) -> Bounds {
        let state = lock(&log.state);
        Bounds { epoch: state.epoch().to_string(), floor: state.floor, head: state.head }
    }
}

async fn run(steps: Vec<Step>) {
    let log = Log::default();
    lock(&log.state).floor = 1;
    let hub = Arc::new(Hub::new(Arc::new(log.clone()), hub::Limits::default()));
    let mut clients = Vec::new();
    for number in 0..READERS {
        clients.push(Client::new(number == 1).await);
    }
    for step in steps {
        // A call that failed is what the client tries again later.
        let _ = match step {
            Step::Now(change) => {
                log.change(change);
                Ok(())
            }
            Step::Meanwhile(change) => {
                lock(&log.state).meanwhile.push_back(change);
                Ok(())
            }
            Step::Subscribe(reader, place) => clients[reader].subscribe(&hub, &log, place).await,
            Step::Pump(reader) => clients[reader].pump(&log).await,
            Step::Disconnect(reader) => {
                clients[reader].disconnect(&log);
                Ok(())
            }
            Step::Rest(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        };
    }
    // Then all is quiet, and everybody comes to know everything.
    for client in &mut clients {
        while client.session.is_none() {
            let _ = client.subscribe(&hub, &log, Place::Resume).await;
        }
    }
    while !lock(&log.state).meanwhile.is_empty() || lock(&log.state).fails > 0 {
        let _ = log.head(NODE_CHANNEL).await;
    }
    log.change(Change::Append(1));
    let end = Bounds::of(&log);
    for client in &mut clients {
        let mut turns = 0;
        while client
            .session
            .as_ref()
            .is_some_and(|session| session.seq < end.head || *session.epoch != *end.epoch)
        {
            let _ = client.pump(&log).await;
            // Others have their turns, and the pauses that they want: time stands still for no longer.
            tokio::time::sleep(Duration::from_millis(1)).await;
            turns += 1;
            assert!(turns < 10_000, "stays behind: {:?} of {end:?}", client.position);
        }
    }
    hub.close();
}

/// `PROPTEST_CASES`, or some.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_is_shown_every_event_once_in_order_or_told_the_range(steps in vec(step(), 1..120)) {
        // Nobody waits for a socket: the pauses of those who wait for the log need not take time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(run(steps));
    }
}
