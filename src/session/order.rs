//! The order of requests about one subscription. Requests of a session run side by side; those that name the same `sub` are
//! carried out in the order in which they came, each when the one before has been answered.

use std::collections::VecDeque;

use serde::Deserialize;

use crate::rpc;

/// The methods that are about one subscription.
const ABOUT_ONE: [&str; 5] =
    ["event.subscribe", "event.unsubscribe", "event.ack", "event.nack", "event.extend"];

/// The subscriptions of a session that requests are under way for. Most of the time there are none, and then it is small.
#[derive(Default)]
pub(super) struct Order(Option<Box<UnderWay>>);

#[derive(Default)]
struct UnderWay {
    subs: Vec<u32>,
    waiting: VecDeque<(u32, rpc::Request)>,
}

impl Order {
    /// The subscription that a request is about and has to wait for, or others for it. One that is done at once (`quick`)
    /// waits only where others are under way.
    pub(super) fn about(&self, request: &rpc::Request, quick: bool) -> Option<u32> {
        #[derive(Deserialize)]
        struct About {
            sub: u32,
        }
        if (quick && self.0.is_none()) || !ABOUT_ONE.contains(&&*request.method) {
            return None;
        }
        // Whatever is wrong with it is told by the operation.
        let about: About = serde_json::from_str(&request.params).ok()?;
        let is_under_way = self.0.as_ref().is_some_and(|under_way| under_way.subs.contains(&about.sub));
        (!quick || is_under_way).then_some(about.sub)
    }

    /// A request about this subscription has come. `Some`: it may begin.
    pub(super) fn enter(&mut self, sub: u32, request: rpc::Request) -> Option<rpc::Request> {
        let under_way = self.0.get_or_insert_default();
        if under_way.subs.contains(&sub) {
            under_way.waiting.push_back((sub, request));
            return None;
        }
        under_way.subs.push(sub);
        Some(request)
    }

    /// A request about this subscription has been answered. `Some`: the next one, which may begin.
    pub(super) fn leave(&mut self, sub: u32) -> Option<rpc::Request> {
        let under_way = self.0.as_mut()?;
        if let Some(next) = under_way.waiting.iter().position(|(about, _)| *about == sub) {
            return under_way.waiting.remove(next).map(|(_, request)| request);
        }
        under_way.subs.retain(|other| *other != sub);
        if under_way.subs.is_empty() {
            self.0 = None;
        }
        None
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.as_ref().map_or(0, |under_way| under_way.waiting.len())
    }
}
