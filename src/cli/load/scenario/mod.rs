//! What can be measured, a file each.

pub(super) mod bare;
pub(super) mod connect;
pub(super) mod driver;
pub(super) mod events;
pub(super) mod hierarchy;
pub(super) mod idle;
pub(super) mod mixed;
pub(super) mod requests;
pub(super) mod resume;
