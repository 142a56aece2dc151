//! A client's connection below HTTP, for answers whose sender wants to know whether they were sent.
//!
//! hyper takes the body of an answer before the socket has it, and learns that the client has gone when the runtime gets
//! round to saying so. What is handed out once needs more: before it is written the socket itself is asked whether the
//! client is there, and it counts as handed over when all of it has been written.

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::ops::Handover;
use crate::sync::lock;

/// A connection, as hyper reads and writes it.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Told when what hyper has taken is written. Most often one at most, but requests may be pipelined.
    leaving: Arc<Mutex<Vec<Handover>>>,
}

/// Where answers on a connection put whom they tell of it. A request has it among its extensions.
#[derive(Clone, Debug)]
pub(crate) struct Exit(Weak<Mutex<Vec<Handover>>>);

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Connection {
        Connection { stream, leaving: Arc::default() }
    }

    pub(crate) fn exit(&self) -> Exit {
        Exit(Arc::downgrade(&self.leaving))
    }

    /// The socket, of a connection that has become a WebSocket.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// An error if something is to be handed over and nobody is there to take it.
    fn look(&self) -> io::Result<()> {
        if lock(&self.leaving).is_empty() { Ok(()) } else { peer_is_there(&self.stream) }
    }
}

impl Exit {
    /// The end of this answer has been taken by its connection.
    pub(crate) fn leave(&self, handover: Handover) {
        if let Some(leaving) = self.0.upgrade() {
            lock(&leaving).push(handover);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.look()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.look()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all that it had taken.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // Not under the lock: whoever is told may take its time.
        let leaving = std::mem::take(&mut *lock(&self.leaving));
        leaving.into_iter().for_each(Handover::handed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An error if the peer has closed or reset the connection. The runtime knows it, too, but perhaps later.
pub(crate) fn peer_is_there(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]) {
        Ok(0) => Err(ErrorKind::ConnectionAborted.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::*;

    /// A connection and its client, of which the runtime is told nothing as long as no test waits for it.
    async fn connected() -> (Connection, net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (Connection::new(stream), client)
    }

    fn leave(connection: &Connection) -> oneshot::Receiver<bool> {
        let (tell, told) = oneshot::channel();
        connection.exit().leave(Handover::new(move |handed| _ = tell.send(handed)));
        told
    }

    #[tokio::test]
    async fn an_answer_is_handed_over_when_it_is_written() {
        let (mut connection, _client) = connected().await;
        let (mut one, two) = (leave(&connection), leave(&connection));
        connection.write_all(b"one, two").await.unwrap();
        assert!(one.try_recv().is_err(), "hyper may have taken more");
        connection.flush().await.unwrap();
        assert!(one.await.unwrap() && two.await.unwrap());
    }

    #[tokio::test]
    async fn it_is_not_when_the_client_has_gone() {
        for reset in [false, true] {
            let (mut connection, client) = connected().await;
            if reset {
                SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
            drop(client);
            let told = leave(&connection);
            assert!(connection.write_all(b"one").await.is_err(), "{reset}");
            drop(connection);
            assert!(!told.await.unwrap(), "{reset}");
        }
    }

    #[tokio::test]
    async fn nor_when_the_connection_ends_before_or_behind_it() {
        let (connection, _client) = connected().await;
        let (exit, told) = (connection.exit(), leave(&connection));
        drop(connection);
        assert!(!told.await.unwrap());
        let (tell, told) = oneshot::channel();
        exit.leave(Handover::new(move |handed| _ = tell.send(handed)));
        assert!(!told.await.unwrap());
    }
}
