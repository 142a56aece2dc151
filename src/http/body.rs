//! Bodies of requests, before anybody looks at them: how large they may be depends on who sends them, and none may
//! take for ever. What waits here is memory that a stranger can make us hold.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use bytes::BytesMut;
use futures::StreamExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::connections::Whole;
use super::peer;
use crate::app::App;
use crate::connection::Link;
use crate::error::{Error, Kind, Result};
use crate::ops::{Operation, Route};
use crate::quota::{self, Holder, Pace, Place, Pool, Progress};
use crate::session::credentials;
use crate::sync::lock;

/// Bytes that a body may have, as the settings say.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// That of a request that may bring many things at once.
    pub large: usize,
    /// That of any other request.
    pub others: usize,
    /// That of a request without credentials.
    pub strangers: usize,
}

impl Limits {
    /// Bytes that the body of a request by this route may have.
    pub(super) fn of(&self, operation: &Operation, route: &Route) -> usize {
        if operation.takes_much_by(route) { self.large } else { self.others }
    }
}

impl Default for Limits {
    /// What the settings say where nothing is set.
    fn default() -> Limits {
        Limits { large: 32 << 20, others: 4 << 20, strangers: 1 << 20 }
    }
}

/// Larger bodies are worked on off the async threads, and few at a time: what is made of one takes many times its size.
const LARGE: usize = 1 << 20;
/// How long a large body waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// The turn of a large body, until it is dropped.
pub(super) type Turn = Arc<quota::Turn>;

/// Waits for the turn of a body of so many bytes, which goes with the work on it; `None`: it needs none. 429 if that takes
/// long.
pub(super) async fn turn(app: &App, holder: Holder, bytes: usize) -> Result<Option<Turn>> {
    if bytes <= LARGE {
        return Ok(None);
    }
    match tokio::time::timeout(PATIENCE, app.quotas.large.turn(holder)).await {
        Ok(turn) => Ok(Some(Arc::new(turn?))),
        Err(_) => {
            let detail = "too many large requests at once, try again";
            Err(Error::new(Kind::TooMany, detail).retry_after(5000))
        }
    }
}

/// A body is counted in steps of so many bytes, not for each of its pieces.
const STEP: usize = 4 << 10;
/// Room that a body has at first.
const FIRST: usize = 16 << 10;
/// Whoever has sent so much has room for all that they said there would be.
const FIRST_MUCH: usize = 1 << 20;
/// Each piece of what is thrown away counts as so many bytes at least.
const PIECE: usize = 1 << 10;

/// Takes a body whole: 413 if it is larger than `most`, or than whoever sends it may send, or late; 429 if too much is
/// being sent at once. A piece is not kept: it may be a single byte, and hold what it was read into.
pub(super) async fn whole(body: Body, most: usize) -> Result<Bytes> {
    // Room is made for what has come: a length is only said, and of large room the first byte takes a huge page.
    let length = body.size_hint().exact().map_or(0, |length| length.min(most as u64)) as usize;
    let mut whole = BytesMut::with_capacity(length.min(FIRST));
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| refusal(error, most))?;
        if whole.len() + piece.len() > most {
            return Err(too_large(most));
        }
        if (FIRST_MUCH..length).contains(&(whole.len() + piece.len())) {
            whole.reserve(length - whole.len());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Why a body did not come whole: what the guard says, or else it has ended early.
fn refusal(error: axum::Error, most: usize) -> Error {
    let error = error.into_inner();
    let mut causes = std::iter::successors(Some(&*error as &dyn std::error::Error), |error| error.source());
    let refused = causes.find_map(|cause| cause.downcast_ref::<Error>()).cloned();
    refused.unwrap_or_else(|| too_large(most))
}

fn too_large(most: usize) -> Error {
    Error::new(Kind::TooLarge, format!("the body of this request has at most {most} bytes"))
}

/// Lets a request through with a body that keeps to the limits, or fails.
pub(super) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let peer = peer::of(request.extensions());
    let caller = match request.headers().contains_key(header::AUTHORIZATION) {
        false => None,
        true => credentials(&app, &peer, request.headers()).await.ok().flatten(),
    };
    let limits = app.config.quotas.bodies();
    let most = if caller.is_some() { limits.large } else { limits.strangers };
    let holder = Holder::of(&caller.unwrap_or_default(), peer.address);
    let bodies = app.quotas.bodies.clone();
    let pace = app.config.quotas.incoming();
    let look = Box::pin(tokio::time::sleep(pace.look_after()));
    let progress = Progress::begin(0, Instant::now());
    let held = Held::default();
    request.extensions_mut().insert(held.clone());
    let extensions = request.extensions();
    let whole = extensions.get::<Whole>().cloned().zip(extensions.get::<Link>().cloned());
    let guarded = |body| Guarded {
        body,
        most,
        most_thrown: limits.large,
        seen: 0,
        reserved: 0,
        thrown: 0,
        pace,
        progress,
        look,
        counted: (bodies, holder),
        held: held.clone(),
        whole,
    };
    // Counted until the request is answered: what is made of a body takes its place.
    next.run(request.map(|body| Body::new(guarded(body)))).await
}

/// What the bytes of a body have taken. A request has it among its extensions.
pub(super) type Held = Arc<Mutex<Option<Place>>>;

/// A body that fails when it is too large or stands still, or when too much is sent at once. What is too much is taken and
/// thrown away, up to a point: a client that is still sending would not see our answer.
struct Guarded {
    body: Body,
    most: usize,
    /// Bytes of what is too much that are taken.
    most_thrown: usize,
    seen: usize,
    /// Bytes that are counted.
    reserved: usize,
    /// What was thrown away.
    thrown: usize,
    pace: Pace,
    progress: Progress,
    look: Pin<Box<Sleep>>,
    counted: (Arc<Pool>, Holder),
    held: Held,
    /// What is told when all of it has come.
    whole: Option<(Whole, Link)>,
}

impl Guarded {
    /// Counts what has been seen: 429 if that is more than there may be.
    fn count(&mut self) -> Result<()> {
        if self.seen <= self.reserved {
            return Ok(());
        }
        let (pool, holder) = &self.counted;
        let more = (self.seen - self.reserved).max(STEP);
        match &mut *lock(&self.held) {
            Some(place) => place.grow(more as u64)?,
            none => *none = Some(pool.take(*holder, more as u64)?),
        }
        self.reserved += more;
        Ok(())
    }

    /// 413 if nothing has come for too long.
    fn poll_stuck(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        while self.look.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if self.progress.is_stuck(&self.pace, self.seen as u64, now) {
                let seconds = self.pace.patience.as_secs_f64();
                let detail = format!("the body of this request has stood still for {seconds} s");
                return Poll::Ready(Error::new(Kind::TooLarge, detail));
            }
            self.look.as_mut().reset(now + self.pace.look_after());
        }
        Poll::Pending
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            let frame = Pin::new(&mut self.body).poll_frame(context);
            let (size, ended) = match &frame {
                Poll::Ready(Some(Ok(frame))) => (frame.data_ref().map_or(0, Bytes::len), false),
                Poll::Pending => {
                    let stuck = ready!(self.poll_stuck(context));
                    return Poll::Ready(Some(Err(axum::Error::new(stuck))));
                }
                Poll::Ready(_) => (0, true),
            };
            if (ended || self.body.is_end_stream())
                && let Some((whole, link)) = self.whole.take()
            {
                whole.came(&link);
            }
            self.seen += size;
            let refused = match self.seen {
                seen if seen <= self.most => match self.count() {
                    Ok(()) => return frame,
                    Err(refused) => refused,
                },
                _ if ended || self.thrown > self.most_thrown => match self.counted.1.is_stranger() {
                    true => {
                        let most = self.most;
                        let detail =
                            format!("the body of a request without credentials has at most {most} bytes");
                        Error::new(Kind::TooLarge, detail)
                    }
                    false => too_large(self.most),
                },
                _ => {
                    self.thrown += size.max(PIECE);
                    continue;
                }
            };
            return Poll::Ready(Some(Err(axum::Error::new(refused))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::stream;

    use super::*;

    /// One byte, and how many of its kind there are.
    struct Piece(Arc<AtomicUsize>);

    impl AsRef<[u8]> for Piece {
        fn as_ref(&self) -> &[u8] {
            b"x"
        }
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn pieces(count: usize, there: Arc<AtomicUsize>) -> Body {
        Body::from_stream(stream::iter(0..count).map(move |_| {
            let most = there.fetch_add(1, Ordering::Relaxed) + 1;
            assert!(most <= 2, "{most} pieces are kept");
            Ok::<_, Error>(Bytes::from_owner(Piece(there.clone())))
        }))
    }

    #[tokio::test]
    async fn a_body_is_not_kept_in_pieces() {
        let there = Arc::default();
        assert_eq!(whole(pieces(1000, Arc::clone(&there)), 1000).await.unwrap(), "x".repeat(1000));
        let refused = whole(pieces(1000, Arc::clone(&there)), 999).await.unwrap_err();
        assert_eq!((refused.kind(), there.load(Ordering::Relaxed)), (Kind::TooLarge, 0));
    }
}
