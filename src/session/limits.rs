//! The limits of a session: those that the settings say, and those that belong to how it works. `session.hello` tells
//! those that a client can run into.

use std::time::Duration;

/// What one session may have, as the settings say.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message of a user.
    pub message: usize,
    /// Bytes of one message of a stranger.
    pub message_of_strangers: usize,
    /// Subscriptions at a time.
    pub subscriptions: usize,
    /// Requests at a time.
    pub requests: usize,
    /// Requests at a time whose answers may be large; further ones wait for their turn. What they answer is held until
    /// the client has read it, so this times a page is what a session that asks and does not read can cost.
    pub large_answers: usize,
    /// Bytes of the regular expressions, once compiled, and lists in the filters of all its subscriptions.
    pub filters: usize,
    /// Bytes that wait for the slow socket of a user before nothing is read and no further request is finished.
    pub outgoing: usize,
    /// The same for a stranger.
    pub outgoing_of_strangers: usize,
}

impl Default for Limits {
    /// What the settings say where nothing is set.
    fn default() -> Limits {
        Limits {
            message: 1 << 20,
            message_of_strangers: 64 << 10,
            subscriptions: 128,
            requests: 32,
            large_answers: 4,
            filters: 8 << 20,
            outgoing: 4 << 20,
            outgoing_of_strangers: 1 << 20,
        }
    }
}

/// Bytes that are read from a socket at once. Every session has this buffer; longer messages get room of their own.
pub const READ_BUFFER: usize = 1 << 10;
/// Bytes of one message before hello.
pub const MESSAGE_BEFORE_HELLO: usize = 8 << 10;
/// Frames that one message may come in.
pub const FRAGMENTS: u32 = 1024;
/// Messages, and bytes, that are read before others have their turn.
pub const TURN_MESSAGES: u8 = 8;
/// See [`TURN_MESSAGES`].
pub const TURN_BYTES: usize = 64 << 10;
/// Bytes that any session may have of a message that comes in, or is worked on, however many there are.
pub const INCOMING_OF_ALL: usize = 16 << 10;
/// Bytes that may wait for the socket of any session, however many there are.
pub const OUTGOING_OF_ALL: usize = 16 << 10;
/// Bytes of events that are put to the socket at once.
pub const BATCH: usize = 64 << 10;
/// Events that are looked at before others get their turn.
pub const SCAN: usize = 256;
/// Bytes of events that are looked at before others get their turn; with a pattern they count several times.
pub const SCAN_BYTES: usize = 1 << 20;
/// A reader with `"on_slow":"latest"` that is further behind skips to now.
pub const LATEST_LAG: u64 = 1024;
/// How long the peer may take to answer our close.
pub const CLOSE: Duration = Duration::from_secs(1);
/// How long before a token's end its session is told.
pub const EXPIRY_NOTICE: Duration = Duration::from_secs(60);
/// How long a client that was told to go has for the answers that it waits for.
pub const FAREWELL: Duration = Duration::from_millis(500);
/// How long a client whose last subscription another one has taken over has to go on with something else.
pub const SUPERSEDED: Duration = Duration::from_secs(3);
/// The time over which clients that were told to go at the same moment spread their return.
pub const RETURN: Duration = Duration::from_millis(250);
