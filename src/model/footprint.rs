//! How much memory something takes, and who keeps it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Map, Value};

/// What an allocation costs besides its bytes, about.
const ALLOCATION: usize = 16;
/// A member of a JSON object has a hash beside key and value, and a place in the table of hashes.
const MEMBER: usize = size_of::<(u64, String, Value)>() + 2 * size_of::<usize>();

/// About how many bytes a JSON value has on the heap.
// Recursion: nodes and events are about a hundred levels deep at most.
pub fn heap(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => allocated(text.capacity()),
        Value::Array(items) => {
            allocated(items.capacity() * size_of::<Value>()) + items.iter().map(heap).sum::<usize>()
        }
        Value::Object(members) => of_members(members),
    }
}

/// The same of the members of an object.
pub fn of_members(members: &Map<String, Value>) -> usize {
    // Both the list of members and the table grow by doubling.
    let room = members.len().next_power_of_two();
    let one = |(key, value): (&String, &Value)| allocated(key.capacity()) + heap(value);
    if members.is_empty() { 0 } else { allocated(room * MEMBER) + members.iter().map(one).sum::<usize>() }
}

fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + ALLOCATION }
}

/// Bytes that somebody keeps, which count for everybody together as well.
#[derive(Debug, Default)]
pub struct Account {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

impl Account {
    /// One that nothing is on; `all` is what all have together.
    pub fn part_of(all: &Arc<AtomicUsize>) -> Arc<Account> {
        Arc::new(Account { own: AtomicUsize::new(0), all: all.clone() })
    }

    /// Bytes that are kept here.
    pub fn bytes(&self) -> usize {
        // Below nothing for a moment: what was let go may be added after it was taken off.
        read(&self.own)
    }

    fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Relaxed);
        self.all.fetch_add(bytes, Relaxed);
    }

    fn take_off(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Relaxed);
        self.all.fetch_sub(bytes, Relaxed);
    }
}

/// Reads a sum of additions and subtractions that may be seen in another order.
pub fn read(sum: &AtomicUsize) -> usize {
    usize::try_from(sum.load(Relaxed).cast_signed()).unwrap_or(0)
}

/// How much one thing takes, which may grow, and on whose account that is.
#[derive(Debug, Default)]
pub struct Footprint {
    bytes: AtomicUsize,
    account: std::sync::OnceLock<Arc<Account>>,
}

/// Nobody keeps it any more.
const GONE: usize = usize::MAX;

impl Footprint {
    /// Of something of this size.
    pub fn of(bytes: usize) -> Footprint {
        Footprint { bytes: bytes.into(), account: std::sync::OnceLock::new() }
    }

    /// It has grown.
    pub fn grew(&self, bytes: usize) {
        let grown = |now: usize| (now != GONE).then(|| now.saturating_add(bytes));
        if self.bytes.fetch_update(Relaxed, Relaxed, grown).is_ok()
            && let Some(account) = self.account.get()
        {
            account.add(bytes);
        }
    }

    /// From now on somebody keeps it; to be called before others have it, and once.
    pub fn keep(&self, account: &Arc<Account>) {
        if self.account.set(account.clone()).is_ok() {
            account.add(self.bytes.load(Relaxed));
        }
    }

    /// Nobody keeps it any more, though some may still use it.
    pub fn let_go(&self) {
        let bytes = self.bytes.swap(GONE, Relaxed);
        if let Some(account) = self.account.get().filter(|_| bytes != GONE) {
            account.take_off(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_counted_until_it_is_let_go() {
        let all = Arc::default();
        let (one, other) = (Account::part_of(&all), Account::part_of(&all));
        let (small, large) = (Footprint::of(10), Footprint::of(1000));
        small.grew(5);
        small.keep(&one);
        large.keep(&other);
        large.grew(500);
        assert_eq!((one.bytes(), other.bytes(), read(&all)), (15, 1500, 1515));
        large.let_go();
        large.let_go();
        large.grew(7);
        assert_eq!((one.bytes(), other.bytes(), read(&all)), (15, 0, 15));
    }

    #[test]
    fn a_value_takes_much_more_than_its_text() {
        let members: Map<String, Value> = (0..129).map(|n| (format!("k{n}"), n.into())).collect();
        let many = Value::Object(members);
        let text = many.to_string().len();
        assert!((8 * text..30 * text).contains(&heap(&many)), "{} of {text}", heap(&many));
        let long = Value::from("x".repeat(10_000));
        assert!((10_000..11_000).contains(&heap(&long)));
        assert_eq!(heap(&Value::from(1)), 0);
        assert!(heap(&serde_json::json!([1, 2, 3])) >= 3 * size_of::<Value>());
    }
}
