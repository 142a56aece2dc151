//! The examples of the docs page (`web/examples.json`), done on a real server.
//!
//! In them `"<name>"` stands for a value: whatever is there where it comes up first, the same ever after. `"…"` is
//! anything; as a key it allows further members, at the end of a list further items.

use std::collections::HashMap;

use macro_rules_attribute::apply;
use serde_json::{Map, Value};

use crate::support::{Http, PATIENCE, Raw, Server, answer, both_backends};

#[derive(Default)]
struct Known(HashMap<String, Value>);

impl Known {
    /// The value with everything known put in.
    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match self.0.get(text) {
                Some(known) => known.clone(),
                None => self.fill_text(text).into(),
            },
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(key, value)| (key.clone(), self.fill(value)))
                .collect::<Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    fn fill_text(&self, text: &str) -> String {
        let texts = self.0.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
        let filled = texts.fold(text.to_owned(), |text, (name, value)| text.replace(name.as_str(), value));
        assert!(!filled.contains('<'), "{filled} is not known yet");
        filled
    }

    /// Holds what came against what is shown, and learns from it.
    fn check(&mut self, shown: &Value, came: &Value, at: &str) {
        match (shown, came) {
            (Value::String(text), _) if text == "…" => {}
            (Value::String(text), _) if text.starts_with('<') && text.ends_with('>') => {
                let known = self.0.entry(text.clone()).or_insert_with(|| came.clone());
                assert_eq!(came, known, "{at}: {text}");
            }
            (Value::Object(shown), Value::Object(came)) => {
                for (key, shown) in shown.iter().filter(|(key, _)| *key != "…") {
                    let there = came.get(key).unwrap_or_else(|| panic!("{at}.{key} is missing in {came:?}"));
                    self.check(shown, there, &format!("{at}.{key}"));
                }
                let more = came.keys().find(|key| !shown.contains_key(*key));
                assert!(more.is_none() || shown.contains_key("…"), "{at}: {more:?} is not shown");
            }
            (Value::Array(shown), Value::Array(came)) => {
                let open = shown.last().is_some_and(|last| last == "…");
                let wanted = shown.len() - usize::from(open);
                assert!(came.len() == wanted || (open && came.len() > wanted), "{at}: {} items", came.len());
                for (place, (shown, came)) in shown.iter().take(wanted).zip(came).enumerate() {
                    self.check(shown, came, &format!("{at}[{place}]"));
                }
            }
            _ => assert_eq!(came, shown, "{at}"),
        }
    }

    async fn request(&mut self, http: &Http, step: &Value, at: &str) {
        let asked = &step["request"];
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{at}: a text")).to_owned();
        let mut request = http.request(&text(&asked["method"]), &self.fill_text(&text(&asked["path"])));
        for (name, value) in asked["headers"].as_object().into_iter().flatten() {
            request = request.header(name, self.fill_text(&text(value)));
        }
        if let Some(fields) = asked.get("form") {
            request = request.form(&self.fill(fields));
        }
        if let Some(body) = asked.get("json") {
            request = request.json(&self.fill(body));
        }
        let came = answer(request).await;
        assert_eq!(came.status, step["answer"]["status"], "{at}: {}", came.text);
        for (name, value) in step["answer"]["headers"].as_object().into_iter().flatten() {
            let header = came.headers.get(name).and_then(|value| value.to_str().ok());
            assert_eq!(header, value.as_str(), "{at}: {name}");
        }
        match step["answer"].get("json") {
            Some(shown) => self.check(shown, &came.json, at),
            None => assert_eq!(came.text, "", "{at}"),
        }
    }

    async fn receive(&mut self, socket: &mut Raw, shown: &Value, at: &str) {
        match shown["method"].as_str() {
            Some(method) => {
                let params = socket.next_notification(method, PATIENCE).await;
                self.check(&shown["params"], &params, at);
            }
            None => {
                let came = socket.answer(shown["id"].clone()).await;
                self.check(shown, &came, at);
            }
        }
    }
}

#[apply(both_backends!)]
async fn what_the_docs_page_shows_is_what_happens(server: Server) {
    let examples: Vec<Value> = serde_json::from_str(include_str!("../../web/examples.json")).unwrap();
    let http = Http::new(&server);
    let mut known = Known::default();
    known.0.insert("<password>".into(), crate::support::PASSWORD.into());
    for example in examples {
        let mut socket = None;
        for (number, step) in example["steps"].as_array().unwrap().iter().enumerate() {
            let at = format!("{} {number}", example["id"]);
            if step.get("request").is_some() {
                known.request(&http, step, &at).await;
                continue;
            }
            if socket.is_none() {
                socket = Some(server.connect().await);
            }
            let socket = socket.as_mut().unwrap();
            match step.get("send") {
                Some(message) => socket.send_text(known.fill(message).to_string()).await,
                None => known.receive(socket, &step["receive"], &at).await,
            }
        }
    }
}
