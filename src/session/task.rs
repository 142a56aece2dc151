//! The task that runs one session.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite;

use super::acks::End;
use super::close::{self, CloseCode};
use super::frame::Frame;
use super::handle::Handle;
use super::limits;
use super::order::Order;
use super::outbox::{Io, Outbox};
use super::reading::{Reading, finished, read_patiently};
use super::request::{Answered, perform};
use super::roster::Seat;
use super::subscription::{self, Batch, Subscription};
use super::timers::{Due, Patience, Timers};
use crate::app::App;
use crate::background;
use crate::error::{Error, Kind, Result};
use crate::health::Away;
use crate::metrics;
use crate::ops::Handover;
use crate::quota::{Holder, Place, Pool};
use crate::rpc;

/// Ends a socket that did not become a session; it counts until it is gone.
pub(super) async fn refuse(mut out: Outbox, code: CloseCode, _connection: Option<Place>) {
    say_goodbye(&mut out, code).await;
}

/// Runs a session to its end. (Not an `async fn`: its arguments would be kept twice.)
pub(super) fn run(
    app: Arc<App>,
    handle: Arc<Handle>,
    mut out: Outbox,
    places: Places,
) -> impl Future<Output = ()> + Send {
    out.limit_waiting(handle.limits().outgoing);
    let timers = Timers::new(&Patience::of(&app.config), places.are_on_probation());
    let mut session = Session {
        places,
        seat: app.roster.take_seat(handle.wake.clone()),
        out,
        requests: JoinSet::new(),
        order: Order::default(),
        room: None,
        coming: None,
        greets: false,
        subs: Vec::new(),
        next_sub: 0,
        reading: None,
        timers,
        telling: None,
        leaving: None,
        superseded: None,
        health: app.health.watch(),
        told: Away::default(),
        sent: metrics::EVENTS_SENT.counter(&[]),
        app,
        handle,
    };
    async move {
        tracing::debug!(session = session.handle.id(), "opened");
        let code = session.serve().await;
        session.take_back();
        let client = session.handle.client();
        tracing::debug!(session = session.handle.id(), client, code = code.map(|code| code.name), "closed");
        // What was asked for ends here, not when the peer has said goodbye, too; writes run on by themselves.
        session.requests.abort_all();
        session.subs = Vec::new();
        session.reading = None;
        if let Some(code) = code {
            metrics::SESSIONS_ENDED.counter(&[&code.code.to_string()]).increment(1);
            say_goodbye(&mut session.out, code).await;
        }
    }
}

async fn say_goodbye(out: &mut Outbox, code: CloseCode) {
    out.close(code);
    let answered = async { while !matches!(out.io(true).await, Io::Gone | Io::Broken(_)) {} };
    let _ = tokio::time::timeout(limits::CLOSE, answered).await;
}

/// What a session takes among those of its user or address.
pub(super) struct Places {
    pub(super) session: Place,
    /// `None`: it came on no connection that is counted.
    pub(super) connection: Option<Place>,
}

impl Places {
    fn are_on_probation(&self) -> bool {
        self.session.is_on_probation() || self.connection.as_ref().is_some_and(Place::is_on_probation)
    }

    fn pass_to(&mut self, holder: Holder) -> Result<(), Error> {
        self.session.pass_to(holder)?;
        self.connection.as_mut().map_or(Ok(()), |connection| connection.pass_to(holder))
    }
}

struct Session {
    app: Arc<App>,
    handle: Arc<Handle>,
    places: Places,
    /// Where it is woken by the clock, and by news for all sessions.
    seat: Seat,
    out: Outbox,
    requests: JoinSet<Answered>,
    order: Order,
    /// For more than a little that waits for the socket.
    room: Room,
    /// For more than a little of a message that comes in.
    coming: Room,
    /// Its credentials are being looked at: what was sent right behind them counts on them.
    greets: bool,
    subs: Vec<Subscription>,
    /// Whose turn it is, so that one busy subscription does not starve the others.
    next_sub: usize,
    /// A read that takes time (the log, included nodes), for one subscription at a time.
    reading: Option<Reading>,
    timers: Timers,
    /// Whose turn it is to be told that the server shuts down, once it does.
    telling: Option<Instant>,
    /// When to go, once the client has been told.
    leaving: Option<Instant>,
    /// When to go, once somebody else has taken over all that it subscribed to.
    superseded: Option<Instant>,
    health: watch::Receiver<Away>,
    /// What the client knows to be away.
    told: Away,
    sent: ::metrics::Counter,
}

/// A place for what few sessions have: others have no room for it.
type Room = Option<Box<Place>>;

/// Makes a place as large as `bytes`, which it only grows to; the error, and nothing has changed, if that is more than
/// there may be.
fn hold(place: &mut Room, pool: &Arc<Pool>, holder: Holder, bytes: usize) -> Result<(), Error> {
    let missing = (bytes as u64).saturating_sub(place.as_ref().map_or(0, |place| place.amount()));
    match place {
        _ if missing == 0 => Ok(()),
        Some(place) => place.grow(missing),
        none => pool.take(holder, missing).map(|place| *none = Some(Box::new(place))),
    }
}

enum Wake {
    Io(Io),
    Answered(Result<Answered, JoinError>),
    Read((u32, Batch)),
    Rung,
    More,
}

impl Session {
    /// Until the session ends; `None` if the peer is gone.
    async fn serve(&mut self) -> Option<CloseCode> {
        let handle = self.handle.clone();
        self.recheck();
        self.set_deadline();
        handle.wake.call();
        loop {
            self.take_back();
            // Most often only the log has moved.
            if handle.wake.take_call()
                && let Some(code) = self.look_around()
            {
                return Some(code);
            }
            if let Some(code) = self.is_over() {
                return Some(code);
            }
            // What the socket takes at once needs no further turn.
            self.out.write_now();
            let more = self.out.takes_events() && self.pump();
            self.out.write_now();
            if !more && self.out.takes_events() {
                self.lend();
            }
            if self.count_incoming().is_err() {
                return Some(close::OVERLOADED);
            }
            let room = self.has_room();
            let reads = room && self.reads();
            if self.timers.watch(&self.out.traffic(reads, self.greets)) {
                let next = self.next_timer();
                self.seat.call_by(next);
            }
            let wake = tokio::select! {
                io = self.out.io(reads) => Wake::Io(io),
                Some(answered) = self.requests.join_next(), if room && !self.requests.is_empty() => {
                    Wake::Answered(answered)
                }
                read = finished(&mut self.reading), if self.reading.is_some() => Wake::Read(read),
                () = handle.wake.rung() => Wake::Rung,
                () = tokio::task::yield_now(), if more => Wake::More,
            };
            let end = match wake {
                Wake::Io(Io::Text(text)) => {
                    self.timers.heard();
                    self.message(&text)
                }
                Wake::Io(Io::Alive) => {
                    self.timers.heard();
                    None
                }
                Wake::Io(Io::Binary) => Some(close::PROTOCOL),
                Wake::Io(Io::Broken(error)) => Some(broken(&error)),
                Wake::Io(Io::Gone) => return None,
                Wake::Answered(answered) => self.answered(answered),
                Wake::Read((sub, batch)) => {
                    self.deliver(sub, batch);
                    None
                }
                Wake::Io(Io::Drained | Io::Begun) | Wake::Rung | Wake::More => None,
            };
            if end.is_some() {
                return end;
            }
        }
    }

    /// Whether more may wait for the socket: a little always, and more as long as not too many have that.
    fn has_room(&mut self) -> bool {
        let (bytes, holder) = (self.out.bytes(), self.places.session.holder());
        if bytes < limits::OUTGOING_OF_ALL {
            self.room = None;
            return true;
        }
        let limits = self.handle.limits();
        let most = if holder.is_stranger() { limits.outgoing_of_strangers } else { limits.outgoing };
        let granted = hold(&mut self.room, &self.app.quotas.answers, holder, bytes);
        granted.is_ok() && bytes < most
    }

    /// Counts what is there of a message that comes in; an error if there is too much of that already.
    fn count_incoming(&mut self) -> Result<(), Error> {
        let bytes = self.out.incoming();
        if bytes < limits::INCOMING_OF_ALL {
            self.coming = None;
            return Ok(());
        }
        hold(&mut self.coming, &self.app.quotas.bodies, self.places.session.holder(), bytes)
    }

    /// Whether it takes what comes in. Nothing is waited for here, so that events and pings go on: not what looks at
    /// credentials, and not the one request too many that is quick to ask.
    fn reads(&self) -> bool {
        !self.greets && self.in_flight() <= self.handle.limits().requests
    }

    /// Requests that are not answered.
    fn in_flight(&self) -> usize {
        self.requests.len() + self.order.waiting()
    }

    /// While it waits, the channels write new events to the socket.
    fn lend(&mut self) {
        for sub in &mut self.subs {
            sub.lend(self.out.outlet(), &self.sent);
        }
    }

    fn take_back(&mut self) {
        self.subs.iter_mut().for_each(Subscription::take_back);
    }

    /// Something may have changed about the session, or for all of them. Some: it ends.
    fn look_around(&mut self) -> Option<CloseCode> {
        if self.seat.is_due(Instant::now())
            && let Some(code) = self.timer()
        {
            return Some(code);
        }
        let news = self.handle.news();
        if news.changed {
            self.recheck();
        }
        self.out.limit_messages(self.handle.longest_message());
        if self.settle().is_err() {
            return Some(close::OVERLOADED);
        }
        self.drop_unsubscribed(&news.unsubscribed);
        self.drop_forbidden();
        self.drop_ended();
        self.tell_health();
        self.begin_to_drain();
        None
    }

    /// Counts the session for whoever it belongs to now.
    fn settle(&mut self) -> Result<(), Error> {
        if !self.handle.has_said_hello() {
            return Ok(());
        }
        self.places.pass_to(Holder::of(&self.handle.caller(), self.handle.peer().address))
    }

    /// Whether the client has been told to go and has had its time, or has nothing here any more; what it has asked for is
    /// finished first.
    fn is_over(&self) -> Option<CloseCode> {
        let now = Instant::now();
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match (is_past(self.leaving), is_past(self.superseded)) {
            _ if self.in_flight() > 0 => None,
            (true, _) => Some(close::DRAINING),
            (_, true) if self.subs.is_empty() => Some(close::TAKEN_OVER),
            _ => None,
        }
    }

    fn next_timer(&mut self) -> Instant {
        self.timers.next(&self.handle, &Patience::of(&self.app.config))
    }

    /// Asks to be woken when something is due. Called whenever that may have changed.
    fn set_deadline(&mut self) {
        let now = Instant::now();
        let superseded = self.superseded.filter(|at| *at > now);
        let timers = self.next_timer();
        let timers = superseded.map_or(timers, |superseded| superseded.min(timers));
        let leaving = match self.leaving {
            // Once it may leave, it only waits for its requests.
            Some(at) => (at > now).then_some(at),
            None => self.telling,
        };
        self.seat.call_at(leaving.map_or(timers, |leaving| leaving.min(timers)));
    }

    /// A message came in. Some: it ends the session.
    fn message(&mut self, text: &str) -> Option<CloseCode> {
        // Whoever goes on with something else stays.
        self.superseded = None;
        let request = match rpc::read(text) {
            Ok(request) => request,
            Err(unreadable) => {
                self.out.push(rpc::answer(&unreadable.id, Err(unreadable.error)));
                return None;
            }
        };
        if matches!(&*request.method, "session.hello" | "session.refresh") {
            self.greets = true;
            self.perform(request, None);
            return None;
        }
        let quick = self.app.table.get(&request.method).is_ok_and(|operation| operation.quick);
        if let Err(refusal) = self.admit(&request.method, quick) {
            if let Some(id) = &request.id {
                self.out.push(rpc::answer(id, Err(refusal)));
            }
            return None;
        }
        if let Some(sub) = self.order.about(&request, quick) {
            if let Some(request) = self.order.enter(sub, request) {
                self.perform(request, Some(sub));
            }
            return None;
        }
        if !quick {
            self.perform(request, None);
            return None;
        }
        // Done here and now, in the order in which they come; what is left to wait for need not hold up others.
        let mut work = Box::pin(perform(self.app.clone(), self.handle.clone(), request, None, None));
        if let Some(answered) = (&mut work).now_or_never() {
            return self.answered(Ok(answered));
        }
        self.requests.spawn(work);
        None
    }

    /// Begins a request. `sub`: the subscription that it keeps others from.
    fn perform(&mut self, request: rpc::Request, sub: Option<u32>) {
        let mut place = None;
        let bytes = request.params.len();
        if bytes >= limits::INCOMING_OF_ALL
            && let Err(error) = hold(&mut place, &self.app.quotas.bodies, self.places.session.holder(), bytes)
        {
            self.greets = false;
            if let Some(id) = &request.id {
                self.out.push(rpc::answer(id, Err(error)));
            }
            if let Some(sub) = sub {
                self.next_about(sub);
            }
            return;
        }
        self.requests.spawn(perform(self.app.clone(), self.handle.clone(), request, sub, place));
    }

    /// Begins the next request about a subscription, which is as those before it have left it.
    fn next_about(&mut self, sub: u32) {
        if let Some(next) = self.order.leave(sub) {
            let gone = self.handle.unsubscribed();
            self.drop_unsubscribed(&gone);
            self.perform(next, Some(sub));
        }
    }

    /// Whether a request may begin.
    fn admit(&self, method: &str, quick: bool) -> Result<(), Error> {
        // Whoever has no token yet gets it here, to say hello with: anonymous sessions may be turned off.
        if !self.handle.has_said_hello() && method != "user.login" {
            return Err(Error::new(Kind::Unauthorized, "session.hello has to come first"));
        }
        if quick {
            return Ok(());
        }
        if self.leaving.is_some() {
            let detail = "this instance is shutting down: reconnect and try again";
            return Err(Error::new(Kind::Unavailable, detail).retry_after(0));
        }
        let most = self.handle.limits().requests;
        if self.in_flight() >= most {
            let detail = format!("a session has at most {most} requests in flight");
            return Err(Error::new(Kind::TooMany, detail).retry_after(10));
        }
        Ok(())
    }

    fn answered(&mut self, answered: Result<Answered, JoinError>) -> Option<CloseCode> {
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => {
                tracing::error!(session = self.handle.id(), %error, "a request ended in a panic");
                return Some(close::INTERNAL);
            }
        };
        if let Some(text) = answered.text {
            self.out.push(text);
            if let Some(handover) = answered.handover {
                self.out.hand_over(handover);
            }
            if let Some(place) = answered.counted {
                self.out.hand_over(Handover::new(move |_| drop(place)));
            }
        }
        if answered.greeted {
            self.greets = false;
            // The token may have changed between being looked up and being listened for.
            self.recheck();
            self.handle.wake.call();
            self.set_deadline();
        }
        if let Some(sub) = answered.opened {
            // Most sessions have one, and a vector would make room for four.
            self.subs.reserve_exact(1);
            self.subs.push(*sub);
            // Whether it is still allowed, and not ended meanwhile.
            self.handle.wake.call();
        }
        if let Some(sub) = answered.sub {
            self.next_about(sub);
        }
        answered.close
    }

    /// Puts events to the empty outbox. True if there is more to look at right away.
    fn pump(&mut self) -> bool {
        let count = self.subs.len();
        let (mut more, mut looked) = (false, 0);
        for turn in 0..count {
            let index = (self.next_sub + turn) % count;
            let sub = &mut self.subs[index];
            if sub.busy {
                continue;
            }
            sub.skip();
            if !sub.wants_events() {
                continue;
            }
            if sub.is_lost() || sub.wants_to_skip() {
                let frame = sub.skip_to_head();
                self.out.push(frame);
                continue;
            }
            match sub.at_hand() {
                Some(batch) => {
                    let number = sub.sub();
                    looked += batch.looked;
                    self.deliver(number, batch);
                }
                None if self.reading.is_none() => {
                    sub.busy = true;
                    self.reading =
                        Some((sub.sub(), Box::pin(read_patiently(self.app.clone(), sub.reader()))));
                }
                None => continue,
            }
            more |= self.subs[index].wants_events() && !self.subs[index].busy;
            if self.out.bytes() > limits::BATCH || looked > limits::SCAN_BYTES {
                self.next_sub = (index + 1) % count;
                return true;
            }
        }
        self.next_sub = if count == 0 { 0 } else { (self.next_sub + 1) % count };
        more
    }

    fn deliver(&mut self, sub: u32, batch: Batch) {
        let Some(sub) = self.subs.iter_mut().find(|candidate| candidate.sub() == sub) else { return };
        sub.busy = false;
        if !sub.advance(&batch) {
            // The next pump sees it and tells the client.
            return;
        }
        self.sent.increment(batch.frames.len() as u64);
        for (frame, _) in batch.frames {
            self.out.push(frame);
        }
    }

    fn drop_unsubscribed(&mut self, gone: &BTreeSet<u32>) {
        if !gone.is_empty() {
            self.drop_subs(|sub| gone.contains(&sub.sub()).then_some(None));
        }
    }

    /// Lets go of subscriptions: those for which `gone` says so, with a reason if the client has to be told.
    fn drop_subs(&mut self, gone: impl Fn(&Subscription) -> Option<Option<&'static str>>) {
        let (reading, out) = (&mut self.reading, &mut self.out);
        self.subs.retain(|sub| {
            let Some(reason) = gone(sub) else { return true };
            if reading.as_ref().is_some_and(|(number, _)| *number == sub.sub()) {
                *reading = None;
            }
            if let Some(reason) = reason {
                let taker = sub.acks.as_ref().and_then(|held| held.0.taker());
                out.push(subscription::unsubscribed_frame(sub.sub(), reason, taker.as_deref()));
            }
            false
        });
    }

    /// Subscriptions that need a user end when the token has ended or the user may no longer act.
    fn drop_forbidden(&mut self) {
        let all = !self.app.config.anonymous_read;
        if !self.subs.iter().any(|sub| all || sub.acks.is_some() || sub.reads_as.is_some()) {
            return;
        }
        let user = self.handle.caller().user;
        let lost = |sub: &Subscription| sub.reads_as.as_ref()?.lost(user.as_deref());
        self.drop_subs(|sub| match (&user, &sub.acks) {
            _ if lost(sub).is_some() => Some(lost(sub)),
            (None, Some(_)) => Some(Some("the session has no user any more")),
            (None, None) => all.then_some(Some("the session has no user any more")),
            (Some(user), Some(held)) if held.0.owner().id != Some(user.id) => {
                Some(Some("the session has another user now"))
            }
            (Some(_), _) => None,
        });
    }

    /// Subscriptions end when what they are acknowledged to is another's now.
    fn drop_ended(&mut self) {
        let acknowledged = || self.subs.iter().filter_map(|sub| sub.acks.as_ref());
        acknowledged().for_each(|held| held.0.listen());
        let ends: Vec<End> = acknowledged().filter_map(|held| held.0.end()).collect();
        if ends.is_empty() {
            return;
        }
        self.drop_subs(|sub| Some(Some(sub.acks.as_ref()?.0.end()?.reason())));
        if ends.contains(&End::TakenOver) && self.subs.is_empty() {
            self.superseded = Some(Instant::now() + limits::SUPERSEDED);
            self.set_deadline();
        }
    }

    /// Looks whether the session's token still counts, and what its user may do now; takes the session's rights away if it does
    /// not.
    fn recheck(&mut self) {
        let Some(token) = self.handle.caller().token else { return };
        let (app, handle) = (self.app.clone(), self.handle.clone());
        // Not among the requests: the client may have as many of those as it was told.
        background::spawn("recheck", async move {
            match app.known(&token).await {
                Ok(None) => handle.dismiss(&token),
                Ok(Some(caller)) => handle.renew(&caller),
                Err(_) => {}
            }
        });
    }

    /// A deadline has passed.
    fn timer(&mut self) -> Option<CloseCode> {
        let reads = self.has_room() && self.reads();
        let traffic = self.out.traffic(reads, self.greets);
        let patience = Patience::of(&self.app.config);
        while let Some(due) = self.timers.due(&self.handle, &traffic, &patience) {
            match due {
                Due::NoHello | Due::NoPong | Due::HalfMessage => return Some(close::TIMEOUT),
                Due::Stuck => {
                    // Goodbye need not wait for what is not taken anyway.
                    self.out.outlet().abandon();
                    return Some(close::TIMEOUT);
                }
                Due::Ping => {
                    if !traffic.waits {
                        self.out.push(Frame::ping());
                    }
                    self.tell_progress();
                    self.subs.iter().filter_map(|sub| sub.acks.as_ref()).for_each(|held| held.0.keep());
                    self.recheck();
                }
                Due::Expiring(in_ms) => {
                    self.out
                        .push(rpc::notification("session.expiring", &json!({"in_ms": in_ms}).to_string()));
                }
                Due::Expired => self.handle.downgrade(),
            }
        }
        if self.leaving.is_none() && self.telling.is_some_and(|at| at <= Instant::now()) {
            self.begin_to_leave();
        }
        self.set_deadline();
        None
    }

    /// A filtered subscription's position must not go stale while nothing matches.
    fn tell_progress(&mut self) {
        for sub in &mut self.subs {
            if let Some(frame) = sub.progress() {
                self.out.push(frame);
            }
        }
    }

    /// The server shuts down: the client is told at some time that is its own.
    fn begin_to_drain(&mut self) {
        if self.telling.is_none() && self.app.draining.is_cancelled() {
            let spread = rand::random_range(0..=self.app.config.drain_ms);
            self.telling = Some(Instant::now() + Duration::from_millis(spread));
            self.set_deadline();
        }
    }

    /// Tells the client that the server shuts down: it shall come back, elsewhere. Everybody is told at a time of their
    /// own, and until then served as ever, so that not all of them move at once.
    fn begin_to_leave(&mut self) {
        let (after, jitter) = (limits::FAREWELL.as_millis(), limits::RETURN.as_millis());
        let params =
            json!({"code": close::DRAINING.code, "after_ms": after, "jitter_ms": jitter, "resume": true});
        self.out.push(rpc::notification("session.closing", &params.to_string()));
        self.tell_progress();
        self.leaving = Some(Instant::now() + limits::FAREWELL);
    }

    /// Tells the client what is away, or that all is well again.
    fn tell_health(&mut self) {
        let now = *self.health.borrow_and_update();
        if now == self.told || !self.handle.has_said_hello() {
            return;
        }
        self.told = now;
        let (name, params) = match now.names() {
            parts if parts.is_empty() => ("session.recovered", json!({})),
            parts => ("session.degraded", json!({"parts": parts})),
        };
        self.out.push(rpc::notification(name, &params.to_string()));
    }
}

fn broken(error: &tungstenite::Error) -> CloseCode {
    match error {
        tungstenite::Error::Capacity(_) => close::TOO_LARGE,
        tungstenite::Error::Utf8(_) => close::BAD_TEXT,
        _ => close::PROTOCOL,
    }
}
