//! The contract of `Store` and `EventLog`: one body of cases, run against every back end.
//!
//! The production half needs MONGO_URL and REDIS_URL: run `scripts/test store::`.

mod channel_owners;
mod commits;
mod consumer_groups;
mod consumers;
mod embedded;
mod groups_at_work;
mod history;
mod leases;
mod log;
mod queries;
mod queues;
mod support;
mod tokens;
mod users;
