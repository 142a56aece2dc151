//! For whom an instance follows a channel: what counts is the channel, not its readers.
//!
//! A channel that is followed costs a task, a connection to the log and a place in memory, however many read it; one
//! reader more costs next to nothing. So there is one place (`quota`) for each channel, and it is on one of those who
//! read it: whoever made the instance follow it, and when that one leaves, somebody who stays, whether that is within
//! their share or not. Nobody is refused a channel that others read already, nobody pays for one that only others read,
//! and what one user has others cannot take up.
//!
//! A channel that nobody reads stays for a while, on whoever read it last, and goes when its place is wanted.

use std::collections::HashMap;

use crate::error::Result;
use crate::quota::{Holder, Place};

/// Who reads a channel, and whose its place is.
pub(super) struct Holders {
    /// `None`: it has been given up.
    place: Option<Place>,
    readers: HashMap<Holder, usize>,
}

impl Holders {
    /// Nobody reads yet.
    pub(super) fn new(place: Place) -> Holders {
        Holders { place: Some(place), readers: HashMap::new() }
    }

    /// One more reader; 429 if nobody else reads the channel and the holder's share is taken.
    pub(super) fn add(&mut self, holder: Holder) -> Result<()> {
        if self.readers.is_empty()
            && let Some(place) = &mut self.place
        {
            place.pass_to(holder)?;
        }
        *self.readers.entry(holder).or_default() += 1;
        Ok(())
    }

    /// One less.
    pub(super) fn remove(&mut self, holder: Holder) {
        let Some(count) = self.readers.get_mut(&holder) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.readers.remove(&holder);
        if let (Some(place), Some(other)) = (&mut self.place, self.readers.keys().next())
            && place.holder() == holder
        {
            place.leave_to(*other);
        }
    }

    /// Whose its place is.
    pub(super) fn payer(&self) -> Option<Holder> {
        self.place.as_ref().map(Place::holder)
    }

    /// Gives the place back: the channel is not followed any more.
    pub(super) fn give_up(&mut self) {
        self.place = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::model::ObjectId;
    use crate::quota::{Binding, Limits, Pool};

    const ANN: Holder = Holder::User(ObjectId::from_bytes([1; 12]));
    const BOB: Holder = Holder::User(ObjectId::from_bytes([2; 12]));

    #[test]
    fn a_channel_is_on_somebody_who_reads_it() {
        let pool = Pool::new(
            "channels",
            Limits { server: 9, user: 1, address: 1, binding: Binding::Always, full: Kind::TooMany },
        );
        let has = || (pool.taken_by(ANN), pool.taken_by(BOB));
        let mut lab = Holders::new(pool.take(ANN, 1).unwrap());
        lab.add(ANN).unwrap();
        lab.add(ANN).unwrap();
        lab.add(BOB).unwrap();
        lab.remove(ANN);
        assert_eq!(has(), (1, 0), "she reads it once more");
        let mut own = Holders::new(pool.take(BOB, 1).unwrap());
        own.add(BOB).unwrap();
        lab.remove(ANN);
        assert_eq!(has(), (0, 2), "he reads both, and more than his share is not taken away");
        assert!(pool.take(BOB, 1).is_err());
        lab.remove(BOB);
        assert_eq!(lab.payer(), Some(BOB));
        lab.add(ANN).unwrap();
        assert_eq!(has(), (1, 1));
        own.remove(BOB);
        assert_eq!(own.add(ANN).unwrap_err().status(), 429, "nobody else reads it");
        lab.give_up();
        own.add(ANN).unwrap();
        assert_eq!(has(), (1, 0));
    }
}
