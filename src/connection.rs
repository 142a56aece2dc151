//! A client's connection below HTTP: whose it is, whether its bytes move, and whether answers were sent.
//!
//! hyper takes the body of an answer before the socket has it, and learns that the client has gone when the runtime gets
//! round to saying so. What is handed out once needs more: before it is written the socket itself is asked whether the
//! client is there, and it counts as handed over when all of it has been written.
//!
//! Whatever is written, by REST, feeds or server-sent events, has to leave at the [`Pace`] that the settings say; a
//! connection on which it does not ends. (Sessions write for themselves, and keep to the same.)

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::error::Result;
use crate::ops::Handover;
use crate::quota::{Holder, Pace, Place, Progress};
use crate::sync::lock;

/// Bytes that the kernel takes before it has sent those it has: so much at most stands before a ping.
const UNSENT: u32 = 128 << 10;
/// How long the peer may acknowledge nothing of what was sent, in times of what bytes may stand still.
const VANISHED: f64 = 1.25;

/// A connection, as hyper reads and writes it.
pub(crate) struct Connection {
    stream: TcpStream,
    shared: Arc<Shared>,
    pace: Pace,
    /// What waits for the socket, if something does.
    outgoing: Option<Outgoing>,
}

struct Outgoing {
    progress: Progress,
    look: Pin<Box<Sleep>>,
}

/// What those who answer on the connection share with it.
struct Shared {
    /// Told when what hyper has taken is written. Most often one at most, but requests may be pipelined.
    leaving: Mutex<Vec<Handover>>,
    /// Among all connections; gone when a session has taken it over.
    place: Mutex<Option<Place>>,
    /// Requests that have come whole and are worked on.
    working: AtomicUsize,
    /// Answers in pieces that have not ended.
    answering: AtomicUsize,
    /// Bytes that were written, ever.
    written: AtomicU64,
}

/// The connection that a request came on. A request has it among its extensions.
#[derive(Clone, Debug)]
pub(crate) struct Link(Weak<Shared>);

impl Connection {
    /// Of a client that was just accepted.
    pub(crate) fn new(stream: TcpStream, place: Place, pace: Pace) -> Connection {
        // Events are small and must not wait for more; these fail only for a connection that has ended.
        _ = stream.set_nodelay(true);
        let socket = SockRef::from(&stream);
        _ = socket.set_tcp_notsent_lowat(UNSENT);
        // What the kernel has taken has left for us; by itself it tries for a quarter of an hour to bring it to somebody who
        // has vanished. Ours, which says why, comes first.
        _ = socket.set_tcp_user_timeout(Some(pace.patience.mul_f64(VANISHED)));
        let shared = Shared {
            leaving: Mutex::default(),
            place: Mutex::new(Some(place)),
            working: AtomicUsize::new(0),
            answering: AtomicUsize::new(0),
            written: AtomicU64::new(0),
        };
        Connection { stream, shared: Arc::new(shared), pace, outgoing: None }
    }

    pub(crate) fn link(&self) -> Link {
        Link(Arc::downgrade(&self.shared))
    }

    /// The socket, of a connection that has become a WebSocket, and its place among all.
    pub(crate) fn into_parts(self) -> (TcpStream, Option<Place>) {
        let place = lock(&self.shared.place).take();
        (self.stream, place)
    }

    /// An error if something is to be handed over and nobody is there to take it.
    fn look(&self) -> io::Result<()> {
        if lock(&self.shared.leaving).is_empty() { Ok(()) } else { peer_is_there(&self.stream) }
    }

    /// What came of a write: an error if what waits has stood still for too long.
    fn paced(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(wrote) = wrote {
            if let Ok(bytes) = &wrote {
                self.shared.written.fetch_add(*bytes as u64, Ordering::Relaxed);
            }
            return Poll::Ready(wrote);
        }
        let (written, pace) = (self.shared.written.load(Ordering::Relaxed), self.pace);
        let outgoing = self.outgoing.get_or_insert_with(|| Outgoing {
            progress: Progress::begin(written, Instant::now()),
            look: Box::pin(tokio::time::sleep(pace.look_after())),
        });
        while outgoing.look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if outgoing.progress.is_stuck(&pace, written, now) {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            outgoing.look.as_mut().reset(now + pace.look_after());
        }
        Poll::Pending
    }
}

impl Link {
    /// The end of this answer has been taken by its connection.
    pub(crate) fn leave(&self, handover: Handover) {
        if let Some(shared) = self.0.upgrade() {
            lock(&shared.leaving).push(handover);
        }
    }

    /// Whoever is connected has said who they are: the connection counts for them from now on. 429 if it may not stay.
    pub(crate) fn belongs_to(&self, holder: Holder) -> Result<()> {
        let Some(shared) = self.0.upgrade() else { return Ok(()) };
        lock(&shared.place).as_mut().map_or(Ok(()), |place| place.pass_to(holder))
    }

    /// Whether the connection has to say soon whose it is.
    pub(crate) fn is_on_probation(&self) -> bool {
        let shared = self.0.upgrade();
        shared.is_some_and(|shared| lock(&shared.place).as_ref().is_some_and(Place::is_on_probation))
    }

    /// A request has come whole: it is worked on until this is dropped.
    pub(crate) fn work(&self) -> Work {
        Work::begin(&self.0, |shared| &shared.working)
    }

    /// An answer in pieces has begun: more of it comes until this is dropped.
    pub(crate) fn answer(&self) -> Work {
        Work::begin(&self.0, |shared| &shared.answering)
    }

    /// Whether something whole is worked on.
    pub(crate) fn works(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.working.load(Ordering::Relaxed) > 0)
    }

    /// Returns when nothing whole is worked on any more, whatever of answers has not been written.
    pub(crate) async fn is_done(&self, every: Duration) {
        while self.works() {
            tokio::time::sleep(every).await;
        }
    }

    /// Returns when nothing whole is worked on or written any more, which is looked at every so often.
    pub(crate) async fn rests(&self, every: Duration) {
        let mut before = None;
        while let Some(shared) = self.0.upgrade() {
            let written = shared.written.load(Ordering::Relaxed);
            let under_way = [&shared.working, &shared.answering].map(|count| count.load(Ordering::Relaxed));
            if before == Some(written) && under_way == [0, 0] {
                return;
            }
            before = Some(written);
            drop(shared);
            tokio::time::sleep(every).await;
        }
    }
}

/// A request that is worked on, or an answer that goes out in pieces.
pub(crate) struct Work {
    shared: Weak<Shared>,
    among: fn(&Shared) -> &AtomicUsize,
}

impl Work {
    fn begin(shared: &Weak<Shared>, among: fn(&Shared) -> &AtomicUsize) -> Work {
        if let Some(shared) = shared.upgrade() {
            among(&shared).fetch_add(1, Ordering::Relaxed);
        }
        Work { shared: shared.clone(), among }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            (self.among)(&shared).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Work")
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
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.paced(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.look()?;
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.paced(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all that it had taken.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.outgoing = None;
        // Not under the lock: whoever is told may take its time.
        let leaving = std::mem::take(&mut *lock(&self.shared.leaving));
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
    use crate::error::Kind;
    use crate::quota::{Binding, Limits, Pool};

    const PACE: Pace = Pace { patience: Duration::from_millis(300), bytes_per_second: 1 << 20 };

    fn place() -> Place {
        let (binding, full) = (Binding::UnderPressure, Kind::TooMany);
        let limits = Limits { server: 1, user: 1, address: 1, binding, full };
        Pool::new("connections", limits).take_on_probation(Holder::Address(1)).unwrap()
    }

    /// A connection and its client, of which the runtime is told nothing as long as no test waits for it.
    async fn connected() -> (Connection, net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (Connection::new(stream, place(), PACE), client)
    }

    fn leave(connection: &Connection) -> oneshot::Receiver<bool> {
        let (tell, told) = oneshot::channel();
        connection.link().leave(Handover::new(move |handed| _ = tell.send(handed)));
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
        let (link, told) = (connection.link(), leave(&connection));
        drop(connection);
        assert!(!told.await.unwrap());
        let (tell, told) = oneshot::channel();
        link.leave(Handover::new(move |handed| _ = tell.send(handed)));
        assert!(!told.await.unwrap());
    }

    /// A keep-alive to somebody who has vanished waits for nothing but an acknowledgement. (On one machine nobody vanishes:
    /// it is the kernel that keeps the promise.)
    #[tokio::test]
    async fn a_peer_that_acknowledges_nothing_is_given_up() {
        let (connection, _client) = connected().await;
        let given = SockRef::from(&connection.stream).tcp_user_timeout().unwrap();
        assert_eq!(given, Some(PACE.patience.mul_f64(VANISHED)));
    }

    /// Megabytes to somebody who takes none of them.
    #[tokio::test]
    async fn a_connection_that_takes_nothing_ends() {
        let (mut connection, _client) = connected().await;
        let written = connection.write_all(&vec![0; 64 << 20]).await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_rests_when_nothing_is_worked_on_or_written() {
        let (mut connection, _client) = connected().await;
        let (link, every) = (connection.link(), Duration::from_millis(1));
        link.rests(every).await;
        let work = link.work();
        let mut rests = std::pin::pin!(link.rests(every));
        assert!(tokio::time::timeout(20 * every, rests.as_mut()).await.is_err());
        drop(work);
        rests.await;
        connection.write_all(b"more").await.unwrap();
        connection.flush().await.unwrap();
        drop(connection);
        link.rests(Duration::from_secs(3600)).await;
    }
}
