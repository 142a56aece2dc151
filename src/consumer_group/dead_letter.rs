//! The channel of events that no member could work on: `dead.<name of the group>`, or `dead.<user>.<name>` where the
//! group is stored apart from another user's.
//!
//! It counts as a channel of the group's owner, from its first dead letter on. Who has as many channels as they may have
//! (or whose group has the name of another user's that has gone, and whose letters have not) gets the letters of further
//! groups on one channel that does not count, `dead.<user>.overflow`: no dead letter is
//! lost for want of a channel, and no user has more than that one beyond their share.

use serde_json::{Map, Value, json};

use crate::model::event::Entry;
use crate::model::{Event, EventTime, ObjectId};
use crate::store::consumers::APART;

/// What the names of all of them begin with.
pub const PREFIX: &str = "dead.";
/// CloudEvent `type` of a dead letter.
pub const TYPE: &str = "api.kernelci.org.dead";
/// An event of more bytes is not repeated in its dead letter, which tells where it stands.
const LONGEST: usize = 1 << 20;

/// The channel of the dead letters of the group that is stored under this name.
pub fn channel(group: &str) -> String {
    format!("{PREFIX}{}", group.replacen('/', ".", 1))
}

/// The channel of the dead letters that this user has no room for elsewhere. Nobody else's group can have it: what
/// begins with the id of a user is stored for that user only.
pub fn overflow(user: ObjectId) -> String {
    format!("{PREFIX}{user}.overflow")
}

/// The longest name of a group.
pub const LONGEST_NAME: usize = 64 - PREFIX.len();
/// The longest name of such a channel.
pub const LONGEST_CHANNEL: usize = PREFIX.len() + APART + LONGEST_NAME;

/// What is known of a dead event.
pub(super) struct Dead<'a> {
    /// What the group is stored as, and the number of its run.
    pub(super) group: (&'a str, u64),
    /// What its owner calls it.
    pub(super) own_name: &'a str,
    /// Whose the group is.
    pub(super) owner: &'a str,
    /// Where the letter goes.
    pub(super) to: String,
    /// The channel that the event stands on, and the epoch.
    pub(super) channel: &'a str,
    pub(super) seq: u64,
    pub(super) deliveries: u32,
    pub(super) reason: &'a str,
    /// The event; `None` if it can no longer be read.
    pub(super) entry: Option<&'a Entry>,
    /// CloudEvent `source` of the server.
    pub(super) source: &'a str,
}

/// The dead letter: the same one on the same channel, however often and by whomever it is written.
pub(super) fn letter(dead: Dead<'_>) -> Event {
    let event = dead.entry.filter(|entry| entry.json.len() <= LONGEST).map(|entry| entry.value().clone());
    let attribute = |name: &str| {
        let value = dead.entry.and_then(|entry| entry.value().get(name));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    Event {
        id: id(&dead),
        channel: dead.to,
        source: dead.source.to_owned(),
        kind: TYPE.to_owned(),
        subject: attribute("subject"),
        time: EventTime::now(),
        owner: Some(dead.owner.to_owned()),
        partitionkey: attribute("partitionkey"),
        extensions: Map::new(),
        data: json!({
            "consumer": dead.own_name,
            "channel": dead.channel,
            "seq": dead.seq,
            "deliveries": dead.deliveries,
            "reason": dead.reason,
            "event": event,
        }),
    }
}

fn id(dead: &Dead<'_>) -> ObjectId {
    let mut name = format!("dead\0{}\0{}", dead.group.1, dead.seq);
    // An id stands on one channel only, and whoever writes the letter again may find that there is room.
    if dead.to != channel(dead.group.0) {
        name = format!("{name}\0{}", dead.to);
    }
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes());
    let mut bytes = [0; 12];
    bytes.copy_from_slice(&hash.as_bytes()[..12]);
    ObjectId::from_bytes(bytes)
}
