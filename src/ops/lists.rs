//! How many long lists are read at a time: each holds a piece of megabytes for as long as its reader takes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::quota::{Holder, Width};
use crate::sync::lock;

/// A list that nobody has read from for so long loses its place to one that somebody wants.
const IDLE: Duration = Duration::from_secs(20);

/// The places of one server.
#[derive(Clone)]
pub struct Lists {
    width: Width,
    taken: Arc<Mutex<Vec<Taken>>>,
}

struct Taken {
    number: u64,
    holder: Holder,
    used: Instant,
}

/// A place, until it is dropped.
pub(super) struct Place {
    lists: Lists,
    number: u64,
}

impl Lists {
    /// So many lists at a time.
    pub fn new(width: Width) -> Lists {
        Lists { width, taken: Arc::default() }
    }

    /// A place for one more list of this holder; 429 if there is none, or if the holder has its share of those that are short.
    pub(super) fn place(&self, holder: Holder) -> Result<Place> {
        let mut taken = lock(&self.taken);
        let own = taken.iter().filter(|one| one.holder == holder).count();
        let Width { server, user, address } = self.width;
        let share = if holder.is_stranger() { address } else { user };
        if own >= share && taken.len() > server / 2 {
            let detail = format!("{share} long lists of yours are being read already: read them first");
            return Err(Error::new(Kind::TooMany, detail).retry_after(5000));
        }
        let strangers = taken.iter().filter(|one| one.holder.is_stranger()).count();
        let is_full = holder.is_stranger() && strangers >= (server - server / 4).max(1);
        if is_full || taken.len() >= server {
            let may_go = |one: &Taken| one.used.elapsed() > IDLE && (!is_full || one.holder.is_stranger());
            let idle = taken.iter().position(may_go);
            let Some(idle) = idle else {
                let detail =
                    format!("{server} long lists are being read already: try again, or ask for fewer items");
                return Err(Error::new(Kind::TooMany, detail).retry_after(5000));
            };
            taken.swap_remove(idle);
        }
        let number = rand::random();
        taken.push(Taken { number, holder, used: Instant::now() });
        Ok(Place { lists: self.clone(), number })
    }
}

impl Place {
    /// Says that the list is still read; fails if it was so slow that another one has its place.
    pub(super) fn keep(&self) -> Result<()> {
        let mut taken = lock(&self.lists.taken);
        match taken.iter_mut().find(|one| one.number == self.number) {
            Some(one) => {
                one.used = Instant::now();
                Ok(())
            }
            None => Err(Error::new(Kind::Timeout, "the list was read too slowly")),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.lists.taken).retain(|one| one.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectId;

    const MOST: usize = 16;
    const SHARE: usize = 6;

    fn lists() -> Lists {
        Lists::new(Width { server: MOST, user: SHARE, address: SHARE })
    }

    /// Every user has a few.
    fn of(number: usize) -> Holder {
        Holder::User(ObjectId::from_bytes([number as u8 / 3; 12]))
    }

    #[test]
    fn strangers_leave_a_quarter_to_users() {
        let lists = lists();
        let _strangers: Vec<Place> =
            (0..12).map(|number| lists.place(Holder::Address(number)).unwrap()).collect();
        assert_eq!(lists.place(Holder::Address(99)).err().unwrap().status(), 429);
        lists.place(of(0)).unwrap();
    }

    #[test]
    fn one_holder_has_some_of_them() {
        let lists = lists();
        let _own: Vec<Place> = (0..=MOST / 2).map(|_| lists.place(of(0)).unwrap()).collect();
        assert_eq!(lists.place(of(0)).err().unwrap().status(), 429);
        let _others: Vec<Place> = (0..SHARE).map(|_| lists.place(of(50)).unwrap()).collect();
        assert_eq!(lists.place(of(50)).err().unwrap().status(), 429);
        lists.place(of(99)).unwrap();
    }

    #[test]
    fn places_are_few_and_idle_ones_are_taken_over() {
        let lists = lists();
        let mut places: Vec<Place> = (0..MOST).map(|n| lists.place(of(n)).unwrap()).collect();
        let refused = lists.place(of(99)).err().unwrap();
        assert_eq!(refused.status(), 429);
        places.pop();
        places.push(lists.place(of(99)).unwrap());
        let long_ago = Instant::now().checked_sub(2 * IDLE).unwrap();
        lock(&lists.taken).iter_mut().find(|one| one.number == places[3].number).unwrap().used = long_ago;
        let place = lists.place(of(99)).unwrap();
        assert_eq!(places[3].keep().unwrap_err().kind(), Kind::Timeout);
        place.keep().unwrap();
        drop(places);
        assert_eq!(lock(&lists.taken).len(), 1);
    }
}
