//! Holds a conversation as it was recorded.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::expect::Variables;
use super::script::{Script, What};
use crate::support::{Answer, Lost, PATIENCE, Raw, Server, another_moment, answer};

/// The connections of one conversation.
pub(super) struct Stage<'a> {
    server: &'a Server,
    raws: BTreeMap<String, Raw>,
    /// Answers to POST that nobody has looked at.
    pub(super) posted: VecDeque<Answer>,
    pub(super) heard: Variables,
}

impl<'a> Stage<'a> {
    pub(super) fn new(server: &'a Server, known: Variables) -> Stage<'a> {
        Stage { server, raws: BTreeMap::new(), posted: VecDeque::new(), heard: known }
    }

    /// The connection of this name, opened when it is first spoken of.
    pub(super) async fn raw(&mut self, who: &str) -> &mut Raw {
        if !self.raws.contains_key(who) {
            let raw = self.server.connect().await;
            self.raws.insert(who.to_owned(), raw);
        }
        self.raws.get_mut(who).expect("it was opened")
    }

    /// Does what the client does; false if this is not the client's step.
    pub(super) async fn act(&mut self, what: &What) -> Result<bool, String> {
        match what {
            What::AnotherMoment => another_moment().await,
            What::Send { who, text } => {
                let text = self.heard.fill(text);
                let sent = self.raw(who).await.send(Message::text(text)).await;
                sent.map_err(|error| format!("it cannot be sent: {error}"))?;
            }
            What::Post { token, text } => {
                let mut request = reqwest::Client::new().post(format!("{}/latest/rpc", self.server.url()));
                if let Some(token) = token {
                    request = request.bearer_auth(self.heard.fill(token));
                }
                self.posted.push_back(answer(request.body(self.heard.fill(text))).await);
            }
            What::Connect { who, token } => {
                let bearer = format!("Bearer {}", self.heard.fill(token));
                let headers = [("authorization", bearer.as_str())];
                let raw = Raw::connect(&self.server.ws_url(), Some("kernelci.v1.json"), &headers).await;
                let raw = raw.map_err(|error| format!("it is not let in: {error}"))?;
                self.raws.insert(who.clone(), raw);
            }
            What::Close { who } => {
                let raw = self.raw(who).await;
                let _ = raw.send(Message::Close(None)).await;
                raw.expect_close().await;
                self.raws.remove(who);
            }
            What::Closed { who, code } => {
                let closed = self.raw(who).await.expect_close().await;
                if closed != *code {
                    return Err(format!("closed with {closed}"));
                }
                self.raws.remove(who);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Says what the client says, and expects what it relies on.
pub(super) async fn replay(server: &Server, script: &Script, known: Variables) -> Result<(), String> {
    let mut stage = Stage::new(server, known);
    for step in &script.steps {
        let done = match &step.what {
            What::Come { who, message } => come(&mut stage, who, message).await,
            What::Answer { status, body } => {
                let answer = stage.posted.pop_front().expect("a POST before");
                match body {
                    _ if answer.status != *status => Err(format!("the status is {}", answer.status)),
                    Some(body) => stage.heard.check(body, &answer.json),
                    None => Ok(()),
                }
            }
            what => stage.act(what).await.map(drop),
        };
        done.map_err(|error| format!("line {}: {error}\n    {}", step.line, step.text))?;
    }
    Ok(())
}

async fn come(stage: &mut Stage<'_>, who: &str, expected: &Value) -> Result<(), String> {
    let (method, id, sub) = (expected.get("method"), expected.get("id"), &expected["params"]["sub"]);
    // Answers come as they finish, and between the events of one subscription others may come.
    let is_next = |came: &Value| match method {
        Some(_) => came.get("method") == method && (sub.is_null() || came["params"]["sub"] == *sub),
        None => came.get("method").is_none() && came.get("id") == id,
    };
    match stage.raw(who).await.wait_for(PATIENCE, is_next).await {
        Ok(came) => stage.heard.check(expected, &came).map_err(|error| format!("{error}\n    {came}")),
        Err(Lost::TimedOut) => Err("it does not come".to_owned()),
        Err(lost) => Err(format!("the connection ends: {lost:?}")),
    }
}
