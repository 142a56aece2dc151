//! Queues: lists of items, each of which goes to one client.
//!
//! Taking an item leases it. Its taker removes it, or gives it back; if neither happens within the lease (the client, or
//! the instance that answered it, is gone), it is offered again. An item that was pushed with a key is
//! remembered for a day, so that pushing it again does nothing.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::model::ObjectId;
use crate::quota::{Over, Share};

/// Items of one list.
pub const MOST_ITEMS: u64 = 10_000;
/// Bytes of the items of one list.
pub const MOST_BYTES: u64 = 64 << 20;
/// Lists that are not empty. This only bounds the server: what users may have is their share, and it takes hundreds of them,
/// or twenty superusers, to get here.
pub const MOST_LISTS: u64 = 20_000;
/// How long a key is remembered, in seconds.
pub const KEY_SECONDS: i64 = 24 * 3600;

/// Where queues are kept. The limits hold about: pushes at the same moment may exceed them by their number.
#[async_trait]
pub trait Queues {
    /// Appends an item.
    async fn push_item(&self, item: &NewItem) -> Result<Pushed>;
    /// Leases the first item of the list that nobody has, if there is one.
    async fn take_item(&self, list: &str, lease: Duration) -> Result<Option<Leased>>;
    /// Removes a leased item for good. False if the lease has ended and the item was given to somebody else, or is
    /// gone.
    async fn remove_item(&self, lease: &Lease) -> Result<bool>;
    /// Ends a lease: the item is offered again at its old place. The list that it is in; `None` where
    /// [`Queues::remove_item`] says false.
    async fn release_item(&self, lease: &Lease) -> Result<Option<String>>;
    /// Lets a lease begin anew, for so long from now on. False where [`Queues::remove_item`] says so.
    async fn extend_item(&self, lease: &Lease, for_so_long: Duration) -> Result<bool>;
    /// The lists that are not empty, by name; some may be left out whose items have yet to be counted.
    async fn queues(&self) -> Result<Vec<Depth>>;
    /// In how many lists there are items that this user has pushed, and how many bytes they have.
    async fn count_queues(&self, user: ObjectId) -> Result<(u64, u64)>;
    /// Removes what this user has pushed and nobody has in hand.
    async fn delete_items_of(&self, user: ObjectId) -> Result<()>;
}

/// An item to append.
#[derive(Clone, Debug)]
pub struct NewItem {
    /// The list.
    pub list: String,
    /// The item as JSON text.
    pub json: String,
    /// Makes a repetition of the same push harmless: what the client chose, with whom and for which list.
    pub key: Option<String>,
    /// What the push with this key asks for, in a few bytes; a repetition that asks for something else is refused (422).
    pub fingerprint: String,
    /// Who pushes it, and how much they may have in queues; `None`: it counts for nobody.
    pub share: Option<Share>,
}

/// How a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the list, now or since an earlier push with the same key.
    Done,
    /// The list has too many items or bytes.
    Full,
    /// There are too many lists.
    TooManyLists,
    /// Who pushes it has as much in queues as they may have.
    Over(Over),
}

/// An item in somebody's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// What to remove or release it with.
    pub lease: Lease,
    /// The item as JSON text.
    pub json: String,
    /// How often it has been given to somebody, this time included.
    pub deliveries: u64,
}

/// One holding of one item; clients see it as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The item's number.
    pub item: u64,
    /// Identifies the holding.
    pub token: String,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.item, self.token)
    }
}

impl FromStr for Lease {
    type Err = Error;
    fn from_str(text: &str) -> Result<Lease> {
        let wrong = || Error::invalid("lease", "expected the `lease` that queue.pop has answered");
        let (item, token) = text.split_once('-').ok_or_else(wrong)?;
        let good = token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let item = item.parse().ok().filter(|item| good && i64::try_from(*item).is_ok()).ok_or_else(wrong)?;
        Ok(Lease { item, token: token.to_owned() })
    }
}

/// What is in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The list.
    pub list: String,
    /// Its items, leased ones included.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}
