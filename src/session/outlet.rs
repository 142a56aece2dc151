//! What waits to go out on a session's socket: the one queue that answers, events, pings and goodbyes all go through.
//!
//! It is written with as few system calls as the socket allows, straight from the shared bytes of the frames.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use crate::connection::peer_is_there;
use crate::ops::Handover;
use crate::sync::lock;

/// Frames that go out with one system call.
const SLICES: usize = 64;
/// What a frame takes besides its bytes: a pong has two of them.
const FRAME: usize = 64;
/// An empty queue with room for more frames than this is given back.
const KEPT: usize = 16;

/// The way out: the socket, and what waits for it. Events may be written by whoever brings them.
pub(super) struct Outlet {
    stream: TcpStream,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that were pushed, ever.
    pushed: u64,
    /// Who is told when so many bytes have been written.
    leaving: VecDeque<(u64, Handover)>,
    /// Goodbye has been said: nothing follows it.
    shut: bool,
    /// The first of what waits has been written in part.
    is_begun: bool,
}

impl Outlet {
    pub(super) fn new(stream: TcpStream) -> Outlet {
        Outlet { stream, queue: Mutex::default() }
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.try_read(buffer)
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(cx)
    }

    pub(super) fn push(&self, bytes: Bytes) {
        lock(&self.queue).push(bytes);
    }

    pub(super) fn hand_over(&self, handover: Handover) {
        let mut queue = lock(&self.queue);
        let end = queue.pushed;
        queue.leaving.push_back((end, handover));
        tell(queue);
    }

    pub(super) fn is_drained(&self) -> bool {
        lock(&self.queue).waiting.is_empty()
    }

    /// Bytes of memory that what waits takes.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.queue).held()
    }

    /// Bytes of memory that what waits takes, and bytes that have been written, ever.
    pub(super) fn traffic(&self) -> (usize, u64) {
        let queue = lock(&self.queue);
        (queue.held(), queue.written_ever())
    }

    /// Nothing follows what waits.
    pub(super) fn shut(&self) {
        lock(&self.queue).shut = true;
    }

    /// Drops what waits, but for the rest of a frame that has been written in part: what is pushed from now on is next.
    pub(super) fn abandon(&self) {
        let mut queue = lock(&self.queue);
        let keep = usize::from(queue.is_begun);
        queue.waiting.truncate(keep);
        queue.bytes = queue.waiting.iter().map(Bytes::len).sum();
        let leaving = std::mem::take(&mut queue.leaving);
        drop(queue);
        drop(leaving);
    }

    /// Writes frames at once if nothing waits before them. `None`: something does, and they were not taken. False: some
    /// of it waits for the socket now.
    pub(super) fn send_now(&self, frames: impl IntoIterator<Item = Bytes>) -> Option<bool> {
        let mut queue = lock(&self.queue);
        if queue.shut || !queue.waiting.is_empty() {
            return None;
        }
        frames.into_iter().for_each(|frame| queue.push(frame));
        queue.write_now(&self.stream);
        let is_drained = queue.waiting.is_empty();
        tell(queue);
        Some(is_drained)
    }

    /// Writes what the socket takes at once. Errors are left for [`Outlet::poll_write`], which runs into them again.
    pub(super) fn write_now(&self) {
        let mut queue = lock(&self.queue);
        queue.write_now(&self.stream);
        tell(queue);
    }

    /// Writes until nothing waits.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = lock(&self.queue);
        let written = queue.poll_write(&self.stream, cx);
        tell(queue);
        written
    }
}

/// Tells those whose bytes have all been written, and not under the lock: they may take their time.
fn tell(mut queue: MutexGuard<'_, Queue>) {
    let handed = queue.take_handed();
    drop(queue);
    handed.into_iter().for_each(Handover::handed);
}

impl Queue {
    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.pushed += bytes.len() as u64;
        self.waiting.push_back(bytes);
    }

    fn held(&self) -> usize {
        self.bytes + FRAME * self.waiting.len()
    }

    fn written_ever(&self) -> u64 {
        self.pushed - self.bytes as u64
    }

    fn take_handed(&mut self) -> Vec<Handover> {
        let (written, mut handed) = (self.written_ever(), Vec::new());
        while let Some((_, handover)) = self.leaving.pop_front_if(|(end, _)| *end <= written) {
            handed.push(handover);
        }
        handed
    }

    fn write_now(&mut self, stream: &TcpStream) {
        while !self.waiting.is_empty()
            && let Ok(written @ 1..) = self.try_write(stream)
        {
            self.written(written);
        }
        self.give_back();
    }

    fn poll_write(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            match self.try_write(stream) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(written) => self.written(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(stream.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.give_back();
        Poll::Ready(Ok(()))
    }

    fn try_write(&self, stream: &TcpStream) -> io::Result<usize> {
        // What is handed out once is not written to nobody.
        if !self.leaving.is_empty() {
            peer_is_there(stream)?;
        }
        if let ([only], []) = self.waiting.as_slices() {
            return stream.try_write(only);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.waiting) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        stream.try_write_vectored(&slices[..count])
    }

    fn written(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(first) = self.waiting.front_mut() {
            if count < first.len() {
                self.is_begun |= count > 0;
                return first.advance(count);
            }
            self.is_begun = false;
            count -= first.len();
            self.waiting.pop_front();
        }
    }

    /// Gives back the room that a burst has taken.
    fn give_back(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT {
            self.waiting = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::*;

    fn hand_over(outlet: &Outlet) -> oneshot::Receiver<bool> {
        let (tell, told) = oneshot::channel();
        outlet.hand_over(Handover::new(move |handed| _ = tell.send(handed)));
        told
    }

    /// An answer behind more than the socket takes: it is handed over when it is written, and not before.
    #[tokio::test]
    async fn an_answer_is_handed_over_when_it_is_written() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let outlet = Outlet::new(listener.accept().await.unwrap().0);
        outlet.push(Bytes::from_static(b"one"));
        let mut one = hand_over(&outlet);
        assert!(one.try_recv().is_err());
        outlet.write_now();
        assert!(one.await.unwrap());

        outlet.push(vec![0; 64 << 20].into());
        outlet.push(Bytes::from_static(b"two"));
        let mut two = hand_over(&outlet);
        outlet.write_now();
        assert!(two.try_recv().is_err(), "the client has not read what is before it");
        drop(client);
        assert!(poll_fn(|cx| outlet.poll_write(cx)).await.is_err());
        drop(outlet);
        assert!(!two.await.unwrap());
    }

    /// A pong is two bytes, and takes many times that.
    #[tokio::test]
    async fn small_frames_count_as_what_they_take() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let outlet = Outlet::new(listener.accept().await.unwrap().0);
        (0..1000).for_each(|_| outlet.push(Bytes::from_static(b"\x8a\x00")));
        assert_eq!((outlet.bytes(), outlet.traffic()), (66_000, (66_000, 0)));
        outlet.write_now();
        assert_eq!((outlet.bytes(), outlet.traffic()), (0, (0, 2000)));
    }

    /// The client has gone, and the runtime has not said so yet.
    #[tokio::test]
    async fn an_answer_to_nobody_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let outlet = Outlet::new(listener.accept().await.unwrap().0);
        drop(client);
        outlet.push(Bytes::from_static(b"one"));
        let mut one = hand_over(&outlet);
        outlet.write_now();
        assert!(one.try_recv().is_err());
        assert!(poll_fn(|cx| outlet.poll_write(cx)).await.is_err());
        drop(outlet);
        assert!(!one.await.unwrap());
    }

    /// Of what waits for a peer that takes nothing, only the rest of what it has begun to take stays.
    #[tokio::test]
    async fn what_is_abandoned_is_dropped_frame_by_frame() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let outlet = Outlet::new(listener.accept().await.unwrap().0);
        outlet.push(vec![0; 64 << 20].into());
        outlet.push(Bytes::from_static(b"never"));
        let told = hand_over(&outlet);
        outlet.write_now();
        let (waiting, written) = outlet.traffic();
        assert!(written > 0 && waiting > 5);
        outlet.abandon();
        assert_eq!(outlet.bytes(), waiting - 5 - FRAME);
        assert!(!told.await.unwrap());
        outlet.push(Bytes::from_static(b"bye"));
        assert_eq!(lock(&outlet.queue).waiting.len(), 2);
    }
}
