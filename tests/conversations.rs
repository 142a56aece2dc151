//! Recorded conversations of `kernelci.v1.json`, replayed: what clients of that day send, and what they rely on.
//!
//! Each file of `tests/conversations/` is a scenario. What it sends goes over a raw WebSocket as it stands; what comes has
//! to have every member that was recorded, with the same value or the same kind of value. The server may add members and
//! further notifications; it may not take away, rename or retype anything ([`expect`]). [`script`] has the form.
//!
//! A new conversation is written as what the client sends, and `RECORD=1 scripts/test conversations::` adds the answers.
//! A recorded one is never written again: whoever has to change it is about to break the clients that are out there.

mod expect;
mod record;
mod replay;
mod script;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use macro_rules_attribute::apply;
use serde_json::json;

use crate::support::{Backend, PASSWORD, Server, both_backends_in_pairs};
use expect::Variables;
use script::Script;

/// The files, in the order of their names.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    files.sort_unstable();
    files
}

/// What scripts may speak of before they have heard it.
async fn known(server: &Server) -> Variables {
    let mut known = Variables::default();
    known.set("password", json!(PASSWORD));
    known.set("token", json!(server.token().await));
    known.set("refreshed", json!(server.token_for(86_400).await));
    known.set("expired", json!(server.token_for(-60).await));
    known.set("bob", json!(server.user("bob").await));
    known.set("large", json!("x".repeat(1 << 20)));
    known
}

/// Old clients go on working.
#[apply(both_backends_in_pairs!)]
async fn are_held_as_ever(backend: Backend) {
    let mut by_settings: BTreeMap<Vec<(String, String)>, Vec<Script>> = BTreeMap::new();
    for path in files() {
        let script = Script::read(&path);
        by_settings.entry(script.settings.clone()).or_default().push(script);
    }
    assert!(by_settings.values().map(Vec::len).sum::<usize>() >= 20, "there are conversations");
    let recording = std::env::var("RECORD").is_ok_and(|value| value == "1");
    let mut failed = Vec::new();
    // Scenarios have names and channels of their own, so those with the same settings share a server.
    for (settings, scripts) in &by_settings {
        let settings: Vec<_> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
        let server = Server::start_with(backend, &settings).await;
        let mut known = known(&server).await;
        for script in scripts {
            // Good for less than the minute before which a session is told.
            known.set("short", json!(server.token_for(50).await));
            let held = match (script.is_recorded, recording && backend == Backend::Embedded) {
                (true, _) => replay::replay(&server, script, known.clone()).await,
                (false, true) => record::record(&server, script, known.clone()).await,
                (false, false) => Err("it has no answers yet: record it".to_owned()),
            };
            failed.extend(held.err().map(|error| format!("{}: {error}", script.name)));
        }
    }
    assert!(failed.is_empty(), "{} of the conversations fail:\n{}", failed.len(), failed.join("\n"));
}
