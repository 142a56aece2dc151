//! The regular expressions of a request. Compiling one takes up to some milliseconds, so it is done before the operation
//! begins, apart from the async threads, a few at a time, and holders take turns. The operation's filter then finds them
//! by their text ([`Pattern`]).

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{Context, Params};
use crate::app::App;
use crate::error::{Error, Result};
use crate::filter::{Pattern, limits};
use crate::quota::Holder;

/// Behind a field's name: what follows is a regular expression.
const OPERATOR: &str = "__re";

/// Regular expressions as a request says them.
#[derive(Debug, Default)]
pub struct Sources(Vec<Source>);

#[derive(Debug)]
struct Source {
    key: String,
    text: String,
    /// It stands in a query string, which decides how a mistake is answered.
    in_query: bool,
}

/// Where the parameters of an operation have regular expressions.
#[derive(Default, Deserialize)]
struct Given {
    #[serde(default)]
    filter: Value,
    /// Of `event.find`: itself one.
    #[serde(default)]
    path: Value,
}

impl Sources {
    /// Those in the conditions of a query string. 400 if they are more than a filter may have.
    pub fn in_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Sources> {
        let mut found = Sources::default();
        for (key, text) in pairs {
            if key.ends_with(OPERATOR) {
                found.add(key, text, true)?;
            }
        }
        Ok(found)
    }

    /// Those in parameters. 422 or 400 if they are more than a filter may have.
    pub(super) fn in_params(params: &Params<'_>) -> Result<Sources> {
        let given = match params {
            Params::Text(text) => read(text),
            Params::Owned(text) => read(text),
            Params::Value(Value::Object(params)) => {
                let member = |name| params.get(name).cloned().unwrap_or_default();
                Given { filter: member("filter"), path: member("path") }
            }
            Params::Value(_) => Given::default(),
        };
        let mut found = match &given.filter {
            Value::String(text) => {
                let pairs: Vec<_> = url::form_urlencoded::parse(text.as_bytes()).collect();
                Sources::in_pairs(pairs.iter().map(|(key, text)| (&**key, &**text)))?
            }
            filter => {
                let mut found = Sources::default();
                found.look(filter, 1)?;
                found
            }
        };
        if let Value::String(text) = given.path
            && !text.is_empty()
        {
            found.0.push(Source { key: "path".to_owned(), text, in_query: true });
        }
        Ok(found)
    }

    // Recursion: at most so deep as a filter may be.
    fn look(&mut self, filter: &Value, level: usize) -> Result<()> {
        match filter {
            Value::Object(members) if level <= limits::LEVELS => {
                members.iter().try_for_each(|(key, value)| match value {
                    Value::String(text) if key.ends_with(OPERATOR) => self.add(key, text, false),
                    _ => self.look(value, level + 1),
                })
            }
            Value::Array(filters) => filters
                .iter()
                .filter(|filter| filter.is_object())
                .try_for_each(|filter| self.look(filter, level)),
            _ => Ok(()),
        }
    }

    fn add(&mut self, key: &str, text: &str, in_query: bool) -> Result<()> {
        let source = Source { key: key.to_owned(), text: text.to_owned(), in_query };
        if self.0.len() >= limits::PATTERNS {
            let most = limits::PATTERNS;
            return Err(source.is_wrong(format!("a filter has at most {most} regular expressions")));
        }
        self.0.push(source);
        Ok(())
    }

    /// Compiles them, when it is this holder's turn; what is returned has to live until the filter is read. 422 or 400 for
    /// one that is none, 429 if too much is asked at once.
    pub async fn compile(self, app: &App, holder: Holder) -> Result<Vec<Pattern>> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let turn = app
            .quotas
            .patterns
            .turn_within(Duration::from_millis(app.config.query_timeout_ms), holder)
            .await?;
        let work = move || {
            let _turn = turn;
            self.0.iter().map(Source::compile).collect()
        };
        spawn_blocking(work).await.map_err(Error::internal)?
    }
}

impl Source {
    fn compile(&self) -> Result<Pattern> {
        Pattern::new(&self.text).map_err(|reason| self.is_wrong(reason))
    }

    fn is_wrong(&self, reason: String) -> Error {
        match self.in_query {
            true => Error::bad_request(format!("{}: {reason}", self.key)),
            false => Error::invalid(&self.key, reason),
        }
    }
}

/// What cannot be read has none: the operation says what is wrong with it.
fn read(text: &str) -> Given {
    // A name may be written with escapes.
    let may_have = text.contains(OPERATOR) || text.contains("path") || text.contains(['%', '\\']);
    if may_have { serde_json::from_str(text).unwrap_or_default() } else { Given::default() }
}

/// Compiles those of a request.
pub(super) async fn compile(context: &Context, params: &Params<'_>) -> Result<Vec<Pattern>> {
    Sources::in_params(params)?.compile(&context.app, context.holder()).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(params: Params<'_>) -> Vec<String> {
        Sources::in_params(&params).unwrap().0.into_iter().map(|source| source.text).collect()
    }

    #[test]
    fn all_that_a_filter_would_compile_is_found() {
        let filter =
            json!({"a__re": "1", "any": [{"b__re": "2"}, {"not": {"all": [{"c__re": "3"}]}}], "d": "__re"});
        let params = json!({"filter": filter, "path": "4", "limit": 1});
        assert_eq!(texts(Params::Text(&params.to_string())), ["1", "2", "3", "4"]);
        assert_eq!(texts(Params::Value(params)), ["1", "2", "3", "4"]);
        assert_eq!(texts(Params::Text(r#"{"filter":{"a\u005f_re":"1"}}"#)), ["1"]);
        assert_eq!(texts(Params::Text(r#"{"filter":"a=b&c__re=1&d__r%65=2"}"#)), ["1", "2"]);
        assert!(texts(Params::Text(r#"{"filter":{"a__re":7}}"#)).is_empty());
        assert!(texts(Params::Text(r#"{"node":{"data":{"a__re":"1"}}}"#)).is_empty());
    }

    #[test]
    fn more_than_a_filter_may_have_are_refused_before_any_is_compiled() {
        let pairs: Vec<_> = (0..9).map(|number| (format!("data.a{number}__re"), "x")).collect();
        let filter: serde_json::Map<_, _> =
            pairs.iter().map(|(key, text)| (key.clone(), (*text).into())).collect();
        let refused = Sources::in_params(&Params::Value(json!({"filter": filter}))).unwrap_err();
        assert!(refused.detail().to_string().contains("at most 8 regular expressions"));
        assert_eq!(refused.status(), 422);
        let refused = Sources::in_pairs(pairs.iter().map(|(key, text)| (&**key, *text))).unwrap_err();
        assert_eq!(refused.status(), 400);
    }
}
