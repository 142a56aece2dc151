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
mod wait;

pub use http::{Answer, Http, answer};
pub use mail::{Mail, MailServer, Protection};
pub use proxy::{Mode, Proxy};
pub use raw::{Lost, Raw};
pub use server::{Backend, PASSWORD, PerBackend, SECRET, Server};
pub use services::services;
pub use wait::{Looks, PATIENCE, another_moment, eventually, eventually_within, soon, until, until_within};

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

/// A small valid node of this kind.
pub fn node(kind: &str, name: &str) -> Value {
    json!({"kind": kind, "name": name, "path": [name], "data": {}})
}
