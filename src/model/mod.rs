//! What the data is: nodes and their kinds, events, users, tokens. No I/O, nothing of stores or transports.

pub mod email;
pub mod event;
pub mod footprint;
#[cfg(test)]
mod fuzz;
pub(crate) mod lax;
pub mod node;
pub(crate) mod problem;
pub mod telemetry;
pub mod timestamp;
pub mod token;
pub mod user;
pub mod username;

pub use bson::oid::ObjectId;
pub use event::{Event, NODE_CHANNEL, Position};
pub use node::Node;
pub use timestamp::{EventTime, Timestamp};
pub use token::{NamedToken, Scope};
pub use user::User;
