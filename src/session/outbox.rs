//! What waits to go out on a socket, and the one place that polls the socket in both directions.
//!
//! tungstenite reads, and answers pings and closes; what it writes goes to the same queue as our frames. The queue is
//! written with as few system calls as the socket allows, straight from the shared bytes of the frames.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::error::Error as Broken;
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Utf8Bytes};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

use super::close::CloseCode;
use super::frame::Frame;
use super::limits;
use crate::connection::peer_is_there;
use crate::ops::Handover;
use crate::sync::lock;

/// Frames that go out with one system call.
const SLICES: usize = 64;
/// An empty queue with room for more frames than this is given back.
const KEPT: usize = 16;

/// A socket with the frames that wait for it.
pub(super) struct Outbox {
    socket: WebSocket<Pipe>,
    /// The closing handshake is over; what waits still goes out.
    ended: bool,
}

/// What happened on the socket.
#[derive(Debug)]
pub(super) enum Io {
    /// A text message came in.
    Text(Utf8Bytes),
    /// A binary message came in.
    Binary,
    /// Something else came in: the peer is there.
    Alive,
    /// Everything that waited has been written.
    Drained,
    /// The peer broke a rule of WebSocket or a limit; it can still be told.
    Broken(Broken),
    /// The socket is gone.
    Gone,
}

impl Outbox {
    /// `read`: what came in behind the request for the upgrade.
    pub(super) fn new(stream: TcpStream, read: Bytes) -> Outbox {
        let pipe = Pipe { outlet: Arc::new(Outlet::new(stream)) };
        // Small buffers: the defaults cost 128 KiB for every idle connection.
        let config = WebSocketConfig::default()
            .read_buffer_size(limits::READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(limits::MESSAGE))
            .max_frame_size(Some(limits::MESSAGE));
        let socket = WebSocket::from_partially_read(pipe, read.to_vec(), Role::Server, Some(config));
        Outbox { socket, ended: false }
    }

    pub(super) fn push(&mut self, frame: impl Into<Frame>) {
        self.outlet().push(frame.into().bytes());
    }

    /// Tells when everything that was pushed until now has been written, or that it was not.
    pub(super) fn hand_over(&mut self, handover: Handover) {
        lock(&self.outlet().queue).hand_over(handover);
    }

    pub(super) fn close(&mut self, code: CloseCode) {
        let frame = CloseFrame { code: code.code.into(), reason: code.name.into() };
        // Fails only if the closing handshake has begun already.
        _ = self.socket.close(Some(frame));
    }

    /// Nothing waits, and nobody has said goodbye.
    pub(super) fn takes_events(&self) -> bool {
        !self.ended && self.is_drained()
    }

    fn is_drained(&self) -> bool {
        self.outlet().is_drained()
    }

    /// The way out, for whoever brings events.
    pub(super) fn outlet(&self) -> &Arc<Outlet> {
        &self.socket.get_ref().outlet
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.outlet().bytes()
    }

    /// Writes what the socket takes at once. Errors are left for [`Outbox::io`], which runs into them again.
    pub(super) fn write_now(&mut self) {
        self.outlet().write_now();
    }

    /// Writes what waits and waits for what comes, whichever is first. Safe to drop and call again.
    pub(super) async fn io(&mut self) -> Io {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Io> {
        loop {
            let waited = !self.is_drained();
            match self.outlet().poll_write(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Io::Gone),
                Poll::Ready(Ok(())) if self.ended => return Poll::Ready(Io::Gone),
                Poll::Ready(Ok(())) if waited => return Poll::Ready(Io::Drained),
                Poll::Pending if self.ended => return Poll::Pending,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            let unwritten = self.bytes();
            match self.socket.read() {
                Ok(Message::Text(text)) => return Poll::Ready(Io::Text(text)),
                Ok(Message::Binary(_)) => return Poll::Ready(Io::Binary),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                    return Poll::Ready(Io::Alive);
                }
                Err(Broken::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    if unwritten == 0 && !self.is_drained() {
                        // The answer to a ping or a close.
                        continue;
                    }
                    match self.outlet().stream.poll_read_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(Io::Gone),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Err(Broken::ConnectionClosed | Broken::AlreadyClosed) => {
                    self.ended = true;
                    self.outlet().shut();
                }
                Err(Broken::Io(_)) => return Poll::Ready(Io::Gone),
                Err(broken) => return Poll::Ready(Io::Broken(broken)),
            }
        }
    }
}

/// The connection as tungstenite sees it: reads come from the socket, writes go to the queue.
struct Pipe {
    outlet: Arc<Outlet>,
}

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
}

impl Outlet {
    pub(super) fn new(stream: TcpStream) -> Outlet {
        Outlet { stream, queue: Mutex::default() }
    }

    fn push(&self, bytes: Bytes) {
        lock(&self.queue).push(bytes);
    }

    fn is_drained(&self) -> bool {
        lock(&self.queue).waiting.is_empty()
    }

    fn bytes(&self) -> usize {
        lock(&self.queue).bytes
    }

    fn shut(&self) {
        lock(&self.queue).shut = true;
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
        Some(queue.waiting.is_empty())
    }

    fn write_now(&self) {
        lock(&self.queue).write_now(&self.stream);
    }

    /// Writes until nothing waits.
    fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = lock(&self.queue);
        while !queue.waiting.is_empty() {
            match queue.try_write(&self.stream) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(written) => queue.written(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    match self.stream.poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        queue.give_back();
        Poll::Ready(Ok(()))
    }
}

impl Queue {
    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.pushed += bytes.len() as u64;
        self.waiting.push_back(bytes);
    }

    fn hand_over(&mut self, handover: Handover) {
        self.leaving.push_back((self.pushed, handover));
        self.handed();
    }

    /// Tells those whose bytes have all been written.
    fn handed(&mut self) {
        let written = self.pushed - self.bytes as u64;
        while let Some((_, handover)) = self.leaving.pop_front_if(|(end, _)| *end <= written) {
            handover.handed();
        }
    }

    /// Writes what the socket takes at once. Errors are left for [`Outbox::io`], which runs into them again.
    fn write_now(&mut self, stream: &TcpStream) {
        while !self.waiting.is_empty()
            && let Ok(written @ 1..) = self.try_write(stream)
        {
            self.written(written);
        }
        self.give_back();
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
        self.handed();
        while let Some(first) = self.waiting.front_mut() {
            if count < first.len() {
                return first.advance(count);
            }
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

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.outlet.stream.try_read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outlet.push(Bytes::copy_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::*;

    fn hand_over(outlet: &Outlet) -> oneshot::Receiver<bool> {
        let (tell, told) = oneshot::channel();
        lock(&outlet.queue).hand_over(Handover::new(move |handed| _ = tell.send(handed)));
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
}
