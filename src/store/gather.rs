//! Gathering: requests that come at the same time share a round trip.
//!
//! A request that finds a flight free starts at once, so one alone never waits. While all flights are under way, further
//! ones gather and go together with the next flight. A call on behalf of many costs the server and the driver little more
//! than one on behalf of one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::background;
use crate::error::{Error, Kind, Result};
use crate::model::ObjectId;
use crate::store::Raw;
use crate::sync::lock;

/// Requests that may wait for the next flight; each belongs to somebody who waits for its answer.
const MOST_WAITING: usize = 16_384;

/// Single nodes to read, by id.
pub(super) type Gets = Gather<ObjectId, Result<Option<Raw>>>;

/// Those of these nodes that were asked for, in the order of asking.
pub(super) fn by_id(ids: &[ObjectId], found: Result<Vec<(ObjectId, Raw)>>) -> Vec<Result<Option<Raw>>> {
    match found {
        Ok(found) => {
            let found: HashMap<ObjectId, Raw> = found.into_iter().collect();
            ids.iter().map(|id| Ok(found.get(id).cloned())).collect()
        }
        Err(error) => ids.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// Does what a flight carries; one answer for each request, in their order.
type Call<Q, A> = Box<dyn Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>> + Send + Sync>;

/// Requests of one kind.
pub(super) struct Gather<Q, A> {
    inner: Arc<Inner<Q, A>>,
}

struct Inner<Q, A> {
    call: Call<Q, A>,
    /// What a request weighs.
    weight: fn(&Q) -> usize,
    most: Most,
    state: Mutex<State<Q, A>>,
}

/// How much goes at once.
#[derive(Clone, Copy)]
pub(super) struct Most {
    /// Calls under way at a time.
    pub(super) flights: usize,
    /// Requests that one flight carries.
    pub(super) requests: usize,
    /// A flight with more than one request weighs at most this.
    pub(super) weight: usize,
}

struct State<Q, A> {
    waiting: VecDeque<(Q, oneshot::Sender<A>)>,
    flights: usize,
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    pub(super) fn new(
        most: Most,
        weight: fn(&Q) -> usize,
        call: impl Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>> + Send + Sync + 'static,
    ) -> Gather<Q, A> {
        let state = Mutex::new(State { waiting: VecDeque::new(), flights: 0 });
        Gather { inner: Arc::new(Inner { call: Box::new(call), weight, most, state }) }
    }

    /// The answer to one request. Once taken in, the request happens, even if the caller stops waiting.
    pub(super) async fn ask(&self, request: Q) -> Result<A> {
        let (sender, answer) = oneshot::channel();
        let starts = {
            let mut state = lock(&self.inner.state);
            if state.waiting.len() >= MOST_WAITING {
                return Err(Error::new(Kind::Unavailable, "too many requests wait for the store"));
            }
            state.waiting.push_back((request, sender));
            let starts = state.flights < self.inner.most.flights;
            state.flights += usize::from(starts);
            starts
        };
        if starts {
            background::spawn("gather", self.inner.clone().fly());
        }
        answer.await.map_err(Error::internal)
    }
}

impl<Q, A> Inner<Q, A> {
    /// Flies until nobody waits.
    async fn fly(self: Arc<Self>) {
        let mut flight = Flight(&self, true);
        while let Some((requests, askers)) = flight.board() {
            let answers = (self.call)(requests).await;
            for (asker, answer) in askers.into_iter().zip(answers) {
                // Whoever has stopped waiting misses the answer, nothing else.
                _ = asker.send(answer);
            }
        }
    }
}

/// One of the flights; its place is free again when this is dropped, also by a panic.
struct Flight<'a, Q, A>(&'a Inner<Q, A>, bool);

impl<Q, A> Flight<'_, Q, A> {
    /// Takes on board who waits. `None` ends the flight, in the same step that found nobody.
    fn board(&mut self) -> Option<(Vec<Q>, Vec<oneshot::Sender<A>>)> {
        let mut state = lock(&self.0.state);
        let (mut requests, mut askers, mut weight) = (Vec::new(), Vec::new(), 0);
        while let Some((request, _)) = state.waiting.front() {
            weight += (self.0.weight)(request);
            let full = requests.len() >= self.0.most.requests || weight > self.0.most.weight;
            if full && !requests.is_empty() {
                break;
            }
            let Some((request, asker)) = state.waiting.pop_front() else { break };
            requests.push(request);
            askers.push(asker);
        }
        if requests.is_empty() {
            state.flights -= 1;
            self.1 = false;
            return None;
        }
        Some((requests, askers))
    }
}

impl<Q, A> Drop for Flight<'_, Q, A> {
    fn drop(&mut self) {
        if self.1 {
            lock(&self.0.state).flights -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Answers with the size of the flight that carried the request.
    fn gather(sizes: Arc<Mutex<Vec<usize>>>) -> Gather<usize, (usize, usize)> {
        let most = Most { flights: 4, requests: 10, weight: 100 };
        Gather::new(
            most,
            |weight| *weight,
            move |requests| {
                lock(&sizes).push(requests.len());
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    requests.iter().map(|request| (*request, requests.len())).collect()
                })
            },
        )
    }

    #[tokio::test(start_paused = true)]
    async fn one_goes_alone_and_many_go_together() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gather = gather(sizes.clone());
        assert_eq!(gather.ask(1).await.unwrap(), (1, 1));
        let answers = futures::future::join_all((0..34).map(|at| gather.ask(at % 3))).await;
        for (at, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.unwrap().0, at % 3);
        }
        let mut sizes = std::mem::take(&mut *lock(&sizes));
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 4, 10, 10, 10], "alone; then as many as may");
        assert_eq!(lock(&gather.inner.state).flights, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_is_not_too_heavy_but_carries_at_least_one() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gather = gather(sizes.clone());
        let answers = futures::future::join_all([1, 1, 1, 1, 60, 60, 1000].map(|weight| gather.ask(weight)));
        let sizes_of = answers.await.into_iter().map(|answer| answer.unwrap().1).collect::<Vec<_>>();
        assert_eq!(sizes_of, [5, 5, 5, 5, 5, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_holds_up_nobody() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gather = gather(sizes.clone());
        for _ in 0..20 {
            drop(tokio::time::timeout(Duration::from_millis(1), gather.ask(1)).await);
        }
        assert_eq!(gather.ask(2).await.unwrap().0, 2);
        assert_eq!(lock(&sizes).iter().sum::<usize>(), 21);
    }
}
