//! What the integration tests share: [`Server`] runs the real binary on either back end, [`Raw`] talks to it over a
//! WebSocket and knows nothing of our own client, [`both_backends`] makes one test out of each back end.
//!
//! The production back end needs MongoDB and Redis: `scripts/test` starts them; in between,
//! `scripts/services start` keeps them running for plain `cargo nextest run`.

// The benchmarks use a part of this.
#![allow(dead_code, unused_imports, unused_macros, unreachable_pub)]

mod age;
mod http;
mod mail;
mod people;
mod pool;
mod proxy;
mod raw;
mod server;
mod services;
mod traces;
mod wait;

pub use http::{Answer, Http, answer};
pub use mail::{Mail, MailServer, Protection};
pub use pool::{Database, For};
pub use proxy::{Mode, Proxy};
pub use raw::{Lost, Raw};
pub use server::{Backend, PASSWORD, PerBackend, SECRET, Server, binary};
pub use services::{services, to_redis};
pub use wait::{Looks, PATIENCE, another_moment, eventually, eventually_within, soon, until, until_within};

use std::fs::File;
use std::io::Write;

use kernelci_live::event_log::EventLog;
use kernelci_live::model::Event;
use serde_json::{Value, json};

/// Makes `async fn name(server: Server) {…}` a test per back end, `name::embedded` and `name::production`:
///
/// ```ignore
/// #[apply(both_backends!)]
/// async fn a_node_is_found(server: Server) {…}
/// ```
///
/// The argument is anything that is [`PerBackend`]. With `backend: Backend` the test starts its servers itself, for
/// instance with settings.
macro_rules! both_backends {
    ($(#[$attribute:meta])* async fn $name:ident($($argument:ident)+ : $type:ty) $body:block) => {
        $(#[$attribute])*
        mod $name {
            use super::*;

            async fn run($($argument)+: $type) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                run(<$type as $crate::support::PerBackend>::on($crate::support::Backend::Embedded).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn production() {
                run(<$type as $crate::support::PerBackend>::on($crate::support::Backend::Production).await).await;
            }
        }
    };
}
pub(crate) use both_backends;

/// As [`both_backends`], for what measures time or needs much of the machine: by their names, `name::in_pairs::embedded`
/// and `name::in_pairs::production`, `.config/nextest.toml` knows that they run behind the others, two at a time, and may
/// try again.
macro_rules! both_backends_in_pairs {
    ($(#[$attribute:meta])* async fn $name:ident $arguments:tt $body:block) => {
        $(#[$attribute])*
        mod $name {
            use super::*;

            $crate::support::both_backends! { async fn in_pairs $arguments $body }
        }
    };
}
pub(crate) use both_backends_in_pairs;

/// The same for a test as it is, which becomes `name::in_pairs`; it stands above `#[tokio::test]`.
macro_rules! in_pairs {
    ($(#[$attribute:meta])* async fn $name:ident() $body:block) => {
        mod $name {
            use super::*;

            $(#[$attribute])*
            async fn in_pairs() $body
        }
    };
}
pub(crate) use in_pairs;

/// A small valid node of this kind.
pub fn node(kind: &str, name: &str) -> Value {
    json!({"kind": kind, "name": name, "path": [name], "data": {}})
}

/// Publishes an event and returns its number. An instance gives none within the seconds that it waits where a machine
/// stands still; a second try finds the same event.
pub async fn published(log: &dyn EventLog, event: Event) -> u64 {
    let mut looks = Looks::new(PATIENCE, "the number of an event");
    loop {
        match log.publish(event.clone()).await {
            Ok(Some(number)) => return number,
            other => looks.rest(&other).await,
        }
    }
}

/// Keeps for the end of `scripts/test` what this machine does not allow to be tested.
pub fn not_tested(what: &str) {
    println!("not tested: {what}");
    if let Some(file) = std::env::var_os("NOT_TESTED") {
        let line = format!("{what}\n");
        let written = File::options().create(true).append(true).open(file);
        written.and_then(|mut file| file.write_all(line.as_bytes())).expect("it is written");
    }
}
