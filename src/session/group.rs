//! A subscription that is a member of a group: what it gets does not come from the log but from the group.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::acks::End;
use super::event_frame::{Included, event_frame_with};
use super::frame::Frame;
use super::limits;
use super::subscription::{Include, gap_frame, included, new_epoch, nodes_of};
use crate::app::App;
use crate::consumer_group::{Delivery, Ended, Joined, Member, Said, Stalled, Verdict};
use crate::error::Result;
use crate::model::event::Entry;
use crate::rpc;
use crate::store::Store;
use crate::store::consumers::Owner;

/// How long the end of a subscription waits until its leaving is noted.
const FAREWELL: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub struct Group {
    app: Arc<App>,
    member: Member,
    owner: Owner,
}

impl Group {
    /// The subscription of a new member.
    pub fn new(app: Arc<App>, joined: Joined, owner: Owner) -> Group {
        Group { app, member: joined.member, owner }
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) fn end(&self) -> Option<End> {
        match self.member.ended()? {
            Ended::Moved => Some(End::Moved),
            Ended::Deleted => Some(End::Deleted),
            Ended::Empty | Ended::Closing => None,
        }
    }

    pub(super) fn say(&self, seq: u64, delivery: Option<u32>, verdict: Verdict) -> Result<Said> {
        self.member.say(seq, delivery, verdict)
    }

    /// Leaves the group. Events are not to blame for a server that shuts down.
    pub(super) fn leave(&self) {
        if self.app.draining.is_cancelled() {
            self.member.excuse();
        }
        self.member.leave();
    }

    pub(super) async fn left(&self) {
        let _ = timeout(FAREWELL, self.member.left()).await;
    }

    pub(super) fn has_next(&self) -> bool {
        self.member.has_next()
    }

    /// What has come, no more at once than others can wait for.
    pub(super) fn take(&self) -> Given {
        let (mut all, mut bytes) = (Vec::new(), 0);
        while bytes <= limits::BATCH
            && let Some(delivery) = self.member.next()
        {
            if let Delivery::Event(entry, _) = &delivery {
                bytes += entry.json.len();
            }
            all.push(delivery);
        }
        Given(all)
    }
}

/// What a member got.
pub(super) struct Given(Vec<Delivery>);

impl Given {
    /// As frames, without anything that takes time.
    pub(super) fn frames(&self, sub: u32, longest: usize) -> Vec<(Frame, u64)> {
        self.with(sub, longest, |_| None)
    }

    /// As frames that include nodes.
    pub(super) async fn frames_with(
        &self,
        sub: u32,
        include: Include,
        longest: usize,
        store: &dyn Store,
    ) -> Result<Vec<(Frame, u64)>> {
        let entries = self.0.iter().filter_map(|delivery| match delivery {
            Delivery::Event(entry, _) => Some(entry),
            Delivery::Gap(_) | Delivery::Stalled(_) => None,
        });
        let entries: Vec<&Arc<Entry>> = entries.collect();
        let nodes = nodes_of(store, &entries, include).await?;
        Ok(self.with(sub, longest, |entry| Some(included(entry, include, &nodes))))
    }

    fn with(
        &self,
        sub: u32,
        longest: usize,
        included: impl Fn(&Entry) -> Option<Included>,
    ) -> Vec<(Frame, u64)> {
        let frame = |delivery: &Delivery| match delivery {
            Delivery::Event(entry, deliveries) => {
                let (deliveries, included) = (format!(",\"deliveries\":{deliveries}"), included(entry));
                (event_frame_with(sub, entry, &deliveries, included.as_ref(), longest), entry.seq)
            }
            Delivery::Gap(gap) => {
                let epoch = gap.epoch.as_deref().map(new_epoch).unwrap_or_default();
                (gap_frame(sub, gap.from, gap.to, &epoch), gap.to)
            }
            Delivery::Stalled(Stalled { delayed, in_ms }) => {
                let params = format!("{{\"sub\":{sub},\"delayed\":{delayed},\"in_ms\":{in_ms}}}");
                (rpc::notification("stalled", &params).into(), 0)
            }
        };
        self.0.iter().map(frame).collect()
    }
}
