//! Thousands of subscribers in one thread: it reads what comes into one buffer and looks for nothing but numbers, so that
//! it takes as little as possible from the machine that it shares with the server.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use tokio::sync::watch;

use super::adapter::{Adapter, Seen};
use super::board::{Board, Faults, Reader, histogram};
use super::frame;
use super::link::{Framing, Link, closed};
use super::mark::Clock;

const WAKE: Token = Token(usize::MAX);
/// How long the thread sleeps at most.
const NAP: Duration = Duration::from_millis(100);
/// The shared buffer.
const BUFFER: usize = 256 << 10;

/// The thread with its subscribers.
pub(super) struct Receivers {
    new: mpsc::Sender<Subscriber>,
    waker: Waker,
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Received>>,
}

/// What the thread tells while it runs.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    /// The number of events that ends the run.
    events: AtomicU64,
    joined: AtomicU64,
    /// Events that were received, by everybody together.
    deliveries: AtomicU64,
    /// Events that everybody has.
    complete: watch::Sender<u64>,
}

impl Shared {
    /// Events that were received, by everybody together.
    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// Events that everybody has.
    pub(super) fn complete(&self) -> watch::Receiver<u64> {
        self.complete.subscribe()
    }

    /// Waits until so many events were received, by everybody together; gives up if none comes for so long.
    pub(super) async fn all_delivered(&self, deliveries: u64, patience: Duration) {
        let (mut before, mut since) = (0, Instant::now());
        while before < deliveries && since.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = self.deliveries();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }

    /// Waits until everybody has `events`. False if nobody received anything for so long.
    pub(super) async fn all_have(&self, events: u64, patience: Duration) -> bool {
        let mut complete = self.complete();
        loop {
            let before = self.deliveries();
            match tokio::time::timeout(patience, complete.wait_for(|complete| *complete >= events)).await {
                Ok(reached) => return reached.is_ok(),
                Err(_) if self.deliveries() == before => return false,
                Err(_) => {}
            }
        }
    }
}

/// What came of a run.
pub(super) struct Received {
    /// From when an event should have been sent until a subscriber had it.
    pub(super) delivery: Histogram<u64>,
    /// Until the last subscriber had it.
    pub(super) last: Histogram<u64>,
    /// From subscribing until a subscriber had [`Receivers::expect`]ed events.
    pub(super) caught_up: Histogram<u64>,
    pub(super) deliveries: u64,
    /// Bytes of messages, without their framing.
    pub(super) bytes: u64,
    pub(super) faults: Faults,
}

struct Subscriber {
    link: Link,
    reader: Reader,
    /// When it subscribed.
    since: u64,
    /// How many events it is to catch up with, of which it is told when.
    wants: u64,
}

impl Receivers {
    /// Starts the thread. `lanes` and `timed_from` as [`Board::new`] has them.
    pub(super) fn start(
        adapter: Arc<dyn Adapter>,
        clock: Clock,
        lanes: u64,
        timed_from: u64,
    ) -> Result<Receivers> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let (new, arriving) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let mut work = Work {
            adapter,
            clock,
            board: Board::new(lanes, timed_from)?,
            caught_up: histogram()?,
            bytes: 0,
            hint: 0,
            readers: Vec::new(),
        };
        let told = shared.clone();
        let thread = std::thread::Builder::new()
            .name("receivers".to_owned())
            .spawn(move || work.run(poll, &arriving, &told))?;
        Ok(Receivers { new, waker, shared, thread })
    }

    /// What the thread tells while it runs.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Hands over a subscribed connection.
    pub(super) fn add(&self, link: Link, reader: Reader) -> Result<()> {
        self.expect(link, reader, 0, 0)
    }

    /// As [`Receivers::add`], for one that subscribed at `since` and has so many events to catch up with.
    pub(super) fn expect(&self, link: Link, reader: Reader, since: u64, wants: u64) -> Result<()> {
        let subscriber = Subscriber { link, reader, since, wants };
        self.new.send(subscriber).map_err(|_| anyhow!("the receivers have ended"))?;
        Ok(self.waker.wake()?)
    }

    /// How many the thread has taken over.
    pub(super) fn joined(&self) -> u64 {
        self.shared.joined.load(Ordering::Acquire)
    }

    /// Waits until it has taken over so many.
    pub(super) async fn until_joined(&self, count: u64) -> Result<()> {
        while self.joined() < count {
            if self.thread.is_finished() {
                bail!("the receivers have ended");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Ends the run, after which everybody should have had `events` events; looks a moment longer whether any come twice.
    pub(super) async fn finish(self, events: u64) -> Result<Received> {
        tokio::time::sleep(Duration::from_millis(150)).await;
        self.shared.events.store(events, Ordering::Release);
        self.shared.stop.store(true, Ordering::Release);
        self.waker.wake()?;
        let ended = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        ended.map_err(|_| anyhow!("the receivers ended in a panic"))?
    }
}

/// A subscriber's connection.
struct Socket {
    stream: TcpStream,
    framing: Framing,
    /// The beginning of a frame.
    rest: Vec<u8>,
    /// The beginning of a message that goes over several frames.
    inner: Vec<u8>,
    since: u64,
    wants: u64,
    open: bool,
}

struct Work {
    adapter: Arc<dyn Adapter>,
    clock: Clock,
    board: Board,
    caught_up: Histogram<u64>,
    bytes: u64,
    hint: usize,
    readers: Vec<Reader>,
}

impl Work {
    fn run(
        &mut self,
        mut poll: Poll,
        arriving: &mpsc::Receiver<Subscriber>,
        shared: &Shared,
    ) -> Result<Received> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER];
        let mut sockets: Vec<Socket> = Vec::new();
        loop {
            match poll.poll(&mut events, Some(NAP)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                let at = event.token().0;
                if let Some(socket) = sockets.get_mut(at).filter(|socket| socket.open) {
                    self.read(at, socket, event.is_read_closed(), &mut buffer, &poll);
                }
            }
            while let Ok(subscriber) = arriving.try_recv() {
                let token = sockets.len();
                let (stream, framing, rest) = subscriber.link.into_parts()?;
                let mut stream = TcpStream::from_std(stream);
                poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
                let (since, wants) = (subscriber.since, subscriber.wants);
                let mut socket =
                    Socket { stream, framing, rest: Vec::new(), inner: Vec::new(), since, wants, open: true };
                self.board.join(subscriber.reader);
                self.readers.push(subscriber.reader);
                shared.joined.store(sockets.len() as u64 + 1, Ordering::Release);
                if let Err(error) = self.take(token, &mut socket, &rest) {
                    self.end(&mut socket, &poll, &error.to_string());
                }
                sockets.push(socket);
            }
            shared.deliveries.store(self.board.deliveries, Ordering::Relaxed);
            let complete = self.board.complete;
            shared.complete.send_if_modified(|told| std::mem::replace(told, complete) != complete);
            if shared.stop.load(Ordering::Acquire) {
                return Ok(self.result(shared.events.load(Ordering::Acquire)));
            }
        }
    }

    fn result(&mut self, events: u64) -> Received {
        self.board.judge(&self.readers, events);
        Received {
            delivery: self.board.delivery.clone(),
            last: self.board.last.clone(),
            caught_up: self.caught_up.clone(),
            deliveries: self.board.deliveries,
            bytes: self.bytes,
            faults: self.board.faults.clone(),
        }
    }

    /// Reads until nothing more is there, or to its end if the server `ended` the connection.
    fn read(&mut self, at: usize, socket: &mut Socket, ended: bool, buffer: &mut [u8], poll: &Poll) {
        loop {
            let read = match socket.stream.read(buffer) {
                Ok(0) => return self.end(socket, poll, "the server has closed the connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.end(socket, poll, &error.to_string()),
            };
            if let Err(error) = self.take(at, socket, &buffer[..read]) {
                return self.end(socket, poll, &error.to_string());
            }
            // Less than there was room for: that was all (epoll(7)), and more wakes us again. Not so the end of a
            // connection that has been told of together with its last bytes.
            if read < buffer.len() && !ended {
                return;
            }
        }
    }

    fn end(&mut self, socket: &mut Socket, poll: &Poll, why: &str) {
        socket.open = false;
        // Fails only if it never was there.
        let _ = poll.registry().deregister(&mut socket.stream);
        self.board.faults.cut += 1;
        self.board.faults.say(|| why.to_owned());
    }

    /// Looks through bytes that came in.
    fn take(&mut self, at: usize, socket: &mut Socket, bytes: &[u8]) -> Result<()> {
        let now = self.clock.now();
        if socket.rest.is_empty() {
            let used = self.frames(at, socket, bytes, now)?;
            socket.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut rest = std::mem::take(&mut socket.rest);
        rest.extend_from_slice(bytes);
        let used = self.frames(at, socket, &rest, now)?;
        // What is left begins a frame; a large one needs no room once it is through.
        socket.rest = rest[used..].to_vec();
        Ok(())
    }

    fn frames(&mut self, at: usize, socket: &mut Socket, bytes: &[u8], now: u64) -> Result<usize> {
        if socket.framing == Framing::Bare {
            return self.messages(at, socket, bytes, now);
        }
        let mut used = 0;
        while let Some(frame) = frame::first(&bytes[used..])? {
            used += frame.size;
            match frame.opcode {
                frame::TEXT | frame::BINARY if socket.inner.is_empty() => {
                    let done = self.messages(at, socket, frame.payload, now)?;
                    socket.inner.extend_from_slice(&frame.payload[done..]);
                }
                frame::TEXT | frame::BINARY => {
                    let mut inner = std::mem::take(&mut socket.inner);
                    inner.extend_from_slice(frame.payload);
                    let done = self.messages(at, socket, &inner, now)?;
                    inner.drain(..done);
                    socket.inner = inner;
                }
                frame::PING => answer(socket, frame::PONG, frame.payload)?,
                frame::CLOSE => bail!(closed(frame.payload)),
                _ => {}
            }
        }
        Ok(used)
    }

    fn messages(&mut self, at: usize, socket: &mut Socket, bytes: &[u8], now: u64) -> Result<usize> {
        let Work { adapter, board, caught_up, hint, readers, .. } = self;
        let reader = &mut readers[at];
        let mut question = None;
        let used = adapter.read(bytes, hint, &mut |seen| match seen {
            Seen::Event { seq, mark } => {
                board.saw(reader, seq, mark, now);
                if socket.wants > 0 && reader.seen() == socket.wants {
                    caught_up.saturating_record(now.saturating_sub(socket.since));
                }
            }
            Seen::Ask(text) => question = Some(text),
            Seen::Trouble(text) => {
                board.faults.refused += 1;
                board.faults.say(|| String::from_utf8_lossy(text).into_owned());
            }
            Seen::Taken | Seen::Other => {}
        })?;
        self.bytes += used as u64;
        if let Some(text) = question {
            let opcode = if let Framing::WebSocket(opcode) = socket.framing { opcode } else { frame::TEXT };
            answer(socket, opcode, text)?;
        }
        Ok(used)
    }
}

/// A few bytes, which fit into the socket's buffer unless the server has stopped reading.
fn answer(socket: &mut Socket, opcode: u8, text: &[u8]) -> Result<()> {
    let mut out = Vec::with_capacity(16);
    match socket.framing {
        Framing::WebSocket(_) => frame::put(&mut out, opcode, text),
        Framing::Bare => out.extend_from_slice(text),
    }
    Ok(socket.stream.write_all(&out)?)
}
