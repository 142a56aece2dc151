//! Attributes of published events.
//!
//! Names of CloudEvents' attributes are lower-case letters and digits; KernelCI's clients choose others (`Foo_bar`). Such
//! an attribute goes by what of its name is left (`foobar`), and one attribute more, [`NAMES`], tells how it was
//! written, for those who read events as KernelCI's server wrote them (`/listen`).

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The attribute with the names that were written otherwise: the JSON text of a list.
pub(super) const NAMES: &str = "attributenames";
const MOST: usize = 32;
/// Bytes of a name, and of a partition key.
const LONGEST_NAME: usize = 64;
const LONGEST_KEY: usize = 256;

/// Attributes that the server sets.
const OURS: [&str; 12] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "data",
    "datacontenttype",
    "owner",
    "partitionkey",
    "sequence",
    NAMES,
];

/// Attributes that a client may give an event.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// `partitionkey`: events that have the same are worked on one after the other by ordered groups.
    pub(super) partitionkey: Option<String>,
    /// All others, with names as CloudEvents have them.
    pub(super) extensions: Map<String, Value>,
}

impl Attributes {
    /// Reads them. Those that the server sets, and those that are null, are passed over; 422 names the first one that
    /// is none.
    pub(super) fn read(mut given: Map<String, Value>) -> Result<Attributes> {
        let partitionkey = given.shift_remove("partitionkey").filter(|key| !key.is_null());
        given.retain(|name, value| !OURS.contains(&name.as_str()) && !value.is_null());
        if given.len() > MOST {
            return Err(Error::invalid("attributes", format!("expected at most {MOST}")));
        }
        let (mut extensions, mut written) = (Map::new(), Vec::new());
        for (name, value) in given {
            let wrong = |expected: &str| {
                let shown: String = name.chars().take(32).collect();
                Err(Error::invalid(format!("attributes.{shown}"), expected))
            };
            let plain = plain(&name);
            if plain.is_empty() || name.len() > LONGEST_NAME {
                return wrong("expected a name of at most 64 bytes with letters or digits");
            }
            if !(value.is_string() || value.is_boolean() || value.is_i64()) {
                return wrong("expected a string, a boolean or an integer");
            }
            if OURS.contains(&&*plain) || extensions.contains_key(&plain) {
                return wrong(&format!(
                    "expected another name: {plain:?} is left of it, as of another one's"
                ));
            }
            if plain != name {
                written.push(name);
            }
            extensions.insert(plain, value);
        }
        if !written.is_empty() {
            extensions.insert(NAMES.to_owned(), Value::from(written).to_string().into());
        }
        Ok(Attributes { partitionkey: partitionkey.map(read_key).transpose()?, extensions })
    }
}

fn read_key(key: Value) -> Result<String> {
    match key {
        Value::String(key) if (1..=LONGEST_KEY).contains(&key.len()) => Ok(key),
        _ => Err(Error::invalid(
            "attributes.partitionkey",
            format!("expected 1 to {LONGEST_KEY} bytes of text"),
        )),
    }
}

/// What is left of a name in a CloudEvent.
fn plain(name: &str) -> String {
    let letters = name.chars().flat_map(char::to_lowercase);
    letters.filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit()).collect()
}

/// Gives the attributes of an event the names that they were written with.
pub(super) fn restore(event: &mut Map<String, Value>) {
    let Some(names) = event.shift_remove(NAMES) else { return };
    let names: Vec<String> =
        names.as_str().and_then(|names| serde_json::from_str(names).ok()).unwrap_or_default();
    let mut written: HashMap<String, String> = names.into_iter().map(|name| (plain(&name), name)).collect();
    let attributes = std::mem::take(event).into_iter();
    *event = attributes.map(|(name, value)| (written.remove(&name).unwrap_or(name), value)).collect();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(given: Value) -> Result<Attributes> {
        Attributes::read(given.as_object().cloned().unwrap())
    }

    #[test]
    fn names_are_made_plain_and_come_back_as_they_were_written() {
        let given = json!({"Foo_bar": 1, "traceparent": "00", "Grün": true, "owner": "eve", "gone": null});
        let mut event = read(given).unwrap().extensions;
        let plain = json!({"foobar": 1, "traceparent": "00", "grn": true, "attributenames": "[\"Foo_bar\",\"Grün\"]"});
        assert_eq!(Value::from(event.clone()), plain);
        restore(&mut event);
        assert_eq!(Value::from(event.clone()), json!({"Foo_bar": 1, "traceparent": "00", "Grün": true}));
        let before = event.clone();
        restore(&mut event);
        assert_eq!(event, before);
    }

    #[test]
    fn names_that_leave_nothing_or_the_same_as_others_are_refused() {
        for bad in [
            json!({"_": 1}),
            json!({"ü": 1}),
            json!({"": 1}),
            json!({"a_b": 1, "A-b": 2}),
            json!({"ab": 1, "a b": 2}),
            json!({"Owner": "eve"}),
            json!({"attribute_names": "[]"}),
            json!({"x".repeat(65): 1}),
            json!({"a": 1.5}),
            json!({"a": []}),
            json!({"partitionkey": ""}),
            json!({"partitionkey": 5}),
        ] {
            let error = read(bad.clone()).unwrap_err();
            assert_eq!(error.status(), 422, "{bad}");
            assert!(error.detail().as_str().is_some_and(|detail| detail.starts_with("attributes.")), "{bad}");
        }
        let many = (0..33).map(|n| (format!("a{n}"), n.into())).collect();
        assert_eq!(Attributes::read(many).unwrap_err().status(), 422);
        assert_eq!(read(json!({"partitionkey": "t", "x": 1})).unwrap().partitionkey.as_deref(), Some("t"));
        assert_eq!(read(json!({"partitionkey": null})).unwrap().partitionkey, None);
    }
}
