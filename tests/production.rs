//! What only the production back end has: KernelCI's own database, several instances, Redis that forgets, and
//! instances that die between the steps of the relay.
//!
//! Needs MONGO_URL, REDIS_URL and MONGOD_BIN (a standalone `mongod` is started for the one test of it): run
//! `scripts/test production::`.

mod atomic;
mod interleavings;
mod layout;
mod loss;
mod relay;
mod standalone;
mod support;
