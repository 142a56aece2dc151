//! A subscription while its session has nothing else to do than to pass on events: it is lent to the channel, which
//! writes new events to the socket without waking the session ([`Direct`]).
//!
//! Whenever the session does anything it takes its subscriptions back first. So there is one who moves a position at
//! any time, and what a session says keeps its order.

use std::sync::{Arc, Mutex};

use super::event_frame::event_frame;
use super::limits;
use super::outlet::Outlet;
use crate::hub::{Direct, Fresh, SharedFilter};
use crate::model::event::Entry;
use crate::sync::{Bell, lock};

/// A subscription as its channel sees it.
pub struct Live {
    sub: u32,
    filter: Option<Arc<SharedFilter>>,
    outlet: Arc<Outlet>,
    wake: Arc<Bell>,
    sent: ::metrics::Counter,
    place: Mutex<Place>,
}

/// Where a subscription stands.
struct Place {
    /// Whether the channel may move it.
    lent: bool,
    /// Everything up to here has been looked at.
    seq: u64,
    /// The last sequence number that the client knows of.
    told: u64,
    /// What they count in.
    epoch: Arc<str>,
}

impl Live {
    pub(super) fn new(
        sub: u32,
        filter: Option<Arc<SharedFilter>>,
        outlet: Arc<Outlet>,
        wake: Arc<Bell>,
        sent: ::metrics::Counter,
        epoch: &Arc<str>,
    ) -> Arc<Live> {
        let place = Mutex::new(Place { lent: false, seq: 0, told: 0, epoch: epoch.clone() });
        Arc::new(Live { sub, filter, outlet, wake, sent, place })
    }

    /// From here on the channel moves it.
    pub(super) fn lend(&self, seq: u64, told: u64, epoch: &Arc<str>) {
        let mut place = lock(&self.place);
        (place.lent, place.seq, place.told) = (true, seq, told);
        if place.epoch != *epoch {
            place.epoch = epoch.clone();
        }
    }

    /// Where it stands now: position and what the client knows of. `None` if it was not lent.
    pub(super) fn take_back(&self) -> Option<(u64, u64)> {
        let mut place = lock(&self.place);
        std::mem::take(&mut place.lent).then_some((place.seq, place.told))
    }

    fn matches(&self, entry: &Arc<Entry>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(entry))
    }
}

impl Direct for Live {
    fn take(&self, fresh: &Fresh) -> bool {
        let mut place = lock(&self.place);
        if !place.lent || place.seq != fresh.after || place.epoch != fresh.epoch {
            return false;
        }
        // What takes longer is the session's to do, in pieces.
        let bytes: usize = fresh.entries.iter().map(|entry| entry.json.len()).sum();
        if bytes > limits::BATCH || fresh.entries.len() > limits::SCAN {
            return false;
        }
        let matching: Vec<&Arc<Entry>> = fresh.entries.iter().filter(|entry| self.matches(entry)).collect();
        let frames = matching.iter().map(|entry| event_frame(self.sub, entry, usize::MAX).bytes());
        let Some(all) = self.outlet.send_now(frames) else { return false };
        place.seq = fresh.last();
        place.told = matching.last().map_or(place.told, |entry| entry.seq);
        self.sent.increment(matching.len() as u64);
        if !all {
            // The rest goes out when the socket takes it, which is what the session waits for.
            self.wake.ring();
        }
        true
    }
}
