//! The regular expressions of a filter before it is read, so that they can be compiled elsewhere: the filter finds those
//! that are in use by their text ([`Pattern`]).

use serde_json::Value;

use super::json::Budget;
use super::operand::{Fault, Op};
use super::{Pattern, limits};
use crate::error::{Error, Result};

/// Regular expressions as a client has written them.
#[derive(Debug, Default)]
pub struct Sources {
    all: Vec<Source>,
    budget: Budget,
}

#[derive(Debug)]
struct Source {
    key: String,
    text: String,
    /// How a mistake in it is answered.
    wrong: fn(Fault, &str) -> Error,
}

impl Sources {
    /// Those of a filter in JSON ([`Filter::from_json`](super::Filter::from_json)); what is no filter has none. 422 if they
    /// are more than a filter may have.
    pub fn in_json(filter: &Value) -> Result<Sources> {
        let mut found = Sources::default();
        found.look(filter, 1)?;
        Ok(found)
    }

    /// Those of a query string ([`Filter::from_query`](super::Filter::from_query)). 400 if they are more than a filter may
    /// have.
    pub fn in_query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Sources> {
        let mut found = Sources::default();
        for (key, text) in pairs {
            found.look_at(key, text, Fault::in_query)?;
        }
        Ok(found)
    }

    /// And this one, a parameter of its own. 400 is how a mistake in it is answered.
    pub fn and(mut self, key: &str, text: &str) -> Sources {
        self.all.push(Source { key: key.to_owned(), text: text.to_owned(), wrong: Fault::in_query });
        self
    }

    // Recursion: at most as deep as a filter may be.
    fn look(&mut self, filter: &Value, level: usize) -> Result<()> {
        let nested = |found: &mut Sources, inner: &Value| found.look(inner, level + 1);
        let Value::Object(members) = filter else { return Ok(()) };
        if level > limits::LEVELS {
            return Ok(());
        }
        members.iter().try_for_each(|(key, value)| match value {
            Value::String(text) => self.look_at(key, text, Fault::in_json),
            Value::Array(filters) => filters.iter().try_for_each(|inner| nested(self, inner)),
            inner => nested(self, inner),
        })
    }

    fn look_at(&mut self, key: &str, text: &str, wrong: fn(Fault, &str) -> Error) -> Result<()> {
        if let Ok((_, Op::Re)) = Op::split(key) {
            self.budget.pattern().map_err(|fault| wrong(fault, key))?;
            self.all.push(Source { key: key.to_owned(), text: text.to_owned(), wrong });
        }
        Ok(())
    }

    /// All of them, if each is in use already: nothing has to be compiled then. 422 or 400 for one that is none.
    pub fn in_use(&self) -> Result<Option<Vec<Pattern>>> {
        self.all.iter().map(|source| source.told(Pattern::in_use(&source.text))).collect()
    }

    /// Compiles them; it may take some milliseconds for each. 422 or 400 for one that is none.
    pub fn compile(&self) -> Result<Vec<Pattern>> {
        self.all.iter().map(|source| source.told(Pattern::new(&source.text))).collect()
    }
}

impl Source {
    fn told<T>(&self, compiled: Result<T, String>) -> Result<T> {
        compiled.map_err(|reason| (self.wrong)(Fault::from(reason), &self.key))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_a_filter_would_compile_is_found() {
        let filter = json!({"a__re": "1", "any": [{"b__re": "2"}, {"not": {"all": [{"c__re": "3"}]}}], "d": "__re", "e__re": 7});
        let found = Sources::in_json(&filter).unwrap().and("path", "4");
        let texts: Vec<_> = found.all.iter().map(|source| source.text.as_str()).collect();
        assert_eq!(texts, ["1", "2", "3", "4"]);
        let found = Sources::in_query([("a", "b"), ("c__re", "1"), ("d__in", "2")]).unwrap();
        assert_eq!(found.compile().unwrap().len(), 1);
    }

    #[test]
    fn what_is_in_use_is_not_compiled_again() {
        let found =
            Sources::in_json(&json!({"a__re": "in use \\d", "any": [{"b__re": "in use, too"}]})).unwrap();
        assert!(found.in_use().unwrap().is_none());
        let compiled = found.compile().unwrap();
        assert_eq!(found.in_use().unwrap().map(|known| known.len()), Some(2));
        drop(compiled);
        assert!(found.in_use().unwrap().is_none());
        assert_eq!(Sources::default().in_use().unwrap().map(|known| known.len()), Some(0));
    }

    #[test]
    fn mistakes_are_told_as_the_filter_tells_them() {
        let pairs: Vec<_> = (0..9).map(|number| (format!("data.a{number}__re"), "x")).collect();
        let many: serde_json::Map<_, _> =
            pairs.iter().map(|(key, text)| (key.clone(), (*text).into())).collect();
        let schema = &super::super::NODE;
        for filter in [json!(many), json!({"a__re": "("})] {
            let sources = Sources::in_json(&filter).and_then(|found| found.compile());
            let told = super::super::Filter::from_json(&filter, schema).unwrap_err();
            assert_eq!(sources.unwrap_err().detail(), told.detail());
            assert_eq!(told.status(), 422);
        }
        let pairs = || pairs.iter().map(|(key, text)| (&**key, *text));
        let told = super::super::Filter::from_query(pairs(), schema).unwrap_err();
        assert_eq!(Sources::in_query(pairs()).unwrap_err().detail(), told.detail());
        assert_eq!(told.status(), 400);
    }
}
