//! The form of a conversation: a line a step, and what is indented goes on with the line above.
//!
//! ```text
//! # Anything that a reader should know.
//! with PING_INTERVAL_MS=2000              the server has this setting
//! → {"jsonrpc":"2.0","id":1,…}            the client sends exactly this text
//! ← {"jsonrpc":"2.0","id":1,…}            this answer comes, or the next notification of this kind and `sub`
//! lab → …, lab ← …                        the same on another connection
//! lab connect ${token}                    …which is opened with this token in the upgrade
//! lab close                               the client leaves
//! lab × 4401                              the server closes
//! POST → …, POST ${token} → …             the text goes to POST /latest/rpc
//! POST ← 200 {…}                          what that answers
//! another moment                          what happens from here on has a later time than what happened
//! ```
//!
//! `${name}` stands for what was heard or is known ([`super::known`]); quoted and alone it may be a number. In what comes,
//! `${name:kind}` hears it, `<kind>` is anything of a kind, `{"<json>":…}` a text that has JSON in it ([`super::expect`]).
//!
//! In a script that is still to be recorded, `← …` says that a notification comes here (`← … progress`: of this kind),
//! and `let name = result.id` below a step that it hears this as `name`.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A conversation.
pub(super) struct Script {
    pub(super) path: PathBuf,
    /// Of the file, without its end.
    pub(super) name: String,
    pub(super) settings: Vec<(String, String)>,
    pub(super) steps: Vec<Step>,
    /// Whether it says what comes.
    pub(super) is_recorded: bool,
}

/// A step.
pub(super) struct Step {
    /// In the file, from 1.
    pub(super) line: usize,
    /// As it stands there, its lines joined.
    pub(super) text: String,
    pub(super) what: What,
}

/// What happens.
pub(super) enum What {
    /// Nothing: a comment, a setting.
    Said,
    AnotherMoment,
    Connect {
        who: String,
        token: String,
    },
    Close {
        who: String,
    },
    Closed {
        who: String,
        code: u16,
    },
    Send {
        who: String,
        text: String,
    },
    Come {
        who: String,
        message: Value,
    },
    /// A notification comes that is not recorded yet.
    ToCome {
        who: String,
        method: Option<String>,
    },
    Post {
        token: Option<String>,
        text: String,
    },
    Answer {
        status: u16,
        body: Option<Value>,
    },
    Let {
        name: String,
        path: String,
    },
}

impl Script {
    /// Reads a file; panics at what it cannot read.
    pub(super) fn read(path: &Path) -> Script {
        let text = std::fs::read_to_string(path).expect("the file is read");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let mut joined: Vec<(usize, String)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            match joined.last_mut() {
                Some((_, before)) if line.starts_with([' ', '\t']) => before.push_str(line.trim_start()),
                _ => joined.push((number + 1, line.to_owned())),
            }
        }
        let (mut settings, mut steps) = (Vec::new(), Vec::new());
        for (line, text) in joined {
            if let Some(setting) = text.strip_prefix("with ") {
                let (key, value) = setting.split_once('=').expect("a setting");
                settings.push((key.to_owned(), value.to_owned()));
            }
            let what = step(&text).unwrap_or_else(|| panic!("{name}:{line} is no step: {text}"));
            steps.push(Step { line, text, what });
        }
        let comes = |step: &Step| matches!(step.what, What::Come { .. } | What::Answer { .. });
        let is_recorded = steps.iter().any(comes);
        let open = |step: &Step| matches!(step.what, What::ToCome { .. } | What::Let { .. });
        assert!(!is_recorded || !steps.iter().any(open), "{name} is recorded in part");
        Script { path: path.to_owned(), name, settings, steps, is_recorded }
    }
}

fn step(text: &str) -> Option<What> {
    if text.is_empty() || text.starts_with('#') || text.starts_with("with ") {
        return Some(What::Said);
    }
    if text == "another moment" {
        return Some(What::AnotherMoment);
    }
    if let Some(rest) = text.strip_prefix("let ") {
        let (name, path) = rest.split_once(" = ")?;
        return Some(What::Let { name: name.to_owned(), path: path.to_owned() });
    }
    let Some(at) = text.find(['→', '←', '×']) else {
        let mut words = text.splitn(3, ' ');
        return match (words.next()?.to_owned(), words.next()?, words.next()) {
            (who, "connect", Some(token)) => Some(What::Connect { who, token: token.to_owned() }),
            (who, "close", None) => Some(What::Close { who }),
            _ => None,
        };
    };
    let arrow = text[at..].chars().next()?;
    let (who, rest) = (text[..at].trim().to_owned(), &text[at + arrow.len_utf8()..]);
    let rest = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
    let post = who == "POST" || who.starts_with("POST ");
    Some(match arrow {
        '→' if post => {
            let token = who.split_once(' ').map(|(_, token)| token.to_owned());
            What::Post { token, text: rest }
        }
        '→' => What::Send { who, text: rest },
        '←' if post => {
            let (status, body) = rest.split_once(' ').unwrap_or((&rest, ""));
            let body = match body {
                "" => None,
                text => Some(serde_json::from_str(text).ok()?),
            };
            What::Answer { status: status.parse().ok()?, body }
        }
        '←' => match rest.strip_prefix('…') {
            Some(method) => {
                let method = method.trim();
                What::ToCome { who, method: (!method.is_empty()).then(|| method.to_owned()) }
            }
            None => What::Come { who, message: serde_json::from_str(&rest).ok()? },
        },
        _ => What::Closed { who, code: rest.parse().ok()? },
    })
}
