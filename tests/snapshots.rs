//! What clients see, kept as files: every message of the wire, the documents, the help, the metrics.
//!
//! To accept a change, run `INSTA_UPDATE=always scripts/test snapshots::` and commit what `git diff` then shows.
//!
//! A test notes messages on named pages and hands a folder of them to [`compare`]. Whatever differs from one run to the
//! next is replaced by its kind ([`redact`]), so both back ends have the same pages. A page that no test writes any more
//! fails that folder's test by name, and so does a method, notification, error or close code without a page.

mod book;
mod closes;
mod command_line;
mod documents;
mod errors;
mod events;
mod feeds;
mod metrics;
mod nodes;
mod notifications;
mod redact;
mod services;
mod users;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The pages of a test by name.
pub(crate) type Pages = BTreeMap<String, String>;

/// Compares pages with the snapshots of `tests/snapshots/<folder>`; those of them that are `ours` have to be all pages.
/// Everything that differs is told at once.
pub(crate) fn compare(folder: &str, pages: &Pages, ours: impl Fn(&str) -> bool) {
    let mut wrong = Vec::new();
    for (name, text) in pages {
        assert!(ours(name), "{folder}/{name} is another test's");
        let kept = || {
            insta::with_settings!({
                snapshot_path => format!("snapshots/{folder}"),
                prepend_module_to_snapshot => false,
                omit_expression => true,
            }, {
                insta::assert_snapshot!(name.as_str(), text);
            });
        };
        if catch_unwind(AssertUnwindSafe(kept)).is_err() {
            wrong.push(format!("{folder}/{name} differs"));
        }
    }
    let left_over = kept(folder).into_iter().filter(|name| ours(name) && !pages.contains_key(name));
    wrong.extend(left_over.map(|name| format!("{folder}/{name} is written by no test: remove it")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names of the snapshots in a folder.
fn kept(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(folder);
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    names.filter_map(|name| Some(name.strip_suffix(".snap")?.to_owned())).collect()
}

/// The folders are all in use: what lies in another one is compared with nothing.
#[test]
fn no_folder_is_forgotten() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let folders = std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry"));
    let folders = folders.filter(|entry| entry.file_type().expect("a type").is_dir());
    let mut folders: Vec<_> = folders.map(|entry| entry.file_name().into_string().expect("text")).collect();
    folders.sort_unstable();
    assert_eq!(folders, ["closes", "documents", "errors", "feeds", "help", "methods", "notifications"]);
}

/// Each method of the table is in one of the books; the books themselves see to it that all of theirs are noted.
#[test]
fn every_method_has_a_page() {
    let books = [nodes::METHODS, users::METHODS, events::METHODS, services::METHODS].concat();
    for operation in kernelci_live::ops::table().iter() {
        let name = operation.name;
        let count = books.iter().filter(|prefix| name.starts_with(**prefix)).count();
        assert_eq!(count, 1, "{name} has to be noted by one test of tests/snapshots");
    }
}
