//! One WebSocket session: one task that owns the socket, its subscriptions and its requests in flight.
//!
//! ```text
//! frame in → rpc::read → operation (own task, bounded) → answer ─┐
//! hub wakes → position → ring or log → filter → event frame ─────┴→ outbox (bounded) → frame out
//! ```
//!
//! Event frames are made only while the outbox is empty and the socket takes them: a reader that does not read
//! simply stays where it is in the log.
//!
//! A session that has nothing to do lends its subscriptions to their channels ([`live`]), which write new events to the
//! socket without waking it; whenever it wakes it takes them back. Deadlines and news for all sessions reach it through
//! the [`roster`].

pub mod acks;
pub mod close;
pub mod durable;
mod event_frame;
mod frame;
#[cfg(test)]
mod fuzz;
pub mod group;
mod handle;
mod handshake;
mod inbound;
#[cfg(test)]
mod interleavings;
pub mod limits;
pub mod live;
mod order;
mod outbox;
mod outlet;
mod reading;
mod request;
pub mod roster;
pub mod subscription;
mod task;
mod timers;
mod upgrade;

pub use handle::{Handle, Reserved, Slot};
pub(crate) use handshake::{VERSION as WEBSOCKET_VERSION, asks_for_websocket, check as check_handshake};
pub use limits::Limits;
pub(crate) use timers::Unanswered;
pub use upgrade::{credentials, upgrade};
