//! The groups that have members on this instance.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::coordinator::{About, Coordinator, Tools};
use super::member::{Ask, Member, Shared};
use super::plan::Source;
use super::settings::{Settings, Wish};
use super::state::{MOST_MEMBERS, RENEW};
use crate::background::watched;
use crate::error::{Error, Kind, Result};
use crate::event_log::EventLog;
use crate::hub::Hub;
use crate::model::Position;
use crate::quota::Holder;
use crate::signals::Signals;
use crate::store::Store;
use crate::store::consumer_groups::{KeptGroup, OpenedGroup};
use crate::store::consumers::NewConsumer;
use crate::sync::{Bell, lock};

/// Groups that one instance has members of at a time.
const MOST_GROUPS: usize = 1024;
/// How long the last words of members may take at shutdown.
const FAREWELL: Duration = Duration::from_secs(3);

/// What groups work with.
pub struct Parts {
    /// Where they are kept.
    pub store: Arc<dyn Store>,
    /// Where their events stand.
    pub log: Arc<dyn EventLog>,
    /// What tells that there are new ones.
    pub hub: Arc<Hub>,
    /// What tells other instances.
    pub signals: Arc<dyn Signals>,
    /// This instance.
    pub instance: String,
    /// CloudEvent `source` of dead letters.
    pub source: String,
    /// Seconds after which a consumer that nobody uses is dropped.
    pub idle_seconds: u64,
}

/// See the module's documentation.
pub struct Groups {
    parts: Parts,
    /// By the number of the run, so that whoever joins after a move does not meet those from before.
    running: Mutex<HashMap<u64, Arc<Shared>>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// A new member.
pub struct Joined {
    /// What events come to.
    pub member: Member,
    /// What the group was made with.
    pub settings: Settings,
    /// Everything up to here is done.
    pub position: Position,
    /// There was such a group.
    pub resumed: bool,
}

impl Groups {
    /// No group has members yet.
    pub fn new(parts: Parts) -> Groups {
        Groups {
            parts,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Joins the group of this name, which is made if there is none. At most `window` events are in the member's hands;
    /// `session` is notified when there is something for it. 409 if the name is not for this, or if the group was
    /// made with something else than what is wished, 429 if there are too many.
    pub async fn join(
        &self,
        new: &NewConsumer,
        wish: &Wish,
        window: usize,
        session: &Arc<Bell>,
    ) -> Result<Joined> {
        wish.check()?;
        for _ in 0..5 {
            let kept = self.open(new, wish).await?;
            let settings = Settings::from_text(&kept.settings)?;
            settings.suit(wish)?;
            let (reply, answer) = oneshot::channel();
            let ask = Ask::Join { window, session: session.clone(), reply };
            self.ask(new, &kept, &settings, ask).await?;
            // It may just have ended, because its last member has left.
            let Ok(member) = answer.await else { continue };
            let full = || {
                let detail = format!("durable: a group has at most {MOST_MEMBERS} members");
                Error::new(Kind::TooMany, detail).retry_after(10_000)
            };
            let resumed = kept.consumer.turn > 0;
            let cursor = kept.consumer.cursor;
            let position = Position { epoch: cursor.epoch, seq: cursor.seq };
            return Ok(Joined { member: member.ok_or_else(full)?, settings, position, resumed });
        }
        Err(Error::new(Kind::Unavailable, "durable: the group keeps changing, try again").retry_after(500))
    }

    /// Waits until the members that have left are noted.
    pub async fn close(&self) {
        self.tasks.close();
        let _ = tokio::time::timeout(FAREWELL, self.tasks.wait()).await;
        self.closing.cancel();
        self.tasks.wait().await;
    }

    async fn open(&self, new: &NewConsumer, wish: &Wish) -> Result<KeptGroup> {
        let settings = wish.settings().to_text()?;
        match self.parts.store.open_consumer_group(new, &settings).await? {
            OpenedGroup::Open(kept) => Ok(*kept),
            OpenedGroup::Over(over) => Err(over.into()),
            OpenedGroup::OtherChannel(channel) => {
                let detail = format!("channel: {channel} is the channel of this group");
                Err(Error::new(Kind::Conflict, detail))
            }
            OpenedGroup::NoGroup => {
                let detail = "group: this consumer is no group; delete it or take another name";
                Err(Error::new(Kind::Conflict, detail))
            }
        }
    }

    /// Asks for something of what acts for the group's members here, which begins to act if need be.
    async fn ask(&self, new: &NewConsumer, kept: &KeptGroup, settings: &Settings, ask: Ask) -> Result<()> {
        let id = kept.consumer.id.unwrap_or_default();
        let known = |running: &HashMap<u64, Arc<Shared>>| {
            running.get(&id).filter(|shared| !shared.is_over()).cloned()
        };
        let running = known(&lock(&self.running));
        if let Some(shared) = running {
            return shared.ask(ask);
        }
        let parts = &self.parts;
        let shared = Shared::new();
        let stranger = || Holder::stranger(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let holder = new.owner.id.map_or_else(stranger, Holder::User);
        let follower = parts.hub.follow(&new.channel, holder, shared.wake.clone()).await?;
        let mut running = lock(&self.running);
        if let Some(shared) = known(&running) {
            return shared.ask(ask);
        }
        running.retain(|_, shared| !shared.is_over());
        if running.len() >= MOST_GROUPS {
            let detail = format!("durable: one instance serves at most {MOST_GROUPS} groups at once");
            return Err(Error::new(Kind::TooMany, detail).retry_after(10_000));
        }
        let source = Source {
            log: parts.log.clone(),
            channel: follower.channel.clone(),
            filter: settings.filter()?,
            ordered: settings.ordered,
        };
        let about = About {
            id,
            name: kept.consumer.name.clone().unwrap_or_default(),
            own_name: new.name.clone().unwrap_or_default(),
            owner: kept.consumer.owner.name.clone(),
            channel: new.channel.clone(),
            share: new.share,
            rules: settings.rules(),
            agent: rand::random::<u64>() >> 12,
            instance: parts.instance.clone(),
            renew: RENEW.min(parts.idle_seconds.saturating_mul(1000) / 3),
            source: parts.source.clone(),
        };
        let (store, signals) = (parts.store.clone(), parts.signals.clone());
        let tools = Tools { store, signals, source, follower, shared: shared.clone() };
        let coordinator = Coordinator::new(tools, about, kept);
        // Before it begins: it ends when nobody is or wants to be a member.
        shared.ask(ask)?;
        self.tasks.spawn(watched("coordinator", coordinator.run(self.closing.clone())));
        running.insert(id, shared);
        Ok(())
    }
}
