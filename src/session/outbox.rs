//! The one place that polls a session's socket in both directions, and how much of it is done at once.
//!
//! tungstenite reads, and answers pings and closes; what it writes goes to the same queue as our frames ([`Outlet`]).
//! Nothing is read while too much waits to go out, so a client that does not read is not answered either; and after so
//! many messages or bytes others have their turn, however fast they come.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as Broken, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Utf8Bytes};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

use super::close::CloseCode;
use super::frame::Frame;
use super::inbound::Inbound;
use super::limits;
use super::outlet::Outlet;
use super::timers::Traffic;
use crate::ops::Handover;

const TOO_MANY_FRAGMENTS: Broken = Broken::Capacity(CapacityError::MessageTooLong {
    size: usize::MAX,
    max_size: limits::FRAGMENTS as usize,
});

/// A socket with the frames that wait for it.
pub(super) struct Outbox {
    socket: WebSocket<Pipe>,
    /// The closing handshake is over; what waits still goes out.
    ended: bool,
    /// Messages that may be read before others have their turn.
    messages: u8,
    /// A message has begun, and that has been told.
    is_partial: bool,
    /// Bytes that may wait before nothing is read.
    most_waiting: usize,
    /// A rule was broken: what comes is no message any more. (tungstenite must not be asked to read on: its buffer has no
    /// room for a frame that it has refused.)
    broken: bool,
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
    /// A message has begun to come in.
    Begun,
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
        let mut inbound = Inbound::default();
        inbound.came(&read);
        let pipe = Pipe { outlet: Arc::new(Outlet::new(stream)), inbound, allowance: limits::TURN_BYTES };
        // Small buffers: the defaults cost 128 KiB for every idle connection.
        let config = WebSocketConfig::default()
            .read_buffer_size(limits::READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(limits::MESSAGE_BEFORE_HELLO))
            .max_frame_size(Some(limits::MESSAGE_BEFORE_HELLO));
        let socket = WebSocket::from_partially_read(pipe, read.to_vec(), Role::Server, Some(config));
        Outbox {
            socket,
            ended: false,
            messages: limits::TURN_MESSAGES,
            is_partial: false,
            most_waiting: limits::OUTGOING_OF_ALL,
            broken: false,
        }
    }

    /// From now on messages have at most so many bytes.
    pub(super) fn limit_messages(&mut self, bytes: usize) {
        self.socket.set_config(|config| {
            (config.max_message_size, config.max_frame_size) = (Some(bytes), Some(bytes));
        });
    }

    /// From now on at most so many bytes wait for the socket before nothing is read.
    pub(super) fn limit_waiting(&mut self, bytes: usize) {
        self.most_waiting = bytes;
    }

    pub(super) fn push(&mut self, frame: impl Into<Frame>) {
        self.outlet().push(frame.into().bytes());
    }

    /// Tells when everything that was pushed until now has been written, or that it was not.
    pub(super) fn hand_over(&mut self, handover: Handover) {
        self.outlet().hand_over(handover);
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

    /// Whether so much waits that nothing is read, and no further request finished.
    pub(super) fn is_full(&self) -> bool {
        self.outlet().bytes() >= self.most_waiting
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.outlet().bytes()
    }

    /// Bytes that are there of a message that comes in.
    pub(super) fn incoming(&self) -> usize {
        self.socket.get_ref().inbound.held()
    }

    /// What is under way. `reads`: whether the session takes what comes in.
    pub(super) fn traffic(&self, reads: bool, greets: bool) -> Traffic {
        let inbound = &self.socket.get_ref().inbound;
        let (waiting, written) = self.outlet().traffic();
        Traffic {
            waits: waiting > 0,
            written,
            reads: reads && waiting < self.most_waiting,
            greets,
            is_partial: inbound.is_partial(),
            arrived: inbound.of_messages(),
        }
    }

    /// Writes what the socket takes at once. Errors are left for [`Outbox::io`], which runs into them again.
    pub(super) fn write_now(&mut self) {
        self.outlet().write_now();
    }

    /// Writes what waits and, if it `reads`, waits for what comes, whichever is first. Safe to drop and call again.
    pub(super) async fn io(&mut self, reads: bool) -> Io {
        poll_fn(|cx| self.poll(cx, reads)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, reads: bool) -> Poll<Io> {
        loop {
            let waited = !self.is_drained();
            match self.outlet().poll_write(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Io::Gone),
                Poll::Ready(Ok(())) if self.ended => return Poll::Ready(Io::Gone),
                Poll::Ready(Ok(())) if waited => return Poll::Ready(Io::Drained),
                Poll::Pending if self.ended => return Poll::Pending,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            // When there is room again this is polled once more: what waits has been written.
            if !reads || self.is_full() {
                return Poll::Pending;
            }
            if self.messages == 0 {
                return self.give_way(cx);
            }
            if self.broken {
                return self.throw_away(cx);
            }
            let unwritten = self.bytes();
            let read = self.socket.read();
            if self.socket.get_ref().inbound.fragments() > limits::FRAGMENTS {
                return Poll::Ready(self.breaks(TOO_MANY_FRAGMENTS));
            }
            match read {
                Ok(message) => {
                    self.messages -= 1;
                    return Poll::Ready(match message {
                        Message::Text(text) => Io::Text(text),
                        Message::Binary(_) => Io::Binary,
                        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                            Io::Alive
                        }
                    });
                }
                Err(Broken::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    if unwritten == 0 && !self.is_drained() {
                        // The answer to a ping or a close.
                        continue;
                    }
                    if self.socket.get_ref().allowance == 0 {
                        return self.give_way(cx);
                    }
                    match self.outlet().poll_read_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(Io::Gone),
                        Poll::Pending => {
                            self.begin_turn();
                            let is_partial = self.socket.get_ref().inbound.is_partial();
                            let begins = is_partial && !self.is_partial;
                            self.is_partial = is_partial;
                            return if begins { Poll::Ready(Io::Begun) } else { Poll::Pending };
                        }
                    }
                }
                Err(Broken::ConnectionClosed | Broken::AlreadyClosed) => {
                    self.ended = true;
                    self.outlet().shut();
                }
                Err(Broken::Io(_) | Broken::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                    return Poll::Ready(Io::Gone);
                }
                Err(broken) => return Poll::Ready(self.breaks(broken)),
            }
        }
    }

    fn breaks(&mut self, rule: Broken) -> Io {
        self.broken = true;
        Io::Broken(rule)
    }

    /// Takes what still comes, until the peer has gone: a socket that is closed with bytes in it is reset, and the peer would
    /// not hear why.
    fn throw_away(&mut self, cx: &mut Context<'_>) -> Poll<Io> {
        let mut bytes = [0; 4 << 10];
        loop {
            let pipe = self.socket.get_mut();
            if pipe.allowance == 0 {
                return self.give_way(cx);
            }
            match pipe.outlet.try_read(&mut bytes) {
                Ok(0) => return Poll::Ready(Io::Gone),
                Ok(count) => pipe.allowance = pipe.allowance.saturating_sub(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    match pipe.outlet.poll_read_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(Io::Gone),
                        Poll::Pending => {
                            self.begin_turn();
                            return Poll::Pending;
                        }
                    }
                }
                Err(_) => return Poll::Ready(Io::Gone),
            }
        }
    }

    /// Others first; then it goes on.
    fn give_way<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.begin_turn();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn begin_turn(&mut self) {
        self.messages = limits::TURN_MESSAGES;
        self.socket.get_mut().allowance = limits::TURN_BYTES;
    }
}

/// The connection as tungstenite sees it: reads come from the socket, writes go to the queue.
struct Pipe {
    outlet: Arc<Outlet>,
    inbound: Inbound,
    /// Bytes that may be read before others have their turn.
    allowance: usize,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.allowance == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = self.outlet.try_read(buffer)?;
        self.allowance = self.allowance.saturating_sub(read);
        self.inbound.came(&buffer[..read]);
        Ok(read)
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
    use std::io::{Read as _, Write as _};

    use tokio::net::TcpListener;

    use super::*;
    use crate::session::close;

    /// Of a frame that was refused more comes than there is room for.
    #[tokio::test]
    async fn what_comes_behind_a_refusal_is_thrown_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut outbox = Outbox::new(listener.accept().await.unwrap().0, Bytes::new());
        let length = 70_000_u64;
        client.write_all(&[[0x81, 0xff].as_slice(), &length.to_be_bytes(), &[0; 4]].concat()).unwrap();
        client.write_all(&[b'x'; 20_000]).unwrap();
        assert!(matches!(outbox.io(true).await, Io::Broken(_)));
        outbox.close(close::TOO_LARGE);
        let farewell = async { while !matches!(outbox.io(true).await, Io::Gone) {} };
        let peer = tokio::task::spawn_blocking(move || {
            let mut said = [0; 4];
            client.read_exact(&mut said).unwrap();
            client.write_all(&[b'x'; 50_000]).unwrap();
            said
        });
        let (said, ()) = tokio::join!(peer, farewell);
        assert_eq!(said.unwrap(), [0x88, 11, 0x11, 0x3d], "4413");
    }
}
