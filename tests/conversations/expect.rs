//! What a client relies on of a message: the members that were recorded.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// `{"<json>": …}` is a text that has this as JSON.
pub(super) const JSON: &str = "<json>";

/// What was heard so far.
#[derive(Clone, Default)]
pub(super) struct Variables(BTreeMap<String, Value>);

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// The name of what has this value, if it is of a length that does not come about by chance.
    pub(super) fn name_of(&self, value: &str) -> Option<&str> {
        let known = self.0.iter().find(|(_, known)| known.as_str() == Some(value) && value.len() >= 16);
        known.map(|(name, _)| name.as_str())
    }

    /// The text with all `${name}` replaced; quoted and alone, it becomes the value.
    pub(super) fn fill(&self, text: &str) -> String {
        static PATTERN: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r#""\$\{(\w+)\}"|\$\{(\w+)\}"#).expect("a pattern"));
        let value = |found: &regex::Captures<'_>| {
            let (quoted, bare) = (found.get(1), found.get(2));
            let name = quoted.or(bare).expect("a name").as_str();
            let value = self.0.get(name).unwrap_or_else(|| panic!("${{{name}}} was not heard yet"));
            match (quoted, value) {
                (None, Value::String(text)) => text.clone(),
                _ => value.to_string(),
            }
        };
        PATTERN.replace_all(text, value).into_owned()
    }

    /// Whether what came has all that is expected; hears what is to be heard.
    pub(super) fn check(&mut self, expected: &Value, came: &Value) -> Result<(), String> {
        self.check_at("", expected, came)
    }

    fn check_at(&mut self, at: &str, expected: &Value, came: &Value) -> Result<(), String> {
        match (expected, came) {
            (Value::Object(expected), Value::String(text)) if expected.contains_key(JSON) => {
                let came = serde_json::from_str(text).map_err(|error| format!("{at} is no JSON: {error}"))?;
                self.check_at(&format!("{at}.{JSON}"), &expected[JSON], &came)
            }
            (Value::Object(expected), Value::Object(came)) => {
                expected.iter().try_for_each(|(name, value)| {
                    let at = format!("{at}.{name}");
                    let came = came.get(name).ok_or_else(|| format!("{at} is missing"))?;
                    self.check_at(&at, value, came)
                })
            }
            (Value::Array(expected), Value::Array(came)) if expected.len() == came.len() => {
                let mut pairs = expected.iter().zip(came).enumerate();
                pairs.try_for_each(|(index, (value, came))| {
                    self.check_at(&format!("{at}[{index}]"), value, came)
                })
            }
            (Value::String(text), _) => self.check_text(at, text, came),
            _ if expected == came => Ok(()),
            _ => Err(format!("{at} is {came}, not {expected}")),
        }
    }

    fn check_text(&mut self, at: &str, text: &str, came: &Value) -> Result<(), String> {
        let wrong = |expected: &str| Err(format!("{at} is {came}, not {expected}"));
        if let Some(kind) = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')) {
            return if is(kind, came) { Ok(()) } else { wrong(text) };
        }
        if let Some(name) = text.strip_prefix("${").and_then(|text| text.strip_suffix('}')) {
            if let Some((name, kind)) = name.split_once(':') {
                if !is(kind, came) {
                    return wrong(kind);
                }
                self.set(name, came.clone());
                return Ok(());
            }
            let known = self.0.get(name).unwrap_or_else(|| panic!("${{{name}}} was not heard yet"));
            return if known == came { Ok(()) } else { wrong(&known.to_string()) };
        }
        if came.as_str() == Some(text) { Ok(()) } else { wrong(&format!("{text:?}")) }
    }
}

/// The kinds, and how those that have a form look.
static FORMS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let forms = [
        ("id", r"^[0-9a-f]{24}$"),
        ("uuid", r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
        ("time", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?$"),
        ("instant", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"),
        ("sequence", r"^\d{20}$"),
        ("token", r"^eyJ[\w-]+\.[\w-]+\.[\w-]+$"),
    ];
    forms.map(|(kind, form)| (kind, Regex::new(form).expect("a pattern"))).to_vec()
});

/// Whether a value is of this kind.
fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "text" => value.as_str().is_some_and(|text| !text.is_empty()),
        _ => {
            let form = FORMS.iter().find(|(name, _)| *name == kind);
            let (_, form) = form.unwrap_or_else(|| panic!("there is no kind {kind}"));
            value.as_str().is_some_and(|text| form.is_match(text))
        }
    }
}

/// The kind of a text that has the form of one.
pub(super) fn kind_of(text: &str) -> Option<&'static str> {
    // A number in fixed width is told as it is.
    let form = FORMS.iter().find(|(kind, form)| *kind != "sequence" && form.is_match(text));
    form.map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(expected: Value, came: Value) -> bool {
        Variables::default().check(&expected, &came).is_ok()
    }

    #[test]
    fn members_may_be_added_and_nothing_else() {
        let recorded = json!({"id": 1, "result": {"name": "a", "data": {"n": 1}, "items": [{"x": null}]}});
        let added = json!({"id": 1, "new": 1,
            "result": {"more": {}, "name": "a", "data": {"n": 1, "m": 2}, "items": [{"x": null, "y": 1}]}});
        assert!(holds(recorded.clone(), recorded.clone()));
        assert!(holds(recorded.clone(), added));
        for other in [
            json!({"id": 1, "result": {"data": {"n": 1}, "items": [{"x": null}]}}),
            json!({"id": 1, "result": {"Name": "a", "data": {"n": 1}, "items": [{"x": null}]}}),
            json!({"id": 1, "result": {"name": "b", "data": {"n": 1}, "items": [{"x": null}]}}),
            json!({"id": 1, "result": {"name": "a", "data": {"n": "1"}, "items": [{"x": null}]}}),
            json!({"id": 1, "result": {"name": "a", "data": {"n": 1.0}, "items": [{"x": null}]}}),
            json!({"id": 1, "result": {"name": "a", "data": null, "items": [{"x": null}]}}),
            json!({"id": 1, "result": {"name": "a", "data": {"n": 1}, "items": []}}),
            json!({"id": 1, "result": {"name": "a", "data": {"n": 1}, "items": [{}]}}),
            json!({"id": 1, "result": {"name": "a", "data": {"n": 1}, "items": [{"x": 0}]}}),
        ] {
            assert!(!holds(recorded.clone(), other.clone()), "{other}");
        }
    }

    #[test]
    fn kinds_are_kept() {
        for (kind, yes, no) in [
            ("<integer>", json!(5), json!(5.5)),
            ("<integer>", json!(0), json!("5")),
            ("<number>", json!(0.5), json!(null)),
            ("<text>", json!("x"), json!("")),
            ("<id>", json!("0123456789abcdef01234567"), json!("0123456789ABCDEF01234567")),
            ("<time>", json!("2026-01-01T00:00:00.123000"), json!("2026-01-01T00:00:00Z")),
            ("<instant>", json!("2026-01-01T00:00:00+00:00"), json!("2026-01-01T00:00:00")),
        ] {
            assert!(holds(json!(kind), yes), "{kind}");
            assert!(!holds(json!(kind), no), "{kind}");
        }
    }

    #[test]
    fn what_was_heard_is_said_and_expected() {
        let mut heard = Variables::default();
        heard.check(&json!({"a": "${n:integer}", "b": "${t:text}"}), &json!({"a": 5, "b": "x\"y"})).unwrap();
        assert_eq!(heard.fill(r#"{"a":"${n}","b":"${t}","c":"n${n}"}"#), r#"{"a":5,"b":"x\"y","c":"n5"}"#);
        assert!(heard.check(&json!("${n}"), &json!(5)).is_ok());
        assert!(heard.check(&json!("${n}"), &json!(6)).is_err());
    }
}
