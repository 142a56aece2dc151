//! Writes down what comes, in a conversation that has only what the client says.

use serde_json::{Value, json};

use super::expect::{JSON, Variables, kind_of};
use super::replay::Stage;
use super::script::{Script, Step, What};
use crate::support::{PATIENCE, Server};

/// Members with a text that says nothing to clients.
const OPAQUE: &[&str] = &["epoch", "instance", "lease", "next", "session"];
/// Members with a number that nobody can foresee, or that clients go by and that may change.
const NUMBERS: &[(&str, &str)] = &[
    ("expires_in", "<integer>"),
    ("in_ms", "<integer>"),
    ("inflight", "<integer>"),
    ("lag_seconds", "<number>"),
    ("message", "<integer>"),
    ("ping_ms", "<integer>"),
    ("retry_after_ms", "<integer>"),
    ("subscription", "<integer>"),
    ("subscriptions", "<integer>"),
];
/// Where a line of the file ends, about.
const WIDTH: usize = 110;

/// Holds the conversation and writes its file.
pub(super) async fn record(server: &Server, script: &Script, known: Variables) -> Result<(), String> {
    let (mut stage, mut lines) = (Stage::new(server, known), Vec::new());
    let mut steps = script.steps.iter().peekable();
    while let Some(step) = steps.next() {
        let failed = |error: String| format!("line {}: {error}", step.line);
        // Steps that come about by what is written are not written themselves.
        if !matches!(step.what, What::ToCome { .. } | What::Let { .. }) {
            lines.push(wrapped(&step.text));
        }
        stage.act(&step.what).await.map_err(failed)?;
        let Some((head, mut message)) = heard(&mut stage, step).await.map_err(failed)? else { continue };
        let mut kept = message.clone();
        shorten(&mut kept);
        let mut lets = Vec::new();
        while let Some(What::Let { name, path }) = steps.peek().map(|step| &step.what) {
            let value = at(&mut message, path).ok_or_else(|| failed(format!("there is no {path}")))?;
            lets.push((name, path, value.take()));
            steps.next();
        }
        generalize(&stage.heard, &mut kept);
        forget_place(&step.what, &mut kept);
        for (name, path, value) in lets {
            let kind = match &value {
                Value::String(text) => kind_of(text).unwrap_or("text"),
                _ => "integer",
            };
            *at(&mut kept, path).expect("it is there") = format!("${{{name}:{kind}}}").into();
            stage.heard.set(name, value);
        }
        let kept = if kept.is_null() { String::new() } else { kept.to_string() };
        lines.push(wrapped(format!("{head}{kept}").trim_end()));
    }
    std::fs::write(&script.path, lines.join("\n") + "\n").map_err(|error| error.to_string())?;
    Err("it was recorded: look at it, then replay it".to_owned())
}

/// What comes because of a step, with what the line begins with.
async fn heard(stage: &mut Stage<'_>, step: &Step) -> Result<Option<(String, Value)>, String> {
    let head = |who: &str| if who.is_empty() { "← ".to_owned() } else { format!("{who} ← ") };
    let (who, came) = match &step.what {
        What::Send { who, text } => {
            let request: Option<Value> = serde_json::from_str(&stage.heard.fill(text)).ok();
            // What cannot be read is answered with the id null, what has none not at all.
            let id = match &request {
                Some(Value::Object(members))
                    if !members.contains_key("id") && members.contains_key("method") =>
                {
                    return Ok(None);
                }
                Some(request) => request["id"].clone(),
                None => Value::Null,
            };
            let id = if id.is_object() { Value::Null } else { id };
            let is_answer = |came: &Value| came.get("method").is_none() && came["id"] == id;
            (who, stage.raw(who).await.wait_for(PATIENCE, is_answer).await)
        }
        What::ToCome { who, method } => {
            let wanted = |came: &Value| match (came["method"].as_str(), method) {
                (Some(came), Some(method)) => came == method,
                (Some(came), None) => came != "progress",
                (None, _) => false,
            };
            (who, stage.raw(who).await.wait_for(PATIENCE, wanted).await)
        }
        What::Post { .. } => {
            let answer = stage.posted.pop_front().expect("an answer");
            return Ok(Some((format!("POST ← {} ", answer.status), answer.json)));
        }
        _ => return Ok(None),
    };
    let came = came.map_err(|lost| format!("nothing comes: {lost:?}"))?;
    Ok(Some((head(who), came)))
}

/// The member at a dotted path.
fn at<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(value, |value, name| match name.parse::<usize>() {
        Ok(index) if value.is_array() => value.get_mut(index),
        _ => value.get_mut(name),
    })
}

/// Of an error clients rely on all but its texts.
fn shorten(message: &mut Value) {
    let Some(error) = message.get_mut("error").and_then(Value::as_object_mut) else { return };
    error.shift_remove("message");
    if let Some(data) = error.get_mut("data").and_then(Value::as_object_mut) {
        data.shift_remove("detail");
    }
}

/// Puts kinds in the place of what differs from one run to the next.
fn generalize(heard: &Variables, value: &mut Value) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| member(heard, name, value)),
        Value::Array(items) => items.iter_mut().for_each(|item| generalize(heard, item)),
        Value::String(text) => {
            if let Some(mut inner) = serde_json::from_str(text).ok().filter(Value::is_object) {
                generalize(heard, &mut inner);
                *value = json!({JSON: inner});
            } else if let Some(name) = heard.name_of(text) {
                *text = format!("${{{name}}}");
            } else if let Some(kind) = kind_of(text) {
                *text = format!("<{kind}>");
            }
        }
        _ => {}
    }
}

fn member(heard: &Variables, name: &str, value: &mut Value) {
    generalize(heard, value);
    match value {
        Value::String(text) if OPAQUE.contains(&name) && !text.starts_with("${") => *text = "<text>".into(),
        Value::Number(_) => {
            let number = NUMBERS.iter().find(|(known, _)| *known == name);
            *value = number.map_or_else(|| value.clone(), |(_, kind)| Value::from(*kind));
        }
        _ => {}
    }
}

/// Where the channel `node` stands depends on what was held before.
fn forget_place(what: &What, message: &mut Value) {
    if let What::Send { text, .. } = what
        && let Ok(request) = serde_json::from_str::<Value>(text)
        && request["method"] == "event.subscribe"
        && request["params"].get("channel").is_none_or(|channel| channel == "node")
        && let Some(seq) = message.pointer_mut("/result/position/seq")
    {
        *seq = "<integer>".into();
    }
    // Only of nodes.
    if message.pointer("/params/event/subject").is_some() {
        message["params"]["seq"] = "<integer>".into();
        message["params"]["event"]["sequence"] = "<sequence>".into();
    }
}

/// A step as lines of the file: JSON goes on in the next line behind a comma between tokens.
fn wrapped(text: &str) -> String {
    if text.starts_with('#') {
        return text.to_owned();
    }
    let (mut lines, mut line, mut in_string, mut escaped) = (Vec::new(), String::new(), false, false);
    let mut pending = String::new();
    for letter in text.chars() {
        pending.push(letter);
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            ',' if !in_string => {
                if !line.trim_start().is_empty() && line.chars().count() + pending.chars().count() > WIDTH {
                    lines.push(std::mem::replace(&mut line, "    ".to_owned()));
                }
                line.push_str(&std::mem::take(&mut pending));
            }
            _ => {}
        }
    }
    if !line.trim_start().is_empty() && line.chars().count() + pending.chars().count() > WIDTH {
        lines.push(std::mem::replace(&mut line, "    ".to_owned()));
    }
    lines.push(line + &pending);
    lines.join("\n")
}
