//! Notes what is said on sessions: a page a method, or a page a notification.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::redact::Redactor;
use super::{Pages, compare};
use crate::support::{PATIENCE, Raw};

/// An id that nothing has.
pub(crate) const ABSENT: &str = "0123456789abcdef01234567";

/// Pages that are being written.
#[derive(Default)]
pub(crate) struct Book {
    pages: BTreeMap<String, Page>,
}

struct Page {
    text: String,
    redactor: Redactor,
}

impl Book {
    /// Writes a frame to a page.
    pub(crate) fn frame(&mut self, page: &str, arrow: &str, frame: &Value) {
        let page = self.page(page);
        let mut frame = frame.clone();
        page.redactor.json(&mut frame);
        let frame = serde_json::to_string_pretty(&frame).expect("JSON");
        page.text += &format!("{arrow} {frame}\n");
    }

    /// Writes a line to a page.
    pub(crate) fn line(&mut self, page: &str, line: &str) {
        let page = self.page(page);
        let line = page.redactor.text(line);
        page.text += &format!("{line}\n");
    }

    /// Begins a part of a page.
    pub(crate) fn about(&mut self, page: &str, about: &str) {
        let page = self.page(page);
        let blank = if page.text.is_empty() { "" } else { "\n" };
        page.text += &format!("{blank}# {about}\n");
    }

    /// Sends a request and notes it with its answer on the page of its method; the result.
    pub(crate) async fn ask(&mut self, raw: &mut Raw, about: &str, method: &str, params: Value) -> Value {
        let mut answer = self.ask_on(method, raw, about, method, params).await;
        assert!(answer.get("error").is_none(), "{about}: {answer}");
        answer["result"].take()
    }

    /// As [`Book::ask`], where an error is due.
    pub(crate) async fn refused(&mut self, raw: &mut Raw, about: &str, method: &str, params: Value) {
        let answer = self.ask_on(method, raw, about, method, params).await;
        assert!(answer.get("error").is_some(), "{about}: {answer}");
    }

    /// Sends a request and notes it with its answer on any page; the whole answer.
    pub(crate) async fn ask_on(
        &mut self,
        page: &str,
        raw: &mut Raw,
        about: &str,
        method: &str,
        params: Value,
    ) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params});
        raw.send_text(request.to_string()).await;
        let answer = raw.answer(method).await;
        self.about(page, about);
        self.frame(page, "→", &request);
        self.frame(page, "←", &answer);
        answer
    }

    /// Notes the next notification of this method on the page of its name; its parameters.
    pub(crate) async fn told(&mut self, raw: &mut Raw, about: &str, method: &str) -> Value {
        let params = raw.next_notification(method, PATIENCE).await;
        self.notification(about, method, &params);
        params
    }

    /// Notes a notification that came.
    pub(crate) fn notification(&mut self, about: &str, method: &str, params: &Value) {
        self.about(method, about);
        self.frame(method, "←", &json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// What was written.
    pub(crate) fn pages(self) -> Pages {
        self.pages.into_iter().map(|(name, page)| (name, page.text)).collect()
    }

    /// Compares the pages of methods; all whose names begin like this have to be there.
    pub(crate) fn close(self, methods: &[&str]) {
        let ours = |name: &str| methods.iter().any(|prefix| name.starts_with(prefix));
        let pages = self.pages();
        let table = kernelci_live::ops::table();
        let missing: BTreeSet<&str> = table
            .iter()
            .map(|operation| operation.name)
            .filter(|name| ours(name) && !pages.contains_key(*name))
            .collect();
        assert!(missing.is_empty(), "methods that no test asks: {missing:?}");
        for name in pages.keys() {
            assert!(table.get(name).is_ok(), "there is no method {name}");
        }
        compare("methods", &pages, ours);
    }

    fn page(&mut self, name: &str) -> &mut Page {
        let new = || Page { text: String::new(), redactor: Redactor::new() };
        self.pages.entry(name.to_owned()).or_insert_with(new)
    }
}
