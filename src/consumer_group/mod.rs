//! Groups: several connections share one named consumer, and each event goes to one of them.
//!
//! * [`state`]: what a group knows and what may happen to it, as a pure state machine. It exists once; the store keeps it
//!   as text ([`crate::store::ConsumerGroups`]), and whoever changes it writes on the condition that nobody else has.
//! * [`settings`]: what all members have to agree on.
//! * `coordinator`: a task per group and instance acts for the members there, in steps that `plan` thinks through.
//! * [`member`]: what a session holds.
//! * [`registry`]: the groups of this instance.
//! * [`dead_letter`]: where events end that nobody could work on.
//!
//! # What holds
//!
//! An event that matches is given to one member, on a lease. Until it is acknowledged it comes again: at once when its
//! member has left, else when the lease has ended. Two members have one event at the same time only if the first one goes
//! on after its lease has ended; what it says then is refused. With `ordered`, an event is not given out before those
//! of its tree that come earlier are done.
//!
//! Leases go by the store's clock. If that jumps ahead, events come a second time too early; if it is set back, what a
//! crashed member held comes later, by one lease at most. Nothing is lost either way.

mod clock;
mod coordinator;
pub mod dead_letter;
mod item;
pub mod member;
mod missed;
mod plan;
pub mod registry;
pub mod settings;
pub mod state;

pub use coordinator::{read, topic};
pub use member::{Delivery, Ended, Gap, Member, Said, Verdict};
pub use registry::{Groups, Joined, Parts};
pub use settings::{Settings, Wish};
pub use state::Stalled;
