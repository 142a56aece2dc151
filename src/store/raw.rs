//! A node as a store hands it out: SQLite has its JSON text, MongoDB its fields. What is only passed on is not taken
//! apart.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::Wire;
use crate::error::{Error, Result};

/// A node in wire form. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Raw {
    /// Compact JSON.
    Text(Arc<str>),
    /// As a value.
    Fields(Arc<Wire>),
}

impl Raw {
    /// The node to look into.
    pub fn into_wire(self) -> Result<Wire> {
        match self {
            Raw::Text(text) => serde_json::from_str(&text).map_err(Error::internal),
            Raw::Fields(fields) => Ok(Arc::unwrap_or_clone(fields)),
        }
    }

    /// About how many bytes its JSON has; exactly, if it is text.
    pub fn size(&self) -> usize {
        match self {
            Raw::Text(text) => text.len(),
            Raw::Fields(_) => 1024,
        }
    }

    /// The node as JSON.
    pub fn json(&self) -> Result<Cow<'_, str>> {
        match self {
            Raw::Text(text) => Ok(Cow::Borrowed(text)),
            Raw::Fields(fields) => Ok(Cow::Owned(serde_json::to_string(&**fields).map_err(Error::internal)?)),
        }
    }

    /// As text, whatever it was.
    pub fn into_text(self) -> Result<Raw> {
        match self {
            Raw::Text(_) => Ok(self),
            Raw::Fields(_) => Ok(Raw::Text(self.json()?.into())),
        }
    }

    /// The node as JSON without its revision, and the revision.
    pub fn json_and_revision(&self) -> Result<(String, Option<u64>)> {
        match self {
            Raw::Text(text) => match split(text) {
                Some((rest, revision)) => Ok((format!("{rest}}}"), Some(revision))),
                None => Raw::Fields(Arc::new(self.clone().into_wire()?)).json_and_revision(),
            },
            Raw::Fields(fields) => {
                let revision = fields.get("revision").and_then(Value::as_u64);
                let mut json = Vec::with_capacity(2048);
                let mut serializer = serde_json::Serializer::new(&mut json);
                let others = fields.iter().filter(|(key, _)| *key != "revision");
                serde::Serializer::collect_map(&mut serializer, others).map_err(Error::internal)?;
                Ok((String::from_utf8(json).map_err(Error::internal)?, revision))
            }
        }
    }
}

/// The JSON before `,"revision":N}`, and N. (A quotation mark inside of a text has a backslash before it.)
fn split(text: &str) -> Option<(&str, u64)> {
    let (rest, revision) = text.strip_suffix('}')?.rsplit_once(",\"revision\":")?;
    Some((rest, revision.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let trap = r#"x,"revision":7}"#;
        for node in [
            json!({"id": "1", "data": {"revision": 3}, "revision": 12}),
            json!({"id": trap, "name": trap, "revision": 0}),
            json!({"id": "1", "data": {"a": 1, "revision": 3}}),
            json!({"id": "1", "revision": 5, "name": trap}),
            json!({"id": "1", "revision": 5, "data": {"a": 1, "revision": 6}}),
        ] {
            let text = Raw::Text(node.to_string().into());
            let fields = Raw::Fields(Arc::new(node.as_object().cloned().unwrap()));
            assert_eq!(text.json().unwrap(), fields.json().unwrap());
            assert_eq!(text.clone().into_wire().unwrap(), fields.clone().into_wire().unwrap());
            let (json, revision) = fields.json_and_revision().unwrap();
            assert_eq!(text.json_and_revision().unwrap(), (json, revision), "{node}");
        }
    }
}
