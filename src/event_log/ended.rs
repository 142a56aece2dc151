//! What is remembered of channels that have ended, all its events being older than is kept.
//!
//! Whoever has stood in such a channel may come back when it has begun again, and must not take other events for those
//! behind its place. So numbers go on where they were: a channel begins behind the highest number that any channel with
//! the same *place* had when it ended. There are few places, so this stays small whatever names are thought of; channels
//! that share one cost each other nothing but numbers.

/// How many places there are.
pub(crate) const PLACES: u64 = 1024;

/// The place of a channel: the same one for ever, on any machine (FNV-1a).
pub(crate) fn place(channel: &str) -> u16 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    (channel.bytes().fold(0xcbf2_9ce4_8422_2325, step) % PLACES) as u16
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn a_place_stays_where_it_is() {
        assert_eq!([place("node"), place("lab"), place("")], PINNED);
        let places: std::collections::HashSet<u16> = (0..20_000).map(|n| place(&format!("ch-{n}"))).collect();
        assert_eq!(places.len(), 1024, "all of them are used");
    }

    // They are written down in databases.
    const PINNED: [u16; 3] = [685, 948, 805];
}
