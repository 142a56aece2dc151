//! What existing clients and databases depend on: golden requests and answers over REST, row by row.

mod address;
mod events;
mod examples;
mod groups;
mod hierarchies;
mod invitations;
mod kv;
mod logins;
mod mailed_tokens;
mod marking;
mod metrics;
mod nodes;
mod old_database;
mod pages;
mod polling;
mod polling_by_name;
mod purge;
mod queries;
mod queues;
mod request_ids;
mod retention;
mod telemetry;
mod tokens;
mod transports;
mod users;
mod validation;
