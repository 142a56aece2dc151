//! What differs from one run to the next, replaced by its kind.
//!
//! Ids and tokens are numbered in the order in which a page mentions them, so that one sees which are the same; of times
//! the form stays. Numbers and opaque texts are replaced where their name says that they are such.

use regex::{Captures, Regex};
use serde_json::Value;

/// Members whose number nobody can foresee.
const NUMBERS: &[&str] = &["expires_in", "in_ms", "lag_seconds", "sub_id", "subscription"];
/// Members with a text that only the server can read.
const OPAQUE: &[&str] = &["after", "epoch", "instance", "lease", "next", "session"];

/// Replaces for one page.
pub(super) struct Redactor {
    patterns: Vec<(&'static str, Regex)>,
    numbered: Vec<(&'static str, String)>,
    time: Regex,
    host: Regex,
    filling: Regex,
}

impl Redactor {
    pub(super) fn new() -> Redactor {
        let regex = |text: &str| Regex::new(text).expect("a pattern");
        Redactor {
            // Those of tokens first: there may be anything in a token.
            patterns: vec![
                ("token", regex(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+")),
                ("uuid", regex(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")),
                ("epoch", regex(r"\b[0-9a-f]{32}\b")),
                ("id", regex(r"\b[0-9a-f]{24}\b")),
                ("number", regex(r"\b\d{9,12}\b")),
            ],
            numbered: Vec::new(),
            time: regex(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"),
            host: regex(r"127\.0\.0\.1:\d+"),
            filling: regex(r"x{100,}"),
        }
    }

    /// In all texts and numbers of a message.
    pub(super) fn json(&mut self, value: &mut Value) {
        match value {
            Value::Object(members) => {
                // A share of what the machine has.
                let is_share = members.contains_key("taken");
                for (name, value) in members {
                    match value {
                        Value::Number(_) if is_share || NUMBERS.contains(&name.as_str()) => {
                            *value = "[number]".into();
                        }
                        // The id of a long poll; those of requests are small.
                        Value::Number(id) if name == "id" && id.as_u64().is_some_and(|id| id > 1_000_000) => {
                            *value = "[number]".into();
                        }
                        // What has blanks is made up.
                        Value::String(text) if OPAQUE.contains(&name.as_str()) && !text.contains(' ') => {
                            *value = format!("[{name}]").into();
                        }
                        _ => self.json(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::String(text) => *text = self.text(text),
            _ => {}
        }
    }

    /// In a text that is no JSON.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (kind, pattern) in &self.patterns {
            let numbered = &mut self.numbered;
            let replace = |found: &Captures<'_>| name(numbered, kind, &found[0]);
            text = pattern.replace_all(&text, replace).into_owned();
        }
        let text = self.time.replace_all(&text, form);
        self.filling.replace_all(&self.hosts(&text), "x…").into_owned()
    }

    /// Addresses of servers under test, and nothing else.
    pub(super) fn hosts(&self, text: &str) -> String {
        self.host.replace_all(text, "[host]").into_owned()
    }
}

/// The form of a time. One in a thousand has no milliseconds and is written without a fraction: those that tests make up
/// are at midnight, all others would have had one at another moment.
fn form(time: &Captures<'_>) -> String {
    let form = time[0].replace(|digit: char| digit.is_ascii_digit(), "0");
    if form == "0000-00-00T00:00:00" && !time[0].ends_with("T00:00:00") { form + ".000000" } else { form }
}

/// `[kind n]`, the same for the same text.
fn name(numbered: &mut Vec<(&'static str, String)>, kind: &'static str, found: &str) -> String {
    // A made-up one is the same in every run.
    if found == super::book::ABSENT {
        return found.to_owned();
    }
    let of_kind = |numbered: &[(&'static str, String)], until: usize| {
        numbered[..until].iter().filter(|(of, _)| *of == kind).count() + 1
    };
    let known = numbered.iter().position(|(of, text)| *of == kind && text == found);
    let at = known.unwrap_or_else(|| {
        numbered.push((kind, found.to_owned()));
        numbered.len() - 1
    });
    format!("[{kind} {}]", of_kind(numbered, at))
}

#[test]
fn a_time_has_its_form_at_any_moment() {
    let mut redactor = Redactor::new();
    for (time, form) in [
        ("2026-11-30T21:14:03.120000", "0000-00-00T00:00:00.000000"),
        ("2026-11-30T21:14:03", "0000-00-00T00:00:00.000000"),
        ("2026-11-30T21:14:03.120000+00:00", "0000-00-00T00:00:00.000000+00:00"),
        ("2026-11-30T21:14:03Z", "0000-00-00T00:00:00Z"),
        ("2099-01-01T00:00:00", "0000-00-00T00:00:00"),
    ] {
        assert_eq!(redactor.text(time), form);
    }
}
