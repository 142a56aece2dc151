//! Values as KernelCI's query strings carry them: as text, which a native value may replace.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::model::lax;

/// A number or a truth value, or text that says one; blank text and `null` say nothing.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected an integer, true or false, or text that says one")]
pub(super) enum Loose {
    /// `true`
    Flag(bool),
    /// `5`
    Number(i64),
    /// `"5"`
    Text(String),
}

impl Loose {
    /// The integer, if one is given; 400 in the words that Python's `int()` has for what is none.
    pub(super) fn integer(given: Option<&Loose>) -> Result<Option<i64>> {
        let bad = |text: &str| {
            let shown: String = text.chars().take(64).collect();
            Err(Error::bad_request(format!("invalid literal for int() with base 10: '{shown}'")))
        };
        match given {
            None => Ok(None),
            Some(Loose::Number(number)) => Ok(Some(*number)),
            Some(Loose::Flag(flag)) => bad(&flag.to_string()),
            Some(Loose::Text(text)) => match text.trim() {
                "" | "null" => Ok(None),
                number => lax::python_int(number).map_or_else(|| bad(text), |number| Ok(Some(number))),
            },
        }
    }

    /// The truth value, false if none is given; 400 naming the field if it is something else.
    pub(super) fn flag(field: &str, given: Option<&Loose>) -> Result<bool> {
        match given {
            None => Ok(false),
            Some(Loose::Flag(flag)) => Ok(*flag),
            Some(Loose::Number(number @ (0 | 1))) => Ok(*number == 1),
            Some(Loose::Number(_)) => Err(Error::bad_request(format!("{field}: expected true or false"))),
            Some(Loose::Text(text)) => match &*text.trim().to_ascii_lowercase() {
                "" | "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
                "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
                _ => Err(Error::bad_request(format!("{field}: expected true or false"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_python_would() {
        let text = |text: &str| Some(Loose::Text(text.into()));
        let integer = |given: Option<Loose>| Loose::integer(given.as_ref()).ok();
        assert_eq!(integer(text(" 12 ")), Some(Some(12)));
        assert_eq!(integer(text("-3")), Some(Some(-3)));
        assert_eq!(integer(text("")), Some(None));
        assert_eq!(integer(Some(Loose::Number(7))), Some(Some(7)));
        assert_eq!(integer(text("1.5")), None);
        let error = Loose::integer(text("abc").as_ref()).unwrap_err();
        assert_eq!(error.detail(), "invalid literal for int() with base 10: 'abc'");
        let flag = |given: Option<Loose>| Loose::flag("recursive", given.as_ref()).ok();
        assert_eq!(
            [flag(text("True")), flag(text("false")), flag(None)],
            [Some(true), Some(false), Some(false)]
        );
        assert_eq!(flag(text("maybe")), None);
    }

    #[test]
    fn what_is_none_is_told_in_words_of_ours() {
        for value in ["1.5", "[]", "{}", "18446744073709551615"] {
            let error = serde_json::from_str::<Loose>(value).unwrap_err();
            assert_eq!(error.to_string(), "expected an integer, true or false, or text that says one");
        }
    }
}
