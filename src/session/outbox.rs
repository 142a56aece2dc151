//! What waits to go out on a socket, and the one place that polls the socket in both directions.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures::{Sink, Stream};

use super::close::CloseCode;

/// A socket with the frames that wait for it.
pub(super) struct Outbox {
    socket: WebSocket,
    waiting: VecDeque<Message>,
    bytes: usize,
    /// The socket holds bytes that are not written yet.
    unflushed: bool,
}

/// What happened on the socket.
#[derive(Debug)]
pub(super) enum Io {
    /// A message came in.
    Message(Message),
    /// Everything that waited has been written.
    Drained,
    /// The peer broke a rule of WebSocket or a limit; it can still be told.
    Broken(axum::Error),
    /// The socket is gone.
    Gone,
}

impl Outbox {
    pub(super) fn new(socket: WebSocket) -> Outbox {
        Outbox { socket, waiting: VecDeque::new(), bytes: 0, unflushed: false }
    }

    pub(super) fn push(&mut self, text: impl Into<Utf8Bytes>) {
        let text = text.into();
        self.bytes += text.len();
        self.waiting.push_back(Message::Text(text));
    }

    pub(super) fn ping(&mut self) {
        self.waiting.push_back(Message::Ping(Default::default()));
    }

    pub(super) fn close(&mut self, code: CloseCode) {
        self.waiting
            .push_back(Message::Close(Some(CloseFrame { code: code.code, reason: code.name.into() })));
    }

    /// Nothing waits: there is room for events.
    pub(super) fn is_drained(&self) -> bool {
        self.waiting.is_empty() && !self.unflushed
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes what waits and waits for what comes, whichever is first. Safe to drop and call again.
    pub(super) async fn io(&mut self) -> Io {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Io> {
        match self.poll_write(cx) {
            Poll::Ready(Ok(true)) => return Poll::Ready(Io::Drained),
            Poll::Ready(Err(_)) => return Poll::Ready(Io::Gone),
            Poll::Ready(Ok(false)) | Poll::Pending => {}
        }
        match Pin::new(&mut self.socket).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => Poll::Ready(Io::Message(message)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Io::Broken(error)),
            Poll::Ready(None) => Poll::Ready(Io::Gone),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ready(true): something waited and is written now. Ready(false): nothing waited.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, axum::Error>> {
        while !self.waiting.is_empty() {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Poll::Pending,
            }
            let Some(message) = self.waiting.pop_front() else { break };
            if let Message::Text(text) = &message {
                self.bytes -= text.len();
            }
            self.unflushed = true;
            Pin::new(&mut self.socket).start_send(message)?;
        }
        if !self.unflushed {
            return Poll::Ready(Ok(false));
        }
        match Pin::new(&mut self.socket).poll_flush(cx) {
            Poll::Ready(flushed) => {
                flushed?;
                self.unflushed = false;
                Poll::Ready(Ok(true))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
